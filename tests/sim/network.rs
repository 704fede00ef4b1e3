//! The made-up network does what Linux does, and what the test tells it to.

use lariat::sim::{Call, Fault, Link, Sim, Socket, Trace};
use lariat::{
    CloseKind, CloseReason, Context, ErrorKind, Input, ListenOptions, Outcome, Overload, Protocol,
    Timer,
};

use crate::kit::{Echo, Reasons, Sink, ms, serve, serve_with, sim_with, stream};

/// Keeps what it is shown, stays when the peer has finished, and writes at each timer.
struct Stayer {
    writes: u32,
    reasons: Reasons,
}

impl Stayer {
    fn new(writes: u32, reasons: &Reasons) -> Stayer {
        Stayer { writes, reasons: reasons.clone() }
    }
}

impl Protocol for Stayer {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        if self.writes > 0 {
            cx.set_timer(Timer::new(1), ms(10));
        }
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
    fn eof(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        cx.write(b"still here?");
        self.writes -= 1;
        if self.writes > 0 {
            cx.set_timer(timer, ms(10));
        }
        Ok(())
    }
    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.reasons.keep(reason);
    }
}

// ---- ends ---------------------------------------------------------------------------------------

#[test]
fn a_socket_closed_with_unread_input_resets_the_connection_and_else_finishes_it() {
    for (unread, expected) in [(true, "reset by the peer"), (false, "finished by the peer")] {
        let (mut sim, reasons) = (Sim::new(1), Reasons::default());
        let told = reasons.clone();
        let addr = serve(&mut sim, move || Greeter(told.clone()));
        let client = sim.dial(addr);
        if unread {
            client.stop_reading();
        }
        sim.run_for(ms(1)).unwrap();
        assert_eq!(client.take_received(), if unread { "" } else { "welcome" });
        client.close();
        sim.run_for(ms(1)).unwrap();
        assert_eq!(reasons.sentences(), [expected]);
    }
}

/// Says one word.
struct Greeter(Reasons);

impl Protocol for Greeter {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(b"welcome");
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.0.keep(reason);
    }
}

#[test]
fn a_driver_that_drops_a_socket_with_unread_input_resets_the_connection_and_else_finishes_it() {
    for (sent, reset) in [(&b"unread"[..], true), (b"", false)] {
        // It waits for the place of the first one, and is then turned away: nobody reads what it
        // has said meanwhile.
        let mut sim = sim_with(1, |limits| {
            (limits.connections_max, limits.overload) = (1, Overload::Pause);
        });
        let mut first = Some(Echo);
        let listener = sim.listen("127.0.0.1:0", move |_| first.take()).unwrap();
        let holder = sim.dial(sim.addresses(listener)[0]);
        sim.run_for(ms(1)).unwrap();
        let client = sim.dial(sim.addresses(listener)[0]);
        client.send(sent);
        sim.run_for(ms(1)).unwrap();
        drop(holder);
        sim.run_for(ms(1)).unwrap();
        assert_eq!((client.is_reset(), client.is_finished()), (reset, !reset));
    }
}

#[test]
fn what_comes_to_a_closed_socket_of_the_test_is_answered_with_a_reset() {
    let (mut sim, reasons) = (Sim::new(1), Reasons::default());
    let told = reasons.clone();
    let addr = serve(&mut sim, move || Stayer::new(3, &told));
    let client = sim.dial(addr);
    sim.run_for(ms(1)).unwrap();
    drop(client);
    sim.run_for(ms(5)).unwrap();
    assert_eq!(sim.metrics().open, 1, "a FIN alone ends nothing");
    // The first write is answered, and that is found by the next look at the socket.
    sim.run_for(ms(8)).unwrap();
    assert_eq!(reasons.sentences(), ["reset by the peer"]);
}

