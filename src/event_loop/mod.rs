//! The loop: one turn after another over very many connections, on one thread.
//!
//! A turn has nine steps, each a method, in this order:
//!
//! 1. requests of code outside of callbacks are applied;
//! 2. poll: until the nearest deadline, or not at all while work is left over;
//! 3. the clock is read, and the timers that are due are taken out; their connections try their
//!    sockets in step 6;
//! 4. connections are accepted, at most `accepts_max` per listener;
//! 5. requests of other threads;
//! 6. a snapshot of the ready list: each connection reads, is called and sends, within its budget
//!    (four of them if it is alone);
//! 7. the timers taken out in step 3 run;
//! 8. output queued for other connections leaves, once per connection;
//! 9. notes arrive, slots and paused listeners are given back; the clock is read again.
//!
//! Readiness is edge-triggered and remembered by the connections. A connection is in the ready list
//! exactly while [`Connection::has_work`](crate::connection::Connection::has_work). The loop is
//! generic over the [`System`] beneath it.

mod accept;
mod adopt;
mod apply;
mod attend;
mod budget;
mod connect;
mod datagrams;
mod due;
mod finish;
mod inspect;
mod long_turns;
mod race;
mod read;
mod ready;
mod send;
mod system;
mod table;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::{Admission, Place};
use crate::clock::{Clock, nanos};
use crate::connection::{Flags, Listing};
use crate::driver::Report;
use crate::guard::drop_each;
use crate::handle::{Mail, Mailbox, Post};
use crate::id::{ConnId, IdSource, Ids, ListenerId};
use crate::limits::DriverLimits;
use crate::metrics::Metrics;
use crate::note::Note;
use crate::protocol::{Binder, Effect, Listeners, Shared, TimerOwner, Workplace};
use crate::reason::{By, CloseKind};
use crate::timer::TimerKey;

pub(crate) use accept::Factory;
use accept::Listening;
use budget::Budget;
use long_turns::LongTurns;
use race::Race;
pub(crate) use system::{EventSink, Listener, Stream, System};
use table::{Entry, Table};

/// The shared read buffer. A smaller one costs half the bulk throughput, one per connection all of
/// the memory.
pub(crate) fn read_buffer() -> Box<[u8]> {
    vec![0; budget::SHARE].into_boxed_slice()
}

const MILLISECOND: u64 = 1_000_000;

/// What has become free, for listeners that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Released {
    Place,
    /// And with it a place.
    Descriptor,
}

/// The state of a loop. Every part has one owner; callbacks borrow [`Shared`] only.
pub(crate) struct EventLoop<S: System> {
    pub(crate) system: S,
    pub(crate) shared: Shared,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) limits: DriverLimits,
    pub(crate) keep_running: bool,
    table: Table<S>,
    listening: Vec<Listening<S>>,
    /// Whether a listener that may accept may have connections waiting.
    newcomers: bool,
    /// Whether step 4 has taken the list above, and the listeners that callbacks stopped meanwhile.
    accepting: bool,
    stopped: Vec<ListenerId>,
    admission: Admission,
    /// The timer of the postponed accepts, and when it is due.
    retry: Option<(TimerKey, u64)>,
    next_socket: u32,
    /// Whether another thread, or a handle on this one, has woken the loop.
    woken: bool,
    /// Connections that have something to do, and those that move much at a time, which are served
    /// after the others.
    ready: Vec<ConnId>,
    bulk: VecDeque<ConnId>,
    budget: Budget,
    /// What datagrams are received into: as large as the largest that any socket keeps.
    datagram: Vec<u8>,
    /// Connections with output that others have queued.
    dirty: Vec<ConnId>,
    /// Notes on their way: they arrive at the end of the turn. A result names its job.
    notes: Vec<(ConnId, Option<u64>, Note)>,
    /// Connects that have not chosen one of several addresses.
    races: BTreeMap<ConnId, Race<S::Stream>>,
    /// Connections that linger, oldest first; those that have ended since are still in it.
    lingering: VecDeque<ConnId>,
    long_turns: LongTurns,
    /// The timers that are due in this turn.
    due: Vec<(TimerOwner, TimerKey, u64)>,
    /// Whether the turn has to run timers, to send for others, or to give something back.
    chores: bool,
    draining: bool,
    drain_over: bool,
    report: Report,
}

impl<S: System> EventLoop<S> {
    #[cfg(test)]
    pub(crate) const ENTRY_SIZE: usize = Entry::<S>::SIZE;

