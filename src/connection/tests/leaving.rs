//! What a tap sees, and how a socket leaves the driver.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::{Connection, Flags, Queued, Written};
use super::rig::{MILLISECOND, small_limits};
use super::toy::Toy;
use crate::buffer::ChunkPool;
use crate::endpoint::Endpoint;
use crate::guard::GuardedBytes;
use crate::id::{Ids, ListenerId};
use crate::limits::Limits;
use crate::reason::{By, CloseKind, CloseReason};
use crate::tap::{Tap, Tapped};

const NOW: u64 = 1000 * MILLISECOND;
/// When a tap is set, by the clock on the wall.
const WALL: Duration = Duration::from_secs(1_000_000);

fn conn(limits: Limits) -> Connection {
    let (id, listener) = (Ids::default().reserve(), ListenerId::new(3));
    Connection::accepted(id, Some(listener), peer(), Arc::new(limits), NOW)
}

fn peer() -> Endpoint {
    ([127, 0, 0, 1], 7000).into()
}

fn local() -> Endpoint {
    ([127, 0, 0, 2], 80).into()
}

// ---- taps ---------------------------------------------------------------------------------------

/// Notes each call, its bytes and when it came.
#[derive(Clone, Default)]
struct Notes {
    calls: Arc<Mutex<Vec<String>>>,
    panics: bool,
}

