//! One connection that sends its stream and checks what comes back.
use crate::Result;
use crate::options::{Options, Replies};
use crate::stream::{LONGEST, Streams};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Poll, Token};
use socket2::{Domain, Socket, Type};
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// How a connection leaves when it is dropped.
#[derive(Clone, Copy, PartialEq)]
pub enum Leave {
    /// By RST: thousands of them leave no ports behind that wait a minute.
    Reset,
    /// By FIN, as real clients do.
    Finish,
}

/// Connects, one after the other: the kernel completes a connection as long as the server's backlog
/// has room, so this needs no readiness.
pub fn connect(o: &Options, number: usize, leave: Leave) -> Result<std::net::TcpStream> {
    let dial = || -> std::io::Result<std::net::TcpStream> {
        let socket = Socket::new(Domain::for_address(o.addr), Type::STREAM, None)?;
        if o.sources > 1 && o.addr.is_ipv4() {
            let last = 1 + (number % o.sources) as u8;
            socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into())?;
        }
        socket.connect_timeout(&o.addr.into(), Duration::from_secs(5))?;
        socket.set_tcp_nodelay(true)?;
        if leave == Leave::Reset {
            socket.set_linger(Some(Duration::ZERO))?;
        }
        Ok(socket.into())
    };
    dial().map_err(|e| format!("connection {number} to {}: {e}", o.addr).into())
}

pub struct Client {
    socket: TcpStream,
    number: usize,
    replies: Replies,
    /// Bytes of the stream that may be sent by now.
    pub goal: u64,
    pub sent: u64,
    pub received: u64,
    pub ended: bool,
}

impl Client {
    pub fn open(poll: &Poll, o: &Options, number: usize, leave: Leave) -> Result<Client> {
        let socket = connect(o, number, leave)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut socket, Token(number), both)?;
        Ok(Client {
            socket,
            number,
            replies: o.replies,
            goal: 0,
            sent: 0,
            received: 0,
            ended: false,
        })
    }

    /// All that may be sent has been sent and has come back.
    pub fn settled(&self) -> bool {
        self.received == self.goal
    }

    /// Sends up to the goal, or until it would block.
    pub fn send(&mut self, streams: &Streams) -> std::io::Result<()> {
        while self.sent < self.goal {
            let bytes = streams.at(self.number, self.sent, self.goal - self.sent);
            match self.socket.write(bytes) {
                Ok(n) => self.sent += n as u64,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reads what is there and checks it; how many bytes came. `closing` says that the peer may
    /// have finished: then a short read is not taken for "nothing more".
    pub fn receive(
        &mut self,
        streams: &Streams,
        buffer: &mut [u8],
        closing: bool,
    ) -> std::io::Result<u64> {
        let before = self.received;
        let room = buffer.len().min(LONGEST);
        loop {
            let n = match self.socket.read(&mut buffer[..room]) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            self.check(streams, &buffer[..n])?;
            self.received += n as u64;
            if n < room && !closing {
                break;
            }
        }
        Ok(self.received - before)
    }

    /// Receives as one event asks for it.
    pub fn receive_event(
        &mut self,
        event: &Event,
        streams: &Streams,
        buffer: &mut [u8],
    ) -> std::io::Result<u64> {
        let closing = event.is_read_closed() || event.is_error();
        if event.is_readable() || closing { self.receive(streams, buffer, closing) } else { Ok(0) }
    }

    fn check(&self, streams: &Streams, got: &[u8]) -> std::io::Result<()> {
        if self.received + got.len() as u64 > self.sent {
            return Err(self.wrong("more bytes came back than were sent"));
        }
        let good = match self.replies {
            Replies::Echo => got == streams.at(self.number, self.received, got.len() as u64),
            Replies::Own => got.iter().all(|&b| b == b'o'),
        };
        if good { Ok(()) } else { Err(self.wrong("a byte differs from what was sent")) }
    }

    fn wrong(&self, what: &str) -> Error {
        Error::other(format!("connection {}, after {} bytes: {what}", self.number, self.received))
    }
}

/// Opens the connections from number `from` on.
pub fn open_all(
    poll: &Poll,
    o: &Options,
    from: usize,
    leave: Leave,
    deadline: Instant,
) -> Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(o.connections);
    for number in from..from + o.connections {
        if Instant::now() > deadline {
            return Err(format!("only {number} connections were open within --limit").into());
        }
        clients.push(Client::open(poll, o, number, leave)?);
    }
    Ok(clients)
}
