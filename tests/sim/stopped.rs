//! C17: the process is stopped, and goes on when deadlines have passed and input waits that no poll
//! has told of. What has happened comes before what has not.

use std::cell::RefCell;
use std::rc::Rc;

use lariat::sim::{Link, Sim, Socket, Trace};
use lariat::{
    CloseReason, Context, DriverLimits, Filter, FilterResult, Input, Limits, Outcome, Progress,
    Protocol, Timer,
};

use crate::kit::{Echo, Reasons, Sink, ms, serve, serve_with, sim_with, stream};
use crate::toy::Toy;

/// More than the events of several polls.
const CLIENTS: usize = 60;

/// A simulator whose polls and turns take few at a time.
fn narrow() -> Sim {
    sim_with(1, |limits: &mut DriverLimits| (limits.events_max, limits.timers_max) = (7, 10))
}

/// Connects, and lets everybody in.
fn enter(sim: &mut Sim, addr: std::net::SocketAddr) -> Vec<Socket> {
    let clients = (0..CLIENTS).map(|_| sim.dial(addr)).collect();
    sim.run_for(ms(100)).unwrap();
    clients
}

/// Turns that do not wait.
fn turns(sim: &mut Sim, count: usize) {
    (0..count).for_each(|_| sim.turn(Some(ms(0))).unwrap());
}

/// `bytes` come from everybody, the last first, while the process is stopped past all deadlines.
fn send_while_stopped(sim: &mut Sim, clients: &[Socket], bytes: &[u8]) {
    clients.iter().rev().for_each(|client| client.send(bytes));
    sim.stop_for(ms(2_000));
    sim.run_for(ms(100)).unwrap();
}

#[test]
fn c17_input_that_came_puts_an_idle_deadline_off() {
    let mut sim = narrow();
    let addr = serve_with(&mut sim, |limits| limits.idle = Some(ms(600)), || Echo);
    let clients = enter(&mut sim, addr);
    for round in 0..3 {
        send_while_stopped(&mut sim, &clients, b"x");
        let answered = clients.iter().filter(|client| client.take_received() == b"x"[..]);
        assert_eq!((answered.count(), sim.metrics().closes.total()), (CLIENTS, 0), "{round}");
    }
    sim.stop_for(ms(700));
    sim.run_for(ms(100)).unwrap();
    assert_eq!(sim.metrics().closes.timed_out, 0, "they linger");
    assert!(clients.iter().all(Socket::is_finished), "who has said nothing is cut");
}

#[test]
fn c17_much_input_puts_an_idle_deadline_off_although_not_all_is_read_in_a_turn() {
    let mut sim = narrow();
    let addr = serve_with(&mut sim, |limits| limits.idle = Some(ms(600)), || Sink);
    let clients = enter(&mut sim, addr);
    let much = stream(0, 200_000);
    // Those who have sent much are served behind the others, and 2 MiB in a turn at most.
    for _ in 0..2 {
        send_while_stopped(&mut sim, &clients, &much);
    }
    let metrics = sim.metrics();
    assert_eq!((metrics.open, metrics.closes.total()), (CLIENTS as u64, 0));
    assert_eq!(metrics.bytes_in, (2 * CLIENTS * much.len()) as u64);
}

#[test]
fn a_deadline_that_passes_in_silence_costs_one_read_and_one_that_has_moved_none() {
    let mut sim = Sim::new(1);
    let addr = serve_with(&mut sim, |limits| limits.idle = Some(ms(600)), || Echo);
    let client = sim.dial(addr);
    for _ in 0..20 {
        sim.run_for(ms(100)).unwrap();
        client.send(b"x");
    }
    sim.run_for(ms(100)).unwrap();
    assert_eq!(sim.metrics().reads, 20, "the deadline was looked at three times");
    sim.run_for(ms(600)).unwrap();
    assert!(client.is_finished());
    // Closing reads until there is nothing, and takes notice of nothing more.
    let reads = sim.metrics().reads;
    assert!((21..=22).contains(&reads), "{reads}");
}

