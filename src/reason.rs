//! Why a connection ended: who ended it, how, and what was lost.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::error::is_rejected;
use crate::guard::drop_guarded;

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// The protocol of this side, by `close`, `abort`, an `Err` or a panic.
    Us,
    /// The peer, or the network between. A `close` after the peer's FIN counts as the peer's.
    Peer,
    /// The driver: a limit, a deadline or shutdown.
    Runtime,
}

/// The deadline that ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Deadline {
    /// [`Limits::connect`](crate::Limits::connect).
    Connect,
    /// [`Limits::handshake`](crate::Limits::handshake).
    Handshake,
    /// [`Limits::idle`](crate::Limits::idle).
    Idle,
    /// [`Limits::write_stall`](crate::Limits::write_stall).
    Write,
    /// [`Limits::close_deadline`](crate::Limits::close_deadline).
    Close,
}

/// Why a connect failed. `opened` never ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectFailure {
    /// The peer refused: nothing listens there. A Unix socket refuses also when its backlog is
    /// full, except on threads, which wait for a place in it.
    Refused,
    /// No route leads to the peer.
    Unreachable,
    /// No local address or port is left, or the system cannot connect to this address.
    AddressUnavailable,
    /// The system does not permit it.
    PermissionDenied,
    /// [`DriverLimits::connections_max`](crate::DriverLimits::connections_max) is reached.
    Limit,
    /// No descriptor or memory is left.
    Exhausted,
    /// `close`, `abort` or shutdown came before the socket was connected.
    Cancelled,
    /// The system rejects one of the [`ConnectOptions`](crate::ConnectOptions);
    /// [`CloseReason::error`] names it.
    Options,
    /// No address was found: the lookup of the name failed or took too long, or the text or the
    /// list has no address. [`CloseReason::error`] says which.
    Name,
    /// The platform does not support addresses of this family, or the protocol is not `Send`, which
    /// connections of the blocking driver require.
    Unsupported,
    /// Anything else: see [`CloseReason::error`].
    Other,
}

/// How a [`Filter`](crate::Filter) ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FilterFailure {
    /// The filter returned an error: see [`CloseReason::error`].
    Failed,
    /// The peer's bytes ended before the filter's stream did.
    Truncated,
    /// [`Context::replace`](crate::Context::replace) brought a new filter while input was unread;
    /// see [`Replacement::feed_unread`](crate::Replacement::feed_unread).
    UnreadInput,
    /// [`Context::replace`](crate::Context::replace) brought a filter to a connection that has one.
    Second,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseKind {
    /// In order: everything queued was sent, then FIN.
    Finished,
    /// The connection broke: a reset, a broken pipe, or an error of the network.
    Reset,
    /// `abort` was called.
    Aborted,
    /// A deadline passed.
    TimedOut(Deadline),
    /// Unread input reached [`Limits::input_max`](crate::Limits::input_max) and the protocol
    /// consumed nothing, or asked for more.
    InputFull,
    /// Unsent output went beyond [`Limits::output_max`](crate::Limits::output_max).
    OutputFull,
    /// The connect failed.
    Connect(ConnectFailure),
    /// The filter failed.
    Filter(FilterFailure),
    /// A callback returned `Err`: see [`CloseReason::error`].
    Protocol,
    /// A ready protocol refused what the peer sent, or what it did not send in time. The number is
    /// the status of the answer, or the one it would have had if an answer had still been possible.
    /// [`CloseReason::error`] says what was wrong. `lariat::http` gives those of HTTP: 400, 408,
    /// 431, ..
    Refused(u16),
    /// A callback panicked.
    Panicked,
    /// The driver was shut down.
    Shutdown,
    /// The driver does not support what was asked of it.
    Unsupported,
    /// The local system could not go on with the connection, for instance for lack of memory or
    /// permission: see [`CloseReason::error`]. The peer gets a reset.
    SystemError,
    /// [`Context::detach`](crate::Context::detach) has taken the socket out of the driver. The
    /// stream goes on elsewhere.
    Detached,
}

/// An error behind an end. It may be the user's type, so every drop of it is guarded.
#[derive(Clone, Debug)]
pub(crate) struct Cause(
    /// Shared, as errors are not `Clone`. None only while it is dropped.
    Option<Arc<dyn StdError + Send + Sync>>,
);

impl Cause {
    pub(crate) fn new(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Cause {
        Cause(Some(Arc::from(error.into())))
    }
}

impl Drop for Cause {
    fn drop(&mut self) {
        drop_guarded(self.0.take());
    }
}

/// Why a connection ended, who ended it, and what was lost.
///
/// `Display` is a plain sentence:
///
/// ```text
/// finished by the peer: 12 bytes in, 12 bytes out, open for 1.2 s
/// timed out (write) by the runtime: 64 bytes in, 0 bytes out, 64 unsent, open for 30.0 s
/// ```
#[derive(Clone, Debug)]
pub struct CloseReason {
    pub(crate) by: By,
    pub(crate) kind: CloseKind,
    pub(crate) cause: Option<Cause>,
    pub(crate) unsent: u64,
    pub(crate) unread: u64,
    pub(crate) refused: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) age: Duration,
    pub(crate) peer_finished: bool,
}

