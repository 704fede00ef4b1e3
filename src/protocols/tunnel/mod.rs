//! A tunnel: two connections, each of which sends what the other receives. It is the middle of a
//! proxy.
//!
//! [`Tunnel`] is the protocol of the first connection, whose peer is the *client*. When it opens,
//! it connects to the *target*, and from then on it relays both ways:
//!
//! - **Back-pressure.** A peer that does not read stops the other from being read: see
//!   [`Peer::write`](crate::Peer::write). Per direction, no more waits than
//!   [`Limits::high_mark`](crate::Limits::high_mark) \[64 KiB\] and one read \[256 KiB\].
//! - **FIN** is passed on as a half-close, behind the bytes before it. The tunnel is over when both
//!   directions have finished.
//! - **A reset**, a deadline or an error of one connection aborts the other, which drops what waits
//!   for it. A close in order, by [`Handle::close`](crate::Handle::close) for instance, closes the
//!   other in order.
//! - **A connect that fails** closes the client's connection in order. Its
//!   [`CloseReason::error`](crate::CloseReason::error) is a [`ConnectError`].
//! - **Shutdown** of the driver leaves a tunnel alone until it is over, or until
//!   [`DriverLimits::drain`](crate::DriverLimits::drain) \[30 s\] is.
//!
//! What the client sends is read before the target is connected, and waits for it within the same
//! bound. A message costs one read and one write, and one copy into the queue of the other end.
//!
//! ```
//! use lariat::tunnel::Tunnel;
//! use lariat::{Context, Input, Outcome, Protocol, sim::Sim};
//! # struct Echo;
//! # impl Protocol for Echo {
//! #     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
//! #         cx.write(input);
//! #         input.consume_all();
//! #         Ok(())
//! #     }
//! # }
//!
//! let mut sim = Sim::new(1);
//! let target = sim.listen("10.0.0.2:7000", |_| Some(Echo))?;
//! let target = sim.addresses(target)[0];
//! let proxy = sim.listen("10.0.0.1:7000", move |_| {
//!     Some(Tunnel::to(target).on_end(|_, summary| println!("{summary}")))
//! })?;
//! let client = sim.dial(sim.addresses(proxy)[0]);
//! client.send(b"hello");
//! client.finish();
//! sim.run()?;
//! assert_eq!(client.take_received(), b"hello");
//! # Ok::<(), lariat::Error>(())
//! ```
//!
//! A protocol that has agreed with its client on a target (SOCKS, CONNECT of HTTP) becomes a tunnel
//! by [`Context::replace`](crate::Context::replace): `cx.replace(Tunnel::to(target))`.

mod relay;
mod summary;

use std::fmt;

use crate::address::{Address, IntoAddress};
use crate::note::Note;
use crate::options::ConnectOptions;
use crate::protocol::{Context, Control, Input, Outcome, Protocol};
use crate::protocols::proxy_protocol::{Header, Version};
use crate::reason::CloseReason;

pub use summary::{ConnectError, End, Summary};

use relay::{Relay, Unreached};

