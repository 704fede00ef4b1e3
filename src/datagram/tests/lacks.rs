//! Receives that fail for lack of a resource.

use std::time::Duration;

use log::Level;

use super::*;
use crate::episode::OVER;
use crate::episode::tests::kept::lines_of;
use crate::metrics::Metrics;
use crate::reason::{By, CloseKind};

fn fails(state: &mut State, errno: i32, now: u64) {
    let failed = Err(io::Error::from_raw_os_error(errno));
    assert_eq!(state.handle_read(&failed, &mut Metrics::default(), now), Read::Told);
}

fn receives(state: &mut State, now: u64) {
    let received = Received { len: 1, from: port(1), to: None, ecn: None, calls: 1 };
    state.handle_read(&Ok(received), &mut Metrics::default(), now);
}

#[test]
fn a_lack_pauses_reading_and_counts_towards_no_end() {
    let mut state = open(|_| {});
    let mut now = 0;
    for round in 0..200 {
        let errno = [libc::ENOMEM, libc::ENOBUFS, libc::EMFILE, libc::ENFILE][round % 4];
        fails(&mut state, errno, now);
        let until = now + (10 << round.min(10)).min(1000) * MILLISECOND;
        assert_eq!(state.paused_until(), Some(until), "{round}");
        // An event changes nothing, and nobody is told of an end: it is no deadline.
        state.handle_ready(true, true);
        state.handle_retry(until - 1);
        assert!(!state.may_read() && !state.has_work() && state.deadline_at() == u64::MAX);
        state.handle_retry(until);
        assert!(state.may_read() && state.paused_until().is_none());
        now = until;
    }
    // Other failures are in a row all the same.
    for _ in 0..63 {
        fails(&mut state, libc::EIO, now);
        fails(&mut state, libc::ENOMEM, now);
    }
    assert_eq!(state.phase(), Phase::Open);
    fails(&mut state, libc::EIO, now);
    assert_eq!((state.phase(), state.paused_until()), (Phase::Ended, None));
}

#[test]
fn a_lack_is_logged_once_and_again_when_it_had_been_over() {
    let mut state = open(|_| {});
    let id = state.id();
    let lack = io::Error::from_raw_os_error(libc::ENOMEM);
    let begins = (Level::Warn, format!("{id}: cannot receive: {lack}; it pauses"));
    let (lines, ()) = lines_of(|| {
        fails(&mut state, libc::ENOMEM, 0);
        receives(&mut state, 10 * MILLISECOND);
        assert!(state.may_read(), "the pause is over with what comes");
        fails(&mut state, libc::ENOMEM, 10 * MILLISECOND);
        assert_eq!(state.paused_until(), Some(30 * MILLISECOND), "the lack is not");
        receives(&mut state, 10 * MILLISECOND + OVER - 1);
    });
    let told = begins.clone();
    assert_eq!(lines, [told]);
    let now = 10 * MILLISECOND + OVER;
    let (lines, ()) = lines_of(|| {
        receives(&mut state, now);
        fails(&mut state, libc::ENOMEM, now);
    });
    let over = format!("{id}: receiving again after 2 failed receives");
    assert_eq!(lines, [(Level::Info, over), begins]);
    assert_eq!(state.paused_until(), Some(now + 10 * MILLISECOND), "the first pause again");
    // Without a datagram between, a failure long after is the next lack as well.
    let (lines, ()) = lines_of(|| fails(&mut state, libc::ENOMEM, now + OVER));
    assert_eq!(lines.len(), 1);
    assert_eq!(state.paused_until(), Some(now + OVER + 10 * MILLISECOND));
}

#[test]
fn a_pause_ends_where_the_socket_would_and_a_socket_that_closes_has_none() {
    let mut state = open(|o| o.idle = Some(Duration::from_millis(5)));
    let end = state.deadline_at();
    for now in [7, end - 1] {
        fails(&mut state, libc::ENOMEM, now);
        assert_eq!(state.paused_until(), Some(end));
    }
    fails(&mut state, libc::ENOMEM, end);
    assert!(state.paused_until() > Some(end), "the end is decided elsewhere");
    state.want_close();
    state.handle_wishes(&mut Metrics::default(), end);
    assert_eq!((state.phase(), state.paused_until()), (Phase::Ended, None));
    let reason = state.decided(end).unwrap();
    assert_eq!((reason.by(), reason.kind()), (By::Us, CloseKind::Finished));
}
