//! What each answer says of the connection behind it, and that it comes so: every way of answering,
//! every version, every wish of the client, of the handler and of the driver.

use std::time::Duration;

use lariat::http::{Handler, Http, Request, Response, Status};
use lariat::sim::Probe;
use lariat::{Context, Input, Note, Outcome, Protocol, Timer};

use crate::answer::{only, take};
use crate::site::on;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Send,
    SendBytes,
    Start,
    StartSized,
}

const WAYS: [Way; 4] = [Way::Send, Way::SendBytes, Way::Start, Way::StartSized];

/// Answers when a note comes.
struct Later {
    way: Way,
    status: Status,
    ends: Ends,
}

impl Handler for Later {
    fn request(&mut self, _: &mut Context<'_>, _: &Request<'_>, _: &mut Response) -> Outcome {
        Ok(())
    }

    fn notified(&mut self, cx: &mut Context<'_>, _: Note, response: &mut Response) -> Outcome {
        if self.ends == Ends::Handler {
            response.close_after();
        }
        self.answer(cx, response);
        Ok(())
    }
}

impl Later {
    fn answer(&self, cx: &mut Context<'_>, response: &mut Response) {
        match self.way {
            Way::Send => response.send(cx, self.status, &[], "ok"),
            Way::SendBytes => response.send_bytes(cx, self.status, &[], "ok"),
            Way::Start => {
                response.start(cx, self.status, &[]);
                response.write(cx, "ok");
                response.finish(cx);
            }
            Way::StartSized => {
                response.start_sized(cx, self.status, &[], 2);
                response.write(cx, "ok");
                response.finish(cx);
            }
        }
    }
}

/// Who wants the connection to end, if any.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ends {
    Nobody,
    Client,
    Handler,
    Driver,
}

const ENDS: [Ends; 4] = [Ends::Nobody, Ends::Client, Ends::Handler, Ends::Driver];

/// What the client asks for.
struct Ask {
    method: &'static str,
    version: &'static str,
    option: &'static str,
    /// Whether the connection stays, as far as the client is concerned.
    keeps: bool,
}

const ASKS: [Ask; 6] = [
    Ask { method: "GET", version: "1.1", option: "", keeps: true },
    Ask { method: "GET", version: "1.1", option: "Connection: a, Close\r\n", keeps: false },
    Ask { method: "GET", version: "1.0", option: "", keeps: false },
    Ask { method: "GET", version: "1.0", option: "Connection: a, Keep-Alive\r\n", keeps: true },
    Ask { method: "HEAD", version: "1.1", option: "", keeps: true },
    Ask { method: "HEAD", version: "1.0", option: "Connection: keep-alive\r\n", keeps: true },
];

#[track_caller]
fn check(ask: &Ask, way: Way, status: Status, ends: Ends) {
    let Ask { method, version, option, keeps } = *ask;
    let told = format!("{method} {version} {option:?} {way:?} {status} {ends:?}");
    let mut probe = Probe::new(Http::new(Later { way, status, ends }));
    let option = if ends == Ends::Client { "Connection: close\r\n" } else { option };
    probe.receive(format!("{method} / HTTP/{version}\r\nHost: x\r\n{option}\r\n").as_bytes());
    if ends == Ends::Driver {
        probe.shutdown();
        assert!(probe.sent().is_empty() && !probe.is_finished(), "{told}");
    }
    probe.notify(Note::new(()));
    let sent = probe.sent();
    let answer = take(&mut &sent[..], method == "HEAD", true).unwrap_or_else(|| panic!("{told}"));
    assert_eq!(answer.status, status.code(), "{told}");
    let (is_old, is_head) = (version == "1.0", method == "HEAD");
    let bodiless = is_head || status.code() == 204 || status.code() == 304;
    // Without length and chunks, the end of the body is that of the connection.
    let until_close = way == Way::Start && is_old && !bodiless && status.code() != 205;
    let keeps = keeps && ends == Ends::Nobody && !until_close;
    let expected = match (keeps, is_old) {
        (false, _) => Some("close"),
        (true, true) => Some("keep-alive"),
        (true, false) => None,
    };
    assert_eq!(answer.header("connection"), expected, "{told}");
    assert_eq!(probe.is_finished(), !keeps, "{told}");
    if keeps {
        // The next request is read as one.
        probe.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        probe.notify(Note::new(()));
        assert!(probe.sent().starts_with(format!("HTTP/1.1 {}", status.code()).as_bytes()));
    }
}

#[test]
fn h14_each_answer_says_whether_the_connection_stays_and_it_does_so() {
    let statuses = [
        Status::OK,
        Status::NO_CONTENT,
        Status::RESET_CONTENT,
        Status::NOT_MODIFIED,
        Status::NOT_FOUND,
    ];
    for ask in &ASKS {
        for way in WAYS {
            for status in statuses {
                for ends in ENDS {
                    check(ask, way, status, ends);
                }
            }
        }
    }
}

/// Answers after a second. In the same turn, a moment before, the driver begins to stop.
struct Timed;

impl Handler for Timed {
    fn request(&mut self, cx: &mut Context<'_>, _: &Request<'_>, _: &mut Response) -> Outcome {
        cx.after(Duration::from_secs(1), |control| control.shutdown());
        cx.set_timer(Timer::new(1), Duration::from_secs(1));
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer, response: &mut Response) -> Outcome {
        assert!(cx.driver().is_stopping());
        response.send(cx, Status::OK, &[], "ok");
        Ok(())
    }

    fn stopping(&mut self, _: &mut Context<'_>, response: &mut Response) -> Outcome {
        assert!(!response.is_due(), "it is answered before it is told");
        Ok(())
    }
}

#[test]
fn an_answer_between_shutdown_and_stopping_says_that_nothing_follows() {
    let mut probe = Probe::new(Http::new(Timed));
    probe.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    probe.advance(Duration::from_secs(2));
    let answer = only(&probe.sent());
    assert!(answer.status == 200 && answer.closes());
    assert!(probe.is_finished());
}

/// Leads to HTTP when the driver is being shut down.
struct LastChance(Way);

impl Protocol for LastChance {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }

    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        let way = self.0;
        cx.replace(Http::new(on(move |cx, _, response| {
            Later { way, status: Status::OK, ends: Ends::Nobody }.answer(cx, response);
            Ok(())
        })));
        Ok(())
    }
}

#[test]
fn an_answer_during_a_shutdown_is_the_last_also_where_http_began_after_it() {
    for way in WAYS {
        let mut probe = Probe::new(LastChance(way));
        probe.shutdown();
        assert!(!probe.is_finished(), "{way:?}");
        probe.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let sent = probe.sent();
        let answer = take(&mut &sent[..], false, false).unwrap();
        assert!(answer.closes() && answer.body == b"ok", "{way:?}: {answer:?}");
        assert!(probe.is_finished(), "{way:?}");
    }
}
