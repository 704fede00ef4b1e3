//! Every word of a reason, and what the errors of a connect come to.

use super::*;

#[test]
fn every_kind_has_its_words() {
    use ConnectFailure as Connect;
    let cases = [
        (CloseKind::Finished, "finished"),
        (CloseKind::Reset, "reset"),
        (CloseKind::Aborted, "aborted"),
        (CloseKind::TimedOut(Deadline::Connect), "timed out (connect)"),
        (CloseKind::TimedOut(Deadline::Handshake), "timed out (handshake)"),
        (CloseKind::TimedOut(Deadline::Idle), "timed out (idle)"),
        (CloseKind::TimedOut(Deadline::Write), "timed out (write)"),
        (CloseKind::TimedOut(Deadline::Close), "timed out (close)"),
        (CloseKind::InputFull, "input full"),
        (CloseKind::OutputFull, "output full"),
        (CloseKind::Connect(Connect::Refused), "connect refused"),
        (CloseKind::Connect(Connect::Unreachable), "connect failed, unreachable"),
        (CloseKind::Connect(Connect::AddressUnavailable), "connect failed, address unavailable"),
        (CloseKind::Connect(Connect::PermissionDenied), "connect failed, permission denied"),
        (CloseKind::Connect(Connect::Options), "connect failed, an option was rejected"),
        (CloseKind::Connect(Connect::Name), "connect failed, no address found"),
        (CloseKind::Connect(Connect::Limit), "connect failed, too many connections"),
        (CloseKind::Connect(Connect::Exhausted), "connect failed, no descriptor left"),
        (CloseKind::Connect(Connect::Cancelled), "connect cancelled"),
        (CloseKind::Connect(Connect::Unsupported), "connect unsupported"),
        (CloseKind::Connect(Connect::Other), "connect failed"),
        (CloseKind::Filter(FilterFailure::Failed), "filter failed"),
        (CloseKind::Filter(FilterFailure::Truncated), "truncated"),
        (CloseKind::Filter(FilterFailure::UnreadInput), "unread input met a new filter"),
        (CloseKind::Filter(FilterFailure::Second), "a second filter was refused"),
        (CloseKind::Protocol, "protocol error"),
        (CloseKind::Panicked, "panicked"),
        (CloseKind::Shutdown, "shut down"),
        (CloseKind::Unsupported, "unsupported"),
        (CloseKind::Refused(431), "refused with 431"),
        (CloseKind::SystemError, "system error"),
        (CloseKind::Detached, "detached"),
    ];
    for (kind, words) in cases {
        assert_eq!(kind.to_string(), words);
    }
    let names = [(By::Us, "us"), (By::Peer, "the peer"), (By::Runtime, "the runtime")];
    for (by, name) in names {
        assert_eq!(by.to_string(), name);
    }
}

fn reason() -> CloseReason {
    CloseReason {
        by: By::Runtime,
        kind: CloseKind::TimedOut(Deadline::Write),
        cause: None,
        unsent: 0,
        unread: 0,
        refused: 0,
        bytes_in: 1,
        bytes_out: 2,
        age: Duration::from_millis(30_049),
        peer_finished: false,
    }
}

