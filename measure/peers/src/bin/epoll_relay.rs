//! A relay written by hand on epoll: `epoll_relay PORT TARGET` listens on 127.0.0.1:PORT and relays
//! each client to TARGET, as the example `proxy` does. It has one read buffer, edge-triggered
//! readiness, one read and one write per message and direction, back-pressure and half-close; it
//! has no deadlines, no limits and no summary.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use slab::Slab;

#[path = "../listen.rs"]
mod listen;

/// As large as lariat's.
const BUFFER: usize = 256 * 1024;
const LISTENER: u64 = u64::MAX;

/// One direction.
#[derive(Default)]
struct Way {
    /// Bytes that the other socket has not taken; nothing is read meanwhile.
    left: Vec<u8>,
    readable: bool,
    finished: bool,
}

/// A client and its target, by index; `ways[0]` is what the client sends.
struct Pair {
    ends: [TcpStream; 2],
    ways: [Way; 2],
}

impl Pair {
    /// Moves what can be moved from one end to the other. Err: the pair is over.
    fn pump(&mut self, from: usize, buffer: &mut [u8]) -> std::io::Result<()> {
        let Pair { ends, ways } = self;
        let (mut source, mut sink) = (&ends[from], &ends[1 - from]);
        let way = &mut ways[from];
        if !way.left.is_empty() {
            let sent = send(&mut sink, &way.left)?;
            way.left.drain(..sent);
        }
        while way.readable && way.left.is_empty() && !way.finished {
            let count = match source.read(buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if count == 0 {
                // An edge without bytes is a FIN, or nothing: look again only at the next edge.
                way.readable = false;
                if ended(source) {
                    way.finished = true;
                    let _ = sink.shutdown(Shutdown::Write);
                }
                break;
            }
            // A short read has emptied the socket: the next bytes are another edge.
            way.readable = count == buffer.len();
            let sent = send(&mut sink, &buffer[..count])?;
            way.left.extend_from_slice(&buffer[sent..count]);
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.ways.iter().all(|way| way.finished && way.left.is_empty())
    }
}

/// Whether a socket that gave no byte has given its FIN.
fn ended(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]), Ok(0))
}

/// What the socket takes at once.
fn send(sink: &mut &TcpStream, bytes: &[u8]) -> std::io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match sink.write(&bytes[done..]) {
            Ok(count) => {
                done += count;
                if done < bytes.len() {
                    // Full, as good as certain: its next edge says when there is room.
                    continue;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn accept(
    listener: &TcpListener,
    target: SocketAddr,
    poll: &std::os::fd::OwnedFd,
    pairs: &mut Slab<Pair>,
) -> Result<(), Box<dyn Error>> {
    while let Ok((client, _)) = listener.accept() {
        // On the loopback interface a connect is over at once.
        let ends = [client, TcpStream::connect(target)?];
        let entry = pairs.vacant_entry();
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        for (side, end) in (0..).zip(&ends) {
            end.set_nonblocking(true)?;
            end.set_nodelay(true)?;
            epoll::add(poll, end, EventData::new_u64(entry.key() as u64 * 2 + side), interest)?;
        }
        entry.insert(Pair { ends, ways: Default::default() });
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [port, target] = &words[..] else { return Err("usage: epoll_relay PORT TARGET".into()) };
    let target: SocketAddr = target.parse()?;
    let socket = listen::on(port.parse()?)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from(socket);
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    let edge = EventFlags::IN | EventFlags::ET;
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), edge)?;
    let mut pairs: Slab<Pair> = Slab::new();
    let mut buffer = vec![0; BUFFER];
    let mut events = Vec::with_capacity(1024);
    loop {
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in events.drain(..) {
            let (key, flags) = (event.data.u64(), event.flags);
            if key == LISTENER {
                accept(&listener, target, &poll, &mut pairs)?;
                continue;
            }
            let (at, side) = (key as usize / 2, key as usize % 2);
            let Some(pair) = pairs.get_mut(at) else { continue };
            let broken = EventFlags::ERR | EventFlags::HUP | EventFlags::RDHUP;
            if flags.intersects(EventFlags::IN | broken) {
                pair.ways[side].readable = true;
            }
            let mut result = pair.pump(side, &mut buffer);
            if result.is_ok()
                && flags.contains(EventFlags::OUT)
                && !pair.ways[1 - side].left.is_empty()
            {
                result = pair.pump(1 - side, &mut buffer);
            }
            if result.is_err() || pair.is_over() {
                pairs.remove(at);
            }
        }
    }
}
