//! One protocol, tested without a network or a visible driver.

use std::fmt;
use std::time::Duration;

use super::ends::First;
use super::{ByteText, Link, Sim, Socket};
use crate::id::ConnId;
use crate::note::Note;
use crate::protocol::Protocol;
use crate::random::Random;
use crate::reason::{CloseKind, CloseReason};

/// Gives one protocol input and time, and shows its output.
///
/// ```
/// use lariat::sim::Probe;
/// use lariat::{Context, Input, Outcome, Protocol};
///
/// struct Shout;
/// impl Protocol for Shout {
///     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
///         cx.write(&input.split_all().to_ascii_uppercase());
///         Ok(())
///     }
/// }
///
/// let mut probe = Probe::new(Shout);
/// probe.receive(b"hello");
/// assert_eq!(probe.sent(), b"HELLO");
/// probe.finish();
/// assert_eq!(probe.closed().unwrap().kind(), lariat::CloseKind::Finished);
/// ```
pub struct Probe {
    sim: Sim,
    client: Option<Socket>,
    id: ConnId,
}

impl Probe {
    /// Makes a probe around a protocol, as of an accepted connection. `opened` has run.
    ///
    /// # Panics
    ///
    /// When the simulator fails, which it does only with a script.
    pub fn new(protocol: impl Protocol + 'static) -> Probe {
        let mut sim = Sim::new(0);
        let (latency, window) = (Duration::ZERO, usize::MAX / 2);
        sim.set_link(Link { latency, window, ..Link::default() });
        sim.inner.system.ends.first = Some(First::default());
        let mut protocol = Some(protocol);
        let listener = sim
            .listen("127.0.0.1:1", move |_| protocol.take())
            .unwrap_or_else(|error| panic!("a fresh simulator listens: {error}"));
        let client = sim.dial(([127, 0, 0, 1], 1));
        let mut probe = Probe { sim, client: Some(client), id: ConnId::PLACEHOLDER };
        probe.settle();
        probe.sim.inner.stop_listening(listener);
        if let Some(id) = probe.first().and_then(|first| first.id) {
            probe.id = id;
        }
        probe
    }

    /// Lets everything happen that takes no time.
    fn settle(&mut self) {
        self.run_for(Duration::ZERO);
    }

    fn run_for(&mut self, time: Duration) {
        if let Err(error) = self.sim.run_for(time) {
            panic!("the simulator failed: {error}");
        }
    }

    /// Bytes arrive from the peer.
    pub fn receive(&mut self, bytes: &[u8]) {
        if let Some(client) = &self.client {
            client.send(bytes);
        }
        self.settle();
    }

    /// The peer finishes sending.
    pub fn finish(&mut self) {
        if let Some(client) = &self.client {
            client.finish();
        }
        self.settle();
    }

    /// The peer resets the connection.
    pub fn reset(&mut self) {
        if let Some(client) = &self.client {
            client.reset();
        }
        self.settle();
    }

    /// The peer closes its socket.
    pub fn hang_up(&mut self) {
        self.client = None;
        self.settle();
    }

    /// The bytes sent since the last call.
    pub fn sent(&mut self) -> ByteText {
        self.client.as_ref().map(Socket::take_received).unwrap_or_default()
    }

    /// Time passes.
    pub fn advance(&mut self, time: Duration) {
        self.run_for(time);
    }

    /// A note arrives.
    pub fn notify(&mut self, note: Note) {
        self.sim.control().peer(self.id).notify(note);
        self.settle();
    }

    /// The driver is shut down.
    pub fn shutdown(&mut self) {
        self.sim.handle().shutdown();
        self.settle();
    }

    /// Why the connection ends, from the moment that is decided. The protocol's `closed` may follow
    /// later: queued output is sent first, and the peer's end is awaited. If that takes too long,
    /// the reason of a close in order becomes [`TimedOut(Close)`](crate::Deadline::Close);
    /// [`advance`](Probe::advance) shows it.
    pub fn closed(&self) -> Option<CloseReason> {
        let ended = self.first().and_then(|first| first.reason.clone());
        ended.or_else(|| self.sim.inner.decided(self.id))
    }

    fn first(&self) -> Option<&First> {
        self.sim.inner.system.ends.first.as_ref()
    }

    /// Whether the protocol has finished sending.
    pub fn is_finished(&self) -> bool {
        self.client.as_ref().is_none_or(Socket::is_finished)
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("closed", &self.closed()).finish_non_exhaustive()
    }
}

/// The answer of a protocol to one way of cutting its input.
#[derive(PartialEq, Eq)]
struct Answer {
    /// What was sent when all input had come, and what only FIN made it send.
    before_fin: ByteText,
    after_fin: ByteText,
    kind: Option<CloseKind>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Some(kind) => write!(f, "{kind}")?,
            None => f.write_str("still open")?,
        }
        write!(f, ", {:?} before FIN, {:?} after it", self.before_fin, self.after_fin)
    }
}

/// Cuts `bytes` in every way that matters and requires the same answer each time: whole, byte by
/// byte, in two at every place, and at random places. An answer is what a fresh protocol of
/// `factory` sends before FIN, what it sends from then until its connection has ended, and the kind
/// of its reason. So an answer that is wrongly held back until FIN is found too.
///
/// A protocol that assumes that a message arrives in one piece passes every test on loopback and
/// fails this one.
///
/// ```should_panic
/// use lariat::{Context, Input, Outcome, Protocol};
///
/// /// Takes whatever arrives for a whole line.
/// struct Hasty;
/// impl Protocol for Hasty {
///     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
///         cx.write(if input.ends_with(b"\n") { b"ok\n" } else { b"what?\n" });
///         input.consume(input.len());
///         Ok(())
///     }
/// }
/// lariat::sim::every_split(|| Hasty, b"hello\n");
/// ```
///
/// # Panics
///
/// When an answer differs: the message names the cut and shows both answers.
pub fn every_split<P: Protocol + 'static>(mut factory: impl FnMut() -> P, bytes: &[u8]) {
    let mut answer = |cuts: &[usize]| {
        let mut probe = Probe::new(factory());
        let mut from = 0;
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            probe.receive(&bytes[from..cut]);
            from = cut;
        }
        let before_fin = probe.sent();
        probe.finish();
        // Long enough for lingering and for every built-in deadline of a connection that closes.
        probe.advance(Duration::from_secs(60));
        let kind = probe.closed().map(|reason| reason.kind());
        Answer { before_fin, after_fin: probe.sent(), kind }
    };
    let whole = answer(&[]);
    let mut compare = |name: &str, cuts: &[usize]| {
        let cut = answer(cuts);
        assert!(
            cut == whole,
            "the answer depends on how the input is cut ({name}: {})\n whole: {whole}\n   \
             cut: {cut}",
            places_shown(cuts),
        );
    };
    let places: Vec<usize> = (1..bytes.len()).collect();
    compare("byte by byte", &places);
    for at in &places {
        compare("in two", &[*at]);
    }
    let mut random = Random::new(bytes.len() as u64);
    for _ in 0..32 {
        let cuts: Vec<usize> = places.iter().copied().filter(|_| random.chance(150)).collect();
        compare("at random", &cuts);
    }
}

/// The first of the places where the input was cut.
fn places_shown(cuts: &[usize]) -> String {
    match cuts {
        [first @ .., _] if first.len() >= 16 => {
            format!("{:?} and {} more", &cuts[..16], cuts.len() - 16)
        }
        _ => format!("{cuts:?}"),
    }
}
