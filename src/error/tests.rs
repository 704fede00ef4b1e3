//! Every sentence, every hint, and what becomes of every cause.

use std::error::Error as _;

use super::*;

fn failed(errno: i32) -> Error {
    Error::from_io(Op::Listen, io::Error::from_raw_os_error(errno)).with_addr("127.0.0.1:7000")
}

#[test]
fn the_sentence_begins_with_what_was_tried() {
    let cases = [
        (Op::Start, "cannot start the driver"),
        (Op::Listen, "cannot listen"),
        (Op::Connect, "cannot connect"),
        (Op::Poll, "cannot wait for events"),
        (Op::Limits, "these limits cannot work"),
        (Op::Signals, "cannot take over signals"),
        (Op::Post, "cannot reach the driver"),
        (Op::Timer, "cannot set the timer"),
        (Op::Bind, "cannot bind"),
        (Op::Send, "cannot send"),
        (Op::Join, "cannot join the group"),
        (Op::Leave, "cannot leave the group"),
    ];
    for (op, tried) in cases {
        let error = Error::new(ErrorKind::PermissionDenied, op);
        assert_eq!(error.to_string(), format!("{tried}: permission denied"));
        assert_eq!((error.op(), error.addr()), (op, None));
        let addressed = error.with_addr("10.0.0.1:80");
        let to = match op {
            Op::Connect | Op::Bind | Op::Send => " to",
            Op::Join | Op::Leave => "",
            _ => " on",
        };
        let sentence = format!("{tried}{to} 10.0.0.1:80: permission denied");
        assert_eq!(addressed.to_string(), sentence);
        assert_eq!(addressed.addr(), Some("10.0.0.1:80"));
    }
}

#[test]
fn the_sentence_ends_with_the_cause_and_the_io_error_keeps_its_kind() {
    use io::ErrorKind as Io;
    let cases = [
        (ErrorKind::AddressInUse, "the address is already in use", Io::AddrInUse),
        (
            ErrorKind::AddressUnavailable,
            "the address is not one of this machine's",
            Io::AddrNotAvailable,
        ),
        (ErrorKind::InvalidAddress, "the text is not an address", Io::InvalidInput),
        (ErrorKind::InvalidLimits, "they contradict one another", Io::InvalidInput),
        (ErrorKind::PermissionDenied, "permission denied", Io::PermissionDenied),
        (ErrorKind::TooLarge, "it is too long for a datagram", Io::InvalidInput),
        (ErrorKind::Exhausted, "no descriptor or memory is left", Io::OutOfMemory),
        (ErrorKind::Limit, "connections_max is reached", Io::ResourceBusy),
        (ErrorKind::Full, "its queue is full", Io::WouldBlock),
        (ErrorKind::Stopped, "it has ended", Io::BrokenPipe),
        (ErrorKind::Unsupported, "this platform cannot do it", Io::Unsupported),
        (ErrorKind::Other, "unknown cause", Io::Other),
    ];
    for (kind, cause, io_kind) in cases {
        let error = Error::new(kind, Op::Poll);
        assert_eq!((error.kind(), error.source().is_none()), (kind, true));
        let sentence = format!("cannot wait for events: {cause}");
        assert_eq!(error.to_string(), sentence);
        let io: io::Error = error.into();
        assert_eq!((io.kind(), io.to_string()), (io_kind, sentence));
    }
    let detailed = Error::new(ErrorKind::InvalidLimits, Op::Limits).with_detail("low is high");
    assert_eq!(detailed.to_string(), "these limits cannot work: low is high");
}

#[test]
fn a_path_has_hints_of_its_own() {
    let in_use = "another program has a socket there, or the file is no socket";
    let denied = "this user must be allowed to write to the directory";
    let other = "the receiver is connected to another socket, or its file may not be written to";
    for (op, kind, hint) in [
        (Op::Listen, ErrorKind::AddressInUse, in_use),
        (Op::Bind, ErrorKind::AddressInUse, in_use),
        (Op::Listen, ErrorKind::PermissionDenied, denied),
        (Op::Bind, ErrorKind::PermissionDenied, denied),
        (Op::Send, ErrorKind::PermissionDenied, other),
    ] {
        let error = Error::new(kind, op).with_addr("/run/a.sock").at_path(true);
        assert!(format!("{error:?}").ends_with(&format!("\nhint: {hint}")), "{error:?}");
    }
}

