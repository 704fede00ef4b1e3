//! What the threads of a connection do next, and whom they call.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use super::rig::{Quiet, Rig, hub};
use crate::blocking::bell::lock;
use crate::blocking::cell::Cell;
use crate::blocking::hub::Desk;
use crate::blocking::pool::{Job, Pool};
use crate::blocking::reader;
use crate::blocking::roster::Entered;
use crate::blocking::system;
use crate::blocking::timeouts::log_timeout;
use crate::blocking::worker::{Next, Role, Shown, Worker};
use crate::buffer::ChunkPool;
use crate::connection::{Connection, Consumed, Due, Flags, Round};
use crate::endpoint::Endpoint;
use crate::episode::tests::kept::lines_of;
use crate::handle::Post;
use crate::limits::{DriverLimits, Limits};
use crate::note::Note;
use crate::protocol::{
    Boxed, Callback, Context, Effect, Input, Outcome, Protocol, SocketInfo, Successor,
};
use crate::reason::{CloseKind, CloseReason};
use crate::sync::atomic::Ordering;

const NEVER: u64 = u64::MAX;

/// Writes its callbacks down, and leaves input as planned.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    fn add(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Protocol for Recorder {
    fn opened(&mut self, _: &mut Context<'_>) -> Outcome {
        self.add("opened");
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.add(format!("data of {}", input.len()));
        Ok(())
    }
    fn eof(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.add(format!("eof of {}", input.len()));
        input.consume(1);
        cx.close();
        Ok(())
    }
    fn notified(&mut self, _: &mut Context<'_>, _: Note) -> Outcome {
        self.add("notified");
        Ok(())
    }
    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.add(format!("closed {}, {} unread", reason.kind(), reason.unread()));
    }
}

// ---- effects ------------------------------------------------------------------------------------

/// Tells in its drop whether effects are being applied.
struct Probe(Arc<Cell>, Recorder);

impl Drop for Probe {
    fn drop(&mut self) {
        self.1.add(if lock(&self.0.member).applying { "applying" } else { "not applying" });
    }
}

#[test]
fn effects_are_applied_without_the_lock_and_callbacks_that_are_due_wait_for_them() {
    let seen = Recorder::default();
    let mut rig = Rig::accepted(Limits::default(), seen.clone());
    let cell = Arc::clone(&rig.cell);
    assert!(matches!(rig.worker(Role::Reader).advance(), Next::Read { .. }));
    assert_eq!(seen.take(), ["opened"]);
    // A companion, which sleeps.
    assert!(cell.companions.call_or_hire(0) && cell.companions.wait(0, &rig.hub.clock));
    assert_eq!(rig.calls(), (false, false));
    // A note for nobody is dropped where it is delivered.
    let nobody = lock(&rig.hub.ids).reserve();
    rig.hub.release(nobody);
    let note = Note::new(Probe(Arc::clone(&cell), seen.clone()));
    rig.desk.shared.effects.list.push(Effect::Notify { to: nobody, note });
    rig.worker(Role::Reader).settle(lock(&cell.member), Shown::Nothing, Callback::Data, None);
    assert_eq!(seen.take(), ["applying"]);
    assert!(!rig.member().applying);
    assert_eq!(rig.calls(), (true, true), "both look for what had to wait");
    // Without effects nobody is called.
    rig.worker(Role::Reader).settle(lock(&cell.member), Shown::Nothing, Callback::Data, None);
    assert_eq!(rig.calls(), (false, false));
    // Meanwhile a thread waits for its bell, whatever is due, unless the connection has ended.
    assert!(rig.member().conn.handle_note(Note::new(())).is_ok());
    rig.member().applying = true;
    for role in [Role::Reader, Role::Companion] {
        assert!(matches!(rig.worker(role).advance(), Next::Wait { until: NEVER }));
    }
    assert!(seen.take().is_empty());
    rig.member().applying = false;
    assert!(matches!(rig.worker(Role::Companion).advance(), Next::Wait { .. }));
    assert_eq!(seen.take(), ["notified"]);
    assert!(rig.calls().0, "the reader looks for what has changed");
    rig.member().conn.want_abort();
    assert!(matches!(rig.worker(Role::Reader).advance(), Next::End));
    rig.member().applying = true;
    assert!(matches!(rig.worker(Role::Companion).advance(), Next::End));
}

#[test]
fn what_was_asked_while_the_reader_slept_comes_before_the_input_that_wakes_it() {
    let seen = Recorder::default();
    let rig = Rig::accepted(Limits::default(), seen.clone());
    let (hub, cell) = (Arc::clone(&rig.hub), Arc::clone(&rig.cell));
    let reader = std::thread::spawn(move || {
        reader::serve(&hub, &mut Desk::new(&hub), &cell);
    });
    while !rig.cell.reader.is_away() {
        std::thread::yield_now();
    }
    rig.hub.posted.fetch_add(1, Ordering::AcqRel);
    assert!(rig.cell.deliver(Post::Close(rig.id())).is_ok());
    rig.send(b"later");
    rig.peer.shutdown(Shutdown::Write).unwrap();
    reader.join().unwrap();
    let lines = seen.take();
    assert_eq!(lines[0], "opened");
    assert!(lines[1].starts_with("closed finished") && lines.len() == 2, "{lines:?}");
}