#[test]
fn what_comes_to_a_connection_that_the_driver_has_ended_is_answered_with_a_reset() {
    struct Curt;
    impl Protocol for Curt {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            input.consume_all();
            cx.close();
            Ok(())
        }
    }
    let mut sim = Sim::new(1);
    let addr = serve(&mut sim, || Curt);
    let client = sim.dial(addr);
    client.send(b"x");
    // It has finished, lingered and gone.
    sim.run_for(ms(10_000)).unwrap();
    assert_eq!((client.is_finished(), client.is_reset(), sim.metrics().open), (true, false, 0));
    client.send(b"more");
    sim.run_for(ms(1)).unwrap();
    assert!(client.is_reset());
}

#[test]
fn a_reset_takes_what_the_test_had_still_to_send_with_it() {
    let mut sim = Sim::new(1);
    let mut link = Link::default();
    link.window = 10;
    sim.set_link(link);
    let reasons = Reasons::default();
    let told = reasons.clone();
    let addr = serve(&mut sim, move || Stayer::new(0, &told));
    let client = sim.dial(addr);
    client.send(&[b'x'; 1000]);
    client.reset();
    sim.run_for(ms(50)).unwrap();
    // The handshake had not been made: nothing of it was ever there.
    assert_eq!((sim.metrics().accepted, client.is_reset()), (0, false));

    let client = sim.dial(addr);
    client.send(&[b'x'; 1000]);
    sim.run_for(ms(1)).unwrap();
    client.reset();
    sim.run_for(ms(50)).unwrap();
    assert_eq!(reasons.sentences(), ["reset by the peer"]);
    let bytes = reasons.0.borrow()[0].bytes_in();
    assert!((10..1000).contains(&bytes), "{bytes} bytes came through");
}

#[test]
fn a_host_that_vanishes_says_nothing_and_hears_nothing() {
    let (mut sim, reasons) = (Sim::new(1), Reasons::default());
    let told = reasons.clone();
    let idle = |limits: &mut lariat::Limits| limits.idle = Some(ms(400));
    let addr = serve_with(&mut sim, idle, move || Stayer::new(2, &told));
    let client = sim.dial(addr);
    sim.run_for(ms(15)).unwrap();
    assert_eq!(client.take_received(), b"still here?");
    client.vanish();
    client.send(b"lost");
    client.finish();
    sim.run_for(ms(100)).unwrap();
    assert_eq!(client.take_received(), b"");
    assert!(reasons.sentences().is_empty(), "nothing is heard of it");
    sim.run_for(ms(10_000)).unwrap();
    assert_eq!(reasons.sentences(), ["timed out (idle) by the runtime"]);
    assert_eq!(reasons.0.borrow()[0].bytes_in(), 0);
    assert!(!client.is_finished() && !client.is_reset());
}

// ---- links --------------------------------------------------------------------------------------

#[test]
fn the_latency_of_a_link_is_paid_once_in_each_direction() {
    let mut sim = Sim::new(1);
    let mut link = Link::default();
    link.latency = ms(40);
    sim.set_link(link);
    let addr = serve(&mut sim, || Echo);
    let client = sim.dial(addr);
    client.send(b"ping");
    // The handshake, the bytes, and the answer.
    let heard = |sim: &mut Sim, by: u64| {
        sim.run_for(ms(by) - sim.now()).unwrap();
        client.take_received().len()
    };
    assert_eq!((heard(&mut sim, 119), heard(&mut sim, 120)), (0, 4));
    let (before, trip) = (sim.now(), 80);
    client.send(b"pong");
    sim.run_for(ms(trip - 1)).unwrap();
    assert_eq!(client.take_received(), b"");
    sim.run_for(ms(1)).unwrap();
    assert_eq!((client.take_received().len(), sim.now() - before), (4, ms(trip)));
}

