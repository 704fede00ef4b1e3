//! A filter that is no cipher but behaves like one: a handshake of two messages, then every byte
//! changed, then an end mark.
//!
//! The client says `HELO` and a key, the server answers `OLEH`. Then each direction is frames: a
//! length byte (1 to 255) and as many bytes, each xored with the key; a length of 0 is the end.

use lariat::{Filter, FilterResult, Progress};

const HELLO: &[u8; 4] = b"HELO";
const ANSWER: &[u8; 4] = b"OLEH";
/// What a filter that finds garbage says before it goes.
pub(crate) const ALERT: &[u8] = b"!!";

pub(crate) struct Toy {
    server: bool,
    key: u8,
    progress: Progress,
    /// Wire bytes that make no whole message yet.
    partial: Vec<u8>,
}

impl Toy {
    pub(crate) fn server() -> Toy {
        Toy { server: true, key: 0, progress: Progress::Handshaking, partial: Vec::new() }
    }

    #[allow(dead_code)]
    pub(crate) fn client(key: u8) -> Toy {
        Toy { server: false, key, ..Toy::server() }
    }

    /// The bytes of a client's first message.
    #[allow(dead_code)]
    pub(crate) fn hello(key: u8) -> Vec<u8> {
        let mut wire = HELLO.to_vec();
        wire.push(key);
        wire
    }

    /// The wire's form of `clear`.
    pub(crate) fn encode(key: u8, clear: &[u8], wire: &mut Vec<u8>) {
        for part in clear.chunks(255) {
            wire.push(part.len() as u8);
            wire.extend(part.iter().map(|byte| byte ^ key));
        }
    }

    fn shake_hands(&mut self, wire: &mut Vec<u8>) -> FilterResult {
        let expected: &[u8] = if self.server { HELLO } else { ANSWER };
        let known = self.partial.len().min(expected.len());
        if self.partial[..known] != expected[..known] {
            wire.extend_from_slice(ALERT);
            return Err("this is no toy".into());
        }
        let whole = expected.len() + usize::from(self.server);
        if self.partial.len() < whole {
            return Ok(self.progress);
        }
        if self.server {
            self.key = self.partial[HELLO.len()];
            wire.extend_from_slice(ANSWER);
        }
        self.partial.drain(..whole);
        self.progress = Progress::Open;
        Ok(self.progress)
    }
}

impl Filter for Toy {
    fn start(&mut self, wire: &mut Vec<u8>) -> FilterResult {
        if !self.server {
            wire.extend_from_slice(HELLO);
            wire.push(self.key);
        }
        Ok(self.progress)
    }

    fn receive(
        &mut self,
        bytes: &mut [u8],
        clear: &mut Vec<u8>,
        wire: &mut Vec<u8>,
    ) -> FilterResult {
        if self.progress == Progress::PeerFinished {
            return Ok(self.progress);
        }
        self.partial.extend_from_slice(bytes);
        if self.progress == Progress::Handshaking {
            self.shake_hands(wire)?;
        }
        let mut at = 0;
        while self.progress == Progress::Open {
            let Some(&length) = self.partial.get(at) else { break };
            if length == 0 {
                self.progress = Progress::PeerFinished;
                break;
            }
            let end = at + 1 + usize::from(length);
            let Some(body) = self.partial.get(at + 1..end) else { break };
            clear.extend(body.iter().map(|byte| byte ^ self.key));
            at = end;
        }
        self.partial.drain(..at);
        Ok(self.progress)
    }

    fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> FilterResult {
        assert!(self.progress != Progress::Handshaking, "clear bytes before the handshake is over");
        Toy::encode(self.key, clear, wire);
        Ok(self.progress)
    }

    fn finish(&mut self, wire: &mut Vec<u8>) {
        if self.progress != Progress::Handshaking {
            wire.push(0);
        }
    }

    fn ends_with_stream(&self) -> bool {
        self.progress == Progress::PeerFinished
    }
}
