//! Figures over the number of connections: throughput, and the simple model beside it.

use std::fmt::Write;

use super::figure::{Draw, Figure, Panel, Twin};
use super::svg::{Axes, FRAME, HEIGHT, Scale, axes, line, mark, open, path, thousands};
use crate::amounts::local;
use crate::labels::{Label, number, time};
use crate::notes::Topic;
use crate::run::{Point, Sample, Scene, Spread};
use crate::scenes::WAIT_MICROS;

/// The points of one server in a scene, by connections.
pub(super) fn of_server<'a>(draw: &Draw<'a>, scene: Scene, server: &str) -> Vec<&'a Point> {
    let mut points: Vec<_> = draw
        .run
        .points(scene)
        .filter(|point| point.server == server && point.rate.is_none())
        .collect();
    points.sort_by_key(|point| point.connections);
    points
}

/// The scale of connections; a lone number lies in its middle.
pub(super) fn connections_scale(points: &[&Point]) -> Scale {
    let counts = points.iter().map(|point| point.connections as f64);
    let (low, high) = counts.fold((f64::INFINITY, 1.0), |(low, high), count| {
        (f64::min(low, count), f64::max(high, count))
    });
    let low = if low.is_finite() { low } else { 1.0 };
    let (low, high) = if high > low { (low, high) } else { (low / 3.0, low * 3.0) };
    Scale::log(low, high, FRAME.left + 14.0, FRAME.right - 12.0)
}

/// The numbers of connections that were measured, as ticks.
pub(super) fn connections_ticks(draw: &Draw<'_>, points: &[&Point]) -> Vec<(f64, String)> {
    let mut counts: Vec<_> = points.iter().map(|point| point.connections).collect();
    counts.sort_unstable();
    counts.dedup();
    // More would run into one another.
    let step = counts.len().div_ceil(6);
    let chosen = counts.iter().rev().step_by(step.max(1)).rev();
    chosen.map(|&count| (count as f64, number(count as f64, draw.lang))).collect()
}

/// One line per server, with the range of its rounds, from `least` connections on.
pub(super) fn chart(
    draw: &Draw<'_>,
    scene: Scene,
    least: usize,
    (what, title): (&str, &str),
    y: impl Fn(f64) -> Scale,
    of: impl Fn(&Sample) -> f64,
) -> String {
    let points: Vec<_> =
        draw.run.points(scene).filter(|p| p.rate.is_none() && p.connections >= least).collect();
    let highest = points.iter().map(|point| point.spread(&of).high).fold(0.0, f64::max);
    let (x, y) = (connections_scale(&points), y(highest));
    let mut out = open(HEIGHT, what);
    let y_ticks =
        y.ticks(5).into_iter().map(|value| (value, local(thousands(value), draw.lang))).collect();
    axes(
        &mut out,
        FRAME,
        &Axes {
            x,
            y,
            x_title: draw.text(Label::AxisConnections),
            y_title: title,
            x_ticks: connections_ticks(draw, &points),
            y_ticks,
        },
    );
    for server in draw.run.servers_of(scene) {
        let spreads: Vec<(f64, Spread)> = of_server(draw, scene, server)
            .iter()
            .filter(|point| point.connections >= least)
            .map(|point| (x.at(point.connections as f64), point.spread(&of)))
            .collect();
        let places: Vec<_> = spreads.iter().map(|(x, s)| (*x, y.at(s.middle))).collect();
        path(&mut out, &places, &format!("l s-{server}"));
        for (x, spread) in &spreads {
            let (low, high) = (y.at(spread.low), y.at(spread.high));
            if low - high > 1.0 {
                line(&mut out, (*x, low), (*x, high), &format!("range s-{server}"));
            }
        }
        for (x, y) in places {
            mark(&mut out, x, y, server);
        }
    }
    out.push_str("</svg>");
    out
}

pub(super) fn names(draw: &Draw<'_>, scene: Scene) -> Vec<String> {
    draw.run.servers_of(scene).into_iter().map(str::to_owned).collect()
}

/// A column of a text twin.
pub(super) type Column = (Label, fn(&Sample) -> f64);

