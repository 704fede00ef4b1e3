//! A client's request, made before there is a connection.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::super::digits::{put_hex, put_length};
use super::super::header::{Header, is_token};
use super::super::limits::{DEFAULT, Limits};
use super::super::{head, target};
use super::{Client, ClientError, ClientResponse};
use crate::protocol::Context;

/// A client's requests follow RFC 3986, whatever a server may accept.
static STRICT: Limits = Limits { strict_targets: true, ..DEFAULT };

/// A request to send on a connection of its own, on which its response is awaited.
///
/// ```no_run
/// use std::time::Duration;
/// use lariat::http::ClientRequest;
/// use lariat::reactor::Reactor;
///
/// let request = ClientRequest::get("localhost:8080", "/health").unwrap();
/// let client = request.timeout(Duration::from_secs(2)).then(|cx, result| {
///     match result {
///         Ok(response) => println!("{}: {} bytes", response.status(), response.body().len()),
///         Err(error) => println!("no response: {error}"),
///     }
///     cx.driver().shutdown();
/// });
/// let mut reactor = Reactor::new()?;
/// reactor.connect(([127, 0, 0, 1], 8080), client);
/// reactor.run()?;
/// # Ok::<(), lariat::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClientRequest {
    /// The request line and all headers but those of the framing.
    head: Vec<u8>,
    pub(super) is_head: bool,
    /// None when no body was given.
    body: Option<Bytes>,
    chunked: bool,
    /// Whether servers expect a body with the method.
    expects_body: bool,
    pub(super) timeout: Duration,
    pub(super) body_max: usize,
}

impl ClientRequest {
    /// A GET of `target` (`/path?query`) from `host`, a name or address with an optional port.
    ///
    /// # Errors
    ///
    /// Host or target have a character that is not allowed there, the target does not fit the
    /// method, or the request line has more than 8 KiB. Percent-encode characters outside of RFC
    /// 3986 first.
    pub fn get(host: &str, target: &str) -> Result<ClientRequest, InvalidRequest> {
        ClientRequest::new("GET", host, target)
    }

    /// A request with any method but `CONNECT`.
    ///
    /// # Errors
    ///
    /// As [`get`](ClientRequest::get), or the method is not a token.
    pub fn new(method: &str, host: &str, target: &str) -> Result<ClientRequest, InvalidRequest> {
        if method.is_empty() || !method.bytes().all(is_token) {
            return Err(InvalidRequest { why: "the method is not a token" });
        }
        if method == "CONNECT" {
            return Err(InvalidRequest {
                why: "CONNECT asks for a tunnel, and not for a response",
            });
        }
        if !target::is_authority(host.as_bytes()) {
            return Err(InvalidRequest { why: "the host is not a name or address" });
        }
        let head = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n").into_bytes();
        // The same checks as in a server.
        let whole = [&head[..], b"\r\n"].concat();
        let seen = match head::parse(&whole, true, &mut 0, &STRICT) {
            Ok(Some((request, length))) if length == whole.len() => Some(request.target()),
            _ => None,
        };
        // The target must be read back unchanged: it must not smuggle in headers or a second
        // request.
        if seen != Some(target) {
            return Err(InvalidRequest { why: "the target is not one of this method" });
        }
        Ok(ClientRequest {
            head,
            is_head: method == "HEAD",
            body: None,
            chunked: false,
            expects_body: matches!(method, "POST" | "PUT" | "PATCH"),
            timeout: Duration::from_secs(30),
            body_max: DEFAULT.collect_max,
        })
    }

    /// Adds a header.
    pub fn header(mut self, header: Header<'_>) -> ClientRequest {
        header.put(&mut self.head);
        self
    }

    /// Gives it a body of any length, sent with `content-length`, also when it is empty. Without a
    /// body, `POST`, `PUT` and `PATCH` send `content-length: 0`, and other methods no length.
    pub fn body(self, body: impl Into<Bytes>) -> ClientRequest {
        ClientRequest { body: Some(body.into()), chunked: false, ..self }
    }

    /// Gives it a body of any length, sent as a chunk.
    pub fn chunked_body(self, body: impl Into<Bytes>) -> ClientRequest {
        ClientRequest { body: Some(body.into()), chunked: true, ..self }
    }

    /// The time from the opened connection to the whole response \[30 s\]. The connect itself has
    /// [`Limits::connect`](crate::Limits::connect).
    pub fn timeout(self, timeout: Duration) -> ClientRequest {
        ClientRequest { timeout, ..self }
    }

    /// The most bytes of the response's body \[1 MiB\]. Its head may have 32 KiB and 128 headers.
    pub fn body_max(self, body_max: usize) -> ClientRequest {
        ClientRequest { body_max, ..self }
    }

    /// The protocol that sends this request, for `connect` on any driver. `done` runs exactly once,
    /// with the response or the error; the connection is then closed. It does not run when the
    /// driver is dropped before that.
    pub fn then(
        self,
        done: impl FnOnce(&mut Context<'_>, Result<ClientResponse, ClientError>) + Send + 'static,
    ) -> Client {
        Client::new(self, Box::new(done))
    }

    /// The message: the head, to its end, the body, and what follows it.
    pub(super) fn take_message(&mut self) -> (Vec<u8>, Bytes, &'static [u8]) {
        let mut head = std::mem::take(&mut self.head);
        head.extend_from_slice(b"connection: close\r\n");
        let given = self.body.take();
        let body = given.clone().unwrap_or_default();
        if !self.chunked {
            match given {
                None if !self.expects_body => head.extend_from_slice(b"\r\n"),
                _ => put_length(&mut head, body.len() as u64),
            }
            return (head, body, b"");
        }
        head.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        if body.is_empty() {
            return (head, body, b"0\r\n\r\n");
        }
        put_hex(&mut head, body.len());
        head.extend_from_slice(b"\r\n");
        (head, body, b"\r\n0\r\n\r\n")
    }
}

/// Why a [`ClientRequest`] could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidRequest {
    why: &'static str,
}

impl fmt::Display for InvalidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this request cannot be sent: {}", self.why)
    }
}

impl std::error::Error for InvalidRequest {}
