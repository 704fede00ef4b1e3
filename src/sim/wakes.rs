//! Lost wake-ups: where a real loop would sleep for ever, or too long, the simulator returns an
//! error.

use std::io;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::Sim;
use super::system::SimSystem;
use crate::error::{Error, ErrorKind, Op, Result};

const MILLISECOND: u64 = 1_000_000;
/// A thread that has posted wakes the loop next: it has this many milliseconds to do so.
pub(super) const GRACE: u32 = 2000;

/// What may not be waiting while the loop sleeps.
#[derive(Default)]
pub(super) struct Watch {
    /// What waits, so that the loop may not sleep at all.
    forgotten: Option<String>,
    /// The next timer: the loop may not sleep past it.
    timer: Option<u64>,
    /// What was waiting while the loop slept.
    lost: Option<String>,
}

impl SimSystem {
    /// Fails when the loop, which no thread has woken, is about to sleep until `until` (None: until
    /// something happens) although something waits.
    pub(super) fn judge_wait(&mut self, until: Option<u64>) -> io::Result<()> {
        let now = self.network.borrow().now();
        if until.is_some_and(|until| until <= now) {
            return Ok(());
        }
        self.watch.lost = self.watch.forgotten.take().or_else(|| self.overslept(now, until));
        if self.watch.lost.is_some() { Err(io::Error::other("a wake-up was lost")) } else { Ok(()) }
    }

    fn overslept(&self, now: u64, until: Option<u64>) -> Option<String> {
        let timer = self.watch.timer?;
        // Waits are rounded up, and counted from a tick that lags. A stalled clock knows no better.
        let latest = timer.max(now).saturating_add(2 * MILLISECOND);
        let late = until.is_none_or(|until| until > latest);
        let stalled = self.shown.load(Ordering::Relaxed) != now;
        (late && !stalled).then(|| {
            let after = Duration::from_nanos(timer.saturating_sub(now));
            match until {
                Some(until) => {
                    let wait = Duration::from_nanos(until - now);
                    format!("a timer is due in {after:?}, and the loop sleeps for {wait:?}")
                }
                None => format!("a timer is due in {after:?}, and the loop sleeps without an end"),
            }
        })
    }
}

impl Sim {
    /// Notes what may not be waiting during the coming turn's sleep.
    pub(super) fn watch_wait(&mut self) -> Result<()> {
        self.inner.settle_outside();
        self.judge_mail()?;
        let all = self.network.borrow().next_event().is_none();
        let forgotten = self.inner.forgotten(all);
        let timer = self.inner.shared.timers.next().filter(|next| *next < u64::MAX);
        self.inner.system.watch = Watch { forgotten, timer, lost: None };
        Ok(())
    }

    /// What was waiting while the turn slept.
    pub(super) fn lost_in_turn(&mut self) -> Option<Error> {
        self.inner.system.watch.lost.take().map(lost)
    }

    /// Fails when something waits although nothing can happen any more.
    pub(super) fn judge_quiet(&self) -> Result<()> {
        self.judge_mail()?;
        self.inner.forgotten(true).map_or(Ok(()), |what| Err(lost(what)))
    }

    /// Fails when the mailbox holds something and no thread has woken the loop.
    pub(super) fn judge_mail(&self) -> Result<()> {
        let woken = || self.inner.system.woken.load(Ordering::Acquire);
        for _ in 0..self.grace {
            match self.inner.mailbox.waiting() {
                Some(_) if !woken() => thread::sleep(Duration::from_millis(1)),
                _ => return Ok(()),
            }
        }
        let waiting = self.inner.mailbox.waiting().unwrap_or_default();
        Err(lost(format!("{waiting}, and nobody has woken the loop")))
    }
}

