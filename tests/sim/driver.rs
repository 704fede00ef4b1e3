//! The simulator as a driver: its time, its limits, its ends.

use std::net::SocketAddr;
use std::time::Duration;

use lariat::sim::{Link, Sim, Socket, Trace};
use lariat::{Context, Driver, DriverLimits, ErrorKind, Input, Outcome, Overload, Protocol, Timer};

use crate::kit::{Echo, Sink, ms, serve};

/// Writes after its close.
struct Late;
impl Protocol for Late {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.close();
        cx.write(input);
        Ok(())
    }
}

#[test]
fn a_late_write_fails_a_strict_simulator_and_is_counted_by_any_other() {
    for strict in [false, true] {
        let mut sim = Sim::new(3);
        sim.strict(strict);
        let addr = serve(&mut sim, || Late);
        let client = sim.dial(addr);
        client.send(b"word");
        let run = std::panic::AssertUnwindSafe(|| sim.run_for(ms(1)).unwrap());
        let panic = std::panic::catch_unwind(run).err();
        let message = panic.and_then(|panic| panic.downcast_ref::<String>().cloned());
        assert_eq!(message.is_some(), strict);
        assert!(message.is_none_or(|message| message.ends_with("(Sim::strict, seed 3)")));
        assert_eq!(sim.metrics().refused_bytes, 4);
    }
}

#[test]
fn a_turn_waits_no_longer_than_it_is_told_to() {
    struct Sleeper;
    impl Protocol for Sleeper {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.set_timer(Timer::new(1), ms(500));
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
        fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
            cx.close();
            Ok(())
        }
    }
    let mut sim = Sim::new(1);
    let addr = serve(&mut sim, || Sleeper);
    let _client = sim.dial(addr);
    sim.run_for(ms(1)).unwrap();
    let began = sim.now();
    sim.turn(Some(ms(20))).unwrap();
    assert_eq!(sim.now() - began, ms(20));
    sim.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(sim.now() - began, ms(20));
    let fired = sim.run_until(|sim| sim.metrics().timers > 0).unwrap();
    let took = sim.now();
    assert!(fired && (ms(500)..=ms(502)).contains(&took), "{took:?}");
    // Nothing more comes of it: the condition is never met.
    assert!(!sim.run_until(|sim| sim.metrics().timers > 1_000).unwrap());
}

#[test]
fn a_simulator_without_anything_to_do_is_over_unless_it_is_to_keep_running() {
    let mut sim = Sim::new(5);
    assert_eq!((sim.seed(), sim.now(), sim.is_over(), sim.is_quiet()), (5, ms(0), true, true));
    sim.keep_running(true);
    assert!(!sim.is_over() && sim.is_quiet());
    sim.run().unwrap();
    assert!(!sim.handle().is_ended());
    sim.handle().shutdown();
    sim.run().unwrap();
    assert!(sim.is_over() && sim.handle().is_ended());
    assert!(format!("{sim:?}").starts_with("Sim { seed: 5, now: "));
}

#[test]
fn limits_that_contradict_one_another_make_no_simulator() {
    let mut limits = DriverLimits::default();
    limits.connections_max = 0;
    let refused = Sim::with_limits(1, limits).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidLimits);
}

#[test]
fn a_simulator_has_no_signals() {
    let driver: &mut dyn Driver = &mut Sim::new(1);
    let refused = driver.stop_on_signals().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert_eq!(refused.to_string(), "cannot take over signals: the simulator has none");
}

#[test]
fn a_trace_has_a_line_for_each_callback_with_who_and_when() {
    let mut sim = Sim::new(1);
    let trace = Trace::new();
    let wrap = trace.clone();
    let addr = serve(&mut sim, move || wrap.wrap("echo", Echo));
    let client = sim.dial(addr);
    client.send(b"hel");
    sim.run_for(ms(1)).unwrap();
    client.send(b"lo");
    client.finish();
    sim.run().unwrap();
    let expected = "0.000050 echo opened\n\
                    0.000100 echo data 5 bytes a430d84680aabd0b\n\
                    0.001050 echo eof\n\
                    0.001050 echo closed finished by the peer\n";
    assert_eq!(trace.text(), expected);
    assert_eq!(format!("{trace:?}"), expected);
    assert!(trace.of("nobody").is_empty());
}

