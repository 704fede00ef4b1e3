//! What a load counts: latencies, and where in time they lie.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::Order;
use crate::run::{HEAT_ROWS_US, Heat, Sample, jain};

/// Columns of a heat map, over the whole run.
const HEAT_COLUMNS: usize = 80;
/// Latencies are kept up to a minute, in nanoseconds and to three digits.
const HIGHEST_NS: u64 = 60_000_000_000;
/// Points of the busiest connection and so on down, in equal steps.
const SHARES_MAX: usize = 101;

pub(super) struct Tally {
    latency: Histogram<u64>,
    late: Histogram<u64>,
    begun: Instant,
    run: Duration,
    /// Answers that came within the time of the run.
    in_time: u64,
    unanswered: u64,
    heat: Option<Heat>,
}

impl Tally {
    pub(super) fn new(order: &Order) -> Tally {
        let histogram = || {
            Histogram::new_with_bounds(1, HIGHEST_NS, 3)
                .unwrap_or_else(|_| unreachable!("the bounds are constants"))
        };
        let run = Duration::from_millis(order.run_ms.max(1));
        let heat = order.heat.then(|| Heat {
            column_ms: run.as_secs_f64() * 1e3 / HEAT_COLUMNS as f64,
            columns: HEAT_COLUMNS,
            cells: vec![0; HEAT_COLUMNS * HEAT_ROWS_US.len()],
        });
        Tally {
            latency: histogram(),
            late: histogram(),
            begun: Instant::now(),
            run,
            in_time: 0,
            unanswered: 0,
            heat,
        }
    }

    pub(super) fn answer(&mut self, since: Instant, now: Instant) {
        if now.saturating_duration_since(self.begun) <= self.run {
            self.in_time += 1;
        }
        self.record(since, now);
    }

    /// No answer has come: it took as long as this at least.
    pub(super) fn no_answer(&mut self, since: Instant, now: Instant) {
        self.unanswered += 1;
        self.record(since, now);
    }

    fn record(&mut self, since: Instant, now: Instant) {
        let took = now.saturating_duration_since(since);
        self.latency.saturating_record(took.as_nanos() as u64);
        if let Some(heat) = &mut self.heat {
            let at = since.saturating_duration_since(self.begun).as_secs_f64() * 1e3;
            let column = ((at / heat.column_ms) as usize).min(heat.columns - 1);
            let micros = took.as_secs_f64() * 1e6;
            let row = HEAT_ROWS_US.iter().rposition(|&low| micros >= low).unwrap_or(0);
            heat.cells[row * heat.columns + column] += 1;
        }
    }

    /// A request left so long after it was due.
    pub(super) fn left_late(&mut self, by: Duration) {
        self.late.saturating_record(by.as_nanos() as u64);
    }

    pub(super) fn answers(&self) -> u64 {
        self.latency.len() - self.unanswered
    }

    /// What there is to say; `counts` are the answers of each connection that asks.
    pub(super) fn sample(&self, counts: Vec<u64>, seconds: f64) -> Sample {
        let micros = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1e3;
        Sample {
            seconds,
            answered: self.in_time,
            unanswered: self.unanswered,
            per_s: self.in_time as f64 / seconds,
            p50: micros(0.5),
            p90: micros(0.9),
            p99: micros(0.99),
            p999: micros(0.999),
            max: self.latency.max() as f64 / 1e3,
            curve: self.curve(),
            served: counts.iter().filter(|&&count| count > 0).count(),
            asking: counts.len(),
            jain: jain(&counts),
            shares: shares(counts),
            load_late: self.late.value_at_quantile(0.99) as f64 / 1e3,
            heat: self.heat.clone(),
            ..Sample::default()
        }
    }

    /// From 1 in 2 requests to the last one, ten steps for each further nine.
    fn curve(&self) -> Vec<(f64, f64)> {
        let mut points = Vec::new();
        let all = self.latency.len().max(1) as f64;
        for step in 0..=60 {
            let share = 1.0 - 10f64.powf(-f64::from(step) / 10.0);
            if step > 0 && (1.0 - share) * all < 1.0 {
                break;
            }
            points.push((share, self.latency.value_at_quantile(share) as f64 / 1e3));
        }
        points
    }
}

