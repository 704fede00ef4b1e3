//! Datagrams that carry a number and an HMAC, and a window that tells which numbers have come.

use std::fmt;

use ring::hmac;

use super::error::AuthError;
use super::exchange::TAG;
use super::session::{Keys, Role};
use super::token::Token;

/// Bytes before the payload: the number.
const HEAD: usize = 8;
/// Numbers, from the highest one that has come, of which is known whether they have come.
const WINDOW: u64 = 128;

impl Token {
    /// The two ends of the datagrams that `role` sends and receives, without an exchange. Both ends
    /// have to give the same `session`, and no two sessions of a token the same one: datagrams of
    /// an earlier session with these bytes would pass again. 16 random bytes that one end has made
    /// and the other knows are enough; they need not be secret. It may have any length.
    ///
    /// Where there is a connection as well,
    /// [`AuthSession::datagrams`](super::AuthSession::datagrams) sees to that.
    ///
    /// ```
    /// use lariat::auth::{Role, Token};
    ///
    /// let token = Token::new([7; 32])?;
    /// let (mut sealer, _) = token.datagrams(Role::Client, b"session 1");
    /// let (_, mut opener) = token.datagrams(Role::Server, b"session 1");
    /// let mut datagram = Vec::new();
    /// sealer.seal(b"hello", &mut datagram)?;
    /// assert_eq!(opener.open(&datagram)?, b"hello");
    /// assert!(opener.open(&datagram).is_err(), "it has come before");
    /// # Ok::<(), lariat::auth::AuthError>(())
    /// ```
    pub fn datagrams(&self, role: Role, session: &[u8]) -> (DatagramSealer, DatagramOpener) {
        // Apart from all keys of connections, whose salt is two nonces and nothing else. The last
        // byte is not zero: HMAC pads a short key with zeros, so that sessions that differ in zeros
        // at their end would have the same keys.
        Keys::new(self, &[b"datagrams without an exchange, ", session, b"."]).datagrams(role)
    }
}

/// Makes the datagrams of one direction: a number of eight bytes, the payload, and an HMAC over
/// both.
pub struct DatagramSealer {
    key: hmac::Key,
    next: u64,
}

impl DatagramSealer {
    /// Bytes that a sealed datagram is longer than its payload: 40.
    pub const OVERHEAD: usize = HEAD + TAG;

    pub(super) fn new(key: hmac::Key) -> DatagramSealer {
        DatagramSealer { key, next: 0 }
    }

    /// Puts `payload` into `datagram`, sealed, in the place of what was there.
    ///
    /// # Errors
    ///
    /// [`AuthError::Exhausted`] after 2^64 - 1 datagrams.
    pub fn seal(&mut self, payload: &[u8], datagram: &mut Vec<u8>) -> Result<(), AuthError> {
        let number = self.next;
        self.next = number.checked_add(1).ok_or(AuthError::Exhausted)?;
        datagram.clear();
        datagram.extend_from_slice(&number.to_be_bytes());
        datagram.extend_from_slice(payload);
        let tag = hmac::sign(&self.key, datagram);
        datagram.extend_from_slice(tag.as_ref());
        Ok(())
    }
}

impl fmt::Debug for DatagramSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramSealer").field("next", &self.next).finish_non_exhaustive()
    }
}

/// Takes the datagrams of one direction, in any order, each once.
pub struct DatagramOpener {
    key: hmac::Key,
    window: Window,
}

impl DatagramOpener {
    pub(super) fn new(key: hmac::Key) -> DatagramOpener {
        DatagramOpener { key, window: Window::default() }
    }

    /// The payload of `datagram`. Of the 128 highest numbers it knows which have come; older ones
    /// are refused.
    ///
    /// # Errors
    ///
    /// [`AuthError::Changed`], [`AuthError::Repeated`] or [`AuthError::Old`]; the datagram is to be
    /// dropped, and later ones may pass.
    pub fn open<'a>(&mut self, datagram: &'a [u8]) -> Result<&'a [u8], AuthError> {
        let split = datagram.len().checked_sub(TAG).ok_or(AuthError::Changed)?;
        let (sealed, tag) = datagram.split_at(split);
        let (head, payload) = sealed.split_first_chunk().ok_or(AuthError::Changed)?;
        // Before its number counts for anything: one that was made up must not move the window.
        hmac::verify(&self.key, sealed, tag).map_err(|_| AuthError::Changed)?;
        self.window.accept(u64::from_be_bytes(*head))?;
        Ok(payload)
    }
}