    pub(crate) fn new(
        system: S,
        clock: Clock,
        seed: u64,
        limits: DriverLimits,
        mailbox: Arc<Mailbox>,
        workplace: Workplace,
    ) -> EventLoop<S> {
        let binder = Binder::new(Listeners::default(), system.sockets());
        let ids = IdSource::Own(Ids::default());
        let mut shared = Shared::new(clock, ids, seed, binder, workplace);
        shared.blame.limit = limits.slow_callback.map_or(u64::MAX, nanos);
        shared.places = limits.connections_max as u64;
        let admission = Admission::new(&limits);
        EventLoop {
            system,
            shared,
            mailbox,
            limits,
            keep_running: false,
            table: Table::new(),
            listening: Vec::new(),
            accepting: false,
            stopped: Vec::new(),
            admission,
            retry: None,
            next_socket: 0,
            ready: Vec::new(),
            bulk: VecDeque::new(),
            budget: Budget::new(),
            datagram: Vec::new(),
            dirty: Vec::new(),
            notes: Vec::new(),
            races: BTreeMap::new(),
            lingering: VecDeque::new(),
            long_turns: LongTurns::default(),
            due: Vec::new(),
            newcomers: false,
            woken: false,
            chores: false,
            draining: false,
            drain_over: false,
            report: Report::default(),
        }
    }

    /// Runs until shutdown, or until nothing is left to do.
    pub(crate) fn run(&mut self, buffer: &mut [u8]) -> io::Result<Report> {
        let mailbox = Arc::clone(&self.mailbox);
        let running = mailbox.run();
        self.shared.running = true;
        let result = self.run_turns(buffer);
        self.shared.running = false;
        mailbox.give(self.metrics());
        drop(running);
        result.map(|()| self.report.clone())
    }

    fn run_turns(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.apply_outside();
        while !self.is_over() {
            self.run_turn(None, buffer)?;
        }
        if self.draining {
            self.end();
        }
        Ok(())
    }

    /// Whether nothing is left to run for.
    pub(crate) fn is_over(&self) -> bool {
        self.table.len() == 0
            && self.shared.effects.is_empty()
            && (self.draining
                || (!self.keep_running
                    && self.listening.is_empty()
                    && self.shared.closures.is_empty()
                    && !self.mailbox.has_mail()))
    }

    /// Runs one turn. It waits at most for `timeout`; None waits until something happens.
    /// Connections are read into `buffer`.
    pub(crate) fn turn(&mut self, timeout: Option<Duration>, buffer: &mut [u8]) -> io::Result<()> {
        let mailbox = Arc::clone(&self.mailbox);
        let running = mailbox.run();
        self.shared.running = true;
        self.apply_outside();
        let result = self.run_turn(timeout, buffer);
        self.shared.running = false;
        mailbox.give(self.metrics());
        drop(running);
        result
    }

    #[inline(always)]
    fn run_turn(&mut self, timeout: Option<Duration>, buffer: &mut [u8]) -> io::Result<()> {
        let timeout = self.time_to_wait(timeout);
        self.poll(timeout)?;
        let begun = self.system.now();
        self.shared.clock.update(begun);
        let tick = self.shared.clock.tick();
        self.budget.begin();
        self.take_due(tick);
        if self.newcomers {
            self.accept();
        }
        if self.woken {
            self.read_mail();
        }
        self.run_ready(buffer);
        if self.chores {
            self.do_chores();
        }
        self.end_turn(begun, tick);
        Ok(())
    }

    /// Steps 7 and 8, and what is given back: most turns have nothing of it.
    #[cold]
    fn do_chores(&mut self) {
        self.chores = false;
        self.run_due();
        self.send_dirty();
        self.deliver_notes();
        self.look_for_newcomers();
        self.shared.ids.end_turn();
        if self.draining && self.table.len() == 0 {
            self.end();
        }
    }

    /// Nothing runs any more after shutdown: requests are refused, and timers hold nothing.
    fn end(&mut self) {
        self.mailbox.end();
        self.shared.drop_closures();
    }

    // ---- step 2 ------------------------------------------------------------------------------

    /// How long to wait for events: not at all while work is left over.
    #[inline(always)]
    fn time_to_wait(&self, most: Option<Duration>) -> Option<Duration> {
        if self.has_work_left() {
            return Some(Duration::ZERO);
        }
        match self.shared.timers.next() {
            Some(next) if next < u64::MAX => {
                // The tick lags: this may wake a little too late, never too early.
                let wait = Duration::from_nanos(next.saturating_sub(self.shared.clock.tick()));
                Some(most.map_or(wait, |most| most.min(wait)))
            }
            _ => most,
        }
    }

