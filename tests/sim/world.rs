//! What everybody in a random run has done, and the rules that must hold for all of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use lariat::sim::Choices;
use lariat::{CloseKind, CloseReason, ConnId, Endpoint, FilterFailure, Limits};

pub(crate) type Shared = Rc<RefCell<World>>;

/// One end of one connection.
#[derive(Default)]
pub(crate) struct End {
    pub(crate) who: String,
    pub(crate) id: Option<ConnId>,
    /// Its own address and the other end's.
    pub(crate) addrs: Option<(Endpoint, Endpoint)>,
    pub(crate) opened: u32,
    pub(crate) closed: u32,
    pub(crate) eof: bool,
    /// Everything that was written to it, whether it was sent or not.
    pub(crate) sent: Vec<u8>,
    /// Everything that was consumed of its input, and the rest that `eof` showed.
    pub(crate) received: Vec<u8>,
    pub(crate) reason: Option<CloseReason>,
    /// An end of the test's own, which knows nothing of the filter of its peer.
    pub(crate) raw: bool,
    pub(crate) filtered: bool,
    /// A raw end that was reset with bytes still to be sent, or vanished.
    pub(crate) cut: bool,
    /// A raw end that was closed.
    pub(crate) gone: bool,
    /// A raw end that has said its last.
    pub(crate) finished: bool,
    /// The FIN of its peer has come to a raw end. The peer may be closing, and then hears nothing.
    pub(crate) heard_fin: bool,
    /// Bytes that it will send in `drained`.
    pub(crate) left: usize,
    /// Whether its protocol consumes all it is shown, sooner or later.
    pub(crate) greedy: bool,
    /// The other ends whose connections it has written to: their full queues hold it.
    pub(crate) written_to: BTreeSet<usize>,
    /// Its protocol has asked for its FIN.
    pub(crate) says_fin: bool,
    /// So many bytes of its input has `data` been shown, consumed or not.
    pub(crate) shown: usize,
    /// The turn of its last callback.
    pub(crate) last_turn: Option<u64>,
    /// The turn in which another connection has aborted it last.
    pub(crate) aborted_turn: Option<u64>,
    /// The turn in which it last received notes, and how many.
    pub(crate) noted: (u64, usize),
    /// When its protocol asked for its close, and how long that may take.
    pub(crate) closing: Option<(Duration, Duration)>,
    /// When a byte last came, and the shortest silence that its limits have ever allowed.
    pub(crate) heard_at: Duration,
    pub(crate) silence: Option<Duration>,
}

/// A listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) addr: Endpoint,
    pub(crate) filtered: bool,
}

pub(crate) struct World {
    /// When the clock of the run began.
    pub(crate) began: Instant,
    pub(crate) ends: Vec<End>,
    pub(crate) targets: Vec<Target>,
    pub(crate) planned_panics: u64,
    pub(crate) faults: Vec<String>,
    /// Everybody by id, for as long as the run lasts.
    met: BTreeMap<ConnId, usize>,
    /// The addresses of all clients.
    pub(crate) met_at_listeners: BTreeSet<Endpoint>,
    /// Who ended last, and the slots that were given back in the turn of that.
    pub(crate) ended: Option<ConnId>,
    freed: (u64, Vec<String>),
    /// Whether the run still begins new things.
    pub(crate) busy: bool,
}

/// Limits of a connection; the first of each are the roomiest.
pub(crate) fn limits(dice: &Choices) -> Limits {
    let mut limits = Limits::default();
    limits.high_mark = dice.pick(&[65_536, 16_000, 3_000, 100, 1, 0]);
    limits.low_mark = match dice.below(3) {
        0 => limits.high_mark / 4,
        1 => 0,
        _ => limits.high_mark,
    };
    limits.output_max = dice.pick(&[8 << 20, 300_000, 20_000]).max(limits.high_mark);
    limits.input_max = dice.pick(&[1 << 20, 70_000, 1_000, 64]);
    limits.read_budget = dice.pick(&[256 << 10, 20_000, 1_000, 100]);
    limits.write_budget = dice.pick(&[1 << 20, 20_000, 1_000, 100]);
    limits.notes_max = dice.pick(&[64, 3, 1]);
    let time = || Duration::from_millis(dice.pick(&[30_000, 3_000, 500, 50]));
    limits.connect = time();
    limits.handshake = time();
    limits.write_stall = time();
    limits.close_deadline = time();
    limits.linger_idle = time();
    limits.linger_total = time();
    if dice.chance(300) {
        limits.idle = Some(time());
    }
    limits
}