impl fmt::Debug for DatagramOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramOpener").field("next", &self.window.next).finish_non_exhaustive()
    }
}

/// Which numbers have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Window {
    /// One more than the highest.
    next: u64,
    /// Bit n: the number n below the highest has come.
    come: u128,
}

impl Window {
    fn accept(&mut self, number: u64) -> Result<(), AuthError> {
        if number >= self.next {
            // A sealer never gives the last number there is.
            let next = number.checked_add(1).ok_or(AuthError::Exhausted)?;
            let moved = next - self.next;
            self.come = if moved < WINDOW { self.come << moved } else { 0 };
            self.come |= 1;
            self.next = next;
            return Ok(());
        }
        let age = self.next - 1 - number;
        if age >= WINDOW {
            return Err(AuthError::Old(number));
        }
        let bit = 1 << age;
        if self.come & bit != 0 {
            return Err(AuthError::Repeated(number));
        }
        self.come |= bit;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::random::Random;

    #[test]
    fn a_number_passes_once_within_the_window_and_never_below_it() {
        let mut window = Window::default();
        window.accept(1_000).unwrap();
        assert_eq!(window.accept(1_000), Err(AuthError::Repeated(1_000)));
        assert_eq!(window.accept(872), Err(AuthError::Old(872)), "128 below");
        assert_eq!(window.accept(873), Ok(()), "127 below: the last one of the window");
        assert_eq!(window.accept(873), Err(AuthError::Repeated(873)));
        assert_eq!(window.accept(999), Ok(()));
        window.accept(1_001).unwrap();
        assert_eq!(window.accept(873), Err(AuthError::Old(873)));
        assert_eq!(window.accept(999), Err(AuthError::Repeated(999)));
        assert_eq!(window.accept(998), Ok(()));
    }

    #[test]
    fn a_jump_of_the_windows_size_forgets_the_old_ones_and_no_new_one() {
        for jump in [126, 127, 128, 129, 1 << 40] {
            let mut window = Window::default();
            window.accept(0).unwrap();
            window.accept(jump).unwrap();
            let again = window.accept(0);
            if jump < 128 {
                assert_eq!(again, Err(AuthError::Repeated(0)), "jump of {jump}");
            } else {
                assert_eq!(again, Err(AuthError::Old(0)), "jump of {jump}");
            }
            for number in jump.saturating_sub(127).max(1)..jump {
                assert_eq!(window.accept(number), Ok(()), "{number} after a jump of {jump}");
            }
            // Of a window that is full, too.
            window.accept(3 * jump).unwrap();
            for number in (2 * jump).max(3 * jump - 127)..3 * jump {
                assert_eq!(window.accept(number), Ok(()), "{number} after another of {jump}");
            }
        }
    }

    #[test]
    fn the_highest_number_does_not_pass() {
        let mut window = Window::default();
        assert_eq!(window.accept(u64::MAX), Err(AuthError::Exhausted));
        assert_eq!(window.accept(u64::MAX - 1), Ok(()));
        assert_eq!(window.accept(u64::MAX - 1), Err(AuthError::Repeated(u64::MAX - 1)));
    }

    #[test]
    fn a_sealer_gives_every_number_once_and_never_the_last_one() {
        let key = || hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let mut sealer = DatagramSealer { key: key(), next: u64::MAX - 1 };
        let mut opener = DatagramOpener::new(key());
        let mut datagram = Vec::new();
        sealer.seal(b"last", &mut datagram).unwrap();
        assert_eq!(opener.open(&datagram), Ok(&b"last"[..]));
        for _ in 0..2 {
            assert_eq!(sealer.seal(b"more", &mut datagram), Err(AuthError::Exhausted));
        }
        assert_eq!(opener.open(&datagram), Err(AuthError::Repeated(u64::MAX - 1)));
    }

    #[test]
    fn the_window_does_what_a_set_of_all_numbers_does() {
        let mut random = Random::new(5);
        for _ in 0..50 {
            let (mut window, mut all) = (Window::default(), BTreeSet::new());
            let mut at = 300;
            for _ in 0..2_000 {
                at += random.below(3);
                let number = (at + random.below(10)).saturating_sub(random.below(160));
                let highest = all.last().copied().unwrap_or(0);
                let expected = if all.contains(&number) && number + WINDOW > highest {
                    Err(AuthError::Repeated(number))
                } else if number + WINDOW <= highest {
                    Err(AuthError::Old(number))
                } else {
                    Ok(())
                };
                assert_eq!(window.accept(number), expected);
                all.insert(number);
            }
        }
    }
}
