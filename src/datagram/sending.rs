//! Datagrams on their way to the system: at once, or from the queue once there is room.
//!
//! UDP has no room when the system's own buffer is full: nothing leaves then, and an event tells
//! when there is room. A Unix socket has none when its receiver's queue is full. Then those to
//! other receivers do not wait, and no event tells when there is room: what waits is tried again,
//! ever more seldom.

use std::collections::BTreeSet;
use std::io;
use std::mem;

use super::socket::{is_no_room, is_out_of_buffers, is_refusal, is_surely_refusal};
use super::train::Train;
use super::{DatagramOptions, DatagramSocket, Phase, State};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::metrics::Metrics;

/// The most that an IPv4 datagram can carry; 20 bytes more on IPv6, whose length leaves out the
/// header.
const PAYLOAD_MAX_V4: usize = 65_507;
const PAYLOAD_MAX_V6: usize = 65_527;
/// Tries of one datagram. Each but the last may report what became of an earlier datagram: an error
/// that comes every time is this one's own, unless no datagram can have it.
const TRIES: u64 = 3;
/// The time to the next try where no event tells of room: from the first to the second, doubling.
const RETRY_FIRST: u64 = 1_000_000;
const RETRY_MAX: u64 = 100_000_000;

/// When datagrams are tried again of which no event tells.
#[derive(Debug)]
pub(super) struct Retry {
    at: u64,
    delay: u64,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { at: u64::MAX, delay: RETRY_FIRST }
    }
}

impl Retry {
    /// `u64::MAX` for never.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// There was no room.
    fn arm(&mut self, now: u64) {
        if self.at == u64::MAX {
            self.at = now.saturating_add(self.delay);
            self.delay = (self.delay * 2).min(RETRY_MAX);
        }
    }
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Taken,
    NoRoom,
    /// Nobody is there to receive it.
    Refused,
}

impl State {
    /// Sends a datagram, or lets it wait where the system has no room.
    pub(crate) fn send(
        &mut self,
        socket: &dyn DatagramSocket,
        metrics: &mut Metrics,
        bytes: &[u8],
        to: Option<&Endpoint>,
        now: u64,
    ) -> Result<()> {
        if self.phase >= Phase::Closing || self.close_wanted || self.abort_wanted {
            self.refused_bytes += bytes.len() as u64;
            metrics.refused_bytes += bytes.len() as u64;
            let error = Error::new(ErrorKind::InvalidSocket, Op::Send);
            return Err(error.with_detail("the socket is closed"));
        }
        let most = match to.or(self.options.connect.as_ref()) {
            _ if socket.is_unix() => usize::MAX,
            Some(Endpoint::Ip(addr)) if addr.is_ipv6() => PAYLOAD_MAX_V6,
            _ => PAYLOAD_MAX_V4,
        };
        if bytes.len() > most {
            return Err(addressed(Error::new(ErrorKind::TooLarge, Op::Send), to));
        }
        let segments_max = socket.segments_max();
        if self.train.take(bytes, to, segments_max) {
            return Ok(());
        }
        self.send_train(socket, metrics, now);
        let waits = if socket.is_unix() { self.queue.has_for(to) } else { self.is_congested() };
        if !waits {
            match self.try_send(socket, metrics, bytes, to, now) {
                Ok(Sent::Taken) if segments_max > 1 => {
                    self.train.begin(bytes.len(), to);
                    return Ok(());
                }
                Ok(Sent::Taken | Sent::Refused) => return Ok(()),
                Ok(Sent::NoRoom) => {}
                Err(error) => return Err(addressed(Error::from_io(Op::Send, error), to)),
            }
        }
        self.wait(metrics, bytes, to);
        Ok(())
    }

    /// Lets a datagram wait in the queue.
    fn wait(&mut self, metrics: &mut Metrics, bytes: &[u8], to: Option<&Endpoint>) {
        let DatagramOptions { output_max, drop_policy, .. } = *self.options;
        let dropped = self.queue.push(bytes, to, output_max, drop_policy);
        self.note_dropped(dropped, metrics);
    }

    /// Sends those that follow another. The call that sent each of them has returned `Ok`: where
    /// the system does not take them together, each is tried alone, and dropped if it cannot be
    /// sent.
    pub(crate) fn send_train(
        &mut self,
        socket: &dyn DatagramSocket,
        metrics: &mut Metrics,
        now: u64,
    ) {
        if self.train.is_empty() {
            self.train.clear();
            return;
        }
        let mut train = mem::take(&mut self.train);
        let mut alone = true;
        if train.count > 1 {
            alone = self.send_together(socket, metrics, &train, now);
        }
        let to = train.to();
        for bytes in train.bytes().chunks(train.size()).filter(|_| alone) {
            if self.queue.is_empty() && self.writable {
                match self.try_send(socket, metrics, bytes, to, now) {
                    Ok(Sent::Taken | Sent::Refused) => continue,
                    Ok(Sent::NoRoom) => {}
                    Err(error) => {
                        self.note_lost(&error, metrics);
                        continue;
                    }
                }
            }
            self.wait(metrics, bytes, to);
        }
        train.clear();
        self.train = train;
    }

