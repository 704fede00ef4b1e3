//! The timeline: what each thread of a server does in 20 ms.

use std::fmt::Write;

use super::Tile;
use super::figure::{Draw, Figure, Panel, Twin};
use super::svg::{Anchor, WIDTH, escape, line, open, text};
use crate::labels::{Label, number};
use crate::run::{Doing, Span, Window};

const LEFT: f64 = 22.0;
const RIGHT: f64 = WIDTH - 52.0;
const TOP: f64 = 8.0;
const LANE: f64 = 12.0;
const GAP: f64 = 5.0;
/// Of the picture of the README: above the lanes.
const HEAD: f64 = 54.0;

/// What a thread may do, in the order of legends and tables.
const KINDS: [(Doing, Label); 5] = [
    (Doing::Running, Label::DoRunning),
    (Doing::Writing, Label::DoWriting),
    (Doing::Reading, Label::DoReading),
    (Doing::Polling, Label::DoPolling),
    (Doing::Waiting, Label::DoWaiting),
];

/// The form says what a thread does, as the colour does: running fills the lane, writing half of
/// it, and each kind of waiting is a line of its own.
pub(super) fn span(x: f64, width: f64, y: f64, doing: &str) -> String {
    let middle = y + LANE / 2.0;
    match doing {
        "running" => format!(
            "<rect x=\"{x:.2}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{LANE}\" \
             class=\"d-running\"/>"
        ),
        "writing" => format!(
            "<rect x=\"{x:.2}\" y=\"{:.1}\" width=\"{width:.2}\" height=\"{:.1}\" \
             class=\"d-writing\"/>",
            y + LANE / 2.0,
            LANE / 2.0
        ),
        _ => format!("<path d=\"M{x:.2} {middle:.1}H{:.2}\" class=\"d-{doing}\"/>", x + width),
    }
}

fn name(doing: Doing) -> &'static str {
    match doing {
        Doing::Reading => "reading",
        Doing::Polling => "polling",
        Doing::Running => "running",
        Doing::Writing => "writing",
        Doing::Waiting => "waiting",
    }
}

/// The share of the time in which a thread runs or writes.
fn busy(lane: &[Span], width: f64) -> f64 {
    let works = |span: &&Span| matches!(span.doing, Doing::Running | Doing::Writing);
    lane.iter().filter(works).map(|span| span.took_us).sum::<f64>() / width * 100.0
}

/// The panel of one server; also the picture of the README.
pub(super) fn lanes(draw: &Draw<'_>, window: &Window) -> String {
    let count = window.lanes.len().max(1) as f64;
    let bottom = TOP + count * (LANE + GAP);
    let what = draw.fill(
        Label::LanesAria,
        &[
            ("server", draw.server(&window.server).to_owned()),
            ("n", window.lanes.len().to_string()),
        ],
    );
    let mut out = open(bottom + 26.0, &what);
    let place = |us: f64| LEFT + us / window.width_us * (RIGHT - LEFT);
    let mut ms = 0.0;
    while ms * 1e3 <= window.width_us {
        let x = place(ms * 1e3);
        line(&mut out, (x, TOP - 2.0), (x, bottom), "grid");
        text(&mut out, x, bottom + 16.0, Anchor::Middle, "tick", &format!("{ms} ms"));
        ms += 5.0;
    }
    for (at, lane) in window.lanes.iter().enumerate() {
        let y = TOP + at as f64 * (LANE + GAP);
        for part in lane {
            // Thinner than a hair would be nothing on paper.
            let width = (part.took_us / window.width_us * (RIGHT - LEFT)).max(0.6);
            let _ = out.write_str(&span(place(part.at_us), width, y, name(part.doing)));
        }
        let share = format!("{} %", number(busy(lane, window.width_us).round() + 0.0, draw.lang));
        text(&mut out, RIGHT + 8.0, y + LANE - 1.5, Anchor::Start, "tick", &share);
    }
    out.push_str("</svg>");
    out
}

