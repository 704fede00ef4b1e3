//! A connection that is kept, in virtual time: how long it waits, and when the count begins again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::reconnect::{Attempt, Backoff, Keeper, Reconnect};
use lariat::sim::{Faults, Sim, Trace};
use lariat::{Context, Input, Outcome, Protocol, Timer};

use crate::kit::{Echo, Sink, ms, serve};

/// What was told of ends: the failures in a row, and the delay.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(u32, Duration)>>>);

impl Log {
    fn take(&self) -> Vec<(u32, Duration)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn start<P: Protocol + Send + 'static>(
        &self,
        sim: &mut Sim,
        addr: SocketAddr,
        backoff: Backoff,
        make: impl FnMut(&Attempt) -> P + Send + 'static,
    ) -> Keeper {
        let log = self.clone();
        Reconnect::to(addr)
            .with_backoff(backoff)
            .on_end(move |_, ended| {
                log.0.lock().unwrap().push((ended.failures(), ended.delay().unwrap_or_default()));
            })
            .start(&mut sim.control(), make)
            .unwrap()
    }
}

fn nobody() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 1))
}

#[test]
fn delays_are_spread_over_their_whole_interval_and_never_beyond_it() {
    let bounds = [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000].map(ms);
    let mut drawn: BTreeMap<u32, Vec<Duration>> = BTreeMap::new();
    for seed in 0..600 {
        let mut sim = Sim::new(seed);
        let mut backoff = Backoff::default();
        backoff.failures_max = Some(bounds.len() as u32 + 1);
        let log = Log::default();
        let keeper = log.start(&mut sim, nobody(), backoff, |_| Sink);
        sim.run().unwrap();
        assert!(keeper.is_over());
        let mut ends = log.take();
        assert_eq!(ends.pop(), Some((bounds.len() as u32 + 1, Duration::ZERO)));
        for (failures, delay) in ends {
            drawn.entry(failures).or_default().push(delay);
        }
    }
    for (at, bound) in bounds.into_iter().enumerate() {
        let delays = &drawn[&(at as u32 + 1)];
        assert_eq!(delays.len(), 600);
        assert!(delays.iter().all(|delay| *delay <= bound), "beyond {bound:?}");
        // 60 are expected in each tenth. Fewer than 30 or more than 100 come by chance in less
        // than one of ten thousand sets of seeds; these seeds are always the same.
        for tenth in 0..10 {
            let part = bound * tenth / 10..=bound * (tenth + 1) / 10;
            let count = delays.iter().filter(|delay| part.contains(delay)).count();
            assert!((30..100).contains(&count), "{count} of 600 in {part:?}, of {bound:?}");
        }
    }
}

/// Says when it was made.
struct Dated(Arc<Mutex<Vec<Duration>>>);

impl Protocol for Dated {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, _: &lariat::CloseReason) {
        self.0.lock().unwrap().push(cx.age());
    }
}

#[test]
fn an_attempt_begins_when_its_delay_is_over_and_not_before() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        let log = Log::default();
        let mut backoff = Backoff::default();
        backoff.failures_max = Some(8);
        let ages: Arc<Mutex<Vec<Duration>>> = Arc::default();
        let kept = Arc::clone(&ages);
        log.start(&mut sim, nobody(), backoff, move |_| Dated(Arc::clone(&kept)));
        sim.run().unwrap();
        let waited: Duration = log.take().iter().map(|(_, delay)| *delay).sum();
        let connects: Duration = ages.lock().unwrap().iter().sum();
        let took = sim.now();
        // A timer is late by less than a millisecond, and so is the callback of an end.
        let most = waited + connects + ms(2) * 8;
        assert!(took >= waited && took <= most, "seed {seed}: {took:?} for {waited:?}");
    }
}

/// Ends by itself when it has been open for so long.
struct Lives(Duration);

impl Protocol for Lives {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(Timer::new(1), self.0);
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
        cx.abort();
        Ok(())
    }
}

