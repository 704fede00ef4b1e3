//! Every limit at zero or the least, tiny, and at the most that is valid: what works goes on
//! working, and whatever the limit cuts off, every connection ends and nothing panics.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use lariat::blocking::Blocking;
use lariat::reactor::Reactor;
use lariat::sim::Sim;
use lariat::{DriverLimits, ErrorKind, Limits, Note, Op, Overload, Timer};

use crate::kit::{Play, Stage, data, echo, everywhere, everywhere_with, on_sockets};

const TINY: Duration = Duration::from_nanos(1);
const COUNT: usize = 20_000;

/// What a limit does to an exchange of [`COUNT`] bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It comes to its end as if there were none.
    Works,
    /// It may be cut off.
    MayEnd,
}

use Then::{MayEnd, Works};

/// One exchange, with a note, a timer and a closure, and then shutdown.
fn exchange(stage: &mut Stage<'_>, limits: &Limits, then: Then, what: &str) {
    let addr = stage.serve_with("server", limits.clone(), echo);
    let client = Play::new()
        .opened(|cx| {
            let own = cx.id();
            cx.write(&[7; COUNT]);
            cx.peer(own).notify(Note::new(()));
            cx.set_timer(Timer::new(1), Duration::ZERO);
            Ok(())
        })
        .timeout(|_, _| Ok(()))
        .data(|cx, input| {
            if input.len() == COUNT {
                input.consume_all();
                cx.close();
            } else {
                input.need(COUNT);
            }
            Ok(())
        })
        .closed(|cx, _| cx.driver().shutdown());
    let mut own = limits.clone();
    own.input_max = own.input_max.max(COUNT);
    stage.connect_with("client", addr, own, client);
    stage.driver.handle().call(|control| assert_eq!(control.metrics().panics, 0)).unwrap();
    stage.run();
    let lines = stage.trace.of("client");
    let whole = lines.contains(&data(&[7; COUNT]));
    let orderly = lines.last().is_some_and(|line| line == "closed finished by us");
    stage.check(then == MayEnd || (whole && orderly), what);
    stage.check(stage.driver.metrics().panics == 0, what);
}

