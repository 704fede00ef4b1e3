//! What is asked of the driver before and after it runs: it takes effect when `run` is called.

use std::mem;
use std::sync::Arc;

use super::accept::Acceptor;
use super::bell::lock;
use super::effects::{self, Author, Local};
use super::hub::Hub;
use crate::endpoint::Endpoint;
use crate::guard::{GuardedBytes, drop_each, drop_guarded};
use crate::handle::Post;
use crate::protocol::{Adopted, Boxed, Content, Effect, Outgoing, Protocol, Shared};
use crate::sync::Mutex;

/// What waits for `run`.
#[derive(Default)]
pub(super) struct Outside {
    pub(super) acceptors: Vec<Acceptor>,
    pub(super) connects: Vec<Outgoing<Box<dyn Protocol + Send>>>,
    pub(super) adopted: Vec<Adopted<Box<dyn Protocol + Send>>>,
}

/// Keeps what was asked of `shared`, which no thread has.
pub(super) fn take_in(outside: &Mutex<Outside>, hub: &Arc<Hub>, shared: &mut Shared) {
    let mut new = Outside::default();
    new.take_effects(hub, shared);
    let mut outside = lock(outside);
    outside.connects.append(&mut new.connects);
    outside.adopted.append(&mut new.adopted);
    let all = mem::take(&mut outside.acceptors).into_iter().chain(new.acceptors);
    let (stopped, kept) = all.partition(|acceptor| acceptor.socket.is_stopped());
    outside.acceptors = kept;
    drop(outside);
    drop_each::<Acceptor>(stopped);
}

impl Outside {
    fn take_effects(&mut self, hub: &Arc<Hub>, shared: &mut Shared) {
        // A protocol that cannot be connected gets `closed`, and may ask for something in it.
        let mut told = false;
        while !shared.effects.is_empty() {
            let (list, bytes) = shared.effects.take();
            for effect in list {
                self.take_effect(hub, shared, effect, &bytes, told);
            }
            told = true;
        }
        hub.count(|metrics| metrics.add(&shared.metrics));
    }

    fn take_effect(
        &mut self,
        hub: &Arc<Hub>,
        shared: &mut Shared,
        effect: Effect,
        bytes: &[u8],
        told: bool,
    ) {
        match effect {
            Effect::Write { to, content, .. } => {
                let content = match content {
                    Content::Copied(range) => {
                        Content::Shared(GuardedBytes::new(bytes[range].to_vec()))
                    }
                    other => other,
                };
                hub.take_post(Post::Write { to, content });
            }
            Effect::ShutdownWrite(id) => hub.take_post(Post::ShutdownWrite(id)),
            Effect::Close(id) => hub.take_post(Post::Close(id)),
            Effect::Abort(id) => hub.abort(id),
            Effect::Notify { to, note } => hub.take_post(Post::Notify { to, note }),
            Effect::Connect(outgoing) => {
                let Outgoing { id, addr, limits, options, protocol } = *outgoing;
                match protocol {
                    Boxed::Anywhere(protocol) => {
                        self.connects.push(Outgoing { id, addr, limits, options, protocol });
                    }
                    Boxed::Here(protocol) => {
                        let peer = addr.at_once().unwrap_or(Endpoint::Other);
                        refuse(hub, shared, Local { id, peer, limits, protocol }, told);
                    }
                }
            }
            Effect::Adopt(adopted) => {
                let Adopted { id, peer, limits, socket, protocol } = *adopted;
                match protocol {
                    Boxed::Anywhere(protocol) => {
                        self.adopted.push(Adopted { id, peer, limits, socket, protocol });
                    }
                    Boxed::Here(protocol) => {
                        refuse(hub, shared, Local { id, peer, limits, protocol }, told);
                    }
                }
            }
            Effect::Listen { id, sockets, limits, factory } => {
                self.acceptors.extend(effects::listen(hub, id, sockets, limits, factory));
            }
            Effect::StopListening(listener) => hub.stop_listening(listener),
            Effect::Stop => hub.shutdown(),
            Effect::Replace(next) => {
                drop_guarded(next.protocol.here());
            }
        }
    }
}

/// A protocol that is not `Send` cannot have a connection here: its `closed` says so, once.
fn refuse(hub: &Arc<Hub>, shared: &mut Shared, local: Local, told: bool) {
    if told {
        hub.forget(local.id);
        drop_guarded(local.protocol);
    } else {
        effects::refuse_local(&mut Author { hub, shared, cell: None }, local);
    }
}
