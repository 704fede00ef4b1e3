//! Percentile curves: how long the slowest of so many requests take.

use std::fmt::Write;

use super::figure::{Draw, Figure, Panel, Twin};
use super::svg::{Axes, FRAME, HEIGHT, Scale, WIDTH, axes, mark, open, path, times};
use crate::amounts::local;
use crate::labels::{Label, number, time};
use crate::notes::Topic;
use crate::run::{Point, Scene};
use crate::scenes::middle_connections;

/// One curve: its server, its points, and whether it is drawn faint.
struct Curve<'a> {
    server: &'a str,
    points: &'a [(f64, f64)],
    faint: bool,
}

/// From a share of requests to how many nines it has: 0.9 is 1, 0.99 is 2.
fn nines(share: f64) -> f64 {
    -(1.0 - share).max(1e-7).log10()
}

const NINES: [(f64, &str); 6] = [
    (0.301, "50 %"),
    (1.0, "90 %"),
    (2.0, "99 %"),
    (3.0, "99.9 %"),
    (4.0, "99.99 %"),
    (5.0, "99.999 %"),
];

fn chart(draw: &Draw<'_>, what: &str, curves: &[Curve<'_>]) -> String {
    let all = || curves.iter().flat_map(|curve| curve.points.iter());
    let low = all().map(|&(_, us)| us).fold(f64::INFINITY, f64::min).max(1.0);
    let high = all().map(|&(_, us)| us).fold(10.0, f64::max);
    let last = all().map(|&(share, _)| nines(share)).fold(2.0, f64::max);
    let x = Scale::linear(0.0, last, FRAME.left, FRAME.right);
    let y = Scale::log(low * 0.7, high * 1.4, FRAME.bottom, FRAME.top);
    let mut out = open(HEIGHT, what);
    // A digit is about 6.6 wide. What would leave the panel is left out.
    let fits = |at: f64, name: &str| x.at(at) + name.chars().count() as f64 * 3.3 <= WIDTH;
    let x_ticks = NINES.iter().filter(|(at, name)| *at <= last + 0.01 && fits(*at, name));
    axes(
        &mut out,
        FRAME,
        &Axes {
            x,
            y,
            x_title: draw.text(Label::AxisPercentile),
            y_title: draw.text(Label::AxisLatency),
            x_ticks: x_ticks
                .map(|(at, name)| (*at, local((*name).to_owned(), draw.lang)))
                .collect(),
            y_ticks: y.ticks(6).into_iter().map(|us| (us, times(us))).collect(),
        },
    );
    for curve in curves {
        let places: Vec<_> =
            curve.points.iter().map(|&(share, us)| (x.at(nines(share)), y.at(us))).collect();
        let faint = if curve.faint { " faint" } else { "" };
        path(&mut out, &places, &format!("l s-{}{faint}", curve.server));
        for share in [0.5, 0.9, 0.99, 0.999] {
            let near = |point: &&(f64, f64)| nines(point.0) >= nines(share) - 0.02;
            if let Some(&(at, us)) = curve.points.iter().find(near) {
                mark(&mut out, x.at(nines(at)), y.at(us), curve.server);
            }
        }
    }
    out.push_str("</svg>");
    out
}

fn curve<'a>(point: &'a Point, faint: bool) -> Option<Curve<'a>> {
    let points = &point.middle_round()?.curve;
    Some(Curve { server: &point.server, points, faint })
}

fn rows(draw: &Draw<'_>, points: &[&Point]) -> Vec<Vec<String>> {
    let loop_name = |point: &Point| match point.rate {
        None => draw.text(Label::Closed).to_owned(),
        Some(rate) => draw.fill(Label::OpenAt, &[("rate", number(rate, draw.lang))]),
    };
    let mut rows = Vec::new();
    for point in points {
        let Some(round) = point.middle_round() else { continue };
        let mut row = vec![draw.server(&point.server).to_owned(), loop_name(point)];
        let of = [round.p50, round.p90, round.p99, round.p999, round.max];
        row.extend(of.map(|us| time(us, draw.lang)));
        row.push(round.unanswered.to_string());
        rows.push(row);
    }
    rows
}

