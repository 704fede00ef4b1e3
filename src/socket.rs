//! Sockets of the operating system: options, calls that std lacks, and what errors mean.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::endpoint::Endpoint;
use crate::protocol::{ListenOptions, SocketInfo};

impl SocketInfo for TcpStream {
    fn local_addr(&self) -> io::Result<Endpoint> {
        TcpStream::local_addr(self).map(Endpoint::from)
    }
}

/// A listening, nonblocking TCP socket.
///
/// TCP_NODELAY is set here once: accepted sockets inherit it, which saves a call for each.
pub(crate) fn listen(addr: Endpoint, options: &ListenOptions) -> io::Result<TcpListener> {
    let addr = addr.need_ip()?;
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(options.v6_only)?;
    }
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_tcp_nodelay(options.nodelay)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Sends several slices with one call. `write_vectored` of std is `writev`, which raises SIGPIPE.
pub(crate) fn send_vectored(socket: &impl AsFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    SockRef::from(socket).send_vectored_with_flags(slices, NO_SIGNAL)
}

#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: i32 = libc::MSG_NOSIGNAL;
/// Apple's systems have a socket option instead, which std sets on every socket.
#[cfg(target_vendor = "apple")]
const NO_SIGNAL: i32 = 0;

/// Makes the close of `socket` a reset. Where that fails it is an ordinary close.
pub(crate) fn reset_on_close(socket: &impl AsFd) {
    if let Err(error) = SockRef::from(socket).set_linger(Some(Duration::ZERO)) {
        log::debug!(target: "lariat::socket", "cannot make a close a reset: {error}");
    }
}

/// Repeats a call that a signal interrupted.
#[inline(always)]
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// What a failed accept means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptError {
    /// Nobody waits.
    Empty,
    /// It concerns the newcomer alone: the next may be fine.
    Next,
    /// No descriptor or no memory: the next would fail as well.
    Exhausted,
    /// The socket does not listen, or no longer: the next would fail as well.
    Broken,
}

impl AcceptError {
    /// accept(2): errors already pending on the new connection are handed over as errors of accept.
    /// Only a lack of resources, and a socket that cannot listen, concern the listener; no error
    /// ends the driver.
    pub(crate) fn of(error: &io::Error) -> AcceptError {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                AcceptError::Exhausted
            }
            Some(libc::EINVAL | libc::EBADF | libc::ENOTSOCK | libc::EOPNOTSUPP) => {
                AcceptError::Broken
            }
            _ if error.kind() == io::ErrorKind::WouldBlock => AcceptError::Empty,
            _ => AcceptError::Next,
        }
    }
}

/// Accepts that may fail in any second. A released descriptor ends the back-off at once as long as
/// few have failed; then no sooner than the gap after the last, so that those that are left last
/// for the whole second: descriptors come and go.
const FAILURES_MAX: usize = 20;
const FEW: usize = 5;
const GAP: u64 = 60 * MILLISECOND;
const SECOND: u64 = 1000 * MILLISECOND;
const MILLISECOND: u64 = 1_000_000;

/// When accepts of a driver have lately failed for lack of a descriptor, in nanoseconds of its
/// clock.
#[derive(Debug, Default)]
pub(crate) struct Failures(VecDeque<u64>);

impl Failures {
    /// One has failed, or may do so now.
    pub(crate) fn note(&mut self, now: u64) {
        if self.0.len() == FAILURES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }

    /// The one noted at `noted` has not failed then.
    pub(crate) fn forget(&mut self, noted: u64) {
        if let Some(at) = self.0.iter().position(|at| *at == noted) {
            self.0.remove(at);
        }
    }

    /// When the next may fail.
    pub(crate) fn next(&self, now: u64) -> u64 {
        let recent = self.0.iter().filter(|at| at.saturating_add(SECOND) > now).count();
        match (self.0.front(), self.0.back()) {
            (Some(oldest), _) if recent == FAILURES_MAX => oldest.saturating_add(SECOND),
            (_, Some(last)) if recent >= FEW => last.saturating_add(GAP),
            _ => 0,
        }
    }
}

/// A descriptor kept so that a newcomer can be turned away when none is left.
#[derive(Debug)]
pub(crate) struct Reserve(Option<File>);

impl Reserve {
    pub(crate) fn new() -> Reserve {
        Reserve(open_reserve())
    }

    /// Gives the descriptor up, for the next call that needs one.
    pub(crate) fn free(&mut self) {
        self.0 = None;
    }

    /// Takes a descriptor back; false when there is none.
    pub(crate) fn restore(&mut self) -> bool {
        if self.0.is_none() {
            self.0 = open_reserve();
        }
        self.0.is_some()
    }
}

fn open_reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn a1_a2_a3_each_accept_error_is_of_its_kind() {
        let of = |errno| AcceptError::of(&io::Error::from_raw_os_error(errno));
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            assert_eq!(of(errno), AcceptError::Exhausted);
        }
        assert_eq!(of(libc::EAGAIN), AcceptError::Empty);
        assert_eq!(of(libc::EINVAL), AcceptError::Broken);
        let newcomers = [
            libc::ECONNABORTED,
            libc::EPROTO,
            libc::ENETDOWN,
            libc::EHOSTUNREACH,
            libc::EPERM,
            libc::ETIMEDOUT,
        ];
        for errno in newcomers {
            assert_eq!(of(errno), AcceptError::Next);
        }
    }

    #[test]
    fn a1_at_most_20_accepts_may_fail_in_any_second() {
        let mut failures = Failures::default();
        let mut noted = Vec::new();
        for now in (0..5 * SECOND).step_by(MILLISECOND as usize) {
            if failures.next(now) <= now {
                failures.note(now);
                noted.push(now);
            }
        }
        for (at, first) in noted.iter().enumerate() {
            let second = noted[at..].iter().take_while(|at| **at < first + SECOND).count();
            assert!(second <= FAILURES_MAX, "{second} within a second");
        }
        // Nor are there much fewer: whoever waits is not left to wait.
        assert!(noted.len() >= 80, "{}", noted.len());
    }

    #[test]
    fn a1_an_attempt_that_is_noted_anew_counts_once() {
        let mut failures = Failures::default();
        for now in 0..FEW as u64 - 1 {
            failures.note(now);
        }
        for now in 100..200 {
            failures.forget(now - 1);
            failures.note(now);
            assert_eq!(failures.next(now), now + GAP);
        }
        assert_eq!(failures.0.len(), FEW);
    }

    #[test]
    fn accepted_sockets_inherit_nodelay() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = listen(addr.into(), &ListenOptions::default()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
    }

    #[test]
    fn retry_hides_interruptions_and_nothing_else() {
        let mut left = 3;
        let result = retry(|| {
            left -= 1;
            if left > 0 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(7) }
        });
        assert_eq!(result.unwrap(), 7);
        let blocked: io::Result<()> = retry(|| Err(io::ErrorKind::WouldBlock.into()));
        assert_eq!(blocked.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
