//! What a connection and a request cost: memory, threads, switches, calls.

use super::figure::{Draw, Figure, Panel, Twin};
use super::lines::{chart, names, twin};
use super::svg::{Anchor, FRAME, Scale, WIDTH, escape, line, open, rect, text};
use crate::labels::{Label, bytes, number};
use crate::notes::Topic;
use crate::run::{Calls, Sample, Scene};

/// From so many connections on, memory is mostly that of connections.
const MEMORY_CONNECTIONS: usize = 10;

pub(super) fn memory(draw: &Draw<'_>) -> Option<Figure> {
    draw.run.points(Scene::Steady).next()?;
    let log = |low: f64| {
        move |high: f64| Scale::log(low, high.max(low * 10.0) * 1.3, FRAME.bottom, FRAME.top)
    };
    let kb = |sample: &Sample| sample.resident_kb;
    let threads = |sample: &Sample| sample.threads as f64;
    // Fewer would show what the process takes once; unless there are no more.
    let most = draw.run.plan.connections.last().copied().unwrap_or(1);
    let least = most.min(MEMORY_CONNECTIONS);
    let panel = |label: Label, axis: Label, low: f64, of: fn(&Sample) -> f64| Panel {
        title: draw.text(label).to_owned(),
        svg: chart(draw, Scene::Steady, least, (draw.text(label), draw.text(axis)), log(low), of),
    };
    Some(Figure {
        id: "memory",
        title: draw.text(Label::MemoryTitle).to_owned(),
        lead: draw.text(Label::MemoryLead).to_owned(),
        panels: vec![
            panel(Label::MemoryPanel, Label::AxisMemory, 0.1, kb),
            panel(Label::ThreadsPanel, Label::AxisThreads, 1.0, threads),
        ],
        servers: names(draw, Scene::Steady),
        topics: &[Topic::Memory],
        command: "--scenes steady,idle -c 5000 --servers threads,reactor",
        loser: Some(Label::LoseThreads),
        twin: twin(
            draw,
            Scene::Steady,
            &[
                (Label::AxisMemory, |s| s.resident_kb),
                (Label::AxisVirtual, |s| s.virtual_kb),
                (Label::AxisThreads, |s| s.threads as f64),
            ],
        ),
        ..Figure::default()
    })
}

/// A kind of call: its class, its label, and the calls it has.
const KINDS: [(&str, Label, &[&str]); 5] = [
    ("fill-wait", Label::CallWait, &["epoll_wait", "epoll_pwait", "poll", "select", "pselect6"]),
    ("fill-read", Label::CallRead, &["read", "recvfrom", "recvmsg"]),
    ("fill-write", Label::CallWrite, &["write", "sendto", "sendmsg", "writev"]),
    ("fill-lock", Label::CallLock, &["futex"]),
    ("fill-other", Label::CallOther, &[]),
];

/// Calls per request of each kind.
fn kinds(calls: &Calls) -> [f64; 5] {
    let mut sums = [0.0; 5];
    for (name, count) in &calls.calls {
        let kind = KINDS.iter().position(|(_, _, names)| names.contains(&&name[..])).unwrap_or(4);
        sums[kind] += *count as f64 / calls.requests.max(1) as f64;
    }
    sums
}

/// A bar for each server and number of connections. CPython's threads may make a hundred calls;
/// what leaves the frame is cut, and its number says how long it is.
fn calls_chart(draw: &Draw<'_>, all: &[&Calls]) -> String {
    const LEFT: f64 = 142.0;
    const ROW: f64 = 22.0;
    const MOST: f64 = 9.0;
    let right = WIDTH - 54.0;
    let height = 16.0 + all.len() as f64 * ROW + 8.0;
    let highest = all.iter().map(|calls| calls.per_request()).fold(1.0, f64::max).min(MOST);
    let x = Scale::linear(0.0, highest, LEFT, right);
    let mut out = open(height, draw.text(Label::CallsPanel));
    for (at, calls) in all.iter().enumerate() {
        let y = 8.0 + at as f64 * ROW;
        let name = format!(
            "{} · {}",
            draw.server(&calls.server),
            number(calls.connections as f64, draw.lang)
        );
        text(&mut out, LEFT - 8.0, y + 13.0, Anchor::End, "tick", &name);
        let mut from = 0.0;
        for ((class, ..), count) in KINDS.iter().zip(kinds(calls)) {
            let (left, until) = (x.at(from), x.at(from + count));
            if until > left {
                rect(&mut out, left, y, until - left, ROW - 7.0, class);
            }
            from += count;
        }
        if from > highest {
            line(&mut out, (right - 5.0, y - 2.0), (right - 10.0, y + ROW - 5.0), "cut");
        }
        let sum = number(from, draw.lang);
        text(&mut out, x.at(from) + 6.0, y + 13.0, Anchor::Start, "tick", &sum);
    }
    out.push_str("</svg>");
    out
}

