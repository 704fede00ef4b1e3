//! CONNECT: refused unless it is allowed, and then a tunnel in which no byte is HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::http::{self, Handler, Header, Http, Request, Response, Status, ValidLimits};
use lariat::sim::{Probe, every_split};
use lariat::{CloseKind, CloseReason, ConnId, Context, Input, Note, Outcome, Protocol, Timer};

use crate::answer::{all, only, take};
use crate::kit::{Step, converse, everywhere, serve};
use crate::plain::Echo;
use crate::site::on;

fn allowed() -> ValidLimits {
    let mut limits = http::Limits::default();
    limits.connect = true;
    limits.answer = Duration::from_secs(5);
    limits.validate().unwrap()
}

fn connect(target: &str) -> Vec<u8> {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes()
}

// ---- a proxy ------------------------------------------------------------------------------------

/// A proxy for CONNECT to any address.
struct Proxy {
    upstream: Option<ConnId>,
}

/// The connection to where the client wants to go is open, or could not be made.
struct Reached(bool);

/// One end of a tunnel: what comes here goes to the other one.
struct Relay {
    other: ConnId,
}

impl Protocol for Relay {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.peer(self.other).write(input);
        input.consume_all();
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        cx.peer(self.other).shutdown_write();
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, _: &CloseReason) {
        cx.peer(self.other).close();
    }
}

/// The end of a tunnel at the place where it leads to, until it is known whether it does.
struct Upstream {
    client: ConnId,
}

impl Protocol for Upstream {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.peer(self.client).notify(Note::new(Reached(true)));
        cx.replace(Relay { other: self.client });
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, _: &CloseReason) {
        cx.peer(self.client).notify(Note::new(Reached(false)));
    }
}

impl Handler for Proxy {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        match (request.method(), request.host().unwrap_or_default().parse::<SocketAddr>()) {
            ("CONNECT", Ok(addr)) => {
                self.upstream = Some(cx.connect(addr, Upstream { client: cx.id() }));
            }
            ("CONNECT", Err(_)) => {
                response.send(cx, Status::FORBIDDEN, &[Header::TEXT], "addresses only\n");
            }
            _ => response.send(cx, Status::OK, &[Header::TEXT], "a proxy\n"),
        }
        Ok(())
    }

    fn notified(&mut self, cx: &mut Context<'_>, note: Note, response: &mut Response) -> Outcome {
        match (note.downcast::<Reached>(), self.upstream) {
            (Ok(Reached(true)), Some(other)) => {
                response.tunnel(cx, &[Header::literal("via", "1.1 test")], Relay { other })?;
            }
            _ => response.send(cx, Status::BAD_GATEWAY, &[Header::TEXT], "not reached\n"),
        }
        Ok(())
    }
}

fn proxy(limits: &ValidLimits) -> Http<Proxy> {
    Http::with_limits(Proxy { upstream: None }, limits)
}

/// What opens a tunnel has neither length nor body, nor a word about the connection.
#[track_caller]
fn check_opened(rest: &mut &[u8], told: &str) {
    let opened = take(rest, true, true).unwrap_or_else(|| panic!("no answer on {told}"));
    let absent = ["content-length", "transfer-encoding", "connection"];
    assert_eq!(opened.status, 200, "{opened:?} on {told}");
    assert!(absent.iter().all(|name| opened.header(name).is_none()), "{opened:?} on {told}");
}

#[test]
fn h17_a_tunnel_carries_any_bytes_both_ways_and_those_that_came_before_it_opened() {
    let limits = allowed();
    everywhere(|driver, told| {
        let far = serve(driver, || Echo);
        let limits = limits.clone();
        // What looks like HTTP goes through as well as anything else.
        let early = [connect(&far.to_string()), b"GET / HTTP/1.1\r\n\r\n\0".to_vec()].concat();
        let large: Vec<u8> = (0..300_000u32).map(|at| (at * 7 + (at >> 9)) as u8).collect();
        let scripts = vec![
            vec![
                Step::Send(early),
                Step::Until(b"GET / HTTP/1.1\r\n\r\n\0"),
                Step::Send(b"\xff\0and more".to_vec()),
                Step::Until(b"and more"),
                Step::Finish,
            ],
            vec![Step::Send(connect(&far.to_string())), Step::Until(b"\r\n\r\n"), Step::Finish],
            vec![Step::Send([connect(&far.to_string()), large.clone()].concat()), Step::Finish],
        ];
        let heard = converse(driver, move || proxy(&limits), scripts);
        let expected: [&[u8]; 3] = [b"GET / HTTP/1.1\r\n\r\n\0\xff\0and more", b"", &large];
        for (heard, expected) in heard.iter().zip(expected) {
            let mut rest = &heard[..];
            check_opened(&mut rest, told);
            assert!(rest == expected, "{} bytes came back on {told}", rest.len());
        }
    });
}

