//! `Expect: 100-continue`: who is asked for a body, how often, and what an answer without it means.

use lariat::http::{Handler, Http, Request, Response, Status};
use lariat::sim::Probe;
use lariat::{Context, Outcome};

use crate::answer::{Answer, all, take};

/// Answers in the way that the path names, when the request has the method for it.
#[derive(Default)]
struct Ways {
    way: String,
}

impl Ways {
    fn answer(&self, cx: &mut Context<'_>, response: &mut Response) {
        match &self.way[..] {
            "/send" => response.send(cx, Status::OK, &[], "ok"),
            "/send_bytes" => response.send_bytes(cx, Status::OK, &[], "ok"),
            "/start" => {
                response.start(cx, Status::OK, &[]);
                response.write(cx, "ok");
                response.finish(cx);
            }
            _ => {
                response.start_sized(cx, Status::OK, &[], 2);
                response.write(cx, "ok");
                response.finish(cx);
            }
        }
    }
}

impl Handler for Ways {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        self.way = request.path().to_owned();
        match request.method() {
            // At once.
            "PUT" => self.answer(cx, response),
            // With an invitation of the handler's own.
            _ if self.way == "/inform" => {
                response.inform(cx, Status::CONTINUE, &[]);
                response.inform(cx, Status::EARLY_HINTS, &[]);
            }
            "PATCH" => response.inform(cx, Status::CONTINUE, &[]),
            _ => {}
        }
        Ok(())
    }

    fn body(&mut self, cx: &mut Context<'_>, part: &[u8], response: &mut Response) -> Outcome {
        // Before the end of the body.
        if part.starts_with(b"!") && response.is_due() {
            self.answer(cx, response);
        }
        Ok(())
    }

    fn complete(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
        if response.is_due() {
            self.answer(cx, response);
        }
        Ok(())
    }
}

const WAYS: [&str; 4] = ["/send", "/send_bytes", "/start", "/start_sized"];
const EXPECTS: &str = "Host: x\r\nExpect: 100-continue\r\n";

fn head(method: &str, way: &str) -> String {
    format!("{method} {way} HTTP/1.1\r\n{EXPECTS}Content-Length: 5\r\n\r\n")
}

/// The statuses of what came, and the last of it.
fn heard(probe: &mut Probe) -> (Vec<u16>, Answer) {
    let sent = probe.sent();
    let (mut answers, rest) = all(&sent);
    assert!(rest.is_empty(), "{sent:?}");
    let statuses = answers.iter().map(|answer| answer.status).collect();
    (statuses, answers.pop().unwrap_or_else(|| panic!("nothing came")))
}

/// The connection takes another request.
#[track_caller]
fn goes_on(probe: &mut Probe, told: &str) {
    probe.receive(b"PUT /send HTTP/1.1\r\nHost: x\r\n\r\n");
    let (statuses, answer) = heard(probe);
    assert_eq!((statuses, answer.closes()), (vec![200], false), "{told}");
}

#[test]
fn h11_a_body_is_asked_for_once_and_only_while_none_of_it_is_here() {
    for way in WAYS {
        let head = head("POST", way);
        for here in 0..=5 {
            let mut probe = Probe::new(Http::new(Ways::default()));
            let (first, rest) = b"hello".split_at(here);
            probe.receive(&[head.as_bytes(), first].concat());
            if here == 0 {
                assert_eq!(heard(&mut probe).0, [100], "{way}");
            } else if here < 5 {
                assert!(probe.sent().is_empty(), "{way}: asked for what is here");
            }
            probe.receive(rest);
            let (statuses, answer) = heard(&mut probe);
            assert_eq!((statuses, answer.closes()), (vec![200], false), "{way}, {here} bytes");
            goes_on(&mut probe, way);
        }
    }
}

#[test]
fn h11_a_client_that_was_asked_for_its_body_sends_it_and_the_connection_stays() {
    for way in WAYS {
        let mut probe = Probe::new(Http::new(Ways::default()));
        probe.receive(head("POST", way).as_bytes());
        assert_eq!(heard(&mut probe).0, [100]);
        // It is answered in the middle of the body, and the little that is left is read.
        probe.receive(b"!");
        let (statuses, answer) = heard(&mut probe);
        assert_eq!((statuses, answer.closes()), (vec![200], false), "{way}");
        probe.receive(b"ello");
        goes_on(&mut probe, way);
    }
}

