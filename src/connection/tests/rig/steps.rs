//! The parts of a turn: callbacks and what follows from them, with the model beside each.

use std::io::{self, ErrorKind, IoSlice};

use super::super::super::{Consumed, Flags, Step, Steps};
use super::super::toy::Decoder;
use super::{Answer, Failure, Rig, Wish, in_order};
use crate::grammar::Callback;
use crate::guard::GuardedBytes;
use crate::guard::guarded;
use crate::id::ConnId;
use crate::reason::Cause;
use crate::reason::{CloseKind, ConnectFailure, FilterFailure};

impl Rig {
    // ---- callbacks ---------------------------------------------------------------------------

    /// Runs `data` or `eof`.
    pub(super) fn call_with_input(&mut self, callback: Callback, shown: &[u8]) -> Consumed {
        assert_eq!(shown, &self.model.received[self.model.consumed..], "{callback:?} was shown");
        if callback == Callback::Data {
            assert!(!shown.is_empty(), "`data` without data");
        }
        self.shown.push(shown.to_vec());
        let answer = self.run(callback, shown);
        let left = shown.len().min(answer.keep);
        self.model.consumed += shown.len() - left;
        let need = if callback == Callback::Data { answer.need } else { 0 };
        Consumed { left, need }
    }

    /// Runs a callback: it does what the plan says.
    pub(super) fn run(&mut self, callback: Callback, _shown: &[u8]) -> Answer {
        self.conn.handle_grammar(callback);
        self.calls.push(callback);
        let answer = match self.plan.pop_front() {
            Some(answer) => answer,
            None if matches!(callback, Callback::Eof | Callback::Stopping) => {
                Answer { wishes: vec![Wish::Close], ..Answer::default() }
            }
            None => Answer::default(),
        };
        self.write(answer.write, answer.shared);
        for wish in &answer.wishes {
            match wish {
                Wish::Close => self.conn.want_close(),
                Wish::Abort => self.conn.want_abort(),
                Wish::Finish => self.conn.want_fin(),
                Wish::Pause => self.conn.want_pause(),
                Wish::Resume => self.conn.want_resume(),
                Wish::Replace => self.model.next = Some(None),
                Wish::ReplaceFiltered(feed) => self.model.next = Some(Some(*feed)),
            }
            self.model.wishes.push(*wish);
        }
        match answer.failure {
            Some(Failure::Err) => {
                self.conn.handle_failure(CloseKind::Protocol, Cause::new(io::Error::other("no")));
            }
            Some(Failure::Panic) => {
                self.conn.handle_failure(CloseKind::Panicked, Cause::new(io::Error::other("oh")));
            }
            None => {}
        }
        self.model.failed = answer.failure;
        answer
    }

    /// What `Context::write` does.
    fn write(&mut self, count: usize, shared: bool) {
        if count == 0 {
            return;
        }
        if self.is(Flags::NO_WRITES) {
            self.conn.handle_refused(count);
            self.model.refused += count;
        } else if self.conn.check_marks(self.output.len() + count) {
            let bytes = self.next_output(count);
            self.output.extend(bytes);
            self.output_shared = shared;
        } else {
            self.conn.want_overflow();
            self.conn.lose_output(count);
            self.model.overflowed = true;
            self.model.lost += count;
        }
    }

