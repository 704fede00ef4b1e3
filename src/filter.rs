//! A filter changes bytes between the queues and the wire; TLS is one.
//!
//! A filter sits *under* the queues of a connection: what a protocol writes and reads, what others
//! write to it, its marks, limits and timers are all on the clear side. Only what goes to and comes
//! from the socket passes through.

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
/// after it; [`peer_closed`](Filter::peer_closed) at most once. Every call may append to `wire`.
/// A panic ends the connection with [`CloseKind::Panicked`](crate::CloseKind::Panicked).
pub trait Filter: Send {
    /// Begins: a client appends its first message to `wire` here.
    ///
    /// # Errors
    ///
    /// Ends the connection.
    fn start(&mut self, wire: &mut Vec<u8>) -> FilterResult;

    /// Takes bytes from the wire, all of them, and appends what they hold to `clear`.
    ///
    /// # Errors
    ///
    /// Ends the connection: the bytes make no sense.
    fn receive(&mut self, bytes: &[u8], clear: &mut Vec<u8>, wire: &mut Vec<u8>) -> FilterResult;

    /// Takes clear bytes, all of them, and appends their encoding to `wire`.
    ///
    /// # Errors
    ///
    /// Ends the connection.
    fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> FilterResult;

    /// Ends this side's direction: TLS appends its close_notify.
    fn finish(&mut self, wire: &mut Vec<u8>);

    /// The peer's FIN has come. `Progress::PeerFinished` means it was expected; anything else that
    /// the stream was cut ([`FilterFailure::Truncated`](crate::FilterFailure::Truncated)).
    fn peer_closed(&mut self) -> Progress;
}
