//! Authentication without certificates: both ends have a token, and show each other that they do
//! without sending it. Needs the feature `auth`, which brings `ring` and no TLS.
//!
//! | on a connection | who is there | was it changed | can others read it |
//! | --- | --- | --- | --- |
//! | [`Challenge`] alone | at the beginning | not noticed | yes |
//! | [`Sealed`] | shown by every frame | noticed at once | yes |
//! | [`Challenge`] over TLS | at the beginning, and it stays that peer | noticed at once | no |
//! | TLS with certificates of both ends | the same | noticed at once | no |
//!
//! What only TLS gives is secrecy: here everything but the token travels in clear, also the
//! client's name. It also gives forward secrecy, which means that a secret that is stolen later
//! does not open what was recorded before; here one who gets the token later can make the keys of
//! every recorded connection, which matters little as nothing in it is secret, and can be either
//! end from then on. And a token is shared: each end could have made what the other has sent, so
//! nothing here proves anything to a third party.
//!
//! What is shown, in each case: the peer has the token of that name, and made its proof for this
//! very connection. Both ends put a new random nonce into the exchange, so a recorded proof is of
//! no use; each role has its own keys, so one's own bytes sent back are not taken for the peer's.
//! Proofs and frames are HMAC-SHA256, compared in constant time; keys come from the token and both
//! nonces by HKDF, one for each direction and use.
//!
//! A client is refused in the same words, and after the same work, whether its name is unknown or
//! its token is wrong.
//!
//! **Datagrams.** [`AuthSession::datagrams`] and [`Token::datagrams`] give a [`DatagramSealer`] and
//! a [`DatagramOpener`], which a [`DatagramProtocol`](crate::DatagramProtocol) calls for each
//! datagram. They tell whether a datagram was changed and whether it has come before, but not
//! whether one was lost or held back, and nothing of the address that it came from.

mod challenge;
mod datagrams;
mod error;
mod exchange;
mod frames;
mod sealed;
mod session;
mod token;

pub use challenge::Challenge;
pub use datagrams::{DatagramOpener, DatagramSealer};
pub use error::AuthError;
pub use sealed::Sealed;
pub use session::{AuthSession, Role};
pub use token::{ClientToken, Nonces, ServerTokens, Token};
