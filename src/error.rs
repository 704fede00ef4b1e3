//! The error of operations that fail at once: listening, starting a driver, bad limits.
//!
//! What ends a connection later is not an error but a [`CloseReason`](crate::CloseReason).

use std::fmt;
use std::io;
use std::net::SocketAddr;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The operation that failed with an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// Starting a driver.
    Start,
    /// Listening on an address.
    Listen,
    /// Connecting to an address.
    Connect,
    /// Taking over a socket that other code has opened.
    Adopt,
    /// Taking a socket out of its driver.
    Detach,
    /// Waiting for events.
    Poll,
    /// Checking limits or options.
    Limits,
    /// Taking over signals.
    Signals,
    /// Posting a request to a driver through its handle.
    Post,
    /// Setting a timer of a driver.
    Timer,
    /// Binding a datagram socket.
    Bind,
    /// Sending a datagram.
    Send,
    /// Joining a multicast group.
    Join,
    /// Leaving a multicast group.
    Leave,
}

/// The cause of an [`Error`], for programs to match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Another socket has the address.
    AddressInUse,
    /// The address is not one of this machine's.
    AddressUnavailable,
    /// The text is not an address, or no endpoint is found for it.
    InvalidAddress,
    /// The socket is not connected, does not listen, is no stream socket of TCP or Unix, or is a
    /// datagram socket that is closed.
    InvalidSocket,
    /// The limits or options cannot work together, or the system rejects an option.
    InvalidLimits,
    /// The system does not permit it.
    PermissionDenied,
    /// The datagram is longer than one can be, or than the system sends.
    TooLarge,
    /// The process or the system has no descriptor or memory left.
    Exhausted,
    /// [`DriverLimits::connections_max`](crate::DriverLimits::connections_max) is reached.
    Limit,
    /// The queue to the driver is full.
    Full,
    /// The driver has ended.
    Stopped,
    /// The platform or the driver cannot do it.
    Unsupported,
    /// Anything else: see [`std::error::Error::source`].
    Other,
}

/// An operation that failed: the operation, the address, the cause, and a hint what to do.
///
/// `Display` is one sentence. `Debug`, which `main` prints for a program that ends with an error,
/// adds a hint where there is one.
///
/// ```
/// # use lariat::{Context, Input, Outcome, Protocol};
/// let first = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
/// let address = first.local_addr().unwrap();
/// let mut reactor = lariat::reactor::Reactor::new()?;
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome { Ok(()) }
/// # }
/// let error = reactor.listen(address, |_| Some(Echo)).unwrap_err();
/// assert_eq!(error.kind(), lariat::ErrorKind::AddressInUse);
/// assert_eq!(
///     error.to_string(),
///     format!("cannot listen on {address}: the address is already in use")
/// );
/// # Ok::<(), lariat::Error>(())
/// ```
pub struct Error(Box<Parts>);

