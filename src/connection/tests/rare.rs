//! State that few connections have: when its boxes exist, where they go, what the metrics count.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::super::{Connection, Flags, Gauges, RarePool};
use super::rig::{MILLISECOND, Rig, Wish, small_limits};
use super::toy::{HELLO, NONSENSE, Toy};
use crate::buffer::ChunkPool;
use crate::endpoint::Endpoint;
use crate::id::{Ids, ListenerId};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::note::Note;
use crate::reason::CloseReason;
use crate::tap::{Tap, Tapped};
use crate::timer::{Timer, TimerKey, Timers};

const NOW: u64 = 1000 * MILLISECOND;

fn conn() -> Connection {
    let peer = ([127, 0, 0, 1], 7000).into();
    let (id, listener) = (Ids::default().reserve(), ListenerId::new(0));
    Connection::accepted(id, Some(listener), peer, Arc::new(Limits::default()), NOW)
}

/// Different keys, of timers that nobody waits for.
fn keys(count: usize) -> Vec<TimerKey> {
    let mut timers = Timers::default();
    (0..count).map(|n| timers.arm(n as u64, n)).collect()
}

/// How many boxes of each kind are in a pool, which is empty then.
fn count(pool: &mut RarePool) -> (usize, usize) {
    let (mut rares, mut queues) = (0, 0);
    loop {
        let mut conn = conn();
        conn.borrow_rare(pool);
        match conn.rare() {
            Some(rare) => assert!(rare.queues.is_none()),
            None => break,
        }
        rares += 1;
    }
    loop {
        let mut conn = conn();
        conn.borrow_queues(pool);
        if conn.queues().is_none() {
            return (rares, queues);
        }
        queues += 1;
    }
}

struct Deaf;

impl Tap for Deaf {
    fn received(&mut self, _: &Tapped, _: &[u8]) {}
    fn sent(&mut self, _: &Tapped, _: &[u8]) {}
    fn closed(&mut self, _: &Tapped, _: &CloseReason) {}
}

// ---- the boxes ----------------------------------------------------------------------------------

#[test]
fn a_connection_with_nothing_in_its_boxes_gives_them_back() {
    let mut pool = RarePool::default();
    let mut conn = conn();
    conn.borrow_queues(&mut pool);
    assert!(conn.rare().is_some() && conn.queues().is_none(), "the pool has none");
    conn.queues_mut();
    conn.return_rare(&mut pool);
    assert!(conn.rare().is_none());
    conn.borrow_queues(&mut pool);
    assert!(conn.queues().is_some());
    conn.return_rare(&mut pool);
    assert_eq!(count(&mut pool), (1, 1));
}

