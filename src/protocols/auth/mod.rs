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
//! **A relay in the middle.** The exchange does not show that nobody sits between the two ends. An
//! attacker there can pass every message on, and both ends then accept each other. Under [`Sealed`]
//! the attacker can still do no more than read the bytes and cut them off. Under [`Challenge`] in
//! clear the attacker can go on to speak for either end. Over TLS the client has to verify the
//! server's certificate, as `lariat::tls::ClientConfig` always does, because the exchange is not
//! bound to the session of TLS. A client needs a different token for each server: a server can pass
//! itself off as any client whose token it has.
//!
//! **Guessing.** Nothing here counts attempts. A token has at least 16 bytes and has to be random:
//! 128 bits cannot be guessed. A password is not a token. A failed exchange of [`Sealed`] counts in
//! [`Metrics::failed_handshakes`](crate::Metrics::failed_handshakes). One of [`Challenge`] is a
//! connection that ends with [`CloseKind::Protocol`](crate::CloseKind::Protocol); the next protocol
//! is not made and hears nothing of it. The log has it as `lariat::dispatch`, at the level debug.
//!
//! **Datagrams.** [`AuthSession::datagrams`] and [`Token::datagrams`] give a [`DatagramSealer`] and
//! a [`DatagramOpener`], which a [`DatagramProtocol`](crate::DatagramProtocol) calls for each
//! datagram. They tell whether a datagram was changed and whether it has come before, but not
//! whether one was lost or held back, and nothing of the address that it came from.
//!
//! **On the wire**, for an end in another language. `|` joins bytes, numbers are big-endian, HMAC
//! is HMAC-SHA256 of a key and a text, and every nonce, key and code has 32 bytes:
//!
//! ```text
//! hello     = "LARIAT\0\x01" | role "C" or "S" | form "s" sealed or "c" in clear
//!             | nonce | length of the name, one byte, 0 for a server | name
//! client    : its hello; when the server's has come, its proof
//! server    : its hello; when the client's proof has passed, its proof
//! root      = HMAC(the client's nonce | the server's nonce, token)
//! key       = HMAC(root, "lariat auth 1 " | "client" or "server" | " " | use | "\x01")
//!             of the end that sends; use is "proof", "frames" or "datagrams"
//! proof     = HMAC(key, the client's hello | the server's hello)
//! frame     = head | payload | HMAC(key, head | payload)
//! head      = "d" | length of the payload, two bytes, 1 to 16384 | number, eight bytes, from 0
//!             or "e" | two zeros | number, which is the last frame: no payload
//! datagram  = number, eight bytes, from 0 | payload | HMAC(key, number | payload)
//!             without an exchange: root = HMAC("datagrams without an exchange, " | session | ".",
//!             token)
//! ```

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
