//! A filter changes bytes between the queues and the wire; TLS is one.
//!
//! A filter sits *under* the queues of a connection: what a protocol writes and reads, what others
//! write to it, its marks, limits and timers are all on the clear side. Only what goes to and comes
//! from the socket passes through.

use std::any::Any;
use std::error::Error as StdError;

/// How far a filter has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Not ready for clear bytes. `opened` waits; the handshake deadline runs.
    Handshaking,
    /// Clear bytes pass both ways.
    Open,
    /// The peer has finished its direction properly; clear bytes still go out.
    PeerFinished,
}

/// What a filter returns: the error ends the connection with
/// [`FilterFailure::Failed`](crate::FilterFailure::Failed), after the wire bytes it has produced
/// (an alert, say) were sent.
pub type FilterResult = Result<Progress, Box<dyn StdError + Send + Sync>>;

/// Changes clear bytes into wire bytes and back; it has no socket, no clock and no thread.
///
/// Calls come in this order: [`start`](Filter::start) once; [`receive`](Filter::receive) and, once
/// the progress is past [`Progress::Handshaking`], [`send`](Filter::send) any number of times;
/// [`finish`](Filter::finish) at most once when the connection closes or half-closes, and no `send`
/// after it. Every call may append to `wire`. A panic ends the connection with
/// [`CloseKind::Panicked`](crate::CloseKind::Panicked).
///
/// ```
/// use lariat::{Filter, FilterResult, Progress};
///
/// /// Hides nothing from anybody.
/// struct Rot13;
///
/// fn turn(byte: u8) -> u8 {
///     match byte {
///         b'a'..=b'z' => (byte - b'a' + 13) % 26 + b'a',
///         b'A'..=b'Z' => (byte - b'A' + 13) % 26 + b'A',
///         other => other,
///     }
/// }
///
/// impl Filter for Rot13 {
///     fn receive(
///         &mut self,
///         bytes: &mut [u8],
///         clear: &mut Vec<u8>,
///         _wire: &mut Vec<u8>,
///     ) -> FilterResult {
///         clear.extend(bytes.iter().map(|byte| turn(*byte)));
///         Ok(Progress::Open)
///     }
///
///     fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> FilterResult {
///         wire.extend(clear.iter().map(|byte| turn(*byte)));
///         Ok(Progress::Open)
///     }
///
///     fn ends_with_stream(&self) -> bool {
///         true
///     }
/// }
/// ```
pub trait Filter: Send {
    /// Begins: a client appends its first message to `wire` here. The default is open at once.
    ///
    /// # Errors
    ///
    /// Ends the connection; the failure counts as ours.
    fn start(&mut self, wire: &mut Vec<u8>) -> FilterResult {
        let _ = wire;
        Ok(Progress::Open)
    }

    /// Takes bytes from the wire, all of them, and appends what they hold to `clear`. `bytes` may
    /// be changed, to decrypt in place, say.
    ///
    /// What is appended to `wire` counts as caused by the peer: while more than
    /// [`Limits::high_mark`](crate::Limits::high_mark) of it is unsent, the peer is not read.
    ///
    /// # Errors
    ///
    /// Ends the connection: the bytes make no sense. The failure counts as the peer's.
    fn receive(
        &mut self,
        bytes: &mut [u8],
        clear: &mut Vec<u8>,
        wire: &mut Vec<u8>,
    ) -> FilterResult;

    /// Takes clear bytes, all of them, and appends their encoding to `wire`.
    ///
    /// # Errors
    ///
    /// Ends the connection; the failure counts as ours.
    fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> FilterResult;

    /// Ends this side's direction: TLS appends its close_notify. The default appends nothing.
    fn finish(&mut self, wire: &mut Vec<u8>) {
        let _ = wire;
    }

    /// Whether the peer's FIN ends its stream in order. With false, the default, a FIN that comes
    /// before [`Progress::PeerFinished`] means that the stream was cut
    /// ([`FilterFailure::Truncated`](crate::FilterFailure::Truncated)).
    fn ends_with_stream(&self) -> bool {
        false
    }

    /// What is known of the session (who the peer is, which protocol was agreed on), for
    /// [`Context::session`](crate::Context::session). The default is nothing.
    fn session(&self) -> Option<&dyn Any> {
        None
    }
}