#[test]
fn a_box_in_which_anything_is_left_stays_with_its_connection() {
    type Fill = fn(&mut Connection, &mut ChunkPool);
    // What is put in, whether it is in the queues, and what takes it out again.
    let cases: [(&str, bool, Fill, Fill); 9] = [
        (
            "unread input",
            true,
            |conn, pool| conn.handle_wire(&mut [1], pool, NOW),
            |conn, pool| {
                conn.lend_unread().clear(pool);
            },
        ),
        (
            "unsent output",
            true,
            |conn, pool| assert!(conn.queue(&[1], pool, NOW)),
            |conn, pool| {
                conn.handle_sent(1, pool, NOW);
                conn.handle_flushed();
            },
        ),
        (
            "a note",
            true,
            |conn, _| assert!(conn.handle_note(Note::new(())).is_ok()),
            |conn, _| {
                conn.queues_mut().notes.clear();
            },
        ),
        (
            "a queue that holds it",
            true,
            |conn, _| assert!(conn.handle_held(conn.id())),
            |conn, _| conn.handle_released(conn.id()),
        ),
        (
            "a writer that it holds",
            true,
            |conn, _| conn.handle_holds(conn.id()),
            |conn, _| conn.handle_writer_gone(conn.id()),
        ),
        (
            "a timer",
            false,
            |conn, _| assert!(conn.put_timer(Timer::new(1), keys(1)[0]).is_none()),
            |conn, _| assert!(conn.take_timer(Timer::new(1)).is_some()),
        ),
        (
            "a job with a deadline",
            false,
            |conn, _| {
                let (job, _) = conn.begin_job();
                conn.put_job(job, 1);
            },
            |conn, _| conn.end_job(1),
        ),
        (
            "unsent bytes that are counted",
            false,
            |conn, pool| {
                assert!(conn.queue(&[1], pool, NOW));
                conn.account(&mut Metrics::default());
                conn.handle_sent(1, pool, NOW);
                conn.handle_flushed();
            },
            |conn, _| {
                let mut metrics = Metrics { buffered: 1, ..Metrics::default() };
                assert_eq!(conn.account(&mut metrics), Some(0));
            },
        ),
        (
            "a count of what it lost",
            false,
            |conn, _| conn.handle_refused(1),
            |conn, _| conn.rare_mut().end = None,
        ),
    ];
    for (what, queued, fill, empty) in cases {
        let (mut pool, mut chunks) = (RarePool::default(), ChunkPool::default());
        let mut conn = conn();
        conn.queues_mut();
        fill(&mut conn, &mut chunks);
        conn.return_rare(&mut pool);
        assert!(conn.rare().is_some(), "{what}");
        assert_eq!(conn.queues().is_some(), queued, "{what}");
        empty(&mut conn, &mut chunks);
        conn.return_rare(&mut pool);
        assert!(conn.rare().is_none(), "{what} is gone");
        assert_eq!(count(&mut pool), (1, 1), "{what}");
    }
    // A filter and a tap stay until the end.
    let (mut pool, mut chunks) = (RarePool::default(), ChunkPool::default());
    let mut filtered = conn();
    filtered.handle_filter(Box::new(Toy::new(0, false)), false, &mut chunks, NOW);
    filtered.return_rare(&mut pool);
    assert!(filtered.filtered().is_some());
    let mut tapped = conn();
    tapped.put_tap(Box::new(Deaf), None, NOW, UNIX_EPOCH);
    tapped.return_rare(&mut pool);
    assert!(tapped.rare().is_some_and(|rare| rare.tap.is_some()));
}

#[test]
fn a_connection_that_is_connecting_or_ending_keeps_its_box_although_it_is_empty() {
    for flags in [Flags::CLOSING, Flags::ENDED, Flags::CONNECTING, Flags::HANDSHAKING] {
        let mut pool = RarePool::default();
        let mut conn = conn();
        conn.rare_mut().phase = NOW;
        conn.flags.set(flags);
        conn.return_rare(&mut pool);
        assert!(conn.rare().is_some_and(|rare| rare.phase == NOW), "{flags:?}");
        conn.flags.clear(flags);
        conn.return_rare(&mut pool);
        assert!(conn.rare().is_none(), "{flags:?} is over");
    }
}

#[test]
fn a_pool_keeps_sixty_four_boxes_of_each_kind() {
    for (given, kept) in [(63, 63), (64, 64), (65, 64), (100, 64)] {
        let mut pool = RarePool::default();
        for _ in 0..given {
            let mut conn = conn();
            conn.queues_mut();
            conn.return_rare(&mut pool);
            assert!(conn.rare().is_none());
        }
        assert_eq!(count(&mut pool), (kept, kept), "of {given}");
    }
}

#[test]
fn a_connection_that_has_boxes_takes_none_from_the_pool() {
    let mut pool = RarePool::default();
    let mut other = conn();
    other.queues_mut();
    other.return_rare(&mut pool);
    let mut conn = conn();
    conn.queues_mut().caused = 7;
    conn.borrow_queues(&mut pool);
    conn.borrow_rare(&mut pool);
    assert_eq!(conn.queues().map(|queues| queues.caused), Some(7));
    assert_eq!(count(&mut pool), (1, 1));
}

// ---- what the metrics count ---------------------------------------------------------------------