struct Parts {
    kind: ErrorKind,
    op: Op,
    addr: Option<String>,
    is_path: bool,
    detail: Option<String>,
    hint: Option<&'static str>,
    source: Option<io::Error>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, op: Op) -> Error {
        let (addr, is_path, detail, hint, source) = (None, false, None, None, None);
        Error(Box::new(Parts { kind, op, addr, is_path, detail, hint, source }))
    }

    pub(crate) fn from_io(op: Op, source: io::Error) -> Error {
        let mut error = Error::new(kind_of(&source), op);
        // An invalid input is one of many things: its own words say which.
        if is_rejected(&source) || error.0.kind == ErrorKind::InvalidAddress {
            error.0.detail = Some(source.to_string());
        }
        if source.get_ref().is_some_and(|inner| inner.is::<Unscoped>()) {
            error.0.hint = Some("name the interface as in [fe80::1%eth0]:7000");
        }
        error.0.source = Some(source);
        error
    }

    pub(crate) fn with_addr(mut self, addr: impl fmt::Display) -> Error {
        self.0.addr = Some(addr.to_string());
        self
    }

    /// Whether the address is a path: other hints help there.
    pub(crate) fn at_path(mut self, is_path: bool) -> Error {
        self.0.is_path = is_path;
        self
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Error {
        self.0.kind = kind;
        self
    }

    pub(crate) fn with_hint(mut self, hint: &'static str) -> Error {
        self.0.hint = Some(hint);
        self
    }

    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Error {
        self.0.detail = Some(detail.into());
        self
    }

    /// The cause.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The operation.
    pub fn op(&self) -> Op {
        self.0.op
    }

    /// The address it was tried on, as the caller gave it.
    pub fn addr(&self) -> Option<&str> {
        self.0.addr.as_deref()
    }

    fn hint(&self) -> Option<&'static str> {
        if self.0.hint.is_some() {
            return self.0.hint;
        }
        Some(match (self.0.op, self.0.kind) {
            (Op::Listen | Op::Bind, ErrorKind::AddressInUse) if self.0.is_path => {
                "another program has a socket there, or the file is no socket"
            }
            (Op::Listen | Op::Bind, ErrorKind::PermissionDenied) if self.0.is_path => {
                "this user must be allowed to write to the directory"
            }
            (Op::Send, ErrorKind::PermissionDenied) if self.0.is_path => {
                "the receiver is connected to another socket, or its file may not be written to"
            }
            (_, ErrorKind::AddressInUse) => "another program has this port; try port 0",
            (Op::Listen, ErrorKind::PermissionDenied) => {
                "ports below 1024 are reserved; try a port above 1023"
            }
            (Op::Listen, ErrorKind::AddressUnavailable) => {
                "the address must belong to this machine; 0.0.0.0 or [::] listens on all of its own"
            }
            (Op::Listen | Op::Connect | Op::Bind, ErrorKind::InvalidAddress) => {
                "an address looks like 127.0.0.1:7000, [::1]:7000 or unix:/run/echo.sock"
            }
            (Op::Bind, ErrorKind::PermissionDenied) => {
                "ports below 1024 are reserved; try a port above 1023"
            }
            (Op::Send, ErrorKind::PermissionDenied) => {
                "a broadcast address needs DatagramOptions::broadcast"
            }
            (_, ErrorKind::Exhausted) => "raise the limit on open files (ulimit -n)",
            (_, ErrorKind::Limit) => "raise DriverLimits::connections_max",
            (Op::Post, ErrorKind::Full) => "the driver is behind; try again later",
            _ => return None,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tried = match self.0.op {
            Op::Start => "cannot start the driver",
            Op::Listen => "cannot listen",
            Op::Connect => "cannot connect",
            Op::Adopt => "cannot adopt the socket",
            Op::Detach => "cannot detach the socket",
            Op::Poll => "cannot wait for events",
            Op::Limits => "these limits cannot work",
            Op::Signals => "cannot take over signals",
            Op::Post => "cannot reach the driver",
            Op::Timer => "cannot set the timer",
            Op::Bind => "cannot bind",
            Op::Send => "cannot send",
            Op::Join => "cannot join the group",
            Op::Leave => "cannot leave the group",
        };
        f.write_str(tried)?;
        if let Some(addr) = &self.0.addr {
            let to = match self.0.op {
                Op::Connect | Op::Send | Op::Bind => " to",
                Op::Join | Op::Leave => "",
                _ => " on",
            };
            write!(f, "{to} {addr}")?;
        }
        if let Some(detail) = &self.0.detail {
            return write!(f, ": {detail}");
        }
        let cause = match self.0.kind {
            ErrorKind::AddressInUse => "the address is already in use",
            ErrorKind::AddressUnavailable => "the address is not one of this machine's",
            ErrorKind::InvalidAddress => "the text is not an address",
            ErrorKind::InvalidSocket => "it is not of the right kind",
            ErrorKind::InvalidLimits => "they contradict one another",
            ErrorKind::PermissionDenied => "permission denied",
            ErrorKind::TooLarge => "it is too long for a datagram",
            ErrorKind::Exhausted => "no descriptor or memory is left",
            ErrorKind::Limit => "connections_max is reached",
            ErrorKind::Full => "its queue is full",
            ErrorKind::Stopped => "it has ended",
            ErrorKind::Unsupported => "this platform cannot do it",
            ErrorKind::Other => match &self.0.source {
                Some(source) => return write!(f, ": {source}"),
                None => "unknown cause",
            },
        };
        write!(f, ": {cause}")
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        match self.hint() {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match error.0.kind {
            ErrorKind::AddressInUse => io::ErrorKind::AddrInUse,
            ErrorKind::AddressUnavailable => io::ErrorKind::AddrNotAvailable,
            ErrorKind::InvalidAddress
            | ErrorKind::InvalidSocket
            | ErrorKind::InvalidLimits
            | ErrorKind::TooLarge => io::ErrorKind::InvalidInput,
            ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
            ErrorKind::Limit => io::ErrorKind::ResourceBusy,
            ErrorKind::Full => io::ErrorKind::WouldBlock,
            ErrorKind::Stopped => io::ErrorKind::BrokenPipe,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::Exhausted => io::ErrorKind::OutOfMemory,
            ErrorKind::Other => {
                error.0.source.as_ref().map_or(io::ErrorKind::Other, io::Error::kind)
            }
        };
        io::Error::new(kind, error)
    }
}

/// A link-local address without the interface that it is an address of.
#[derive(Debug)]
struct Unscoped;

impl fmt::Display for Unscoped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a link-local address needs its network interface")
    }
}

impl std::error::Error for Unscoped {}

/// Fails for an address that means nothing without its network interface. The system would say no
/// more than that an argument is invalid.
pub(crate) fn check_scope(addr: &SocketAddr) -> io::Result<()> {
    match addr {
        SocketAddr::V6(addr) if addr.ip().is_unicast_link_local() && addr.scope_id() == 0 => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, Unscoped))
        }
        _ => Ok(()),
    }
}

/// An option of a socket that the system rejects.
#[derive(Debug)]
struct Rejected {
    option: &'static str,
    error: io::Error,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the system rejects the option {}: {}", self.option, self.error)
    }
}

impl std::error::Error for Rejected {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// What turns the system's error into one that names the option it is about.
pub(crate) fn rejected(option: &'static str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), Rejected { option, error })
}

/// Whether an error is about an option: see [`rejected`].
pub(crate) fn is_rejected(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Rejected>())
}

fn kind_of(error: &io::Error) -> ErrorKind {
    if is_rejected(error) {
        return ErrorKind::InvalidLimits;
    }
    match error.kind() {
        io::ErrorKind::AddrInUse => ErrorKind::AddressInUse,
        io::ErrorKind::AddrNotAvailable => ErrorKind::AddressUnavailable,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::InvalidInput => ErrorKind::InvalidAddress,
        io::ErrorKind::Unsupported => ErrorKind::Unsupported,
        io::ErrorKind::OutOfMemory => ErrorKind::Exhausted,
        _ => match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                ErrorKind::Exhausted
            }
            Some(libc::EMSGSIZE) => ErrorKind::TooLarge,
            Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) => ErrorKind::Unsupported,
            _ => ErrorKind::Other,
        },
    }
}

#[cfg(test)]
mod tests;
