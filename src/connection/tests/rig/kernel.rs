//! A made-up socket.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

/// The socket, and everything beyond it.
#[derive(Debug, Default)]
pub(in super::super) struct Kernel {
    pub(in super::super) arrived: VecDeque<u8>,
    pub(in super::super) fin: bool,
    /// A reset waits behind what has arrived.
    pub(in super::super) reset: bool,
    pub(super) reset_seen: bool,
    /// Bytes that it takes before a write blocks.
    pub(in super::super) room: usize,
    pub(in super::super) sent: Vec<u8>,
    pub(in super::super) fin_sent: bool,
    pub(in super::super) closed: bool,
}

impl Kernel {
    pub(super) fn read(&mut self, most: usize) -> io::Result<Vec<u8>> {
        assert!(!self.closed, "read from a socket that is closed");
        let count = most.min(self.arrived.len());
        if count > 0 {
            return Ok(self.arrived.drain(..count).collect());
        }
        if std::mem::take(&mut self.reset) {
            self.reset_seen = true;
            return Err(ErrorKind::ConnectionReset.into());
        }
        if self.fin || self.reset_seen { Ok(Vec::new()) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!self.closed, "wrote to a socket that is closed");
        assert!(!self.fin_sent, "{} bytes were sent after FIN", bytes.len());
        assert!(!bytes.is_empty(), "a write of nothing");
        if self.reset || self.reset_seen {
            self.reset = false;
            self.reset_seen = true;
            return Err(ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(self.room);
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.room -= count;
        self.sent.extend(&bytes[..count]);
        Ok(count)
    }

    pub(super) fn take_error(&mut self) -> Option<io::Error> {
        std::mem::take(&mut self.reset).then(|| {
            self.reset_seen = true;
            ErrorKind::ConnectionReset.into()
        })
    }
}