#[test]
fn every_limit_of_a_connection_may_be_as_small_and_as_large_as_is_valid() {
    type Case = (&'static str, fn(&mut Limits), Then);
    let cases: [Case; 36] = [
        ("read_budget 1", |l| l.read_budget = 1, Works),
        ("read_budget MAX", |l| l.read_budget = usize::MAX, Works),
        ("write_budget 1", |l| l.write_budget = 1, Works),
        ("write_budget MAX", |l| l.write_budget = usize::MAX, Works),
        ("input_max 1", |l| l.input_max = 1, Works),
        ("input_max of a GiB", |l| l.input_max = 1 << 30, Works),
        ("marks 0", |l| (l.low_mark, l.high_mark) = (0, 0), Works),
        ("marks 1", |l| (l.low_mark, l.high_mark) = (1, 1), Works),
        (
            "marks and output_max MAX",
            |l| (l.low_mark, l.high_mark, l.output_max) = (usize::MAX, usize::MAX, usize::MAX),
            Works,
        ),
        ("output_max 1", |l| (l.low_mark, l.high_mark, l.output_max) = (0, 0, 1), MayEnd),
        (
            "output_max as large as what is written",
            |l| (l.low_mark, l.high_mark, l.output_max) = (0, 0, COUNT),
            Works,
        ),
        ("notes_max 0", |l| l.notes_max = 0, Works),
        ("notes_max 1", |l| l.notes_max = 1, Works),
        ("notes_max MAX", |l| l.notes_max = usize::MAX, Works),
        ("connect 0", |l| l.connect = Duration::ZERO, MayEnd),
        ("connect tiny", |l| l.connect = TINY, MayEnd),
        ("connect MAX", |l| l.connect = Duration::MAX, Works),
        ("handshake 0", |l| l.handshake = Duration::ZERO, Works),
        ("handshake tiny", |l| l.handshake = TINY, Works),
        ("handshake MAX", |l| l.handshake = Duration::MAX, Works),
        ("idle tiny", |l| l.idle = Some(TINY), MayEnd),
        ("idle MAX", |l| l.idle = Some(Duration::MAX), Works),
        ("idle None", |l| l.idle = None, Works),
        ("write_stall 0", |l| l.write_stall = Duration::ZERO, MayEnd),
        ("write_stall tiny", |l| l.write_stall = TINY, MayEnd),
        ("write_stall MAX", |l| l.write_stall = Duration::MAX, Works),
        ("close_deadline 0", |l| l.close_deadline = Duration::ZERO, MayEnd),
        ("close_deadline tiny", |l| l.close_deadline = TINY, MayEnd),
        ("close_deadline MAX", |l| l.close_deadline = Duration::MAX, Works),
        ("linger_idle 0", |l| l.linger_idle = Duration::ZERO, Works),
        ("linger_idle tiny", |l| l.linger_idle = TINY, Works),
        ("linger_idle MAX", |l| l.linger_idle = Duration::MAX, Works),
        ("linger_total 0", |l| l.linger_total = Duration::ZERO, Works),
        ("linger_total tiny", |l| l.linger_total = TINY, Works),
        ("linger_total MAX", |l| l.linger_total = Duration::MAX, Works),
        ("the defaults", |_| {}, Works),
    ];
    for (what, change, then) in cases {
        let mut limits = Limits::default();
        change(&mut limits);
        everywhere(|stage| exchange(stage, &limits, then, what));
    }
}

#[test]
fn every_limit_of_a_driver_may_be_as_small_and_as_large_as_is_valid() {
    type Case = (&'static str, fn(&mut DriverLimits), Then);
    let cases: [Case; 26] = [
        // There is room for the client alone, and the server is turned away.
        ("connections_max 1", |l| (l.connections_max, l.overload) = (1, Overload::Shed), MayEnd),
        ("connections_max 2", |l| l.connections_max = 2, Works),
        ("connections_max 2^30", |l| l.connections_max = 1 << 30, Works),
        ("connections_per_address 1", |l| l.connections_per_address = Some(1), Works),
        ("connections_per_address MAX", |l| l.connections_per_address = Some(usize::MAX), Works),
        ("connections_per_address None", |l| l.connections_per_address = None, Works),
        ("accepts_max 1", |l| l.accepts_max = 1, Works),
        ("accepts_max MAX", |l| l.accepts_max = usize::MAX, Works),
        ("posts_max 1", |l| l.posts_max = 1, Works),
        ("posts_max MAX", |l| l.posts_max = usize::MAX, Works),
        ("timers_max 1", |l| l.timers_max = 1, Works),
        ("timers_max MAX", |l| l.timers_max = usize::MAX, Works),
        ("lingering_max 1", |l| l.lingering_max = 1, Works),
        ("lingering_max 2^30", |l| l.lingering_max = 1 << 30, Works),
        ("events_max 1", |l| l.events_max = 1, Works),
        ("events_max 2^20", |l| l.events_max = 1 << 20, Works),
        ("drain 0", |l| l.drain = Duration::ZERO, Works),
        ("drain tiny", |l| l.drain = TINY, Works),
        ("drain MAX", |l| l.drain = Duration::MAX, Works),
        ("slow_callback tiny", |l| l.slow_callback = Some(TINY), Works),
        ("slow_callback MAX", |l| l.slow_callback = Some(Duration::MAX), Works),
        ("slow_callback None", |l| l.slow_callback = None, Works),
        ("spin tiny", |l| l.spin = Some(TINY), Works),
        ("spin MAX", |l| l.spin = Some(Duration::MAX), Works),
        ("spin None", |l| l.spin = None, Works),
        ("the defaults", |_| {}, Works),
    ];
    for (what, change, then) in cases {
        let mut limits = DriverLimits::default();
        change(&mut limits);
        everywhere_with(limits, |stage| exchange(stage, &Limits::default(), then, what));
    }
}

#[test]
fn no_driver_is_made_with_limits_that_cannot_work() {
    let mut limits = DriverLimits::default();
    limits.connections_max = 0;
    let errors = [
        Sim::with_limits(1, limits.clone()).map(drop),
        Reactor::with_limits(limits.clone()).map(drop),
        Blocking::with_limits(limits).map(drop),
    ];
    for error in errors.map(|made| made.unwrap_err()) {
        assert_eq!((error.kind(), error.op()), (ErrorKind::InvalidLimits, Op::Limits));
    }
}

#[test]
fn a_silence_counts_from_the_end_of_the_callback_that_broke_it() {
    const IDLE: Duration = Duration::from_millis(600);
    const ROUNDS: usize = 2;
    on_sockets(DriverLimits::default(), |stage| {
        let mut limits = Limits::default();
        limits.idle = Some(IDLE);
        let addr = stage.serve_with("server", limits, || {
            Play::new().data(|cx, input| {
                std::thread::sleep(IDLE + IDLE / 3);
                cx.write(input);
                input.consume_all();
                Ok(())
            })
        });
        // It answers within the time, but not at once.
        let client = std::thread::spawn(move || {
            let mut client = TcpStream::connect(addr).unwrap();
            for _ in 0..ROUNDS {
                client.write_all(b"!").unwrap();
                client.read_exact(&mut [0]).unwrap();
                std::thread::sleep(IDLE / 6);
            }
        });
        stage.run();
        client.join().unwrap();
        let lines = stage.trace.of("server");
        let end = lines.last().map(String::as_str);
        stage.check(end == Some("closed finished by the peer"), &format!("{lines:?}"));
    });
}