#[test]
fn a_companion_that_has_done_what_was_asked_calls_the_reader_and_else_lets_it_sleep() {
    let mut rig = Rig::open(Limits::default());
    for asked in [true, false] {
        if asked {
            rig.hub.posted.fetch_add(1, Ordering::AcqRel);
            assert!(rig.cell.deliver(Post::ShutdownWrite(rig.id())).is_ok());
        }
        assert!(matches!(rig.worker(Role::Companion).advance(), Next::Wait { .. }));
        assert_eq!(rig.calls().0, asked);
        assert_eq!(rig.hub.posted.load(Ordering::Acquire), 0);
    }
}

// ---- sleeping for room --------------------------------------------------------------------------

#[test]
fn the_reader_sleeps_for_room_once_for_a_moment_and_leaves_it_to_a_companion_then() {
    let mut rig = Rig::open(Limits::default());
    let cell = Arc::clone(&rig.cell);
    rig.queue_stuck(b"ab");
    let mut desk = Desk::new(&rig.hub);
    let hub = Arc::clone(&rig.hub);
    let mut worker = Worker::new(&hub, &cell, &mut desk, Role::Reader);
    for round in 0..2 {
        assert!(matches!(worker.advance(), Next::Write { byte: b'a' }), "round {round}");
        let mut member = lock(&cell.member);
        assert!(member.writing && member.reader_writes);
        // In vain.
        (member.writing, member.reader_writes) = (false, false);
        drop(member);
        cell.reader.come_back();
        for _ in 0..2 {
            assert!(matches!(worker.advance(), Next::Read { .. }), "round {round}");
            assert_eq!(worker.companion_at, 0, "round {round}");
            cell.reader.come_back();
        }
        // There is room: the next time it sleeps itself again.
        lock(&cell.member).conn.handle_ready(Flags::WRITABLE);
        assert!(matches!(worker.advance(), Next::Read { .. }));
        assert_eq!((worker.companion_at, lock(&cell.member).conn.unsent()), (NEVER, 0));
        cell.reader.come_back();
        rig.queue_stuck(b"ab");
    }
}

#[test]
fn a_thread_that_has_slept_for_room_counts_what_has_left_and_others_go_on() {
    let mut rig = Rig::open(Limits::default());
    rig.queue_stuck(b"ab");
    assert!(matches!(rig.worker(Role::Reader).advance(), Next::Write { byte: b'a' }));
    rig.worker(Role::Reader).sleep_for_room(b'a');
    let member = rig.member();
    assert!(!member.writing && !member.reader_writes);
    assert_eq!((member.conn.unsent(), member.conn.has_output()), (1, true));
    drop(member);
    let metrics = &rig.desk.shared.metrics;
    assert_eq!((metrics.writes, metrics.bytes_out), (1, 1));
}

// ---- input that is left -------------------------------------------------------------------------

#[test]
fn what_eof_leaves_is_lost_and_counted() {
    let seen = Recorder::default();
    let mut rig = Rig::accepted(Limits::default(), seen.clone());
    rig.send(b"abc");
    rig.peer.shutdown(Shutdown::Write).unwrap();
    reader::serve(&rig.hub, &mut rig.desk, &rig.cell);
    let lines = ["opened", "data of 3", "eof of 3", "closed finished, 2 unread"];
    assert_eq!(seen.take(), lines);
    assert!(rig.hub.cell(rig.id()).is_none());
}

#[test]
fn what_eof_leaves_is_kept_for_no_later_callback_but_for_a_protocol_that_takes_over() {
    for replaced in [false, true] {
        let mut rig = Rig::open(Limits::default());
        let mut chunks = ChunkPool::default();
        let mut member = rig.member();
        member.conn.handle_read(3, 3, 1);
        member.conn.handle_wire(&mut b"abc".to_vec(), &mut chunks, 1);
        member.conn.handle_fin();
        let round = &mut Round::default();
        let mut due = std::iter::from_fn(|| member.conn.poll_due(round));
        assert!(due.any(|due| matches!(due, Due::Eof)));
        let unread = member.conn.lend_unread();
        assert_eq!(unread.len(), 3);
        drop(member);
        if replaced {
            let protocol = Boxed::Anywhere(Box::new(Quiet));
            let successor = Successor { protocol, feed: true };
            rig.desk.shared.effects.list.push(Effect::Replace(successor));
        }
        let consumed = Consumed { left: 2, need: 0 };
        let shown = Shown::Unread(unread, consumed);
        let cell = Arc::clone(&rig.cell);
        rig.worker(Role::Reader).settle(lock(&cell.member), shown, Callback::Eof, None);
        let member = rig.member();
        let kept = member.conn.queues().map_or(0, |queues| queues.unread.len());
        assert_eq!(kept, if replaced { 2 } else { 0 });
        assert_eq!(member.conn.flags().any(Flags::UNREAD), replaced);
    }
}

// ---- threads ------------------------------------------------------------------------------------

