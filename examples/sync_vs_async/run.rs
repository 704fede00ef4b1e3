//! The data of a run: everything that the table, the sentences and the page are made from. It is
//! inside the page as JSON, so that a page can be drawn again and compared.

use serde::{Deserialize, Serialize};

/// The form of this data. A page of another form is refused with a sentence.
pub(crate) const FORM: u32 = 1;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) form: u32,
    /// Seconds since 1970 when the run began.
    pub(crate) began: u64,
    pub(crate) took_s: f64,
    pub(crate) machine: Machine,
    /// What was asked for.
    pub(crate) plan: Plan,
    /// The servers, in the order of the table.
    pub(crate) servers: Vec<String>,
    pub(crate) points: Vec<Point>,
    pub(crate) calls: Vec<Calls>,
    pub(crate) lives: Vec<Life>,
    pub(crate) windows: Vec<Window>,
    /// Unsent bytes in a server with slow readers.
    pub(crate) queues: Vec<Queue>,
    /// What was left out, and why.
    pub(crate) left_out: Vec<LeftOut>,
    /// It was broken off before its end.
    pub(crate) broken_off: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) system: String,
    /// Each program with its version.
    pub(crate) versions: Vec<(String, String)>,
    /// Open files that a process may have.
    pub(crate) files_max: u64,
    /// Cores that other programs kept busy while the run was measured.
    #[serde(default)]
    pub(crate) others_cores: f64,
    /// Bytes of one connection's state in the protocol of the example.
    pub(crate) state_bytes: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) http: bool,
    pub(crate) connections: Vec<usize>,
    pub(crate) idle_percent: usize,
    pub(crate) size: usize,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) scenes: Vec<Scene>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scene {
    /// Closed loop at each number of connections.
    Steady,
    /// The same load in a closed and in an open loop.
    Loops,
    /// One request in a hundred takes 50 ms.
    Slow,
    /// Every request waits 5 ms.
    Waiting,
    /// Clients that send and hardly read.
    Readers,
    /// Many connections, few of them active.
    Idle,
    /// One interactive client beside others that flood.
    Beside,
    /// System calls under strace.
    Trace,
}

impl Scene {
    pub(crate) const ALL: [Scene; 8] = [
        Scene::Steady,
        Scene::Loops,
        Scene::Slow,
        Scene::Waiting,
        Scene::Readers,
        Scene::Idle,
        Scene::Beside,
        Scene::Trace,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Scene::Steady => "steady",
            Scene::Loops => "loops",
            Scene::Slow => "slow",
            Scene::Waiting => "waiting",
            Scene::Readers => "readers",
            Scene::Idle => "idle",
            Scene::Beside => "beside",
            Scene::Trace => "trace",
        }
    }
}

/// One server under one load, measured several times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) scene: Scene,
    pub(crate) server: String,
    pub(crate) connections: usize,
    /// Requests per second that were intended; None in a closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) rounds: Vec<Sample>,
}

/// What one round came to. Times are microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) seconds: f64,
    /// Answers within the time.
    pub(crate) answered: u64,
    /// Requests without an answer at the end; their age is in the latencies.
    pub(crate) unanswered: u64,
    pub(crate) per_s: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// Share of requests, latency.
    pub(crate) curve: Vec<(f64, f64)>,
    /// Connections that were answered at least once, of those that asked.
    pub(crate) served: usize,
    pub(crate) asking: usize,
    pub(crate) jain: f64,
    /// Requests per connection, the busiest first, at most 101 of them in equal steps.
    pub(crate) shares: Vec<u64>,
    pub(crate) cpu_us: f64,
    pub(crate) switches: f64,
    pub(crate) threads: u64,
    pub(crate) resident_kb: f64,
    pub(crate) virtual_kb: f64,
    /// Of the load: CPU seconds per second, and how late 99 of 100 requests left at most.
    pub(crate) load_cpu: f64,
    pub(crate) load_late: f64,
    pub(crate) heat: Option<Heat>,
    /// Bytes per second that other clients (flooders, slow readers) got.
    pub(crate) others_bytes_per_s: f64,
}

/// Latency over time: how many requests were meant for a moment and took so long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Heat {
    pub(crate) column_ms: f64,
    pub(crate) columns: usize,
    /// `cells[row * columns + column]`; the rows are those of [`HEAT_ROWS_US`].
    pub(crate) cells: Vec<u32>,
}

/// The lower ends of the rows of a heat map, in microseconds.
pub(crate) const HEAT_ROWS_US: [f64; 14] =
    [0.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5];

/// System calls of a server between two marked requests, under strace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calls {
    pub(crate) server: String,
    pub(crate) connections: usize,
    pub(crate) requests: u64,
    /// Name and count, the most frequent first.
    pub(crate) calls: Vec<(String, u64)>,
}

impl Calls {
    pub(crate) fn per_request(&self) -> f64 {
        let all: u64 = self.calls.iter().map(|(_, count)| count).sum();
        all as f64 / self.requests.max(1) as f64
    }
}

/// The calls that a server makes for one client: it connects, asks twice, and closes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Life {
    pub(crate) server: String,
    pub(crate) threads: usize,
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Of the connection's life, in which the call ends.
    pub(crate) phase: Phase,
    pub(crate) thread: usize,
    /// When it began, and how long it took.
    pub(crate) at_us: f64,
    pub(crate) took_us: f64,
    pub(crate) name: String,
    /// The call as strace prints it, shortened.
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// From the connect to the first answer.
    Accept,
    /// From there to the second answer.
    Message,
    /// The rest.
    Close,
}

