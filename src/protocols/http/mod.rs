//! HTTP/1.1 as a protocol: a strict server side, [`Http`] around a [`Handler`], on every driver.
//! Needs the feature `http`.
//!
//! | for | see |
//! | --- | --- |
//! | answering requests | [`Handler`], [`Http`] |
//! | what is asked | [`Request`] |
//! | answering at once, later, bit by bit, or with another protocol | [`Response`] |
//! | server-sent events | [`Event`] |
//! | bounds, deadlines, what is forgiven | [`Limits`] |
//! | the client side: one request, one response | [`ClientRequest`] |
//!
//! What is not as RFC 9110 and RFC 9112 want it is answered with the right status, then the
//! connection is closed in order, so that the client reads that answer, with
//! [`CloseKind::Refused`](crate::CloseKind::Refused) for its reason. Wherever two readers of a
//! request could disagree about its end, it is refused; each leniency is a switch in [`Limits`].

mod body;
mod client;
mod digits;
mod event;
mod fault;
mod framing;
mod handler;
mod handover;
mod head;
mod header;
mod limits;
mod request;
mod response;
mod scan;
mod server;
mod status;
mod streaming;
mod target;
mod watch;

pub use client::{Client, ClientError, ClientRequest, ClientResponse, InvalidRequest};
pub use event::{Event, InvalidEvent};
pub use handler::Handler;
pub use handover::HandoverRefused;
pub use header::{Header, InvalidHeader};
pub use limits::{Limits, ValidLimits};
pub use request::{Length, Request, Version};
pub use response::Response;
pub use server::Http;
pub use status::Status;
