//! The exchange that shows both ends who is there: two hellos, two proofs.
//!
//! ```text
//! client                                     server
//!   hello: nonce, name   ---->    <----   hello: nonce
//!   proof                ---->
//!                        <----   proof
//! ```
//!
//! A hello is 8 bytes that name this protocol, the sender's role, the form of what follows, a nonce
//! of 32 bytes, the length of a name and the name, which only a client has. A proof is an HMAC over
//! both hellos, whole, with a key of the sender's role that comes of the token and both nonces. The
//! server proves nothing to a client that has not proved first: one who connects without the token
//! learns nothing to try passwords against.

use std::str;

use ring::hmac;

use super::error::AuthError;
use super::session::{AuthSession, Keys, Role, Use};
use super::token::{ClientToken, NONCE, ServerTokens, Token, check_name};

/// Names the protocol and its version.
const MAGIC: [u8; 8] = *b"LARIAT\x00\x01";
const ROLE_AT: usize = MAGIC.len();
const FORM_AT: usize = ROLE_AT + 1;
const NONCE_AT: usize = FORM_AT + 1;
const LENGTH_AT: usize = NONCE_AT + NONCE;
/// Bytes of a hello without the name.
const HELLO: usize = LENGTH_AT + 1;
/// Bytes of an HMAC.
pub(super) const TAG: usize = 32;

/// What follows the exchange; the ends have to agree on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Clear,
    Sealed,
}

/// One end of an exchange: what it knows, and what it is to show.
#[derive(Clone, Debug)]
pub(super) enum Side {
    Server(ServerTokens),
    Client(ClientToken),
}

impl Side {
    pub(super) fn role(&self) -> Role {
        match self {
            Side::Server(_) => Role::Server,
            Side::Client(_) => Role::Client,
        }
    }
}

/// One end's view of an exchange, without a socket and a clock.
pub(super) struct Exchange {
    side: Side,
    form: Form,
    /// The hello of this end.
    said: Vec<u8>,
    /// What has come of the peer's hello, and then of its proof: never more than one of them.
    heard: Vec<u8>,
    /// Once the peer's hello is whole.
    pending: Option<Pending>,
}

/// A peer that has yet to prove who it is.
struct Pending {
    session: AuthSession,
    /// Both hellos, the client's first.
    hellos: Vec<u8>,
    /// False for a client of an unknown name. Its proof fails no sooner than others.
    is_known: bool,
}

impl Exchange {
    pub(super) fn new(side: Side, form: Form) -> Exchange {
        Exchange { side, form, said: Vec::new(), heard: Vec::new(), pending: None }
    }

    /// Appends this end's hello to `wire`.
    pub(super) fn start(&mut self, wire: &mut Vec<u8>) -> Result<(), AuthError> {
        let (nonces, name) = match &self.side {
            Side::Server(tokens) => (&tokens.nonces, ""),
            Side::Client(client) => (&client.nonces, &*client.name),
        };
        let nonce = nonces.draw()?;
        self.said.extend_from_slice(&MAGIC);
        self.said.extend([role_byte(self.side.role()), form_byte(self.form)]);
        self.said.extend_from_slice(&nonce);
        self.said.push(name.len() as u8);
        self.said.extend_from_slice(name.as_bytes());
        wire.extend_from_slice(&self.said);
        Ok(())
    }

    /// Takes what belongs to the exchange from the beginning of `bytes` and appends the answer to
    /// `wire`. `Some` once both ends have shown that they have the token.
    pub(super) fn receive(
        &mut self,
        bytes: &mut &[u8],
        wire: &mut Vec<u8>,
    ) -> Result<Option<AuthSession>, AuthError> {
        loop {
            let (taken, left) = bytes.split_at(self.missing().min(bytes.len()));
            self.heard.extend_from_slice(taken);
            *bytes = left;
            if self.pending.is_none() {
                self.check_hello()?;
            }
            if self.missing() > 0 {
                if left.is_empty() {
                    return Ok(None);
                }
                continue;
            }
            if let Some(pending) = self.pending.take() {
                return self.accept(pending, wire).map(Some);
            }
            self.greet(wire)?;
        }
    }

