//! What goes wrong with authentication, in words.

use std::error::Error;
use std::fmt;

/// Why a peer, a frame or a datagram was refused, or a token is not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthError {
    /// A token is shorter than [`Token::BYTES_MIN`](super::Token::BYTES_MIN).
    WeakToken,
    /// A name is empty, longer than [`ClientToken::NAME_MAX`](super::ClientToken::NAME_MAX) bytes,
    /// or not UTF-8.
    InvalidName,
    /// The system gives no random numbers.
    NoRandom,
    /// The peer does not speak this protocol.
    NotSpoken,
    /// The peer has the role of this end: two clients, two servers, or our own bytes sent back.
    WrongRole,
    /// One end uses [`Sealed`](super::Sealed) and the other [`Challenge`](super::Challenge).
    WrongForm,
    /// The peer has not shown that it has the token: its name is unknown, its token is another one,
    /// or bytes of the exchange were changed on the way.
    WrongToken,
    /// The peer finished before it had shown that it has the token.
    Unfinished,
    /// The peer has not shown in time that it has the token.
    Late,
    /// A frame does not begin as frames do.
    InvalidFrame,
    /// A frame is not the next one: some were left out, came again, or have changed places.
    WrongOrder {
        /// The number of the next frame.
        expected: u64,
        /// The number that has come.
        found: u64,
    },
    /// A frame or a datagram was changed on the way, or made without the keys of this direction.
    Changed,
    /// A frame came behind the last one.
    AfterEnd,
    /// A datagram with this number has come before.
    Repeated(u64),
    /// A datagram with this number is too old to tell whether it has come before.
    Old(u64),
    /// All numbers of this direction are used up.
    Exhausted,
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AuthError::WeakToken => "the token is shorter than 16 bytes",
            AuthError::InvalidName => "the client's name is not 1 to 64 bytes of UTF-8",
            AuthError::NoRandom => "the system gives no random numbers",
            AuthError::NotSpoken => "the peer does not speak the authentication of lariat",
            AuthError::WrongRole => "the peer has the role of this end",
            AuthError::WrongForm => "one end seals what follows and the other does not",
            AuthError::WrongToken => "the peer has not shown that it has the token",
            AuthError::Unfinished => "the peer finished before it had shown that it has the token",
            AuthError::Late => "the peer has not shown in time that it has the token",
            AuthError::InvalidFrame => "a frame is invalid",
            AuthError::WrongOrder { expected, found } => {
                return write!(f, "frame {found} came where frame {expected} was due");
            }
            AuthError::Changed => "the bytes were changed on the way, or made without the key",
            AuthError::AfterEnd => "a frame came behind the last one",
            AuthError::Repeated(number) => {
                return write!(f, "datagram {number} has come before");
            }
            AuthError::Old(number) => {
                return write!(f, "datagram {number} is too old to tell whether it came before");
            }
            AuthError::Exhausted => "all numbers of this direction are used up",
        })
    }
}

impl Error for AuthError {}