/// Ends by their own address and the other one's.
type ByAddr = BTreeMap<(Endpoint, Endpoint), usize>;

/// The other end of a connection.
fn peer_of(by_addr: &ByAddr, end: &End) -> Option<usize> {
    let (own, other) = end.addrs?;
    by_addr.get(&(other, own)).copied()
}

/// The slot of an id: what stands before its dot.
fn slot(id: ConnId) -> String {
    id.to_string().split('.').next().unwrap_or_default().to_owned()
}

impl World {
    pub(crate) fn new(began: Instant) -> World {
        World {
            began,
            ends: Vec::new(),
            targets: Vec::new(),
            planned_panics: 0,
            faults: Vec::new(),
            met: BTreeMap::new(),
            met_at_listeners: BTreeSet::new(),
            ended: None,
            freed: (0, Vec::new()),
            busy: true,
        }
    }

    pub(crate) fn born(&mut self, who: &str) -> usize {
        let number = self.ends.len();
        let who = format!("{who} {number}");
        self.ends.push(End { who, ..End::default() });
        number
    }

    /// `end` has opened under the name of `id`, which nobody else ever had.
    pub(crate) fn meet(&mut self, end: usize, id: ConnId) {
        self.ends[end].id = Some(id);
        let other = *self.met.entry(id).or_insert(end);
        if other != end {
            let other = self.ends[other].who.clone();
            self.fault(end, &format!("{id} was {other} before"));
        }
    }

    /// A rule was broken. Collected, as a panic inside a callback is an ordinary event here.
    pub(crate) fn fault(&mut self, end: usize, what: &str) {
        let fault = format!("{}: {what}", self.ends[end].who);
        self.faults.push(fault);
    }

    /// A connection has been told `closed` in this turn.
    pub(crate) fn note_ended(&mut self, id: ConnId, turn: u64) {
        self.ended = Some(id);
        if self.freed.0 != turn {
            self.freed = (turn, Vec::new());
        }
        self.freed.1.push(slot(id));
    }

    /// Whether a slot was given back in this turn.
    pub(crate) fn has_freed(&self, turn: u64) -> bool {
        self.busy && self.freed.0 == turn && !self.freed.1.is_empty()
    }

    /// A slot that is given back in a turn is not taken again in it.
    pub(crate) fn judge_slot(&mut self, end: usize, id: ConnId, turn: u64) {
        if self.freed.0 == turn && self.freed.1.contains(&slot(id)) {
            self.fault(end, &format!("{id} has a slot that was given back in its turn"));
        }
    }

    /// The next `count` bytes that `end` sends by itself.
    pub(crate) fn stream(&self, end: usize, count: usize) -> Vec<u8> {
        let from = self.ends[end].sent.len();
        (from..from + count).map(|at| (at * 31 + (at >> 8) * 7 + end * 17) as u8).collect()
    }

    /// An open connection, any.
    pub(crate) fn somebody(&self, dice: &Choices) -> Option<(usize, ConnId)> {
        let open: Vec<(usize, ConnId)> = self
            .ends
            .iter()
            .enumerate()
            .filter(|(_, end)| end.closed == 0)
            .filter_map(|(number, end)| Some((number, end.id?)))
            .collect();
        if open.is_empty() { None } else { Some(dice.pick(&open)) }
    }

    // ---- the rules ---------------------------------------------------------------------------

    fn by_addr(&self) -> ByAddr {
        let known = self.ends.iter().enumerate();
        known.filter_map(|(number, end)| Some((end.addrs?, number))).collect()
    }

