//! The corpus: each file is a request, or what passes for one, and what it is to be answered with.
//!
//! The lines of a file are the bytes, without their line breaks: `\r`, `\n`, `\t`, `\0` and `\xHH`
//! stand for bytes, `{a*90}` for 90 times `a`. `# expect:` names the statuses of the answers;
//! `200h` is one without a body, as HEAD has it, and `*100` may be left out. `# then:` says what
//! follows: `close`, the server has closed; `keep`, it waits for more; `wait`, the client finishes;
//! `wait11`, so many seconds pass; `wait100`, the client sends `hello` once it is asked to.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lariat::http::Http;
use lariat::sim::{Probe, every_split};
use lariat::{CloseKind, Deadline, Limits};

use crate::answer::{Answer, take};
use crate::kit::{converse, everywhere, on_sockets, says, spells, talk};
use crate::site::Site;

/// A longer one is not cut at every place, which would take minutes.
const SPLIT_MAX: usize = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Close,
    Keep,
    Finish,
    Pass(Duration),
    Continue,
}

struct Case {
    name: String,
    expect: Vec<String>,
    then: Then,
    bytes: Vec<u8>,
}

impl Case {
    fn read(name: &str, text: &str) -> Case {
        let fact = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_else(|| panic!("{name} has no line {key:?}")).trim()
        };
        let then = match fact("# then:") {
            "close" => Then::Close,
            "keep" => Then::Keep,
            "wait" => Then::Finish,
            "wait100" => Then::Continue,
            other => Then::Pass(Duration::from_secs(other["wait".len()..].parse().unwrap())),
        };
        let written: String = text.lines().filter(|line| !line.starts_with("# ")).collect();
        Case {
            name: name.to_owned(),
            expect: fact("# expect:").split_whitespace().map(str::to_owned).collect(),
            then,
            bytes: unescape(&written),
        }
    }

    /// Checks what came, and gives the answers.
    #[track_caller]
    fn check(&self, heard: &[u8], how: &str) -> Vec<Answer> {
        let told = || format!("{} {how}: {}", self.name, heard.escape_ascii());
        let mut rest = heard;
        let mut answers = Vec::new();
        for expected in &self.expect {
            let (expected, optional) = match expected.strip_prefix('*') {
                Some(expected) => (expected, true),
                None => (expected.as_str(), false),
            };
            let (expected, head) = match expected.strip_suffix('h') {
                Some(expected) => (expected, true),
                None => (expected, false),
            };
            let status: u16 = expected.parse().unwrap();
            if optional && !rest.starts_with(format!("HTTP/1.1 {status}").as_bytes()) {
                continue;
            }
            let answer = take(&mut rest, head, true).unwrap_or_else(|| panic!("{}", told()));
            assert_eq!(answer.status, status, "{}", told());
            answers.push(answer);
        }
        if answers.last().is_some_and(|answer| answer.status == 101) {
            // What follows is another protocol's.
            return answers;
        }
        assert!(rest.is_empty(), "more than was expected of {}", told());
        if matches!(self.then, Then::Close) {
            assert!(answers.last().is_some_and(Answer::closes), "no word of it: {}", told());
        }
        answers
    }

    /// Whether the answer is the same however the request arrives.
    fn is_cut_independent(&self) -> bool {
        !self.expect.iter().any(|status| status.starts_with('*'))
    }

    /// Why its connection is to end, once the client has finished.
    fn reason(&self) -> CloseKind {
        let last = self.expect.last().map_or("0", |last| last.trim_matches(['*', 'h']));
        match last.parse().unwrap() {
            refused @ (400 | 408 | 413 | 414 | 417 | 431 | 501 | 503 | 505) => {
                CloseKind::Refused(refused)
            }
            _ if matches!(self.then, Then::Pass(_)) => CloseKind::TimedOut(Deadline::Idle),
            _ => CloseKind::Finished,
        }
    }

    fn is_handed_over(&self) -> bool {
        self.expect.iter().any(|status| status == "101")
    }

    fn is_timed(&self) -> bool {
        matches!(self.then, Then::Pass(_) | Then::Continue)
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        match (first, behind) {
            (b'{', _) => {
                let end = behind.iter().position(|byte| *byte == b'}').unwrap();
                let (what, count) =
                    std::str::from_utf8(&behind[..end]).unwrap().rsplit_once('*').unwrap();
                bytes.extend(unescape(what).repeat(count.parse().unwrap()));
                rest = &behind[end + 1..];
            }
            (b'\\', [b'x', high, low, behind @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = behind;
            }
            (b'\\', [letter, behind @ ..]) => {
                bytes.push(match letter {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'0' => 0,
                    other => panic!("\\{} stands for nothing", char::from(*other)),
                });
                rest = behind;
            }
            _ => bytes.push(*first),
        }
    }
    bytes
}

fn corpus() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http/corpus");
    let mut cases: Vec<Case> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            Case::read(&name, &fs::read_to_string(&path).unwrap())
        })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

