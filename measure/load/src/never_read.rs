//! Peers that send as long as the server takes it and never read, beside one client that behaves.
//!
//! Prints a table while it runs: what the peers got rid of, the server's memory, and the latency of
//! the client that behaves. The last line is JSON.
use crate::Result;
use crate::client::{Leave, connect};
use crate::options::Options;
use crate::stream::Streams;
use crate::system::{Line, allow_descriptors, resident, wait};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// What the client that behaves reports per echo; the error is a sentence.
type Latency = std::result::Result<Duration, String>;

const MIB: f64 = (1 << 20) as f64;

#[derive(Clone, Copy, PartialEq)]
enum End {
    Open,
    /// The server sent a FIN.
    Finished,
    /// The server sent a RST.
    Reset,
}

struct Peer {
    socket: TcpStream,
    taken: u64,
    end: End,
}

pub fn run(o: &Options) -> Result<String> {
    allow_descriptors(o.connections + 1)?;
    let pid = o.pid.ok_or("never-read needs --pid, to watch the server's memory")?;
    let limit = Instant::now() + o.limit;
    let streams = Streams::new();
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
    let (latencies, behaving) = behave(o)?;
    let before = resident(pid)?.0;
    let mut peers = Vec::with_capacity(o.connections);
    for number in 0..o.connections {
        let socket = connect(o, number, Leave::Reset)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut socket, Token(number), both)?;
        peers.push(Peer { socket, taken: 0, end: End::Open });
    }

    println!("   time  open  taken MiB  server RSS MiB  other client: echoes  median ms  worst ms");
    let begun = Instant::now();
    let mut row = begun + o.every;
    let (mut worst, mut highest) = (Duration::ZERO, before);
    // After the last peer has gone there is one more row, to see what the server gives back.
    let mut rows_left = None;
    while rows_left != Some(0) && begun.elapsed() < o.seconds {
        if Instant::now() >= limit {
            return Err("not done within --limit".into());
        }
        wait(&mut poll, &mut events, row.min(limit))?;
        for event in &events {
            let peer = &mut peers[event.token().0];
            peer.send(o, &streams, event.token().0);
            if event.is_error() || event.is_read_closed() {
                peer.ended();
            }
        }
        if Instant::now() >= row {
            row += o.every;
            let open = peers.iter().filter(|p| p.end == End::Open).count();
            let (now, peak) = resident(pid)?;
            highest = highest.max(peak);
            let slowest = print_row(begun, open, &peers, now, &latencies)?;
            worst = worst.max(slowest);
            rows_left = match rows_left {
                Some(left) => Some(left - 1),
                None => (open == 0).then_some(1),
            };
        }
    }
    drop(latencies);
    behaving.join().map_err(|_| "the thread of the other client panicked")?;

    let ended = |end| peers.iter().filter(|p| p.end == end).count() as u64;
    let mut taken: Vec<f64> = peers.iter().map(|p| p.taken as f64 / MIB).collect();
    taken.sort_by(f64::total_cmp);
    let spread = [taken[0], taken[taken.len() / 2], taken[taken.len() - 1]];
    Ok(Line::new("never-read")
        .whole("peers", o.connections as u64)
        .whole("still_open", ended(End::Open))
        .whole("finished_by_server", ended(End::Finished))
        .whole("reset_by_server", ended(End::Reset))
        .numbers("taken_mib_per_peer_least_median_most", &spread)
        .number("rss_before_mib", before as f64 / MIB)
        .number("rss_highest_mib", highest as f64 / MIB)
        .number("rss_after_mib", resident(pid)?.0 as f64 / MIB)
        .number("rss_highest_kib_per_peer", (highest - before) as f64 / 1024.0 / peers.len() as f64)
        .number("other_client_worst_ms", worst.as_secs_f64() * 1e3)
        .finish())
}

impl Peer {
    fn send(&mut self, o: &Options, streams: &Streams, number: usize) {
        while self.end == End::Open && self.taken < o.offer {
            match self.socket.write(streams.at(number, self.taken, o.offer - self.taken)) {
                Ok(n) => self.taken += n as u64,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.end = End::Reset,
            }
        }
    }

    /// The server has ended this connection, one way or the other.
    fn ended(&mut self) {
        if self.end == End::Open {
            let reset = matches!(self.socket.take_error(), Ok(Some(_)) | Err(_));
            self.end = if reset { End::Reset } else { End::Finished };
        }
    }
}

/// The client that behaves: an echo of 64 bytes every 20 ms, on a blocking socket and a thread of
/// its own, so that its latency is the server's and not that of the peers' loop.
fn behave(o: &Options) -> Result<(Receiver<Latency>, thread::JoinHandle<()>)> {
    let mut socket = connect(o, o.connections, Leave::Reset)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.set_write_timeout(Some(Duration::from_secs(10)))?;
    let (report, latencies): (Sender<Latency>, _) = channel();
    let thread = thread::spawn(move || {
        let mut answer = [0; 64];
        for turn in 0u8.. {
            let (begun, message) = (Instant::now(), [turn; 64]);
            let echoed = socket.write_all(&message).and_then(|()| socket.read_exact(&mut answer));
            let outcome = match echoed {
                Ok(()) if answer == message => Ok(begun.elapsed()),
                Ok(()) => Err("the other client got wrong bytes".to_string()),
                Err(e) => Err(format!("the other client was not served: {e}")),
            };
            let over = outcome.is_err();
            // The receiving end is dropped when the run is over.
            if report.send(outcome).is_err() || over {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    Ok((latencies, thread))
}

/// Prints one row; the slowest echo of the other client since the last one.
fn print_row(
    begun: Instant,
    open: usize,
    peers: &[Peer],
    resident: u64,
    latencies: &Receiver<Latency>,
) -> Result<Duration> {
    let mut recent = latencies.try_iter().collect::<std::result::Result<Vec<_>, _>>()?;
    recent.sort();
    let median = recent.get(recent.len() / 2).copied().unwrap_or_default();
    let slowest = recent.last().copied().unwrap_or_default();
    let taken: u64 = peers.iter().map(|p| p.taken).sum();
    println!(
        "{:>5.1} s {open:>5} {:>10.1} {:>15.1} {:>21} {:>10.2} {:>9.2}",
        begun.elapsed().as_secs_f64(),
        taken as f64 / MIB,
        resident as f64 / MIB,
        recent.len(),
        median.as_secs_f64() * 1e3,
        slowest.as_secs_f64() * 1e3,
    );
    Ok(slowest)
}
