//! The response to a client's request, or why there is none.

use std::fmt;

use bytes::Bytes;

use super::super::Status;
use super::super::fault::Fault;
use crate::reason::CloseReason;

/// The response to a [`ClientRequest`](super::ClientRequest).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientResponse {
    pub(super) status: Status,
    pub(super) headers: Vec<(String, Bytes)>,
    pub(super) body: Vec<u8>,
}

impl ClientResponse {
    /// The status.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The value of the first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All headers, in the order of arrival.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

/// Why there is no [`ClientResponse`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The connection could not be made, or ended before the response was whole.
    Ended(CloseReason),
    /// The response was not whole within [`ClientRequest::timeout`](super::ClientRequest::timeout).
    TimedOut,
    /// The response is not HTTP, or its end is ambiguous.
    Malformed(&'static str),
    /// The head of the response has more than 128 headers or 32 KiB.
    HeadTooLarge,
    /// The body is longer than [`ClientRequest::body_max`](super::ClientRequest::body_max).
    BodyTooLarge,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Ended(reason) => write!(f, "the connection ended first: {reason}"),
            ClientError::TimedOut => f.write_str("the response did not come in time"),
            ClientError::Malformed(why) => write!(f, "what came is no response: {why}"),
            ClientError::HeadTooLarge => f.write_str(
                "the head of the response is too large: 128 headers and 32 KiB may come",
            ),
            ClientError::BodyTooLarge => f.write_str("the body of the response is too large"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<Fault> for ClientError {
    fn from(fault: Fault) -> ClientError {
        ClientError::Malformed(fault.why)
    }
}
