//! The page: one self-contained HTML file with every picture, its text twin, and the run itself.

mod bars;
mod crowd;
mod curves;
mod figure;
mod heat;
mod lanes;
mod life;
mod lines;
mod queue;
mod svg;

use std::fmt::Write;

use crate::labels::{Label, Lang, bytes, fill, number, server, time};
use crate::notes::{Topic, left_out, notes};
use crate::run::{FORM, Run, Sample, Scene};
use crate::table::connections_title;
use figure::{Draw, Figure};
use svg::escape;

/// Before and behind the run inside a page.
const BEFORE: &str = "<script type=\"application/json\" id=\"run\">";
const BEHIND: &str = "</script>";

/// The whole page.
pub(crate) fn page(run: &Run, lang: Lang) -> Result<String, serde_json::Error> {
    let draw = Draw { run, lang };
    let text = |label: Label| escape(label.text(lang));
    let mut out = String::new();
    let (code, title) = (lang.code(), text(Label::PageTitle));
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"{code}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>\n{}</style>\n</head>\n<body>\n<main>\n<header><h1>{title}</h1>",
        include_str!("page.css")
    );
    let _ = write!(out, "<p class=\"lede\">{}</p>", text(Label::PageLede));
    let _ = write!(out, "<p class=\"machine\">{}</p>", escape(&machine(&draw)));
    let sentences = notes(run, lang);
    for note in sentences.iter().filter(|note| note.topic == Topic::Load) {
        let _ = write!(out, "<p class=\"warning\">{}</p>", escape(&note.text));
    }
    if run.broken_off {
        let _ = write!(out, "<p class=\"warning\">{}</p>", text(Label::BrokenOff));
    }
    out.push_str("</header>\n");
    tiles_html(&mut out, &draw);
    let figures = figures(&draw);
    out.push_str("<nav><ol>");
    for figure in &figures {
        let _ = write!(out, "<li><a href=\"#{}\">{}</a></li>", figure.id, escape(&figure.title));
    }
    out.push_str("</ol></nav>\n");
    for figure in &figures {
        out.push_str(&figure.html(&draw, &sentences));
    }
    method(&mut out, &draw);
    // A sign that could end the script is written so that it cannot.
    let json = serde_json::to_string(run)?.replace('<', "\\u003c");
    let _ = write!(
        out,
        "</main>\n{BEFORE}{json}{BEHIND}\n<script>\n{}</script>\n</body>\n</html>\n",
        include_str!("page.js")
    );
    Ok(out)
}

/// The picture for the README, if the run has it.
pub(crate) fn picture(run: &Run, lang: Lang) -> Option<String> {
    let draw = Draw { run, lang };
    lanes::picture(&draw, &counts(&draw))
}

/// The run that is inside a page, or that a file of `--json` is.
pub(crate) fn run_in(text: &str) -> Result<Run, String> {
    let json = match text.split_once(BEFORE) {
        Some((_, rest)) => rest.split_once(BEHIND).map_or(rest, |(json, _)| json),
        None => text,
    };
    let run: Run = serde_json::from_str(json)
        .map_err(|error| format!("neither a page of this program nor its JSON: {error}"))?;
    if run.form != FORM {
        let form = run.form;
        return Err(format!("a run of the form {form}; this program knows the form {FORM}"));
    }
    Ok(run)
}

fn figures(draw: &Draw<'_>) -> Vec<Figure> {
    let all = [
        lanes::figure(draw),
        lines::throughput(draw),
        curves::latency(draw),
        bars::memory(draw),
        bars::switches(draw),
        life::figure(draw),
        bars::state(draw),
        curves::slow(draw),
        heat::figure(draw),
        lines::waiting(draw),
        crowd::fairness(draw),
        crowd::neighbours(draw),
        queue::figure(draw),
    ];
    all.into_iter().flatten().collect()
}

/// The machine and the moment, in one line.
fn machine(draw: &Draw<'_>) -> String {
    let machine = &draw.run.machine;
    let cores = number(machine.cores as f64, draw.lang);
    let memory = bytes(machine.memory_mib as f64 * 1024.0 * 1024.0, draw.lang);
    let mut parts = vec![
        machine.cpu.clone(),
        draw.fill(Label::Cores, &[("n", cores)]),
        memory,
        machine.system.clone(),
    ];
    parts.extend(machine.versions.iter().map(|(name, version)| format!("{name} {version}")));
    parts.push(date(draw.run.began));
    parts.join(" · ")
}

