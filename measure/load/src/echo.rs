//! Closed loop: every connection keeps a fixed number of messages under way.
use crate::Result;
use crate::client::{Client, Leave, open_all};
use crate::options::Options;
use crate::stream::Streams;
use crate::system::{Line, allow_descriptors, cpu_time, wait};
use hdrhistogram::Histogram;
use mio::{Events, Poll};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

struct Lane {
    client: Client,
    /// When each message under way was handed over, oldest first.
    since: VecDeque<Instant>,
}

/// The messages that may still be started.
enum Supply {
    Exactly(u64),
    Endless,
}

impl Supply {
    fn take(&mut self, wanted: u64) -> u64 {
        match self {
            Supply::Endless => wanted,
            Supply::Exactly(left) => {
                let given = wanted.min(*left);
                *left -= given;
                given
            }
        }
    }
}

/// What was counted, and the clocks when counting began.
struct Count {
    messages: u64,
    latency: Histogram<u64>,
    begun: Instant,
    server: Duration,
    own: Duration,
}

impl Count {
    fn begin(pid: Option<u32>) -> Result<Count> {
        Ok(Count {
            messages: 0,
            latency: Histogram::new_with_bounds(1, 600_000_000_000, 3)?,
            begun: Instant::now(),
            server: pid.map_or(Ok(Duration::ZERO), cpu_time)?,
            own: cpu_time(std::process::id())?,
        })
    }
}

pub fn run(o: &Options) -> Result<String> {
    allow_descriptors(o.connections)?;
    let streams = Streams::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let limit = Instant::now() + o.limit;
    let mut lanes: Vec<Lane> = open_all(&poll, o, 0, Leave::Reset, limit)?
        .into_iter()
        .map(|client| Lane { client, since: VecDeque::with_capacity(o.pipeline as usize) })
        .collect();

    let mut supply = o.messages.map_or(Supply::Endless, Supply::Exactly);
    let mut count = Count::begin(o.pid)?;
    // An exact run counts from the first message; a timed one leaves out its beginning.
    let mut warm = o.messages.is_some().then_some(count.begun);
    let warm_at = count.begun + o.warmup;
    for lane in &mut lanes {
        lane.start(o, &streams, supply.take(o.pipeline))?;
    }
    loop {
        let now = Instant::now();
        if now >= limit {
            return Err(format!("{} messages came back within --limit", count.messages).into());
        }
        if warm.is_none() && now >= warm_at {
            count = Count::begin(o.pid)?;
            warm = Some(count.begun);
        }
        let next = match (o.messages, warm) {
            (Some(all), _) if count.messages >= all => break,
            (None, Some(begun)) if now >= begun + o.seconds => break,
            (Some(_), _) => limit,
            (None, Some(begun)) => begun + o.seconds,
            (None, None) => warm_at,
        };
        wait(&mut poll, &mut events, next.min(limit))?;
        for event in &events {
            let lane = &mut lanes[event.token().0];
            let came = lane.client.receive_event(event, &streams, &mut buffer)?;
            if lane.client.ended {
                return Err(
                    format!("connection {} was closed by the server", event.token().0).into()
                );
            }
            let whole = lane.completed(o, came, &mut count.latency);
            count.messages += whole;
            lane.start(o, &streams, supply.take(whole))?;
        }
    }
    Ok(report(o, &count)?.finish())
}

impl Lane {
    /// Hands over new messages, and goes on with old ones that would have blocked.
    fn start(&mut self, o: &Options, streams: &Streams, messages: u64) -> std::io::Result<()> {
        if messages > 0 {
            let now = Instant::now();
            self.since.extend((0..messages).map(|_| now));
            self.client.goal += messages * o.size;
        }
        self.client.send(streams)
    }

    /// How many messages the bytes that came have made whole.
    fn completed(&mut self, o: &Options, came: u64, latency: &mut Histogram<u64>) -> u64 {
        let received = self.client.received;
        let whole = received / o.size - (received - came) / o.size;
        if whole > 0 {
            let now = Instant::now();
            for since in self.since.drain(..whole as usize) {
                latency.saturating_record((now - since).as_nanos() as u64);
            }
        }
        whole
    }
}

fn report(o: &Options, count: &Count) -> Result<Line> {
    let seconds = count.begun.elapsed().as_secs_f64();
    let messages = count.messages as f64;
    let micros = |quantile| count.latency.value_at_quantile(quantile) as f64 / 1e3;
    let own = (cpu_time(std::process::id())? - count.own).as_secs_f64();
    let mut line = Line::new("echo")
        .whole("connections", o.connections as u64)
        .whole("size", o.size)
        .whole("pipeline", o.pipeline)
        .whole("messages", count.messages)
        .number("seconds", seconds)
        .number("messages_per_s", messages / seconds)
        .number("mib_per_s", messages * o.size as f64 / seconds / f64::from(1 << 20))
        .number("p50_us", micros(0.5))
        .number("p99_us", micros(0.99))
        .number("max_us", count.latency.max() as f64 / 1e3)
        .number("load_cpu_s", own);
    if let Some(pid) = o.pid {
        let used = (cpu_time(pid)? - count.server).as_secs_f64();
        line = line
            .number("server_cpu_s", used)
            .number("server_cpu_us_per_message", used * 1e6 / messages.max(1.0));
    }
    Ok(line)
}