impl CloseReason {
    /// Who ended the connection.
    pub fn by(&self) -> By {
        self.by
    }

    /// How it ended.
    pub fn kind(&self) -> CloseKind {
        self.kind
    }

    /// The error behind it: of the callback, the filter or the system.
    pub fn error(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.cause.as_ref().and_then(|cause| cause.0.as_deref())
    }

    /// Bytes that were queued and never handed to the kernel.
    pub fn unsent(&self) -> u64 {
        self.unsent
    }

    /// Bytes that arrived and that the protocol never consumed.
    pub fn unread(&self) -> u64 {
        self.unread
    }

    /// Bytes written too late, after `close` or `shutdown_write`, and dropped.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Bytes received, after a filter's decoding: what `data` saw.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    /// Bytes handed to the kernel or, as clear bytes, to the filter.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out
    }

    /// Time since the connection was accepted or the connect was asked for.
    pub fn age(&self) -> Duration {
        self.age
    }

    /// Whether the peer had finished sending.
    pub fn peer_finished(&self) -> bool {
        self.peer_finished
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.kind, self.by)?;
        if let Some(error) = self.error() {
            write!(f, " ({error})")?;
        }
        write!(f, ": {} bytes in, {} bytes out", self.bytes_in, self.bytes_out)?;
        for (count, what) in
            [(self.unsent, "unsent"), (self.unread, "unread"), (self.refused, "written too late")]
        {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        write!(f, ", open for {:.1} s", self.age.as_secs_f64())
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            By::Us => "us",
            By::Peer => "the peer",
            By::Runtime => "the runtime",
        })
    }
}

impl fmt::Display for CloseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloseKind::Refused(status) => return write!(f, "refused with {status}"),
            CloseKind::Finished => "finished",
            CloseKind::Reset => "reset",
            CloseKind::Aborted => "aborted",
            CloseKind::TimedOut(Deadline::Connect) => "timed out (connect)",
            CloseKind::TimedOut(Deadline::Handshake) => "timed out (handshake)",
            CloseKind::TimedOut(Deadline::Idle) => "timed out (idle)",
            CloseKind::TimedOut(Deadline::Write) => "timed out (write)",
            CloseKind::TimedOut(Deadline::Close) => "timed out (close)",
            CloseKind::InputFull => "input full",
            CloseKind::OutputFull => "output full",
            CloseKind::Connect(ConnectFailure::Refused) => "connect refused",
            CloseKind::Connect(ConnectFailure::Unreachable) => "connect failed, unreachable",
            CloseKind::Connect(ConnectFailure::AddressUnavailable) => {
                "connect failed, address unavailable"
            }
            CloseKind::Connect(ConnectFailure::PermissionDenied) => {
                "connect failed, permission denied"
            }
            CloseKind::Connect(ConnectFailure::Options) => "connect failed, an option was rejected",
            CloseKind::Connect(ConnectFailure::Name) => "connect failed, no address found",
            CloseKind::Connect(ConnectFailure::Limit) => "connect failed, too many connections",
            CloseKind::Connect(ConnectFailure::Exhausted) => "connect failed, no descriptor left",
            CloseKind::Connect(ConnectFailure::Cancelled) => "connect cancelled",
            CloseKind::Connect(ConnectFailure::Unsupported) => "connect unsupported",
            CloseKind::Connect(ConnectFailure::Other) => "connect failed",
            CloseKind::Filter(FilterFailure::Failed) => "filter failed",
            CloseKind::Filter(FilterFailure::Truncated) => "truncated",
            CloseKind::Filter(FilterFailure::UnreadInput) => "unread input met a new filter",
            CloseKind::Filter(FilterFailure::Second) => "a second filter was refused",
            CloseKind::Protocol => "protocol error",
            CloseKind::Panicked => "panicked",
            CloseKind::Shutdown => "shut down",
            CloseKind::Unsupported => "unsupported",
            CloseKind::SystemError => "system error",
            CloseKind::Detached => "detached",
        })
    }
}

/// The errors of a connect that has tried several addresses, for
/// [`CloseReason::error`]:
///
/// ```
/// use lariat::{AddressErrors, CloseReason};
///
/// fn report(reason: &CloseReason) {
///     let error = reason.error();
///     if let Some(errors) = error.and_then(|error| error.downcast_ref::<AddressErrors>()) {
///         for (addr, error) in errors.iter() {
///             println!("{addr}: {error}");
///         }
///     }
/// }
/// ```
#[derive(Debug, Default)]
pub struct AddressErrors(Vec<(Endpoint, io::Error)>);