/// Seconds since 1970 as a date and a time, in UTC.
fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days of 400 years; years begin in March, so that a leap day is the last one.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) =
        (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute) = (rest / 3600, rest / 60 % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// A figure that most people want: its name, and what it is on threads and on the reactor.
struct Tile {
    title: String,
    threads: String,
    reactor: String,
}

fn tiles(draw: &Draw<'_>) -> Vec<Tile> {
    let run = draw.run;
    let (least, most) = match run.plan.connections[..] {
        [] => return Vec::new(),
        [first, .., last] => (first, last),
        [only] => (only, only),
    };
    let steady = |server: &str, n: usize, of: fn(&Sample) -> f64| {
        run.point(Scene::Steady, server, n).map(|point| point.spread(of).middle)
    };
    let slow = |server: &str| {
        let open = run.points(Scene::Slow).find(|p| p.server == server && p.rate.is_some())?;
        Some(open.spread(|sample| sample.p90).middle)
    };
    type Name = fn(f64, Lang) -> String;
    let kb: Name = |value, lang| bytes(value * 1024.0, lang);
    let titled = |label, n| draw.fill(label, &[("n", connections_title(n, 0, draw.lang))]);
    let both = |of: &dyn Fn(&str) -> Option<f64>| of("threads").zip(of("reactor"));
    let all = [
        (titled(Label::TileMedian, least), both(&|s| steady(s, least, |x| x.p50)), time as Name),
        (titled(Label::TileRate, most), both(&|s| steady(s, most, |x| x.per_s)), number),
        (titled(Label::TileMemory, most), both(&|s| steady(s, most, |x| x.resident_kb)), kb),
        (draw.text(Label::TileSlow).to_owned(), both(&slow), time),
    ];
    let tile = |(title, values, name): (String, Option<(f64, f64)>, Name)| {
        let (threads, reactor) = values?;
        let [threads, reactor] = [threads, reactor].map(|value| name(value, draw.lang));
        Some(Tile { title, threads, reactor })
    };
    all.into_iter().filter_map(tile).collect()
}

/// For the picture of the README: what one machine counts like another, busy or not.
fn counts(draw: &Draw<'_>) -> Vec<Tile> {
    let run = draw.run;
    let Some((&least, &most)) = run.plan.connections.first().zip(run.plan.connections.last())
    else {
        return Vec::new();
    };
    let steady = |server: &str, of: fn(&Sample) -> f64| {
        run.point(Scene::Steady, server, most).map(|point| point.spread(of).middle)
    };
    let calls = |server: &str, n| run.calls(server, n).map(|calls| calls.per_request());
    let tile = |label: Label, n: usize, name: &dyn Fn(f64) -> String, both: [Option<f64>; 2]| {
        let n = [("n", connections_title(n, 0, draw.lang))];
        let [threads, reactor] = both.map(|value| value.map(name));
        Some(Tile { title: draw.fill(label, &n), threads: threads?, reactor: reactor? })
    };
    let kib = |kb: f64| bytes(kb * 1024.0, draw.lang);
    let plain = |value: f64| number(value, draw.lang);
    let who = ["threads", "reactor"];
    let all = [
        tile(Label::TileMemory, most, &kib, who.map(|s| steady(s, |x| x.resident_kb))),
        tile(Label::TileSwitches, most, &plain, who.map(|s| steady(s, |x| x.switches))),
        tile(Label::TileCalls, least, &plain, who.map(|s| calls(s, least))),
        tile(Label::TileCalls, most, &plain, who.map(|s| calls(s, most))),
    ];
    all.into_iter().flatten().collect()
}

fn tiles_html(out: &mut String, draw: &Draw<'_>) {
    let tiles = tiles(draw);
    if tiles.is_empty() {
        return;
    }
    out.push_str("<div class=\"tiles\">");
    for tile in tiles {
        let _ = write!(out, "<div class=\"tile\"><h3>{}</h3>", escape(&tile.title));
        for (who, value) in [("threads", tile.threads), ("reactor", tile.reactor)] {
            let _ = write!(
                out,
                "<p class=\"s-{who}\"><b>{}</b><span>{}</span></p>",
                escape(&value),
                escape(server(who, draw.lang))
            );
        }
        out.push_str("</div>");
    }
    out.push_str("</div>\n");
}

/// How it was measured, and what was left out.
fn method(out: &mut String, draw: &Draw<'_>) {
    let plan = &draw.run.plan;
    let values = [
        ("rounds", plan.rounds.to_string()),
        ("seconds", number(plan.seconds, draw.lang)),
        ("took", number(draw.run.took_s, draw.lang)),
        ("files", number(draw.run.machine.files_max as f64, draw.lang)),
    ];
    let _ = write!(
        out,
        "<section id=\"method\"><h2><a href=\"#method\">{}</a></h2>",
        escape(draw.text(Label::MethodTitle))
    );
    let protocol = if plan.http { Label::MethodHttp } else { Label::MethodGame };
    let _ = write!(out, "<p>{}</p>", escape(draw.text(protocol)));
    for paragraph in draw.text(Label::Method).split('|') {
        let _ = write!(out, "<p>{}</p>", escape(&fill(paragraph.trim(), &values)));
    }
    out.push_str("<dl class=\"places\">");
    let servers = [
        ("serial", Label::SerialLong),
        ("threads", Label::ThreadsLong),
        ("reactor", Label::ReactorLong),
        ("offload", Label::OffloadLong),
        ("timer", Label::TimerLong),
        ("py-threads", Label::PyThreadsLong),
        ("py-asyncio", Label::PyAsyncioLong),
    ];
    for (name, label) in servers {
        if draw.run.servers.iter().any(|server| server == name) {
            let (short, long) = (draw.server(name), draw.text(label));
            let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", escape(short), escape(long));
        }
    }
    out.push_str("</dl>");
    let missing = left_out(draw.run, draw.lang);
    if !missing.is_empty() {
        out.push_str("<ul class=\"missing\">");
        for sentence in missing {
            let _ = write!(out, "<li>{}</li>", escape(&sentence));
        }
        out.push_str("</ul>");
    }
    out.push_str("</section>\n");
}

#[cfg(test)]
mod tests;
