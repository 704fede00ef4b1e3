//! Several protocols on one port: the first bytes of a client decide which one takes over.
//!
//! [`Sniff`] shows what has come to a closure, which asks for more, names the protocol, or refuses.
//! It consumes nothing: the protocol that takes over sees every byte from the first one on, and may
//! be under TLS. Notes to the connection wait for that protocol, at most
//! [`Limits::notes_max`](crate::Limits::notes_max) \[64\].
//! There are recognisers for [TLS](tls), with the server's name that the client asks for,
//! [HTTP/1](http), the [PROXY protocol](proxy) and [SSH](ssh).
//!
//! ```
//! use lariat::sniff::{self, Choice, Seen, Sniff};
//! use lariat::tunnel::Tunnel;
//!
//! /// TLS to the backend that the client names, HTTP to another one.
//! fn route() -> Sniff {
//!     Sniff::new(|bytes| match (sniff::tls(bytes), sniff::http(bytes)) {
//!         (Seen::Yes(hello), _) => match hello.server_name() {
//!             Some("mail.example") => Choice::take(Tunnel::to("10.0.0.1:443")),
//!             _ => Choice::take(Tunnel::to("10.0.0.2:443")),
//!         },
//!         (_, Seen::Yes(())) => Choice::take(Tunnel::to("10.0.0.2:80")),
//!         (Seen::No, Seen::No) => Choice::refuse("neither TLS nor HTTP"),
//!         (Seen::More(count), _) | (_, Seen::More(count)) => Choice::More(count),
//!     })
//! }
//!
//! let mut sim = lariat::sim::Sim::new(1);
//! sim.listen("127.0.0.1:443", |_| Some(route()))?;
//! # Ok::<(), lariat::Error>(())
//! ```
//!
//! A client that never says enough ends with a [`SniffError`]: after [`Sniff::max`] \[16 KiB\]
//! bytes, after [`Sniff::deadline`] \[10 s\], or with its FIN.

mod first;
mod tls;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::timer::Timer;

pub use first::{http, proxy, ssh};
pub use tls::{ClientHello, tls};

const DEADLINE: Timer = Timer::reserved(0);
const SILENCE: Timer = Timer::reserved(1);

/// What a closure makes of the first bytes.
pub enum Choice {
    /// They are too few: at least this many are needed, with those that are there.
    More(usize),
    /// This protocol takes over. See [`Choice::take`].
    Take(Box<dyn Protocol + Send>),
    /// No protocol wants them; the text says why. See [`Choice::refuse`].
    Refuse(String),
}

impl Choice {
    /// This protocol takes over: it gets `opened`, and then all bytes from the first one on.
    pub fn take(protocol: impl Protocol + Send + 'static) -> Choice {
        Choice::Take(Box::new(protocol))
    }

    /// No protocol wants them: the connection closes with [`SniffError::Refused`].
    pub fn refuse(why: impl Into<String>) -> Choice {
        Choice::Refuse(why.into())
    }
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::More(count) => f.debug_tuple("More").field(count).finish(),
            Choice::Take(protocol) => f.debug_tuple("Take").field(&protocol.name()).finish(),
            Choice::Refuse(why) => f.debug_tuple("Refuse").field(why).finish(),
        }
    }
}

/// What a recogniser says of the first bytes. An answer other than `More` holds for whatever may
/// follow them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen<T> {
    /// They are the beginning of what it looks for.
    Yes(T),
    /// They are something else.
    No,
    /// They are too few: at least this many are needed for a yes, with those that are there.
    More(usize),
}

type Choose = Box<dyn FnMut(&[u8]) -> Choice + Send>;
type Make = Box<dyn FnOnce() -> Box<dyn Protocol + Send> + Send>;

/// The protocol of a connection until its first bytes have said what it is.
pub struct Sniff {
    choose: Choose,
    max: usize,
    deadline: Duration,
    silent: Option<(Duration, Make)>,
}

