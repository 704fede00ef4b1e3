//! The search for what makes a turn slow.

use super::Callback;
use crate::endpoint::Endpoint;
use crate::episode::Episode;
use crate::metrics::Metrics;

const MILLISECOND: u64 = 1_000_000;

/// A clock reading per callback costs more than the rest of a message. So callbacks are timed only
/// for a while after a slow turn. That shows which callbacks are slow, or what a slow turn without
/// a slow callback consists of.
#[derive(Debug)]
pub(crate) struct Blame {
    /// Turns for which callbacks are still timed.
    pub(crate) turns: u32,
    /// Nanoseconds that a callback, and a turn, may take.
    pub(crate) limit: u64,
    timed: Timed,
    slow_turns: Episode,
    /// Whether the log has said what the slow turns of this episode consist of.
    explained: bool,
    slow_callbacks: Episode,
    /// The callbacks that were named in this episode, and their protocols.
    named: Vec<(Callback, String)>,
}

/// The timing of one turn.
#[derive(Clone, Copy, Debug, Default)]
struct Timed {
    turn: u64,
    /// Bytes that had moved before.
    before: u64,
    /// Nanoseconds in callbacks.
    spent: u64,
}

impl Default for Blame {
    fn default() -> Blame {
        Blame {
            turns: 0,
            limit: 0,
            timed: Timed::default(),
            slow_turns: Episode::new("slow turns"),
            explained: false,
            slow_callbacks: Episode::new("slow callbacks"),
            named: Vec::new(),
        }
    }
}

impl Blame {
    /// Turns for which callbacks are timed after a slow turn.
    const TURNS: u32 = 1000;

    /// Callbacks that are named in an episode, at most: more would flood the log.
    const NAMED_MAX: usize = 16;

    /// Something happens in the turn that `metrics` counted last.
    #[cold]
    pub(crate) fn note_turn(&mut self, metrics: &Metrics) {
        if self.timed.turn != metrics.turns {
            self.timed = Timed { turn: metrics.turns, before: moved(metrics), spent: 0 };
        }
    }

    /// A turn took too long.
    #[cold]
    pub(crate) fn judge_turn(&mut self, took: u64, now: u64, metrics: &Metrics) {
        let took = took / MILLISECOND;
        if let Some(earlier) = self.slow_turns.note(now) {
            self.explained = false;
            log::warn!(target: "lariat::turn", "a turn took {took} ms{earlier}");
        }
        if self.turns > 0 && !self.explained && self.timed.turn == metrics.turns {
            self.explained = true;
            log::warn!(
                target: "lariat::turn",
                "a turn took {took} ms: {} ms in callbacks, {} bytes moved",
                self.timed.spent / MILLISECOND,
                moved(metrics) - self.timed.before,
            );
        }
        self.turns = Blame::TURNS;
    }

    /// Whether a slow callback has not been named yet in this episode, which begins with it if
    /// `first`.
    fn is_news(&mut self, callback: Callback, protocol: &str, first: bool) -> bool {
        if first {
            self.named.clear();
        }
        let known = self.named.iter().any(|(of, name)| *of == callback && name == protocol);
        if known || self.named.len() == Blame::NAMED_MAX {
            return false;
        }
        self.named.push((callback, protocol.to_owned()));
        true
    }

    /// A timed callback of `protocol` for `peer` is over.
    #[cold]
    pub(crate) fn judge(
        &mut self,
        (took, now): (u64, u64),
        callback: Callback,
        protocol: &str,
        peer: Endpoint,
        metrics: &mut Metrics,
    ) {
        self.note_turn(metrics);
        self.timed.spent += took;
        if took <= self.limit {
            return;
        }
        metrics.slow_callbacks += 1;
        let earlier = self.slow_callbacks.note(now);
        if !self.is_news(callback, protocol, earlier.is_some()) {
            return;
        }
        log::warn!(
            target: "lariat::dispatch",
            "{} of {protocol} for {peer} took {} ms and kept every other connection waiting{}",
            callback.name(),
            took / MILLISECOND,
            earlier.map(|earlier| earlier.to_string()).unwrap_or_default(),
        );
    }
}

