//! Bytes in both directions: exact, in order, and never more of them queued than the marks allow.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use lariat::reactor::Reactor;
use lariat::{CloseKind, ConnId, Context, Input, Limits, ListenOptions, Outcome, Protocol};
use socket2::SockRef;

use crate::common::*;

#[test]
fn an_echo_is_byte_exact() {
    let mut reactor = Reactor::new().unwrap();
    let (addr, trail) = listen_once(&mut reactor, |_| (), Echo);
    let thread = thread::spawn(move || {
        let stream = client(addr);
        let sent = pattern(3 * MIB + 17);
        let (mut writing, all) = (stream.try_clone().unwrap(), sent.clone());
        let writer = thread::spawn(move || {
            let mut at = 0;
            for size in (1..).map(|n| n * 37 % 70_001 + 1) {
                let end = (at + size).min(all.len());
                writing.write_all(&all[at..end]).unwrap();
                at = end;
                if at == all.len() {
                    break;
                }
            }
            writing.shutdown(Shutdown::Write).unwrap();
        });
        let (back, error) = read_to_end(&mut { stream });
        writer.join().unwrap();
        assert_eq!(error, None);
        assert!(back == sent, "{} of {} bytes came back right", back.len(), sent.len());
    });
    join(&mut reactor, thread);
    settle(&mut reactor);
    assert_eq!(trail.kind(), CloseKind::Finished);
    assert_eq!(trail.reason().bytes_in(), (3 * MIB + 17) as u64);
    assert_eq!(trail.reason().bytes_out(), (3 * MIB + 17) as u64);
    finish(reactor);
}

/// The largest queue that a protocol ever saw, before and after its own write.
#[derive(Clone, Default)]
struct Peak(Rc<Cell<usize>>);

impl Peak {
    fn see(&self, cx: &Context<'_>) {
        self.0.set(self.0.get().max(cx.unsent()));
    }
}

struct PeakEcho(Peak);

impl Protocol for PeakEcho {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume_all();
        self.0.see(cx);
        Ok(())
    }
}

/// Sends `total` bytes of the pattern, whenever its queue has room, and expects `expected` bytes of
/// it.
struct Streamer {
    total: usize,
    expected: usize,
    sent: usize,
    received: usize,
    /// Also answers each `data` with the next byte of the stream.
    answers: bool,
    pattern: Pattern,
    peak: Peak,
}

impl Streamer {
    fn new(total: usize, expected: usize, answers: bool, peak: &Peak) -> Streamer {
        let (pattern, peak) = (Pattern::new(), peak.clone());
        Streamer { total, expected, sent: 0, received: 0, answers, pattern, peak }
    }

    fn send(&mut self, cx: &mut Context<'_>, most: usize) {
        let piece = self.pattern.piece(self.sent, most.min(self.total - self.sent));
        cx.write(piece);
        self.sent += piece.len();
        self.peak.see(cx);
    }

    fn produce(&mut self, cx: &mut Context<'_>) {
        while self.sent < self.total && !cx.is_congested() {
            self.send(cx, 16 * KIB);
        }
        self.end_when_done(cx);
    }

    fn end_when_done(&mut self, cx: &mut Context<'_>) {
        if self.sent == self.total {
            cx.shutdown_write();
        }
    }
}

impl Protocol for Streamer {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.produce(cx);
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.pattern.check(self.received, input);
        self.received += input.len();
        input.consume_all();
        if self.answers && self.sent < self.total {
            self.send(cx, 1);
            self.end_when_done(cx);
        }
        Ok(())
    }

    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.produce(cx);
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        assert_eq!(self.received, self.expected);
        if self.sent == self.total {
            cx.close();
        }
        Ok(())
    }
}

const TOTAL: usize = 20 * 1000 * 1000;

/// Streams through an echo on the same reactor, and watches all queues.
fn stream_through_an_echo(answers: bool) {
    let mut reactor = Reactor::new().unwrap();
    let (at_echo, at_client) = (Peak::default(), Peak::default());
    let peak = at_echo.clone();
    let addr = listen(&mut reactor, move || PeakEcho(peak.clone()));
    let trail = Trail::default();
    let streamer = Streamer::new(TOTAL, TOTAL, answers, &at_client);
    reactor.control().connect_local(addr, Watched(streamer, trail.clone()));
    let mut buffered = 0;
    drive(&mut reactor, |reactor| {
        buffered = buffered.max(reactor.metrics().buffered as usize);
        trail.is_closed()
    });
    assert_eq!(trail.kind(), CloseKind::Finished);
    assert_eq!(trail.reason().bytes_in(), TOTAL as u64);
    let limit = Limits::default().high_mark + READ_BUFFER;
    assert!(at_echo.0.get() <= limit, "{} queued in the echo", at_echo.0.get());
    assert!(at_client.0.get() <= limit, "{} queued in the client", at_client.0.get());
    assert!(buffered <= 2 * limit, "{buffered} queued in both");
    settle(&mut reactor);
    finish(reactor);
}

