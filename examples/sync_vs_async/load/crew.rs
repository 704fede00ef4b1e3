//! Many connections on one thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::lane::{Lane, Pace, Talk};
use super::tally::Tally;
use super::{Order, PATIENCE};
use crate::Failure;

pub(super) struct Crew {
    poll: Poll,
    events: Events,
    lanes: Vec<Lane>,
    buffer: Vec<u8>,
    /// The lanes before this one ask; the others are idle.
    asking: usize,
    /// As in [`Order::unserved`].
    unserved: usize,
    /// Requests of the run so far, for the special ones among them.
    asked: u64,
}

/// mio waits whole milliseconds; what is due earlier is waited for without sleeping.
const SPIN: Duration = Duration::from_micros(1500);

impl Crew {
    pub(super) fn connect(
        order: &Order,
        talk: &Talk,
        count: usize,
        buffer: Option<usize>,
    ) -> Result<Crew, Failure> {
        let _ = talk;
        let poll = Poll::new()?;
        let lanes = (0..count).map(|number| Lane::connect(&poll, order, number, buffer));
        let lanes = lanes.collect::<std::io::Result<Vec<_>>>()?;
        Ok(Crew {
            poll,
            events: Events::with_capacity(1024),
            asking: order.connections.min(lanes.len()),
            unserved: order.unserved.min(lanes.len()),
            lanes,
            buffer: vec![0; 256 * 1024],
            asked: 0,
        })
    }

    pub(super) fn ask_all(&mut self, talk: &Talk) -> Result<(), Failure> {
        for lane in &mut self.lanes {
            lane.ask(talk, Instant::now(), false)?;
        }
        Ok(())
    }

