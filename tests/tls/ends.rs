//! Every orderly end says so under TLS: the close_notify leaves behind the last byte.

use std::io::Read;
use std::time::Duration;

use lariat::sim::{Sim, Socket};
use lariat::tls::{ClientConfig, ServerConfig, Tls, rustls};
use lariat::{
    CloseKind, Context, Endpoint, Incoming, Input, Limits, ListenOptions, Outcome, Protocol,
};

use crate::certs::Authority;
use crate::kit::{End, Told};

/// Answers with `last words`, and ends as it is told.
struct Ending(fn(&mut Context<'_>) -> Outcome);

impl Protocol for Ending {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        cx.write(b"last words");
        (self.0)(cx)
    }
}

/// An echo under TLS; `told` hears of its connections.
fn serve_echo(sim: &mut Sim, config: &ServerConfig, told: &Told) -> Endpoint {
    let (config, told) = (config.clone(), told.clone());
    let factory = move |_: &Incoming| {
        let end = End { told: told.clone(), says: vec![], echoes: true, listener: None };
        Some(Tls::server(&config, end))
    };
    let listener = sim.listen("127.0.0.1:1", factory).unwrap();
    sim.addresses(listener)[0]
}

/// A client by hand.
struct Client {
    session: rustls::ClientConnection,
    socket: Socket,
    heard: Vec<u8>,
    finished: bool,
}

impl Client {
    fn new(authority: &Authority, socket: Socket) -> Client {
        let session = authority.session_by_hand("localhost");
        Client { session, socket, heard: Vec::new(), finished: false }
    }

    fn step(&mut self, sim: &mut Sim, time: Duration) {
        let mut out = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut out).unwrap();
        }
        self.socket.send(&out);
        sim.run_for(time).unwrap();
        let bytes = self.socket.take_received();
        let mut bytes = &bytes[..];
        while !bytes.is_empty() && self.session.read_tls(&mut bytes).unwrap() > 0 {
            let state = self.session.process_new_packets().unwrap();
            self.finished |= state.peer_has_closed();
            let _ = self.session.reader().read_to_end(&mut self.heard);
        }
    }

    fn shake_hands(&mut self, sim: &mut Sim) {
        for _ in 0..4 {
            self.step(sim, Duration::from_millis(1));
        }
        assert!(!self.session.is_handshaking());
    }

    fn says(&mut self, words: &[u8]) {
        use std::io::Write;
        self.session.writer().write_all(words).unwrap();
    }
}