#[test]
fn a_reader_that_waits_for_a_companion_hears_that_it_could_not_be_started() {
    let rig = Rig::open(Limits::default());
    lock(&rig.hub.state).pool = Pool::new(0);
    // The only one.
    assert!(rig.cell.companions.call_or_hire(0));
    rig.calls();
    let (lines, ()) = lines_of(|| rig.hub.begin(Job::Accompany(Arc::clone(&rig.cell))));
    assert!(lines[0].1.starts_with("cannot start a thread: 0 threads are at work"), "{lines:?}");
    assert!(rig.cell.reader.wait(0, &rig.hub.clock), "else it would wait for ever");
    let mut member = rig.member();
    rig.cell.take_signals(&mut member.conn);
    assert!(member.conn.flags().any(Flags::ENDED) && rig.cell.companions.close());
    drop(member);
    // Where another is left, it does all that the second was for.
    let rig = Rig::open(Limits::default());
    lock(&rig.hub.state).pool = Pool::new(0);
    assert!(rig.cell.companions.call_or_hire(0));
    assert!(!rig.cell.companions.go_away() && rig.cell.companions.go_away());
    assert!(rig.cell.companions.call_or_hire(0));
    rig.hub.begin(Job::Accompany(Arc::clone(&rig.cell)));
    assert!(rig.cell.reader.wait(0, &rig.hub.clock));
    assert!(!rig.cell.has_requests());
}

#[test]
fn a_socket_that_has_left_is_not_shut_by_a_companion_that_could_not_be_started() {
    let mut rig = Rig::open(Limits::default());
    assert!(rig.cell.companions.call_or_hire(0));
    let socket = rig.cell.socket.get().unwrap();
    let own = socket.second().unwrap();
    drop(socket);
    rig.member().conn.want_detach(own);
    assert!(matches!(rig.worker(Role::Reader).advance(), Next::End));
    assert!(rig.cell.socket.get().is_none());
    lock(&rig.hub.state).pool = Pool::new(0);
    rig.hub.begin(Job::Accompany(Arc::clone(&rig.cell)));
    let detached = rig.member().conn.take_detached().unwrap();
    let mut socket = UnixStream::from(detached.socket);
    socket.write_all(b"x").unwrap();
    rig.peer.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_connection_enters_too_late_where_the_driver_stops_and_beyond_its_places() {
    for (draining, stopping, full, entered) in [
        (false, false, false, Entered::Welcome),
        (false, false, true, Entered::TooMany),
        (false, true, false, Entered::Late),
        (true, false, false, Entered::Late),
        (true, true, true, Entered::Late),
    ] {
        let (hub, _) = hub(DriverLimits { connections_max: 1, ..DriverLimits::default() });
        lock(&hub.state).draining = draining;
        if stopping {
            hub.shutdown();
        }
        lock(&hub.state).open = u64::from(full);
        for adopted in [false, true] {
            let id = lock(&hub.ids).reserve();
            let conn = Connection::connecting(id, Endpoint::Other, Arc::default(), 0);
            let cell = Cell::new(id, conn, Box::new(Quiet), None);
            let open = lock(&hub.state).open;
            let was = hub.enter_asked(&cell, adopted);
            let expected = if adopted && entered == Entered::Welcome {
                // The first one has taken the place.
                Entered::TooMany
            } else {
                entered
            };
            assert!(was == expected, "{draining} {stopping} {full} {adopted}");
            assert_eq!(lock(&hub.state).open, open + 1, "it counts until it has left");
            assert!(hub.cell(id).is_some());
        }
        let metrics = hub.metrics();
        assert_eq!((metrics.connects, metrics.accepted), (1, 1));
    }
}

// ---- the log ------------------------------------------------------------------------------------

#[test]
fn what_a_socket_does_not_take_or_give_is_a_line_in_the_log() {
    let error = || io::Error::from_raw_os_error(libc::EINVAL);
    let (lines, ()) = lines_of(|| log_timeout(&error()));
    let line = format!("cannot set a time-out: {}", error());
    assert_eq!(lines, [(log::Level::Debug, line)]);
    // A reset is found by a read, and says whose it is.
    let seen = Recorder::default();
    let mut rig = Rig::accepted(Limits::default(), seen.clone());
    system::send(&rig.cell.socket.get().unwrap(), b"unread").unwrap();
    rig.peer = UnixStream::pair().unwrap().0;
    let (lines, ()) = lines_of(|| reader::serve(&rig.hub, &mut rig.desk, &rig.cell));
    let peer = Endpoint::Other;
    let error = io::Error::from_raw_os_error(libc::ECONNRESET);
    let mut lines = lines.into_iter();
    assert_eq!(lines.next(), Some((log::Level::Debug, format!("{peer}: {error}"))));
    let (level, line) = lines.next().unwrap();
    assert_eq!(level, log::Level::Debug);
    assert!(line.starts_with(&format!("{} {peer}: reset by the peer", rig.id())), "{line}");
    let kind = CloseKind::Reset;
    assert_eq!(seen.take(), ["opened".to_owned(), format!("closed {kind}, 0 unread")]);
}