    /// Sends a train with one call. True: they have to be sent one by one.
    fn send_together(
        &mut self,
        socket: &dyn DatagramSocket,
        metrics: &mut Metrics,
        train: &Train,
        now: u64,
    ) -> bool {
        let mut sure = 0;
        for earlier in 0..TRIES {
            metrics.writes += 1;
            match socket.send_many(train.bytes(), train.size(), train.to()) {
                Ok(()) => {
                    let count = train.bytes().len() as u64;
                    metrics.datagrams_out += train.count as u64;
                    metrics.bytes_out += count;
                    self.bytes_out += count;
                    self.active = now;
                    self.note_refused(earlier, None, metrics);
                    return false;
                }
                Err(error) if is_no_room(&error) => {
                    self.note_no_room(socket, &error, now);
                    self.note_refused(earlier, None, metrics);
                    return true;
                }
                Err(error) if self.options.connect.is_some() && is_refusal(&error) => {
                    sure += u64::from(is_surely_refusal(&error));
                }
                Err(error) => {
                    log::debug!(target: "lariat::datagram", "{}: not together: {error}", self.id());
                    self.note_refused(earlier, None, metrics);
                    return true;
                }
            }
        }
        self.note_refused(sure, None, metrics);
        true
    }

    fn note_no_room(&mut self, socket: &dyn DatagramSocket, error: &io::Error, now: u64) {
        self.writable = false;
        if socket.is_unix() || is_out_of_buffers(error) {
            self.retry.arm(now);
        }
    }

    /// A datagram cannot be sent that waited.
    fn note_lost(&mut self, error: &io::Error, metrics: &mut Metrics) {
        log::debug!(target: "lariat::datagram", "{}: not sent: {error}", self.id());
        self.note_dropped(1, metrics);
    }

    /// A report about an earlier datagram is noted, and this datagram is tried again: else it would
    /// be lost without an error.
    fn try_send(
        &mut self,
        socket: &dyn DatagramSocket,
        metrics: &mut Metrics,
        bytes: &[u8],
        to: Option<&Endpoint>,
        now: u64,
    ) -> io::Result<Sent> {
        let mut sure = 0;
        for earlier in 0..TRIES {
            metrics.writes += 1;
            let error = match socket.send(bytes, to) {
                Ok(()) => {
                    metrics.datagrams_out += 1;
                    metrics.bytes_out += bytes.len() as u64;
                    self.bytes_out += bytes.len() as u64;
                    self.active = now;
                    self.note_refused(earlier, None, metrics);
                    return Ok(Sent::Taken);
                }
                Err(error) if is_no_room(&error) => {
                    self.note_no_room(socket, &error, now);
                    self.note_refused(earlier, None, metrics);
                    return Ok(Sent::NoRoom);
                }
                Err(error) => error,
            };
            let is_sure = is_surely_refusal(&error);
            if socket.is_unix() && is_sure {
                self.note_refused(1, to, metrics);
                return Ok(Sent::Refused);
            }
            if self.options.connect.is_none() || socket.is_unix() || !is_refusal(&error) {
                return Err(error);
            }
            sure += u64::from(is_sure);
            // Of no other errors is it known that this datagram was not the cause.
            if earlier + 1 == TRIES {
                self.note_refused(sure, None, metrics);
                return Err(error);
            }
        }
        Ok(Sent::Taken)
    }

    /// Sends what waits, as many as a turn may.
    pub(crate) fn flush(&mut self, socket: &dyn DatagramSocket, metrics: &mut Metrics, now: u64) {
        self.send_train(socket, metrics, now);
        if !self.has_output_to_move() {
            return;
        }
        // Where it is time to try again, this is that try.
        self.handle_retry(now);
        let (mut at, mut tries) = (0, self.options.datagrams_max);
        // Receivers without room: for each of them one is tried.
        let mut full = BTreeSet::new();
        while tries > 0 {
            let Some(to) = self.queue.receiver(at) else { break };
            if full.contains(&to) {
                at += 1;
                continue;
            }
            let bytes = self.queue.lend(at);
            let sent = self.try_send(socket, metrics, &bytes, to.as_ref(), now);
            self.queue.give_back(at, bytes);
            match sent {
                Ok(Sent::NoRoom) if socket.is_unix() && to.is_some() => {
                    full.insert(to);
                    at += 1;
                    continue;
                }
                Ok(Sent::NoRoom) => break,
                Ok(Sent::Taken) => self.retry.delay = RETRY_FIRST,
                Ok(Sent::Refused) => {}
                Err(error) => self.note_lost(&error, metrics),
            }
            self.queue.remove(at);
            tries -= 1;
        }
        // Where the turn had no more tries, the next one goes on.
        self.writable = tries == 0;
        if self.queue.is_empty() {
            self.retry = Retry::default();
            self.writable = true;
            self.drained_due = true;
        }
    }

    /// Looks whether it is time to try again what waits, and to receive again.
    pub(crate) fn handle_retry(&mut self, now: u64) {
        if let Some(lack) = &mut self.lack {
            lack.resume(now);
        }
        if self.retry.at <= now {
            self.retry.at = u64::MAX;
            self.writable = true;
        }
    }
}

fn addressed(error: Error, to: Option<&Endpoint>) -> Error {
    match to {
        Some(to) => error.with_addr(to).at_path(to.unix().is_some()),
        None => error,
    }
}