impl AddressErrors {
    /// Each address that was tried with its error, in the order in which they failed.
    pub fn iter(&self) -> impl Iterator<Item = (Endpoint, &io::Error)> {
        self.0.iter().map(|(addr, error)| (*addr, error))
    }

    pub(crate) fn push(&mut self, addr: Endpoint, error: io::Error) {
        self.0.push((addr, error));
    }

    /// What the deadline of the connect came before: answers, and attempts.
    pub(crate) fn push_late(
        &mut self,
        unanswered: impl IntoIterator<Item = Endpoint>,
        untried: impl IntoIterator<Item = Endpoint>,
    ) {
        let not_tried = || io::Error::new(io::ErrorKind::TimedOut, "not tried in time");
        self.0.extend(unanswered.into_iter().map(|addr| (addr, no_answer())));
        self.0.extend(untried.into_iter().map(|addr| (addr, not_tried())));
    }

    /// The one that says most of a connect that failed: a refusal comes from the host itself; a
    /// time-out at least had a route. Otherwise the first one.
    fn best(&self) -> Option<&io::Error> {
        let rank = |error: &io::Error| match failed_connect(error).1 {
            CloseKind::Connect(ConnectFailure::Refused) => 0,
            CloseKind::TimedOut(_) => 1,
            _ => 2,
        };
        self.0.iter().map(|(_, error)| error).min_by_key(|error| rank(error))
    }

    /// Who ended a connect that failed so, how, and why.
    pub(crate) fn into_end(self) -> (By, CloseKind, Option<Cause>) {
        let (by, kind) = self.best().map_or_else(
            || (By::Runtime, CloseKind::Connect(ConnectFailure::Name)),
            failed_connect,
        );
        (by, kind, Some(Cause::new(self)))
    }
}

impl fmt::Display for AddressErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (addr, error)) in self.0.iter().enumerate() {
            let between = if at == 0 { "" } else { "; " };
            write!(f, "{between}{addr}: {error}")?;
        }
        Ok(())
    }
}

impl StdError for AddressErrors {}

/// What the deadline of a connect says of an address that has not answered.
pub(crate) fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer")
}

/// Whether a connect failed by its own deadline: the system has an error number for what it gives
/// up itself.
pub(crate) fn is_late(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none()
}

/// Who ended a connect that failed with `error`, and how.
pub(crate) fn failed_connect(error: &io::Error) -> (By, CloseKind) {
    if error.kind() == io::ErrorKind::TimedOut {
        // By our own deadline, or the system gave up before it.
        return (By::Runtime, CloseKind::TimedOut(Deadline::Connect));
    }
    let failure = ConnectFailure::of(error);
    (failure.by(), CloseKind::Connect(failure))
}

/// Who ended a connection on which a read or a write failed with `error`, and how. It is the peer,
/// or the network between, unless the local system failed.
pub(crate) fn failed_transfer(error: &io::Error) -> (By, CloseKind) {
    let at_home = match error.kind() {
        io::ErrorKind::OutOfMemory
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::Unsupported => true,
        _ => matches!(
            error.raw_os_error(),
            Some(
                libc::ENOBUFS
                    | libc::EMFILE
                    | libc::ENFILE
                    | libc::EBADF
                    | libc::EFAULT
                    | libc::ENOTSOCK
                    | libc::EMSGSIZE
            )
        ),
    };
    if at_home { (By::Runtime, CloseKind::SystemError) } else { (By::Peer, CloseKind::Reset) }
}

impl ConnectFailure {
    /// Who ended a connect that failed so.
    pub(crate) fn by(self) -> By {
        match self {
            ConnectFailure::Refused | ConnectFailure::Unreachable | ConnectFailure::Other => {
                By::Peer
            }
            _ => By::Runtime,
        }
    }

    /// What a failed `connect` means.
    pub(crate) fn of(error: &io::Error) -> ConnectFailure {
        if is_rejected(error) {
            return ConnectFailure::Options;
        }
        match error.kind() {
            // Not found is the path of a Unix socket: its listener has taken it away.
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ConnectFailure::Refused,
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown => ConnectFailure::Unreachable,
            io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::AddrInUse
            | io::ErrorKind::InvalidInput => ConnectFailure::AddressUnavailable,
            io::ErrorKind::PermissionDenied => ConnectFailure::PermissionDenied,
            io::ErrorKind::Unsupported => ConnectFailure::Unsupported,
            // The system says "try again" of a connect for want of ports or of room in a queue.
            io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock => ConnectFailure::Exhausted,
            _ => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC) => {
                    ConnectFailure::Exhausted
                }
                Some(libc::EAFNOSUPPORT) => ConnectFailure::Unsupported,
                _ => ConnectFailure::Other,
            },
        }
    }
}

#[cfg(test)]
mod tests;
