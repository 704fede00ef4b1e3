//! Every round of every load as a line of CSV, for a spreadsheet.

use std::fmt::Write;

use crate::run::{Run, Sample};

/// A column: its name, and its value.
type Column = (&'static str, fn(&Sample) -> f64);

const COLUMNS: [Column; 18] = [
    ("seconds", |s| s.seconds),
    ("answered", |s| s.answered as f64),
    ("unanswered", |s| s.unanswered as f64),
    ("requests_per_s", |s| s.per_s),
    ("p50_us", |s| s.p50),
    ("p90_us", |s| s.p90),
    ("p99_us", |s| s.p99),
    ("p999_us", |s| s.p999),
    ("max_us", |s| s.max),
    ("jain", |s| s.jain),
    ("cpu_us_per_request", |s| s.cpu_us),
    ("switches_per_request", |s| s.switches),
    ("threads", |s| s.threads as f64),
    ("resident_kb_per_connection", |s| s.resident_kb),
    ("reserved_kb_per_connection", |s| s.virtual_kb),
    ("load_cores", |s| s.load_cpu),
    ("load_late_p99_us", |s| s.load_late),
    ("others_bytes_per_s", |s| s.others_bytes_per_s),
];

pub(crate) fn csv(run: &Run) -> String {
    let mut out = "scene,server,connections,rate,round,system_calls_per_request".to_owned();
    for (name, _) in COLUMNS {
        let _ = write!(out, ",{name}");
    }
    out.push('\n');
    for point in &run.points {
        let rate = point.rate.map_or(String::new(), |rate| rate.to_string());
        let calls = run.calls(&point.server, point.connections);
        let calls = calls.map_or(String::new(), |calls| format!("{:.3}", calls.per_request()));
        for (round, sample) in point.rounds.iter().enumerate() {
            let (scene, server) = (point.scene.name(), &point.server);
            let (connections, round) = (point.connections, round + 1);
            let _ = write!(out, "{scene},{server},{connections},{rate},{round},{calls}");
            for (_, of) in COLUMNS {
                let _ = write!(out, ",{}", of(sample));
            }
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Point, Scene};

    #[test]
    fn every_round_is_a_line_with_all_columns() {
        let sample = Sample { per_s: 12.5, answered: 7, ..Sample::default() };
        let point = Point {
            scene: Scene::Slow,
            server: "reactor".to_owned(),
            connections: 10,
            rate: Some(500.0),
            rounds: vec![sample.clone(), sample],
        };
        let text = csv(&Run { points: vec![point], ..Run::default() });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].starts_with("slow,reactor,10,500,1,,0,7,0,12.5,"), "{}", lines[1]);
        let count = |line: &str| line.split(',').count();
        assert!(lines.iter().all(|line| count(line) == count(lines[0])));
    }
}