/// What each thread of a server does in 20 ms, under strace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) server: String,
    pub(crate) width_us: f64,
    /// One list for each thread that was there.
    pub(crate) lanes: Vec<Vec<Span>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) at_us: f64,
    pub(crate) took_us: f64,
    pub(crate) doing: Doing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Doing {
    /// In a read that waits for its one connection.
    Reading,
    /// In a wait for any connection.
    Polling,
    /// In a callback, or other code of the program.
    Running,
    Writing,
    /// Waiting for a lock, a client to accept, a sleep to end.
    Waiting,
}

/// Unsent bytes in a server, over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Queue {
    pub(crate) server: String,
    pub(crate) readers: usize,
    pub(crate) high_mark: u64,
    pub(crate) low_mark: u64,
    /// Milliseconds, bytes.
    pub(crate) samples: Vec<(f64, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftOut {
    pub(crate) what: Left,
    /// What the system said, or a number that the sentence names.
    pub(crate) detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Left {
    Python,
    PythonHttp,
    Strace,
    /// Connections that the limit of open files does not allow.
    Files,
    /// A measurement that failed; the detail says which and why.
    Failed,
}

impl Run {
    pub(crate) fn points(&self, scene: Scene) -> impl Iterator<Item = &Point> {
        self.points.iter().filter(move |point| point.scene == scene)
    }

    pub(crate) fn point(&self, scene: Scene, server: &str, connections: usize) -> Option<&Point> {
        self.points(scene).find(|p| p.server == server && p.connections == connections)
    }

    pub(crate) fn calls(&self, server: &str, connections: usize) -> Option<&Calls> {
        self.calls.iter().find(|c| c.server == server && c.connections == connections)
    }

    /// The servers that have a point in `scene`, in the order of the table.
    pub(crate) fn servers_of(&self, scene: Scene) -> Vec<&str> {
        let there = |s: &&str| self.points(scene).any(|p| p.server == **s);
        SERVERS.iter().copied().filter(there).collect()
    }
}

/// Every server there can be, in the order of tables and pictures.
pub(crate) const SERVERS: [&str; 7] =
    ["serial", "threads", "reactor", "offload", "timer", "py-threads", "py-asyncio"];

impl Point {
    /// The middle of the rounds, the lowest and the highest.
    pub(crate) fn spread(&self, of: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(of).collect())
    }

    /// The round whose throughput is the middle one: its curves are drawn.
    pub(crate) fn middle_round(&self) -> Option<&Sample> {
        let mut rounds: Vec<_> = self.rounds.iter().collect();
        rounds.sort_by(|a, b| a.per_s.total_cmp(&b.per_s));
        rounds.get(rounds.len() / 2).copied()
    }

    pub(crate) fn unanswered(&self) -> u64 {
        self.rounds.iter().map(|round| round.unanswered).sum()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) middle: f64,
    pub(crate) high: f64,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let Some((&low, &high)) = values.first().zip(values.last()) else {
            return Spread::default();
        };
        let half = values.len() / 2;
        let even = values.len() % 2 == 0;
        let middle = if even { (values[half - 1] + values[half]) / 2.0 } else { values[half] };
        Spread { low, middle, high }
    }

    /// Whether the two ranges have nothing in common, so that one is above the other for sure.
    pub(crate) fn apart(&self, other: &Spread) -> bool {
        self.low > other.high || other.low > self.high
    }
}

/// Jain's index of fairness: 1 when all are served alike, 1/n when one has everything.
pub(crate) fn jain(counts: &[u64]) -> f64 {
    let sum: f64 = counts.iter().map(|&n| n as f64).sum();
    let squares: f64 = counts.iter().map(|&n| (n as f64).powi(2)).sum();
    if squares == 0.0 { 0.0 } else { sum * sum / (counts.len() as f64 * squares) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_of_rounds_lies_between_two() {
        let spread = Spread::of(vec![4.0, 1.0, 2.0, 10.0]);
        assert_eq!(spread, Spread { low: 1.0, middle: 3.0, high: 10.0 });
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]).middle, 2.0);
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }

    #[test]
    fn the_middle_round_is_the_one_of_the_middle_rate() {
        let rounds = |rates: &[f64]| Point {
            scene: Scene::Steady,
            server: "reactor".to_owned(),
            connections: 1,
            rate: None,
            rounds: rates.iter().map(|&per_s| Sample { per_s, ..Sample::default() }).collect(),
        };
        let middle = |rates: &[f64]| rounds(rates).middle_round().map(|round| round.per_s);
        assert_eq!(middle(&[3.0, 9.0, 5.0]), Some(5.0));
        assert_eq!((middle(&[7.0]), middle(&[])), (Some(7.0), None));
        assert_eq!(middle(&[4.0, 1.0]), Some(4.0));
    }

    #[test]
    fn ranges_that_touch_are_not_apart() {
        let (low, high) = (Spread::of(vec![1.0, 2.0]), Spread::of(vec![2.0, 3.0]));
        assert!(!low.apart(&high));
        assert!(low.apart(&Spread::of(vec![2.5, 3.0])));
        assert!(Spread::of(vec![2.5, 3.0]).apart(&low));
    }

    #[test]
    fn fairness_is_one_when_all_are_alike_and_one_in_n_when_one_has_all() {
        assert_eq!(jain(&[7, 7, 7, 7]), 1.0);
        assert_eq!(jain(&[9, 0, 0, 0]), 0.25);
        assert_eq!(jain(&[]), 0.0);
        assert_eq!(jain(&[0, 0]), 0.0);
    }
}