#[test]
fn the_bandwidth_of_a_link_is_bytes_per_second_in_each_direction() {
    let mut sim = Sim::new(1);
    let mut link = Link::default();
    (link.latency, link.bandwidth) = (ms(0), Some(1_000));
    sim.set_link(link);
    let addr = serve(&mut sim, || Echo);
    let client = sim.dial(addr);
    client.send(&stream(0, 500));
    // Half a second to the server, and as long back.
    sim.run_for(ms(999)).unwrap();
    assert_eq!(client.take_received(), b"");
    sim.run_for(ms(2)).unwrap();
    assert_eq!(client.take_received(), stream(0, 500));
}

#[test]
fn the_window_of_a_link_is_what_may_be_under_way_or_unread() {
    struct Talker(Reasons);
    impl Protocol for Talker {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.write(&stream(0, 3_000));
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
        fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
            self.0.keep(reason);
        }
    }
    let (mut sim, reasons) = (Sim::new(1), Reasons::default());
    let told = reasons.clone();
    let mut link = Link::default();
    link.window = 1_000;
    sim.set_link(link);
    let addr = serve(&mut sim, move || Talker(told.clone()));
    let client = sim.dial(addr);
    client.stop_reading();
    sim.run_for(ms(10)).unwrap();
    assert_eq!(sim.metrics().buffered, 2_000, "as much as does not fit");
    client.read(300);
    sim.run_for(ms(10)).unwrap();
    assert_eq!(client.take_received(), stream(0, 300));
    assert_eq!(sim.metrics().buffered, 1_700);
    client.resume_reading();
    sim.run_for(ms(10)).unwrap();
    assert_eq!(client.take_received(), stream(300, 2_700));
    assert_eq!(sim.metrics().buffered, 0);
}

// ---- listeners and sockets of the test ----------------------------------------------------------

#[test]
fn protocols_connect_to_a_listener_of_the_test() {
    let mut sim = Sim::new(1);
    let acceptor = sim.acceptor("127.0.0.1:9000").unwrap();
    assert_eq!(acceptor.local_addr().to_string(), "127.0.0.1:9000");
    assert!(acceptor.accept().is_none(), "nobody has come");
    let trace = Trace::new();
    sim.connect("127.0.0.1:9000", trace.wrap("echo", Echo));
    sim.run_for(ms(1)).unwrap();
    let socket = acceptor.accept().expect("it has connected");
    assert_eq!(socket.local_addr(), acceptor.local_addr());
    assert_eq!(socket.peer_addr().ip(), acceptor.local_addr().ip());
    socket.send(b"over here");
    sim.run_for(ms(1)).unwrap();
    assert_eq!(socket.take_received(), b"over here");
    assert!(format!("{socket:?} {acceptor:?}").contains("addr: 127.0.0.1:9000"));
    socket.finish();
    sim.run_for(ms(1)).unwrap();
    assert!(socket.is_finished());
    assert_eq!(trace.of("echo").last().unwrap(), "closed finished by the peer");
}

#[test]
fn the_end_of_a_listener_of_the_test_resets_who_waits_and_refuses_who_comes() {
    let mut sim = Sim::new(1);
    let acceptor = sim.acceptor("127.0.0.1:9000").unwrap();
    let taken = sim.acceptor("127.0.0.1:9000").unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddressInUse);
    let taken = sim.listen("127.0.0.1:9000", |_| Some(Echo)).unwrap_err();
    assert_eq!(taken.to_string(), "cannot listen on 127.0.0.1:9000: the address is already in use");
    let trace = Trace::new();
    sim.connect("127.0.0.1:9000", trace.wrap("waits", Sink));
    sim.run_for(ms(1)).unwrap();
    drop(acceptor);
    sim.connect("127.0.0.1:9000", trace.wrap("comes", Sink));
    sim.run_for(ms(1)).unwrap();
    assert_eq!(trace.of("waits"), ["opened", "closed reset by the peer"]);
    assert_eq!(trace.of("comes"), ["closed connect refused by the peer"]);
    // The address is free again.
    sim.listen("127.0.0.1:9000", |_| Some(Echo)).unwrap();
}

