//! An echo server on bare mio, as sparing as mio allows: the floor that lariat is measured against.
//!
//! Every socket is registered once, for reading and writing. One buffer of 256 KiB serves all
//! connections. A read that does not fill it has drained the socket, so there is no second read
//! that finds nothing. The answer is written straight from the read buffer; only what the kernel
//! does not take is kept. There are no limits, no deadlines and no counters.
//!
//! The bench `echo` and the peer `bare_mio` of `measure/` are both this file.

use std::io::{ErrorKind, Read, Result, Write};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);

struct Connection {
    socket: TcpStream,
    /// What could not be written yet. While it is not empty nothing is read.
    rest: Vec<u8>,
}

#[derive(PartialEq)]
enum State {
    Open,
    Over,
}

/// Serves for ever.
pub(crate) fn serve(mut listener: TcpListener) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections = Slab::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match poll.poll(&mut events, None) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, poll.registry(), &mut connections);
                continue;
            }
            let Some(connection) = connections.get_mut(event.token().0) else { continue };
            // A writable edge alone matters only to a connection that waits for it.
            if !event.is_readable() && connection.rest.is_empty() {
                continue;
            }
            let state = connection.serve(&mut buffer, event.is_read_closed());
            if !matches!(state, Ok(State::Open)) {
                connections.remove(event.token().0);
            }
        }
    }
}

/// Accepts until there is nobody left, or no descriptor: then those who wait are only looked at
/// again when one more arrives. A server for real use has to come back by itself.
fn accept(listener: &TcpListener, registry: &Registry, connections: &mut Slab<Connection>) {
    while let Ok((mut socket, _)) = listener.accept() {
        let _ = socket.set_nodelay(true);
        let place = connections.vacant_entry();
        let both = Interest::READABLE | Interest::WRITABLE;
        if registry.register(&mut socket, Token(place.key()), both).is_ok() {
            place.insert(Connection { socket, rest: Vec::new() });
        }
    }
}

impl Connection {
    fn serve(&mut self, buffer: &mut [u8], closing: bool) -> Result<State> {
        if !self.rest.is_empty() {
            let written = write(&mut self.socket, &self.rest)?;
            if written < self.rest.len() {
                self.rest.drain(..written);
                return Ok(State::Open);
            }
            // Gives the memory back as well: an idle connection keeps no buffer.
            self.rest = Vec::new();
        }
        loop {
            let n = match self.socket.read(buffer) {
                Ok(0) => return Ok(State::Over),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(State::Open),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let written = write(&mut self.socket, &buffer[..n])?;
            if written < n {
                self.rest.extend_from_slice(&buffer[written..n]);
                return Ok(State::Open);
            }
            // With the end of the stream in the same event, a short read must not be the last.
            if n < buffer.len() && !closing {
                return Ok(State::Open);
            }
        }
    }
}

/// How many bytes the kernel took before it would have blocked.
fn write(socket: &mut TcpStream, bytes: &[u8]) -> Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match socket.write(&bytes[written..]) {
            Ok(n) => written += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(written)
}
