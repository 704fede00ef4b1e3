//! Every counter: counted once, added, shown.

use std::time::Duration;

use super::{Closes, Metrics};
use crate::reason::{CloseKind, ConnectFailure, Deadline, FilterFailure};

/// Every counter that is a number.
fn counters(metrics: &mut Metrics) -> [&mut u64; 52] {
    [
        &mut metrics.turns,
        &mut metrics.events,
        &mut metrics.stale,
        &mut metrics.reads,
        &mut metrics.writes,
        &mut metrics.bytes_in,
        &mut metrics.bytes_out,
        &mut metrics.callbacks,
        &mut metrics.accepted,
        &mut metrics.refused,
        &mut metrics.accept_errors,
        &mut metrics.connects,
        &mut metrics.open,
        &mut metrics.handshaking,
        &mut metrics.handshakes,
        &mut metrics.failed_handshakes,
        &mut metrics.lingering,
        &mut metrics.paused,
        &mut metrics.held,
        &mut metrics.buffered,
        &mut metrics.refused_bytes,
        &mut metrics.refused_notes,
        &mut metrics.binds,
        &mut metrics.bound,
        &mut metrics.datagrams_in,
        &mut metrics.datagrams_out,
        &mut metrics.datagrams_dropped,
        &mut metrics.datagrams_truncated,
        &mut metrics.datagrams_refused,
        &mut metrics.jobs,
        &mut metrics.failed_jobs,
        &mut metrics.timers,
        &mut metrics.late_timers,
        &mut metrics.wakeups,
        &mut metrics.panics,
        &mut metrics.slow_turns,
        &mut metrics.slow_callbacks,
        &mut metrics.closes.finished,
        &mut metrics.closes.reset,
        &mut metrics.closes.aborted,
        &mut metrics.closes.timed_out,
        &mut metrics.closes.input_full,
        &mut metrics.closes.output_full,
        &mut metrics.closes.connect,
        &mut metrics.closes.filter,
        &mut metrics.closes.protocol,
        &mut metrics.closes.refused,
        &mut metrics.closes.panicked,
        &mut metrics.closes.shutdown,
        &mut metrics.closes.unsupported,
        &mut metrics.closes.system_error,
        &mut metrics.closes.detached,
    ]
}

/// No two counters are alike, and no number is part of another.
fn filled(from: u64) -> Metrics {
    let mut metrics = Metrics::default();
    for (number, counter) in (from..).zip(counters(&mut metrics)) {
        *counter = number;
    }
    metrics
}

#[test]
fn adding_sums_every_counter() {
    let (mut sum, mut other) = (filled(1_000), filled(5_000));
    (sum.longest_turn, other.longest_turn) = (Duration::from_millis(3), Duration::from_millis(7));
    (sum.busy, other.busy) = (Duration::from_millis(20), Duration::from_millis(22));
    (sum.age, other.age) = (Duration::from_secs(1), Duration::from_secs(2));
    sum += &other;
    for (number, counter) in (0..).zip(counters(&mut sum)) {
        assert_eq!(*counter, 6_000 + 2 * number, "counter {number}");
    }
    assert_eq!(sum.longest_turn, Duration::from_millis(7));
    assert_eq!(sum.busy, Duration::from_millis(42));
    assert_eq!(sum.age, Duration::from_secs(1), "parts of a driver are of the same age");
    other.longest_turn = Duration::from_millis(1);
    sum += &other;
    assert_eq!(sum.longest_turn, Duration::from_millis(7));
}

#[test]
fn every_counter_is_shown_once() {
    let mut metrics = filled(1_000);
    metrics.longest_turn = Duration::from_millis(2_001);
    metrics.busy = Duration::from_millis(2_002);
    metrics.age = Duration::from_millis(2_003);
    let text = metrics.to_string();
    for counter in counters(&mut metrics.clone()) {
        assert_eq!(text.matches(&counter.to_string()).count(), 1, "{counter} in\n{text}");
    }
    for time in ["2.001s", "2.002s", "2.003s"] {
        assert_eq!(text.matches(time).count(), 1, "{time} in\n{text}");
    }
    let total = metrics.closes.total();
    assert!(
        text.contains(&format!("closed: {total}, of them 1037 finished, 1038 reset")),
        "{text}"
    );
    assert_eq!(text.lines().count(), 8);
}

#[test]
fn each_kind_is_counted_once_in_its_place() {
    let mut expected = [0; 15];
    let kinds: [(CloseKind, usize, &str); 17] = [
        (CloseKind::Finished, 0, "finished"),
        (CloseKind::Reset, 1, "reset"),
        (CloseKind::Aborted, 2, "aborted"),
        (CloseKind::TimedOut(Deadline::Idle), 3, "timed out"),
        (CloseKind::TimedOut(Deadline::Write), 3, "timed out"),
        (CloseKind::InputFull, 4, "input full"),
        (CloseKind::OutputFull, 5, "output full"),
        (CloseKind::Connect(ConnectFailure::Refused), 6, "failed to connect"),
        (CloseKind::Connect(ConnectFailure::Name), 6, "failed to connect"),
        (CloseKind::Filter(FilterFailure::Failed), 7, "failed in a filter"),
        (CloseKind::Protocol, 8, "failed in a protocol"),
        (CloseKind::Refused(408), 9, "refused by a protocol"),
        (CloseKind::Panicked, 10, "panicked"),
        (CloseKind::Shutdown, 11, "shut down"),
        (CloseKind::Unsupported, 12, "unsupported"),
        (CloseKind::SystemError, 13, "failed in the system"),
        (CloseKind::Detached, 14, "detached"),
    ];
    let mut metrics = Metrics::default();
    for (before, (kind, place, name)) in (0..).zip(kinds) {
        assert_eq!(metrics.closes.total(), before);
        metrics.closes.count(kind);
        expected[place] += 1;
        let closes: Vec<u64> = counters(&mut metrics)[37..].iter().map(|count| **count).collect();
        assert_eq!(closes, expected, "{kind}");
        let mut alone = Closes::default();
        alone.count(kind);
        assert_eq!(alone.to_string(), format!("1, of them 1 {name}"));
    }
    assert_eq!(Closes::default().to_string(), "0");
}