#[test]
fn a_listener_that_has_stopped_is_gone_and_its_connections_stay() {
    let mut sim = Sim::new(1);
    let listener = sim.listen("127.0.0.1:7000", |_| Some(Echo)).unwrap();
    let addr = sim.addresses(listener)[0];
    let first = sim.dial(addr);
    sim.run_for(ms(1)).unwrap();
    sim.control().stop_listening(listener);
    sim.run_for(ms(1)).unwrap();
    assert!(sim.addresses(listener).is_empty());
    let second = sim.dial(addr);
    first.send(b"still");
    sim.run_for(ms(1)).unwrap();
    assert_eq!(first.take_received(), b"still");
    assert!(second.is_reset() || !second.is_finished());
    assert_eq!(sim.metrics().accepted, 1);
}

#[test]
fn a_backlog_that_is_full_makes_newcomers_try_again() {
    let mut sim = sim_with(1, |limits| {
        (limits.connections_max, limits.overload) = (1, Overload::Pause);
    });
    let mut options = ListenOptions::default();
    options.backlog = 2;
    let listener = sim.listen_with("127.0.0.1:0", options, |_| Some(Echo)).unwrap();
    let addr = sim.addresses(listener)[0];
    let mut clients: Vec<Socket> = (0..6).map(|_| sim.dial(addr)).collect();
    clients.iter().for_each(|client| client.send(b"?"));
    let mut served = 0;
    while let Some(client) = (!clients.is_empty()).then(|| clients.remove(0)) {
        sim.run_for(ms(250)).unwrap();
        served += u32::from(client.take_received() == b"?");
    }
    assert_eq!(served, 6);
}

#[test]
fn one_descriptor_too_many_fails_accepts_and_connects() {
    let mut sim = Sim::new(1);
    let acceptor = sim.acceptor("127.0.0.1:9000").unwrap();
    sim.set_descriptors_max(2);
    let trace = Trace::new();
    for who in ["first", "second", "third"] {
        sim.connect("127.0.0.1:9000", trace.wrap(who, Sink));
    }
    sim.run_for(ms(1)).unwrap();
    assert_eq!(trace.of("first"), ["opened"]);
    assert_eq!(trace.of("second"), ["opened"]);
    let failed = ["closed connect failed, no descriptor left by the runtime"];
    assert_eq!(trace.of("third"), failed);
    // The test's own sockets need none.
    assert!(acceptor.accept().is_some());
}

// ---- scripts ------------------------------------------------------------------------------------

#[test]
fn a_script_hits_the_call_that_it_names_and_no_other() {
    // Two connections are made and read from; the n-th call of each kind fails.
    let run = |call: Call, nth: u64, errno: i32| {
        let mut sim = Sim::new(1);
        let trace = Trace::new();
        let addr = serve(&mut sim, || Echo);
        sim.run_for(ms(1)).unwrap();
        sim.script(call, nth, Fault::Error(errno));
        let mut made = Vec::new();
        for who in ["first", "second"] {
            sim.connect(addr, trace.wrap(who, Hello));
            made.push(sim.run_for(ms(1)));
        }
        let ends: Vec<String> = ["first", "second"]
            .map(|who| trace.of(who).last().cloned().unwrap_or_default())
            .to_vec();
        (ends, made.iter().filter(|run| run.is_err()).count(), sim.metrics().accept_errors)
    };
    let (well, refused) = ("data 5 bytes a430d84680aabd0b", "closed connect refused by the peer");
    let reset = "closed reset by the peer";
    for (nth, expected) in [(0, [refused, well]), (1, [well, refused]), (2, [well, well])] {
        let (ends, failed, _) = run(Call::Connect, nth, libc::ECONNREFUSED);
        assert_eq!((ends, failed), (expected.map(str::to_owned).to_vec(), 0), "connect {nth}");
    }
    for (nth, expected) in [(0, [reset, well]), (99, [well, well])] {
        let (ends, failed, _) = run(Call::Write, nth, libc::ECONNRESET);
        assert_eq!((ends, failed), (expected.map(str::to_owned).to_vec(), 0), "write {nth}");
        let (ends, failed, _) = run(Call::Read, nth, libc::ECONNRESET);
        let ended = ends[0].starts_with("closed");
        assert_eq!((ended, ends[1].as_str(), failed), (nth == 0, well, 0), "read {nth}");
    }
    let (ends, _, errors) = run(Call::Accept, 0, libc::ECONNABORTED);
    assert_eq!((ends[1].as_str(), errors), (well, 1));
    let (ends, _, _) = run(Call::Register, 0, libc::ENOMEM);
    assert_eq!(ends[0], "closed connect failed, no descriptor left by the runtime");
    let (_, failed, _) = run(Call::Poll, 0, libc::EBADF);
    assert_eq!(failed, 1);
    let (_, failed, _) = run(Call::Poll, 0, libc::EINTR);
    assert_eq!(failed, 0);
}

