//! More clients than the server has descriptors for.
//!
//! All clients connect (the kernel completes that without the server) and send one message. Some
//! are served; the others wait in the kernel's queue or are turned away. While the server is full
//! its CPU time is watched, first with nobody sending, then with the served clients in use. Then a served client leaves,
//! and the time until a client that had no answer so far gets one is taken; so a few times.
use crate::Result;
use crate::client::{Client, Leave, open_all};
use crate::options::Options;
use crate::stream::Streams;
use crate::system::{Line, allow_descriptors, cpu_time, wait};
use mio::{Events, Poll};
use std::time::{Duration, Instant};

/// How long the server has to sort the crowd out before it counts as full.
const SETTLE: Duration = Duration::from_millis(1500);
/// Pause between two rounds of messages on the served connections.
const ROUND: Duration = Duration::from_millis(250);
/// How long waiting clients are watched before a fresh client is sent to rouse the server.
const ROUSE: Duration = Duration::from_secs(1);
const TOO_LONG: Duration = Duration::from_secs(10);

struct Crowd<'a> {
    o: &'a Options,
    streams: Streams,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    /// By number; None has left or was turned away.
    clients: Vec<Option<Client>>,
    turned_away: u64,
    limit: Instant,
}

pub fn run(o: &Options) -> Result<String> {
    allow_descriptors(o.connections + o.frees)?;
    let pid = o.pid.ok_or("crowd needs --pid, to watch the server's CPU time")?;
    let poll = Poll::new()?;
    let limit = Instant::now() + o.limit;
    let clients = open_all(&poll, o, 0, Leave::Reset, limit)?.into_iter().map(Some).collect();
    let mut crowd = Crowd {
        o,
        streams: Streams::new(),
        poll,
        events: Events::with_capacity(256),
        buffer: vec![0; 64 * 1024],
        clients,
        turned_away: 0,
        limit,
    };
    for number in 0..crowd.clients.len() {
        crowd.ask(number);
    }
    crowd.until(Instant::now() + SETTLE, |_| false)?;
    let served = crowd.served();
    if served.is_empty() || served.len() == o.connections {
        return Err(format!(
            "{} of {} clients were served: the server is not full",
            served.len(),
            o.connections
        )
        .into());
    }
    let waiting = crowd.waiting();

    let (begun, cpu) = (Instant::now(), cpu_time(pid)?);
    crowd.until(begun + o.seconds, |_| false)?;
    let quiet = percent(pid, cpu, begun)?;

    let (begun, cpu) = (Instant::now(), cpu_time(pid)?);
    let (mut echoes, mut slowest) = (0, Duration::ZERO);
    while begun.elapsed() < o.seconds {
        slowest = slowest.max(crowd.round(&served)?);
        echoes += served.len() as u64;
    }
    let serving = percent(pid, cpu, begun)?;

    let mut delays = Vec::new();
    let mut roused = 0;
    for &leaving in served.iter().take(o.frees) {
        let (delay, needed_rousing) = crowd.free(leaving)?;
        delays.push(delay.as_secs_f64() * 1e3);
        roused += u64::from(needed_rousing);
    }
    Ok(Line::new("crowd")
        .whole("clients", o.connections as u64)
        .whole("served", served.len() as u64)
        .whole("waiting_when_full", waiting.len() as u64)
        .whole("turned_away", crowd.turned_away)
        .number("cpu_percent_full_and_quiet", quiet)
        .number("cpu_percent_full_and_serving", serving)
        .whole("echoes_while_full", echoes)
        .number("slowest_round_ms", slowest.as_secs_f64() * 1e3)
        .numbers("first_new_echo_ms", &delays)
        .whole("needed_rousing", roused)
        .finish())
}

/// CPU time since then, in percent of one core.
fn percent(pid: u32, cpu: Duration, begun: Instant) -> Result<f64> {
    Ok((cpu_time(pid)? - cpu).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0)
}

impl Crowd<'_> {
    /// One message on each served connection, then a pause; how long the answers took.
    fn round(&mut self, served: &[usize]) -> Result<Duration> {
        let begun = Instant::now();
        for &number in served {
            self.ask(number);
        }
        let answered = |c: &Self| served.iter().all(|&n| c.answered(n));
        if !self.until(begun + TOO_LONG, answered)? {
            return Err("a client that had been served got no answer any more".into());
        }
        let took = begun.elapsed();
        self.until(begun + ROUND, |_| false)?;
        Ok(took)
    }

    /// One more message from this client, if it is still there.
    fn ask(&mut self, number: usize) {
        if let Some(client) = &mut self.clients[number] {
            client.goal += self.o.size;
            // A client that was turned away is noticed by its event.
            let _ = client.send(&self.streams);
        }
    }

    fn answered(&self, number: usize) -> bool {
        self.clients[number].as_ref().is_some_and(Client::settled)
    }

    fn served(&self) -> Vec<usize> {
        (0..self.clients.len()).filter(|&n| self.answered(n)).collect()
    }

    /// Those that have not been answered at all.
    fn waiting(&self) -> Vec<usize> {
        let never = |c: &Option<Client>| c.as_ref().is_some_and(|c| c.received == 0);
        (0..self.clients.len()).filter(|&n| never(&self.clients[n])).collect()
    }

    /// Handles events until the condition holds (true) or the time has come (false).
    fn until(&mut self, time: Instant, holds: impl Fn(&Self) -> bool) -> Result<bool> {
        while !holds(self) {
            let now = Instant::now();
            if now >= self.limit {
                return Err("not done within --limit".into());
            }
            if now >= time {
                return Ok(false);
            }
            wait(&mut self.poll, &mut self.events, time.min(self.limit))?;
            for event in &self.events {
                let number = event.token().0;
                let Some(client) = &mut self.clients[number] else { continue };
                let came = client.receive_event(event, &self.streams, &mut self.buffer);
                if came.is_ok() && !client.ended {
                    let _ = client.send(&self.streams);
                    continue;
                }
                if client.received > 0 {
                    return Err(format!("client {number} had been served and was closed").into());
                }
                if let Err(e) = came
                    && e.kind() == std::io::ErrorKind::Other
                {
                    return Err(e.into());
                }
                self.turned_away += 1;
                self.clients[number] = None;
            }
        }
        Ok(true)
    }

    /// A served client leaves; the time until one that waited, or a fresh one, is answered, and
    /// whether it took a fresh connection to get the server to look.
    fn free(&mut self, leaving: usize) -> Result<(Duration, bool)> {
        let before = self.waiting();
        let begun = Instant::now();
        self.clients[leaving] = None;
        if !before.is_empty() {
            let one = |c: &Self| before.iter().any(|&n| c.answered(n));
            if self.until(begun + ROUSE, one)? {
                return Ok((begun.elapsed(), false));
            }
        }
        let fresh = self.clients.len();
        self.clients.push(Some(Client::open(&self.poll, self.o, fresh, Leave::Reset)?));
        self.ask(fresh);
        let one = |c: &Self| c.answered(fresh) || before.iter().any(|&n| c.answered(n));
        if self.until(begun + TOO_LONG, one)? {
            return Ok((begun.elapsed(), !before.is_empty()));
        }
        Err("no new client was answered within 10 s after a descriptor was freed".into())
    }
}