#[test]
fn limits_are_given_to_a_simulator_until_something_has_begun() {
    let limits = |connections: usize| {
        let mut limits = DriverLimits::default();
        (limits.connections_max, limits.overload) = (connections, Overload::Shed);
        limits
    };
    let mut sim = Sim::new(1);
    sim.strict(true);
    let (choices, before) = (sim.choices(), sim.handle());
    let drawn = choices.below(1 << 40);
    let now = sim.control().now();
    assert_eq!(sim.set_limits(limits(0)).unwrap_err().kind(), ErrorKind::InvalidLimits);
    sim.set_limits(limits(5)).unwrap();
    sim.set_limits(limits(1)).unwrap();
    assert!(before.is_ended() && !sim.handle().is_ended());
    assert_eq!(sim.control().now(), now, "no time has passed");
    assert_ne!(sim.choices().below(1 << 40), drawn, "what was drawn stays drawn");
    let addr = serve(&mut sim, || Echo);
    let late = sim.set_limits(limits(9)).unwrap_err();
    assert_eq!(late.to_string(), "these limits cannot work: the simulator has begun");
    let _clients: Vec<Socket> = (0..3).map(|_| sim.dial(addr)).collect();
    sim.run_for(ms(1)).unwrap();
    assert_eq!((sim.metrics().open, sim.metrics().refused), (1, 2));

    let mut sim = Sim::new(1);
    sim.turn(Some(Duration::ZERO)).unwrap();
    assert!(sim.set_limits(limits(5)).is_err());
    let mut sim = Sim::new(1);
    sim.connect("127.0.0.1:1", Sink);
    assert!(sim.set_limits(limits(5)).is_err());
}

#[test]
fn what_was_set_before_the_limits_are_given_stays_set() {
    struct Says;
    impl Protocol for Says {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.write(b"word");
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
    }
    let mut sim = Sim::new(3);
    let date = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    sim.strict(true);
    sim.keep_running(true);
    sim.set_wall_clock(date);
    let addr = SocketAddr::from(([127, 0, 0, 1], 7000));
    sim.set_resolver(move |_: &str, _: u16| Ok(vec![addr]));
    sim.set_limits(DriverLimits::default()).unwrap();
    assert!(!sim.is_over(), "it is kept running");
    assert_eq!(sim.control().wall_clock(), date);
    sim.listen(addr, |_| Some(Late)).unwrap();
    sim.connect("server.test:1", Says);
    let run = std::panic::AssertUnwindSafe(|| sim.run_for(ms(5)).unwrap());
    let panic = std::panic::catch_unwind(run).unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().ends_with("(Sim::strict, seed 3)"));
}

#[test]
fn the_date_is_the_same_in_each_run_until_it_is_set_and_goes_on_with_virtual_time() {
    let mut sim = Sim::new(1);
    let january = std::time::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    assert_eq!(sim.control().wall_clock(), january);
    let date = january + Duration::from_secs(86_400);
    sim.set_wall_clock(date);
    sim.run_for(Duration::from_secs(60)).unwrap();
    assert_eq!(sim.control().wall_clock(), date + Duration::from_secs(60));
}

#[test]
fn an_empty_write_after_a_close_is_no_late_write() {
    struct Empty;
    impl Protocol for Empty {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            use std::io::Write;
            cx.close();
            cx.write(b"");
            cx.write_bytes(&b""[..]);
            let (own, none) = (cx.id(), b"");
            cx.peer(own).write(none);
            cx.peer(own).push(&none[..]);
            assert!(cx.writer().write(none).is_err());
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
    }
    let mut sim = Sim::new(1);
    sim.strict(true);
    let addr = serve(&mut sim, || Empty);
    let client = sim.dial(addr);
    sim.run_for(ms(1)).unwrap();
    assert!(client.is_finished());
    assert_eq!((sim.metrics().refused_bytes, sim.metrics().panics), (0, 0));
}

#[test]
fn a_link_is_that_of_the_time_when_the_connection_was_dialled_both_ways() {
    let mut sim = Sim::new(1);
    let addr = serve(&mut sim, || Echo);
    let quick = sim.dial(addr);
    let mut link = Link::default();
    link.latency = ms(100);
    sim.set_link(link);
    let slow = sim.dial(addr);
    sim.set_link(Link::default());
    for (client, both_ways) in [(quick, ms(0)), (slow, ms(200))] {
        sim.run_for(ms(500)).unwrap();
        client.send(b"x");
        let (began, answered) = (sim.now(), |_: &mut Sim| !client.take_received().is_empty());
        assert!(sim.run_until(answered).unwrap());
        let took = sim.now() - began;
        assert!(took >= both_ways && took < both_ways + ms(2), "{took:?}, not {both_ways:?}");
    }
}

#[cfg(feature = "fd")]
#[test]
fn a_simulator_that_stops_makes_no_pipe() {
    let mut sim = Sim::new(1);
    sim.control().shutdown();
    sim.run_for(ms(1)).unwrap();
    let error = sim.pipe(lariat::Limits::default(), Sink).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped);
}

#[test]
fn between_turns_nobody_is_kept_waiting_by_the_lookup_of_a_name() {
    let mut sim = Sim::new(1);
    for _ in 0..2 {
        let listener = sim.control().listen("localhost:0", |_| None::<Sink>).unwrap();
        sim.turn(Some(ms(1))).unwrap();
        assert!(!sim.addresses(listener).is_empty());
    }
}
