//! What is known of the connection from outside, and what must hold for it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use lariat::{CloseKind, CloseReason, ConnId, FilterFailure, Limits, Timer};

use crate::script::Script;

pub(super) type Shared = Rc<RefCell<Model>>;

/// The key of the filter.
pub(super) const KEY: u8 = 0x21;
/// A byte that is in neither stream: what others write to the connection.
pub(super) const OUTSIDE: u8 = 0xFF;

/// The byte at a place of what the peer sends. A prime period shows a lost or repeated block.
pub(super) fn byte_in(place: usize) -> u8 {
    (place % 65_521 % 251) as u8 / 2
}

/// The byte at a place of what the protocol writes.
pub(super) fn byte_out(place: usize) -> u8 {
    0x80 | (place % 65_521 % 113) as u8
}

/// Where a protocol is in the order of callbacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Fresh,
    Open,
    AfterEof,
    Over,
}

pub(super) struct Model {
    pub(super) script: Script,
    telling: bool,
    /// Bytes that are sent or written at once, at most.
    pub(super) most: usize,
    pub(super) faults: Vec<String>,
    /// Faults, unless the library had begun to close, which the reason will tell.
    suspicions: Vec<String>,
    pub(super) planned_panics: u64,
    pub(super) calm: bool,
    pub(super) id: Option<ConnId>,
    pub(super) reason: Option<CloseReason>,
    pub(super) filtered: bool,
    /// A protocol that took over may have brought a filter, of which the peer knows nothing.
    pub(super) refiltered: bool,
    pub(super) closed: u64,

    // What came in.
    /// Clear bytes that the peer has sent, as far as it was a peer's to send.
    pub(super) offered: usize,
    pub(super) consumed: usize,
    /// Where the last showing ended.
    pub(super) shown: usize,
    /// No `data` is due before so many bytes have been sent.
    pub(super) needed: usize,
    pub(super) finished: bool,
    /// `eof` has run.
    pub(super) heard: bool,

    // What went out.
    /// What the connection took, in order.
    pub(super) said: Vec<u8>,
    /// Bytes that were written while `closed` had not run, taken or not.
    pub(super) written: usize,
    /// Bytes that were written from outside.
    pub(super) outside: usize,
    /// What has arrived at the peer, as it was on the wire.
    pub(super) received: Vec<u8>,
    pub(super) congested: bool,

    /// When each timer may fire at the earliest.
    pub(super) timers: BTreeMap<Timer, Duration>,

    /// The peer's bytes are what its filter, or none, would send.
    pub(super) honest: bool,
    /// The peer was reset, closed its socket or vanished.
    pub(super) cut: bool,
    /// A call was made to fail.
    pub(super) broken: bool,
    /// Something was asked for that ends the connection or its sending.
    pub(super) disturbed: bool,
}

impl Model {
    pub(super) fn new(script: Script) -> Model {
        Model {
            script,
            most: 0,
            telling: std::env::var_os("LARIAT_TELL").is_some(),
            faults: Vec::new(),
            suspicions: Vec::new(),
            planned_panics: 0,
            calm: false,
            id: None,
            reason: None,
            filtered: false,
            refiltered: false,
            closed: 0,
            offered: 0,
            consumed: 0,
            shown: 0,
            needed: 0,
            finished: false,
            heard: false,
            said: Vec::new(),
            written: 0,
            outside: 0,
            received: Vec::new(),
            congested: false,
            timers: BTreeMap::new(),
            honest: true,
            cut: false,
            broken: false,
            disturbed: false,
        }
    }

