//! A filter changes bytes between the queues and the wire, as TLS does.
//!
//! A filter sits *under* the queues of a connection. What a protocol reads and writes, what other
//! connections write to it, its marks, limits and timers are all on the clear side. Only bytes that
//! go to the socket or come from it pass through the filter.

use std::any::Any;
use std::error::Error as StdError;

use crate::clock::WallClock;

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

/// What a filter returns. An error ends the connection with
/// [`FilterFailure::Failed`](crate::FilterFailure::Failed), after the wire bytes that the filter
/// has produced (a TLS alert, for instance) were sent.
pub type FilterResult = Result<Progress, Box<dyn StdError + Send + Sync>>;

/// Changes clear bytes into wire bytes and back; it has no socket, no thread, and no clock but the
/// one that it is lent.
///
/// Calls come in this order: [`set_clock`](Filter::set_clock) and [`start`](Filter::start) once;
/// [`receive`](Filter::receive) and, once the progress is past [`Progress::Handshaking`],
/// [`send`](Filter::send) any number of times; [`finish`](Filter::finish) at most once when the
/// connection closes or half-closes, and no `send` after it. Every call may append to `wire`. A
/// panic ends the connection with [`CloseKind::Panicked`](crate::CloseKind::Panicked).
///
/// ```
/// use lariat::{Filter, FilterResult, Progress};
///
/// /// Rotates letters by 13 places: an example, not encryption.
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
    /// Lends the driver's wall clock to a filter that judges by the date, as TLS does
    /// certificates. It is virtual in the simulator. The default ignores it.
    fn set_clock(&mut self, clock: WallClock) {
        let _ = clock;
    }

    /// Begins the session. A client appends its first message to `wire` here. The default is
    /// [`Progress::Open`].
    ///
    /// # Errors
    ///
    /// Ends the connection; the failure counts as ours.
    fn start(&mut self, wire: &mut Vec<u8>) -> FilterResult {
        let _ = wire;
        Ok(Progress::Open)
    }

    /// Takes all of `bytes` from the wire and appends what they hold to `clear`. The filter may
    /// change `bytes`, for instance to decrypt in place.
    ///
    /// What it appends to `wire` counts as caused by the peer: while more than
    /// [`Limits::high_mark`](crate::Limits::high_mark) of it is unsent, the peer is not read.
    ///
    /// # Errors
    ///
    /// Ends the connection, because the bytes are invalid. The failure counts as the peer's.
    fn receive(
        &mut self,
        bytes: &mut [u8],
        clear: &mut Vec<u8>,
        wire: &mut Vec<u8>,
    ) -> FilterResult;

    /// Takes all of `clear` and appends its encoding to `wire`.
    ///
    /// # Errors
    ///
    /// Ends the connection; the failure counts as ours.
    fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> FilterResult;

    /// Ends this side's direction: TLS appends its close_notify. The default appends nothing.
    fn finish(&mut self, wire: &mut Vec<u8>) {
        let _ = wire;
    }

    /// Whether a FIN of the peer ends its stream in order. With false, the default, a FIN before
    /// [`Progress::PeerFinished`] means that the stream was cut
    /// ([`FilterFailure::Truncated`](crate::FilterFailure::Truncated)).
    fn ends_with_stream(&self) -> bool {
        false
    }

    /// Facts about the session (the peer's identity, the protocol agreed on), for
    /// [`Context::session`](crate::Context::session). The default is None.
    fn session(&self) -> Option<&dyn Any> {
        None
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Open at once; makes nothing of what it is given.
    pub(crate) struct Plain;

    impl Filter for Plain {
        fn start(&mut self, _: &mut Vec<u8>) -> FilterResult {
            Ok(Progress::Open)
        }
        fn receive(&mut self, _: &mut [u8], _: &mut Vec<u8>, _: &mut Vec<u8>) -> FilterResult {
            Ok(Progress::Open)
        }
        fn send(&mut self, _: &[u8], _: &mut Vec<u8>) -> FilterResult {
            Ok(Progress::Open)
        }
    }

    #[test]
    fn a_filter_that_says_no_more_has_no_end_of_its_own_and_no_session() {
        let mut wire = Vec::new();
        Plain.finish(&mut wire);
        assert!(wire.is_empty() && !Plain.ends_with_stream() && Plain.session().is_none());
    }
}
