//! Callbacks: each is counted, timed after a slow turn, and named in the log when it fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use log::Level;

use super::*;
use crate::buffer::ChunkPool;
use crate::connection::Flags;
use crate::endpoint::Endpoint;
use crate::episode::tests::kept::lines_of;
use crate::filter::tests::Plain;
use crate::id::Ids;
use crate::protocol::{Alike, NoSocket, made_up};

const MILLISECOND: u64 = 1_000_000;

impl Protocol for Alike {
    fn opened(&mut self, _: &mut Context<'_>) -> Outcome {
        self.act()
    }
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        assert_eq!(**input, *b"bytes");
        input.consume(2);
        self.act()
    }
    fn eof(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        assert_eq!(**input, *b"bytes");
        input.consume(1);
        self.act()
    }
    fn drained(&mut self, _: &mut Context<'_>) -> Outcome {
        self.act()
    }
    fn timeout(&mut self, _: &mut Context<'_>, timer: Timer) -> Outcome {
        assert_eq!(timer, Timer::new(4));
        self.act()
    }
    fn notified(&mut self, _: &mut Context<'_>, note: Note) -> Outcome {
        assert!(note.is::<u8>());
        self.act()
    }
    fn stopping(&mut self, _: &mut Context<'_>) -> Outcome {
        self.act()
    }
    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        assert_eq!(reason.kind(), CloseKind::Aborted);
        let _ = self.act();
    }
    fn filter(&mut self) -> Option<Box<dyn Filter>> {
        self.act().ok().map(|()| Box::new(Plain) as Box<dyn Filter>)
    }
    fn name(&self) -> &str {
        "Alike"
    }
}

fn peer() -> Endpoint {
    ([10, 0, 0, 1], 80).into()
}

fn connection() -> Connection {
    Connection::accepted(Ids::default().reserve(), None, peer(), Arc::default(), 0)
}

/// Why it ends.
fn reason(conn: &mut Connection) -> Option<CloseReason> {
    conn.end(By::Us, CloseKind::Aborted, None);
    conn.poll_closed(9)
}

fn left(consumed: Consumed) -> (usize, usize) {
    (consumed.left, consumed.need)
}

