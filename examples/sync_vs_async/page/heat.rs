//! Latency over time: a slow handler shows as stripes.

use std::fmt::Write;

use super::figure::{Draw, Figure, Panel, Twin};
use super::svg::{Anchor, FRAME, Scale, numbers, open, text};
use crate::labels::{Label, number};
use crate::run::{HEAT_ROWS_US, Heat, Point, Scene};

const ROW: f64 = 15.0;
const TOP: f64 = 10.0;

fn low_end(row: usize) -> String {
    match HEAT_ROWS_US[row] {
        0.0 => "0".to_owned(),
        us if us < 1e3 => format!("{us} µs"),
        us => format!("{} ms", us / 1e3),
    }
}

/// The rows up to the slowest request.
fn rows_used(heat: &Heat) -> usize {
    let last = heat.cells.iter().rposition(|&count| count > 0).unwrap_or(0);
    (last / heat.columns.max(1) + 1).min(HEAT_ROWS_US.len())
}

fn chart(draw: &Draw<'_>, heat: &Heat, what: &str) -> String {
    let rows = rows_used(heat);
    let bottom = TOP + rows as f64 * ROW;
    let mut out = open(bottom + 42.0, what);
    let last = heat.column_ms * heat.columns as f64;
    let x = Scale::linear(0.0, last, FRAME.left, FRAME.right);
    let width = (FRAME.right - FRAME.left) / heat.columns.max(1) as f64;
    let most = heat.cells.iter().copied().max().unwrap_or(1).max(2);
    for row in 0..rows {
        let y = bottom - (row + 1) as f64 * ROW;
        if row % 2 == 1 {
            text(&mut out, FRAME.left - 6.0, y + ROW + 4.5, Anchor::End, "tick", &low_end(row));
        }
        for column in 0..heat.columns {
            let count = heat.cells.get(row * heat.columns + column).copied().unwrap_or(0);
            if count == 0 {
                continue;
            }
            // One request must be seen beside a hundred.
            let strength = 0.3 + 0.7 * f64::from(count).ln() / f64::from(most).ln();
            let left = FRAME.left + column as f64 * width;
            let _ = write!(
                out,
                "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
                 class=\"heat\" opacity=\"{strength:.2}\"/>",
                y + 1.0,
                (width - 0.4).max(0.5),
                ROW - 1.0
            );
        }
    }
    for (value, name) in numbers(x.ticks(6), draw.lang) {
        text(&mut out, x.at(value), bottom + 17.0, Anchor::Middle, "tick", &name);
    }
    let middle = (FRAME.left + FRAME.right) / 2.0;
    text(&mut out, middle, bottom + 36.0, Anchor::Middle, "title", draw.text(Label::AxisTime));
    out.push_str("</svg>");
    out
}

pub(super) fn figure(draw: &Draw<'_>) -> Option<Figure> {
    let open_loop = draw.run.points(Scene::Slow).filter(|point| point.rate.is_some());
    let heat = |point: &Point| point.middle_round()?.heat.clone();
    let maps: Vec<_> =
        open_loop.filter_map(|point| Some((point.server.as_str(), heat(point)?))).collect();
    if maps.is_empty() {
        return None;
    }
    let mut rows = Vec::new();
    for (server, heat) in &maps {
        for row in (0..HEAT_ROWS_US.len()).rev() {
            let cells = heat.cells.iter().skip(row * heat.columns).take(heat.columns);
            let count: u32 = cells.sum();
            if count > 0 {
                let server = draw.server(server).to_owned();
                rows.push(vec![server, low_end(row), number(f64::from(count), draw.lang)]);
            }
        }
    }
    Some(Figure {
        id: "heat",
        title: draw.text(Label::HeatTitle).to_owned(),
        lead: draw.text(Label::HeatLead).to_owned(),
        panels: maps
            .iter()
            .map(|(server, heat)| Panel {
                title: draw.server(server).to_owned(),
                svg: chart(draw, heat, draw.text(Label::HeatTitle)),
            })
            .collect(),
        command: "--scenes slow --servers threads,reactor,offload",
        loser: Some(Label::LoseReactor),
        twin: Twin {
            head: draw.head(&[Label::HeadServer, Label::FromLatency, Label::Requests]),
            rows,
        },
        ..Figure::default()
    })
}
