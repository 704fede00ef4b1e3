//! TLS: two ends of a session as the filters that they are, and a wire on which the bytes of the
//! script decide what is held back, changed, repeated or lost.
//!
//! The rules: nothing panics; what an end hands over is a beginning of what the other has written,
//! whatever was done to the wire; it hands over nothing before the handshake is over; an end that
//! was not tampered with goes on; and no call makes bytes without measure.

use std::sync::OnceLock;

use lariat::tls::{ClientConfig, Identity, Roots, ServerConfig, Tls};
use lariat::{Filter, Progress, Protocol};

use crate::Script;

/// More than any answer of a session to one call: a chain of certificates, some tickets.
const ANSWER_MAX: usize = 64 * 1024;

/// What is on the way is not repeated beyond this.
const REPEATED_MAX: usize = 1 << 20;

/// A certificate is made once: that it is another one in the next process changes no length, as
/// signatures of Ed25519 have but one.
fn configs() -> &'static (ServerConfig, ClientConfig) {
    static CONFIGS: OnceLock<(ServerConfig, ClientConfig)> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key is made");
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]);
        let made = params.and_then(|params| params.self_signed(&key)).expect("it is signed");
        let (pem, key) = (made.pem(), key.serialize_pem());
        let identity = Identity::from_pem(pem.as_bytes(), key.as_bytes()).expect("they belong");
        let roots = Roots::from_pem(pem.as_bytes()).expect("it is one");
        (ServerConfig::new(identity), ClientConfig::new(&roots))
    })
}

/// Its filter is all that is wanted of it.
struct Nothing;

impl Protocol for Nothing {
    fn data(&mut self, _: &mut lariat::Context<'_>, _: &mut lariat::Input<'_>) -> lariat::Outcome {
        Ok(())
    }
}

struct End {
    filter: Box<dyn Filter>,
    progress: Progress,
    /// It has failed or finished: it is not called again.
    failed: bool,
    finished: bool,
    /// What it has written, and what it has handed over.
    said: Vec<u8>,
    heard: Vec<u8>,
    /// On the way to the other end.
    wire: Vec<u8>,
    /// Something was done to what it gets.
    tampered: bool,
}

impl End {
    fn new(filter: Option<Box<dyn Filter>>) -> End {
        let mut filter = filter.expect("TLS is a filter");
        let mut wire = Vec::new();
        let progress = filter.start(&mut wire).expect("a session begins");
        assert_eq!(progress, Progress::Handshaking);
        let (said, heard) = (Vec::new(), Vec::new());
        let (failed, finished, tampered) = (false, false, false);
        End { filter, progress, failed, finished, said, heard, wire, tampered }
    }

    fn receive(&mut self, mut bytes: Vec<u8>) {
        if self.failed || self.progress == Progress::PeerFinished {
            return;
        }
        if self.finished && self.tampered {
            // A debug assertion of rustls takes a close_notify for an alert that ends everything,
            // and fails when a real one has to follow. The filter catches that panic, but the
            // fuzzer's hook ends the process first. `tests/tls/late.rs` has this case.
            return;
        }
        let (heard, wire) = (self.heard.len(), self.wire.len());
        let result = self.filter.receive(&mut bytes, &mut self.heard, &mut self.wire);
        assert!(self.wire.len() - wire <= ANSWER_MAX, "an answer without measure");
        assert!(self.heard.len() - heard <= bytes.len() + (1 << 14), "more than has come");
        match result {
            Ok(progress) => self.note(progress),
            Err(error) => {
                assert!(self.tampered, "an untouched session has failed: {error}");
                assert!(!error.to_string().is_empty());
                self.failed = true;
            }
        }
    }

    fn send(&mut self, clear: &[u8]) {
        if self.failed || self.finished || self.progress == Progress::Handshaking {
            return;
        }
        let progress = self.filter.send(clear, &mut self.wire).expect("an open session sends");
        self.said.extend_from_slice(clear);
        self.note(progress);
    }

    fn finish(&mut self) {
        if !self.failed && !self.finished {
            self.finished = true;
            self.filter.finish(&mut self.wire);
        }
    }

