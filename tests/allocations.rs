//! Allocations after warm-up: none per message, whatever moves the bytes.
//!
//! Client and reactor run on one thread, in turns, and only what the reactor's turns allocate is
//! counted.

use std::alloc::System;
use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lariat::reactor::Reactor;
use lariat::{ConnId, Context, DriverLimits, Input, Outcome, Protocol, Timer};
use socket2::SockRef;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MESSAGE: [u8; 64] = [7; 64];

/// A reactor with its clients' ends, and what the reactor has allocated so far.
struct Bench {
    reactor: Reactor,
    addr: SocketAddr,
    clients: Vec<TcpStream>,
    allocated: usize,
    _alone: MutexGuard<'static, ()>,
}

/// The count is the whole process's: tests take turns.
static ALONE: Mutex<()> = Mutex::new(());

impl Bench {
    fn new<P: Protocol + 'static>(clients: usize, mut make: impl FnMut() -> P + 'static) -> Bench {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        // A turn that a busy machine makes slow would time callbacks, and their names allocate.
        let mut limits = DriverLimits::default();
        limits.slow_callback = None;
        let mut reactor = Reactor::with_limits(limits).unwrap();
        let listener = reactor.listen("127.0.0.1:0", move |_| Some(make())).unwrap();
        let addr = reactor.addresses(listener)[0].socket_addr().unwrap();
        let mut bench = Bench { reactor, addr, clients: Vec::new(), allocated: 0, _alone: alone };
        for _ in 0..clients {
            let client = TcpStream::connect(bench.addr).unwrap();
            client.set_nodelay(true).unwrap();
            client.set_nonblocking(true).unwrap();
            bench.clients.push(client);
        }
        while bench.reactor.metrics().accepted < clients as u64 {
            bench.turn();
        }
        bench
    }

    /// A turn of the reactor, counted.
    fn turn(&mut self) {
        let region = Region::new(GLOBAL);
        self.reactor.turn(Some(Duration::from_millis(1))).unwrap();
        let change = region.change();
        self.allocated += change.allocations + change.reallocations;
    }

    /// Every client sends a message and reads `reply` bytes.
    fn round(&mut self, message: &[u8], reply: usize) {
        for client in &mut self.clients {
            client.write_all(message).unwrap();
        }
        for at in 0..self.clients.len() {
            self.receive(at, reply);
        }
    }

    fn receive(&mut self, client: usize, mut count: usize) {
        let mut buffer = [0; 64 * 1024];
        while count > 0 {
            let most = count.min(buffer.len());
            match self.clients[client].read(&mut buffer[..most]) {
                Ok(0) => panic!("the connection has ended"),
                Ok(read) => count -= read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.turn(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Allocations of `rounds` calls of `round`.
    fn count(&mut self, rounds: usize, mut round: impl FnMut(&mut Bench)) -> usize {
        let before = self.allocated;
        for _ in 0..rounds {
            round(self);
        }
        self.allocated - before
    }

    /// After warm-up, `rounds` rounds allocate nothing. The test harness may allocate meanwhile, on
    /// its own thread; what a round costs is there every time.
    #[track_caller]
    fn expect_none(mut self, rounds: usize, mut round: impl FnMut(&mut Bench)) {
        self.count(rounds / 4, &mut round);
        let counts = [(); 4].map(|()| self.count(rounds, &mut round));
        assert!(counts.contains(&0), "allocations in {rounds} rounds, four times: {counts:?}");
    }
}

struct Echo;

impl Protocol for Echo {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume_all();
        Ok(())
    }
}

#[test]
fn an_echo_allocates_nothing_with_one_connection() {
    Bench::new(1, || Echo).expect_none(8000, |bench| bench.round(&MESSAGE, 64));
}

#[test]
fn an_echo_allocates_nothing_with_64_connections() {
    Bench::new(64, || Echo).expect_none(400, |bench| bench.round(&MESSAGE, 64));
}

#[test]
fn a_reply_of_own_bytes_allocates_nothing() {
    struct Reply;
    impl Protocol for Reply {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            cx.write(b"200 ");
            cx.write(&[b'x'; 60]);
            input.consume_all();
            Ok(())
        }
    }
    Bench::new(8, || Reply).expect_none(2000, |bench| bench.round(&MESSAGE, 64));
}

#[test]
fn a_reply_of_shared_bytes_allocates_nothing() {
    const PAGE: [u8; 10_000] = [7; 10_000];
    struct Reply;
    impl Protocol for Reply {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            cx.write(b"head");
            cx.write_bytes(&PAGE[..]);
            input.consume_all();
            Ok(())
        }
    }
    Bench::new(8, || Reply).expect_none(1000, |bench| bench.round(&MESSAGE, 10_004));
}

#[test]
fn messages_in_pieces_allocate_nothing() {
    /// Echoes messages of 64 bytes, and nothing before one is whole.
    struct Whole;
    impl Protocol for Whole {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            while input.len() >= 64 {
                cx.write(&input[..64]);
                input.consume(64);
            }
            input.need(64);
            Ok(())
        }
    }
    Bench::new(4, || Whole).expect_none(1000, |bench| {
        for piece in MESSAGE.chunks(20) {
            for client in &mut bench.clients {
                client.write_all(piece).unwrap();
            }
            bench.turn();
        }
        for at in 0..4 {
            bench.receive(at, 64);
        }
    });
}