#[test]
fn c17_a_handshake_whose_bytes_have_come_is_completed() {
    struct Filtered(Option<Toy>);
    impl Protocol for Filtered {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            Echo.data(cx, input)
        }
        fn filter(&mut self) -> Option<Box<dyn Filter>> {
            self.0.take().map(|toy| Box::new(toy) as Box<dyn Filter>)
        }
    }
    let mut sim = narrow();
    let change = |limits: &mut Limits| limits.handshake = ms(500);
    let addr = serve_with(&mut sim, change, || Filtered(Some(Toy::server())));
    let clients = enter(&mut sim, addr);
    send_while_stopped(&mut sim, &clients, &Toy::hello(7));
    assert!(clients.iter().all(|client| client.take_received() == b"OLEH"[..]));
    assert_eq!(sim.metrics().closes.total(), 0);
    let silent = sim.dial(addr);
    sim.stop_for(ms(600));
    sim.run_for(ms(600)).unwrap();
    assert_eq!((sim.metrics().closes.timed_out, silent.is_reset()), (1, true));
}

#[test]
fn a_handshake_without_an_end_is_cut_in_time_however_much_comes() {
    struct Endless;
    impl Filter for Endless {
        fn start(&mut self, _: &mut Vec<u8>) -> FilterResult {
            Ok(Progress::Handshaking)
        }
        fn receive(&mut self, _: &mut [u8], _: &mut Vec<u8>, _: &mut Vec<u8>) -> FilterResult {
            Ok(Progress::Handshaking)
        }
        fn send(&mut self, _: &[u8], _: &mut Vec<u8>) -> FilterResult {
            Ok(Progress::Handshaking)
        }
    }
    struct Never(Reasons);
    impl Protocol for Never {
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            unreachable!("it never opens")
        }
        fn filter(&mut self) -> Option<Box<dyn Filter>> {
            Some(Box::new(Endless))
        }
        fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
            self.0.keep(reason);
        }
    }
    let mut sim = Sim::new(1);
    let reasons = Reasons::default();
    let kept = reasons.clone();
    let change = |limits: &mut Limits| (limits.handshake, limits.read_budget) = (ms(500), 100);
    let addr = serve_with(&mut sim, change, move || Never(kept.clone()));
    let clients: Vec<Socket> = (0..40).map(|_| sim.dial(addr)).collect();
    sim.run_for(ms(1)).unwrap();
    // So much that there is always more than a turn reads: no time passes while there is.
    clients.iter().for_each(|client| client.send(&vec![0; 1 << 20]));
    sim.stop_for(ms(1));
    turns(&mut sim, 20);
    sim.stop_for(ms(510));
    turns(&mut sim, 20);
    assert_eq!(reasons.sentences(), ["timed out (handshake) by the runtime"; 40]);
}

#[test]
fn c17_a_connect_that_has_succeeded_is_no_time_out() {
    let mut sim = narrow();
    let mut link = Link::default();
    link.latency = ms(100);
    sim.set_link(link);
    let addr = serve(&mut sim, || Echo);
    let trace = Trace::new();
    for number in 0..CLIENTS {
        let mut limits = Limits::default();
        limits.connect = ms(500);
        let client = trace.wrap(&format!("client {number}"), Sink);
        sim.control().connect_local_with(addr, limits.into(), client).unwrap();
    }
    sim.run_for(ms(1)).unwrap();
    sim.stop_for(ms(2_000));
    sim.run_for(ms(100)).unwrap();
    for number in 0..CLIENTS {
        assert_eq!(trace.of(&format!("client {number}")), ["opened"]);
    }
}

