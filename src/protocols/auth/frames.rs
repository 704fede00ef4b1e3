//! Frames that carry a number and an HMAC.
//!
//! A frame is one byte for its kind, the length of its payload in two bytes, its number in eight,
//! all big-endian, then the payload and an HMAC over all of that. The numbers of a direction begin
//! at 0 and leave none out, and each direction has a key of its own, so that a frame that is
//! repeated, left out, moved or sent back does not pass.

use std::mem;

use ring::hmac;

use super::error::AuthError;
use super::exchange::TAG;

/// Bytes before the payload.
const HEAD: usize = 11;
/// The most bytes of a payload.
pub(super) const PAYLOAD_MAX: usize = 16 * 1024;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Data = b'd',
    /// The last one of its direction. It has no payload.
    End = b'e',
}

/// Makes the frames of one direction.
pub(super) struct Sealer {
    key: hmac::Key,
    next: u64,
}

impl Sealer {
    pub(super) fn new(key: hmac::Key) -> Sealer {
        Sealer { key, next: 0 }
    }

    /// Appends `clear` to `wire` in frames.
    pub(super) fn seal(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> Result<(), AuthError> {
        clear.chunks(PAYLOAD_MAX).try_for_each(|payload| self.frame(Kind::Data, payload, wire))
    }

    /// Appends the last frame.
    pub(super) fn end(&mut self, wire: &mut Vec<u8>) -> Result<(), AuthError> {
        self.frame(Kind::End, &[], wire)
    }

    fn frame(&mut self, kind: Kind, payload: &[u8], wire: &mut Vec<u8>) -> Result<(), AuthError> {
        let number = self.next;
        self.next = number.checked_add(1).ok_or(AuthError::Exhausted)?;
        let from = wire.len();
        wire.push(kind as u8);
        wire.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        wire.extend_from_slice(&number.to_be_bytes());
        wire.extend_from_slice(payload);
        let tag = hmac::sign(&self.key, &wire[from..]);
        wire.extend_from_slice(tag.as_ref());
        Ok(())
    }
}

/// Takes the frames of one direction.
pub(super) struct Opener {
    key: hmac::Key,
    next: u64,
    /// The beginning of a frame that is not whole.
    held: Vec<u8>,
    ended: bool,
}

impl Opener {
    pub(super) fn new(key: hmac::Key) -> Opener {
        Opener { key, next: 0, held: Vec::new(), ended: false }
    }

    /// Whether the last frame has come.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes all of `bytes` and appends the payload of whole frames to `clear`.
    pub(super) fn open(&mut self, mut bytes: &[u8], clear: &mut Vec<u8>) -> Result<(), AuthError> {
        while !bytes.is_empty() {
            if self.ended {
                return Err(AuthError::AfterEnd);
            }
            if self.held.is_empty() {
                let whole = self.length(bytes)?;
                if bytes.len() < whole {
                    self.held.extend_from_slice(bytes);
                    return Ok(());
                }
                let (frame, left) = bytes.split_at(whole);
                self.accept(frame, clear)?;
                bytes = left;
            } else {
                let missing = self.length(&self.held)? - self.held.len();
                let (taken, left) = bytes.split_at(missing.min(bytes.len()));
                self.held.extend_from_slice(taken);
                bytes = left;
                if self.length(&self.held)? == self.held.len() {
                    let frame = mem::take(&mut self.held);
                    self.accept(&frame, clear)?;
                }
            }
        }
        Ok(())
    }

    /// Bytes of the frame that `bytes` begin with, as far as can be told; its head is checked as
    /// soon as it is whole.
    fn length(&self, bytes: &[u8]) -> Result<usize, AuthError> {
        let Some((head, _)) = bytes.split_first_chunk::<HEAD>() else { return Ok(HEAD + TAG) };
        let [kind, high, low, number @ ..] = *head;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let fits = match kind {
            kind if kind == Kind::Data as u8 => (1..=PAYLOAD_MAX).contains(&length),
            kind if kind == Kind::End as u8 => length == 0,
            _ => false,
        };
        if !fits {
            return Err(AuthError::InvalidFrame);
        }
        let found = u64::from_be_bytes(number);
        if found != self.next {
            return Err(AuthError::WrongOrder { expected: self.next, found });
        }
        Ok(HEAD + length + TAG)
    }

    /// A whole frame, whose head has passed.
    fn accept(&mut self, frame: &[u8], clear: &mut Vec<u8>) -> Result<(), AuthError> {
        let (sealed, tag) = frame.split_at(frame.len() - TAG);
        hmac::verify(&self.key, sealed, tag).map_err(|_| AuthError::Changed)?;
        self.next = self.next.checked_add(1).ok_or(AuthError::Exhausted)?;
        self.ended = sealed[0] == Kind::End as u8;
        clear.extend_from_slice(&sealed[HEAD..]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Sealer, Opener) {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        (Sealer::new(key.clone()), Opener::new(key))
    }

    fn sealed(payloads: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut sealer, _) = pair();
        let frame = |payload: &&[u8]| {
            let mut wire = Vec::new();
            sealer.seal(payload, &mut wire).unwrap();
            wire
        };
        payloads.iter().map(frame).collect()
    }