#[test]
fn bulk_with_short_writes_allocates_nothing() {
    let chunk = vec![7; 1024 * 1024];
    let stalls = Rc::new(Cell::new(0));
    let bench = Bench::new(2, || Echo);
    for client in &bench.clients {
        SockRef::from(client).set_recv_buffer_size(64 * 1024).unwrap();
        SockRef::from(client).set_send_buffer_size(64 * 1024).unwrap();
    }
    let stalled = Rc::clone(&stalls);
    bench.expect_none(25, move |bench| {
        // Each client sends until the way there and back is full, and only then reads.
        for at in 0..bench.clients.len() {
            let (mut sent, mut blocked) = (0, 0);
            while blocked < 3 {
                match bench.clients[at].write(&chunk) {
                    Ok(count) => {
                        sent += count;
                        blocked = 0;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => blocked += 1,
                    Err(error) => panic!("{error}"),
                }
                bench.turn();
            }
            let held = bench.reactor.metrics().held > 0;
            stalled.set(stalled.get() + usize::from(held));
            bench.receive(at, sent);
        }
    });
    assert!(stalls.get() > 100, "{} of 212 streams were held", stalls.get());
}

#[test]
fn a_relay_allocates_nothing() {
    struct Inner(ConnId);
    impl Protocol for Inner {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            cx.peer(self.0).write(input);
            input.consume_all();
            Ok(())
        }
    }
    struct Outer {
        upstream: SocketAddr,
        inner: Option<ConnId>,
    }
    impl Protocol for Outer {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            let id = cx.id();
            self.inner = Some(cx.connect(self.upstream, Inner(id)));
            Ok(())
        }
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            if let Some(inner) = self.inner {
                cx.peer(inner).write(input);
            }
            input.consume_all();
            Ok(())
        }
    }

    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = upstream.local_addr().unwrap();
    let mut bench = Bench::new(1, move || Outer { upstream: addr, inner: None });
    bench.turn();
    let (mut far, _) = upstream.accept().unwrap();
    far.set_nodelay(true).unwrap();
    far.set_nonblocking(true).unwrap();
    bench.expect_none(4000, |bench| {
        bench.clients[0].write_all(&MESSAGE).unwrap();
        let mut buffer = [0; 64];
        let mut count = 0;
        while count < 64 {
            match far.read(&mut buffer[count..]) {
                Ok(read) => count += read,
                Err(_) => bench.turn(),
            }
        }
        far.write_all(&buffer).unwrap();
        bench.receive(0, 64);
    });
}

#[test]
fn a_timer_set_anew_in_each_data_allocates_nothing() {
    const IDLE: Timer = Timer::new(1);
    struct Watched;
    impl Protocol for Watched {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            cx.set_timer(IDLE, Duration::from_secs(60));
            cx.write(input);
            input.consume_all();
            Ok(())
        }
    }
    Bench::new(8, || Watched).expect_none(1000, |bench| bench.round(&MESSAGE, 64));
}

#[test]
fn a_timer_that_answers_each_message_allocates_nothing() {
    const SOON: Timer = Timer::new(1);
    struct Delayed;
    impl Protocol for Delayed {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            cx.set_timer(SOON, Duration::ZERO);
            input.consume_all();
            Ok(())
        }
        fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
            cx.write(&MESSAGE);
            Ok(())
        }
    }
    Bench::new(8, || Delayed).expect_none(1000, |bench| bench.round(&MESSAGE, 64));
}

#[test]
fn a_protocol_that_pauses_and_resumes_allocates_nothing() {
    const SOON: Timer = Timer::new(1);
    struct Paused(Rc<Cell<u64>>);
    impl Protocol for Paused {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            self.0.set(self.0.get() + 1);
            cx.write(input);
            input.consume_all();
            cx.pause_reading();
            cx.set_timer(SOON, Duration::ZERO);
            Ok(())
        }
        fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
            cx.resume_reading();
            Ok(())
        }
    }
    let count = Rc::new(Cell::new(0));
    let bench = Bench::new(4, move || Paused(Rc::clone(&count)));
    bench.expect_none(1000, |bench| bench.round(&MESSAGE, 64));
}

#[test]
fn a_constant_answer_of_http_allocates_nothing() {
    use lariat::http::{Handler, Header, Http, Request, Response, Status};

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n";
    struct Hello;
    impl Handler for Hello {
        fn request(
            &mut self,
            cx: &mut Context<'_>,
            _: &Request<'_>,
            response: &mut Response,
        ) -> Outcome {
            response.send(cx, Status::OK, &[Header::TEXT], b"hello\n");
            Ok(())
        }
    }
    let head = "HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                content-type: text/plain; charset=utf-8\r\ncontent-length: 6\r\n\r\n";
    let answer = head.len() + 6;
    let alone = Bench::new(8, || Http::new(Hello));
    alone.expect_none(1000, |bench| bench.round(REQUEST, answer));
    let sixteen = REQUEST.repeat(16);
    let pipelined = Bench::new(8, || Http::new(Hello));
    pipelined.expect_none(200, |bench| bench.round(&sixteen, 16 * answer));
}
