//! HTTP/1.1 as a protocol: a strict server side, [`Http`] around a [`Handler`], on every driver.
//! Needs the feature `http`.
//!
//! ```no_run
//! use lariat::http::{Handler, Header, Http, Request, Response, Status};
//! use lariat::{Context, Outcome};
//!
//! struct Hello;
//!
//! impl Handler for Hello {
//!     fn request(
//!         &mut self,
//!         cx: &mut Context<'_>,
//!         request: &Request<'_>,
//!         response: &mut Response,
//!     ) -> Outcome {
//!         match (request.method(), request.path()) {
//!             ("GET" | "HEAD", "/") => response.send(cx, Status::OK, &[Header::TEXT], "hello\n"),
//!             ("POST", "/") => response.collect(),
//!             _ => response.send(cx, Status::NOT_FOUND, &[Header::TEXT], "not here\n"),
//!         }
//!         Ok(())
//!     }
//!
//!     fn collected(
//!         &mut self,
//!         cx: &mut Context<'_>,
//!         body: &[u8],
//!         response: &mut Response,
//!     ) -> Outcome {
//!         response.send(cx, Status::OK, &[Header::BYTES], body);
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> lariat::Result<()> {
//!     lariat::reactor::serve("127.0.0.1:8080", || Http::new(Hello))
//! }
//! ```
//!
//! | for | see |
//! | --- | --- |
//! | answering requests | [`Handler`], [`Http`] |
//! | the head of a request | [`Request`] |
//! | answering at once, later, in parts, or with another protocol | [`Response`] |
//! | server-sent events | [`Event`] |
//! | bounds, deadlines, leniencies | [`Limits`] |
//! | the client side: one request, one response | [`ClientRequest`] |
//!
//! The same handler runs on threads and in the simulator. It may answer at once, later (from a
//! timer, a note or another connection), in parts, or hand the connection to another protocol.
//! Bodies are streamed in and out, or collected up to a bound. Answers are always in the order of
//! the requests. The example `http_hello` shows most of it.
//!
//! # Rules
//!
//! - A request that violates RFC 9110 or RFC 9112 is answered with the right status. Then the
//!   connection closes in order, so that the client reads the answer, with the reason
//!   [`CloseKind::Refused`](crate::CloseKind::Refused), and is counted in
//!   [`Closes::refused`](crate::Closes::refused).
//! - A request that two readers could understand differently is refused: two lengths, a bare line
//!   feed, a space before a colon, a second host. Each leniency is a switch in [`Limits`].
//! - Targets are accepted as browsers and curl send them, also where RFC 3986 requires a character
//!   to be encoded; [`Limits::strict_targets`] refuses those.
//! - A handler that returns an error is answered 500, if no answer has begun. One that panics loses
//!   its connection and no other. One that does not begin its answer within [`Limits::answer`] is
//!   answered 503.
//! - `CONNECT` is answered 501, unless [`Limits::connect`] is on: then a handler may open a tunnel.
//!
//! # Limits
//!
//! They are checked once, by [`Limits::validate`], and shared by all connections of
//! [`Http::with_limits`].
//!
//! | `http::Limits` | bounds | default | then |
//! | --- | --- | --- | --- |
//! | `line_max` | the request line | 8 KiB | 414 |
//! | `head_max` | the whole head | 32 KiB | 431 |
//! | `fields_max` | headers | 100 | 431 |
//! | `chunk_line_max` | the line before a chunk | 256 | 400 |
//! | `extensions_max` | extensions of all chunks of a body | 16 KiB | 400 |
//! | `trailers_max` | trailers | 8 KiB | 431 |
//! | `pipeline_max` | requests answered in a row | 64 | the rest wait for the next turn |
//! | `collect_max` | a body that is collected | 1 MiB | 413 |
//! | `discard_max` | bytes read of an unwanted body | 256 KiB | closed after the answer |
//! | `head` | time for a head, and for the first byte | 10 s | 408, or closed if none came |
//! | `keep_alive` | time between an answer and the next request | 60 s | closed |
//! | `body_grace` | time of a body before its rate counts | 10 s | |
//! | `body_rate` | bytes per second of a body, after that | 1024 | 408 |
//! | `body_total` | time for a whole body | off | 408 |
//! | `answer` | time from the whole request to the beginning of its answer | 60 s | 503 |
//! | `connect` | `CONNECT` reaches the handler | off | 501 |
//! | `strict_targets` | strictness: only characters of RFC 3986 in a target | off | 400 |
//! | `bare_lf` | leniency: lines end in LF alone | off | 400 |
//! | `both_lengths` | leniency: both lengths, read as chunked | off | 400 |
//! | `equal_lengths` | leniency: several equal content-lengths | off | 400 |
//! | `missing_host` | leniency: HTTP/1.1 without a host | off | 400 |

mod body;
mod client;
mod digits;
mod encoding;
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
mod stage;
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
