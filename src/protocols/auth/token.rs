//! What both ends know before they meet, and where their nonces come from.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ring::rand::{SecureRandom, SystemRandom};

use super::error::AuthError;
use crate::random::Random;

/// Bytes of a nonce.
pub(super) const NONCE: usize = 32;

/// A secret that both ends of a connection have.
///
/// ```
/// use lariat::auth::Token;
/// assert!(Token::new(b"hunter2").is_err());
/// let token = Token::new(b"4fae7dd2c0a94b0e9d6f8a31c7e5b290")?;
/// # Ok::<(), lariat::auth::AuthError>(())
/// ```
#[derive(Clone)]
pub struct Token(Arc<[u8]>);

impl Token {
    /// The fewest bytes of a token: 16.
    pub const BYTES_MIN: usize = 16;

    /// A token of at least [`BYTES_MIN`](Token::BYTES_MIN) bytes. They have to be random (for
    /// instance the output of `openssl rand -hex 32`): one who has recorded an exchange can try a
    /// password that people think up against it, millions a second.
    ///
    /// # Errors
    ///
    /// [`AuthError::WeakToken`].
    pub fn new(secret: impl AsRef<[u8]>) -> Result<Token, AuthError> {
        let secret = secret.as_ref();
        if secret.len() < Token::BYTES_MIN {
            return Err(AuthError::WeakToken);
        }
        Ok(Token(secret.into()))
    }

    pub(super) fn secret(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the secret.
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

/// Where the nonces of exchanges come from: the system's random numbers, unless a test says
/// otherwise.
#[derive(Clone)]
pub struct Nonces(Source);

#[derive(Clone)]
enum Source {
    System,
    Seeded(Arc<Mutex<Random>>),
}

impl Nonces {
    /// The system's random numbers. The default.
    pub fn system() -> Nonces {
        Nonces(Source::System)
    }

    /// Numbers that depend on `seed` alone, for the simulator: the same seed, the same bytes on the
    /// wire. Never for a real socket: one who knows the next nonce can record a proof beforehand.
    pub fn seeded(seed: u64) -> Nonces {
        Nonces(Source::Seeded(Arc::new(Mutex::new(Random::new(seed)))))
    }

    pub(super) fn draw(&self) -> Result<[u8; NONCE], AuthError> {
        let mut nonce = [0; NONCE];
        match &self.0 {
            Source::System => {
                SystemRandom::new().fill(&mut nonce).map_err(|_| AuthError::NoRandom)?;
            }
            Source::Seeded(random) => {
                let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
                for part in nonce.chunks_mut(8) {
                    part.copy_from_slice(&random.next().to_le_bytes());
                }
            }
        }
        Ok(nonce)
    }
}

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Nonces::system()",
            Source::Seeded(_) => "Nonces::seeded(..)",
        })
    }
}

/// The name of a client and its token: what the client's end of an exchange needs.
#[derive(Clone, Debug)]
pub struct ClientToken {
    pub(super) name: Arc<str>,
    pub(super) token: Token,
    pub(super) nonces: Nonces,
}

impl ClientToken {
    /// The most bytes of a name: 64.
    pub const NAME_MAX: usize = 64;

    /// The client `name`, which goes over the wire in clear.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidName`] for an empty name, and for one longer than
    /// [`NAME_MAX`](ClientToken::NAME_MAX) bytes.
    pub fn new(name: &str, token: Token) -> Result<ClientToken, AuthError> {
        check_name(name)?;
        Ok(ClientToken { name: name.into(), token, nonces: Nonces::system() })
    }

    /// Takes nonces from another source, for tests.
    #[must_use]
    pub fn with_nonces(self, nonces: Nonces) -> ClientToken {
        ClientToken { nonces, ..self }
    }
}

pub(super) fn check_name(name: &str) -> Result<(), AuthError> {
    if name.is_empty() || name.len() > ClientToken::NAME_MAX {
        return Err(AuthError::InvalidName);
    }
    Ok(())
}

/// The clients that a server knows, each with its token. Clones share them, and they can be changed
/// while the server runs; exchanges that are over are not affected.
#[derive(Clone, Debug)]
pub struct ServerTokens {
    tokens: Arc<RwLock<BTreeMap<String, Token>>>,
    pub(super) nonces: Nonces,
}

impl ServerTokens {
    /// No client at all.
    pub fn new() -> ServerTokens {
        ServerTokens { tokens: Arc::default(), nonces: Nonces::system() }
    }

    /// Takes nonces from another source, for tests.
    #[must_use]
    pub fn with_nonces(self, nonces: Nonces) -> ServerTokens {
        ServerTokens { nonces, ..self }
    }

    /// Adds the client `name`, or gives it another token.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidName`], as for [`ClientToken::new`].
    pub fn add(&self, name: &str, token: Token) -> Result<(), AuthError> {
        check_name(name)?;
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(name.to_owned(), token);
        Ok(())
    }

    /// Forgets the client `name`; false when it was not known.
    pub fn remove(&self, name: &str) -> bool {
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        tokens.remove(name).is_some()
    }

    pub(super) fn find(&self, name: &str) -> Option<Token> {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

impl Default for ServerTokens {
    fn default() -> ServerTokens {
        ServerTokens::new()
    }
}