    /// Waits for events until `until`, and serves them: `answer` gets the number of the lane and
    /// when the request was due.
    fn turn(
        &mut self,
        talk: &Talk,
        until: Instant,
        mut answer: impl FnMut(usize, Instant),
    ) -> Result<(), Failure> {
        let left = until.saturating_duration_since(Instant::now());
        let time = if left < SPIN { Duration::ZERO } else { left - SPIN + SPIN / 3 };
        match self.poll.poll(&mut self.events, Some(time)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        if time.is_zero() && self.events.is_empty() {
            thread::yield_now();
        }
        for event in &self.events {
            let number = event.token().0;
            let lane = &mut self.lanes[number];
            lane.send()?;
            lane.receive(talk, &mut self.buffer, usize::MAX, |since| answer(number, since))?;
        }
        Ok(())
    }

    /// Whether an answer is still to come.
    fn under_way(&self) -> bool {
        let waiting = self.lanes.iter().filter(|lane| !lane.pending.is_empty());
        waiting.take(self.unserved + 1).count() > self.unserved
    }

    /// Waits until all is answered, or no answer has come for `patience`.
    pub(super) fn settle(&mut self, talk: &Talk, patience: Duration) -> Result<(), Failure> {
        self.wait_for_answers(talk, patience, |_, _| {})
    }

    fn wait_for_answers(
        &mut self,
        talk: &Talk,
        patience: Duration,
        mut each: impl FnMut(Instant, Instant),
    ) -> Result<(), Failure> {
        let mut last = Instant::now();
        while self.under_way() && last.elapsed() < patience {
            let until = last + patience;
            let mut came = false;
            self.turn(talk, until, |_, since| {
                each(since, Instant::now());
                came = true;
            })?;
            if came {
                last = Instant::now();
            }
        }
        Ok(())
    }

    /// After the run: the answers that are still to come, and those that never will.
    pub(super) fn drain(
        &mut self,
        talk: &Talk,
        patience: Duration,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        self.wait_for_answers(talk, patience, |since, now| tally.answer(since, now))?;
        let now = Instant::now();
        for lane in &self.lanes[..self.asking] {
            for &(since, _) in &lane.pending {
                tally.no_answer(since, now);
            }
        }
        Ok(())
    }

    /// Counts from here on; what waits from before counts as asked now.
    pub(super) fn begin(&mut self) {
        let now = Instant::now();
        self.asked = 0;
        for lane in &mut self.lanes {
            lane.answered = 0;
            for (since, _) in &mut lane.pending {
                *since = now;
            }
        }
    }

    /// One request with a number that is found in a trace.
    pub(super) fn mark(&mut self, talk: &Talk, number: i64) -> Result<(), Failure> {
        let lane = &mut self.lanes[0];
        lane.ask_for(talk, Instant::now(), number, false)?;
        lane.send()?;
        self.settle(talk, PATIENCE)
    }

    pub(super) fn run(
        &mut self,
        talk: &Talk,
        order: &Order,
        time: Duration,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        match order.rate {
            Some(rate) => self.open_loop(talk, order, rate, Instant::now(), time, tally),
            None => self.closed_loop(talk, order, time, tally),
        }
    }

    /// Whether the next request is a special one. They come evenly, at every `one_in`th place.
    pub(super) fn next_is_special(asked: &mut u64, order: &Order) -> bool {
        *asked += 1;
        order.special.as_ref().is_some_and(|s| *asked % s.one_in == s.one_in / 2)
    }

    fn closed_loop(
        &mut self,
        talk: &Talk,
        order: &Order,
        time: Duration,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let end = Instant::now() + time;
        let most = order.requests.unwrap_or(u64::MAX);
        for lane in &mut self.lanes[..self.asking] {
            if lane.pending.is_empty() && self.asked < most {
                let special = Self::next_is_special(&mut self.asked, order);
                lane.ask(talk, Instant::now(), special)?;
            }
        }
        let mut answered = Vec::new();
        while Instant::now() < end {
            answered.clear();
            self.turn(talk, end, |number, since| {
                tally.answer(since, Instant::now());
                answered.push(number);
            })?;
            if self.asked >= most && !self.under_way() {
                break;
            }
            for &number in &answered {
                if self.asked < most && Instant::now() < end {
                    let special = Self::next_is_special(&mut self.asked, order);
                    self.lanes[number].ask(talk, Instant::now(), special)?;
                }
            }
        }
        Ok(())
    }

    /// Requests leave when they are due, whether or not earlier ones are answered. The first one is
    /// due at `begun`.
    pub(super) fn open_loop(
        &mut self,
        talk: &Talk,
        order: &Order,
        rate: f64,
        begun: Instant,
        time: Duration,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let mut count = 0u64;
        let due = |count: u64| begun + Duration::from_secs_f64(count as f64 / rate);
        loop {
            let mut now = Instant::now();
            while due(count) <= now && due(count) < begun + time {
                let number = count as usize % self.asking;
                let special = Self::next_is_special(&mut self.asked, order);
                self.lanes[number].ask(talk, due(count), special)?;
                tally.left_late(now.saturating_duration_since(due(count)));
                count += 1;
                now = Instant::now();
            }
            if now >= begun + time {
                return Ok(());
            }
            let until = due(count).min(begun + time);
            self.turn(talk, until, |_, since| tally.answer(since, Instant::now()))?;
        }
    }

    /// Sends without end until `stop`; reads at once, or at a pace.
    pub(super) fn flood(
        &mut self,
        talk: &Talk,
        depth: usize,
        pace: Option<Pace>,
        stop: &AtomicBool,
        bytes: &AtomicU64,
    ) -> Result<(), Failure> {
        let short = Duration::from_millis(5);
        while !stop.load(Ordering::Relaxed) {
            for lane in &mut self.lanes {
                lane.fill(talk, depth)?;
            }
            let most = pace.map_or(usize::MAX, |pace| pace.bytes);
            match pace {
                Some(pace) => thread::sleep(pace.pause),
                None => match self.poll.poll(&mut self.events, Some(short)) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    result => result?,
                },
            }
            for lane in &mut self.lanes {
                let came = lane.receive(talk, &mut self.buffer, most, |_| {})?;
                bytes.fetch_add(came as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Answers of each connection that asks.
    pub(super) fn shares(&self) -> Vec<u64> {
        self.lanes[..self.asking].iter().map(|lane| lane.answered).collect()
    }
}