#[test]
fn h17_a_connect_that_is_not_served_is_answered_as_any_request_and_closes() {
    let limits = allowed();
    everywhere(|driver, told| {
        // Nobody listens there any more.
        let gone = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().to_string()
        };
        let limits = limits.clone();
        let scripts = [connect("example.org:443"), connect(&gone)].map(|bytes| {
            // What follows is not read as a request, though it may well be one.
            let behind = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
            vec![Step::Send([&bytes[..], behind].concat())]
        });
        let heard = converse(driver, move || proxy(&limits), scripts.to_vec());
        for (heard, status) in heard.iter().zip([403, 502]) {
            let answer = only(heard);
            assert!(answer.status == status && answer.closes(), "{answer:?} on {told}");
        }
    });
}

#[test]
fn h17_other_requests_are_served_where_connect_is_allowed() {
    let mut probe = Probe::new(proxy(&allowed()));
    probe.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(only(&probe.sent()).body, b"a proxy\n");
    assert!(!probe.is_finished());
}

#[test]
fn h17_a_connect_with_a_body_is_refused() {
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let mut probe = Probe::new(proxy(&allowed()));
        let head = format!("CONNECT 127.0.0.1:9 HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n5\r\n");
        probe.receive(head.as_bytes());
        let answer = only(&probe.sent());
        assert!(answer.status == 400 && answer.closes(), "{answer:?}");
        probe.finish();
        assert_eq!(probe.closed().unwrap().kind(), CloseKind::Refused(400));
    }
    // A length of nothing is no body.
    let mut probe = Probe::new(Http::with_limits(Opens("tunnel"), &allowed()));
    probe.receive(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nhello");
    let sent = probe.sent();
    let mut rest = &sent[..];
    check_opened(&mut rest, "the simulator");
    assert_eq!(rest, b"hello");
}

#[test]
fn h17_a_connect_is_for_its_target_and_for_no_upgrade() {
    let tells = on(|cx, request, response| {
        assert_eq!((request.target(), request.path()), ("far:1", "far:1"));
        assert_eq!((request.host(), request.query()), (Some("far:1"), None));
        assert_eq!(request.upgrade(), None);
        assert!(response.upgrade(cx, "echo", &[], Echo).is_err());
        response.send(cx, Status::FORBIDDEN, &[], b"no");
        Ok(())
    });
    let mut probe = Probe::new(Http::with_limits(tells, &allowed()));
    let upgrade = "Connection: upgrade\r\nUpgrade: echo\r\n";
    probe.receive(format!("CONNECT far:1 HTTP/1.1\r\nHost: near\r\n{upgrade}\r\n").as_bytes());
    assert_eq!(only(&probe.sent()).status, 403);
}

#[test]
fn h17_a_tunnel_that_is_never_opened_is_answered_for() {
    let never = on(|_, _, _| Ok(()));
    let mut probe = Probe::new(Http::with_limits(never, &allowed()));
    probe.receive(&[connect("x:1"), b"early".to_vec()].concat());
    probe.advance(Duration::from_millis(4999));
    assert_eq!(probe.sent(), b"");
    probe.advance(Duration::from_millis(2));
    let answer = only(&probe.sent());
    assert!(answer.status == 503 && answer.closes(), "{answer:?}");
}

// ---- every way of opening ---------------------------------------------------------------------

/// Answers CONNECT in the way of this name, and then leads to an echo if the name says so.
struct Opens(&'static str);

const LATE: Timer = Timer::new(1);

impl Opens {
    fn open(&self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
        let (way, then) = self.0.split_once(' ').unwrap_or((self.0, ""));
        match way {
            "tunnel" => response.tunnel(cx, &[], Echo)?,
            "tunnel_local" => response.tunnel_local(cx, &[], Echo)?,
            "send" => response.send(cx, Status::OK, &[], b"body"),
            "send_bytes" => response.send_bytes(cx, Status::ACCEPTED, &[], vec![b'a'; 5000]),
            "start" => {
                response.start(cx, Status::OK, &[]);
                response.write(cx, b"body");
                response.finish(cx);
            }
            "start_sized" => {
                response.start_sized(cx, Status::CREATED, &[], 4);
                response.write(cx, b"body");
                response.finish(cx);
            }
            other => panic!("no way {other}"),
        }
        if then == "and replace" {
            cx.replace(Echo);
        }
        Ok(())
    }
}

impl Handler for Opens {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        if request.host() == Some("late:1") {
            cx.set_timer(LATE, Duration::from_millis(1));
            return Ok(());
        }
        self.open(cx, response)
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer, response: &mut Response) -> Outcome {
        self.open(cx, response)
    }
}