    #[inline(always)]
    fn has_work_left(&self) -> bool {
        !self.ready.is_empty() || !self.bulk.is_empty() || !self.dirty.is_empty() || self.newcomers
    }

    #[inline(always)]
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let EventLoop { system, shared, table, ready, bulk, listening, newcomers, woken, .. } =
            self;
        shared.metrics.turns += 1;
        let metrics = &mut shared.metrics;
        let sink = &mut Events { table, ready, bulk, listening, newcomers, woken, metrics };
        system.poll(timeout, sink)
    }

    /// The time at which [`EventLoop::turn`] has something to do without any event.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        if self.is_busy() {
            return Some(self.shared.clock.instant());
        }
        let next = self.shared.timers.next().filter(|next| *next < u64::MAX)?;
        // A timer is due when the tick has reached it, which moves in milliseconds.
        self.shared.clock.at(next.div_ceil(MILLISECOND).saturating_mul(MILLISECOND))
    }

    /// Whether the next turn has something to do at once.
    pub(crate) fn is_busy(&self) -> bool {
        self.has_work_left() || self.chores || !self.shared.effects.is_empty()
    }

    /// The counters, with the age and the gauges as they are now.
    pub(crate) fn metrics(&self) -> Metrics {
        self.shared.metrics()
    }

    // ---- step 5 ------------------------------------------------------------------------------

    #[cold]
    fn read_mail(&mut self) {
        self.woken = false;
        let Mail { posts, aborts, shutdown, counters } = self.mailbox.take();
        // These overtake what waits.
        for id in aborts {
            self.abort(id);
        }
        if shutdown {
            self.shutdown();
        }
        for post in posts {
            let list = &mut self.shared.effects.list;
            match post {
                Post::Write { to, content } => {
                    list.push(Effect::Write { to, content, caused: false });
                }
                Post::ShutdownWrite(id) => list.push(Effect::ShutdownWrite(id)),
                Post::Close(id) => list.push(Effect::Close(id)),
                Post::Notify { to, note } => list.push(Effect::Notify { to, note }),
                Post::Call(closure) => {
                    self.apply_driver_effects();
                    self.shared.run_closure(closure);
                    self.apply_driver_effects();
                }
            }
        }
        self.apply_driver_effects();
        if counters {
            self.mailbox.give(self.metrics());
        }
    }

    // ---- step 9 ------------------------------------------------------------------------------

    #[inline(always)]
    fn end_turn(&mut self, begun: Instant, tick: u64) {
        let over = self.system.now();
        self.shared.clock.update(over);
        let now = self.shared.clock.tick();
        let metrics = &mut self.shared.metrics;
        if metrics.turns % 16 == 0 {
            metrics.busy += over.saturating_duration_since(begun) * 16;
        }
        if now != tick {
            self.long_turns.note(tick, now);
            self.judge_turn(begun, over);
        }
        #[cfg(debug_assertions)]
        self.check_ready_list();
    }

    /// Every connection with work is in a list: nothing else would ever come back to it. And every
    /// armed timer has an owner.
    #[cfg(debug_assertions)]
    fn check_ready_list(&self) {
        if self.table.len() > 32 {
            return;
        }
        // One of each closure's, the end of the drain, and the postponed accepts.
        let mut timers = self.shared.closures.len() + 2;
        for entry in self.table.iter() {
            timers += usize::from(entry.conn.deadline_key().is_some());
            timers += entry.conn.timers_len();
            let (id, flags) = (entry.conn.id(), entry.conn.flags());
            assert!(
                !entry.conn.has_work() || flags.any(Flags::LISTED | Flags::DIRTY),
                "{id} has work and is in no list: {flags:?}",
            );
        }
        for outlet in self.table.outlets.values() {
            timers += outlet.state.timers_len();
            let (id, lost) = (outlet.state.id(), outlet.state.has_work() && !outlet.state.listed);
            assert!(!lost, "{id} has work and is in no list");
        }
        let armed = self.shared.timers.len();
        assert!(armed <= timers, "{armed} timers are armed, and at most {timers} are known");
    }

    #[cold]
    pub(crate) fn judge_turn(&mut self, begun: Instant, over: Instant) {
        let took = over.saturating_duration_since(begun);
        let Shared { blame, metrics, clock, .. } = &mut self.shared;
        metrics.longest_turn = metrics.longest_turn.max(took);
        if nanos(took) > blame.limit {
            metrics.slow_turns += 1;
            blame.judge_turn(nanos(took), clock.tick(), metrics);
        }
    }

    // ---- shutdown ----------------------------------------------------------------------------

    /// Begins to shut down: listeners close, connects under way are cancelled, `stopping` runs on
    /// the rest.
    pub(crate) fn shutdown(&mut self) {
        if self.draining {
            return;
        }
        log::info!(
            target: "lariat::turn",
            "shutting down: {} connections have {:?} to finish",
            self.table.len(),
            self.limits.drain,
        );
        self.draining = true;
        self.shared.stopping = true;
        self.stop_all_listening();
        self.chores = true;
        let deadline = self.shared.clock.exact().saturating_add(nanos(self.limits.drain));
        self.shared.timers.arm(deadline, TimerOwner::Drain);
        for id in self.table.ids() {
            let Some(entry) = self.table.get_mut(id) else { continue };
            entry.conn.handle_shutdown();
            self.finish(id);
        }
        self.stop_datagrams(false);
    }

    /// The time to drain is over: what is left is aborted.
    fn end_drain(&mut self) {
        self.drain_over = true;
        for id in self.table.ids() {
            if let Some(entry) = self.table.get_mut(id) {
                entry.conn.handle_drain_over();
            }
            self.finish(id);
        }
        self.stop_datagrams(true);
    }

    /// Whether there is a place for one more connection.
    fn place(&self) -> Place {
        let metrics = &self.shared.metrics;
        self.admission.place(metrics.open + metrics.bound)
    }

    /// Whether there is a place for a connection that was asked for. A datagram socket that was
    /// bound in the same callback has its place already.
    fn place_for_asked(&self) -> Place {
        let bound = self.shared.binder.listeners.bound_count();
        self.admission.place(self.shared.metrics.open + bound)
    }

    /// Something has become free: listeners that wait for it try again.
    fn note_released(&mut self, what: Released) {
        if what == Released::Descriptor {
            self.admission.note_released();
        }
        self.chores = true;
    }

    fn count_drained(&mut self, unsent: u64) {
        if self.drain_over {
            self.report.aborted += 1;
            self.report.unsent += unsent;
        } else if self.draining {
            self.report.drained += 1;
            self.report.unsent += unsent;
        }
    }
}