/// What is called at the end.
type OnEnd = Box<dyn FnOnce(&mut Control<'_>, &Summary) + Send>;

/// The protocol of a client's connection that is relayed to a target.
///
/// See the [module](self) for what it does. It may be under [`Tls`](crate::tls), and is `Send`. The
/// client's connection needs a [`Limits::notes_max`](crate::Limits::notes_max) \[64\] of at least 1
/// and ends with an error otherwise.
pub struct Tunnel {
    target: Address,
    options: ConnectOptions,
    announces: Option<(Version, Option<Header>)>,
    on_end: Option<OnEnd>,
    /// This end, once the connection has opened.
    relay: Option<Relay>,
}

impl Tunnel {
    /// A tunnel to `target`: anything that [`Control::connect`] takes.
    pub fn to(target: impl IntoAddress) -> Tunnel {
        Tunnel {
            target: target.into_address(),
            options: ConnectOptions::default(),
            announces: None,
            on_end: None,
            relay: None,
        }
    }

    /// Connects to the target with these options. Options that cannot work close the client's
    /// connection with their error.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lariat::{ConnectOptions, tunnel::Tunnel};
    ///
    /// let mut options = ConnectOptions::default();
    /// options.limits.connect = Duration::from_secs(3);
    /// options.limits.idle = Some(Duration::from_secs(600));
    /// let tunnel = Tunnel::to("127.0.0.1:8080").with_options(options);
    /// ```
    pub fn with_options(mut self, options: ConnectOptions) -> Tunnel {
        self.options = options;
        self
    }

    /// Announces the client to the target by the [PROXY protocol](crate::proxy_protocol): with the
    /// client's address and the local one of its connection. The header is not counted as relayed.
    ///
    /// ```
    /// use lariat::{proxy_protocol::Version, tunnel::Tunnel};
    /// let tunnel = Tunnel::to("127.0.0.1:8080").announce(Version::V2);
    /// ```
    ///
    /// Behind another balancer use [`announce_as`](Tunnel::announce_as).
    pub fn announce(mut self, version: Version) -> Tunnel {
        self.announces = Some((version, None));
        self
    }

    /// Sends this header to the target. Behind another balancer, [`Header::of`] passes on what that
    /// one has announced, also the address to which the client had connected there.
    ///
    /// ```
    /// use lariat::proxy_protocol::{AcceptProxy, Header, Networks, Version};
    /// use lariat::{Incoming, sim::Sim, tunnel::Tunnel};
    ///
    /// let accept = AcceptProxy::from(Networks::new(["10.0.0.0/8"])?);
    /// let factory = accept.factory(|incoming: &Incoming| {
    ///     let header = Header::of(incoming);
    ///     Some(Tunnel::to("127.0.0.1:8080").announce_as(header, Version::V2))
    /// });
    /// Sim::new(1).listen("10.0.0.1:80", factory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn announce_as(mut self, header: Header, version: Version) -> Tunnel {
        self.announces = Some((version, Some(header)));
        self
    }

    /// Calls `code` when both connections have ended: once, also where the target was never
    /// reached. It runs within `closed` of the connection that ends last. It does not run when the
    /// driver is dropped before that.
    pub fn on_end(
        mut self,
        code: impl FnOnce(&mut Control<'_>, &Summary) + Send + 'static,
    ) -> Tunnel {
        self.on_end = Some(Box::new(code));
        self
    }

    fn relay(&mut self) -> Result<&mut Relay, &'static str> {
        self.relay.as_mut().ok_or("a tunnel has not opened")
    }
}

fn header(cx: &Context<'_>) -> Header {
    match cx.local_addr() {
        Some(local) => Header::proxied(cx.peer_addr(), local),
        None => Header::unknown(),
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Protocol for Tunnel {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        if cx.limits().notes_max == 0 {
            return Err("a tunnel needs a notes_max of at least 1".into());
        }
        let header = match self.announces {
            Some((version, of)) => of.unwrap_or_else(|| header(cx)).encode(version),
            None => Vec::new(),
        };
        let (near, far) = Relay::pair(cx, self.target.clone(), header.len());
        let other = cx.driver().connect_with(&self.target, self.options.clone(), far)?;
        cx.peer(other).write(&header);
        self.relay = Some(near.joined_with(other, self.on_end.take()));
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.relay()?.data(cx, input)
    }

    fn eof(&mut self, cx: &mut Context<'_>, rest: &mut Input<'_>) -> Outcome {
        self.relay()?.eof(cx, rest)
    }

    fn notified(&mut self, _: &mut Context<'_>, note: Note) -> Outcome {
        match note.downcast::<Unreached>() {
            Ok(Unreached(error)) => Err(error.into()),
            Err(_) => Ok(()),
        }
    }

    fn stopping(&mut self, _: &mut Context<'_>) -> Outcome {
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        match self.relay.take() {
            Some(mut relay) => relay.closed(cx, reason),
            None => {
                let client = End::new(cx.peer_addr(), reason, 0, 0);
                let summary = Summary::new(self.target.clone(), client, None);
                if let Some(code) = self.on_end.take() {
                    code(&mut cx.driver(), &summary);
                }
            }
        }
    }
}