fn moved(metrics: &Metrics) -> u64 {
    metrics.bytes_in + metrics.bytes_out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::episode::OVER;
    use crate::episode::tests::kept::lines_of;

    /// The warnings of `code`.
    fn warnings(code: impl FnOnce()) -> Vec<String> {
        let (lines, ()) = lines_of(code);
        assert!(lines.iter().all(|(level, _)| *level == log::Level::Warn), "{lines:?}");
        lines.into_iter().map(|(_, line)| line).collect()
    }

    fn judge(blame: &mut Blame, metrics: &mut Metrics, took: u64, now: u64) {
        blame.judge((took, now), Callback::Data, "Toy", Endpoint::Other, metrics);
    }

    #[test]
    fn a_slow_turn_is_a_warning_and_one_behind_it_tells_what_it_consisted_of() {
        const NEXT: u64 = OVER / 4;
        let (mut blame, mut metrics) = (Blame::default(), Metrics::default());
        blame.limit = u64::MAX;
        let slow = |blame: &mut Blame, metrics: &Metrics| {
            let now = metrics.turns * NEXT;
            let took = if metrics.turns % 2 == 0 { 30_000_000 } else { 30_999_999 };
            warnings(|| blame.judge_turn(took, now, metrics))
        };
        assert_eq!(slow(&mut blame, &metrics), ["a turn took 30 ms"]);
        assert_eq!(blame.turns, 1000);
        // Nothing was looked at in this one.
        blame.turns = 7;
        metrics.turns = 1;
        assert_eq!(slow(&mut blame, &metrics), [""; 0]);
        assert_eq!(blame.turns, 1000);
        (metrics.turns, metrics.bytes_in, metrics.bytes_out) = (2, 1000, 500);
        blame.note_turn(&metrics);
        (metrics.bytes_in, metrics.bytes_out) = (1040, 502);
        for took in [4_000_000, 5_000_000] {
            judge(&mut blame, &mut metrics, took, 2 * NEXT);
        }
        let what = "a turn took 30 ms: 9 ms in callbacks, 42 bytes moved";
        assert_eq!(slow(&mut blame, &metrics), [what]);
        // Once an episode.
        for turn in 3..6 {
            metrics.turns = turn;
            judge(&mut blame, &mut metrics, 2_000_000, turn * NEXT);
            metrics.bytes_in += 1;
            assert_eq!(slow(&mut blame, &metrics), [""; 0]);
        }
        // The next episode. A callback is the first that is looked at in this turn.
        metrics.turns = 20;
        judge(&mut blame, &mut metrics, 3_000_000, 20 * NEXT);
        metrics.bytes_out += 8;
        let earlier = "a turn took 30 ms (and 5 times before, not logged)";
        let what = "a turn took 30 ms: 3 ms in callbacks, 8 bytes moved";
        assert_eq!(slow(&mut blame, &metrics), [earlier, what]);
        // Where callbacks are no longer timed, nobody knows.
        metrics.turns = 40;
        judge(&mut blame, &mut metrics, 3_000_000, 40 * NEXT);
        blame.turns = 0;
        let earlier = "a turn took 30 ms";
        assert_eq!(slow(&mut blame, &metrics), [earlier]);
        metrics.turns = 41;
        judge(&mut blame, &mut metrics, 3_000_000, 41 * NEXT);
        assert_eq!(slow(&mut blame, &metrics).len(), 1, "this one is explained");
    }

    #[test]
    fn a_callback_above_the_limit_is_counted_and_named_with_those_of_before() {
        let (mut blame, mut metrics) = (Blame::default(), Metrics::default());
        blame.limit = 5_000_000;
        for (took, count) in [(4_999_999, 0), (5_000_000, 0), (5_000_001, 1), (5_999_999, 2)] {
            let line = "data of Toy for an unknown address took 5 ms and kept every other \
                        connection waiting";
            let expected = if count == 1 { vec![line] } else { Vec::new() };
            assert_eq!(warnings(|| judge(&mut blame, &mut metrics, took, took)), expected);
            assert_eq!(metrics.slow_callbacks, count);
        }
        let later = warnings(|| judge(&mut blame, &mut metrics, 70_000_000, 2 * OVER));
        let line = "data of Toy for an unknown address took 70 ms and kept every other \
                    connection waiting (and 1 times before, not logged)";
        assert_eq!(later, [line]);
    }

    #[test]
    fn a_slow_callback_is_news_once_an_episode_and_so_are_sixteen_of_them() {
        let mut blame = Blame::default();
        let names: Vec<String> = (0..17).map(|number| format!("protocol {number}")).collect();
        // The next episode begins with the last name of the one before.
        for first in [0, 15] {
            assert!(blame.is_news(Callback::Data, &names[first], true));
            assert!(!blame.is_news(Callback::Data, &names[first], false), "it is known");
            assert!(blame.is_news(Callback::Eof, &names[first], false), "another callback of it");
            let others = names.iter().enumerate().filter(|(at, _)| *at != first);
            let news: Vec<bool> =
                others.map(|(_, name)| blame.is_news(Callback::Data, name, false)).collect();
            assert_eq!(news, [vec![true; 14], vec![false; 2]].concat());
        }
    }
}
