//! Streams of descriptors that are no sockets: nonblocking `read` and `write`.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, OFlags};
use rustix::pipe::PipeFlags;

use super::retry;
use crate::descriptors::Descriptors;

impl Descriptors {
    /// Takes the standard input and output of this process. From then on those of the process are
    /// `/dev/null`, so that the end of what is written shows to its reader as soon as the
    /// connection finishes, and no `println!` gets between its bytes.
    ///
    /// # Errors
    ///
    /// No descriptor is left, or there is no `/dev/null`. Nothing has changed then.
    pub fn stdio() -> io::Result<Descriptors> {
        let read = io::stdin().as_fd().try_clone_to_owned()?;
        let write = io::stdout().as_fd().try_clone_to_owned()?;
        let empty = File::open("/dev/null")?;
        let sink = OpenOptions::new().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&empty)?;
        rustix::stdio::dup2_stdout(&sink)?;
        Ok(Descriptors::new(read, write))
    }
}

/// A nonblocking descriptor. Its flags are as before once it is dropped.
pub(crate) struct Half {
    /// None only while it is taken out.
    fd: Option<OwnedFd>,
    /// Whether it slept before.
    slept: bool,
}

impl Half {
    fn new(fd: OwnedFd) -> Result<Half, (io::Error, OwnedFd)> {
        match prepare(&fd) {
            Ok(slept) => Ok(Half { fd: Some(fd), slept }),
            Err(error) => Err((error, fd)),
        }
    }

    /// The descriptor, with its flags as before.
    fn into_fd(mut self) -> Option<OwnedFd> {
        self.restore();
        self.fd.take()
    }

    fn restore(&mut self) {
        let (Some(fd), true) = (&self.fd, self.slept) else { return };
        self.slept = false;
        let set = rustix::fs::fcntl_getfl(fd)
            .and_then(|flags| rustix::fs::fcntl_setfl(fd, flags - OFlags::NONBLOCK));
        if let Err(error) = set {
            log::debug!(target: "lariat::socket", "cannot restore a descriptor's flags: {error}");
        }
    }

    pub(crate) fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let fd = self.fd()?;
        match rustix::io::read(fd, buffer) {
            // Linux says so to the other end of a terminal that is closed.
            Err(rustix::io::Errno::IO) if fd.is_terminal() => Ok(0),
            result => Ok(result?),
        }
    }

    pub(crate) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            [one] => Ok(rustix::io::write(self.fd()?, one)?),
            many => Ok(rustix::io::writev(self.fd()?, many)?),
        }
    }

    /// Whether nobody reads any more what is written.
    pub(crate) fn is_deserted(&self) -> bool {
        let Ok(fd) = self.fd() else { return false };
        let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
        retry(|| Ok(rustix::event::poll(&mut polled, Some(&NOW))?)).is_ok()
            && polled[0].revents().contains(PollFlags::ERR)
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.restore();
    }
}

pub(crate) const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Makes a descriptor nonblocking. Returns whether it slept before.
fn prepare(fd: &OwnedFd) -> io::Result<bool> {
    watchable(fd)?;
    let flags = rustix::fs::fcntl_getfl(fd)?;
    let slept = !flags.contains(OFlags::NONBLOCK);
    if slept {
        rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
    }
    Ok(slept)
}

/// Whether the system can say when a descriptor is ready. The loop would learn it too late for an
/// error, and threads not at all.
fn watchable(fd: &OwnedFd) -> io::Result<()> {
    let unsupported = |sentence| Err(io::Error::new(io::ErrorKind::Unsupported, sentence));
    match FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) {
        FileType::RegularFile => {
            return unsupported("a regular file is always ready; put a pipe or a thread between");
        }
        FileType::Directory => return unsupported("it is a directory"),
        _ => {}
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::event::epoll;
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let (none, data) = (epoll::EventFlags::empty(), epoll::EventData::new_u64(0));
        match epoll::add(&poll, fd, data, none) {
            Err(rustix::io::Errno::PERM) => unsupported("this device is always ready"),
            other => Ok(other?),
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    Ok(())
}

/// A stream that a driver can take over.
pub(crate) struct Pair {
    pub(crate) read: Half,
    /// None if `read` is both.
    pub(crate) write: Option<Half>,
    /// What wakes a thread out of a wait, where a driver has threads: its two ends.
    #[cfg_attr(all(test, lariat_model), expect(dead_code, reason = "the model has its own"))]
    pub(crate) wake: Option<(OwnedFd, OwnedFd)>,
}

impl Pair {
    /// Prepares two descriptors; with `wakes`, for threads that wait for them.
    pub(crate) fn new(from: Descriptors, wakes: bool) -> Result<Pair, (io::Error, Descriptors)> {
        let wake = match wakes.then(pipe).transpose() {
            Ok(wake) => wake,
            Err(error) => return Err((error, from)),
        };
        let Descriptors { read, write } = from;
        let read = match Half::new(read) {
            Ok(read) => read,
            Err((error, read)) => return Err((error, Descriptors { read, write })),
        };
        match write.map(Half::new).transpose() {
            Ok(write) => Ok(Pair { read, write, wake }),
            Err((error, write)) => match read.into_fd() {
                Some(read) => Err((error, Descriptors { read, write: Some(write) })),
                None => Err((error, Descriptors::one(write))),
            },
        }
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
}