#[test]
fn b5_twenty_megabytes_go_through_an_echo_with_bounded_queues() {
    stream_through_an_echo(false);
}

#[test]
fn b5_twenty_megabytes_go_through_while_the_client_answers_a_byte_to_each_data() {
    stream_through_an_echo(true);
}

#[test]
fn b5_both_ends_stream_twenty_megabytes_at_each_other() {
    let mut reactor = Reactor::new().unwrap();
    let peak = Peak::default();
    let server = Streamer::new(TOTAL, TOTAL, false, &peak);
    let (addr, accepted) = listen_once(&mut reactor, |_| (), server);
    let connected = Trail::default();
    let streamer = Streamer::new(TOTAL, TOTAL, false, &peak);
    reactor.control().connect_local(addr, Watched(streamer, connected.clone()));
    drive(&mut reactor, |_| accepted.is_closed() && connected.is_closed());
    for trail in [accepted, connected] {
        assert_eq!(trail.kind(), CloseKind::Finished);
        assert_eq!(trail.reason().bytes_in(), TOTAL as u64);
        assert_eq!(trail.reason().bytes_out(), TOTAL as u64);
    }
    assert!(peak.0.get() <= Limits::default().high_mark + 16 * KIB, "{}", peak.0.get());
    finish(reactor);
}

/// A producer that goes on at each `drained`, to a reader that takes `step` bytes at a time.
fn produce_to_a_reader(total: usize, step: usize, small_buffers: bool) {
    let mut reactor = Reactor::new().unwrap();
    let peak = Peak::default();
    let (addr, trail) = listen_once(&mut reactor, |_| (), Streamer::new(total, 0, false, &peak));
    let thread = thread::spawn(move || {
        let mut stream = client(addr);
        if small_buffers {
            SockRef::from(&stream).set_recv_buffer_size(16 * KIB).unwrap();
        }
        let (pattern, mut buffer, mut read) = (Pattern::new(), vec![0; step], 0);
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return read,
                count => {
                    pattern.check(read, &buffer[..count]);
                    read += count;
                }
            }
        }
    });
    assert_eq!(join(&mut reactor, thread), total);
    drive(&mut reactor, |_| trail.is_closed());
    assert_eq!(trail.kind(), CloseKind::Finished);
    assert!(trail.count(|step| matches!(step, Step::Drained)) > 0);
    assert!(peak.0.get() <= Limits::default().high_mark + 16 * KIB, "{}", peak.0.get());
    finish(reactor);
}

#[test]
fn a_producer_on_drained_reaches_a_fast_reader() {
    produce_to_a_reader(32 * MIB, 256 * KIB, false);
}

#[test]
fn a_producer_on_drained_reaches_a_slow_reader() {
    produce_to_a_reader(2 * MIB, 700, true);
}

#[test]
fn b3_a_burst_arrives_whole_although_nothing_follows_it() {
    const BURST: usize = 32 * MIB;
    let mut reactor = Reactor::new().unwrap();
    // A small budget, so that reading stops far more often than the socket is empty.
    let budget = |limits: &mut Limits| limits.read_budget = 10_000;
    let (addr, trail) = listen_once(&mut reactor, budget, Sink);
    let thread = thread::spawn(move || {
        let mut stream = client(addr);
        for _ in 0..BURST / MIB {
            stream.write_all(&vec![7; MIB]).unwrap();
        }
        stream
    });
    let silent = join(&mut reactor, thread);
    let all = |reactor: &Reactor| reactor.metrics().bytes_in == BURST as u64;
    drive(&mut reactor, all);
    drop(silent);
    drive(&mut reactor, |_| trail.is_closed());
    assert_eq!(trail.reason().bytes_in(), BURST as u64);
    finish(reactor);
}