#[test]
fn the_gauges_follow_what_a_connection_has() {
    let mut chunks = ChunkPool::default();
    let mut metrics = Metrics::default();
    // Others are counted, too.
    (metrics.buffered, metrics.paused, metrics.held, metrics.handshaking) = (1000, 10, 20, 30);
    let expect = |conn: &mut Connection, metrics: &mut Metrics, new: Option<usize>, all| {
        assert_eq!(conn.account(metrics), new);
        let found = (metrics.buffered, metrics.paused, metrics.held, metrics.handshaking);
        assert_eq!(found, all);
        assert_eq!(conn.account(metrics), None, "counted twice");
        assert_eq!((metrics.buffered, metrics.paused, metrics.held, metrics.handshaking), all);
    };
    let mut conn = conn();
    assert_eq!(conn.gauges(), Gauges::default());
    expect(&mut conn, &mut metrics, None, (1000, 10, 20, 30));
    conn.queue(&[1; 50], &mut chunks, NOW);
    expect(&mut conn, &mut metrics, Some(50), (1050, 10, 20, 30));
    conn.queue(&[1; 5], &mut chunks, NOW);
    conn.want_pause();
    let gauges = Gauges { unsent: 55, paused: true, ..Gauges::default() };
    assert_eq!(conn.gauges(), gauges);
    expect(&mut conn, &mut metrics, Some(55), (1055, 11, 20, 30));
    assert!(conn.handle_held(conn.id()));
    assert_eq!(conn.gauges(), Gauges { held: true, ..gauges });
    expect(&mut conn, &mut metrics, None, (1055, 11, 21, 30));
    conn.handle_sent(54, &mut chunks, NOW);
    conn.want_resume();
    expect(&mut conn, &mut metrics, Some(1), (1001, 10, 21, 30));
    conn.handle_released(conn.id());
    conn.handle_sent(1, &mut chunks, NOW);
    conn.handle_flushed();
    expect(&mut conn, &mut metrics, Some(0), (1000, 10, 20, 30));
    conn.handle_filter(Box::new(Toy::new(0, false)), false, &mut chunks, NOW);
    assert!(conn.gauges().handshaking);
    // The filter's greeting is unsent.
    expect(&mut conn, &mut metrics, Some(1), (1001, 10, 20, 31));
    conn.handle_wire(&mut [HELLO], &mut chunks, NOW);
    assert!(!conn.gauges().handshaking);
    expect(&mut conn, &mut metrics, None, (1001, 10, 20, 30));
    assert_eq!((metrics.handshakes, metrics.failed_handshakes), (1, 0));
}

#[test]
fn a_handshake_is_counted_when_it_is_over_and_as_what_it_was() {
    for (wire, outcome) in [(Some(HELLO), (1, 0)), (Some(NONSENSE), (0, 1)), (None, (0, 1))] {
        let mut rig = Rig::filtered(small_limits(), 0);
        assert_eq!((rig.metrics.handshakes, rig.metrics.failed_handshakes), (0, 0));
        match wire {
            Some(byte) => rig.peer_sends_wire(&[byte]),
            None => rig.other_wishes(Wish::Close),
        }
        rig.settle();
        let mut metrics = Metrics { handshaking: 1, ..Metrics::default() };
        rig.conn.account(&mut metrics);
        let found = [metrics.handshakes, rig.metrics.handshakes].into_iter().sum::<u64>();
        let failed = [metrics.failed_handshakes, rig.metrics.failed_handshakes];
        assert_eq!((found, failed.into_iter().sum::<u64>()), outcome, "{wire:?}");
    }
}

// ---- timers, jobs, silence ----------------------------------------------------------------------

#[test]
fn timers_of_a_connection_are_found_by_name_however_many_there_are() {
    let keys = keys(12);
    for count in 0..=5u16 {
        let mut conn = conn();
        assert!(conn.take_timers().is_empty());
        // Neither in the order of the names nor against it.
        let names: Vec<Timer> = (0..count).map(|n| Timer::new(n * 2 % 5)).collect();
        for (at, name) in names.iter().enumerate() {
            assert_eq!(conn.put_timer(*name, keys[at]), None);
            assert_eq!(conn.timers_len(), at + 1);
        }
        for (at, name) in names.iter().enumerate() {
            assert!(conn.has_timer(*name, keys[at]) && !conn.has_timer(*name, keys[at + 1]));
            assert!(!conn.has_timer(Timer::new(99), keys[at]));
            // Set again, it has another key, and the old one comes back.
            assert_eq!(conn.put_timer(*name, keys[at + 6]), Some(keys[at]));
            assert!(conn.has_timer(*name, keys[at + 6]) && !conn.has_timer(*name, keys[at]));
        }
        assert_eq!((conn.timers_len(), conn.take_timer(Timer::new(99))), (names.len(), None));
        let mut all = conn.take_timers();
        all.sort_by_key(|key| keys.iter().position(|other| other == key));
        assert_eq!(all, keys[6..6 + names.len()]);
        assert_eq!(conn.timers_len(), 0);
        for (at, name) in names.iter().enumerate() {
            conn.put_timer(*name, keys[at]);
        }
        for (at, name) in names.iter().enumerate() {
            assert_eq!(conn.take_timer(*name), Some(keys[at]));
            assert_eq!(conn.take_timer(*name), None);
            assert_eq!(conn.timers_len(), names.len() - at - 1);
        }
    }
}

