//! The life of one message: the calls of each server, from a recorded trace, step by step.

use std::fmt::Write;

use super::figure::{Draw, Figure, Twin};
use super::svg::escape;
use crate::labels::{Label, time};
use crate::run::{Life, Phase, Step};

/// A step as it is shown: one call that matters, or several that do not.
struct Shown<'a> {
    phase: Phase,
    class: &'static str,
    name: String,
    explained: &'static str,
    steps: Vec<&'a Step>,
}

/// The client pauses for 20 ms before it asks: a call that took longer than this slept.
const SLEEP_US: f64 = 2000.0;

/// What a call is for, in words.
fn meaning(step: &Step) -> (&'static str, Label) {
    let nothing = step.text.contains("EAGAIN");
    let slept = step.took_us > SLEEP_US;
    match &step.name[..] {
        "epoll_wait" | "epoll_pwait" | "poll" | "select" if slept => ("wait", Label::MeansWait),
        "epoll_wait" | "epoll_pwait" | "poll" | "select" => ("wait", Label::MeansAsk),
        name if name.starts_with("accept") && slept => ("accept", Label::MeansSleptAccept),
        name if name.starts_with("accept") && nothing => ("other", Label::MeansNoMore),
        name if name.starts_with("accept") => ("accept", Label::MeansAccept),
        "read" | "recvfrom" | "recvmsg" if step.text.ends_with("= 0") => ("read", Label::MeansEnd),
        "read" | "recvfrom" | "recvmsg" if slept => ("read", Label::MeansSleptRead),
        "read" | "recvfrom" | "recvmsg" => ("read", Label::MeansRead),
        "write" | "sendto" | "sendmsg" => ("write", Label::MeansWrite),
        "clone" | "clone3" => ("thread", Label::MeansThread),
        "epoll_ctl" => ("register", Label::MeansRegister),
        "futex" => ("lock", Label::MeansLock),
        "close" | "shutdown" => ("close", Label::MeansClose),
        _ => ("other", Label::MeansOther),
    }
}

/// Calls without a meaning of their own stand together.
fn shown<'a>(draw: &Draw<'_>, life: &'a Life) -> Vec<Shown<'a>> {
    let mut all: Vec<Shown<'a>> = Vec::new();
    for step in &life.steps {
        let (class, label) = meaning(step);
        let explained = draw.text(label);
        let together = matches!(class, "other" | "lock");
        match all.last_mut() {
            Some(last) if together && last.class == class && last.phase == step.phase => {
                last.steps.push(step);
                last.name = draw.fill(Label::MoreCalls, &[("n", last.steps.len().to_string())]);
            }
            _ => all.push(Shown {
                phase: step.phase,
                class,
                name: step.name.clone(),
                explained,
                steps: vec![step],
            }),
        }
    }
    all
}

