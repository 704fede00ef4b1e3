//! A thread that waits for a socket without sleeping in it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::retry;

const SOCKET: Token = Token(0);
const WAKE: Token = Token(1);

/// Where a thread waits for a nonblocking socket. It has two descriptors of its own, and nothing of
/// it is seen by others that have the socket.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Locked while a thread waits.
    wait: Mutex<(Poll, Events)>,
    waker: Waker,
}

impl Waiting {
    pub(super) fn new(socket: BorrowedFd<'_>) -> io::Result<Waiting> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let source = &mut SourceFd(&socket.as_raw_fd());
        poll.registry().register(source, SOCKET, Interest::READABLE)?;
        Ok(Waiting { wait: Mutex::new((poll, Events::with_capacity(2))), waker })
    }

    /// Repeats a call on the socket until it finds something. Once it is `woken` it is not called,
    /// so that what comes is left to others.
    pub(super) fn wait_for<T>(
        &self,
        mut call: impl FnMut() -> io::Result<T>,
        woken: &AtomicBool,
    ) -> io::Result<T> {
        let mut wait = self.wait.lock().unwrap_or_else(PoisonError::into_inner);
        let (poll, events) = &mut *wait;
        while !woken.load(Ordering::Acquire) {
            match call() {
                // An event since the last wait ends the next one at once.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    retry(|| poll.poll(events, None))?;
                }
                found => return found,
            }
        }
        Err(io::ErrorKind::InvalidInput.into())
    }

    /// Ends the wait of a thread. The caller has set `woken`.
    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!(target: "lariat::socket", "cannot wake a thread: {error}");
        }
    }
}