#[test]
fn debug_adds_a_hint_where_there_is_one() {
    let cases = [
        (Op::Listen, ErrorKind::AddressInUse, "another program has this port; try port 0"),
        (
            Op::Listen,
            ErrorKind::PermissionDenied,
            "ports below 1024 are reserved; try a port above 1023",
        ),
        (
            Op::Listen,
            ErrorKind::AddressUnavailable,
            "the address must belong to this machine; 0.0.0.0 or [::] listens on all of its own",
        ),
        (
            Op::Listen,
            ErrorKind::InvalidAddress,
            "an address looks like 127.0.0.1:7000, [::1]:7000 or unix:/run/echo.sock",
        ),
        (
            Op::Connect,
            ErrorKind::InvalidAddress,
            "an address looks like 127.0.0.1:7000, [::1]:7000 or unix:/run/echo.sock",
        ),
        (Op::Start, ErrorKind::Exhausted, "raise the limit on open files (ulimit -n)"),
        (
            Op::Bind,
            ErrorKind::InvalidAddress,
            "an address looks like 127.0.0.1:7000, [::1]:7000 or unix:/run/echo.sock",
        ),
        (Op::Bind, ErrorKind::Limit, "raise DriverLimits::connections_max"),
        (Op::Post, ErrorKind::Full, "the driver is behind; try again later"),
        (Op::Connect, ErrorKind::PermissionDenied, ""),
        (Op::Connect, ErrorKind::AddressUnavailable, ""),
        (Op::Post, ErrorKind::Stopped, ""),
        (Op::Limits, ErrorKind::InvalidLimits, ""),
        (Op::Timer, ErrorKind::Unsupported, ""),
    ];
    for (op, kind, hint) in cases {
        let error = Error::new(kind, op);
        let expected = match hint {
            "" => error.to_string(),
            hint => format!("{error}\nhint: {hint}"),
        };
        assert_eq!(format!("{error:?}"), expected);
    }
}

#[test]
fn errors_of_the_system_are_told_apart() {
    let cases = [
        (libc::EADDRINUSE, ErrorKind::AddressInUse),
        (libc::EADDRNOTAVAIL, ErrorKind::AddressUnavailable),
        (libc::EACCES, ErrorKind::PermissionDenied),
        (libc::EPERM, ErrorKind::PermissionDenied),
        (libc::EINVAL, ErrorKind::InvalidAddress),
        (libc::EOPNOTSUPP, ErrorKind::Unsupported),
        (libc::EAFNOSUPPORT, ErrorKind::Unsupported),
        (libc::EPROTONOSUPPORT, ErrorKind::Unsupported),
        (libc::EMFILE, ErrorKind::Exhausted),
        (libc::ENFILE, ErrorKind::Exhausted),
        (libc::ENOBUFS, ErrorKind::Exhausted),
        (libc::ENOMEM, ErrorKind::Exhausted),
        (libc::EPIPE, ErrorKind::Other),
    ];
    for (errno, kind) in cases {
        let error = failed(errno);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.source().is_some(), "{error}");
    }
    let other = failed(libc::EPIPE);
    let source = io::Error::from_raw_os_error(libc::EPIPE);
    assert_eq!(other.to_string(), format!("cannot listen on 127.0.0.1:7000: {source}"));
    assert_eq!(io::Error::from(other).kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn an_option_that_the_system_rejects_is_named() {
    let source = rejected("keepalive.count")(io::Error::from_raw_os_error(libc::EINVAL));
    assert!(is_rejected(&source) && !is_rejected(&io::Error::from_raw_os_error(libc::EINVAL)));
    assert_eq!(source.kind(), io::ErrorKind::InvalidInput);
    let inner = source.get_ref().unwrap();
    assert!(inner.source().is_some());
    let error = Error::from_io(Op::Connect, source).with_addr("10.0.0.1:80");
    assert_eq!(error.kind(), ErrorKind::InvalidLimits);
    let sentence = "the system rejects the option keepalive.count: Invalid argument";
    let whole = format!("cannot connect to 10.0.0.1:80: {sentence}");
    assert!(error.to_string().starts_with(&whole), "{error}");
}

#[test]
fn an_error_goes_where_any_may() {
    fn question_mark() -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Err(failed(libc::EMFILE))?;
        Ok(())
    }
    let error = question_mark().unwrap_err();
    assert_eq!(error.downcast_ref::<Error>().unwrap().kind(), ErrorKind::Exhausted);
}