pub(super) fn switches(draw: &Draw<'_>) -> Option<Figure> {
    draw.run.points(Scene::Steady).next()?;
    let log = |high: f64| Scale::log(0.003, high.max(1.0) * 1.5, FRAME.bottom, FRAME.top);
    let title = draw.text(Label::SwitchesPanel);
    let axis = draw.text(Label::AxisSwitches);
    let svg = chart(draw, Scene::Steady, 1, (title, axis), log, |sample| sample.switches);
    let mut panels = vec![Panel { title: title.to_owned(), svg }];
    let mut all: Vec<_> = draw.run.calls.iter().collect();
    let place = |name: &str| crate::run::SERVERS.iter().position(|s| *s == name);
    all.sort_by_key(|calls| (place(&calls.server), calls.connections));
    let mut key = Vec::new();
    let mut twin = twin(draw, Scene::Steady, &[(Label::AxisSwitches, |s| s.switches)]);
    if !all.is_empty() {
        let title = draw.text(Label::CallsPanel).to_owned();
        panels.push(Panel { svg: calls_chart(draw, &all), title });
        key = KINDS.iter().map(|(class, label, _)| (*class, draw.text(*label))).collect();
        twin.head.push(draw.text(Label::AxisCalls).to_owned());
        for row in &mut twin.rows {
            let found = all.iter().find(|calls| {
                row[0] == draw.server(&calls.server)
                    && row[1] == number(calls.connections as f64, draw.lang)
            });
            row.push(found.map_or("-".to_owned(), |calls| {
                let list = calls.calls.iter().map(|(name, count)| {
                    let each = *count as f64 / calls.requests.max(1) as f64;
                    format!("{} {name}", number(each, draw.lang))
                });
                list.collect::<Vec<_>>().join(", ")
            }));
        }
    }
    Some(Figure {
        id: "calls",
        title: draw.text(Label::SwitchesTitle).to_owned(),
        lead: draw.text(Label::SwitchesLead).to_owned(),
        panels,
        servers: names(draw, Scene::Steady),
        key,
        topics: &[Topic::Switches],
        command: "--scenes steady,trace -c 1,100,1000 --servers threads,reactor",
        loser: Some(Label::LoseThreads),
        twin,
        ..Figure::default()
    })
}

/// The game without its frills, in both worlds.
const CODE_RUST: &str = "\
struct Adding {
    sum: i64,       // CodeBetween
}

