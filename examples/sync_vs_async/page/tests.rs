use super::*;
use crate::run::{Calls, Doing, Heat, Life, Phase, Point, Queue, SERVERS, Span, Step, Window};

/// A run with something of everything.
fn run() -> Run {
    let sample = |scale: f64| Sample {
        seconds: 0.5,
        answered: 5000,
        per_s: 10_000.0 * scale,
        p50: 12.5 * scale,
        p90: 50.0,
        p99: 500.0,
        p999: 50_000.0,
        max: 60_000.0,
        curve: vec![(0.0, 10.0), (0.5, 12.5), (0.9, 50.0), (0.99, 500.0), (0.999, 50_000.0)],
        served: 10,
        asking: 10,
        jain: 0.99,
        shares: vec![12, 10, 8],
        cpu_us: 4.5,
        switches: 0.02,
        threads: 4,
        resident_kb: 28.5,
        virtual_kb: 2060.0,
        heat: Some(Heat { column_ms: 6.25, columns: 80, cells: vec![1; 80 * 14] }),
        ..Sample::default()
    };
    let mut run = Run { form: FORM, began: 1_796_000_000, took_s: 61.5, ..Run::default() };
    run.plan.connections = vec![1, 100];
    run.plan.rounds = 3;
    run.machine.cores = 2;
    run.machine.cpu = "A <fast> & \"small\" one".to_owned();
    run.machine.state_bytes = 40;
    run.servers = SERVERS.map(str::to_owned).into();
    for scene in Scene::ALL {
        for server in SERVERS {
            for (connections, rate) in [(1, None), (100, None), (100, Some(1000.0))] {
                let server = server.to_owned();
                let rounds = vec![sample(1.0), sample(1.1), sample(0.9)];
                run.points.push(Point { scene, server, connections, rate, rounds });
            }
        }
    }
    for name in ["threads", "reactor"] {
        let server = name.to_owned();
        let span = |at_us, doing| Span { at_us, took_us: 10_000.0, doing };
        run.windows.push(Window {
            server: server.clone(),
            width_us: 20_000.0,
            lanes: vec![vec![span(0.0, Doing::Reading), span(10_000.0, Doing::Running)]; 3],
        });
        let calls = vec![("recvfrom".to_owned(), 100), ("sendto".to_owned(), 100)];
        run.calls.push(Calls { server: server.clone(), connections: 100, requests: 100, calls });
        let step = |phase| Step {
            phase,
            thread: 1,
            at_us: 1.0,
            took_us: 2.0,
            name: "recvfrom".to_owned(),
            text: "recvfrom(5, \"</script><b>\", 8, 0, NULL, NULL) = 8".to_owned(),
        };
        let steps = [Phase::Accept, Phase::Message, Phase::Close].map(step).into();
        run.lives.push(Life { server: server.clone(), threads: 4, steps });
        let samples = vec![(0.0, 0), (5.0, 70_000), (10.0, 16_000)];
        let (high_mark, low_mark) = (65_536, 16_384);
        run.queues.push(Queue { server, readers: 1, high_mark, low_mark, samples });
    }
    run
}

/// Every tag is closed, in order. Void elements and the contents of scripts and styles are left
/// out.
fn assert_well_formed(page: &str) {
    let mut open: Vec<String> = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').expect("a tag ends");
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        let name: String =
            tag.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '/').collect();
        if tag.starts_with('!') || tag.ends_with('/') {
            continue;
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes in <{tag}>");
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop().as_deref(), Some(name), "</{name}>"),
            None if ["meta", "br", "input"].contains(&&name[..]) => {}
            None => open.push(name.clone()),
        }
        if name == "script" || name == "style" {
            let close = format!("</{name}>");
            rest = &rest[rest.find(&close).expect("it is closed")..];
        }
    }
    assert_eq!(open, [""; 0]);
}

#[test]
fn the_page_is_well_formed_in_both_languages() {
    for lang in [Lang::En, Lang::Es] {
        let page = page(&run(), lang).unwrap();
        assert_well_formed(&page);
        assert!(page.contains(&format!("<html lang=\"{}\">", lang.code())));
    }
}

