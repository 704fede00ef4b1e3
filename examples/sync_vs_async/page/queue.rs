//! A slow reader's unsent bytes in the server, with the marks between which it is held.

use super::figure::{Draw, Figure, Panel, Twin};
use super::svg::{Anchor, Axes, FRAME, HEIGHT, Scale, axes, line, numbers, open, path, text};
use crate::labels::{Label, bytes, number};
use crate::notes::Topic;
use crate::run::Queue;

/// Unsent bytes of each reader, in KiB.
fn each(queue: &Queue) -> Vec<(f64, f64)> {
    let readers = queue.readers.max(1) as f64;
    queue.samples.iter().map(|&(ms, bytes)| (ms, bytes as f64 / readers / 1024.0)).collect()
}

fn chart(draw: &Draw<'_>, queue: &Queue) -> String {
    let samples = each(queue);
    let last = samples.last().map_or(1.0, |&(ms, _)| ms);
    let high_mark = queue.high_mark as f64 / 1024.0;
    let low_mark = queue.low_mark as f64 / 1024.0;
    let highest = samples.iter().map(|&(_, kib)| kib).fold(high_mark, f64::max);
    let x = Scale::linear(0.0, last, FRAME.left, FRAME.right);
    let y = Scale::linear(0.0, highest * 1.15, FRAME.bottom, FRAME.top);
    let mut out = open(HEIGHT, draw.text(Label::QueueTitle));
    axes(
        &mut out,
        FRAME,
        &Axes {
            x,
            y,
            x_title: draw.text(Label::AxisTime),
            y_title: draw.text(Label::AxisUnsent),
            x_ticks: numbers(x.ticks(6), draw.lang),
            y_ticks: numbers(y.ticks(5), draw.lang),
        },
    );
    for (kib, label) in [(high_mark, Label::HighMark), (low_mark, Label::LowMark)] {
        let at = y.at(kib);
        line(&mut out, (FRAME.left, at), (FRAME.right, at), "water");
        text(&mut out, FRAME.right, at - 4.0, Anchor::End, "small", draw.text(label));
    }
    let places: Vec<_> = samples.iter().map(|&(ms, kib)| (x.at(ms), y.at(kib))).collect();
    path(&mut out, &places, &format!("l s-{}", queue.server));
    out.push_str("</svg>");
    out
}

pub(super) fn figure(draw: &Draw<'_>) -> Option<Figure> {
    let queues: Vec<_> = draw.run.queues.iter().filter(|q| q.samples.len() > 1).collect();
    let first = queues.first()?;
    let values = [
        ("high", bytes(first.high_mark as f64, draw.lang)),
        ("low", bytes(first.low_mark as f64, draw.lang)),
    ];
    let mut rows = Vec::new();
    for queue in &queues {
        let samples = each(queue);
        let step = samples.len().div_ceil(20).max(1);
        for (ms, kib) in samples.iter().step_by(step) {
            let server = draw.server(&queue.server).to_owned();
            rows.push(vec![server, number(*ms, draw.lang), number(*kib, draw.lang)]);
        }
    }
    Some(Figure {
        id: "slow-reader",
        title: draw.text(Label::QueueTitle).to_owned(),
        lead: draw.fill(Label::QueueLead, &values),
        panels: queues
            .iter()
            .map(|queue| Panel {
                title: draw.server(&queue.server).to_owned(),
                svg: chart(draw, queue),
            })
            .collect(),
        topics: &[Topic::Queue],
        command: "--scenes readers --servers threads,reactor,py-asyncio",
        twin: Twin {
            head: draw.head(&[Label::HeadServer, Label::AxisTime, Label::AxisUnsent]),
            rows,
        },
        ..Figure::default()
    })
}
