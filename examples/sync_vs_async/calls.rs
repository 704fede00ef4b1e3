//! Reads what strace writes: the calls of each thread, with their times.

use std::collections::BTreeMap;

use crate::run::{Doing, Phase, Span, Step};

/// One system call of one thread. Times are microseconds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) thread: u32,
    pub(crate) began: f64,
    pub(crate) ended: f64,
    pub(crate) name: String,
    /// Arguments and result.
    pub(crate) text: String,
}

/// The calls of a file that `strace -f -ttt -T` wrote, in the order in which they ended. A call
/// that had not ended when the file did, ends at the last moment of it.
pub(crate) fn parse(file: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut begun: BTreeMap<u32, (f64, String)> = BTreeMap::new();
    let mut last = 0.0;
    for line in file.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((time, rest)) = rest.trim_start().split_once(' ') else { continue };
        let (Ok(thread), Ok(time)) = (thread.parse(), time.parse::<f64>()) else { continue };
        let time = time * 1e6;
        last = f64::max(last, time);
        let rest = rest.trim();
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some(start) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(thread, (time, start.trim_end().to_owned()));
            continue;
        }
        let (began, whole) =
            match rest.strip_prefix("<... ").and_then(|r| r.split_once(" resumed>")) {
                Some((_, end)) => match begun.remove(&thread) {
                    Some((began, start)) => (began, format!("{start}{end}")),
                    None => continue,
                },
                None => (time, rest.to_owned()),
            };
        calls.extend(finished(thread, began, time, &whole));
    }
    for (thread, (began, start)) in begun {
        let name = start.split('(').next().unwrap_or_default().to_owned();
        calls.push(Call { thread, began, ended: last, name, text: start });
    }
    calls.sort_by(|a, b| a.ended.total_cmp(&b.ended));
    calls
}

/// `name(arguments) = result <seconds>`. `time` is when the line was written.
fn finished(thread: u32, began: f64, time: f64, whole: &str) -> Option<Call> {
    let (text, took) = match whole.rsplit_once(" <") {
        Some((text, took)) => (text, took.strip_suffix('>')?.parse::<f64>().ok()? * 1e6),
        None => (whole, 0.0),
    };
    let name = text.split('(').next()?.trim();
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return None;
    }
    let ended = f64::max(began + took, if took == 0.0 { time } else { 0.0 });
    Some(Call { thread, began, ended, name: name.to_owned(), text: text.to_owned() })
}

impl Call {
    pub(crate) fn reads(&self) -> bool {
        matches!(&self.name[..], "read" | "recvfrom" | "recvmsg" | "recv")
    }

    pub(crate) fn writes(&self) -> bool {
        matches!(&self.name[..], "write" | "sendto" | "sendmsg" | "writev" | "send")
    }

    fn polls(&self) -> bool {
        matches!(
            &self.name[..],
            "epoll_wait"
                | "epoll_pwait"
                | "epoll_pwait2"
                | "poll"
                | "ppoll"
                | "select"
                | "pselect6"
        )
    }

    fn accepted(&self) -> bool {
        self.name.starts_with("accept") && !self.failed()
    }

    fn failed(&self) -> bool {
        self.text.contains(" = -1 ") || self.text.contains(" = ?")
    }

    /// Standard input has ended: the run is over.
    fn ends_the_run(&self) -> bool {
        self.name == "read" && self.text.starts_with("read(0,") && self.text.ends_with("= 0")
    }

    fn doing(&self) -> Doing {
        match () {
            () if self.polls() => Doing::Polling,
            () if self.reads() => Doing::Reading,
            () if self.writes() => Doing::Writing,
            () => Doing::Waiting,
        }
    }
}

/// The moments of the marked requests: when the first was read, and when the second was.
pub(crate) fn marks(calls: &[Call], first: i64, second: i64) -> Option<(f64, f64)> {
    let (first, second) = (first.to_string(), second.to_string());
    let read = |number: &str| {
        calls.iter().find(|c| c.reads() && c.text.contains(number)).map(|call| call.ended)
    };
    read(&first).zip(read(&second))
}