impl Sniff {
    /// `choose` is shown the first bytes, all that have come, until it takes or refuses them.
    ///
    /// What it says of some bytes has to hold for whatever may follow them; it asks for more where
    /// that is open. Then the choice does not depend on how the bytes arrive. Where two recognisers
    /// may say yes to the same bytes, the second counts only once the first has said no.
    pub fn new(choose: impl FnMut(&[u8]) -> Choice + Send + 'static) -> Sniff {
        Sniff {
            choose: Box::new(choose),
            max: 16 * 1024,
            deadline: Duration::from_secs(10),
            silent: None,
        }
    }

    /// Bytes that are looked at, at most \[16 KiB\]: a client of which more are needed ends with
    /// [`SniffError::TooLong`]. It has to be no more than
    /// [`Limits::input_max`](crate::Limits::input_max) \[1 MiB\].
    pub fn max(mut self, max: usize) -> Sniff {
        self.max = max;
        self
    }

    /// Time until the first bytes have to be enough \[10 s\].
    pub fn deadline(mut self, deadline: Duration) -> Sniff {
        self.deadline = deadline;
        self
    }

    /// Lets the protocol that `make` makes take over when the client has not said a byte for
    /// `delay`: for protocols in which the server speaks first, such as SMTP. `delay` should be
    /// less than the deadline.
    ///
    /// ```
    /// # use lariat::{Context, Input, Outcome, Protocol};
    /// # struct Smtp;
    /// # impl Protocol for Smtp {
    /// #     fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome { Ok(()) }
    /// # }
    /// use std::time::Duration;
    /// use lariat::sniff::{Choice, Sniff};
    ///
    /// let sniff = Sniff::new(|_| Choice::refuse("it was to wait for the greeting"))
    ///     .when_silent(Duration::from_millis(500), || Smtp);
    /// ```
    pub fn when_silent<P: Protocol + Send + 'static>(
        mut self,
        delay: Duration,
        make: impl FnOnce() -> P + Send + 'static,
    ) -> Sniff {
        self.silent = Some((delay, Box::new(|| Box::new(make()))));
        self
    }
}

impl fmt::Debug for Sniff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sniff")
            .field("max", &self.max)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Protocol for Sniff {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.defer_notes();
        cx.set_timer(DEADLINE, self.deadline);
        if let Some((delay, _)) = &self.silent {
            cx.set_timer(SILENCE, *delay);
        }
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if self.silent.take().is_some() {
            cx.cancel_timer(SILENCE);
        }
        // More than the maximum is never shown: the choice would depend on how bytes arrive.
        let shown = &input[..input.len().min(self.max)];
        match (self.choose)(shown) {
            Choice::More(count) => {
                let count = count.max(shown.len() + 1);
                if count > self.max {
                    return Err(SniffError::TooLong(self.max).into());
                }
                input.need(count);
            }
            // It sees the client's own first bytes, and no attacker's between.
            Choice::Take(next) => cx.replace(next).feed_unread(),
            Choice::Refuse(why) => return Err(SniffError::Refused(why).into()),
        }
        Ok(())
    }

    fn eof(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Err(SniffError::Incomplete.into())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        match self.silent.take() {
            Some((_, make)) if timer == SILENCE => cx.replace(make()).feed_unread(),
            _ => cx.refuse_late(SniffError::TimedOut),
        }
        Ok(())
    }

    fn name(&self) -> &str {
        "the choice of a protocol"
    }
}

/// Why no protocol took over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SniffError {
    /// The closure refused the bytes, for this reason.
    Refused(String),
    /// More than the maximum, which is this many bytes, would be needed.
    TooLong(usize),
    /// The client has finished before it had said enough.
    Incomplete,
    /// The client has not said enough in time.
    TimedOut,
}

impl fmt::Display for SniffError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SniffError::Refused(why) => f.write_str(why),
            SniffError::TooLong(max) => write!(f, "the first {max} bytes do not tell the protocol"),
            SniffError::Incomplete => f.write_str("the client ended before it said enough"),
            SniffError::TimedOut => f.write_str("the client did not say enough in time"),
        }
    }
}

impl Error for SniffError {}
