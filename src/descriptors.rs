//! What is no socket: a descriptor to read from, and one to write to.

use std::os::fd::OwnedFd;
use std::process::Child;

/// Two descriptors that make a stream although they are no socket: the ends of two pipes, a
/// terminal, the standard input and output of a child or of this process. One descriptor may be
/// both. Feature `fd`.
///
/// [`Control::adopt_descriptors`](crate::Control::adopt_descriptors) makes a connection of them,
/// which then differs from one of sockets in this:
///
/// - Both of its addresses are [`Endpoint::Other`](crate::Endpoint::Other).
/// - [`shutdown_write`](crate::Context::shutdown_write) closes the descriptor that is written to:
///   the reader at its other end finds the end of the stream. A single descriptor stays open
///   until the connection ends.
/// - [`close`](crate::Context::close) ends once everything is written: there is no peer's FIN to
///   wait for. [`abort`](crate::Context::abort) closes both descriptors at once, without a reset.
/// - A reader that goes away is noticed by the next write, which ends the connection with
///   [`Reset`](crate::CloseKind::Reset); what had come from the other descriptor is shown before.
///
/// **Nonblocking.** The descriptors are set to O_NONBLOCK, which counts for everybody who has the
/// same open file: for a terminal also for the shell. What was set is taken back when the
/// connection ends, when the driver is dropped, and when a panic unwinds it, but not when the
/// process is killed. Do not give one terminal to two connections: the first that ends would take
/// it back under the other.
///
/// **SIGPIPE.** A write to a pipe without a reader raises it, unlike one to a socket. Programs
/// whose `main` is Rust's ignore it from the start. In a program of another language, which calls
/// Rust as a library, it ends the process unless that program ignores it (`signal(SIGPIPE,
/// SIG_IGN)`).
///
/// **Files.** Regular files, directories and devices that are always ready, such as `/dev/null`,
/// are refused with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): no system can say
/// when they are ready. Read them on a thread ([`Context::offload`](crate::Context::offload)), or
/// put a pipe between: `cat file | program`.
///
/// ```
/// use std::process::{Command, Stdio};
/// use lariat::reactor::Reactor;
/// use lariat::{Context, Descriptors, Input, Limits, Outcome, Protocol};
///
/// /// Sends a word to `cat`, and waits until it is back.
/// struct Asks;
///
/// impl Protocol for Asks {
///     fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
///         cx.write(b"hello");
///         cx.shutdown_write();
///         Ok(())
///     }
///     fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
///         if input.len() == 5 {
///             assert_eq!(&input.split_all()[..], b"hello");
///         }
///         Ok(())
///     }
/// }
///
/// let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
/// let pipes = Descriptors::of_child(&mut cat).unwrap();
/// let mut reactor = Reactor::new()?;
/// reactor.control().adopt_descriptors(pipes, Limits::default(), Asks)?;
/// reactor.run()?;
/// assert!(cat.wait().unwrap().success());
/// # Ok::<(), lariat::Error>(())
/// ```
#[derive(Debug)]
pub struct Descriptors {
    pub(crate) read: OwnedFd,
    /// None if `read` is both.
    pub(crate) write: Option<OwnedFd>,
}

impl Descriptors {
    /// Reads from one descriptor and writes to another.
    pub fn new(read: impl Into<OwnedFd>, write: impl Into<OwnedFd>) -> Descriptors {
        Descriptors { read: read.into(), write: Some(write.into()) }
    }

    /// Reads from a descriptor and writes to it: a terminal, a device.
    pub fn one(both: impl Into<OwnedFd>) -> Descriptors {
        Descriptors { read: both.into(), write: None }
    }

    /// Takes the pipes of a child: what it writes is read, and what is written is its input. None
    /// if it was not started with both as [`Stdio::piped`](std::process::Stdio::piped).
    pub fn of_child(child: &mut Child) -> Option<Descriptors> {
        child.stdin.as_ref()?;
        let read = child.stdout.take()?;
        let write = child.stdin.take()?;
        Some(Descriptors::new(read, write))
    }

    /// The descriptor that is read from, and the one that is written to if it is another.
    pub fn into_parts(self) -> (OwnedFd, Option<OwnedFd>) {
        (self.read, self.write)
    }
}