#[test]
fn b4_the_least_send_buffer_and_a_reader_of_single_bytes_lose_nothing() {
    const COUNT: usize = 60_000;
    let mut reactor = Reactor::new().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // Accepted sockets inherit it.
    SockRef::from(&listener).set_send_buffer_size(1).unwrap();
    reactor.adopt_listener(listener, ListenOptions::default(), |_| Some(Echo)).unwrap();
    let thread = thread::spawn(move || {
        let stream = client(addr);
        SockRef::from(&stream).set_recv_buffer_size(1).unwrap();
        let sent = pattern(COUNT);
        let (mut writing, all) = (stream.try_clone().unwrap(), sent.clone());
        let writer = thread::spawn(move || writing.write_all(&all).unwrap());
        let mut reading = stream;
        for (at, byte) in sent.iter().enumerate() {
            let mut one = [0];
            reading.read_exact(&mut one).unwrap();
            assert_eq!(one[0], *byte, "at {at}");
        }
        writer.join().unwrap();
    });
    join(&mut reactor, thread);
    settle(&mut reactor);
    finish(reactor);
}

#[test]
fn b5_peers_that_never_read_cost_the_marks_and_nothing_else() {
    const PEERS: usize = 50;
    let mut reactor = Reactor::new().unwrap();
    let stall = |limits: &mut Limits| limits.write_stall = Duration::from_secs(2);
    let (_, addr) = listen_with(&mut reactor, stall, || Echo);
    let mut peers: Vec<_> = (0..PEERS).map(|_| client(addr)).collect();
    let mut other = client(addr);
    let block = vec![1; 256 * KIB];
    let mut most = 0;
    // Each offers whatever its socket takes, until nobody's takes any more.
    for quiet_rounds in 0..3 {
        let mut offered = true;
        while std::mem::take(&mut offered) {
            for peer in &mut peers {
                offered |= fill(peer, &block) > 0;
            }
            let before = reactor.metrics().bytes_in;
            reactor.turn(Some(Duration::from_millis(1))).unwrap();
            // A turn reads from some of them only: the others are served in the next ones.
            offered |= reactor.metrics().bytes_in > before;
            most = most.max(reactor.metrics().buffered as usize);
        }
        let thread = thread::spawn(move || {
            echo_once(&mut other, &[quiet_rounds; 1000]);
            other
        });
        other = join(&mut reactor, thread);
    }
    let limit = Limits::default().high_mark + READ_BUFFER;
    assert!(most <= PEERS * limit, "{most} bytes queued for {PEERS} peers");
    assert!(most > PEERS * Limits::default().high_mark, "the queues were never full: {most}");
    // In the end they are given up, for the reason that fits.
    drive(&mut reactor, |reactor| reactor.metrics().closes.timed_out == PEERS as u64);
    let thread = thread::spawn(move || echo_once(&mut other, b"still here"));
    join(&mut reactor, thread);
    settle(&mut reactor);
    drop(peers);
    finish(reactor);
}

#[test]
fn b5_whoever_writes_to_a_peer_that_does_not_read_waits_for_it_and_goes_on_when_it_is_gone() {
    const COUNT: usize = 24 * MIB;
    /// The first client is the target of what all others send.
    struct Relay(Rc<Cell<Option<ConnId>>>);
    impl Protocol for Relay {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            if self.0.get().is_none() {
                self.0.set(Some(cx.id()));
            }
            Ok(())
        }
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            cx.peer(self.0.get().unwrap()).write(input);
            input.consume_all();
            Ok(())
        }
    }
    let mut reactor = Reactor::new().unwrap();
    let target = Rc::new(Cell::new(None));
    let to = target.clone();
    let addr = listen(&mut reactor, move || Relay(to.clone()));
    let silent = client(addr);
    drive(&mut reactor, |_| target.get().is_some());
    let thread = thread::spawn(move || {
        let mut source = client(addr);
        for _ in 0..COUNT / MIB {
            source.write_all(&vec![3; MIB]).unwrap();
        }
    });
    let mut most = 0;
    drive(&mut reactor, |reactor| {
        most = most.max(reactor.metrics().buffered as usize);
        reactor.metrics().held == 1 && turned_idle(reactor)
    });
    assert!(most <= Limits::default().high_mark + READ_BUFFER, "{most} bytes queued");
    assert!(reactor.metrics().bytes_in < COUNT as u64);
    reset(silent);
    join(&mut reactor, thread);
    settle(&mut reactor);
    assert_eq!(reactor.metrics().bytes_in, COUNT as u64);
    assert!(reactor.metrics().stale > 0);
    finish(reactor);
}

/// Whether the last turn did nothing.
fn turned_idle(reactor: &Reactor) -> bool {
    reactor.next_deadline().is_none_or(|at| at > std::time::Instant::now())
}
