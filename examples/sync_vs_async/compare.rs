//! Two runs beside each other.

use std::fmt::Write;

use crate::amounts::local;
use crate::labels::{Label, Lang, fill, server};
use crate::run::{Run, Sample, Scene, Spread};
use crate::table::{connections_title, scene_title, short, short_time};

/// A figure that is compared: its head, its value, and how it is written.
type Figure = (&'static str, fn(&Sample) -> f64, fn(f64) -> String);

const FIGURES: [Figure; 4] = [
    ("req/s", |s| s.per_s, short),
    ("p50", |s| s.p50, short_time),
    ("p99", |s| s.p99, short_time),
    ("cpu/rq", |s| s.cpu_us, short_time),
];

/// The table of what both runs have measured; `names` are those of the files.
pub(crate) fn compare(first: &Run, second: &Run, names: [&str; 2], lang: Lang) -> String {
    let mut out = String::new();
    let named = |label: Label, a: &str, b: &str| {
        fill(label.text(lang), &[("a", a.to_owned()), ("b", b.to_owned())])
    };
    let _ = writeln!(out, "{}", named(Label::Compared, names[0], names[1]));
    let machine =
        |run: &Run| format!("{}, {}, {}", run.machine.cpu, run.machine.cores, run.machine.system);
    let (a, b) = (machine(first), machine(second));
    if a != b {
        let _ = writeln!(out, "{}", named(Label::OtherMachine, &a, &b));
    }
    let mut title = String::new();
    for point in &first.points {
        let same = second.points.iter().find(|other| {
            (other.scene, other.connections, &other.server)
                == (point.scene, point.connections, &point.server)
                && other.rate.is_some() == point.rate.is_some()
        });
        let Some(other) = same else { continue };
        let now = match point.scene {
            Scene::Steady => connections_title(point.connections, first.plan.idle_percent, lang),
            _ => scene_title(point, lang),
        };
        if now != title {
            heads(&mut out, &now, lang);
            title = now;
        }
        for (at, (head, of, write)) in FIGURES.into_iter().enumerate() {
            let (a, b) = (point.spread(of), other.spread(of));
            let name = if at == 0 { server(&point.server, lang) } else { "" };
            let _ = writeln!(
                out,
                "{name:<16}{head:<8}{:>10}{:>10}{:>10}",
                local(write(a.middle), lang),
                local(write(b.middle), lang),
                local(ratio(&a, &b), lang)
            );
        }
    }
    if title.is_empty() {
        let _ = writeln!(out, "{}", Label::NothingCommon.text(lang));
    } else {
        let _ = writeln!(out, "\n{}", Label::CompareLegend.text(lang));
    }
    out
}

fn heads(out: &mut String, title: &str, lang: Lang) {
    let [a, b, ratio] =
        [Label::HeadFirst, Label::HeadSecond, Label::HeadRatio].map(|label| label.text(lang));
    let _ = writeln!(out, "\n{title}\n{:<24}{a:>10}{b:>10}{ratio:>10}", "");
}

fn ratio(a: &Spread, b: &Spread) -> String {
    if a.middle == 0.0 {
        return "-".to_owned();
    }
    let star = if a.apart(b) { "*" } else { " " };
    format!("{:.2}{star}", b.middle / a.middle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Point;

    fn run(rates: &[f64]) -> Run {
        let sample = |&per_s: &f64| Sample { per_s, p50: 10.0, ..Sample::default() };
        let point = Point {
            scene: Scene::Steady,
            server: "reactor".to_owned(),
            connections: 100,
            rate: None,
            rounds: rates.iter().map(sample).collect(),
        };
        Run { points: vec![point], ..Run::default() }
    }

    #[test]
    fn a_difference_beyond_the_rounds_has_a_star() {
        let text = compare(&run(&[100.0, 110.0]), &run(&[200.0, 220.0]), ["a", "b"], Lang::En);
        let line = text.lines().find(|line| line.starts_with("reactor")).unwrap();
        let cells: Vec<_> = line.split_whitespace().collect();
        assert_eq!(cells, ["reactor", "req/s", "105", "210", "2.00*"]);
        assert!(text.starts_with("a (first) and b (second)\n"));
        let text = compare(&run(&[100.0, 110.0]), &run(&[105.0, 115.0]), ["a", "b"], Lang::En);
        assert!(text.contains(" 1.05 \n"), "{text}");
    }

    #[test]
    fn each_point_is_compared_with_the_one_of_its_scene_server_connections_and_kind_of_load() {
        let with = |change: fn(&mut Point), rate: f64| {
            let mut run = run(&[rate]);
            change(&mut run.points[0]);
            run.points.remove(0)
        };
        let changes: [fn(&mut Point); 5] = [
            |_| (),
            |point| point.rate = Some(500.0),
            |point| point.scene = Scene::Slow,
            |point| point.connections = 10,
            |point| point.server = "threads".to_owned(),
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let first = Run { points: vec![with(change, 100.0)], ..Run::default() };
            // The others come first, and are none of its own.
            let others = changes.iter().enumerate().filter(|(other, _)| *other != at);
            let mut points: Vec<_> = others.map(|(_, other)| with(*other, 1.0)).collect();
            let none = Run { points: points.clone(), ..Run::default() };
            points.push(with(change, 300.0));
            let second = Run { points, ..Run::default() };
            let text = compare(&first, &second, ["a", "b"], Lang::En);
            assert_eq!(text.matches("req/s").count(), 1, "{text}");
            assert!(text.contains(" 3.00*\n"), "{text}");
            let text = compare(&first, &none, ["a", "b"], Lang::En);
            assert!(text.contains("no measurement in common"), "{text}");
        }
    }

    #[test]
    fn runs_of_other_machines_and_loads_are_told_apart() {
        let mut other = run(&[1.0]);
        other.points[0].connections = 7;
        other.machine.cpu = "another".to_owned();
        let text = compare(&run(&[1.0]), &other, ["a", "b"], Lang::En);
        assert!(text.contains("The machines differ: "), "{text}");
        assert!(text.contains("no measurement in common"), "{text}");
    }
}