    pub(super) fn next_output(&mut self, count: usize) -> Vec<u8> {
        let next = || {
            self.next_out = if self.next_out > 220 { 1 } else { self.next_out + 1 };
            self.next_out
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    // ---- output ------------------------------------------------------------------------------

    /// Sends what the callback wrote.
    pub(super) fn send_own(&mut self, callback: Callback) {
        let output = std::mem::take(&mut self.output);
        if output.is_empty() {
            return;
        }
        let lost = Flags::ABORT_WANTED | Flags::OVERFLOW | Flags::ENDED | Flags::BROKEN;
        if self.is(lost) || self.conn.has_panicked() {
            self.conn.lose_output(output.len());
            self.model.lost += output.len();
            return;
        }
        if !self.output_shared && self.conn.sends_directly() {
            let now = &output[..output.len().min(self.conn.limits().write_budget)];
            let sent = match self.kernel.write(now) {
                Ok(sent) => {
                    self.conn.handle_sent_at(sent, self.tick());
                    self.model.active = self.now;
                    if sent < now.len() {
                        self.conn.handle_write_blocked();
                    }
                    sent
                }
                Err(error) => {
                    self.write_failed(error);
                    0
                }
            };
            self.model.written.extend(&output[..sent]);
            if sent < output.len() {
                self.queue(&output[sent..], false);
            }
        } else {
            self.queue(&output, self.output_shared);
            self.flush();
        }
        self.conn.handle_flushed();
        if callback.answers_input() && self.conn.handle_caused(output.len()) {
            let id = self.conn.id();
            if self.conn.handle_held(id) {
                self.conn.handle_holds(id);
            }
        }
    }

    pub(super) fn queue(&mut self, bytes: &[u8], shared: bool) -> bool {
        let tick = self.tick();
        self.conn.borrow_queues(&mut self.rares);
        let taken = if shared {
            self.conn.queue_shared(GuardedBytes::new(bytes.to_vec()), tick)
        } else {
            self.conn.queue(bytes, &mut self.chunks, tick)
        };
        if taken {
            self.model.written.extend(bytes);
        } else {
            self.model.lost += bytes.len();
        }
        taken
    }

    pub(super) fn flush(&mut self) {
        let tick = self.tick();
        let mut budget = self.conn.limits().write_budget;
        while budget > 0 && self.conn.has_output() {
            let before = self.conn.flags();
            let mut slices = [IoSlice::new(&[]); 3];
            let count = self.conn.poll_output(&mut slices, budget, &mut self.chunks, tick);
            let wanted: Vec<u8> =
                slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
            assert!(wanted.len() <= budget, "more than the budget");
            if before.none(Flags::CLOSING) && self.is(Flags::CLOSING) {
                self.model.kind = Some(CloseKind::Filter(FilterFailure::Failed));
            }
            if wanted.is_empty() {
                break;
            }
            match self.kernel.write(&wanted) {
                Ok(sent) => {
                    budget -= sent;
                    self.model.active = self.now;
                    self.model.progress = self.now;
                    self.conn.handle_sent(sent, &mut self.chunks, tick);
                    if sent < wanted.len() {
                        self.conn.handle_write_blocked();
                    }
                }
                Err(error) => self.write_failed(error),
            }
            self.conn.handle_flushed();
        }
        self.conn.handle_flushed();
    }

    fn write_failed(&mut self, error: io::Error) {
        if error.kind() == ErrorKind::WouldBlock {
            return self.conn.handle_write_blocked();
        }
        self.decide_break(CloseKind::Reset);
        self.conn.handle_write_failed(error, &mut self.chunks);
    }

    // ---- after a callback --------------------------------------------------------------------

    /// Lets another protocol take over, if the callback asked for that.
    pub(super) fn settle_wishes(&mut self) {
        let next = self.model.next.take();
        let hopeless = Flags::CLOSING | Flags::ENDED | Flags::CLOSE_WANTED | Flags::ABORT_WANTED;
        let Some(filter) = next else { return };
        if self.is(hopeless | Flags::FAILED | Flags::OVERFLOW) {
            return;
        }
        self.conn.handle_replaced();
        if let Some(feed) = filter {
            self.put_filter(false, feed);
        }
    }

    /// Drives the state on, as the loop's `finish` does.
    pub(in super::super) fn finish(&mut self, stopping: bool) {
        if self.reason.is_some() {
            return;
        }
        let tick = self.tick();
        self.decide_wishes(stopping);
        let mut steps = Steps::after(stopping);
        loop {
            let before = self.conn.flags();
            let step = self.conn.poll_step(&mut steps, &mut self.chunks, tick);
            self.decide_finished(before);
            match step {
                Step::Flush => self.flush(),
                Step::Fin => self.send_fin(),
                Step::Linger => {}
                Step::Detach => unreachable!("the rig has no descriptors"),
                Step::Close => self.kernel.closed = true,
                Step::Settled => break,
            }
        }
        self.release_holders();
        self.sync_deadline();
        self.conn.account(&mut self.metrics);
        self.conn.return_rare(&mut self.rares);
        self.conn.handle_ready(Flags::NONE);
    }

    /// Both directions have ended, and nothing else has decided the end.
    fn decide_finished(&mut self, before: Flags) {
        let over = self.is(Flags::ENDED) && before.none(Flags::ENDED);
        if over && self.model.kind.is_none() {
            assert!(self.kernel.fin_sent && self.conn.peer_finished());
            assert!(self.calls.contains(&Callback::Eof), "`eof` never ran");
            self.model.kind = Some(CloseKind::Finished);
        }
    }

    fn send_fin(&mut self) {
        let flags = self.conn.flags();
        assert!(!self.kernel.fin_sent, "a second FIN");
        assert_eq!(self.conn.unsent(), 0, "FIN before everything was sent");
        if flags.none(Flags::HANDSHAKING) && !self.filter_failed() {
            assert_eq!(self.sent_clear().0, self.model.written, "FIN before everything was sent");
            assert_eq!(self.sent_clear().1, flags.any(Flags::FILTERED), "the filter's end");
        }
        self.kernel.fin_sent = true;
        self.conn.handle_fin_sent(self.tick());
        if flags.any(Flags::CLOSING) {
            self.model.linger = Some((self.now, self.now));
        }
    }

    fn filter_failed(&self) -> bool {
        self.model.kind == Some(CloseKind::Filter(FilterFailure::Failed))
    }

    fn release_holders(&mut self) {
        for queue in self.conn.poll_unheld() {
            if queue == self.conn.id() {
                self.conn.handle_writer_gone(queue);
            }
        }
        let mut released = self.conn.poll_released();
        for holder in released.drain(..) {
            if holder == self.conn.id() {
                self.conn.handle_released(holder);
            } else {
                assert!(self.holds.contains(&holder), "{holder} was not held");
                self.holds.retain(|id| *id != holder);
            }
        }
        self.conn.put_holders(released);
    }

    fn sync_deadline(&mut self) {
        let wanted = self.conn.poll_deadline();
        let forward = self.armed.is_none_or(|armed| armed > wanted);
        if forward || wanted == u64::MAX {
            self.armed = (wanted < u64::MAX).then_some(wanted);
        }
        if self.is(Flags::CLOSING | Flags::CONNECTING | Flags::HANDSHAKING) {
            let ends = self.is(Flags::ENDED | Flags::BROKEN);
            assert!(ends || wanted < u64::MAX, "it could stay so for ever");
        }
    }

    /// The reason is taken, as for `closed`.
    pub(super) fn tell_closed(&mut self) {
        self.check();
        let reason = self.conn.poll_closed(self.now).expect("the end is decided");
        assert!(self.conn.poll_closed(self.now).is_none(), "told twice");
        self.conn.handle_grammar(Callback::Closed);
        self.calls.push(Callback::Closed);
        let model = &self.model;
        if Some(reason.kind()) != model.or {
            assert_eq!(Some(reason.kind()), model.kind, "the first end decides");
        }
        let unread = model.received.len() - model.consumed + model.discarded;
        assert_eq!(reason.unread(), unread as u64, "unread");
        assert_eq!(reason.refused(), model.refused as u64, "refused");
        if model.unfiltered.is_none() {
            let unsent = model.written.len() - self.kernel.sent.len() + model.lost;
            assert_eq!(reason.unsent(), unsent as u64, "unsent");
        }
        self.conn.account(&mut self.metrics);
        assert_eq!((self.metrics.buffered, self.metrics.held, self.metrics.paused), (0, 0, 0));
        assert!(self.holds.is_empty(), "others are still held");
        assert!(!self.conn.has_work(), "work after `closed`");
        self.reason = Some(reason);
    }

    // ---- the model's decisions ---------------------------------------------------------------

    fn decide_wishes(&mut self, stopping: bool) {
        let wishes = std::mem::take(&mut self.model.wishes);
        let failed = self.model.failed.take();
        let overflowed = std::mem::take(&mut self.model.overflowed);
        let flags = self.conn.flags();
        if flags.any(Flags::ENDED) {
            return;
        }
        match failed {
            Some(Failure::Panic) if flags.none(Flags::CLOSING) => {
                self.model.kind = Some(CloseKind::Panicked);
                return;
            }
            // Also of a connection that has broken: the protocol's own error says more.
            Some(Failure::Err) if flags.none(Flags::CLOSING) => {
                self.model.kind = Some(CloseKind::Protocol);
                self.begin_phase();
            }
            _ => {}
        }
        if flags.any(Flags::BROKEN) && failed.is_some() {
            // It has ended with that.
        } else if wishes.contains(&Wish::Abort) {
            let connecting = flags.any(Flags::CONNECTING);
            let cancelled = CloseKind::Connect(ConnectFailure::Cancelled);
            self.model.kind = Some(if connecting { cancelled } else { CloseKind::Aborted });
        } else if overflowed {
            self.model.kind = Some(CloseKind::OutputFull);
        } else if wishes.contains(&Wish::Close) && failed.is_none() {
            self.decide_close(if stopping { CloseKind::Shutdown } else { CloseKind::Finished });
        }
    }

    /// The connection is to close in order, if nothing has decided its end yet.
    pub(super) fn decide_close(&mut self, kind: CloseKind) {
        let flags = self.conn.flags();
        if flags.any(Flags::CLOSING | Flags::ENDED | Flags::BROKEN) {
            return;
        }
        self.begin_phase();
        self.model.kind = Some(match kind {
            kind if flags.any(Flags::CONNECTING) && in_order(kind) => {
                CloseKind::Connect(ConnectFailure::Cancelled)
            }
            kind => kind,
        });
    }

    /// Closing begins, and with it lingering where the FIN has left before.
    fn begin_phase(&mut self) {
        self.model.phase = self.now;
        if self.kernel.fin_sent {
            self.model.linger = Some((self.now, self.now));
        }
    }

    /// The connection has broken. What closed it before says more, unless that was in order.
    pub(super) fn decide_break(&mut self, kind: CloseKind) {
        if !self.is(Flags::ENDED) && self.model.kind.is_none_or(in_order) {
            // The callback whose output cannot leave had failed before.
            let failed = self.model.failed == Some(Failure::Err);
            self.model.kind = Some(if failed { CloseKind::Protocol } else { kind });
        }
    }

    pub(super) fn decide_consumed(&mut self, shown: usize, consumed: Consumed) {
        let Consumed { left, need } = consumed;
        let most = self.conn.limits().input_max;
        let stuck = left == shown
            && left >= most
            && !self.is(Flags::PAUSED | Flags::HELD | Flags::CLOSE_WANTED);
        if (need > most || stuck) && self.model.failed.is_none() {
            self.decide_close(CloseKind::InputFull);
        }
    }

    // ---- checks ------------------------------------------------------------------------------

    /// The clear bytes of what was sent, and whether the filter's end is among it.
    pub(in super::super) fn sent_clear(&self) -> (Vec<u8>, bool) {
        let sent = &self.kernel.sent;
        let Some(plain) = self.model.unfiltered else { return (sent.clone(), false) };
        let plain = plain.min(sent.len());
        let mut clear = sent[..plain].to_vec();
        let mut decoder = Decoder::default();
        guarded(|| decoder.decode(&sent[plain..], &mut clear)).unwrap().expect("good wire bytes");
        (clear, decoder.ended)
    }

    /// What holds at all times.
    pub(in super::super) fn check(&self) {
        let (flags, model) = (self.conn.flags(), &self.model);
        let (sent, _) = self.sent_clear();
        assert!(model.written.starts_with(&sent), "sent {sent:?} of {:?}", model.written);
        assert_eq!(self.conn.bytes_in(), model.received.len() as u64, "bytes in");
        let queues = self.conn.queues();
        if flags.none(Flags::CLOSING | Flags::ENDED) {
            let unread = queues.map_or(&[][..], |queues| queues.unread.as_slice());
            assert_eq!(unread, &model.received[model.consumed..], "unread");
            assert_eq!(flags.any(Flags::UNREAD), !unread.is_empty());
        } else {
            assert!(flags.none(Flags::UNREAD), "nobody will read it");
        }
        let unsent = self.conn.unsent();
        if flags.none(Flags::ENDED | Flags::BROKEN) {
            if model.unfiltered.is_none() {
                assert_eq!(self.conn.bytes_out(), sent.len() as u64, "bytes out");
                assert_eq!(unsent, model.written.len() - sent.len(), "unsent");
            }
            assert_eq!(flags.any(Flags::QUEUED), unsent > 0, "queued");
        }
        assert!(queues.map_or(0, |queues| queues.caused) <= unsent, "caused more than is unsent");
        let held = queues.is_some_and(|queues| !queues.holding.is_empty());
        assert_eq!(flags.any(Flags::HELD), held, "held");
        let over = flags.any(Flags::CLOSING | Flags::BROKEN | Flags::ENDED);
        assert_eq!(over, model.kind.is_some(), "{:?} with {flags:?}", model.kind);
    }

    /// Turns until nothing is left to do: without events that must come soon.
    pub(in super::super) fn settle(&mut self) {
        for _ in 0..500 {
            self.check();
            if self.reason.is_some() || !self.conn.has_work() {
                return;
            }
            self.serve();
        }
        panic!("it spins: {:?}", self.conn.flags());
    }

    /// Lets time pass until `closed` is due.
    pub(in super::super) fn settle_to_the_end(&mut self) {
        for _ in 0..20 {
            self.settle();
            if self.reason.is_some() {
                return;
            }
            let next = self.armed.expect("nothing will ever end it");
            self.advance(next.saturating_sub(self.now));
        }
        panic!("it does not end: {:?}", self.conn.flags());
    }

    pub(in super::super) fn kind(&self) -> Option<CloseKind> {
        self.reason.as_ref().map(|reason| reason.kind())
    }

    pub(in super::super) fn other(&self, number: usize) -> ConnId {
        self.others[number % self.others.len()]
    }
}