#[test]
fn h17_every_2xx_to_connect_has_neither_length_nor_body_and_what_follows_is_the_tunnels() {
    let ways = [
        "tunnel",
        "send and replace",
        "send_bytes and replace",
        "start and replace",
        "start_sized and replace",
    ];
    let limits = allowed();
    for way in ways {
        everywhere(|driver, told| {
            let limits = limits.clone();
            let scripts = ["now:1", "late:1"].map(|target| {
                let early = [connect(target), b"early ".to_vec()].concat();
                vec![
                    Step::Send(early),
                    Step::Until(b"early "),
                    Step::Send(b"and late".to_vec()),
                    Step::Until(b"and late"),
                    Step::Finish,
                ]
            });
            let make = move || Http::with_limits(Opens(way), &limits);
            for heard in converse(driver, make, scripts.to_vec()) {
                let told = format!("{told}, by {way}");
                let mut rest = &heard[..];
                let opened = take(&mut rest, true, true).unwrap();
                assert!((200..300).contains(&opened.status), "{opened:?} on {told}");
                for name in ["content-length", "transfer-encoding", "connection"] {
                    assert_eq!(opened.header(name), None, "{opened:?} on {told}");
                }
                assert_eq!(rest, b"early and late", "on {told}");
            }
        });
    }
}

#[test]
fn h17_a_2xx_to_connect_that_leads_nowhere_is_a_tunnel_that_ends_at_once() {
    let limits = allowed();
    for way in ["send", "send_bytes", "start", "start_sized"] {
        for target in ["now:1", "late:1"] {
            let mut probe = Probe::new(Http::with_limits(Opens(way), &limits));
            probe.receive(
                &[connect(target), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()].concat(),
            );
            probe.advance(Duration::from_millis(10));
            let sent = probe.sent();
            assert!(sent.ends_with(b" GMT\r\n\r\n"), "{way}: {}", sent.escape_ascii());
            assert_eq!(sent.windows(4).filter(|four| *four == b"HTTP").count(), 1, "{way}");
            assert!(probe.is_finished(), "{way}");
        }
    }
}

#[test]
fn h17_a_tunnel_does_not_depend_on_how_its_request_arrives() {
    let limits = allowed();
    for (way, target) in [("tunnel", "now:1"), ("tunnel_local", "now:1"), ("tunnel", "late:1")] {
        let bytes = [connect(target), b"bytes of the tunnel".to_vec()].concat();
        every_split(|| Http::with_limits(Opens(way), &limits), &bytes);
    }
}

