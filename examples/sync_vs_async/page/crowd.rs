//! Who is served: requests per connection, and latencies beside clients of other kinds.

use super::figure::{Draw, Figure, Panel, Twin};
use super::svg::{
    Anchor, Axes, FRAME, HEIGHT, Scale, WIDTH, axes, line, mark, numbers, open, path, text, times,
};
use crate::labels::{Label, number, time};
use crate::notes::Topic;
use crate::run::{Point, Scene};

/// Requests of each connection, the busiest first, as a share of the mean.
fn shares_chart(draw: &Draw<'_>, points: &[&Point], what: &str) -> String {
    let x = Scale::linear(0.0, 100.0, FRAME.left, FRAME.right);
    let y = Scale::log(0.1, 20.0, FRAME.bottom, FRAME.top);
    let mut out = open(HEIGHT, what);
    let ticks = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
    let name = |value: f64| format!("{}×", number(value, draw.lang));
    axes(
        &mut out,
        FRAME,
        &Axes {
            x,
            y,
            x_title: draw.text(Label::AxisRank),
            y_title: draw.text(Label::AxisShare),
            x_ticks: numbers(x.ticks(5), draw.lang),
            y_ticks: ticks.map(|value| (value, name(value))).into(),
        },
    );
    line(&mut out, (FRAME.left, y.at(1.0)), (FRAME.right, y.at(1.0)), "even");
    for point in points {
        let Some(round) = point.middle_round() else { continue };
        let shares = &round.shares;
        let mean = shares.iter().sum::<u64>() as f64 / shares.len().max(1) as f64;
        let last = shares.len().saturating_sub(1).max(1) as f64;
        let places: Vec<_> = shares
            .iter()
            .enumerate()
            .map(|(at, &count)| {
                (x.at(at as f64 / last * 100.0), y.at(count as f64 / mean.max(1e-9)))
            })
            .collect();
        path(&mut out, &places, &format!("l s-{}", point.server));
        for at in [0, places.len() / 2, places.len().saturating_sub(1)] {
            if let Some(&(px, py)) = places.get(at) {
                mark(&mut out, px, py, &point.server);
            }
        }
    }
    out.push_str("</svg>");
    out
}

/// A row for each server: from the median over p90 and p99 to the worst.
fn dots(draw: &Draw<'_>, points: &[&Point], what: &str) -> String {
    const LEFT: f64 = 92.0;
    const ROW: f64 = 34.0;
    let rounds: Vec<_> = points.iter().filter_map(|point| point.middle_round()).collect();
    let low = rounds.iter().map(|round| round.p50).fold(f64::INFINITY, f64::min);
    let high = rounds.iter().map(|round| round.max).fold(10.0, f64::max);
    let bottom = 12.0 + points.len() as f64 * ROW;
    let x = Scale::log(low.min(high) * 0.7, high * 1.3, LEFT, WIDTH - 30.0);
    let mut out = open(bottom + 26.0, what);
    for us in x.ticks(6) {
        let at = x.at(us);
        line(&mut out, (at, 6.0), (at, bottom), "grid");
        text(&mut out, at, bottom + 17.0, Anchor::Middle, "tick", &times(us));
    }
    for (at, point) in points.iter().enumerate() {
        let Some(round) = point.middle_round() else { continue };
        let y = 14.0 + (at as f64 + 0.5) * ROW;
        let server = &point.server;
        text(&mut out, 4.0, y + 4.0, Anchor::Start, "name", draw.server(server));
        let place = |us: f64| x.at(us);
        line(&mut out, (place(round.p50), y), (place(round.max), y), &format!("l thin s-{server}"));
        line(&mut out, (place(round.p50), y), (place(round.p99), y), &format!("band s-{server}"));
        mark(&mut out, place(round.p50), y, server);
        for (us, half) in [(round.p99, 7.0), (round.max, 4.0)] {
            let at = place(us);
            line(&mut out, (at, y - half), (at, y + half), &format!("range s-{server}"));
        }
        let said = time(round.p99, draw.lang);
        text(&mut out, place(round.p99), y - 9.0, Anchor::Middle, "small", &said);
    }
    out.push_str("</svg>");
    out
}

pub(super) fn fairness(draw: &Draw<'_>) -> Option<Figure> {
    let most = draw.run.points(Scene::Steady).map(|point| point.connections).max()?;
    let points: Vec<_> =
        draw.run.points(Scene::Steady).filter(|point| point.connections == most).collect();
    if most < 2 {
        return None;
    }
    let n = number(most as f64, draw.lang);
    let title = draw.fill(Label::FairPanel, &[("n", n)]);
    let mut rows = Vec::new();
    for point in &points {
        let Some(round) = point.middle_round() else { continue };
        let (first, last) = (round.shares.first(), round.shares.last());
        rows.push(vec![
            draw.server(&point.server).to_owned(),
            format!("{} / {}", round.served, round.asking),
            first.copied().unwrap_or_default().to_string(),
            last.copied().unwrap_or_default().to_string(),
            number(point.spread(|sample| sample.jain).middle, draw.lang),
        ]);
    }
    Some(Figure {
        id: "fairness",
        title: draw.text(Label::FairTitle).to_owned(),
        lead: draw.text(Label::FairLead).to_owned(),
        panels: vec![Panel { svg: shares_chart(draw, &points, &title), title }],
        servers: points.iter().map(|point| point.server.clone()).collect(),
        topics: &[Topic::Fairness],
        command: "--scenes steady -c 100 --servers serial,threads,reactor",
        loser: Some(Label::LoseSerial),
        twin: Twin {
            head: draw.head(&[
                Label::HeadServer,
                Label::Served,
                Label::Busiest,
                Label::LeastBusy,
                Label::HeadFair,
            ]),
            rows,
        },
        ..Figure::default()
    })
}

/// Beside slow readers, flooders and idle connections.
pub(super) fn neighbours(draw: &Draw<'_>) -> Option<Figure> {
    let mut panels = Vec::new();
    let mut rows = Vec::new();
    for scene in [Scene::Beside, Scene::Readers, Scene::Idle] {
        let points: Vec<_> = draw.run.points(scene).collect();
        let Some(first) = points.first() else { continue };
        let title = crate::table::scene_title(first, draw.lang);
        panels.push(Panel { svg: dots(draw, &points, &title), title: title.clone() });
        for point in &points {
            let Some(round) = point.middle_round() else { continue };
            let mut row = vec![draw.server(&point.server).to_owned(), title.clone()];
            let of = [round.p50, round.p90, round.p99, round.max];
            row.extend(of.map(|us| time(us, draw.lang)));
            rows.push(row);
        }
    }
    if panels.is_empty() {
        return None;
    }
    let mut head = draw.head(&[Label::HeadServer, Label::Load]);
    head.extend(["p50", "p90", "p99", "max"].map(str::to_owned));
    Some(Figure {
        id: "neighbours",
        title: draw.text(Label::BesideTitle).to_owned(),
        lead: draw.text(Label::BesideLead).to_owned(),
        panels,
        topics: &[Topic::Beside],
        command: "--scenes beside --servers threads,reactor",
        loser: Some(Label::LoseReactor),
        twin: Twin { head, rows },
        ..Figure::default()
    })
}