#[test]
fn a_connect_that_nobody_answers_is_cut_at_its_deadline_also_when_that_is_looked_at_late() {
    let mut sim = Sim::new(1);
    let mut link = Link::default();
    link.latency = ms(900);
    sim.set_link(link);
    let addr = serve(&mut sim, || Echo);
    let trace = Trace::new();
    for (who, stopped) in [("in time", 0), ("late", 700)] {
        let mut limits = Limits::default();
        limits.connect = ms(500);
        sim.control().connect_local_with(addr, limits.into(), trace.wrap(who, Sink)).unwrap();
        sim.run_for(ms(1)).unwrap();
        sim.stop_for(ms(stopped));
        sim.run_for(ms(520)).unwrap();
        assert_eq!(trace.of(who), ["closed timed out (connect) by the runtime"]);
    }
}

#[test]
fn c17_room_for_output_that_came_puts_a_stall_off() {
    struct Talker;
    impl Protocol for Talker {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.write(&stream(0, 400_000));
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
    }
    let mut sim = narrow();
    let mut link = Link::default();
    link.window = 1_000;
    sim.set_link(link);
    let addr = serve_with(&mut sim, |limits| limits.write_stall = ms(500), || Talker);
    let clients: Vec<Socket> = (0..CLIENTS).map(|_| sim.dial(addr)).collect();
    clients.iter().for_each(Socket::stop_reading);
    sim.run_for(ms(100)).unwrap();
    clients.iter().rev().for_each(|client| client.read(1_000));
    sim.stop_for(ms(2_000));
    sim.run_for(ms(100)).unwrap();
    assert_eq!(sim.metrics().closes.total(), 0);
    sim.stop_for(ms(600));
    sim.run_for(ms(100)).unwrap();
    assert_eq!(sim.metrics().closes.timed_out, CLIENTS as u64, "nobody has read meanwhile");
}

/// What happened to whom.
type Steps = Rc<RefCell<Vec<&'static str>>>;

/// Sets a timer as a deadline of its own: `data` sets it again.
struct Impatient {
    steps: Steps,
    pauses: bool,
}

const PATIENCE: Timer = Timer::new(1);

impl Protocol for Impatient {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(PATIENCE, ms(500));
        if self.pauses {
            cx.pause_reading();
        }
        Ok(())
    }
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        self.steps.borrow_mut().push("data");
        cx.set_timer(PATIENCE, ms(500));
        Ok(())
    }
    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
        self.steps.borrow_mut().push("timeout");
        cx.close();
        Ok(())
    }
}

/// What happens to [`Impatient`] connections whose bytes come while the process is stopped.
fn impatient(pauses: bool, bytes: &[u8]) -> Vec<&'static str> {
    let mut sim = narrow();
    let steps = Steps::default();
    let shared = Rc::clone(&steps);
    let addr = serve(&mut sim, move || Impatient { steps: Rc::clone(&shared), pauses });
    let clients = enter(&mut sim, addr);
    send_while_stopped(&mut sim, &clients, bytes);
    steps.take()
}

#[test]
fn c17_input_that_came_is_shown_before_a_timer_fires_that_it_puts_off() {
    assert_eq!(impatient(false, b"x"), ["data"; CLIENTS]);
    assert_eq!(impatient(false, b""), ["timeout"; CLIENTS]);
    // Who has paused reading is shown nothing, and the timer fires.
    assert_eq!(impatient(true, b"x"), ["timeout"; CLIENTS]);
}

#[test]
fn a_timer_of_a_connection_that_always_has_more_to_read_fires() {
    let mut sim = Sim::new(1);
    let steps = Steps::default();
    let shared = Rc::clone(&steps);
    let flooded = move || Flooded(Rc::clone(&shared));
    let addr = serve_with(&mut sim, |limits| limits.read_budget = 20_000, flooded);
    let clients: Vec<Socket> = (0..200).map(|_| sim.dial(addr)).collect();
    sim.run_for(ms(1)).unwrap();
    clients.iter().for_each(|client| client.send(&vec![0; 1 << 20]));
    sim.stop_for(ms(1));
    turns(&mut sim, 20);
    assert_eq!(*steps.borrow(), [""; 0]);
    sim.stop_for(ms(510));
    // 64 of them are read in a turn.
    turns(&mut sim, 4);
    assert_eq!(*steps.borrow(), ["timeout"; 200]);
    let left = clients.len() << 18;
    assert!(sim.metrics().bytes_in < left as u64, "there was always more to read");
}