#[test]
fn every_orderly_end_sends_a_close_notify_behind_the_last_byte() {
    type End = fn(&mut Context<'_>) -> Outcome;
    let ends: [(&str, End); 6] = [
        ("close", |cx| {
            cx.close();
            Ok(())
        }),
        ("half-close", |cx| {
            cx.shutdown_write();
            Ok(())
        }),
        ("an error of the protocol", |_| Err("no more".into())),
        ("shutdown of the driver", |cx| {
            cx.driver().shutdown();
            Ok(())
        }),
        ("a close by id", |cx| {
            let own = cx.id();
            cx.driver().set_timer(Duration::from_millis(5), move |control| {
                control.peer(own).close();
            });
            Ok(())
        }),
        ("the idle deadline", |_| Ok(())),
    ];
    for (told_as, end) in ends {
        let authority = Authority::new();
        let config = ServerConfig::new(authority.issue("localhost"));
        let mut sim = Sim::new(1);
        let mut options = ListenOptions::default();
        options.limits.idle = Some(Duration::from_secs(1));
        let factory = move |_: &Incoming| Some(Tls::server(&config, Ending(end)));
        let listener = sim.listen_with("127.0.0.1:1", options, factory).unwrap();
        let mut client = Client::new(&authority, sim.dial(sim.addresses(listener)[0]));
        client.shake_hands(&mut sim);
        client.says(b"end");
        client.step(&mut sim, Duration::from_millis(100));
        client.step(&mut sim, Duration::from_secs(2));
        assert_eq!(client.heard, b"last words", "{told_as}");
        assert!(client.finished, "{told_as}: no close_notify");
    }
}

#[test]
fn a_client_of_ours_says_so_too() {
    let authority = Authority::new();
    let config = ClientConfig::new(&authority.roots());
    let server = ServerConfig::new(authority.issue("localhost"));
    let mut sim = Sim::new(1);
    let served = Told::default();
    let addr = serve_echo(&mut sim, &server, &served);
    struct Leaving;
    impl Protocol for Leaving {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.write(b"bye");
            cx.close();
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
    }
    sim.connect(addr, Tls::client(&config, "localhost", Leaving).unwrap());
    sim.run_for(Duration::from_secs(20)).unwrap();
    assert_eq!((served.bytes(), served.reason().kind()), (b"bye".into(), CloseKind::Finished));
}

#[test]
fn t2_what_is_sent_in_clear_and_closed_at_once_is_never_shown() {
    let authority = Authority::new();
    let config = ServerConfig::new(authority.issue("localhost"));
    let (mut sim, served) = (Sim::new(1), Told::default());
    let addr = serve_echo(&mut sim, &config, &served);
    let hello = {
        let mut out = Vec::new();
        authority.session_by_hand("localhost").write_tls(&mut out).unwrap();
        out
    };
    for number in 0..10_000_usize {
        let socket = sim.dial(addr);
        // Words in clear, a part of a hello, and words behind a part of it.
        let part = &hello[..number % hello.len()];
        match number % 3 {
            0 => socket.send(b"QUIT\r\n"),
            1 => socket.send(part),
            _ => socket.send(&[part, b"QUIT\r\n"].concat()),
        }
        socket.finish();
        sim.run_for(Duration::from_millis(1)).unwrap();
        assert!(!served.has_opened() && served.bytes().is_empty(), "number {number}");
    }
    sim.run_for(Duration::from_secs(20)).unwrap();
    let metrics = sim.metrics();
    assert_eq!((metrics.closes.filter, metrics.failed_handshakes), (10_000, 10_000), "{metrics}");
    assert_eq!((metrics.open, metrics.handshaking, metrics.handshakes), (0, 0, 0), "{metrics}");
}

// ---- the deadline of the handshake --------------------------------------------------------------

#[test]
fn t3_silent_and_slow_handshakes_are_cut_at_the_deadline_and_hold_no_place() {
    let authority = Authority::new();
    let config = ServerConfig::new(authority.issue("localhost"));
    let (mut sim, served) = (Sim::new(1), Told::default());
    let addr = serve_echo(&mut sim, &config, &served);
    let silent: Vec<_> = (0..50).map(|_| sim.dial(addr)).collect();
    let slow = sim.dial(addr);
    let mut hello = Vec::new();
    authority.session_by_hand("localhost").write_tls(&mut hello).unwrap();
    // A byte each second puts nothing off.
    for byte in &hello[..9] {
        slow.send(&[*byte]);
        sim.run_for(Duration::from_secs(1)).unwrap();
    }
    let metrics = sim.metrics();
    assert_eq!((metrics.open, metrics.handshaking), (51, 51), "{metrics}");
    // Somebody else shakes hands meanwhile.
    let mut client = Client::new(&authority, sim.dial(addr));
    client.shake_hands(&mut sim);
    client.says(b"served");
    client.step(&mut sim, Duration::from_millis(100));
    assert_eq!(client.heard, b"served");
    let metrics = sim.metrics();
    assert_eq!((metrics.open, metrics.handshaking, metrics.handshakes), (52, 51, 1), "{metrics}");
    sim.run_for(Duration::from_millis(890)).unwrap();
    assert_eq!(sim.metrics().handshaking, 51, "10 s are not over");
    sim.run_for(Duration::from_millis(20)).unwrap();
    let metrics = sim.metrics();
    assert_eq!((metrics.open, metrics.handshaking), (1, 0), "{metrics}");
    assert_eq!((metrics.closes.timed_out, metrics.failed_handshakes), (51, 51), "{metrics}");
    drop(silent);
}

// ---- writes before the handshake is over --------------------------------------------------------

#[test]
fn t12_writes_before_the_handshake_wait_for_it_up_to_the_limit_of_output() {
    let authority = Authority::new();
    let server = ServerConfig::new(authority.issue("localhost"));
    let client = ClientConfig::new(&authority.roots());
    let most = 100_000;
    for (count, fits) in [(most - 1, true), (most, true), (most + 1, false)] {
        let (mut sim, served, heard) = (Sim::new(1), Told::default(), Told::default());
        let addr = serve_echo(&mut sim, &server, &served);
        let mut limits = Limits::default();
        limits.output_max = most;
        let end = End { told: heard.clone(), says: vec![], echoes: false, listener: None };
        let end = Tls::client(&client, "localhost", end).unwrap();
        let id = sim.control().connect_with(addr, limits.into(), end).unwrap();
        // It has connected and sent its hello; the server's has not come.
        sim.run_for(Duration::from_micros(60)).unwrap();
        assert!(!heard.has_opened());
        let early: Vec<u8> = (0..count).map(|at| (at % 251) as u8).collect();
        sim.control().peer(id).write(&early);
        sim.run_for(Duration::from_secs(20)).unwrap();
        match fits {
            true => assert!(served.bytes() == early, "{} of {count}", served.bytes().len()),
            false => assert_eq!(heard.reason().kind(), CloseKind::OutputFull),
        }
    }
}

// ---- a peer that does not read ------------------------------------------------------------------

#[test]
fn t6_a_peer_that_sends_and_never_reads_is_held_at_the_high_mark() {
    let authority = Authority::new();
    let config = ServerConfig::new(authority.issue("localhost"));
    let mut sim = Sim::new(1);
    let addr = serve_echo(&mut sim, &config, &Told::default());
    let mut client = Client::new(&authority, sim.dial(addr));
    client.shake_hands(&mut sim);
    client.session.set_buffer_limit(None);
    client.socket.stop_reading();
    let before = sim.metrics().bytes_in;
    for _ in 0..8 {
        client.says(&[7; 1 << 20]);
        let mut out = Vec::new();
        while client.session.wants_write() {
            client.session.write_tls(&mut out).unwrap();
        }
        client.socket.send(&out);
        sim.run_for(Duration::from_millis(1)).unwrap();
    }
    let metrics = sim.metrics();
    assert_eq!((metrics.open, metrics.held), (1, 1), "{metrics}");
    assert!(metrics.bytes_in - before < 2 << 20, "{metrics}");
    assert!(metrics.buffered < 1 << 20, "{metrics}");
    // When it reads, all of it comes back.
    client.socket.resume_reading();
    for _ in 0..100 {
        client.step(&mut sim, Duration::from_millis(1));
    }
    assert_eq!(client.heard.len(), 8 << 20);
    assert!(client.heard.iter().all(|byte| *byte == 7));
    assert_eq!(sim.metrics().held, 0);
}