/// A row for each server and number of connections: the middle and the range.
pub(super) fn twin(draw: &Draw<'_>, scene: Scene, columns: &[Column]) -> Twin {
    let mut head = draw.head(&[Label::HeadServer, Label::AxisConnections]);
    for (label, _) in columns {
        head.push(draw.text(*label).to_owned());
    }
    let mut rows = Vec::new();
    for server in draw.run.servers_of(scene) {
        for point in of_server(draw, scene, server) {
            let count = number(point.connections as f64, draw.lang);
            let mut row = vec![draw.server(server).to_owned(), count];
            for (_, of) in columns {
                let Spread { low, middle, high } = point.spread(of);
                let [low, middle, high] = [low, middle, high].map(|v| number(v, draw.lang));
                row.push(if low == high { middle } else { format!("{middle} ({low}–{high})") });
            }
            rows.push(row);
        }
    }
    Twin { head, rows }
}

pub(super) fn throughput(draw: &Draw<'_>) -> Option<Figure> {
    draw.run.points(Scene::Steady).next()?;
    let title = draw.text(Label::AxisRate);
    let of = |sample: &Sample| sample.per_s;
    let linear = |high: f64| Scale::linear(0.0, high * 1.05, FRAME.bottom, FRAME.top);
    let cpu = |high: f64| Scale::log(1.0, high.max(10.0) * 1.3, FRAME.bottom, FRAME.top);
    let panel = |label: Label, svg| Panel { title: draw.text(label).to_owned(), svg };
    Some(Figure {
        id: "throughput",
        title: draw.text(Label::RateTitle).to_owned(),
        lead: draw.text(Label::RateLead).to_owned(),
        panels: vec![
            panel(Label::RatePanel, {
                let names = (draw.text(Label::RatePanel), title);
                chart(draw, Scene::Steady, 1, names, linear, of)
            }),
            panel(Label::CpuPanel, {
                let names = (draw.text(Label::CpuPanel), draw.text(Label::AxisCpu));
                chart(draw, Scene::Steady, 1, names, cpu, |sample| sample.cpu_us)
            }),
        ],
        servers: names(draw, Scene::Steady),
        topics: &[Topic::Throughput, Topic::Python],
        command: "--scenes steady -c 1,10,100,1000 --servers threads,reactor",
        loser: Some(Label::LoseThreads),
        twin: twin(
            draw,
            Scene::Steady,
            &[
                (Label::AxisRate, |s| s.per_s),
                (Label::AxisCpu, |s| s.cpu_us),
                (Label::AxisLoad, |s| s.load_cpu),
            ],
        ),
        ..Figure::default()
    })
}

/// What the simple model says of a server: requests per second with `n` connections, where each
/// request waits `w` and computes `c` microseconds.
pub(super) fn model(server: &str, n: f64, w: f64, c: f64, cores: f64) -> f64 {
    let alone = n / (w + c);
    let bound = match server {
        // Threads wait beside each other, and compute on all cores.
        "threads" => alone.min(cores / c),
        // One thread that sleeps where it should go on: one request after the other.
        "reactor" => 1.0 / (w + c),
        // One thread that goes on: it waits for all at once, and computes on one core.
        _ => alone.min(1.0 / c),
    };
    bound * 1e6
}

/// CPU per request of a server in the scene, where it had most to do.
fn cpu_of(draw: &Draw<'_>, server: &str) -> Option<f64> {
    let points = of_server(draw, Scene::Waiting, server);
    points.last().map(|point| point.spread(|sample| sample.cpu_us).middle)
}

/// A measurement below this share of the model has parted from it.
const PARTED: f64 = 0.7;