#[test]
fn an_address_that_is_set_during_a_delay_is_that_of_the_next_attempt() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        let listening = serve(&mut sim, || Echo);
        let mut backoff = Backoff::default();
        backoff.failures_max = Some(2);
        let log = Log::default();
        let keeper = log.start(&mut sim, nobody(), backoff, |_| Sink);
        let mut delay = Duration::ZERO;
        while delay.is_zero() {
            sim.run_for(Duration::from_micros(10)).unwrap();
            delay = log.take().first().map_or(Duration::ZERO, |(_, delay)| *delay);
        }
        assert!(keeper.conn().is_none() && !keeper.is_over());
        keeper.set_addr(listening);
        sim.run_for(delay + ms(50)).unwrap();
        assert!(keeper.conn().is_some(), "the attempt went elsewhere");
        assert_eq!(sim.metrics().open, 2);
    }
}

#[test]
fn a_healthy_connection_sets_the_count_back_and_a_shorter_one_does_not() {
    let healthy = Backoff::default().healthy;
    for (life, resets) in [
        (ms(1), false),
        // A timer fires up to a millisecond late.
        (healthy - ms(2), false),
        (healthy, true),
        (healthy + ms(1), true),
    ] {
        let mut sim = Sim::new(7);
        let addr = serve(&mut sim, || Sink);
        let log = Log::default();
        let mut backoff = Backoff::default();
        backoff.failures_max = Some(5);
        let keeper = log.start(&mut sim, addr, backoff, move |_| Lives(life));
        sim.run_for(Duration::from_secs(300)).unwrap();
        let failures: Vec<u32> = log.take().iter().map(|(failures, _)| *failures).collect();
        if resets {
            assert!(
                failures.len() > 10 && failures.iter().all(|count| *count == 1),
                "{failures:?}"
            );
        } else {
            assert_eq!(failures, [1, 2, 3, 4, 5], "{life:?}");
        }
        assert_eq!(keeper.is_over(), !resets);
    }
}

/// A rough run: everything that happened, with its times.
fn rough(seed: u64) -> String {
    let mut sim = Sim::new(seed);
    let mut faults = Faults::rough();
    (faults.connect_errors, faults.resets) = (300, 100);
    sim.set_faults(faults);
    let addr = serve(&mut sim, || Echo);
    let (log, trace) = (Log::default(), Trace::new());
    let wrap = trace.clone();
    let make = move |attempt: &Attempt| {
        let who = format!("client {}", attempt.number());
        wrap.wrap(&who, Lives(ms(300)))
    };
    log.start(&mut sim, addr, Backoff::default(), make);
    sim.run_for(Duration::from_secs(120)).unwrap();
    format!("{}{:?}", trace.text(), log.take())
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    for seed in 0..10 {
        let once = rough(seed);
        assert!(once.lines().count() > 5, "{once}");
        assert_eq!(once, rough(seed));
        assert_ne!(once, rough(seed + 1));
    }
}

#[test]
fn clients_of_a_server_that_failed_do_not_come_back_together() {
    let mut sim = Sim::new(3);
    let log = Log::default();
    let keepers: Vec<Keeper> =
        (0..200).map(|_| log.start(&mut sim, nobody(), Backoff::default(), |_| Sink)).collect();
    sim.run_for(Duration::from_secs(20)).unwrap();
    assert!(keepers.iter().all(|keeper| !keeper.is_over()));
    // All fail together, and wait for up to half a second each. In any 50 ms of it 20 attempts
    // are expected.
    let first: Vec<Duration> =
        log.take().iter().filter(|(failures, _)| *failures == 1).map(|(_, delay)| *delay).collect();
    assert_eq!(first.len(), 200);
    for part in 0..10 {
        let part = ms(50) * part..ms(50) * (part + 1);
        let count = first.iter().filter(|delay| part.contains(delay)).count();
        assert!((5..45).contains(&count), "{count} in {part:?}");
    }
    for keeper in keepers {
        keeper.stop(&mut sim.control());
    }
    sim.run().unwrap();
    assert!(sim.is_over(), "nothing keeps the driver running");
}