/// Has much to read, and a timer.
struct Flooded(Steps);

impl Protocol for Flooded {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(PATIENCE, ms(500));
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
    fn timeout(&mut self, _: &mut Context<'_>, _: Timer) -> Outcome {
        self.0.borrow_mut().push("timeout");
        Ok(())
    }
}

#[test]
fn a_timer_that_fires_more_than_10_ms_late_is_counted_as_late() {
    struct Once;
    impl Protocol for Once {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.set_timer(PATIENCE, ms(20));
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
        fn timeout(&mut self, _: &mut Context<'_>, _: Timer) -> Outcome {
            Ok(())
        }
    }
    let late = |stopped| {
        let mut sim = Sim::new(1);
        let addr = serve(&mut sim, || Once);
        let _client = sim.dial(addr);
        sim.run_for(ms(1)).unwrap();
        sim.stop_for(ms(stopped));
        sim.run_for(ms(100)).unwrap();
        assert_eq!(sim.metrics().timers, 1);
        sim.metrics().late_timers
    };
    let counts: Vec<u64> = [0, 20, 29, 30, 31, 200].map(late).to_vec();
    assert_eq!(counts, [0, 0, 0, 1, 1, 1], "it is due a little after 20 ms");
    // A timer of the driver counts as well.
    let mut sim = Sim::new(1);
    sim.control().set_timer(ms(20), |_| {});
    sim.stop_for(ms(40));
    sim.run_for(ms(1)).unwrap();
    assert_eq!(sim.metrics().late_timers, 1);
}

/// Sets a timer, and cancels it as soon as it hears anything.
struct Cancelling;

impl Protocol for Cancelling {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(Timer::new(1), ms(20));
        Ok(())
    }
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.cancel_timer(Timer::new(1));
        input.consume_all();
        Ok(())
    }
}

#[test]
fn a_timer_that_does_not_fire_is_not_counted_as_a_late_one() {
    let mut sim = Sim::new(1);
    let addr = serve_with(&mut sim, |limits| limits.idle = Some(ms(200)), || Cancelling);
    let client = sim.dial(addr);
    sim.run_for(ms(1)).unwrap();
    client.send(b"cancel it");
    sim.stop_for(ms(40));
    sim.run_for(ms(160)).unwrap();
    // The idle deadline was armed for 200 ms, and has moved since.
    sim.stop_for(ms(30));
    sim.run_for(ms(1)).unwrap();
    assert_eq!((sim.metrics().timers, sim.metrics().late_timers), (0, 0));
    sim.run_for(ms(100)).unwrap();
    assert_eq!((sim.metrics().timers, sim.metrics().late_timers), (1, 0));
}

/// As a signal that ends a stop interrupts the wait of a real process: the first look after it
/// tells of nothing, and the one behind it of everything.
#[test]
fn a_stop_interrupts_the_next_wait_alone() {
    let mut sim = Sim::new(1);
    let addr = serve(&mut sim, || Echo);
    let client = sim.dial(addr);
    sim.run_for(ms(1)).unwrap();
    client.send(b"hello");
    let before = sim.metrics();
    sim.stop_for(ms(10));
    sim.turn(Some(ms(5))).unwrap();
    let after = sim.metrics();
    assert_eq!((after.events, after.bytes_in), (before.events, before.bytes_in));
    assert_eq!(sim.now(), ms(11), "it did not wait");
    sim.turn(Some(ms(5))).unwrap();
    assert_eq!(sim.metrics().bytes_in, before.bytes_in + 5);
}