#[test]
fn the_page_has_no_gap_that_was_not_filled() {
    for lang in [Lang::En, Lang::Es] {
        let page = page(&run(), lang).unwrap();
        let (visible, _) = page.split_once(BEFORE).unwrap();
        let (_, body) = visible.split_once("</style>").unwrap();
        // The script fills this one.
        let body = body.replace(&escape(Label::StepOf.text(lang)), "");
        // Code has braces of its own.
        let outside = body.split("<pre>").map(|part| part.split("</pre>").last().unwrap_or(part));
        let body: String = outside.collect();
        assert!(!body.contains('{'), "{}", &body[body.find('{').unwrap()..][..60]);
        assert!(!body.contains("NaN") && !body.contains("inf\""));
    }
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let page = page(&run(), Lang::En).unwrap();
    for sign in ["src=", "@import", "url(", "<link", "fetch("] {
        assert!(!page.contains(sign), "{sign}");
    }
    let links = page.split("href=\"").skip(1);
    assert!(links.clone().count() > 10 && links.into_iter().all(|link| link.starts_with('#')));
}

#[test]
fn every_picture_is_there_with_its_text_twin_and_a_command() {
    let run = run();
    let draw = Draw { run: &run, lang: Lang::En };
    let figures = figures(&draw);
    let ids: Vec<_> = figures.iter().map(|figure| figure.id).collect();
    assert_eq!(
        ids,
        [
            "timeline",
            "throughput",
            "latency",
            "memory",
            "calls",
            "life",
            "state",
            "slow",
            "heat",
            "waiting",
            "fairness",
            "neighbours",
            "slow-reader",
        ]
    );
    for figure in &figures {
        let id = figure.id;
        assert!(!figure.twin.rows.is_empty(), "{id}");
        let width = figure.twin.head.len();
        assert!(figure.twin.rows.iter().all(|row| row.len() == width), "{id}");
        assert!(!figure.panels.is_empty() || id == "life", "{id}");
        let words = figure.command.split_whitespace();
        let words = std::iter::once("sync_vs_async").chain(words);
        let options = crate::options::parse(lexopt::Parser::from_iter(words));
        assert!(options.is_ok_and(|options| !options.servers.is_empty()), "{id}");
    }
}

#[test]
fn a_page_that_is_drawn_again_is_the_same_page() {
    let first = page(&run(), Lang::En).unwrap();
    let again = run_in(&first).unwrap();
    assert_eq!(again, run());
    assert_eq!(page(&again, Lang::En).unwrap(), first);
    let json = serde_json::to_string(&again).unwrap();
    assert_eq!(run_in(&json).unwrap(), again);
}

#[test]
fn what_is_no_page_is_refused_with_a_sentence() {
    assert!(run_in("<html></html>").unwrap_err().starts_with("neither a page of this program"));
    let other = serde_json::to_string(&Run { form: 99, ..run() }).unwrap();
    assert_eq!(run_in(&other).unwrap_err(), "a run of the form 99; this program knows the form 1");
}

#[test]
fn a_run_without_anything_is_still_a_page() {
    let page = page(&Run { form: FORM, broken_off: true, ..Run::default() }, Lang::En).unwrap();
    assert_well_formed(&page);
    assert!(page.contains(Label::BrokenOff.text(Lang::En)));
}

#[test]
fn lines_differ_in_their_dashes_and_marks_and_not_only_in_colour() {
    let css = include_str!("page.css");
    let mut dashes = Vec::new();
    let mut marks = Vec::new();
    for server in SERVERS {
        let rule = css.lines().find(|line| line.starts_with(&format!(".s-{server} "))).unwrap();
        dashes.push(rule.split("--dash: ").nth(1).unwrap());
        let mut mark = String::new();
        svg::mark(&mut mark, 0.0, 0.0, server);
        marks.push(mark.split('"').nth(1).unwrap().to_owned());
    }
    for list in [dashes.iter().map(|dash| (*dash).to_owned()).collect(), marks] {
        let mut list: Vec<String> = list;
        list.sort();
        list.dedup();
        assert_eq!(list.len(), SERVERS.len(), "{list:?}");
    }
}

#[test]
fn the_picture_of_the_readme_is_well_formed() {
    let picture = picture(&run(), Lang::En).unwrap();
    assert_well_formed(&picture);
    assert!(picture.contains("prefers-color-scheme"));
    assert_eq!(super::picture(&Run::default(), Lang::En), None);
}

#[test]
fn a_moment_is_a_date_in_utc() {
    assert_eq!(date(0), "1970-01-01 00:00 UTC");
    assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
    assert_eq!(date(1_796_040_059), "2026-11-30 12:00 UTC");
}
