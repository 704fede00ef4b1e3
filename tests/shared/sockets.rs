//! Clients that are sockets of std, and the bytes they send.

#![allow(dead_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::patience::PATIENCE;

pub(crate) const KIB: usize = 1024;
pub(crate) const MIB: usize = 1024 * KIB;

pub(crate) fn client(addr: impl ToSocketAddrs) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One exchange over a blocking socket.
#[track_caller]
pub(crate) fn echo_once(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == bytes, "the echo differs");
}

/// Reads until the end of the stream or an error, which it returns.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    let mut all = Vec::new();
    let error = stream.read_to_end(&mut all).err();
    (all, error.map(|error| error.kind()))
}

/// Ends a connection with a reset.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Writes until the socket takes no more for now; returns how much it took.
pub(crate) fn fill(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    stream.set_nonblocking(true).unwrap();
    let mut taken = 0;
    while let Ok(count) = stream.write(bytes) {
        taken += count;
    }
    stream.set_nonblocking(false).unwrap();
    taken
}

/// An address at which nobody listens, and for as long as this lives nobody will.
pub(crate) struct Deserted(Socket);

impl Deserted {
    pub(crate) fn new() -> Deserted {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        Deserted(socket)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }
}

/// The endless stream that the tests send. Its period is a prime, so that a lost, repeated or
/// exchanged block shows.
pub(crate) struct Pattern(Vec<u8>);

const PERIOD: usize = 65_521;

impl Pattern {
    pub(crate) fn new() -> Pattern {
        let mut state = 0x9e37_79b9_u32;
        let mut period = Vec::with_capacity(PERIOD);
        for _ in 0..PERIOD {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            period.push((state >> 24) as u8);
        }
        let mut twice = period.clone();
        twice.extend_from_slice(&period);
        Pattern(twice)
    }

    /// At most `most` bytes from `at` on.
    pub(crate) fn piece(&self, at: usize, most: usize) -> &[u8] {
        let from = at % PERIOD;
        &self.0[from..from + most.min(PERIOD)]
    }

    #[track_caller]
    pub(crate) fn check(&self, at: usize, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let piece = self.piece(at + done, bytes.len() - done);
            assert!(bytes[done..done + piece.len()] == *piece, "wrong bytes after {}", at + done);
            done += piece.len();
        }
    }
}

/// The first `count` bytes of the stream.
pub(crate) fn pattern(count: usize) -> Vec<u8> {
    Pattern::new().0[..PERIOD].iter().copied().cycle().take(count).collect()
}