    /// Whether flow control may hold an end for as long as it likes: it has written to a connect
    /// that has not succeeded, to a host that has vanished, to one whose listener has no place for
    /// it, or to one that is not read either. One that waits for itself, round a circle, is held
    /// too. `known` has what was found out before.
    fn may_be_held(&self, by_addr: &ByAddr, at: usize, known: &mut BTreeMap<usize, bool>) -> bool {
        if let Some(held) = known.get(&at) {
            return *held;
        }
        // Who comes back to it has gone round.
        known.insert(at, true);
        let held = self.ends[at].written_to.iter().map(|to| &self.ends[*to]).any(|to| {
            let reader = peer_of(by_addr, to);
            to.closed == 0
                && (to.opened == 0
                    || reader.is_none_or(|at| {
                        let end = &self.ends[at];
                        let reads = end.raw || end.greedy;
                        end.cut || end.gone || !reads || self.may_be_held(by_addr, at, known)
                    }))
        });
        known.insert(at, held);
        held
    }

    /// What holds once all faults are off and some time has passed: a client that reads has read
    /// everything that its peer has said, the end of it included.
    pub(crate) fn judge_progress(&mut self) {
        let by_addr = self.by_addr();
        let mut faults = Vec::new();
        for (at, end) in self.ends.iter().enumerate() {
            if end.opened == 0 || end.closed > 0 {
                continue;
            }
            let Some(other) = peer_of(&by_addr, end) else { continue };
            let peer = &self.ends[other];
            let ended_in_order =
                peer.reason.as_ref().is_some_and(|r| r.kind() == CloseKind::Finished);
            // Its own output holds it as well, while its peer does not read.
            let unread = end.sent.len() > peer.received.len();
            let held = self.may_be_held(&by_addr, at, &mut BTreeMap::new())
                || unread && self.may_be_held(&by_addr, other, &mut BTreeMap::new());
            let greedy = end.greedy && !held;
            if !peer.raw && greedy && (ended_in_order || peer.says_fin) && !end.eof {
                faults.push(format!("{}: never heard the end of {}", end.who, peer.who));
            }
            if !peer.raw || peer.cut || peer.gone || peer.heard_fin || end.filtered {
                continue;
            }
            if greedy && (end.received.len() < peer.sent.len() || (peer.finished && !end.eof)) {
                faults.push(format!(
                    "{}: stuck after {} of {} bytes, finished {}, eof {}",
                    end.who,
                    end.received.len(),
                    peer.sent.len(),
                    peer.finished,
                    end.eof,
                ));
            }
            if end.left > 0 {
                faults.push(format!("{}: {} bytes wait for `drained`", end.who, end.left));
            }
            if peer.received.len() < end.sent.len() {
                let (left, all) = (peer.received.len(), end.sent.len());
                faults.push(format!("{}: only {left} of {all} bytes left", end.who));
            }
        }
        self.faults.append(&mut faults);
    }

    /// What holds for every pair of ends once everything is over.
    pub(crate) fn judge(&mut self) {
        let by_addr = self.by_addr();
        let mut faults = Vec::new();
        for end in &self.ends {
            if !end.raw && end.closed != 1 {
                faults.push(format!("{}: closed ran {} times", end.who, end.closed));
            }
            let Some((own, other)) = end.addrs else { continue };
            let Some(peer) = by_addr.get(&(other, own)).map(|at| &self.ends[*at]) else { continue };
            // What a raw end says to a filter, or hears of it, is not clear.
            if (end.raw && peer.filtered) || (peer.raw && end.filtered) {
                continue;
            }
            let failed = CloseKind::Filter(FilterFailure::Failed);
            if end.filtered && end.reason.as_ref().is_some_and(|reason| reason.kind() == failed) {
                faults.push(format!("{}: a filter met something else than its like", end.who));
            }
            if !peer.sent.starts_with(&end.received) {
                let at = end.received.iter().zip(&peer.sent).take_while(|(a, b)| a == b).count();
                faults.push(format!(
                    "{}: received {} bytes that are not what {} sent ({}), from byte {at} on",
                    end.who,
                    end.received.len(),
                    peer.who,
                    peer.sent.len(),
                ));
            } else if end.eof && !peer.cut {
                let refused = peer.reason.as_ref().map_or(0, CloseReason::refused) as usize;
                let accepted = peer.sent.len() - refused;
                if end.received.len() != accepted {
                    faults.push(format!(
                        "{}: eof after {} bytes, but {} sent {accepted}; {:?}",
                        end.who,
                        end.received.len(),
                        peer.who,
                        peer.reason,
                    ));
                }
            }
        }
        self.faults.append(&mut faults);
    }
}
