//! Answers that have no body have none, in whichever way and at whichever moment they are given.

use std::time::Duration;

use lariat::http::{Handler, Header, Http, Request, Response, Status};
use lariat::sim::Probe;
use lariat::{Context, Outcome, Timer};

use crate::answer::{Answer, only, take};
use crate::kit::{converse, everywhere, says};
use crate::site::Site;

/// How an answer is given.
const WAYS: [&str; 7] = ["send", "large", "bytes", "large_bytes", "start", "sized", "events"];
/// When it is given.
const MOMENTS: [&str; 4] = ["now", "complete", "collected", "late"];
const LATE: Timer = Timer::new(1);
/// Larger than what is put behind its head.
const LARGE: usize = 5000;

/// Answers `/MOMENT/WAY/STATUS` as it says.
#[derive(Default)]
struct Ways {
    path: String,
}

impl Ways {
    fn answer_at(&self, moment: &str, cx: &mut Context<'_>, response: &mut Response) -> Option<()> {
        let mut parts = self.path.split('/').skip(1);
        if parts.next()? != moment {
            return None;
        }
        let (way, status) = (parts.next()?, Status::new(parts.next()?.parse().ok()?)?);
        let text = &[Header::TEXT];
        match way {
            "send" => response.send(cx, status, text, b"body"),
            "large" => response.send(cx, status, text, vec![b'a'; LARGE]),
            "bytes" => response.send_bytes(cx, status, text, &b"body"[..]),
            "large_bytes" => response.send_bytes(cx, status, text, vec![b'a'; LARGE]),
            "start" => {
                response.start(cx, status, text);
                response.write(cx, b"body");
                response.finish(cx);
            }
            "sized" => {
                response.start_sized(cx, status, text, 4);
                response.write(cx, b"body");
                response.finish(cx);
            }
            _ => {
                response.start_events(cx);
                response.event_comment(cx);
                response.finish(cx);
            }
        }
        Some(())
    }
}

impl Handler for Ways {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        self.path = request.path().to_owned();
        if self.path.starts_with("/collected") {
            response.collect();
        } else if self.path.starts_with("/late") {
            cx.set_timer(LATE, Duration::from_millis(1));
        }
        self.answer_at("now", cx, response);
        Ok(())
    }

    fn complete(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
        self.answer_at("complete", cx, response);
        Ok(())
    }

    fn collected(&mut self, cx: &mut Context<'_>, body: &[u8], response: &mut Response) -> Outcome {
        assert_eq!(body, b"abc");
        self.answer_at("collected", cx, response);
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer, response: &mut Response) -> Outcome {
        self.answer_at("late", cx, response);
        Ok(())
    }
}

struct Case {
    method: &'static str,
    way: &'static str,
    moment: &'static str,
    status: u16,
}

/// Every way and moment, of what has no body because of its method or its status.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for way in WAYS {
        for moment in MOMENTS {
            let mut add = |method, status| cases.push(Case { method, way, moment, status });
            add("HEAD", 200);
            if way != "events" {
                add("HEAD", 404);
                for status in [204, 205, 304] {
                    add("HEAD", status);
                    add("GET", status);
                }
            }
        }
    }
    cases
}

impl Case {
    fn request(&self, version: &str) -> String {
        let Case { method, way, moment, status } = self;
        let path = format!("/{moment}/{way}/{status}");
        format!(
            "{method} {path} HTTP/{version}\r\nHost: x\r\nConnection: keep-alive\r\n\
             Content-Length: 3\r\n\r\nabc"
        )
    }

    /// What its head says of the length.
    fn check(&self, answer: &Answer, version: &str) {
        let told = format!("{} of {}: {answer:?}", self.request(version), self.status);
        assert_eq!(answer.status, self.status, "{told}");
        let large = LARGE.to_string();
        let (length, coding) = match (self.status, self.way) {
            (204 | 304, _) => (None, None),
            (205, _) => (Some("0"), None),
            (_, "send" | "bytes" | "sized") => (Some("4"), None),
            (_, "large" | "large_bytes") => (Some(&*large), None),
            _ if version == "1.0" => (None, None),
            _ => (None, Some("chunked")),
        };
        assert_eq!(answer.header("content-length"), length, "{told}");
        assert_eq!(answer.header("transfer-encoding"), coding, "{told}");
        assert!(!answer.closes(), "{told}");
    }
}

#[test]
fn h12_h17_what_has_no_body_has_none_in_every_way_of_answering() {
    let cases = cases();
    assert_eq!(cases.len(), 4 * (6 * 8 + 1));
    everywhere(|driver, told| {
        let scripts = ["1.1", "1.0"].map(|version| {
            // One after the other on one connection: a byte too many spoils the next answer.
            let mut requests: String = cases.iter().map(|case| case.request(version)).collect();
            requests.push_str("GET /now/send/200 HTTP/1.1\r\nHost: x\r\n\r\n");
            says(requests.as_bytes())
        });
        let heard = converse(driver, || Http::new(Ways::default()), scripts.to_vec());
        for (heard, version) in heard.iter().zip(["1.1", "1.0"]) {
            let mut rest = &heard[..];
            for case in &cases {
                let answer = take(&mut rest, true, true);
                let answer = answer.unwrap_or_else(|| panic!("{} {told}", case.request(version)));
                case.check(&answer, version);
            }
            assert_eq!(only(rest).body, b"body", "on {told}");
        }
    });
}

#[test]
fn what_has_a_body_has_the_same_one_in_every_way_of_answering() {
    everywhere(|driver, told| {
        let mut scripts = Vec::new();
        let mut expected = Vec::new();
        for way in WAYS {
            for moment in MOMENTS {
                for version in ["1.1", "1.0"] {
                    let case = Case { method: "GET", way, moment, status: 200 };
                    scripts.push(says(case.request(version).as_bytes()));
                    expected.push(match way {
                        "large" | "large_bytes" => vec![b'a'; LARGE],
                        "events" => b":\n\n".to_vec(),
                        _ => b"body".to_vec(),
                    });
                }
            }
        }
        let heard = converse(driver, || Http::new(Ways::default()), scripts);
        for (heard, expected) in heard.iter().zip(expected) {
            let mut rest = &heard[..];
            let answer = take(&mut rest, false, true).unwrap();
            assert!(answer.body == expected && rest.is_empty(), "{answer:?} on {told}");
        }
    });
}

#[test]
fn the_head_of_an_answer_to_head_is_that_of_the_answer_to_get() {
    let answers = ["GET", "HEAD"].map(|method| {
        let mut probe = Probe::new(Http::new(Site));
        probe.receive(format!("{method} /missing HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert!(!probe.is_finished());
        String::from_utf8(probe.sent().to_vec()).unwrap()
    });
    let (head, body) = answers[0].split_once("\r\n\r\n").unwrap();
    assert_eq!((answers[1].strip_suffix("\r\n\r\n"), body), (Some(head), "not here\n"));
}