    /// Bytes that are missing of the peer's hello or proof, as far as can be told.
    fn missing(&self) -> usize {
        let whole = match (&self.pending, self.heard.get(LENGTH_AT)) {
            (Some(_), _) => TAG,
            (None, Some(length)) => HELLO + usize::from(*length),
            (None, None) => HELLO,
        };
        whole - self.heard.len()
    }

    /// Refuses a hello at the first byte that is wrong.
    fn check_hello(&self) -> Result<(), AuthError> {
        let peer = self.side.role().other();
        if !self.heard.iter().zip(MAGIC).all(|(heard, due)| *heard == due) {
            return Err(AuthError::NotSpoken);
        }
        if self.heard.get(ROLE_AT).is_some_and(|role| *role != role_byte(peer)) {
            return Err(AuthError::WrongRole);
        }
        if self.heard.get(FORM_AT).is_some_and(|form| *form != form_byte(self.form)) {
            return Err(AuthError::WrongForm);
        }
        let length_max = if peer == Role::Client { ClientToken::NAME_MAX } else { 0 };
        if self.heard.get(LENGTH_AT).is_some_and(|length| usize::from(*length) > length_max) {
            return Err(AuthError::InvalidName);
        }
        Ok(())
    }

    /// The peer's hello is whole: a client proves itself, a server waits for that.
    fn greet(&mut self, wire: &mut Vec<u8>) -> Result<(), AuthError> {
        let heard = std::mem::take(&mut self.heard);
        let (name, token) = match &self.side {
            Side::Client(client) => (client.name.clone(), Some(client.token.clone())),
            Side::Server(tokens) => {
                let name = str::from_utf8(&heard[HELLO..]).map_err(|_| AuthError::InvalidName)?;
                check_name(name)?;
                (name.into(), tokens.find(name))
            }
        };
        let role = self.side.role();
        let (client, server) = match role {
            Role::Client => (&self.said, &heard),
            Role::Server => (&heard, &self.said),
        };
        let is_known = token.is_some();
        let token = token.map_or_else(|| Token::new([0; NONCE]), Ok)?;
        let nonces = [&client[NONCE_AT..LENGTH_AT], &server[NONCE_AT..LENGTH_AT]];
        let session = AuthSession { name, role, keys: Keys::new(&token, &nonces) };
        let hellos = [&client[..], server].concat();
        if role == Role::Client {
            prove(&session, &hellos, wire);
        }
        self.pending = Some(Pending { session, hellos, is_known });
        Ok(())
    }

    /// The peer's proof is whole.
    fn accept(&self, pending: Pending, wire: &mut Vec<u8>) -> Result<AuthSession, AuthError> {
        let Pending { session, hellos, is_known } = pending;
        let key = session.keys.of(session.role.other(), Use::Proof);
        let passes = hmac::verify(&key, &hellos, &self.heard).is_ok();
        if !(passes && is_known) {
            return Err(AuthError::WrongToken);
        }
        if session.role == Role::Server {
            prove(&session, &hellos, wire);
        }
        Ok(session)
    }
}

/// Appends the proof of this end.
fn prove(session: &AuthSession, hellos: &[u8], wire: &mut Vec<u8>) {
    let key = session.keys.of(session.role, Use::Proof);
    wire.extend_from_slice(hmac::sign(&key, hellos).as_ref());
}

fn role_byte(role: Role) -> u8 {
    match role {
        Role::Client => b'C',
        Role::Server => b'S',
    }
}

fn form_byte(form: Form) -> u8 {
    match form {
        Form::Clear => b'c',
        Form::Sealed => b's',
    }
}
