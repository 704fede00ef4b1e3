//! An event-loop networking runtime built directly on mio.

#[cfg(windows)]
compile_error!("lariat has not been tested on Windows and does not claim to work there");

mod buffer;
mod clock;
mod connection;
mod dispatch;
mod driver;
mod error;
mod event_loop;
mod filter;
mod grammar;
mod guard;
mod handle;
mod id;
mod limits;
mod metrics;
mod note;
mod protocol;
mod random;
pub mod reactor;
mod reason;
#[cfg(feature = "signals")]
mod signals;
pub mod sim;
mod socket;
mod timer;

pub use driver::{BoxedFactory, Driver, ListenOptions, Report};
pub use error::{Error, ErrorKind, Op, Result};
pub use filter::{Filter, FilterResult, Progress};
pub use handle::Handle;
pub use id::{ConnId, ListenerId};
pub use limits::{DriverLimits, Limits, Overload};
pub use metrics::{Closes, Metrics};
pub use note::Note;
pub use protocol::{Context, Incoming, Input, Outcome, Peer, Protocol, Replacement, Writer};
pub use reason::{By, CloseKind, CloseReason, ConnectFailure, Deadline, FilterFailure};
pub use timer::Timer;
