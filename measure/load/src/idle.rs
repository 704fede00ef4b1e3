//! Opens many connections, optionally uses each once, and holds them until stdin closes.
use crate::Result;
use crate::client::{Client, Leave, open_all};
use crate::options::Options;
use crate::stream::Streams;
use crate::system::{Line, allow_descriptors, wait};
use mio::{Events, Poll};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::Read;
use std::time::{Duration, Instant};

/// How many connections are used at the same time. All at once would measure how much the kernel
/// and the server buffer, not what an idle connection keeps.
const AT_ONCE: usize = 64;

pub fn run(o: &Options) -> Result<String> {
    allow_descriptors(o.connections)?;
    let streams = Streams::new();
    let mut poll = Poll::new()?;
    let limit = Instant::now() + o.limit;
    let mut clients = open_all(&poll, o, 0, Leave::Finish, limit)?;
    for first in (0..clients.len()).step_by(AT_ONCE) {
        if o.touch > 0 {
            touch(o, &streams, &mut poll, &mut clients, first, limit)?;
        }
    }
    let ready = Line::new("ready").whole("connections", clients.len() as u64);
    println!("{}", ready.whole("touch", o.touch).finish());

    hold(limit)?;
    let mut buffer = [0; 64];
    let lost = clients
        .iter_mut()
        .filter_map(|c| (c.receive(&streams, &mut buffer, true).is_err() || c.ended).then_some(()))
        .count();
    if lost > 0 {
        return Err(format!("{lost} of {} connections were closed meanwhile", o.connections).into());
    }
    Ok(Line::new("held").whole("connections", clients.len() as u64).finish())
}

/// Echoes `--touch` bytes on the connections of one batch.
fn touch(
    o: &Options,
    streams: &Streams,
    poll: &mut Poll,
    clients: &mut [Client],
    first: usize,
    limit: Instant,
) -> Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut events = Events::with_capacity(256);
    let batch = first..(first + AT_ONCE).min(clients.len());
    for client in &mut clients[batch.clone()] {
        client.goal += o.touch;
        client.send(streams)?;
    }
    while !clients[batch.clone()].iter().all(Client::settled) {
        if Instant::now() >= limit {
            return Err("the bytes of --touch did not come back within --limit".into());
        }
        wait(poll, &mut events, limit)?;
        for event in &events {
            let client = &mut clients[event.token().0];
            client.receive_event(event, streams, &mut buffer)?;
            if client.ended {
                return Err(format!("connection {} was closed", event.token().0).into());
            }
            client.send(streams)?;
        }
    }
    Ok(())
}

/// Waits until stdin is closed.
pub fn hold(limit: Instant) -> Result<()> {
    let mut stdin = std::io::stdin();
    loop {
        let left = limit.saturating_duration_since(Instant::now());
        if left == Duration::ZERO {
            return Err("stdin was not closed within --limit".into());
        }
        let timeout = Timespec::try_from(left)?;
        let mut wish = [PollFd::new(&stdin, PollFlags::IN)];
        match rustix::event::poll(&mut wish, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        if stdin.read(&mut [0; 256])? == 0 {
            return Ok(());
        }
    }
}