#[test]
fn h11_a_handler_that_asks_for_the_body_itself_is_the_only_one_that_does() {
    for way in WAYS {
        let mut probe = Probe::new(Http::new(Ways::default()));
        probe.receive(head("PATCH", way).as_bytes());
        assert_eq!(heard(&mut probe).0, [100], "{way}");
        probe.receive(b"hello");
        let (statuses, answer) = heard(&mut probe);
        assert_eq!((statuses, answer.closes()), (vec![200], false), "{way}");
        goes_on(&mut probe, way);
    }
}

#[test]
fn h11_an_answer_in_place_of_an_invitation_closes_in_every_way_of_answering() {
    for way in WAYS {
        let mut probe = Probe::new(Http::new(Ways::default()));
        probe.receive(head("PUT", way).as_bytes());
        let (statuses, answer) = heard(&mut probe);
        assert_eq!((statuses, answer.closes()), (vec![200], true), "{way}");
        assert!(probe.is_finished(), "{way}");
    }
}

#[test]
fn h11_who_expects_an_invitation_and_has_no_body_is_answered_as_anybody() {
    for way in WAYS {
        for length in ["", "Content-Length: 0\r\n"] {
            let mut probe = Probe::new(Http::new(Ways::default()));
            probe.receive(format!("PUT {way} HTTP/1.1\r\n{EXPECTS}{length}\r\n").as_bytes());
            let (statuses, answer) = heard(&mut probe);
            assert_eq!((statuses, answer.closes()), (vec![200], false), "{way}");
            goes_on(&mut probe, way);
        }
    }
}

#[test]
fn h11_what_http_1_0_expects_is_ignored_whatever_it_is() {
    for expectation in ["100-continue", "tea"] {
        let mut probe = Probe::new(Http::new(Ways::default()));
        let head = format!(
            "POST /send HTTP/1.0\r\nConnection: keep-alive\r\nExpect: {expectation}\r\n\
             Content-Length: 5\r\n\r\n"
        );
        probe.receive(head.as_bytes());
        assert!(probe.sent().is_empty(), "{expectation}");
        probe.receive(b"hello");
        let (statuses, answer) = heard(&mut probe);
        assert_eq!((statuses, answer.header("connection")), (vec![200], Some("keep-alive")));
        goes_on(&mut probe, expectation);
    }
}

#[test]
fn h11_nobody_is_asked_for_a_body_who_does_not_wait_for_that() {
    for method in ["POST", "HEAD", "DELETE"] {
        for version in ["1.1", "1.0"] {
            for (expects, asked) in [("", false), ("Expect: 100-continue\r\n", version == "1.1")] {
                let mut probe = Probe::new(Http::new(Ways::default()));
                let head = format!(
                    "{method} /send HTTP/{version}\r\nHost: x\r\n{expects}\
                     Connection: keep-alive, upgrade\r\nUpgrade: a\r\nContent-Length: 5\r\n\r\n"
                );
                let told = format!("{method} {version} {expects:?}");
                probe.receive(head.as_bytes());
                let expected = if asked { "HTTP/1.1 100 Continue\r\n\r\n" } else { "" };
                assert_eq!(probe.sent(), expected.as_bytes(), "{told}");
                // What else is known of the request is not forgotten.
                probe.receive(b"hello");
                let sent = probe.sent();
                let mut rest = &sent[..];
                let answer = take(&mut rest, method == "HEAD", false).unwrap();
                assert_eq!((answer.status, rest.len()), (200, 0), "{told}");
                let kept = (version == "1.0").then_some("keep-alive");
                assert_eq!(answer.header("connection"), kept, "{told}");
                goes_on(&mut probe, &told);
            }
        }
    }
}

#[test]
fn h11_an_invitation_of_the_handler_forgets_nothing_of_the_request() {
    for method in ["POST", "HEAD"] {
        let mut probe = Probe::new(Http::new(Ways::default()));
        probe.receive(head(method, "/inform").as_bytes());
        assert_eq!(heard(&mut probe).0, [100, 103], "{method}");
        probe.receive(b"hello");
        let sent = probe.sent();
        let mut rest = &sent[..];
        let answer = take(&mut rest, method == "HEAD", false).unwrap();
        assert_eq!((answer.status, answer.closes(), rest.len()), (200, false, 0), "{method}");
        goes_on(&mut probe, method);
    }
}