/// How often each call ended after `from` and not after `to`, the most frequent first.
pub(crate) fn count(calls: &[Call], from: f64, to: f64) -> Vec<(String, u64)> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.ended > from && call.ended <= to) {
        *counts.entry(&call.name).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().map(|(name, n)| (name.to_owned(), n)).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

/// The threads in the order in which they appear, numbered from 0.
fn numbered(calls: &[Call]) -> BTreeMap<u32, usize> {
    let mut numbers = BTreeMap::new();
    let mut by_start: Vec<_> = calls.iter().collect();
    by_start.sort_by(|a, b| a.began.total_cmp(&b.began));
    for call in by_start {
        let next = numbers.len();
        numbers.entry(call.thread).or_insert(next);
    }
    numbers
}

/// The steps of a client's life: from its accept on, with the moments of its two answers.
pub(crate) fn steps(calls: &[Call], first: i64, second: i64) -> Option<Vec<Step>> {
    let (read_first, read_second) = marks(calls, first, second)?;
    let answered = |after: f64| {
        calls.iter().find(|call| call.writes() && call.ended > after).map(|call| call.ended)
    };
    let (answer_first, answer_second) = answered(read_first).zip(answered(read_second))?;
    let accept = calls.iter().rposition(|c| c.accepted() && c.ended <= read_first)?;
    // The wait that the client ended, where a server waits for clients in another call.
    let before = calls[..accept].iter().rfind(|call| call.thread == calls[accept].thread);
    let begins = before.filter(|call| call.polls()).unwrap_or(&calls[accept]).ended;
    let numbers = numbered(calls);
    let zero = begins;
    let end = calls.iter().find(|call| call.ends_the_run()).map_or(f64::INFINITY, |c| c.began);
    let last = calls.iter().find(|call| call.ends_the_run()).map_or(end, |call| call.ended);
    let life = calls.iter().filter(|call| call.ended >= begins && call.ended < last);
    let steps = life.map(|call| Step {
        phase: match call.ended {
            ended if ended <= answer_first => Phase::Accept,
            ended if ended <= answer_second => Phase::Message,
            _ => Phase::Close,
        },
        thread: numbers.get(&call.thread).copied().unwrap_or(0),
        at_us: call.began - zero,
        took_us: call.ended - call.began,
        name: call.name.clone(),
        text: shortened(&call.text),
    });
    Some(steps.collect())
}

/// At most so many characters of a call are shown.
const TEXT_MAX: usize = 96;

fn shortened(text: &str) -> String {
    if text.chars().count() <= TEXT_MAX {
        return text.to_owned();
    }
    // The result is worth more than the last arguments.
    let (call, result) = text.rsplit_once(" = ").unwrap_or((text, ""));
    let result: String = result.chars().take(TEXT_MAX / 3).collect();
    let room = TEXT_MAX.saturating_sub(result.chars().count() + 7);
    let call: String = call.chars().take(room).collect();
    format!("{call}...) = {result}")
}

/// What each thread does from `from` on for `width`, in spans without gaps.
pub(crate) fn lanes(calls: &[Call], from: f64, width: f64) -> Vec<Vec<Span>> {
    let to = from + width;
    let mut lanes: BTreeMap<usize, Vec<Span>> = BTreeMap::new();
    let numbers = numbered(calls);
    let mut by_start: Vec<_> = calls.iter().collect();
    by_start.sort_by(|a, b| a.began.total_cmp(&b.began));
    for call in by_start.iter().filter(|call| call.began < to && call.ended > from) {
        // The thread that waits for the end of standard input is not the server's.
        if call.text.starts_with("read(0,") {
            continue;
        }
        let lane = lanes.entry(numbers[&call.thread]).or_default();
        let at = lane.last().map_or(0.0, |span| span.at_us + span.took_us);
        let (began, ended) = (call.began.max(from) - from, call.ended.min(to) - from);
        // Between two calls runs the program itself.
        if began > at {
            lane.push(Span { at_us: at, took_us: began - at, doing: Doing::Running });
        }
        let began = began.max(at);
        if ended > began {
            let doing = call.doing();
            lane.push(Span { at_us: began, took_us: ended - began, doing });
        }
    }
    for lane in lanes.values_mut() {
        let at = lane.last().map_or(0.0, |span| span.at_us + span.took_us);
        if at < width {
            lane.push(Span { at_us: at, took_us: width - at, doing: Doing::Running });
        }
    }
    lanes.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
10 1.000000 accept4(3, {sa_family=AF_INET}, [16], SOCK_CLOEXEC <unfinished ...>
11 1.000100 epoll_wait(4,  <unfinished ...>
10 1.001000 <... accept4 resumed>) = 5 <0.000900>
10 1.001100 recvfrom(5, \"1000001\\n\", 64, 0, NULL, NULL) = 8 <0.000010>
10 1.001150 sendto(5, \"1000001\\n\", 8, 0, NULL, 0) = 8 <0.000020>
11 1.001200 <... epoll_wait resumed>[], 8, 1) = 0 <0.001100>
10 1.001300 recvfrom(5, \"1000002\\n\", 64, 0, NULL, NULL) = 8 <0.000100>
10 1.001500 sendto(5, \"2000003\\n\", 8, 0, NULL, 0) = 8 <0.000020>
10 1.001600 recvfrom(5, \"\", 64, 0, NULL, NULL) = 0 <0.000010>
10 1.001700 --- SIGCHLD {si_signo=SIGCHLD} ---
10 1.001800 close(5) = 0 <0.000010>
12 1.000050 read(0, \"\", 32) = 0 <0.002000>
10 1.002100 +++ exited with 0 +++
";

    #[test]
    fn a_call_that_others_interrupt_in_the_file_is_put_together() {
        let calls = parse(FILE);
        let accept = calls.iter().find(|call| call.name == "accept4").unwrap();
        assert_eq!(accept.text, "accept4(3, {sa_family=AF_INET}, [16], SOCK_CLOEXEC) = 5");
        assert!((accept.ended - accept.began - 900.0).abs() < 0.5, "{accept:?}");
        assert!(calls.windows(2).all(|pair| pair[0].ended <= pair[1].ended));
        assert_eq!(calls.len(), 9);
    }

    #[test]
    fn a_call_that_has_not_returned_lasts_until_the_end_of_the_file() {
        let waits = "11 1.001950 epoll_wait(4,  <unfinished ...>\n13 1.002000 exit(0) = ?\n";
        let calls = parse(&format!("{FILE}{waits}"));
        let last = calls.iter().rfind(|call| call.name == "epoll_wait").unwrap();
        assert_eq!((last.thread, &last.text[..]), (11, "epoll_wait(4,"));
        assert!((last.began - 1_001_950.0).abs() < 0.5 && (last.ended - 1_002_100.0).abs() < 0.5);
    }

    #[test]
    fn calls_are_counted_from_one_marked_request_to_the_next() {
        let calls = parse(FILE);
        let (from, to) = marks(&calls, 1_000_001, 1_000_002).unwrap();
        let counts = count(&calls, from, to);
        let expected = [("epoll_wait", 1), ("recvfrom", 1), ("sendto", 1)];
        assert_eq!(counts.iter().map(|(n, c)| (&n[..], *c)).collect::<Vec<_>>(), expected);
        assert_eq!(marks(&calls, 1_000_001, 7), None);
        // A mark is when its read returned: what came while it waited belongs to what was before.
        assert!((from - 1_001_110.0).abs() < 0.5 && (to - 1_001_400.0).abs() < 0.5);
    }

    #[test]
    fn a_life_has_three_phases_and_ends_before_the_server_does() {
        let steps = steps(&parse(FILE), 1_000_001, 1_000_002).unwrap();
        let phases: Vec<_> = steps.iter().map(|step| (&step.name[..], step.phase)).collect();
        let expected = [
            ("accept4", Phase::Accept),
            ("recvfrom", Phase::Accept),
            ("sendto", Phase::Accept),
            ("epoll_wait", Phase::Message),
            ("recvfrom", Phase::Message),
            ("sendto", Phase::Message),
            ("recvfrom", Phase::Close),
            ("close", Phase::Close),
        ];
        assert_eq!(phases, expected);
    }

    #[test]
    fn a_lane_has_no_gaps_and_is_as_long_as_the_window() {
        let calls = parse(FILE);
        let lanes = lanes(&calls, 1_001_000.0, 600.0);
        // The thread that waits for the end of the run is none of the server's.
        assert_eq!(lanes.len(), 2);
        for lane in &lanes {
            let mut at = 0.0;
            for span in lane {
                assert!((span.at_us - at).abs() < 0.01, "{lane:?}");
                at += span.took_us;
            }
            assert!((at - 600.0).abs() < 0.01, "{at}");
        }
        let kinds: Vec<_> = lanes[0].iter().map(|span| span.doing).collect();
        assert!(kinds.contains(&Doing::Running) && kinds.contains(&Doing::Reading), "{kinds:?}");
    }

    #[test]
    fn a_long_call_keeps_its_result() {
        let text = format!("sendto(5, {:?}, 200) = 200", "x".repeat(200));
        let short = shortened(&text);
        assert!(short.chars().count() <= TEXT_MAX && short.ends_with("...) = 200"), "{short}");
    }
}