/// Says hello.
struct Hello;

impl Protocol for Hello {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(b"hello");
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
}

#[test]
fn a_script_counts_from_the_call_that_comes_next() {
    let mut sim = Sim::new(1);
    let addr = serve(&mut sim, || Echo);
    let client = sim.dial(addr);
    client.send(b"one");
    sim.run_for(ms(1)).unwrap();
    sim.script(Call::Read, 0, Fault::Short(2));
    sim.script(Call::Write, 1, Fault::Short(1));
    client.send(b"four");
    let before = sim.metrics().callbacks;
    sim.run_for(ms(1)).unwrap();
    assert_eq!(client.take_received(), b"onefour");
    assert_eq!(sim.metrics().callbacks - before, 2, "two bytes, and the other two");
}

#[test]
fn a_connect_is_refused_unreachable_or_never_answered_as_the_seed_has_it() {
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let (mut sim, reasons) = (Sim::new(seed), Reasons::default());
        let mut faults = lariat::sim::Faults::none();
        faults.connect_errors = 1000;
        sim.set_faults(faults);
        let addr = serve(&mut sim, || Echo);
        sim.control().connect_local(addr, Local(reasons.clone()));
        sim.run().unwrap();
        let kind = reasons.0.borrow()[0].kind();
        assert!(matches!(kind, CloseKind::Connect(_) | CloseKind::TimedOut(_)), "{kind}");
        kinds.insert(kind.to_string());
    }
    let expected = ["connect failed, unreachable", "connect refused", "timed out (connect)"];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), expected);
}

/// Keeps why it ended.
struct Local(Reasons);

impl Protocol for Local {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.0.keep(reason);
    }
}

#[test]
fn as_many_newcomers_wait_as_the_backlog_says_and_others_are_tried_again() {
    let mut sim = sim_with(1, |limits| limits.connections_max = 1);
    let mut options = ListenOptions::default();
    options.backlog = 2;
    let listener = sim.listen_with("127.0.0.1:0", options, |_| Some(Echo)).unwrap();
    let addr = sim.addresses(listener)[0];
    let first = sim.dial(addr);
    sim.run_for(ms(1)).unwrap();
    let others = [(); 3].map(|()| sim.dial(addr));
    sim.run_for(ms(1)).unwrap();
    // The place of each that leaves is the next one's.
    for (left, client) in [&first, &others[0], &others[1]].into_iter().enumerate() {
        assert_eq!(sim.metrics().accepted, left as u64 + 1);
        client.close();
        sim.run_for(ms(10)).unwrap();
    }
    assert_eq!(sim.metrics().accepted, 3, "the last one finds no place among those that wait");
    sim.run_for(ms(100)).unwrap();
    assert_eq!(sim.metrics().accepted, 4);
}