type Call = fn(Called<'_>);

/// All callbacks by their names, and whether they are timed.
const ALL: [(&str, Call, bool); 9] = [
    ("opened", |called| called.opened(), true),
    ("data", |called| assert_eq!(left(called.data::<true>(b"bytes", true)), (3, 0)), true),
    ("data", |called| assert_eq!(left(called.data::<false>(b"bytes", false)), (3, 0)), false),
    ("eof", |called| assert_eq!(left(called.eof(b"bytes")), (4, 0)), true),
    ("drained", |called| called.drained(), true),
    ("timeout", |called| called.timeout(Timer::new(4)), true),
    ("notified", |called| called.notified(Note::new(5_u8)), true),
    ("stopping", |called| called.stopping(), true),
    ("closed", |called| called.closed(&reason(&mut connection()).unwrap()), true),
];

/// Runs a callback that takes so long and fails so, on a driver whose turns were slow or not.
fn run(
    (name, call): (&str, Call),
    turns: u32,
    takes: u64,
    fails: Option<bool>,
) -> (Shared, Connection) {
    let (mut shared, now) = made_up();
    now.store(100 * MILLISECOND, Ordering::Relaxed);
    (shared.blame.turns, shared.blame.limit) = (turns, 5 * MILLISECOND);
    let mut conn = connection();
    if name != "opened" {
        conn.handle_grammar(Callback::Opened);
    }
    let mut protocol = Alike { now, takes, fails };
    let (lent, protocol) = (&mut shared, &mut protocol);
    call(Called { shared: lent, conn: &mut conn, protocol, socket: &NoSocket });
    (shared, conn)
}

#[test]
fn every_callback_is_counted_and_after_a_slow_turn_a_slow_one_is_named() {
    for (name, call, timed) in ALL {
        for (turns, takes, slow) in [
            (0, 5 * MILLISECOND + 1, false),
            (1, 5 * MILLISECOND - 1, false),
            (1, 5 * MILLISECOND, false),
            (1, 5 * MILLISECOND + 1, timed),
            (1000, 7 * MILLISECOND, timed),
        ] {
            let (lines, (shared, _)) = lines_of(|| run((name, call), turns, takes, None));
            let metrics = &shared.metrics;
            assert_eq!((metrics.callbacks, metrics.panics), (1, 0), "{name}");
            assert_eq!(metrics.slow_callbacks, u64::from(slow), "{name} {turns} {takes}");
            let line = format!(
                "{name} of Alike for 10.0.0.1:80 took {} ms and kept every other connection \
                 waiting",
                takes / MILLISECOND
            );
            let expected = if slow { vec![(Level::Warn, line)] } else { Vec::new() };
            assert_eq!(lines, expected, "{name} {turns} {takes}");
        }
    }
}

#[test]
fn a_callback_that_fails_or_panics_is_named_with_what_it_says_and_fails_its_connection() {
    for (name, call, _) in ALL {
        for (panics, kind, error) in
            [(false, CloseKind::Protocol, "enough"), (true, CloseKind::Panicked, "planned")]
        {
            let (lines, (shared, mut conn)) = lines_of(|| run((name, call), 0, 0, Some(panics)));
            assert_eq!(shared.metrics.callbacks, 1, "{name}");
            assert_eq!(shared.metrics.panics, u64::from(panics), "{name}");
            if name == "closed" && !panics {
                assert!(lines.is_empty(), "it cannot fail");
                continue;
            }
            let (level, verb) = match panics {
                false => (Level::Debug, "failed"),
                true => (Level::Error, "panicked"),
            };
            assert_eq!(
                lines,
                [(level, format!("{name} of Alike for 10.0.0.1:80 {verb}: {error}"))]
            );
            assert!(conn.flags().any(Flags::FAILED), "{name}");
            assert_eq!(conn.has_panicked(), panics, "{name}");
            conn.handle_wishes(&mut ChunkPool::default(), 9, false);
            let reason = conn.decided(9).unwrap();
            assert_eq!((reason.by(), reason.kind()), (By::Us, kind), "{name}");
            assert_eq!(reason.error().unwrap().to_string(), error);
        }
    }
}

#[test]
fn a_callback_out_of_its_order_is_never_run() {
    for (name, call, _) in ALL {
        let (mut shared, now) = made_up();
        let mut conn = connection();
        // `opened` twice, and the others before it.
        if name == "opened" {
            conn.handle_grammar(Callback::Opened);
        }
        if name == "closed" {
            conn.handle_grammar(Callback::Closed);
        }
        let mut protocol = Alike { now, takes: 0, fails: None };
        let checked = shared.metrics.callbacks;
        let result = guarded(|| {
            let (shared, protocol) = (&mut shared, &mut protocol);
            call(Called { shared, conn: &mut conn, protocol, socket: &NoSocket });
        });
        // The straight path is checked in debug builds, by the driver's choice.
        let unchecked = std::ptr::fn_addr_eq(call, ALL[2].1);
        assert_eq!(result.is_ok(), unchecked, "{name}");
        assert_eq!(shared.metrics.callbacks - checked, u64::from(unchecked), "{name}");
    }
}

#[test]
fn a_protocol_is_asked_for_its_filter_which_gets_the_clock_and_a_panic_ends_the_connection() {
    let ask = |fails| {
        let (mut shared, now) = made_up();
        let (mut conn, mut protocol) = (connection(), Alike { now, takes: 0, fails });
        let (lines, asked) = lines_of(|| {
            let (shared, protocol) = (&mut shared, &mut protocol);
            Called { shared, conn: &mut conn, protocol, socket: &NoSocket }.filter()
        });
        (lines, asked.map(|filter| filter.is_some()), shared.metrics.panics, conn)
    };
    let (lines, asked, panics, _) = ask(None);
    assert_eq!((lines, asked, panics), (Vec::new(), Some(true), 0));
    let (lines, asked, panics, _) = ask(Some(false));
    assert_eq!((lines, asked, panics), (Vec::new(), Some(false), 0));
    let (lines, asked, panics, mut conn) = ask(Some(true));
    let line = "filter for 10.0.0.1:80 panicked: planned".to_owned();
    assert_eq!((lines, asked, panics), (vec![(Level::Error, line)], None, 1));
    let reason = conn.poll_closed(9).unwrap();
    assert_eq!((reason.by(), reason.kind()), (By::Us, CloseKind::Panicked));
}