    fn note(&mut self, progress: Progress) {
        let order = |progress| match progress {
            Progress::Handshaking => 0,
            Progress::Open => 1,
            _ => 2,
        };
        assert!(order(progress) >= order(self.progress), "a session does not go back");
        self.progress = progress;
        if progress == Progress::Handshaking {
            assert!(self.heard.is_empty(), "bytes of nobody known");
            assert!(self.filter.session().is_none());
        } else {
            assert!(self.filter.session().is_some());
        }
    }
}

/// Runs a script; panics when a rule is broken.
pub fn run(bytes: &[u8]) {
    let (server, client) = configs();
    let mut script = Script::new(bytes);
    let client = Tls::client(client, "localhost", Nothing).expect("it is a name").filter();
    let mut ends = [End::new(client), End::new(Tls::server(server, Nothing).filter())];
    // Many scripts begin with a handshake, so that the rest is about a session.
    if script.below(4) > 0 {
        for _ in 0..4 {
            deliver(&mut ends, 0, usize::MAX);
            deliver(&mut ends, 1, usize::MAX);
        }
        assert!(ends.iter().all(|end| end.progress == Progress::Open), "an untouched handshake");
    }
    while !script.is_over() {
        step(&mut script, &mut ends);
        for (from, to) in [(0, 1), (1, 0)] {
            assert!(ends[from].said.starts_with(&ends[to].heard), "bytes that nobody has written");
        }
    }
    // Whoever was not tampered with hears everything.
    for _ in 0..4 {
        deliver(&mut ends, 0, usize::MAX);
        deliver(&mut ends, 1, usize::MAX);
    }
    if ends.iter().all(|end| !end.tampered) {
        assert!(ends[0].heard == ends[1].said && ends[1].heard == ends[0].said, "bytes are lost");
    }
}

/// Hands over the first `count` bytes that `from` has sent.
fn deliver(ends: &mut [End; 2], from: usize, count: usize) {
    let wire = &mut ends[from].wire;
    let left = wire.split_off(count.min(wire.len()));
    let bytes = std::mem::replace(wire, left);
    if !bytes.is_empty() {
        ends[1 - from].receive(bytes);
    }
}

fn step(script: &mut Script, ends: &mut [End; 2]) {
    let choice = script.byte();
    let from = usize::from(choice & 1);
    match choice >> 1 & 15 {
        0..=3 => {
            let count = script.length(100_000);
            deliver(ends, from, count);
        }
        4 | 5 => deliver(ends, from, usize::MAX),
        6..=8 => {
            let length = script.length(40_000);
            let first = script.byte();
            let clear: Vec<u8> = (0..length).map(|at| first.wrapping_add(at as u8)).collect();
            ends[from].send(&clear);
        }
        9 => {
            if ends[from].progress == Progress::Handshaking {
                // A session that was given up before it began fails at the other end.
                ends.iter_mut().for_each(|end| end.tampered = true);
            }
            ends[from].finish();
        }
        10 => tamper(script, ends, from, |wire, at, byte| wire[at] ^= byte.max(1)),
        11 => tamper(script, ends, from, |wire, at, _| {
            wire.remove(at);
        }),
        12 => tamper(script, ends, from, |wire, at, byte| wire.insert(at, byte)),
        13 => tamper(script, ends, from, |wire, at, _| {
            // Repeats what is on the way from here on. Again and again it would fill all memory.
            let again = if wire.len() < REPEATED_MAX { wire[at..].to_vec() } else { Vec::new() };
            wire.extend(again);
        }),
        14 => tamper(script, ends, from, |wire, at, byte| wire.truncate(at.min(usize::from(byte)))),
        _ => {
            // Its own bytes come back.
            let own = ends[from].wire.clone();
            if !own.is_empty() {
                // The other end may hear of it, in an alert.
                ends.iter_mut().for_each(|end| end.tampered = true);
                ends[from].receive(own);
            }
        }
    }
}

/// Changes what is on the way from `from`, if something is.
fn tamper(
    script: &mut Script,
    ends: &mut [End; 2],
    from: usize,
    change: impl FnOnce(&mut Vec<u8>, usize, u8),
) {
    let (at, byte) = (script.number() as usize, script.byte());
    let wire = &mut ends[from].wire;
    if !wire.is_empty() {
        let at = at % wire.len();
        change(wire, at, byte);
        // What is lost here is missing there, and what is answered to it as well.
        ends.iter_mut().for_each(|end| end.tampered = true);
    }
}
