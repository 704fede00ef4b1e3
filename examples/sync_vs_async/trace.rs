//! The timelines in Chrome's trace format, for Perfetto (`ui.perfetto.dev`) or `chrome://tracing`.

use serde_json::{Value, json};

use crate::labels::{Label, Lang, server};
use crate::run::{Doing, Run};

/// One process per server, one track per thread, one slice per span; and the life of a client as
/// a process of its own.
pub(crate) fn trace(run: &Run, lang: Lang) -> String {
    let mut events = Vec::new();
    let mut pid = 0;
    for window in &run.windows {
        pid += 1;
        let name = format!("{}, 20 ms", server(&window.server, lang));
        events.push(named(pid, None, &name));
        for (at, lane) in window.lanes.iter().enumerate() {
            let tid = at + 1;
            let name = format!("{} {tid}", Label::Thread.text(lang));
            events.push(named(pid, Some(tid), &name));
            for span in lane {
                let doing = doing(span.doing).text(lang);
                events.push(slice(pid, tid, doing, span.at_us, span.took_us, json!({})));
            }
        }
    }
    for life in &run.lives {
        pid += 1;
        let title = Label::LifeTitle.text(lang);
        events.push(named(pid, None, &format!("{}: {title}", server(&life.server, lang))));
        // Times before the client came are below zero.
        let first = life.steps.iter().map(|step| step.at_us).fold(0.0, f64::min);
        for step in &life.steps {
            let call = json!({ "call": step.text });
            let (tid, at) = (step.thread + 1, step.at_us - first);
            events.push(slice(pid, tid, &step.name, at, step.took_us, call));
        }
    }
    json!({ "traceEvents": events, "displayTimeUnit": "ms" }).to_string()
}

fn doing(doing: Doing) -> Label {
    match doing {
        Doing::Reading => Label::DoReading,
        Doing::Polling => Label::DoPolling,
        Doing::Running => Label::DoRunning,
        Doing::Writing => Label::DoWriting,
        Doing::Waiting => Label::DoWaiting,
    }
}

fn named(pid: usize, tid: Option<usize>, name: &str) -> Value {
    let kind = if tid.is_some() { "thread_name" } else { "process_name" };
    json!({
        "ph": "M", "pid": pid, "tid": tid.unwrap_or(0), "name": kind, "args": { "name": name },
    })
}

fn slice(pid: usize, tid: usize, name: &str, at: f64, took: f64, args: Value) -> Value {
    json!({
        "ph": "X", "pid": pid, "tid": tid, "name": name, "ts": at, "dur": took, "args": args,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Life, Phase, Span, Step, Window};

    #[test]
    fn spans_and_calls_are_complete_events_that_do_not_begin_before_zero() {
        let lanes = vec![vec![Span { at_us: 0.0, took_us: 5.0, doing: Doing::Polling }]];
        let window = Window { server: "reactor".to_owned(), width_us: 5.0, lanes };
        let step = Step {
            phase: Phase::Accept,
            thread: 0,
            at_us: -40.0,
            took_us: 40.0,
            name: "accept4".to_owned(),
            text: "accept4(3) = 4".to_owned(),
        };
        let life = Life { server: "serial".to_owned(), threads: 1, steps: vec![step] };
        let run = Run { windows: vec![window], lives: vec![life], ..Run::default() };
        let value: Value = serde_json::from_str(&trace(&run, Lang::En)).unwrap();
        let events = value["traceEvents"].as_array().unwrap();
        let slices: Vec<_> = events.iter().filter(|event| event["ph"] == "X").collect();
        assert_eq!(slices.len(), 2);
        assert_eq!(
            (&slices[0]["name"], &slices[0]["dur"]),
            (&json!("asleep in poll"), &json!(5.0))
        );
        assert_eq!((&slices[1]["ts"], &slices[1]["dur"]), (&json!(0.0), &json!(40.0)));
        assert_eq!(events.iter().filter(|event| event["ph"] == "M").count(), 3);
    }
}