impl Notes {
    fn note(&self, at: &Tapped, what: &str, bytes: &[u8]) {
        assert_eq!((at.listener(), at.peer_addr()), (Some(ListenerId::new(3)), peer()));
        assert_eq!(at.local_addr(), Some(local()));
        assert!(!self.panics, "as it was asked to");
        let millis = at.time().duration_since(UNIX_EPOCH + WALL).unwrap().as_millis();
        self.calls.lock().unwrap().push(format!("{millis} {what} {}", bytes.escape_ascii()));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

impl Tap for Notes {
    fn received(&mut self, at: &Tapped, bytes: &[u8]) {
        self.note(at, "in", bytes);
    }

    fn sent(&mut self, at: &Tapped, bytes: &[u8]) {
        self.note(at, "out", bytes);
    }

    fn closed(&mut self, at: &Tapped, reason: &CloseReason) {
        self.note(at, "end", reason.kind().to_string().as_bytes());
    }
}

fn tap(conn: &mut Connection, notes: &Notes, since: u64) {
    conn.put_tap(Box::new(notes.clone()), Some(local()), since, SystemTime::UNIX_EPOCH + WALL);
}

#[test]
fn a_tap_sees_each_byte_once_and_the_time_of_it() {
    let pool = &mut ChunkPool::default();
    let notes = Notes::default();
    let mut conn = conn(small_limits());
    conn.handle_wire(&mut [*b"a", *b"b"].concat(), pool, NOW);
    assert!(notes.take().is_empty());
    tap(&mut conn, &notes, NOW);
    assert_eq!(notes.take(), ["0 in ab"], "what is unread is new to it");
    let unread = conn.queues().unwrap().unread.as_slice().to_vec();
    assert_eq!(unread, b"ab", "and still there");
    conn.handle_wire(&mut b"cd".to_vec(), pool, NOW + 3 * MILLISECOND);
    assert_eq!(notes.take(), ["3 in cd"]);
    conn.tap_sent(b"own", NOW + 4 * MILLISECOND);
    let late = NOW + 5 * MILLISECOND;
    let queued = conn.take_queued(Written::Copied(b"copy"), false, pool, late);
    assert_eq!(queued, Queued::Waiting);
    let shared = Written::Shared(GuardedBytes::new(b"shared".to_vec()));
    assert_eq!(conn.take_queued(shared, false, pool, late), Queued::Waiting);
    assert_eq!(notes.take(), ["4 out own", "5 out copy", "5 out shared"]);
    conn.want_close();
    conn.handle_wishes(pool, late, false);
    let refused = conn.take_queued(Written::Copied(b"late"), false, pool, late);
    assert_eq!((refused, notes.take()), (Queued::Refused, vec![]));
    let reason = conn.decided(late).unwrap();
    conn.tap_closed(&reason, late);
    assert_eq!(notes.take(), ["5 end finished"]);
}

#[test]
fn what_does_not_fit_is_neither_sent_nor_seen() {
    let much = [b'm'; 201];
    for (written, count) in [
        (Written::Copied(&much), 201),
        (Written::Shared(GuardedBytes::new(much.to_vec())), 201),
        (Written::TooMany(7), 7),
    ] {
        let pool = &mut ChunkPool::default();
        let notes = Notes::default();
        let mut conn = conn(small_limits());
        tap(&mut conn, &notes, NOW);
        assert_eq!(written.len(), count);
        assert_eq!(conn.take_queued(written, false, pool, NOW), Queued::Lost);
        assert!(notes.take().is_empty());
        conn.handle_wishes(pool, NOW, false);
        let reason = conn.poll_closed(NOW).unwrap();
        assert_eq!((reason.kind(), reason.unsent()), (CloseKind::OutputFull, count as u64));
    }
}

#[test]
fn a_tap_takes_the_place_of_an_earlier_one() {
    let pool = &mut ChunkPool::default();
    let (first, second) = (Notes::default(), Notes::default());
    let mut conn = conn(small_limits());
    tap(&mut conn, &first, NOW);
    assert!(first.take().is_empty(), "nothing is unread");
    conn.handle_wire(&mut b"a".to_vec(), pool, NOW);
    tap(&mut conn, &second, NOW + MILLISECOND);
    conn.handle_wire(&mut b"b".to_vec(), pool, NOW + MILLISECOND);
    assert_eq!(
        (first.take(), second.take()),
        (vec!["0 in a".into()], vec!["0 in a".to_owned(), "0 in b".to_owned()])
    );
    assert_eq!(Arc::strong_count(&first.calls), 1, "it was dropped");
}

#[test]
fn a_tap_that_panics_ends_its_connection_and_is_not_called_again() {
    for call in ["unread", "received", "sent"] {
        let pool = &mut ChunkPool::default();
        let notes = Notes { panics: true, ..Notes::default() };
        let mut conn = conn(small_limits());
        if call == "unread" {
            conn.handle_wire(&mut b"abc".to_vec(), pool, NOW);
        }
        tap(&mut conn, &notes, NOW);
        match call {
            "received" => conn.handle_wire(&mut b"abc".to_vec(), pool, NOW),
            "sent" => conn.tap_sent(b"x", NOW),
            _ => {}
        }
        assert_eq!(Arc::strong_count(&notes.calls), 1, "{call}: it was dropped");
        assert!(conn.flags.none(Flags::TAPPED) && conn.flags.any(Flags::RESET), "{call}");
        assert!(conn.flags.none(Flags::UNREAD), "{call}");
        let reason = conn.poll_closed(NOW).unwrap();
        assert_eq!((reason.by(), reason.kind()), (By::Us, CloseKind::Panicked), "{call}");
        assert_eq!(reason.unread(), if call == "sent" { 0 } else { 3 }, "{call}");
        conn.tap_closed(&reason, NOW);
    }
}

// ---- detaching ----------------------------------------------------------------------------------

fn descriptor() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

#[test]
fn a_socket_leaves_with_what_waits_on_both_sides_of_it() {
    let pool = &mut ChunkPool::default();
    let mut conn = conn(small_limits());
    conn.handle_wire(&mut b"unread".to_vec(), pool, NOW);
    assert!(conn.queue(b"uns", pool, NOW) && !conn.handle_caused(3));
    conn.queue_shared(GuardedBytes::new(b"ent".to_vec()), NOW);
    assert!(!conn.is_detaching() && conn.leaving().is_none() && conn.take_detached().is_none());
    conn.want_detach(descriptor());
    assert!(conn.is_detaching() && conn.leaving().is_some() && !conn.has_detached());
    conn.want_resume();
    assert!(conn.flags.any(Flags::PAUSED), "nothing is read any more");
    conn.handle_detached(pool);
    assert!(conn.has_detached() && !conn.is_detaching() && conn.leaving().is_none());
    assert!(conn.flags.none(Flags::QUEUED | Flags::UNREAD | Flags::RESET));
    assert_eq!((conn.unsent(), conn.queues().unwrap().caused), (0, 0));
    assert_eq!(pool.len(), 2, "both buffers are the pool's");
    let detached = conn.take_detached().unwrap();
    assert_eq!((&*detached.unread, &*detached.unsent), (&b"unread"[..], &b"unsent"[..]));
    assert!(conn.take_detached().is_none(), "once");
    let reason = conn.poll_closed(NOW).unwrap();
    assert_eq!((reason.by(), reason.kind()), (By::Us, CloseKind::Detached));
    assert_eq!((reason.unsent(), reason.unread()), (0, 0), "nothing was lost");
}

#[test]
fn an_end_of_another_kind_comes_before_the_way_out() {
    let pool = &mut ChunkPool::default();
    let mut conn = conn(small_limits());
    conn.want_detach(descriptor());
    conn.want_abort();
    conn.handle_wishes(pool, NOW, false);
    assert!(!conn.is_detaching() && conn.leaving().is_none(), "the descriptor is closed");
    conn.handle_detached(pool);
    assert!(conn.take_detached().is_none() && !conn.has_detached());
    assert_eq!(conn.poll_closed(NOW).unwrap().kind(), CloseKind::Aborted);
}

#[test]
fn a_socket_stays_while_its_connection_ends_or_has_a_filter() {
    let ending = Some("the connection is ending");
    for flags in [
        Flags::CLOSING,
        Flags::ENDED,
        Flags::BROKEN,
        Flags::CONNECTING,
        Flags::CLOSE_WANTED,
        Flags::ABORT_WANTED,
        Flags::OVERFLOW,
        Flags::FAILED,
    ] {
        let mut conn = conn(small_limits());
        assert_eq!(conn.stays(), None);
        conn.flags.set(flags);
        assert_eq!(conn.stays(), ending, "{flags:?}");
        conn.flags.set(Flags::FILTERED);
        assert_eq!(conn.stays(), ending, "{flags:?}");
    }
    let pool = &mut ChunkPool::default();
    let mut conn = conn(small_limits());
    conn.handle_filter(Box::new(Toy::new(0, false)), false, pool, NOW);
    assert_eq!(conn.stays(), Some("it has a filter"));
}
