//! The table for a terminal: 80 columns.

use std::fmt::Write;

use crate::amounts::local;
use crate::labels::{Label, Lang, fill, number, server};
use crate::notes::{left_out, notes};
use crate::run::{Point, Run, Sample, Scene, Spread};

/// The widths of the columns, the name of the server first.
const WIDTHS: [usize; 11] = [14, 5, 7, 7, 7, 7, 7, 6, 6, 6, 7];
pub(crate) const COLUMNS: usize = 80;
/// A load that used more of a core than this was the limit.
const LOAD_BOUND: f64 = 0.9;

struct Paint {
    colour: bool,
}

impl Paint {
    fn strong(&self, text: &str) -> String {
        if self.colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn faint(&self, text: &str) -> String {
        if self.colour { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The whole table, with what to notice below it.
pub(crate) fn table(run: &Run, lang: Lang, colour: bool) -> String {
    let paint = Paint { colour };
    let mut out = String::new();
    for &connections in &run.plan.connections {
        steady(&mut out, run, connections, lang, &paint);
    }
    if run.points(Scene::Steady).next().is_some() {
        paragraph(&mut out, Label::TableLegend.text(lang), "");
        if run.points(Scene::Steady).any(is_load_bound) {
            paragraph(&mut out, Label::LoadBound.text(lang), "");
        }
        if run.calls.is_empty() {
            paragraph(&mut out, Label::NoStrace.text(lang), "");
        }
        out.push('\n');
    }
    scenes(&mut out, run, lang, &paint);
    let sentences = notes(run, lang);
    if !sentences.is_empty() {
        let _ = writeln!(out, "{}", paint.strong(Label::Notice.text(lang)));
        for note in sentences {
            paragraph(&mut out, &note.text, "- ");
        }
    }
    for sentence in left_out(run, lang) {
        paragraph(&mut out, &sentence, "! ");
    }
    if run.broken_off {
        paragraph(&mut out, Label::BrokenOff.text(lang), "! ");
    }
    out
}

fn is_load_bound(point: &Point) -> bool {
    point.spread(|sample| sample.load_cpu).middle > LOAD_BOUND
}

/// `1 connection`, `100 connections, 90 % of them idle`.
pub(crate) fn connections_title(connections: usize, idle_percent: usize, lang: Lang) -> String {
    let label = if connections == 1 { Label::OneConnection } else { Label::Connections };
    let mut title = fill(label.text(lang), &[("n", number_of(connections, lang))]);
    if idle_percent > 0 && connections > 1 {
        let share = idle_percent.to_string();
        title += &fill(Label::IdleShare.text(lang), &[("n", share)]);
    }
    title
}

fn number_of(count: usize, lang: Lang) -> String {
    number(count as f64, lang)
}

fn steady(out: &mut String, run: &Run, connections: usize, lang: Lang, paint: &Paint) {
    let points: Vec<_> =
        run.points(Scene::Steady).filter(|p| p.connections == connections).collect();
    if points.is_empty() {
        return;
    }
    let title = connections_title(connections, run.plan.idle_percent, lang);
    let _ = writeln!(out, "{}", paint.strong(&title));
    let heads = [
        Label::HeadServer.text(lang),
        Label::HeadThreads.text(lang),
        Label::HeadMemory.text(lang),
        Label::HeadRate.text(lang),
        "p50",
        "p99",
        "p99.9",
        Label::HeadFair.text(lang),
        Label::HeadSwitches.text(lang),
        Label::HeadCalls.text(lang),
        Label::HeadCpu.text(lang),
    ];
    row(out, &heads.map(str::to_owned), lang);
    for point in points {
        let calls = run.calls(&point.server, connections).map(|calls| calls.per_request());
        let of = |field: fn(&Sample) -> f64| point.spread(field);
        let spreads = [
            of(|s| s.threads as f64),
            of(|s| s.resident_kb),
            of(|s| s.per_s),
            of(|s| s.p50),
            of(|s| s.p99),
            of(|s| s.p999),
            of(|s| s.jain),
            of(|s| s.switches),
        ];
        let cpu = of(|s| s.cpu_us);
        let [threads, memory, rate, p50, p99, p999, jain, switches] =
            spreads.map(|spread| spread.middle);
        let star = if is_load_bound(point) { "*" } else { "" };
        row(
            out,
            &[
                server(&point.server, lang).to_owned(),
                short(threads),
                short(memory),
                format!("{}{star}", short(rate)),
                short_time(p50),
                short_time(p99),
                short_time(p999),
                format!("{jain:.2}"),
                short(switches),
                calls.map_or("-".to_owned(), short),
                short_time(cpu.middle),
            ],
            lang,
        );
        if point.rounds.len() > 1 {
            let mut cells = vec![String::new()];
            cells.extend(spreads.iter().map(range));
            cells.extend([String::new(), range(&cpu)]);
            let mut line = String::new();
            row(&mut line, &cells, lang);
            let _ = writeln!(out, "{}", paint.faint(line.trim_end()));
        }
    }
    out.push('\n');
}

fn row(out: &mut String, cells: &[String], lang: Lang) {
    for (at, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        let cell = local(cell.clone(), lang);
        let _ = if at == 0 { write!(out, "{cell:<width$}") } else { write!(out, "{cell:>width$}") };
    }
    let end = out.trim_end_matches(' ').len();
    out.truncate(end);
    out.push('\n');
}

/// Half the range of the rounds, in per cent of the middle.
fn range(spread: &Spread) -> String {
    if spread.middle == 0.0 {
        return String::new();
    }
    format!("{:.0}%", (spread.high - spread.low) / 2.0 / spread.middle.abs() * 100.0)
}

/// At most five characters: `0.25`, `12.3`, `123`, `12.3k`, `1.23M`.
pub(crate) fn short(value: f64) -> String {
    let (value, unit) = match value {
        // What is written as a thousand is one of the next unit.
        v if v < 999.5 => (v, ""),
        v if v < 999.5e3 => (v / 1e3, "k"),
        v => (v / 1e6, "M"),
    };
    format!("{}{unit}", digits(value))
}

/// Microseconds in at most five characters: `7.34µ`, `50.3m`, `1.20s`.
pub(crate) fn short_time(micros: f64) -> String {
    let (value, unit) = match micros {
        m if m < 999.5 => (m, "µ"),
        m if m < 999.5e3 => (m / 1e3, "m"),
        m => (m / 1e6, "s"),
    };
    format!("{}{unit}", digits(value))
}

fn digits(value: f64) -> String {
    match value {
        v if v == 0.0 || v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

fn scenes(out: &mut String, run: &Run, lang: Lang, paint: &Paint) {
    let mut title = String::new();
    for point in run.points.iter().filter(|point| point.scene != Scene::Steady) {
        let now = scene_title(point, lang);
        if now != title {
            if !title.is_empty() {
                out.push('\n');
            }
            let _ = writeln!(out, "{}", paint.strong(&now));
            let cpu = Label::HeadCpu.text(lang);
            let (rate, lost) = (Label::HeadRate.text(lang), Label::HeadUnanswered.text(lang));
            let _ = writeln!(
                out,
                "{:<13}{rate:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{cpu:>8}{lost:>8}",
                "", "p50", "p90", "p99", "p99.9", "max"
            );
            title = now;
        }
        let of = |field: fn(&Sample) -> f64| local(short_time(point.spread(field).middle), lang);
        let lost = match point.unanswered() {
            0 => String::new(),
            count => count.to_string(),
        };
        let line = format!(
            "{:<13}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{lost:>8}",
            server(&point.server, lang),
            local(short(point.spread(|sample| sample.per_s).middle), lang),
            of(|s| s.p50),
            of(|s| s.p90),
            of(|s| s.p99),
            of(|s| s.p999),
            of(|s| s.max),
            of(|s| s.cpu_us),
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
    if !title.is_empty() {
        out.push('\n');
    }
}

/// What a load is, in one line.
pub(crate) fn scene_title(point: &Point, lang: Lang) -> String {
    let label = match (point.scene, point.rate) {
        (Scene::Loops, _) => Label::SceneLoops,
        (Scene::Slow, None) => Label::SceneSlowClosed,
        (Scene::Slow, Some(_)) => Label::SceneSlow,
        (Scene::Waiting, _) => Label::SceneWaiting,
        (Scene::Readers, _) => Label::SceneReaders,
        (Scene::Idle, _) => Label::SceneIdle,
        (Scene::Beside, _) => Label::SceneBeside,
        _ => Label::SceneSteady,
    };
    let rate = number(point.rate.unwrap_or_default(), lang);
    fill(label.text(lang), &[("n", number_of(point.connections, lang)), ("rate", rate)])
}

/// A sentence in lines of at most [`COLUMNS`] columns, the first with `mark`.
fn paragraph(out: &mut String, text: &str, mark: &str) {
    let indent = " ".repeat(mark.chars().count());
    let mut line = mark.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        let length = line.chars().count() + usize::from(!empty) + word.chars().count();
        if !empty && length > COLUMNS {
            let _ = writeln!(out, "{line}");
            line.clone_from(&indent);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    let _ = writeln!(out, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Calls, Left, LeftOut};

    fn sample(scale: f64) -> Sample {
        Sample {
            per_s: 123_456.0 * scale,
            p50: 7.345 * scale,
            p90: 80.0,
            p99: 50_332.0 * scale,
            p999: 1_200_000.0,
            max: 1_300_000.0,
            jain: 0.01,
            switches: 1.06,
            threads: 1003,
            resident_kb: 84.8,
            cpu_us: 4.3,
            load_cpu: 0.95,
            served: 1,
            asking: 1000,
            ..Sample::default()
        }
    }

    fn run() -> Run {
        let point = |scene, server: &str, rate| Point {
            scene,
            server: server.to_owned(),
            connections: 1000,
            rate,
            rounds: vec![sample(1.0), sample(0.9), sample(1.1)],
        };
        let mut run = Run::default();
        run.plan.connections = vec![1000];
        run.points = crate::run::SERVERS.map(|name| point(Scene::Steady, name, None)).into();
        for scene in [Scene::Loops, Scene::Slow, Scene::Beside] {
            run.points.push(point(scene, "reactor", Some(12_345.6)));
        }
        let calls = vec![("sendto".to_owned(), 200)];
        let server = "threads".to_owned();
        run.calls.push(Calls { server, connections: 1000, requests: 100, calls });
        run.left_out.push(LeftOut { what: Left::Strace, detail: String::new() });
        run
    }

    #[test]
    fn no_line_is_wider_than_eighty_columns_in_either_language() {
        for lang in [Lang::En, Lang::Es] {
            let table = table(&run(), lang, false);
            for line in table.lines() {
                assert!(line.chars().count() <= COLUMNS, "{line}");
            }
            assert!(!table.contains('\x1b') && !table.contains('{'), "{table}");
        }
    }

    #[test]
    fn a_row_has_every_figure_and_below_it_how_far_the_rounds_differ() {
        let table = table(&run(), Lang::En, false);
        let at = table.lines().position(|line| line.starts_with("threads")).unwrap();
        let lines: Vec<_> = table.lines().collect();
        let cells: Vec<_> = lines[at].split_whitespace().collect();
        let expected =
            ["threads", "1.00k", "84.8", "123k*", "7.34µ", "50.3m", "1.20s", "0.01", "1.06"];
        assert_eq!(cells[..9], expected);
        assert_eq!(cells[9..], ["2.00", "4.30µ"]);
        assert!(lines[at + 1].contains("10%"), "{}", lines[at + 1]);
        assert!(table.contains("* the load used more than 0.9 of a core"));
    }

    #[test]
    fn colour_is_an_addition_and_changes_no_character() {
        let plain = table(&run(), Lang::En, false);
        let coloured = table(&run(), Lang::En, true);
        assert!(coloured.contains("\x1b[1m"));
        let stripped =
            coloured.replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "");
        assert_eq!(stripped, plain);
    }

    #[test]
    fn numbers_are_short() {
        let numbers = [0.0, 0.254, 12.34, 99.96, 999.0, 12_345.0, 1_234_567.0].map(short);
        assert_eq!(numbers, ["0", "0.25", "12.3", "100", "999", "12.3k", "1.23M"]);
        let edges = [999.4, 999.6, 999_400.0, 999_600.0];
        assert_eq!(edges.map(short), ["999", "1.00k", "999k", "1.00M"]);
        assert_eq!(edges.map(short_time), ["999µ", "1.00m", "999m", "1.00s"]);
    }
}
