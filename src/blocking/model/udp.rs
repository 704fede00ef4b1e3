//! Datagram sockets that do not exist. What is sent to one that is bound arrives at once; a socket
//! that was woken tells each receive so, as Linux does.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};

use shuttle::sync::{Condvar, Mutex, MutexGuard};

use crate::datagram::{DatagramSocket, Interface, Received};
use crate::endpoint::Endpoint;

thread_local! {
    static BOUND: RefCell<BTreeMap<SocketAddr, Arc<Inbox>>> = RefCell::default();
}

#[derive(Default)]
struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    arrived: VecDeque<(Endpoint, Vec<u8>)>,
    woken: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins a schedule: nothing is bound.
pub(super) fn begin() {
    BOUND.with_borrow_mut(BTreeMap::clear);
}

/// Sends a datagram from nowhere. False when nobody has the address.
pub(super) fn send_to(to: SocketAddr, bytes: &[u8]) -> bool {
    let inbox = BOUND.with_borrow(|bound| bound.get(&to).cloned());
    let Some(inbox) = inbox else { return false };
    inbox.lock().arrived.push_back((Endpoint::Other, bytes.to_vec()));
    inbox.changed.notify_all();
    true
}

pub(crate) struct Datagrams {
    local: SocketAddr,
    inbox: Arc<Inbox>,
}

impl Datagrams {
    pub(super) fn bind() -> Datagrams {
        let inbox = Arc::<Inbox>::default();
        let local = BOUND.with_borrow_mut(|bound| {
            let last = bound.last_key_value().map_or(1, |(addr, _)| addr.port());
            let local = SocketAddr::from(([10, 0, 0, 2], last + 1));
            bound.insert(local, Arc::clone(&inbox));
            local
        });
        Datagrams { local, inbox }
    }

    pub(crate) fn wake(&self) {
        self.inbox.lock().woken = true;
        self.inbox.changed.notify_all();
    }
}

/// Whether a receive would find something.
pub(crate) fn has_datagram(socket: &Datagrams) -> io::Result<bool> {
    Ok(!socket.inbox.lock().arrived.is_empty())
}

impl DatagramSocket for Datagrams {
    fn local_addr(&self) -> io::Result<Endpoint> {
        Ok(self.local.into())
    }

    fn send(&self, bytes: &[u8], to: Option<&Endpoint>) -> io::Result<()> {
        send_to(to.ok_or(ErrorKind::NotConnected)?.need_ip()?, bytes);
        Ok(())
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut state = self.inbox.lock();
        loop {
            if let Some((from, bytes)) = state.arrived.pop_front() {
                let count = bytes.len().min(buffer.len());
                buffer[..count].copy_from_slice(&bytes[..count]);
                let to = Some(self.local.into());
                return Ok(Received { len: count, from, to, ecn: None, calls: 1 });
            }
            if state.woken {
                return Err(ErrorKind::InvalidInput.into());
            }
            state = self.inbox.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn set_member(&self, _: IpAddr, _: Interface, _: bool) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        BOUND.with_borrow_mut(|bound| bound.remove(&self.local));
    }
}