#[test]
fn the_reason_is_a_plain_sentence_of_all_that_was_lost() {
    type Case = (fn(&mut CloseReason), &'static str);
    let cases: [Case; 5] = [
        (|_| {}, "timed out (write) by the runtime: 1 bytes in, 2 bytes out"),
        (|r| r.unsent = 64, "timed out (write) by the runtime: 1 bytes in, 2 bytes out, 64 unsent"),
        (|r| r.unread = 5, "timed out (write) by the runtime: 1 bytes in, 2 bytes out, 5 unread"),
        (
            |r| (r.unsent, r.unread, r.refused) = (1, 2, 3),
            "timed out (write) by the runtime: 1 bytes in, 2 bytes out, 1 unsent, 2 unread, \
             3 written too late",
        ),
        (
            |r| r.cause = Some(Cause::new(io::Error::other("it rains"))),
            "timed out (write) by the runtime (it rains): 1 bytes in, 2 bytes out",
        ),
    ];
    for (change, sentence) in cases {
        let mut reason = reason();
        change(&mut reason);
        assert_eq!(reason.to_string(), format!("{sentence}, open for 30.0 s"));
    }
}

#[test]
fn a_reason_gives_each_of_its_parts() {
    let mut whole = reason();
    (whole.unsent, whole.unread, whole.refused, whole.peer_finished) = (3, 4, 5, true);
    whole.cause = Some(Cause::new(io::Error::other("it rains")));
    assert_eq!((whole.by(), whole.kind()), (By::Runtime, CloseKind::TimedOut(Deadline::Write)));
    assert_eq!((whole.bytes_in(), whole.bytes_out()), (1, 2));
    assert_eq!((whole.unsent(), whole.unread(), whole.refused()), (3, 4, 5));
    assert_eq!((whole.age(), whole.peer_finished()), (Duration::from_millis(30_049), true));
    assert_eq!(whole.error().unwrap().to_string(), "it rains");
    assert!(reason().error().is_none() && !reason().peer_finished());
}

#[test]
fn connect_errors_are_told_apart_and_blamed_on_whoever_caused_them() {
    use ConnectFailure as Connect;
    let cases = [
        (libc::ECONNREFUSED, Connect::Refused, By::Peer),
        (libc::ENETUNREACH, Connect::Unreachable, By::Peer),
        (libc::EHOSTUNREACH, Connect::Unreachable, By::Peer),
        (libc::ENETDOWN, Connect::Unreachable, By::Peer),
        (libc::EADDRNOTAVAIL, Connect::AddressUnavailable, By::Runtime),
        (libc::EADDRINUSE, Connect::AddressUnavailable, By::Runtime),
        (libc::EINVAL, Connect::AddressUnavailable, By::Runtime),
        (libc::EACCES, Connect::PermissionDenied, By::Runtime),
        (libc::EPERM, Connect::PermissionDenied, By::Runtime),
        (libc::EOPNOTSUPP, Connect::Unsupported, By::Runtime),
        (libc::EAFNOSUPPORT, Connect::Unsupported, By::Runtime),
        (libc::EMFILE, Connect::Exhausted, By::Runtime),
        (libc::ENFILE, Connect::Exhausted, By::Runtime),
        (libc::ENOBUFS, Connect::Exhausted, By::Runtime),
        (libc::ENOMEM, Connect::Exhausted, By::Runtime),
        (libc::ENOSPC, Connect::Exhausted, By::Runtime),
        (libc::EAGAIN, Connect::Exhausted, By::Runtime),
        (libc::EPIPE, Connect::Other, By::Peer),
    ];
    for (errno, failure, by) in cases {
        let error = io::Error::from_raw_os_error(errno);
        assert_eq!(Connect::of(&error), failure, "{error}");
        assert_eq!(failure.by(), by, "{failure:?}");
    }
    for failure in [Connect::Limit, Connect::Cancelled, Connect::Name, Connect::Options] {
        assert_eq!(failure.by(), By::Runtime);
    }
    let rejected = crate::error::rejected("nodelay")(io::Error::from_raw_os_error(libc::EINVAL));
    assert_eq!(Connect::of(&rejected), Connect::Options);
}

#[test]
fn d1_a_connect_that_the_system_gives_up_has_timed_out() {
    let end = |errno| failed_connect(&io::Error::from_raw_os_error(errno));
    assert_eq!(end(libc::ETIMEDOUT), (By::Runtime, CloseKind::TimedOut(Deadline::Connect)));
    let refused = CloseKind::Connect(ConnectFailure::Refused);
    assert_eq!(end(libc::ECONNREFUSED), (By::Peer, refused));
    let exhausted = CloseKind::Connect(ConnectFailure::Exhausted);
    assert_eq!(end(libc::ENFILE), (By::Runtime, exhausted));
}

#[test]
fn b16_b20_what_fails_at_home_is_not_the_peers_and_a_peer_that_vanished_is() {
    let end = |errno| failed_transfer(&io::Error::from_raw_os_error(errno));
    let at_home = [
        libc::ENOMEM,
        libc::ENOBUFS,
        libc::EACCES,
        libc::EPERM,
        libc::EINVAL,
        libc::EMSGSIZE,
        libc::EBADF,
    ];
    for errno in at_home {
        assert_eq!(end(errno), (By::Runtime, CloseKind::SystemError), "{errno}");
    }
    let outside = [
        libc::ETIMEDOUT,
        libc::ECONNRESET,
        libc::EPIPE,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::ENETDOWN,
        libc::ECONNREFUSED,
        libc::ENOTCONN,
    ];
    for errno in outside {
        assert_eq!(end(errno), (By::Peer, CloseKind::Reset), "{errno}");
    }
}

#[test]
fn the_errors_of_several_addresses_are_told_in_their_order() {
    let end = |port| Endpoint::from(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
    let mut errors = AddressErrors::default();
    assert_eq!(errors.to_string(), "");
    errors.push(end(1), io::Error::other("first"));
    assert_eq!(errors.to_string(), "127.0.0.1:1: first");
    errors.push(end(2), io::Error::other("second"));
    errors.push_late([end(3)], [end(4), end(5)]);
    let told = "127.0.0.1:1: first; 127.0.0.1:2: second; 127.0.0.1:3: no answer; \
                127.0.0.1:4: not tried in time; 127.0.0.1:5: not tried in time";
    assert_eq!(errors.to_string(), told);
    let late = errors.iter().filter(|(_, error)| error.kind() == io::ErrorKind::TimedOut);
    assert_eq!(late.map(|(addr, _)| addr).collect::<Vec<_>>(), [end(3), end(4), end(5)]);
}

#[test]
fn of_several_addresses_a_refusal_says_most_and_silence_more_than_the_rest() {
    let refused = || io::Error::from_raw_os_error(libc::ECONNREFUSED);
    let unreachable = || io::Error::from_raw_os_error(libc::EHOSTUNREACH);
    let failed = |failure: ConnectFailure| CloseKind::Connect(failure);
    let silent = CloseKind::TimedOut(Deadline::Connect);
    let cases = [
        (vec![unreachable(), no_answer(), refused()], failed(ConnectFailure::Refused), By::Peer),
        (vec![unreachable(), no_answer()], silent, By::Runtime),
        (vec![no_answer(), unreachable()], silent, By::Runtime),
        (vec![unreachable()], failed(ConnectFailure::Unreachable), By::Peer),
        (vec![], failed(ConnectFailure::Name), By::Runtime),
    ];
    for (errors, kind, by) in cases {
        let mut failures = AddressErrors::default();
        errors.into_iter().for_each(|error| failures.push(Endpoint::Other, error));
        let said = failures.to_string();
        let end = failures.into_end();
        assert_eq!((end.0, end.1), (by, kind), "{said}");
    }
}