/// The busiest first, at most [`SHARES_MAX`] of them.
fn shares(mut counts: Vec<u64>) -> Vec<u64> {
    counts.sort_unstable_by(|a, b| b.cmp(a));
    if counts.len() <= SHARES_MAX {
        return counts;
    }
    let last = counts.len() - 1;
    (0..SHARES_MAX).map(|step| counts[step * last / (SHARES_MAX - 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::order;
    use super::*;

    fn near(value: f64, expected: f64) -> bool {
        (value - expected).abs() <= expected * 0.002
    }

    /// A thousand answers of 1 to 1,000 us, all within the time.
    fn thousand() -> Tally {
        let mut tally = Tally::new(&order());
        let since = tally.begun;
        for micros in 1..=1000 {
            tally.answer(since, since + Duration::from_micros(micros));
        }
        tally
    }

    #[test]
    fn percentiles_are_microseconds_and_each_is_its_own() {
        let sample = thousand().sample(vec![1000], 0.5);
        let figures = [sample.p50, sample.p90, sample.p99, sample.p999, sample.max];
        for (figure, expected) in figures.into_iter().zip([500.0, 900.0, 990.0, 999.0, 1000.0]) {
            assert!(near(figure, expected), "{figures:?}");
        }
        assert_eq!((sample.answered, sample.unanswered), (1000, 0));
        assert_eq!((sample.per_s, sample.seconds), (2000.0, 0.5));
    }

    #[test]
    fn a_curve_begins_with_the_fastest_and_ends_with_one_in_all() {
        let curve = thousand().sample(vec![1000], 0.5).curve;
        assert!(near(curve[0].1, 1.0), "{curve:?}");
        let half = curve.iter().find(|(share, _)| *share >= 0.5).unwrap();
        assert!(near(half.1, half.0 * 1000.0), "{half:?}");
        let last = curve.last().unwrap();
        assert!(near(last.0, 0.999) && near(last.1, 999.0), "{last:?}");
        // In steps of a tenth of a power of ten, as far as there is an answer behind each.
        assert_eq!(curve.len(), 31);
        let mut few = Tally::new(&order());
        let since = few.begun;
        assert_eq!(few.sample(vec![0], 0.5).curve.len(), 1);
        (0..11).for_each(|_| few.answer(since, since + Duration::from_micros(7)));
        assert_eq!(few.sample(vec![11], 0.5).curve.len(), 11);
        assert!(curve.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn what_comes_after_the_time_is_a_latency_and_no_throughput() {
        let mut tally = Tally::new(&Order { run_ms: 50, ..order() });
        let (since, run) = (tally.begun, tally.run);
        tally.answer(since, since + run);
        tally.answer(since, since + run + Duration::from_millis(1));
        tally.no_answer(since, since + run * 4);
        let sample = tally.sample(vec![1, 1], 1.0);
        assert_eq!((sample.answered, sample.unanswered, sample.per_s), (1, 1, 1.0));
        assert_eq!(tally.answers(), 2);
        assert!(near(sample.max, run.as_secs_f64() * 4e6), "{}", sample.max);
    }

    #[test]
    fn fairness_and_who_was_served_come_from_the_counts_of_the_connections() {
        let sample = thousand().sample(vec![4, 0, 4, 0], 0.5);
        assert_eq!((sample.served, sample.asking, sample.jain), (2, 4, 0.5));
        assert_eq!(sample.shares, [4, 4, 0, 0]);
    }

    #[test]
    fn a_request_is_in_the_column_in_which_it_was_due_and_in_the_row_of_its_latency() {
        let mut tally = Tally::new(&Order { heat: true, ..order() });
        let (begun, run) = (tally.begun, tally.run);
        let since = begun + run / 2;
        tally.answer(since, since + Duration::from_micros(1500));
        let heat = tally.sample(vec![1], 1.0).heat.unwrap();
        let row = HEAT_ROWS_US.iter().position(|&low| low == 1000.0).unwrap();
        let at = heat.cells.iter().position(|&count| count == 1).unwrap();
        assert_eq!((at / heat.columns, at % heat.columns), (row, heat.columns / 2));
        // Also when its answer comes much later, and one that is due behind the end is in the last.
        tally.answer(since, since + run / 4);
        tally.no_answer(begun + run * 2, begun + run * 3);
        let heat = tally.sample(vec![3], 1.0).heat.unwrap();
        let of = |column: usize| heat.cells.iter().skip(column).step_by(heat.columns).sum::<u32>();
        assert_eq!((of(heat.columns / 2), of(heat.columns - 1)), (2, 1));
        assert!(near(heat.column_ms * heat.columns as f64, run.as_secs_f64() * 1e3));
    }

    #[test]
    fn how_late_the_load_was_is_told_apart_from_latency() {
        let mut tally = thousand();
        (0..100).for_each(|_| tally.left_late(Duration::from_millis(7)));
        let sample = tally.sample(vec![1000], 0.5);
        assert!(near(sample.load_late, 7000.0), "{}", sample.load_late);
        assert!(near(sample.p99, 990.0));
    }

    #[test]
    fn shares_keep_the_busiest_and_the_least_busy_connection() {
        assert_eq!(shares(vec![1, 3, 2]), [3, 2, 1]);
        let many = shares((1..=1000).collect());
        assert_eq!((many.len(), many[0], many[100]), (101, 1000, 1));
    }
}
