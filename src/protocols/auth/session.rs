//! What an exchange has shown, and the keys that come of it.

use std::fmt;
use std::sync::Arc;

use ring::{hkdf, hmac};

use super::datagrams::{DatagramOpener, DatagramSealer};
use super::token::Token;

/// The end of a connection that a key or a proof belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end that names itself.
    Client,
    /// The end that knows the names.
    Server,
}

impl Role {
    pub(super) fn other(self) -> Role {
        match self {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        }
    }

    fn name(self) -> &'static [u8] {
        match self {
            Role::Client => b"client",
            Role::Server => b"server",
        }
    }
}

/// What a key is for. No two uses have a key in common.
#[derive(Clone, Copy)]
pub(super) enum Use {
    Proof,
    Frames,
    Datagrams,
}

/// The source of all keys of one connection.
#[derive(Clone)]
pub(super) struct Keys(Arc<hkdf::Prk>);

impl Keys {
    /// HKDF-Extract of the token, salted with what is new in this connection: both nonces.
    pub(super) fn new(token: &Token, fresh: &[&[u8]]) -> Keys {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &fresh.concat());
        Keys(Arc::new(salt.extract(token.secret())))
    }

    /// The key with which `role` proves or seals; the other end verifies with the same.
    pub(super) fn of(&self, role: Role, what: Use) -> hmac::Key {
        let what: &[u8] = match what {
            Use::Proof => b" proof",
            Use::Frames => b" frames",
            Use::Datagrams => b" datagrams",
        };
        let label = [b"lariat auth 1 ", role.name(), what];
        let key = self.0.expand(&label, hmac::HMAC_SHA256);
        key.expect("a key is far shorter than what HKDF can give").into()
    }

    /// The two ends of the datagrams that `role` sends and receives.
    pub(super) fn datagrams(&self, role: Role) -> (DatagramSealer, DatagramOpener) {
        (
            DatagramSealer::new(self.of(role, Use::Datagrams)),
            DatagramOpener::new(self.of(role.other(), Use::Datagrams)),
        )
    }
}

/// What an exchange has shown: both ends have the token of the client of this name.
///
/// Under [`Sealed`](super::Sealed) it is in [`Context::session`](crate::Context::session) from
/// `opened` on; [`Challenge`](super::Challenge) hands it to the maker of the next protocol.
#[derive(Clone)]
pub struct AuthSession {
    pub(super) name: Arc<str>,
    pub(super) role: Role,
    pub(super) keys: Keys,
}

impl AuthSession {
    /// The client's name, the same on both ends.
    pub fn client_name(&self) -> &str {
        &self.name
    }

    /// The role of this end.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The two ends of datagrams that belong to this connection, with keys of their own. Take them
    /// once: a second pair begins with the same numbers, so that datagrams of the first one pass.
    pub fn datagrams(&self) -> (DatagramSealer, DatagramOpener) {
        self.keys.datagrams(self.role)
    }
}

impl fmt::Debug for AuthSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the keys.
        f.debug_struct("AuthSession")
            .field("client_name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}