#[test]
fn a_handover_that_was_not_asked_for_is_refused_and_the_request_still_answered() {
    let told = Arc::<Mutex<Vec<String>>>::default();
    let refusals = Arc::clone(&told);
    let mut probe = Probe::new(Http::new(on(move |cx, _, response| {
        let tell = |result: Result<(), http::HandoverRefused>| {
            refusals.lock().unwrap().push(result.unwrap_err().to_string());
        };
        tell(response.tunnel(cx, &[], Echo));
        tell(response.tunnel_local(cx, &[], Echo));
        tell(response.upgrade(cx, "echo", &[], Echo));
        tell(response.upgrade_local(cx, "", &[], Echo));
        response.send(cx, Status::OK, &[], b"answered");
        tell(response.tunnel(cx, &[], Echo));
        tell(response.upgrade(cx, "echo", &[], Echo));
        Ok(())
    })));
    let ask = |probe: &mut Probe, bytes: &[u8]| {
        probe.receive(bytes);
        assert_eq!(only(&probe.sent()).body, b"answered");
        std::mem::take(&mut *told.lock().unwrap())
    };
    let tunnel = "cannot hand the connection over: the client did not ask for a tunnel";
    let upgrade = "cannot hand the connection over: the client did not ask for an upgrade";
    let late = "cannot hand the connection over: no request waits for an answer";
    assert_eq!(
        ask(&mut probe, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        [tunnel, tunnel, upgrade, upgrade, late, late]
    );
    let body = "cannot hand the connection over: the body of the request is not whole";
    let asked = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\
        Content-Length: 1\r\n\r\na";
    assert_eq!(ask(&mut probe, asked), [tunnel, tunnel, body, body, late, late]);
}

#[test]
fn a_request_of_another_kind_asks_for_no_handover() {
    for line in ["HEAD / HTTP/1.1", "GET / HTTP/1.0", "OPTIONS * HTTP/1.1", "PUT /a HTTP/1.1"] {
        let mut probe = Probe::new(Http::with_limits(
            on(|cx, _, response| {
                assert!(response.tunnel(cx, &[], Echo).is_err());
                assert!(response.tunnel_local(cx, &[], Echo).is_err());
                assert!(response.upgrade(cx, "echo", &[], Echo).is_err());
                assert!(response.upgrade_local(cx, "echo", &[], Echo).is_err());
                response.collect();
                assert!(response.upgrade(cx, "echo", &[], Echo).is_err());
                response.send(cx, Status::NO_CONTENT, &[], b"");
                Ok(())
            }),
            &allowed(),
        ));
        probe.receive(format!("{line}\r\nHost: x\r\nConnection: keep-alive\r\n\r\n").as_bytes());
        assert_eq!(only(&probe.sent()).status, 204, "{line}");
    }
}

#[test]
fn a_protocol_that_takes_over_behind_an_answer_keeps_nothing_open() {
    for option in ["close", "keep-alive"] {
        for method in ["GET", "HEAD", "POST"] {
            let mut probe = Probe::new(Http::new(on(|cx, _, response| {
                response.send(cx, Status::OK, &[], b"last");
                cx.replace(Echo);
                Ok(())
            })));
            let head = format!("{method} / HTTP/1.1\r\nHost: x\r\nConnection: {option}\r\n\r\n");
            probe.receive(head.as_bytes());
            let sent = probe.sent();
            assert_eq!(take(&mut &sent[..], method == "HEAD", false).unwrap().status, 200);
            assert_eq!(probe.is_finished(), option == "close", "{method}, {option}");
        }
    }
}

#[test]
fn h17_what_looks_like_a_request_behind_a_connect_is_the_tunnels() {
    let limits = allowed();
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    for way in ["tunnel", "send and replace", "send_bytes and replace", "start_sized and replace"] {
        for target in ["now:1", "late:1"] {
            let mut probe = Probe::new(Http::with_limits(Opens(way), &limits));
            probe.receive(&[connect(target), request.clone()].concat());
            probe.advance(Duration::from_millis(10));
            let sent = probe.sent();
            let mut rest = &sent[..];
            assert!(take(&mut rest, true, false).unwrap().status < 300, "{way}");
            assert_eq!(rest, request, "{way}, {target}");
        }
    }
}

#[test]
fn an_upgrade_needs_a_name_that_can_be_one() {
    let upgrades = |name: &'static str| {
        Probe::new(Http::new(on(move |cx, request, response| {
            assert_eq!(request.upgrade(), Some("echo/2"));
            if let Err(refused) = response.upgrade_local(cx, name, &[], Echo) {
                response.send(cx, Status::OK, &[], refused.to_string());
            }
            Ok(())
        })))
    };
    let asked = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo/2\r\n\r\nhello";
    for name in ["", "a b", "a\r\nb", "é"] {
        let mut probe = upgrades(name);
        probe.receive(asked);
        let sent = probe.sent();
        let first = all(&sent).0.remove(0);
        let sentence = b"cannot hand the connection over: the name of the protocol is none";
        assert_eq!(first.body, sentence, "{name:?}");
    }
    let mut probe = upgrades("echo/2");
    probe.receive(asked);
    let sent = probe.sent();
    let (answers, rest) = all(&sent);
    assert_eq!((answers[0].status, answers[0].header("upgrade")), (101, Some("echo/2")));
    assert_eq!(rest, b"hello");
}

