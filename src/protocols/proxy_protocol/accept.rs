//! Receiving a header, and handing the connection to the protocol behind it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Header, HeaderError, Networks, Parsed};
use crate::endpoint::Endpoint;
use crate::protocol::{Context, Incoming, Input, Outcome, Protocol};
use crate::timer::Timer;

const DEADLINE: Timer = Timer::reserved(0);

/// Whether a peer is a balancer.
type Trusts = Arc<dyn Fn(Endpoint) -> bool + Send + Sync>;

/// How a listener receives PROXY headers. [`factory`](AcceptProxy::factory) makes the factory that
/// `listen` takes.
///
/// An announced address is believed, so it matters who may announce one: any other peer that can
/// connect to the listener could claim to be any client.
#[derive(Clone)]
pub struct AcceptProxy {
    trusts: Trusts,
    others: Others,
    deadline: Duration,
    header_max: usize,
}

/// What happens to peers that are not trusted to announce a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Others {
    /// They are turned away (the default).
    #[default]
    Refuse,
    /// They are clients of their own: no header is expected of them, and one is not understood.
    Serve,
}

impl From<Networks> for AcceptProxy {
    fn from(networks: Networks) -> AcceptProxy {
        AcceptProxy::trusting(move |peer| networks.contains(peer))
    }
}

impl AcceptProxy {
    /// Peers for which `trusts` is true are balancers.
    ///
    /// ```
    /// use lariat::{Endpoint, proxy_protocol::AcceptProxy};
    /// // Everything that reaches this Unix socket comes from the balancer.
    /// let accept = AcceptProxy::trusting(|peer| matches!(peer, Endpoint::Unix(_)));
    /// ```
    pub fn trusting(trusts: impl Fn(Endpoint) -> bool + Send + Sync + 'static) -> AcceptProxy {
        AcceptProxy {
            trusts: Arc::new(trusts),
            others: Others::default(),
            deadline: Duration::from_secs(10),
            header_max: 4096,
        }
    }

    /// What happens to peers that are not trusted \[[`Others::Refuse`]\].
    pub fn others(mut self, others: Others) -> AcceptProxy {
        self.others = others;
        self
    }

    /// Time from the accept until the header has to be whole \[10 s\].
    pub fn deadline(mut self, deadline: Duration) -> AcceptProxy {
        self.deadline = deadline;
        self
    }

    /// Bytes of the longest header that is taken, with all its fields \[4,096\]. It has to be no
    /// more than [`Limits::input_max`](crate::Limits::input_max) \[1 MiB\]. A line of version 1 has
    /// at most 107 in any case, a header of version 2 at most 65,551.
    pub fn header_max(mut self, header_max: usize) -> AcceptProxy {
        self.header_max = header_max;
        self
    }

    /// A factory for `listen`: it receives the header, and then lets the protocol that `factory`
    /// makes take over. `factory` sees the announced client. Where it refuses that one, the
    /// connection closes with [`HeaderError::Refused`].
    ///
    /// The protocol may be under TLS: the header comes in clear, before the handshake. Notes to
    /// the connection wait for it, at most [`Limits::notes_max`](crate::Limits::notes_max) \[64\].
    pub fn factory<P, F>(
        self,
        factory: F,
    ) -> impl Fn(&Incoming) -> Option<Receiving<P, F>> + Send + Sync
    where
        P: Protocol + Send + 'static,
        F: Fn(&Incoming) -> Option<P> + Send + Sync + 'static,
    {
        // What follows the header is the client's own beginning, and no attacker's between.
        self.receives(factory, |cx, next| cx.replace(next).feed_unread())
    }

    /// As [`factory`](AcceptProxy::factory), for a protocol that need not be `Send`: on the reactor
    /// and in the simulator.
    pub fn factory_local<P, F>(self, factory: F) -> impl Fn(&Incoming) -> Option<Receiving<P, F>>
    where
        P: Protocol + 'static,
        F: Fn(&Incoming) -> Option<P> + 'static,
    {
        self.receives(factory, |cx, next| cx.replace_local(next).feed_unread())
    }

    fn receives<P, F: Fn(&Incoming) -> Option<P>>(
        self,
        factory: F,
        hand_over: fn(&mut Context<'_>, P),
    ) -> impl Fn(&Incoming) -> Option<Receiving<P, F>> {
        let how = Arc::new(How { accept: self, factory, hand_over });
        move |incoming| {
            let accept = &how.accept;
            let direct = match ((accept.trusts)(incoming.peer()), accept.others) {
                (true, _) => None,
                (false, Others::Serve) => Some((how.factory)(incoming)?),
                (false, Others::Refuse) => return None,
            };
            Some(Receiving { incoming: *incoming, direct, how: Arc::clone(&how) })
        }
    }
}

impl fmt::Debug for AcceptProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptProxy")
            .field("others", &self.others)
            .field("deadline", &self.deadline)
            .field("header_max", &self.header_max)
            .finish_non_exhaustive()
    }
}

/// What the connections of a listener share.
struct How<P, F> {
    accept: AcceptProxy,
    factory: F,
    hand_over: fn(&mut Context<'_>, P),
}

/// The protocol of a connection until its header has come.
pub struct Receiving<P, F> {
    incoming: Incoming,
    /// The protocol of a peer from which no header is expected.
    direct: Option<P>,
    how: Arc<How<P, F>>,
}

impl<P, F> fmt::Debug for Receiving<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiving").field("incoming", &self.incoming).finish_non_exhaustive()
    }
}

impl<P: Protocol, F: Fn(&Incoming) -> Option<P>> Protocol for Receiving<P, F> {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        match self.direct.take() {
            Some(next) => (self.how.hand_over)(cx, next),
            None => {
                cx.defer_notes();
                cx.set_timer(DEADLINE, self.how.accept.deadline);
            }
        }
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        match Header::parse(input, self.how.accept.header_max)? {
            Parsed::More(count) => input.need(count),
            Parsed::Header { header, len } => {
                input.consume(len);
                let mut incoming = self.incoming;
                if let (Some(source), Some(destination)) = (header.source(), header.destination()) {
                    incoming = incoming.announced(source, destination);
                    cx.put_peer(source);
                }
                let next = (self.how.factory)(&incoming).ok_or(HeaderError::Refused)?;
                (self.how.hand_over)(cx, next);
            }
        }
        Ok(())
    }

    fn eof(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Err(HeaderError::Incomplete.into())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
        cx.refuse_late(HeaderError::TimedOut);
        Ok(())
    }

    fn name(&self) -> &str {
        "the receiver of a PROXY header"
    }
}