fn phase_name(draw: &Draw<'_>, phase: Phase) -> &'static str {
    draw.text(match phase {
        Phase::Accept => Label::PhaseAccept,
        Phase::Message => Label::PhaseMessage,
        Phase::Close => Label::PhaseClose,
    })
}

/// A list that is whole without the script; the script shows one step of each list at a time.
fn list(draw: &Draw<'_>, life: &Life) -> String {
    let all = shown(draw, life);
    let mut out = String::new();
    let counted = draw.fill(
        Label::LifeCount,
        &[
            ("m", life.steps.iter().filter(|s| s.phase == Phase::Message).count().to_string()),
            ("n", life.steps.len().to_string()),
        ],
    );
    let _ = write!(
        out,
        "<div class=\"life\"><h3>{}</h3><p class=\"small\">{}</p>",
        escape(draw.server(&life.server)),
        escape(&counted)
    );
    for phase in [Phase::Accept, Phase::Message, Phase::Close] {
        let steps: Vec<_> = all.iter().filter(|shown| shown.phase == phase).collect();
        if steps.is_empty() {
            continue;
        }
        let tag = match phase {
            Phase::Accept => "accept",
            Phase::Message => "message",
            Phase::Close => "close",
        };
        let name = phase_name(draw, phase);
        let _ = write!(out, "<h4>{name}</h4><ol class=\"steps\" data-phase=\"{tag}\">");
        for step in steps {
            let thread = step.steps[0].thread + 1;
            let slept = step.steps.iter().map(|step| step.took_us).sum::<f64>();
            let slept = if matches!(step.class, "wait" | "read" | "accept") && slept > SLEEP_US {
                draw.text(Label::Slept).to_owned()
            } else {
                time(slept, draw.lang)
            };
            let mut lines: Vec<_> = step.steps.iter().map(|s| escape(&s.text)).collect();
            if lines.len() > 24 {
                lines.truncate(24);
                lines.push("...".to_owned());
            }
            let _ = write!(
                out,
                "<li class=\"c-{}\"><b>{}</b> <span class=\"th\">{}</span> \
                 <span class=\"took\">{slept}</span><span class=\"says\">{}</span>\
                 <code>{}</code></li>",
                step.class,
                escape(&step.name),
                escape(&draw.fill(Label::ThreadNumber, &[("n", thread.to_string())])),
                escape(step.explained),
                lines.join("<br>")
            );
        }
        out.push_str("</ol>");
    }
    out.push_str("</div>");
    out
}

pub(super) fn figure(draw: &Draw<'_>) -> Option<Figure> {
    let lives = &draw.run.lives;
    if lives.is_empty() {
        return None;
    }
    let mut more = String::new();
    let _ = write!(
        more,
        "<div class=\"player\" hidden data-of=\"{}\"><div class=\"phases\" role=\"group\">",
        escape(draw.text(Label::StepOf))
    );
    for (tag, phase) in
        [("accept", Phase::Accept), ("message", Phase::Message), ("close", Phase::Close)]
    {
        let pressed = tag == "message";
        let name = escape(phase_name(draw, phase));
        let _ = write!(
            more,
            "<button type=\"button\" data-phase=\"{tag}\" aria-pressed=\"{pressed}\">{name}\
             </button>"
        );
    }
    let slider = escape(draw.text(Label::Slider));
    let _ = write!(
        more,
        "</div><label>{slider} <input type=\"range\" min=\"0\" max=\"1\" value=\"0\" step=\"1\">\
         </label><output></output></div><div class=\"lives\">"
    );
    for life in lives {
        more.push_str(&list(draw, life));
    }
    more.push_str("</div>");
    let mut rows = Vec::new();
    for life in lives {
        for step in &life.steps {
            rows.push(vec![
                draw.server(&life.server).to_owned(),
                phase_name(draw, step.phase).to_owned(),
                (step.thread + 1).to_string(),
                time(step.at_us.max(0.0), draw.lang),
                time(step.took_us, draw.lang),
                step.text.clone(),
            ]);
        }
    }
    Some(Figure {
        id: "life",
        title: draw.text(Label::LifeTitle).to_owned(),
        lead: draw.text(Label::LifeLead).to_owned(),
        command: "--scenes trace -c 1 --servers threads,reactor",
        twin: Twin {
            head: draw.head(&[
                Label::HeadServer,
                Label::Phase,
                Label::Thread,
                Label::Began,
                Label::Took,
                Label::Call,
            ]),
            rows,
        },
        more,
        ..Figure::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Lang;
    use crate::run::Run;

    #[test]
    fn calls_without_a_meaning_stand_together_within_a_phase() {
        let step = |phase, name: &str| Step {
            phase,
            thread: 0,
            at_us: 0.0,
            took_us: 1.0,
            name: name.to_owned(),
            text: format!("{name}() = 1"),
        };
        let life = Life {
            server: "threads".to_owned(),
            threads: 1,
            steps: vec![
                step(Phase::Accept, "accept4"),
                step(Phase::Accept, "mmap"),
                step(Phase::Accept, "mprotect"),
                step(Phase::Message, "gettid"),
                step(Phase::Message, "recvfrom"),
            ],
        };
        let run = Run::default();
        let draw = Draw { run: &run, lang: Lang::En };
        let names: Vec<_> = shown(&draw, &life).into_iter().map(|shown| shown.name).collect();
        assert_eq!(names, ["accept4", "2 calls", "gettid", "recvfrom"]);
    }
}