/// Takes the events of a poll into the flags of their connections, and these into the ready list.
struct Events<'a, S: System> {
    table: &'a mut Table<S>,
    ready: &'a mut Vec<ConnId>,
    bulk: &'a mut VecDeque<ConnId>,
    listening: &'a mut Vec<Listening<S>>,
    newcomers: &'a mut bool,
    woken: &'a mut bool,
    metrics: &'a mut Metrics,
}

/// An event of what is no connection. What it needs is passed one by one: a reference to [`Events`]
/// would keep that in memory, which costs each turn its stores.
#[cold]
#[inline(never)]
fn note_event<S: System>(
    table: &mut Table<S>,
    ready_list: &mut Vec<ConnId>,
    bulk_list: &mut VecDeque<ConnId>,
    metrics: &mut Metrics,
    (id, ready): (ConnId, Flags),
) {
    match table.outlets.get_mut(&id) {
        Some(outlet) => {
            outlet.handle_ready(ready);
            outlet.list(ready_list, bulk_list);
        }
        None => metrics.stale += 1,
    }
}

impl<S: System> EventSink for Events<'_, S> {
    #[inline(always)]
    fn connection(&mut self, id: ConnId, ready: Flags) {
        self.metrics.events += 1;
        let Some(entry) = self.table.get_mut(id) else {
            return note_event(self.table, self.ready, self.bulk, self.metrics, (id, ready));
        };
        match entry.conn.handle_ready(ready) {
            Listing::Ready => self.ready.push(id),
            Listing::Bulk => self.bulk.push_back(id),
            Listing::No => {}
        }
    }

    fn listener(&mut self, number: u32) {
        self.metrics.events += 1;
        accept::mark_ready(self.listening, number);
        *self.newcomers = true;
    }

    fn wake(&mut self) {
        self.metrics.events += 1;
        self.metrics.wakeups += 1;
        *self.woken = true;
    }
}

impl<S: System> Drop for EventLoop<S> {
    fn drop(&mut self) {
        self.mailbox.end();
        for id in self.table.ids() {
            if let Some(Entry { mut conn, protocol, .. }) = self.table.remove(id) {
                self.drop_protocol(protocol);
                conn.end(By::Runtime, CloseKind::Shutdown, None);
            }
        }
        drop_each(mem::take(&mut self.table.outlets).into_values());
        drop_each(mem::take(&mut self.listening));
        drop_each(mem::take(&mut self.shared.effects.list));
    }
}
