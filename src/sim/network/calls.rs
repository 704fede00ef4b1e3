//! The calls of a driver's sockets, and their faults.

use std::io;

use super::wire::take;
use super::{Event, Network, Progress, Segment};
use crate::clock::nanos;
use crate::connection::Flags;
use crate::id::ConnId;
use crate::sim::choices::Kind;
use crate::sim::faults::Call;

impl Network {
    pub(in crate::sim) fn register(&mut self, end: usize, token: ConnId) -> io::Result<()> {
        self.fault(Call::Register, Some(end))?;
        self.endpoints[end].token = Some(token);
        // As the kernel does: an event reports what is ready at the registration.
        let endpoint = &self.endpoints[end];
        let mut flags = Flags::NONE;
        if endpoint.progress == Progress::Open {
            flags.set(Flags::WRITABLE);
        }
        if !endpoint.arrived.is_empty() {
            flags.set(Flags::READABLE);
        }
        if endpoint.fin_arrived || endpoint.error.is_some() {
            flags.set(Flags::READABLE | Flags::HUNG);
        }
        if endpoint.fin_arrived && endpoint.error.is_none() {
            flags.set(Flags::FIN_TOLD);
        }
        if endpoint.error.is_some() {
            flags.set(Flags::FAULTY);
        }
        if flags != Flags::NONE {
            self.tell(end, flags);
        }
        Ok(())
    }

    pub(in crate::sim) fn read(&mut self, end: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let bound = self.fault(Call::Read, Some(end))?;
        let available = self.endpoints[end].arrived.len().min(buffer.len());
        if available == 0 {
            return self.read_end(end);
        }
        let mut count = available;
        if let Some(less) = self.roll(Some(end), Kind::ShortReads, available as u64 - 1) {
            count = 1 + less as usize;
        }
        count = count.min(bound.unwrap_or(usize::MAX)).max(1);
        if count < available && count < buffer.len() {
            // To the driver a short read means that nothing follows: the rest arrives later.
            let at = self.now + 1 + self.delay(Some(end));
            self.events.arm(at, Event::Ready(end, Flags::READABLE));
        }
        buffer[..count].copy_from_slice(&take(&mut self.endpoints[end].arrived, count));
        self.open_window(end);
        Ok(count)
    }

    fn read_end(&mut self, end: usize) -> io::Result<usize> {
        let endpoint = &mut self.endpoints[end];
        if let Some(errno) = endpoint.error.take() {
            endpoint.reset_seen = true;
            return Err(io::Error::from_raw_os_error(errno));
        }
        if endpoint.fin_arrived || endpoint.reset_seen {
            return Ok(0);
        }
        if endpoint.progress != Progress::Open {
            return Err(io::ErrorKind::NotConnected.into());
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Space has become free at `end`: its writer goes on.
    pub(super) fn open_window(&mut self, end: usize) {
        let Some(other) = self.endpoints[end].other else { return };
        if self.endpoints[other].write_blocked {
            let at = self.now + nanos(self.endpoints[end].link.latency) + self.delay(Some(end));
            self.events.arm(at, Event::Ready(other, Flags::WRITABLE));
        }
        self.send_raw(other);
    }

    pub(super) fn window(&self, end: usize) -> usize {
        let Some(other) = self.endpoints[end].other else { return 0 };
        let other = &self.endpoints[other];
        other.link.window.saturating_sub(other.under_way_bytes + other.arrived.len())
    }

    pub(in crate::sim) fn write(&mut self, end: usize, bytes: &[&[u8]]) -> io::Result<usize> {
        let bound = self.fault(Call::Write, Some(end))?;
        let endpoint = &mut self.endpoints[end];
        if let Some(errno) = endpoint.error.take() {
            endpoint.reset_seen = true;
            return Err(io::Error::from_raw_os_error(errno));
        }
        let ended = endpoint.fin_sent || endpoint.reset_seen;
        let open = endpoint.progress == Progress::Open;
        if ended || !open || self.is_deserted(end) {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        }
        let wanted: usize = bytes.iter().map(|slice| slice.len()).sum();
        if wanted == 0 {
            return Ok(0);
        }
        let mut count = wanted.min(self.window(end));
        let less = (count as u64).saturating_sub(1);
        if let Some(less) = self.roll(Some(end), Kind::ShortWrites, less) {
            count = 1 + less as usize;
        }
        count = count.min(bound.unwrap_or(usize::MAX));
        if count < wanted {
            self.endpoints[end].write_blocked = true;
            if self.window(end) > count {
                // No reader will make room: the network makes some by itself, a little later.
                let at = self.now + 1 + self.delay(Some(end));
                self.events.arm(at, Event::Ready(end, Flags::WRITABLE));
            }
        }
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut whole = bytes.concat();
        whole.truncate(count);
        self.send(end, whole);
        Ok(count)
    }

    pub(in crate::sim) fn shutdown_write(&mut self, end: usize) {
        let endpoint = &mut self.endpoints[end];
        if !endpoint.fin_sent && endpoint.progress == Progress::Open {
            endpoint.fin_sent = true;
            self.transmit(end, Segment::Fin);
        }
    }

    pub(in crate::sim) fn take_error(&mut self, end: usize) -> Option<io::Error> {
        if self.is_deserted(end) {
            return Some(io::Error::from_raw_os_error(libc::EPIPE));
        }
        let endpoint = &mut self.endpoints[end];
        let errno = endpoint.error.take()?;
        endpoint.reset_seen = true;
        Some(io::Error::from_raw_os_error(errno))
    }

    /// Whether nobody reads any more what this end of a pipe writes.
    fn is_deserted(&self, end: usize) -> bool {
        let other = self.endpoints[end].other.map(|other| &self.endpoints[other]);
        other.is_some_and(|other| other.no_socket && other.closed)
    }

    pub(in crate::sim) fn check_connected(&self, end: usize) -> io::Result<()> {
        match self.endpoints[end].progress {
            Progress::Open => Ok(()),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub(in crate::sim) fn reset_on_close(&mut self, end: usize) {
        self.endpoints[end].reset_on_close = true;
    }

    /// Closes an end, as dropping a socket does: a FIN, or a reset when input is unread.
    pub(in crate::sim) fn close(&mut self, end: usize) {
        let endpoint = &mut self.endpoints[end];
        if endpoint.closed {
            return;
        }
        endpoint.closed = true;
        endpoint.token = None;
        self.uncount(end);
        let endpoint = &mut self.endpoints[end];
        let broken = endpoint.reset_seen || endpoint.error.is_some();
        if endpoint.progress != Progress::Open || broken {
            return;
        }
        let no_socket = endpoint.no_socket;
        let unread = !endpoint.arrived.is_empty() && !no_socket;
        endpoint.arrived.clear();
        // A Unix socket has no reset but for what was never read.
        let resets = endpoint.reset_on_close && endpoint.local.unix().is_none() && !no_socket;
        if resets || unread {
            self.transmit(end, Segment::Reset);
        } else if let Some(raw) = &mut endpoint.raw {
            // What the test has sent still leaves, as from a kernel's buffer.
            raw.finish = true;
            self.send_raw(end);
        } else {
            self.shutdown_write(end);
        }
        if let (true, Some(other)) = (no_socket, self.endpoints[end].other) {
            self.tell(other, Flags::FAULTY);
        }
    }
}