    #[test]
    fn frames_pass_however_they_are_cut() {
        let wire = sealed(&[b"one", b"two", b"three"]).concat();
        for first in 0..=wire.len() {
            for second in [first, (first + wire.len()) / 2, wire.len()] {
                let (_, mut opener) = pair();
                let mut clear = Vec::new();
                for part in [&wire[..first], &wire[first..second], &wire[second..]] {
                    opener.open(part, &mut clear).unwrap();
                }
                assert_eq!(clear, b"onetwothree", "cut at {first} and {second}");
                assert_eq!(opener.held.capacity(), 0, "nothing is kept between frames");
            }
        }
        let (_, mut opener) = pair();
        let mut clear = Vec::new();
        wire.chunks(1).for_each(|byte| opener.open(byte, &mut clear).unwrap());
        assert_eq!(clear, b"onetwothree");
    }

    #[test]
    fn a_frame_with_one_byte_changed_does_not_pass() {
        let wire = sealed(&[b"payload"]).concat();
        for at in 0..wire.len() {
            for bit in 0..8 {
                let mut changed = wire.clone();
                changed[at] ^= 1 << bit;
                // Room for a length that has grown.
                changed.resize(wire.len() + PAYLOAD_MAX, 0);
                let (_, mut opener) = pair();
                let mut clear = Vec::new();
                assert!(opener.open(&changed, &mut clear).is_err(), "bit {bit} of byte {at}");
                assert!(clear.is_empty());
            }
        }
    }

    #[test]
    fn frames_that_are_repeated_left_out_or_moved_do_not_pass() {
        let frames = sealed(&[b"one", b"two", b"three"]);
        for (order, expected, found) in
            [(&[0, 0][..], 1, 0), (&[0, 2], 1, 2), (&[1], 0, 1), (&[0, 1, 0], 2, 0)]
        {
            let (_, mut opener) = pair();
            let bytes: Vec<u8> = order.iter().flat_map(|at| frames[*at].clone()).collect();
            let result = opener.open(&bytes, &mut Vec::new());
            assert_eq!(result, Err(AuthError::WrongOrder { expected, found }));
        }
    }

    #[test]
    fn the_head_of_a_frame_is_refused_before_its_payload_has_come() {
        let (_, mut opener) = pair();
        let mut head = sealed(&[b"one"])[0][..HEAD].to_vec();
        head[1..3].copy_from_slice(&(PAYLOAD_MAX as u16 + 1).to_be_bytes());
        assert_eq!(opener.open(&head, &mut Vec::new()), Err(AuthError::InvalidFrame));
        let (_, mut opener) = pair();
        head[1..3].copy_from_slice(&(PAYLOAD_MAX as u16).to_be_bytes());
        assert_eq!(opener.open(&head, &mut Vec::new()), Ok(()));
        let (_, mut opener) = pair();
        head[1..3].copy_from_slice(&[0, 0]);
        let empty = opener.open(&head, &mut Vec::new());
        assert_eq!(empty, Err(AuthError::InvalidFrame), "frames without a payload would be free");
    }

    #[test]
    fn much_is_sent_in_frames_of_at_most_16_kib() {
        let (mut sealer, mut opener) = pair();
        let clear: Vec<u8> = (0..PAYLOAD_MAX * 2 + 1).map(|at| at as u8).collect();
        let (mut wire, mut opened) = (Vec::new(), Vec::new());
        sealer.seal(&clear, &mut wire).unwrap();
        assert_eq!(wire.len(), clear.len() + 3 * (HEAD + TAG));
        opener.open(&wire, &mut opened).unwrap();
        assert!(opened == clear);
    }

    #[test]
    fn nothing_passes_behind_the_last_frame() {
        let (mut sealer, mut opener) = pair();
        let mut wire = Vec::new();
        sealer.end(&mut wire).unwrap();
        opener.open(&wire, &mut Vec::new()).unwrap();
        assert!(opener.has_ended());
        sealer.seal(b"more", &mut wire).unwrap();
        let more = wire.split_off(HEAD + TAG);
        assert_eq!(opener.open(&more, &mut Vec::new()), Err(AuthError::AfterEnd));
    }

    #[test]
    fn numbers_are_never_used_twice() {
        let (mut sealer, _) = pair();
        let (_, mut opener) = pair();
        (sealer.next, opener.next) = (u64::MAX - 1, u64::MAX - 1);
        let (mut wire, mut clear) = (Vec::new(), Vec::new());
        sealer.seal(b"last", &mut wire).unwrap();
        opener.open(&wire, &mut clear).unwrap();
        assert_eq!(clear, b"last");
        for _ in 0..2 {
            assert_eq!(sealer.seal(b"x", &mut Vec::new()), Err(AuthError::Exhausted));
            assert_eq!(sealer.end(&mut Vec::new()), Err(AuthError::Exhausted));
        }
        // The number after it is not the first one again.
        let found = opener.open(&sealed(&[b"first"])[0], &mut clear);
        assert_eq!(found, Err(AuthError::WrongOrder { expected: u64::MAX, found: 0 }));
    }
}