#[test]
fn every_way_to_hand_over_sends_the_headers_of_the_handler() {
    const OWN: [Header<'static>; 2] =
        [Header::literal("via", "1.1 a"), Header::literal("x-any", "b")];
    for way in ["tunnel", "tunnel_local", "upgrade", "upgrade_local"] {
        let limits = allowed();
        let handler = on(move |cx, _, response| {
            match way {
                "tunnel" => response.tunnel(cx, &OWN, Echo)?,
                "tunnel_local" => response.tunnel_local(cx, &OWN, Echo)?,
                "upgrade" => response.upgrade(cx, "echo", &OWN, Echo)?,
                _ => response.upgrade_local(cx, "echo", &OWN, Echo)?,
            }
            Ok(())
        });
        let mut probe = Probe::new(Http::with_limits(handler, &limits));
        let upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
        let is_tunnel = way.starts_with("tunnel");
        probe.receive(&if is_tunnel { connect("x:1") } else { upgrade.to_vec() });
        probe.receive(b"hello");
        let sent = probe.sent();
        let mut rest = &sent[..];
        let answer = take(&mut rest, true, false).unwrap();
        let (status, own): (_, Vec<_>) = if is_tunnel {
            (200, vec![])
        } else {
            (101, vec![("connection", "upgrade"), ("upgrade", "echo")])
        };
        let expected = [own, vec![("via", "1.1 a"), ("x-any", "b")]].concat();
        let headers = answer.headers.iter().filter(|(name, _)| name != "date");
        let headers: Vec<_> = headers.map(|(name, value)| (&name[..], &value[..])).collect();
        assert_eq!((answer.status, headers), (status, expected), "{way}");
        assert_eq!(rest, b"hello", "{way}");
    }
}

#[test]
fn h14_a_client_of_http_1_0_asks_for_no_upgrade() {
    let mut probe = Probe::new(Http::new(on(move |cx, request, response| {
        assert_eq!(request.upgrade(), None);
        let refused = response.upgrade(cx, "echo", &[], Echo).unwrap_err();
        response.send(cx, Status::OK, &[], refused.to_string());
        Ok(())
    })));
    probe.receive(b"GET / HTTP/1.0\r\nConnection: keep-alive, upgrade\r\nUpgrade: echo\r\n\r\n");
    let answer = only(&probe.sent());
    let sentence = b"cannot hand the connection over: the client did not ask for an upgrade";
    assert_eq!((answer.status, &answer.body[..]), (200, &sentence[..]));
}

/// Hands the connection over in the way of this name, and then goes on as if it had not.
struct Forgetful(&'static str);

/// Takes everything, and never waits for anything.
struct Silent;

impl Protocol for Silent {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }

    fn timeout(&mut self, _: &mut Context<'_>, timer: Timer) -> Outcome {
        panic!("{timer} belongs to the protocol before");
    }
}

impl Handler for Forgetful {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        _: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        match self.0 {
            "tunnel" => response.tunnel(cx, &[], Silent)?,
            "tunnel_local" => response.tunnel_local(cx, &[], Silent)?,
            "upgrade" => response.upgrade(cx, "echo", &[], Silent)?,
            _ => response.upgrade_local(cx, "echo", &[], Silent)?,
        }
        assert!(response.is_finished() && !response.is_due() && !response.is_streaming());
        response.send(cx, Status::OK, &[], b"twice");
        response.send_bytes(cx, Status::OK, &[], "twice");
        response.start(cx, Status::OK, &[]);
        response.write(cx, b"twice");
        response.inform(cx, Status::EARLY_HINTS, &[]);
        Ok(())
    }

    fn timeout(&mut self, _: &mut Context<'_>, _: Timer, _: &mut Response) -> Outcome {
        panic!("it has the connection no more");
    }
}

#[test]
fn h14_h17_who_has_handed_over_says_nothing_more_and_its_deadlines_are_gone() {
    let limits = allowed();
    let ways = ["tunnel", "tunnel_local", "upgrade", "upgrade_local"];
    for (way, parts) in ways.into_iter().flat_map(|way| [(way, 1), (way, 2)]) {
        let mut probe = Probe::new(Http::with_limits(Forgetful(way), &limits));
        let upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
        let is_tunnel = way.starts_with("tunnel");
        let head = if is_tunnel { connect("x:1") } else { upgrade.to_vec() };
        // What follows is not a request, whatever it looks like. A head in parts has a deadline.
        let bytes = head.repeat(3);
        let (begins, rest) = bytes.split_at(if parts == 1 { 0 } else { 10 });
        probe.receive(begins);
        probe.receive(rest);
        let sent = probe.sent();
        let mut rest = &sent[..];
        let answer = take(&mut rest, true, false).unwrap();
        assert_eq!(answer.status, if is_tunnel { 200 } else { 101 }, "{way}");
        assert!(rest.is_empty(), "{way}: {}", rest.escape_ascii());
        for _ in 0..30 {
            probe.advance(Duration::from_secs(10));
            probe.receive(b"GET / HT");
        }
        assert!(probe.sent().is_empty() && !probe.is_finished(), "{way}");
    }
}