pub(super) fn figure(draw: &Draw<'_>) -> Option<Figure> {
    let windows = &draw.run.windows;
    if windows.is_empty() {
        return None;
    }
    let panels = windows.iter().map(|window| Panel {
        title: draw.server(&window.server).to_owned(),
        svg: lanes(draw, window),
    });
    let mut head = draw.head(&[Label::HeadServer, Label::Thread]);
    head.extend(KINDS.map(|(_, label)| format!("{}, %", draw.text(label))));
    let mut rows = Vec::new();
    for window in windows {
        for (at, lane) in window.lanes.iter().enumerate() {
            let share = |doing| {
                let spans = lane.iter().filter(|span| span.doing == doing);
                let sum: f64 = spans.map(|span| span.took_us).sum();
                number(sum / window.width_us * 100.0, draw.lang)
            };
            let mut row = vec![draw.server(&window.server).to_owned(), (at + 1).to_string()];
            row.extend(KINDS.map(|(doing, _)| share(doing)));
            rows.push(row);
        }
    }
    let classes = ["lane-running", "lane-writing", "lane-reading", "lane-polling", "lane-waiting"];
    Some(Figure {
        id: "timeline",
        title: draw.text(Label::LanesTitle).to_owned(),
        lead: draw.text(Label::LanesLead).to_owned(),
        panels: panels.collect(),
        key: classes.into_iter().zip(KINDS.map(|(_, label)| draw.text(label))).collect(),
        command: "--scenes trace --servers threads,reactor",
        twin: Twin { head, rows },
        ..Figure::default()
    })
}

/// The picture at the head of the README, a file of its own: threads beside the reactor, and what
/// both cost in the same run.
pub(super) fn picture(draw: &Draw<'_>, tiles: &[Tile]) -> Option<String> {
    let window = |name: &str| draw.run.windows.iter().find(|window| window.server == name);
    let (threads, reactor) = window("threads").zip(window("reactor"))?;
    let tall = HEAD + TOP + threads.lanes.len() as f64 * (LANE + GAP) + 40.0;
    let wide = WIDTH * 2.0 + 20.0;
    let mut out = format!(
        "<svg viewBox=\"0 0 {wide} {:.0}\" role=\"img\" aria-label=\"{}\" \
         xmlns=\"http://www.w3.org/2000/svg\"><style>{}</style>",
        tall + 26.0,
        escape(draw.text(Label::LanesTitle)),
        include_str!("picture.css")
    );
    // One thread of the blocking server accepts, and has no client.
    let count = [("n", threads.lanes.len().to_string())];
    let heads = [
        (threads, Label::ThreadsLong, draw.fill(Label::PictureClients, &count)),
        (reactor, Label::ReactorLong, draw.text(Label::PictureClient).to_owned()),
    ];
    for (at, (window, title, clients)) in heads.into_iter().enumerate() {
        let x = at as f64 * (WIDTH + 20.0);
        let panel = lanes(draw, window);
        let body = panel.split_once('>').map_or("", |(_, rest)| rest);
        let body = body.strip_suffix("</svg>").unwrap_or(body);
        let _ = write!(out, "<g transform=\"translate({x} {HEAD})\">{body}</g>");
        text(&mut out, x + LEFT, 22.0, Anchor::Start, "head", draw.text(title));
        text(&mut out, x + LEFT, 41.0, Anchor::Start, "tick", &clients);
    }
    let y = HEAD + TOP + reactor.lanes.len() as f64 * (LANE + GAP) + 66.0;
    costs(&mut out, draw, tiles, (WIDTH + 20.0 + LEFT, y), wide - 10.0);
    let mut x = LEFT;
    for (doing, label) in KINDS {
        let called = draw.text(label);
        out.push_str(&span(x, 28.0, tall, name(doing)));
        text(&mut out, x + 34.0, tall + 11.0, Anchor::Start, "tick", called);
        x += 58.0 + called.chars().count() as f64 * 7.4;
    }
    out.push_str("</svg>\n");
    Some(out)
}

/// A small table of threads and the reactor.
fn costs(out: &mut String, draw: &Draw<'_>, tiles: &[Tile], at: (f64, f64), right: f64) {
    const COLUMN: f64 = 110.0;
    let (left, mut y) = at;
    for (server, x) in [("threads", right - COLUMN), ("reactor", right)] {
        text(out, x, y, Anchor::End, &format!("cost {server}"), draw.server(server));
    }
    for tile in tiles {
        y += 26.0;
        line(out, (left, y - 18.0), (right, y - 18.0), "grid");
        text(out, left, y, Anchor::Start, "tick", &tile.title);
        text(out, right - COLUMN, y, Anchor::End, "cost threads", &tile.threads);
        text(out, right, y, Anchor::End, "cost reactor", &tile.reactor);
    }
}