pub(super) fn waiting(draw: &Draw<'_>) -> Option<Figure> {
    let points: Vec<_> = draw.run.points(Scene::Waiting).collect();
    if points.is_empty() {
        return None;
    }
    let cores = draw.run.machine.cores as f64;
    let wait = WAIT_MICROS as f64;
    let modelled = |server: &str, n: f64, c: f64| model(server, n, wait, c.max(0.001), cores);
    let rates = points.iter().map(|point| point.spread(|s| s.per_s).middle);
    let (low, high) = rates.fold((f64::INFINITY, 1.0), |(l, h), v| (v.min(l), v.max(h)));
    let x = connections_scale(&points);
    let y = Scale::log(low.max(1.0) * 0.6, high * 3.0, FRAME.bottom, FRAME.top);
    let mut out = open(HEIGHT, draw.text(Label::WaitTitle));
    let y_ticks =
        y.ticks(5).into_iter().map(|value| (value, local(thousands(value), draw.lang))).collect();
    axes(
        &mut out,
        FRAME,
        &Axes {
            x,
            y,
            x_title: draw.text(Label::AxisConnections),
            y_title: draw.text(Label::AxisRate),
            x_ticks: connections_ticks(draw, &points),
            y_ticks,
        },
    );
    let counts = || points.iter().map(|point| point.connections as f64);
    let (first, last) = (counts().fold(f64::INFINITY, f64::min), counts().fold(1.0, f64::max));
    let mut head = draw.head(&[Label::HeadServer, Label::AxisConnections, Label::AxisRate]);
    head.extend(draw.head(&[Label::Model, Label::AxisCpu]));
    let (mut rows, mut parted) = (Vec::new(), String::new());
    for server in draw.run.servers_of(Scene::Waiting) {
        let Some(c) = cpu_of(draw, server) else { continue };
        let line: Vec<_> = (0..=60)
            .map(|step| first * (last / first).powf(f64::from(step) / 60.0))
            .map(|n| (x.at(n), y.at(modelled(server, n, c))))
            .collect();
        path(&mut out, &line, &format!("model s-{server}"));
        let mut told = false;
        for point in of_server(draw, Scene::Waiting, server) {
            let (n, rate) = (point.connections as f64, point.spread(|s| s.per_s).middle);
            let said = modelled(server, n, c);
            mark(&mut out, x.at(n), y.at(rate), server);
            rows.push(vec![
                draw.server(server).to_owned(),
                number(n, draw.lang),
                number(rate, draw.lang),
                number(said, draw.lang),
                number(c, draw.lang),
            ]);
            if rate < PARTED * said && !told {
                told = true;
                let values = [
                    ("server", draw.server(server).to_owned()),
                    ("n", number(n, draw.lang)),
                    ("share", number((rate / said * 100.0).round(), draw.lang)),
                ];
                let _ = write!(parted, "<li>{}</li>", draw.fill(Label::ModelParts, &values));
            }
        }
    }
    out.push_str("</svg>");
    if parted.is_empty() {
        let _ = write!(parted, "<li>{}</li>", draw.text(Label::ModelHolds));
    }
    let c = |server: &str| cpu_of(draw, server).map_or("-".to_owned(), |c| time(c, draw.lang));
    let values = [("cores", number(cores, draw.lang)), ("a", c("threads")), ("b", c("timer"))];
    let explained = draw.fill(Label::ModelText, &values);
    Some(Figure {
        id: "waiting",
        title: draw.text(Label::WaitTitle).to_owned(),
        lead: draw.text(Label::WaitLead).to_owned(),
        panels: vec![Panel { title: draw.text(Label::WaitPanel).to_owned(), svg: out }],
        servers: names(draw, Scene::Waiting),
        key: vec![("model plain", draw.text(Label::Model))],
        topics: &[Topic::Waiting],
        command: "--scenes waiting -c 1,100,1000 --servers threads,reactor,timer",
        loser: Some(Label::LoseReactor),
        twin: Twin { head, rows },
        more: format!("<p>{explained}</p><ul class=\"notes\">{parted}</ul>"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_wait_beside_each_other_until_the_cores_are_full() {
        let of = |n: f64| model("threads", n, 5000.0, 50.0, 2.0).round();
        assert_eq!([of(1.0), of(100.0), of(1000.0)], [198.0, 19802.0, 40000.0]);
    }

    #[test]
    fn one_thread_that_sleeps_serves_one_after_the_other() {
        assert_eq!(model("reactor", 1000.0, 4950.0, 50.0, 2.0), 200.0);
        assert_eq!(model("timer", 1000.0, 5000.0, 50.0, 2.0), 20000.0);
    }
}