#[test]
fn a_job_has_a_number_a_deadline_and_one_who_wants_its_result() {
    let mut conn = conn();
    assert!(conn.take_jobs().is_empty());
    let jobs: Vec<_> = (0..3).map(|_| conn.begin_job()).collect();
    assert_eq!(jobs.iter().map(|(job, _)| *job).collect::<Vec<_>>(), [1, 2, 3]);
    for (job, _) in &jobs {
        conn.put_job(*job, 10 + job);
    }
    conn.end_job(2);
    conn.end_job(7);
    assert!(jobs.iter().all(|(_, wanted)| wanted.upgrade().is_some()));
    assert_eq!(conn.take_jobs(), [11, 13]);
    assert!(jobs.iter().all(|(_, wanted)| wanted.upgrade().is_none()), "nobody waits any more");
    assert!(conn.take_jobs().is_empty());
}

#[test]
fn an_idle_limit_of_a_connections_own_is_kept_to_the_millisecond_and_at_most_49_days() {
    const MS: Duration = Duration::from_millis(1);
    let longest = MS * (u32::MAX - 1);
    let cases = [
        (Some(Duration::ZERO), Some(MS)),
        (Some(MS / 2), Some(MS)),
        (Some(MS), Some(MS)),
        (Some(MS * 3 / 2), Some(MS)),
        (Some(MS * 2), Some(MS * 2)),
        (Some(longest - MS), Some(longest - MS)),
        (Some(longest), Some(longest)),
        (Some(longest + MS), Some(longest)),
        (Some(longest + MS * 2), Some(longest)),
        (Some(Duration::MAX), Some(longest)),
        (None, None),
    ];
    for (given, kept) in cases {
        let mut conn = conn();
        conn.flags.clear(Flags::OPENED_DUE);
        let from = |idle: Option<Duration>| {
            idle.map_or(u64::MAX, |idle| NOW + idle.as_nanos() as u64 + MILLISECOND)
        };
        assert_eq!(conn.poll_deadline(), from(Limits::default().idle));
        #[cfg(feature = "http")]
        assert!(!conn.has_own_idle());
        conn.put_idle(given);
        #[cfg(feature = "http")]
        assert!(conn.has_own_idle(), "{given:?}");
        assert_eq!(conn.poll_deadline(), from(kept), "{given:?}");
        assert_eq!(conn.counts_silence(), kept.is_some(), "{given:?}");
        assert!(conn.flags.any(Flags::LIMITS_CHANGED));
        // The same once more changes nothing.
        conn.flags.clear(Flags::LIMITS_CHANGED);
        conn.put_idle(given);
        assert!(conn.flags.none(Flags::LIMITS_CHANGED), "{given:?}");
        conn.put_limits(Arc::new(small_limits()));
        assert_eq!(conn.poll_deadline(), from(small_limits().idle), "{given:?}");
    }
}

#[test]
fn a_vacant_place_has_no_connection_in_it() {
    let conn = Connection::vacant(Arc::new(Limits::default()));
    assert_eq!(conn.peer(), Endpoint::Other);
    assert!(conn.listener().is_none() && conn.rare().is_none() && !conn.has_work());
    assert_eq!((conn.since(), conn.bytes_in(), conn.bytes_out()), (0, 0, 0));
}

#[test]
fn notes_that_went_with_a_connection_take_no_places_of_the_next_that_has_its_boxes() {
    let (mut pool, mut chunks) = (RarePool::default(), ChunkPool::default());
    for _ in 0..2 {
        let mut conn = conn();
        conn.borrow_queues(&mut pool);
        let most = conn.limits().notes_max;
        for number in 0..most {
            assert!(conn.handle_note(Note::new(number)).is_ok(), "{number} of {most}");
        }
        assert!(conn.handle_note(Note::new(most)).is_err());
        conn.want_abort();
        conn.handle_wishes(&mut chunks, NOW, false);
        conn.return_rare(&mut pool);
        assert!(conn.queues().is_none(), "they are in the pool");
    }
}