fn head(draw: &Draw<'_>) -> Vec<String> {
    let mut head = draw.head(&[Label::HeadServer, Label::Loop]);
    head.extend(["p50", "p90", "p99", "p99.9", "max"].map(str::to_owned));
    head.push(draw.text(Label::HeadUnanswered).to_owned());
    head
}

pub(super) fn latency(draw: &Draw<'_>) -> Option<Figure> {
    let n = middle_connections(&draw.run.plan);
    let closed: Vec<_> =
        draw.run.points(Scene::Steady).filter(|point| point.connections == n).collect();
    let open: Vec<_> = draw.run.points(Scene::Loops).collect();
    if closed.is_empty() && open.is_empty() {
        return None;
    }
    let n = number(n as f64, draw.lang);
    let mut panels = Vec::new();
    if !closed.is_empty() {
        let title = draw.fill(Label::ClosedPanel, &[("n", n)]);
        let curves: Vec<_> = closed.iter().filter_map(|point| curve(point, false)).collect();
        panels.push(Panel { svg: chart(draw, &title, &curves), title });
    }
    if let Some(rate) = open.first().and_then(|point| point.rate) {
        let title = draw.fill(Label::OpenPanel, &[("rate", number(rate, draw.lang))]);
        let curves: Vec<_> = open.iter().filter_map(|point| curve(point, false)).collect();
        panels.push(Panel { svg: chart(draw, &title, &curves), title });
    }
    let all: Vec<_> = closed.iter().chain(&open).copied().collect();
    Some(Figure {
        id: "latency",
        title: draw.text(Label::CurveTitle).to_owned(),
        lead: draw.text(Label::CurveLead).to_owned(),
        panels,
        servers: super::lines::names(draw, Scene::Steady),
        topics: &[Topic::Curve],
        command: "--scenes steady,loops -c 1 --servers threads,reactor",
        loser: Some(Label::LoseReactor),
        twin: Twin { head: head(draw), rows: rows(draw, &all) },
        ..Figure::default()
    })
}

pub(super) fn slow(draw: &Draw<'_>) -> Option<Figure> {
    let open: Vec<_> = draw.run.points(Scene::Slow).filter(|p| p.rate.is_some()).collect();
    let closed: Vec<_> = draw.run.points(Scene::Slow).filter(|p| p.rate.is_none()).collect();
    let rate = open.first()?.rate?;
    let title = draw.fill(Label::OpenPanel, &[("rate", number(rate, draw.lang))]);
    let curves: Vec<_> = open.iter().filter_map(|point| curve(point, false)).collect();
    let mut panels = vec![Panel { svg: chart(draw, &title, &curves), title }];
    if !closed.is_empty() {
        let also: Vec<_> = open
            .iter()
            .filter(|point| closed.iter().any(|closed| closed.server == point.server))
            .filter_map(|point| curve(point, false))
            .chain(closed.iter().filter_map(|point| curve(point, true)))
            .collect();
        let title = draw.text(Label::OmissionPanel).to_owned();
        panels.push(Panel { svg: chart(draw, &title, &also), title });
    }
    let mut more = String::new();
    let _ = write!(more, "<p>{}</p>", draw.text(Label::OffloadText));
    let all: Vec<_> = open.iter().chain(&closed).copied().collect();
    Some(Figure {
        id: "slow",
        title: draw.text(Label::SlowTitle).to_owned(),
        lead: draw.text(Label::SlowLead).to_owned(),
        panels,
        servers: super::lines::names(draw, Scene::Slow),
        topics: &[Topic::Slow],
        command: "--scenes slow --servers threads,reactor,offload",
        loser: Some(Label::LoseReactor),
        twin: Twin { head: head(draw), rows: rows(draw, &all) },
        more,
        ..Figure::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_requests_has_its_nines() {
        assert!((nines(0.9) - 1.0).abs() < 1e-9);
        assert!((nines(0.999) - 3.0).abs() < 1e-9);
        assert!(nines(1.0) <= 7.0 + 1e-9);
    }
}
