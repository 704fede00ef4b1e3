//! Whole lives of connections, one after the other: connect, one message, reset.
use crate::Result;
use crate::client::{Leave, connect};
use crate::options::Options;
use crate::stream::Streams;
use crate::system::{Line, cpu_time, process_time};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn run(o: &Options) -> Result<String> {
    let streams = Streams::new();
    let limit = Instant::now() + o.limit;
    // An exact run counts from the first life; a timed one leaves out its beginning.
    let (mut lives, warm_at) = (0, Instant::now() + o.warmup);
    while o.messages.is_none() && Instant::now() < warm_at {
        live(o, &streams, lives)?;
        lives += 1;
    }
    let used = || o.pid.map_or(Ok(Duration::ZERO), process_time);
    let (begun, server) = (Instant::now(), used()?);
    let own = cpu_time(std::process::id())?;
    let first = lives;
    let is_over = |lives: usize| match o.messages {
        Some(all) => lives as u64 >= all,
        None => begun.elapsed() >= o.seconds,
    };
    while !is_over(lives) {
        if Instant::now() >= limit {
            return Err(format!("{lives} lives were over within --limit").into());
        }
        live(o, &streams, lives)?;
        lives += 1;
    }
    let (seconds, counted) = (begun.elapsed().as_secs_f64(), (lives - first) as f64);
    let mut line = Line::new("lives")
        .whole("size", o.size)
        .whole("messages", (lives - first) as u64)
        .number("seconds", seconds)
        .number("messages_per_s", counted / seconds)
        .number("load_cpu_s", (cpu_time(std::process::id())? - own).as_secs_f64());
    if o.pid.is_some() {
        let used = (used()? - server).as_secs_f64();
        line = line
            .number("server_cpu_s", used)
            .number("server_cpu_us_per_message", used * 1e6 / counted.max(1.0));
    }
    Ok(line.finish())
}

fn live(o: &Options, streams: &Streams, number: usize) -> Result<()> {
    let mut stream = connect(o, number, Leave::Reset)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let message = streams.at(number, 0, o.size);
    stream.write_all(message)?;
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).map_err(|e| format!("life {number}: {e}"))?;
    if answer != message {
        return Err(format!("life {number}: the answer differs from the message").into());
    }
    Ok(())
}
