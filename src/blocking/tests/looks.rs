//! Before something is done that is due: what has happened at the socket comes first.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::rig::Rig;
use crate::blocking::bell::lock;
use crate::blocking::cell::Member;
use crate::blocking::system;
use crate::blocking::worker::{Role, Worker};
use crate::connection::{Connection, Flags};
use crate::limits::Limits;
use crate::reason::{By, CloseKind};

const MILLISECOND: u64 = 1_000_000;
/// How long a companion waits for a reader that is away.
const PATIENCE: u64 = 3_000 * MILLISECOND;
/// A deadline that is noticed later than this was slept through.
const LATE: u64 = 50 * MILLISECOND;
/// When a connection is idle that has moved nothing since 0.
const DUE: u64 = 1_001 * MILLISECOND;

fn limits() -> Limits {
    let second = Duration::from_secs(1);
    Limits { idle: Some(second), write_stall: second, ..Limits::default() }
}

/// What `look` finds in a thread of this role.
fn look<R>(rig: &mut Rig, look: impl FnOnce(&mut Worker<'_>, &mut Member) -> R, role: Role) -> R {
    let cell = rig.cell.clone();
    let mut member = lock(&cell.member);
    look(&mut rig.worker(role), &mut member)
}

fn change(rig: &Rig, change: impl FnOnce(&mut Connection)) {
    change(&mut rig.member().conn);
}

fn close(conn: &mut Connection) {
    conn.begin_close(By::Us, CloseKind::Finished, None);
}

/// Whether a deadline is put off, in the first look of a thread and in the second.
fn put_off(rig: &mut Rig, role: Role, due: u64, times: [u64; 2]) -> [bool; 2] {
    look(rig, |worker, member| times.map(|now| worker.is_put_off(member, due, now)), role)
}

#[test]
fn the_reader_puts_a_deadline_off_once_for_input_that_waits() {
    let times = [DUE, DUE + 1];
    let mut rig = Rig::open(limits());
    assert_eq!(put_off(&mut rig, Role::Reader, DUE, times), [false, false]);
    rig.send(b"in time");
    assert_eq!(put_off(&mut rig, Role::Reader, DUE, times), [true, false]);
    look(
        &mut rig,
        |worker, member| {
            assert!(worker.is_put_off(member, DUE, DUE) && !worker.is_put_off(member, DUE, DUE));
            assert!(worker.is_put_off(member, DUE + 1, DUE + 1), "another deadline");
        },
        Role::Reader,
    );
    // The end of the stream is something to read as well.
    let mut rig = Rig::open(limits());
    rig.peer = UnixStream::pair().unwrap().0;
    assert_eq!(put_off(&mut rig, Role::Reader, DUE, times), [true, false]);
    // So is an error, which this look has taken from the read.
    let mut rig = Rig::open(limits());
    system::send(&rig.cell.socket.get().unwrap(), b"unread").unwrap();
    rig.peer = UnixStream::pair().unwrap().0;
    assert_eq!(put_off(&mut rig, Role::Reader, DUE, times), [true, false]);
    assert!(rig.member().conn.flags().any(Flags::BROKEN | Flags::ENDED));
    assert_eq!(rig.member().conn.decided(DUE).unwrap().kind(), CloseKind::Reset);
    // Where nothing is read, input is no reason.
    let never: [fn(&mut Connection); 2] = [Connection::want_pause, close];
    for never in never {
        let mut rig = Rig::open(limits());
        rig.send(b"in time");
        change(&rig, never);
        assert_eq!(put_off(&mut rig, Role::Reader, DUE, times), [false, false]);
    }
}

#[test]
fn a_companion_puts_a_deadline_off_while_the_reader_may_be_bringing_input() {
    // Nothing waits, and the reader listens: it would know.
    let mut rig = Rig::open(limits());
    let late = [DUE, DUE + PATIENCE - 1];
    assert_eq!(put_off(&mut rig, Role::Companion, DUE, late), [false, false]);
    // It sleeps, or has read: that is given some time, from the first look on.
    assert!(rig.cell.reader.go_away());
    let begun = DUE + 500;
    for (now, waits) in [(begun + 1, true), (begun + PATIENCE - 1, true), (begun + PATIENCE, false)]
    {
        let found = put_off(&mut rig, Role::Companion, DUE, [begun, now]);
        assert_eq!(found, [true, waits], "{now}");
    }
    rig.cell.reader.come_back();
    // What waits in the socket it takes next, however long that lasts.
    rig.send(b"in time");
    let ever = [DUE, u64::MAX - 1];
    assert_eq!(put_off(&mut rig, Role::Companion, DUE, ever), [true, true]);
    // Once it has brought some, the rest may have come later.
    look(
        &mut rig,
        |worker, member| {
            assert!(worker.is_put_off(member, DUE, DUE));
            member.conn.handle_shown(1);
            assert!(!worker.is_put_off(member, DUE, DUE + 1));
            assert!(worker.cell.reader.go_away());
            assert!(worker.is_put_off(member, DUE, DUE + 1), "and may bring more");
            assert!(!worker.is_put_off(member, DUE, DUE + PATIENCE));
        },
        Role::Companion,
    );
}

#[test]
fn a_stall_that_was_slept_through_is_put_off_by_room_that_has_come_meanwhile() {
    let no_idle = || Limits { idle: None, ..limits() };
    for role in [Role::Reader, Role::Companion] {
        let mut rig = Rig::open(no_idle());
        rig.send(b"input is no reason");
        rig.queue_stuck(b"output");
        let due = rig.member().conn.poll_deadline_beside(false);
        assert!((DUE..DUE + 2 * MILLISECOND).contains(&due));
        // At the bound the system itself has said that there is no room.
        assert_eq!(put_off(&mut rig, role, due, [due, due + LATE]), [false, false]);
        assert_eq!(rig.member().conn.unsent(), 6);
        // A thread that sleeps in a write has its own deadline.
        rig.member().writing = true;
        assert_eq!(put_off(&mut rig, role, due, [due + LATE + 1; 2]), [false, false]);
        rig.member().writing = false;
        assert_eq!(put_off(&mut rig, role, due, [due + LATE + 1; 2])[..1], [true]);
        assert_eq!(rig.member().conn.unsent(), 0);
    }
    // Where there is none, it stays.
    let mut rig = Rig::open(no_idle());
    let socket = rig.cell.socket.get().unwrap();
    while system::send(&socket, &[7; 4096]).is_ok() {}
    rig.queue_stuck(b"output");
    let due = rig.member().conn.poll_deadline_beside(false);
    assert_eq!(put_off(&mut rig, Role::Reader, due, [due + LATE + 1; 2]), [false, false]);
    assert!(rig.member().conn.is_stuck());
}

/// Whether a timer that was due at `at` waits for input, in the first look and in the second.
fn waits(rig: &mut Rig, at: u64, times: [u64; 2]) -> [bool; 2] {
    let ask = |worker: &mut Worker<'_>, member: &mut Member| {
        times.map(|now| worker.is_input_first(member, at, now))
    };
    look(rig, ask, Role::Companion)
}