fn lost(what: String) -> Error {
    let detail = format!("a wake-up was lost: {what}");
    Error::new(ErrorKind::Other, Op::Poll).with_detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Context, Input, Outcome, Protocol};

    /// Answers nothing and keeps nothing.
    struct Sink;
    impl Protocol for Sink {
        fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            input.consume_all();
            Ok(())
        }
    }

    fn served() -> (Sim, super::super::Socket) {
        let mut sim = Sim::new(1);
        sim.grace = 3;
        sim.listen("127.0.0.1:1", |_| Some(Sink)).unwrap();
        let client = sim.dial("127.0.0.1:1");
        sim.run().unwrap();
        (sim, client)
    }

    fn sentence(result: Result<impl std::fmt::Debug>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn mail_without_a_wake_up_is_an_error_of_whatever_runs_next() {
        let expected = "cannot wait for events: a wake-up was lost: \
                        1 posts, 1 aborts, 0 shutdown, 0 questions wait, \
                        and nobody has woken the loop";
        let (mut sim, _client) = served();
        let id = crate::id::ConnId::PLACEHOLDER;
        sim.handle().close(id).unwrap();
        sim.handle().abort(id);
        sim.inner.system.woken.store(false, Ordering::Release);
        assert_eq!(sentence(sim.run()), expected);
        assert_eq!(sentence(sim.turn(Some(Duration::ZERO))), expected);
        assert_eq!(sentence(sim.run_for(Duration::from_millis(1))), expected);
        sim.inner.system.woken.store(true, Ordering::Release);
        sim.run().unwrap();

        // Also where nothing else is left.
        let mut sim = Sim::new(1);
        sim.grace = 3;
        sim.handle().call(|_| ()).unwrap();
        sim.inner.system.woken.store(false, Ordering::Release);
        assert!(sentence(sim.run()).contains("1 posts"));
    }

    #[test]
    fn a_connection_that_is_lost_from_its_list_is_an_error_before_the_loop_sleeps() {
        let (mut sim, client) = served();
        client.send(b"to be read");
        // The event is taken in, and the list that it made is lost.
        let (network, id) = (sim.network.clone(), sim.inner.connections()[0].0);
        network.borrow_mut().poll(None, None).unwrap();
        assert!(sim.run().is_ok(), "nobody knows of it");
        sim.inner.lose_lists(id);
        assert!(sim.is_quiet());
        let lost = sentence(sim.run());
        assert!(lost.contains("c0.1 has something to do and is in no list"), "{lost}");
        assert_eq!(sentence(sim.run_for(Duration::from_millis(1))), lost);
        assert_eq!(sentence(sim.turn(None)), lost);
        // Who does not sleep loses nothing yet.
        sim.turn(Some(Duration::ZERO)).unwrap();
    }

    #[test]
    fn a_wait_past_a_timer_is_an_error() {
        let (mut sim, _client) = served();
        let now = sim.network.borrow().now();
        let judged = |sim: &mut Sim, timer: u64, until: Option<u64>| {
            sim.inner.system.watch = Watch { timer: Some(now + timer), ..Watch::default() };
            let failed = sim.inner.system.judge_wait(until.map(|until| now + until)).is_err();
            assert_eq!(failed, sim.inner.system.watch.lost.is_some());
            sim.inner.system.watch.lost.take()
        };
        assert_eq!(judged(&mut sim, 5 * MILLISECOND, Some(7 * MILLISECOND)), None);
        let late = judged(&mut sim, 5 * MILLISECOND, Some(7 * MILLISECOND + 1)).unwrap();
        assert_eq!(late, "a timer is due in 5ms, and the loop sleeps for 7.000001ms");
        let late = judged(&mut sim, 5 * MILLISECOND, None).unwrap();
        assert_eq!(late, "a timer is due in 5ms, and the loop sleeps without an end");
        // To a clock that stands still it is earlier.
        sim.inner.system.shown.store(now - 1, Ordering::Relaxed);
        assert_eq!(judged(&mut sim, 5 * MILLISECOND, None), None);
    }

    #[test]
    fn a_wake_up_survives_a_wait_that_fails() {
        let (mut sim, _client) = served();
        sim.handle().shutdown();
        sim.script(super::super::Call::Poll, 0, super::super::Fault::Error(libc::EBADF));
        assert!(sim.run().is_err());
        sim.run().unwrap();
        assert!(sim.is_over());
    }
}