#[test]
fn the_corpus_has_a_case_for_every_clause() {
    let cases = corpus();
    for clause in 1..=17 {
        // What an application sends (H13) is refused by the types of headers: see their tests.
        let prefix = format!("h{clause}_");
        let count = cases.iter().filter(|case| case.name.starts_with(&prefix)).count();
        assert!(count > 0 || clause == 13, "no case of H{clause}");
    }
}

/// Plays a case to its end, given in the pieces that `cut` makes.
#[track_caller]
fn play(case: &Case, how: &str, pieces: &[&[u8]]) {
    let mut probe = Probe::new(Http::new(Site));
    for piece in pieces {
        probe.receive(piece);
    }
    let mut heard = probe.sent();
    // Late answers.
    probe.advance(Duration::from_millis(100));
    heard.extend(probe.sent());
    match case.then {
        Then::Close | Then::Keep => {}
        Then::Finish => probe.finish(),
        Then::Pass(time) => {
            assert!(!probe.is_finished(), "{} {how}: closed too early", case.name);
            probe.advance(time - Duration::from_secs(2));
            heard.extend(probe.sent());
            let early = probe.is_finished();
            assert!(!early, "{} {how}: closed too early", case.name);
            probe.advance(Duration::from_secs(2));
        }
        Then::Continue => probe.receive(b"hello"),
    }
    heard.extend(probe.sent());
    case.check(&heard, how);
    let open = matches!(case.then, Then::Keep | Then::Continue);
    assert_eq!(probe.is_finished(), !open, "{} {how}: closed or not", case.name);
    probe.finish();
    let kind = probe.closed().map(|reason| reason.kind());
    if !case.is_handed_over() {
        assert_eq!(kind, Some(case.reason()), "{} {how}", case.name);
    }
}

#[test]
fn every_case_is_answered_as_it_says_when_it_arrives_whole() {
    for case in corpus() {
        play(&case, "whole", &[&case.bytes]);
    }
}

#[test]
fn every_case_is_answered_as_it_says_when_it_arrives_byte_by_byte() {
    for case in corpus() {
        let pieces: Vec<&[u8]> = case.bytes.chunks(1).collect();
        // Tens of thousands of bytes are given in larger pieces: the ends of lines are what counts.
        let coarse: Vec<&[u8]> = case.bytes.chunks(97).collect();
        play(&case, "in pieces", if case.bytes.len() > 2000 { &coarse } else { &pieces });
    }
}

#[test]
fn no_case_depends_on_where_it_is_cut() {
    for case in corpus().iter().filter(|case| case.is_cut_independent()) {
        if case.bytes.len() <= SPLIT_MAX && !case.is_timed() {
            every_split(|| Http::new(Site), &case.bytes);
        }
    }
}

#[test]
fn what_follows_a_fault_is_never_read_as_a_request() {
    for mut case in corpus() {
        if case.then != Then::Close || case.name.contains("endless") {
            continue;
        }
        case.bytes.extend_from_slice(b"GET /missing HTTP/1.1\r\nHost: x\r\n\r\n");
        play(&case, "with a request behind it", &[&case.bytes]);
    }
}

#[test]
fn what_follows_a_request_is_the_next_one() {
    for mut case in corpus() {
        if case.then != Then::Keep || case.is_handed_over() {
            continue;
        }
        case.expect.push("404".into());
        case.bytes.extend_from_slice(b"GET /missing HTTP/1.1\r\nHost: x\r\n\r\n");
        play(&case, "with a request behind it", &[&case.bytes]);
    }
}

#[test]
fn every_case_is_answered_alike_on_every_driver() {
    let cases = corpus().into_iter().filter(|case| !case.is_timed());
    let (handed, kept): (Vec<_>, Vec<_>) = cases.partition(Case::is_handed_over);
    everywhere(|driver, told| {
        let before = driver.metrics().closes.refused;
        let scripts = kept.iter().map(|case| says(&case.bytes)).collect();
        let talks = talk(driver, &Limits::default(), || Http::new(Site), scripts);
        for (case, talk) in kept.iter().zip(&talks) {
            case.check(&talk.heard, told);
            assert_eq!(talk.reason().kind(), case.reason(), "{} on {told}", case.name);
        }
        let refused =
            talks.iter().filter(|talk| matches!(talk.reason().kind(), CloseKind::Refused(_)));
        let counted = driver.metrics().closes.refused - before;
        assert_eq!(counted, refused.count() as u64, "on {told}");
    });
    everywhere(|driver, told| {
        let scripts = handed.iter().map(|case| says(&case.bytes)).collect();
        let heard = converse(driver, || Http::new(Site), scripts);
        for (case, heard) in handed.iter().zip(heard) {
            case.check(&heard, told);
        }
    });
}

#[test]
fn every_short_case_is_answered_alike_in_single_bytes_on_real_sockets() {
    let short = |case: &Case| case.bytes.len() <= 150 && !case.is_timed();
    let cases: Vec<Case> = corpus().into_iter().filter(short).collect();
    on_sockets(|driver, told| {
        let scripts = cases.iter().map(|case| spells(&case.bytes)).collect();
        let heard = converse(driver, || Http::new(Site), scripts);
        for (case, heard) in cases.iter().zip(heard) {
            case.check(&heard, told);
        }
    });
}