impl Protocol for Adding {
    fn data(&mut self, cx, input) -> Outcome {
        // CodeWhole
        self.sum += number;
        writeln!(cx, \"{}\", self.sum)?;
        Ok(())      // CodeBack
    }
}";
const CODE_PYTHON: &str = "\
def handle(self):            # CodeThread
    total = 0                # CodeOnStack
    for line in self.rfile:  # CodeBlocks
        total += int(line)
        self.wfile.write(b\"%d\\n\" % total)

async def adding(reader, writer):  # CodeTask
    total = 0                      # CodeInFrame
    while line := await reader.readline():
        total += int(line)
        writer.write(b\"%d\\n\" % total)";
/// The comments in the code above.
const COMMENTS: [(&str, Label); 8] = [
    ("CodeBetween", Label::CodeBetween),
    ("CodeWhole", Label::CodeWhole),
    ("CodeBack", Label::CodeBack),
    ("CodeThread", Label::CodeThread),
    ("CodeOnStack", Label::CodeOnStack),
    ("CodeBlocks", Label::CodeBlocks),
    ("CodeTask", Label::CodeTask),
    ("CodeInFrame", Label::CodeInFrame),
];

fn code(draw: &Draw<'_>, title: Label, code: &str) -> Panel {
    let comment =
        |code: String, &(name, label): &(&str, Label)| code.replace(name, draw.text(label));
    let code = COMMENTS.iter().fold(code.to_owned(), comment);
    let svg = format!("<pre><code>{}</code></pre>", escape(&code));
    Panel { title: draw.text(title).to_owned(), svg }
}

/// Where the state of one connection is, and what it takes there.
pub(super) fn state(draw: &Draw<'_>) -> Option<Figure> {
    const LEFT: f64 = 100.0;
    const ROW: f64 = 54.0;
    let most = draw.run.points(Scene::Steady).map(|point| point.connections).max()?;
    let points: Vec<_> = draw
        .run
        .points(Scene::Steady)
        .filter(|point| point.connections == most && point.server != "serial")
        .collect();
    let right = WIDTH - 80.0;
    let x = Scale::log(4.0, 200e6, LEFT, right);
    let mut out = open(16.0 + points.len() as f64 * ROW + 24.0, draw.text(Label::StateTitle));
    let bottom = 8.0 + points.len() as f64 * ROW;
    for power in [1.0, 1024.0, 1024.0 * 1024.0] {
        let at = x.at(power * 16.0);
        line(&mut out, (at, 4.0), (at, bottom), "grid");
        let name = bytes(power * 16.0, draw.lang);
        text(&mut out, at, bottom + 16.0, Anchor::Middle, "tick", &name);
    }
    let mut rows = Vec::new();
    for (at, point) in points.iter().enumerate() {
        let y = 8.0 + at as f64 * ROW;
        text(&mut out, 4.0, y + 24.0, Anchor::Start, "name", draw.server(&point.server));
        let own = !point.server.starts_with("py-");
        let kb = |of: fn(&Sample) -> f64| point.spread(of).middle * 1024.0;
        let (resident, reserved) = (kb(|s| s.resident_kb), kb(|s| s.virtual_kb));
        let value = if own { draw.run.machine.state_bytes as f64 } else { 0.0 };
        let bars = [("fill-value", value), ("fill-resident", resident), ("fill-virtual", reserved)];
        for (row, (class, size)) in bars.into_iter().enumerate() {
            // What is not known has no bar; nor has address space within what is resident.
            if size <= 0.0 || (row == 2 && size < resident) {
                continue;
            }
            let y = y + row as f64 * 15.0;
            let width = x.at(size) - LEFT;
            rect(&mut out, LEFT, y, width.max(1.0), 12.0, class);
            let size = bytes(size, draw.lang);
            text(
                &mut out,
                x.at(0.0).max(LEFT + width) + 6.0,
                y + 10.5,
                Anchor::Start,
                "tick",
                &size,
            );
        }
        let place = match &point.server[..] {
            "threads" => Label::StateThreads,
            "reactor" => Label::StateReactor,
            "py-threads" => Label::StatePyThreads,
            _ => Label::StatePyAsyncio,
        };
        rows.push(vec![
            draw.server(&point.server).to_owned(),
            draw.text(place).to_owned(),
            if own { bytes(value, draw.lang) } else { "-".to_owned() },
            bytes(resident, draw.lang),
            bytes(reserved, draw.lang),
        ]);
    }
    out.push_str("</svg>");
    let places: String =
        rows.iter().map(|row| format!("<dt>{}</dt><dd>{}</dd>", row[0], escape(&row[1]))).collect();
    let places = format!("<dl class=\"places\">{places}</dl>");
    let panel = draw.fill(Label::StatePanel, &[("n", number(most as f64, draw.lang))]);
    Some(Figure {
        id: "state",
        title: draw.text(Label::StateTitle).to_owned(),
        lead: draw.text(Label::StateLead).to_owned(),
        panels: vec![
            Panel { title: panel, svg: out },
            code(draw, Label::StateRust, CODE_RUST),
            code(draw, Label::StatePython, CODE_PYTHON),
            Panel { title: draw.text(Label::StateWhere).to_owned(), svg: places },
        ],
        key: vec![
            ("fill-value", draw.text(Label::StateValue)),
            ("fill-resident", draw.text(Label::StateResident)),
            ("fill-virtual", draw.text(Label::StateVirtual)),
        ],
        command: "--scenes steady -c 1000 --rounds 1 --servers threads,reactor",
        loser: Some(Label::LoseThreads),
        twin: Twin {
            head: draw.head(&[
                Label::HeadServer,
                Label::StateWhere,
                Label::StateValue,
                Label::StateResident,
                Label::StateVirtual,
            ]),
            rows,
        },
        ..Figure::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_belongs_to_one_kind() {
        let calls = ["epoll_wait", "recvfrom", "sendto", "futex", "mmap"];
        let calls = calls.map(|name| (name.to_owned(), 200)).into();
        let calls = Calls { server: "reactor".to_owned(), connections: 1, requests: 100, calls };
        assert_eq!(kinds(&calls), [2.0; 5]);
    }
}