#[test]
fn a_timer_waits_for_input_that_came_before_it_was_due() {
    let mut rig = Rig::open(limits());
    assert_eq!(waits(&mut rig, 100, [100, 200]), [false, false]);
    rig.send(b"in time");
    assert_eq!(waits(&mut rig, 100, [100, u64::MAX - 1]), [true, true]);
    // Where nothing is read, it is no reason.
    let never: [fn(&mut Member); 3] = [
        |member| member.reader_writes = true,
        |member| member.conn.want_pause(),
        |member| close(&mut member.conn),
    ];
    for never in never {
        let mut rig = Rig::open(limits());
        rig.send(b"in time");
        never(&mut rig.member());
        assert_eq!(waits(&mut rig, 100, [100, 200]), [false, false]);
    }
}

#[test]
fn a_late_timer_waits_as_long_as_it_is_late_for_a_reader_that_is_away() {
    let mut rig = Rig::open(limits());
    assert!(rig.cell.reader.go_away());
    assert_eq!(waits(&mut rig, 100, [100, 101]), [false, false], "one on time stays so");
    assert_eq!(waits(&mut rig, 100, [130, 159]), [true, true]);
    assert_eq!(waits(&mut rig, 100, [130, 160]), [true, false]);
    let late = 100 + 9 * PATIENCE;
    assert_eq!(waits(&mut rig, 100, [late, late + PATIENCE - 1]), [true, true]);
    assert_eq!(waits(&mut rig, 100, [late, late + PATIENCE]), [true, false]);
    // What has been read is not what was waited for.
    rig.send(b"more");
    look(
        &mut rig,
        |worker, member| {
            assert!(worker.is_input_first(member, 100, 130));
            member.conn.handle_shown(1);
            assert!(worker.is_input_first(member, 100, 159));
            assert!(!worker.is_input_first(member, 100, 160));
            assert!(worker.is_input_first(member, 101, 160), "another timer");
        },
        Role::Companion,
    );
    assert!(!rig.member().conn.flags().any(Flags::ENDED));
}

#[test]
fn no_silence_is_put_off_while_a_connection_lingers_and_its_reader_sleeps() {
    let due = 2_001 * MILLISECOND;
    let mut rig = Rig::open(limits());
    change(&rig, |conn| {
        close(conn);
        conn.handle_wishes(&mut Default::default(), 0, false);
        conn.handle_fin_sent(0);
    });
    assert!(rig.cell.reader.go_away());
    assert_eq!(put_off(&mut rig, Role::Companion, due, [due, due + 1]), [false, false]);
    assert_eq!(put_off(&mut rig, Role::Reader, due, [due, due + 1]), [false, false]);
}
