//! HTTP/1.1 as a protocol: a strict server side, [`Http`] around a [`Handler`], on every driver.
//! Needs the feature `http`.
//!
//! | for | see |
//! | --- | --- |
//! | answering requests | [`Handler`], [`Http`] |
//! | what is asked | [`Request`] |
//! | answering at once, later, bit by bit, or with another protocol | [`Response`] |
//! | server-sent events | [`Event`] |
//! | bounds, deadlines, leniencies | [`Rules`] |
//! | asking somebody else: one request, one reply | [`Ask`] |
//!
//! What is not as RFC 9110 and RFC 9112 want it is answered with the right status, then the
//! connection is closed in order, so that the client reads that answer. Wherever two readers of a
//! request could disagree about its end, it is refused; each leniency is a switch in [`Rules`].

mod body;
mod client;
mod event;
mod fault;
mod framing;
mod handler;
mod head;
mod header;
mod request;
mod response;
mod rules;
mod scan;
mod server;
mod status;
mod target;
mod upgrade;
mod watch;

pub use client::{Ask, Asking, NoReply, Reply};
pub use event::{Event, InvalidEvent};
pub use handler::Handler;
pub use header::{Header, InvalidHeader};
pub use request::{Length, Request, Version};
pub use response::Response;
pub use rules::Rules;
pub use server::Http;
pub use status::Status;
pub use upgrade::UpgradeRefused;
