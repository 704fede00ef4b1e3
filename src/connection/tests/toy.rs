//! A filter small enough to see through: a hello each way, then two wire bytes for each clear one.

use crate::filter::{Filter, FilterResult, Progress};

const END: u8 = 0;
const BYTE: u8 = 1;
pub(super) const HELLO: u8 = 2;
/// What a filter says to its like, as TLS does now and then: it stands for no clear byte.
const CHAT: u8 = 3;
/// A byte that the filter takes offence at.
pub(super) const NONSENSE: u8 = 9;
/// A clear byte that the filter cannot encode.
pub(super) const UNSPEAKABLE: u8 = 0xEE;
const KEY: u8 = 0x5A;

/// What a side that speaks the toy's encoding sends for `clear`.
pub(super) fn encode(clear: &[u8]) -> Vec<u8> {
    clear.iter().flat_map(|byte| [BYTE, byte ^ KEY]).collect()
}

pub(super) fn end() -> Vec<u8> {
    vec![END]
}

/// Reads the encoding, however it is cut.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    pub(super) greeted: bool,
    pub(super) ended: bool,
    within: bool,
}

impl Decoder {
    /// Appends the clear bytes of `wire`, up to the first that makes no sense.
    pub(super) fn decode(&mut self, wire: &[u8], clear: &mut Vec<u8>) -> Result<(), String> {
        for &byte in wire {
            if self.within {
                clear.push(byte ^ KEY);
                self.within = false;
                continue;
            }
            match byte {
                HELLO if !self.greeted => self.greeted = true,
                CHAT if self.greeted => {}
                BYTE if self.greeted && !self.ended => self.within = true,
                END if self.greeted && !self.ended => self.ended = true,
                _ => return Err(format!("{byte} makes no sense here")),
            }
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
pub(super) struct Toy {
    decoder: Decoder,
    /// Answers whatever comes with this many bytes of its own.
    chatter: usize,
    panics: bool,
    failed: bool,
    finished: bool,
}

impl Toy {
    pub(super) fn new(chatter: usize, panics: bool) -> Toy {
        Toy { chatter, panics, ..Toy::default() }
    }

    fn progress(&self) -> Progress {
        match (self.decoder.greeted, self.decoder.ended) {
            (false, _) => Progress::Handshaking,
            (true, false) => Progress::Open,
            (true, true) => Progress::PeerFinished,
        }
    }

    fn check(&self) {
        assert!(!self.failed, "the filter was called after it had failed");
    }
}

impl Filter for Toy {
    fn start(&mut self, wire: &mut Vec<u8>) -> FilterResult {
        wire.push(HELLO);
        Ok(Progress::Handshaking)
    }

    fn receive(
        &mut self,
        bytes: &mut [u8],
        clear: &mut Vec<u8>,
        wire: &mut Vec<u8>,
    ) -> FilterResult {
        self.check();
        assert!(!self.panics, "the filter panics");
        if let Err(error) = self.decoder.decode(bytes, clear) {
            self.failed = true;
            return Err(error.into());
        }
        wire.extend(vec![CHAT; self.chatter]);
        Ok(self.progress())
    }

    fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> FilterResult {
        self.check();
        assert!(!self.finished, "`send` after `finish`");
        if clear.contains(&UNSPEAKABLE) {
            self.failed = true;
            return Err("unspeakable".into());
        }
        wire.extend(encode(clear));
        Ok(self.progress())
    }

    fn finish(&mut self, wire: &mut Vec<u8>) {
        self.check();
        assert!(!self.finished, "`finish` ran twice");
        self.finished = true;
        if self.decoder.greeted {
            wire.push(END);
        }
    }

    fn ends_with_stream(&self) -> bool {
        self.check();
        self.decoder.ended
    }
}