    /// Says what happens, when `LARIAT_TELL` is set: to look at a script that broke a rule.
    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if self.telling {
            eprintln!("{}", what());
        }
    }

    pub(super) fn length(&mut self) -> usize {
        self.script.length(self.most)
    }

    pub(super) fn limits(&mut self) -> Limits {
        let script = &mut self.script;
        let mut limits = Limits::default();
        limits.high_mark = script.pick(&[65_536, 0, 1, 100, 3_000]);
        limits.low_mark = match script.below(3) {
            0 => limits.high_mark / 4,
            1 => limits.high_mark,
            _ => 0,
        };
        limits.output_max = script.pick(&[8 << 20, 20_000, 300_000]).max(limits.high_mark);
        limits.input_max = script.pick(&[1 << 20, 64, 1_000, 70_000]);
        limits.read_budget = script.pick(&[256 << 10, 1, 100, 20_000]);
        limits.write_budget = script.pick(&[1 << 20, 1, 100, 20_000]);
        limits.notes_max = script.pick(&[64, 1, 3]);
        let times = [5_000, 50, 500, 30_000];
        let mut time = || Duration::from_millis(script.pick(&times));
        limits.handshake = time();
        limits.write_stall = time();
        limits.close_deadline = time();
        limits.linger_idle = time();
        limits.linger_total = time();
        if script.below(4) == 1 {
            limits.idle = Some(Duration::from_millis(script.pick(&times)));
        }
        limits
    }

    /// A rule was broken. Collected, as a panic inside a callback is an ordinary event.
    pub(super) fn fault(&mut self, what: impl Into<String>) {
        self.faults.push(what.into());
    }

    /// Holds a clause of the contract.
    pub(super) fn rule(&mut self, holds: bool, what: impl FnOnce(&Model) -> String) {
        if !holds {
            let what = what(self);
            self.fault(what);
        }
    }

    // ---- the rules ---------------------------------------------------------------------------

    /// A set timer fires within two milliseconds: deadlines are kept to one, and the tick is
    /// another.
    pub(super) fn judge_timers(&mut self, now: Duration) {
        if self.closed > 0 || self.disturbed || self.broken || self.cut {
            return;
        }
        let late = |due: &Duration| due.saturating_add(Duration::from_millis(2)) < now;
        let overdue = self.timers.iter().find(|(_, due)| late(due)).map(|(timer, _)| *timer);
        if let Some(timer) = overdue {
            self.suspicions.push(format!("{timer} is overdue at {now:?}"));
        }
    }

    /// Whether the connection, if there still is one, has no reason not to read what the peer sends.
    fn is_reading(&self, hears_end: bool) -> bool {
        let undisturbed = !(self.disturbed || self.cut || self.broken || hears_end);
        self.id.is_some() && self.closed == 0 && self.honest && undisturbed
    }

    /// All that was sent has been shown.
    pub(super) fn judge_progress(&mut self, hears_end: bool) {
        let all_is_due = self.is_reading(hears_end) && self.needed <= self.offered;
        if all_is_due && self.shown != self.offered {
            let stuck = format!("stuck after {} of {} bytes", self.shown, self.offered);
            self.suspicions.push(stuck);
        }
    }

    /// The peer's end was heard.
    pub(super) fn judge_finish(&mut self, hears_end: bool) {
        if self.is_reading(hears_end) && self.finished && !self.heard {
            self.suspicions.push("the peer's end was not heard".to_owned());
        }
    }

    /// `accepted` is how many connections there were: one, unless a call was made to fail.
    pub(super) fn judge_end(&mut self, accepted: u64) {
        self.rule(self.closed == accepted, |m| format!("closed ran {} times", m.closed));
        self.rule(accepted == 1 || self.broken || self.cut, |_| {
            format!("{accepted} were accepted")
        });
        let Some(reason) = self.reason.clone() else { return };
        if matches!(reason.kind(), CloseKind::Finished | CloseKind::Shutdown) {
            self.faults.append(&mut self.suspicions);
        }
        self.judge_input(&reason);
        self.judge_output(&reason);
    }

    fn judge_input(&mut self, reason: &CloseReason) {
        let (shown, unread) = (reason.bytes_in() as usize, reason.unread() as usize);
        self.rule(self.consumed <= shown, |m| format!("{} consumed of {shown}", m.consumed));
        if self.filtered || !self.honest {
            return;
        }
        let all = self.consumed + unread;
        self.rule(shown <= all, |m| format!("{} consumed, {unread} unread: {shown}", m.consumed));
        self.rule(all <= self.offered, |m| format!("{all} accounted for, {} sent", m.offered));
        let in_order = reason.kind() == CloseKind::Finished && reason.peer_finished();
        if in_order && !self.cut && !self.broken {
            self.rule(all == self.offered, |m| format!("{all} accounted for of {}", m.offered));
        }
    }

    fn judge_output(&mut self, reason: &CloseReason) {
        let [sent, unsent, refused] =
            [reason.bytes_out(), reason.unsent(), reason.refused()].map(|count| count as usize);
        let wrote = self.written + self.outside;
        let all = sent + unsent + refused;
        // What a filter has made of bytes and could not send is unsent as well.
        let more = self.filtered || self.refiltered;
        self.rule(all == wrote || (more && all > wrote), |_| {
            format!("{wrote} bytes written: {sent} sent, {unsent} unsent, {refused} refused")
        });
        let Some(clear) = self.clear_received() else { return };
        self.rule(clear.len() <= sent, |_| format!("{} received of {sent}", clear.len()));
        if reason.kind() == CloseKind::Finished && !self.cut {
            self.rule(clear.len() == sent, |_| format!("{} received of {sent}", clear.len()));
        }
        let own: Vec<u8> = clear.into_iter().filter(|byte| *byte != OUTSIDE).collect();
        let same = own.iter().zip(&self.said).take_while(|(a, b)| a == b).count();
        self.rule(same == own.len(), |_| {
            format!("{} bytes received, wrong from {same} on", own.len())
        });
    }

    /// The clear bytes of what the peer received, unless what was sent to it was cut short.
    fn clear_received(&self) -> Option<Vec<u8>> {
        if self.refiltered {
            return None;
        }
        if !self.filtered {
            return Some(self.received.clone());
        }
        let failed = CloseKind::Filter(FilterFailure::Failed);
        if !self.honest || self.reason.as_ref().is_some_and(|reason| reason.kind() == failed) {
            return None;
        }
        let Some(mut wire) = self.received.strip_prefix(b"OLEH") else { return Some(Vec::new()) };
        let mut clear = Vec::new();
        while let Some((length, rest)) = wire.split_first() {
            let body = rest.get(..usize::from(*length))?;
            clear.extend(body.iter().map(|byte| byte ^ KEY));
            wire = &rest[body.len()..];
        }
        Some(clear)
    }
}
