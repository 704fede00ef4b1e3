//! What is a user's and is thrown away: a panic in its drop is nobody else's.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use lariat::blocking::Blocking;
use lariat::reactor::Reactor;
use lariat::sim::Sim;
use lariat::{
    ConnId, Context, Driver, Filter, FilterResult, Handle, Limits, Note, Outcome, Progress, Timer,
};

use crate::kit::{Play, Stage, data, echo, everywhere};
use crate::node::Node;

const LATER: Timer = Timer::new(1);
const LAST: Timer = Timer::new(2);

// ---- bombs --------------------------------------------------------------------------------------

/// How many bombs there are, how many went off, and how many of those while another did.
#[derive(Debug, Default)]
struct Count {
    made: AtomicUsize,
    dropped: AtomicUsize,
    nested: AtomicUsize,
}

/// Panics when it is dropped.
struct Bomb {
    bytes: Vec<u8>,
    count: Arc<Count>,
}

impl Bomb {
    fn new(size: usize, count: &Arc<Count>) -> Bomb {
        count.made.fetch_add(1, Ordering::Relaxed);
        Bomb { bytes: vec![b'b'; size], count: Arc::clone(count) }
    }
}

impl AsRef<[u8]> for Bomb {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes pass as they are.
impl Filter for Bomb {
    fn start(&mut self, _: &mut Vec<u8>) -> FilterResult {
        Ok(Progress::Open)
    }
    fn receive(&mut self, wire: &mut [u8], clear: &mut Vec<u8>, _: &mut Vec<u8>) -> FilterResult {
        clear.extend_from_slice(wire);
        Ok(Progress::Open)
    }
    fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> FilterResult {
        wire.extend_from_slice(clear);
        Ok(Progress::Open)
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        self.count.dropped.fetch_add(1, Ordering::Relaxed);
        if thread::panicking() {
            self.count.nested.fetch_add(1, Ordering::Relaxed);
        } else {
            panic!("planned: a bomb");
        }
    }
}

/// Planned panics are not printed.
fn quiet() {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload().downcast_ref::<&str>() != Some(&"planned: a bomb") {
                print(panic);
            }
        }));
    });
}

// ---- the stage ----------------------------------------------------------------------------------

/// What bombs can be thrown at.
struct Range {
    count: Arc<Count>,
    handle: Handle,
    /// A connection that has ended.
    gone: ConnId,
    /// One that has finished sending.
    half: ConnId,
    /// One that takes 1,000 bytes and one note.
    small: ConnId,
    /// One that does not come about.
    connecting: ConnId,
}

impl Range {
    fn bytes(&self, size: usize) -> Bytes {
        Bytes::from_owner(Bomb::new(size, &self.count))
    }

    fn note(&self) -> Note {
        Note::new(Bomb::new(0, &self.count))
    }
}

type Way = fn(&mut Context<'_>, &Range) -> Outcome;

/// Throws bombs in one way, beside a witness that speaks afterwards.
fn thrown(stage: &mut Stage<'_>, way: Way) {
    // Bombs of these panic as they are dropped.
    stage.panics();
    quiet();
    let (at, end) = (Duration::from_millis(20), Duration::from_millis(80));
    let echoing = stage.serve("echo", echo);
    let witness = Play::new()
        .opened(move |cx| {
            cx.set_timer(LATER, Duration::from_millis(150));
            Ok(())
        })
        .timeout(|cx, _| {
            cx.write(b"alive");
            Ok(())
        })
        .data(|cx, input| {
            if input.len() == 5 {
                cx.close();
                input.consume_all();
            }
            Ok(())
        });
    stage.connect("witness", echoing, witness);

    let stays = |_: usize| {
        let play = Play::new().eof(|_, _| Ok(())).opened(|cx| {
            cx.set_timer(LAST, Duration::from_millis(100));
            Ok(())
        });
        ("other end".to_owned(), play)
    };
    let others = stage.serve_many(3, Limits::default(), stays);
    let until = move || {
        Play::new().eof(|_, _| Ok(())).opened(move |cx| {
            cx.set_timer(LAST, end);
            Ok(())
        })
    };
    let ends = move || {
        until().timeout(|cx, _| {
            cx.abort();
            Ok(())
        })
    };
    let mut small = Limits::default();
    (small.output_max, small.high_mark, small.low_mark, small.notes_max) = (1000, 500, 100, 1);
    let small = stage.connect_with("small", others, small, ends());
    let half = ends().opened(move |cx| {
        cx.shutdown_write();
        cx.set_timer(LAST, end);
        Ok(())
    });
    let half = stage.connect("half", others, half);
    let deserted = stage.deserted();
    let gone = stage.connect("gone", deserted, Play::new());

    let count = Arc::new(Count::default());
    let range = Range {
        count: Arc::clone(&count),
        handle: stage.driver.handle(),
        gone,
        half,
        small,
        connecting: gone,
    };
    let mut range = Some(range);
    let trace = stage.trace.clone();
    let thrower = until()
        .opened(move |cx| {
            cx.set_timer(LATER, at);
            cx.set_timer(LAST, end);
            Ok(())
        })
        .timeout(move |cx, timer| {
            if timer == LAST {
                cx.abort();
            } else if let Some(mut range) = range.take() {
                range.connecting = cx.driver().connect(deserted, trace.wrap("late", Play::new()));
                return way(cx, &range);
            }
            Ok(())
        });
    stage.connect("thrower", others, thrower);
    stage.run();
    stage.expect(
        "witness",
        &["opened", "timeout of timer 1", &data(b"alive"), "closed finished by us"],
    );
    let [made, dropped, nested] =
        [&count.made, &count.dropped, &count.nested].map(|count| count.load(Ordering::Relaxed));
    stage.check(made > 0 && dropped == made, &format!("{dropped} of {made} bombs went off"));
    stage.check(nested == 0, &format!("{nested} bombs went off in the panic of another"));
}

macro_rules! ways {
    ($($name:ident: $way:expr;)*) => {
        $(#[test]
        fn $name() {
            everywhere(|stage| thrown(stage, $way));
        })*
    };
}

ways! {
    c20_bytes_for_a_connection_that_has_ended: |cx, range| {
        for size in [0, 10, 10_000] {
            cx.peer(range.gone).write_bytes(range.bytes(size));
            cx.peer(range.gone).push(range.bytes(size));
            range.handle.write_bytes(range.gone, range.bytes(size)).unwrap();
        }
        Ok(())
    };
    c20_bytes_for_many: |cx, range| {
        cx.driver().push_all(&[], range.bytes(10_000));
        cx.driver().push_all(&[range.gone, range.half, range.small], range.bytes(10_000));
        cx.driver().push_all(&[range.small], range.bytes(10));
        Ok(())
    };
    c20_bytes_behind_a_fin: |cx, range| {
        for size in [0, 10, 10_000] {
            cx.peer(range.half).write_bytes(range.bytes(size));
            cx.peer(range.half).push(range.bytes(size));
            range.handle.write_bytes(range.half, range.bytes(size)).unwrap();
        }
        Ok(())
    };
    c20_bytes_beyond_what_a_peer_may_queue: |cx, range| {
        for _ in 0..3 {
            cx.peer(range.small).write_bytes(range.bytes(10_000));
            cx.peer(range.small).push(range.bytes(10_000));
        }
        Ok(())
    };
    c20_bytes_of_a_handle_beyond_what_a_peer_may_queue: |_, range| {
        for size in [0, 10, 10_000, 10_000] {
            range.handle.write_bytes(range.small, range.bytes(size)).unwrap();
        }
        Ok(())
    };
    c20_bytes_queued_for_a_connect_that_fails: |cx, range| {
        for size in [0, 10, 10_000, 10_000] {
            cx.peer(range.connecting).push(range.bytes(size));
        }
        Ok(())
    };
    c20_own_bytes_written_too_late: |cx, range| {
        cx.close();
        for size in [0, 10, 10_000] {
            cx.write_bytes(range.bytes(size));
            let own = cx.id();
            cx.peer(own).write_bytes(range.bytes(size));
            cx.peer(own).push(range.bytes(size));
        }
        Ok(())
    };
    c20_own_bytes_of_an_aborted_connection: |cx, range| {
        for size in [0, 10, 10_000, 10_000] {
            cx.write_bytes(range.bytes(size));
        }
        cx.abort();
        Ok(())
    };
    c20_own_bytes_that_are_sent: |cx, range| {
        for size in [0, 10, 10_000, 10_000] {
            cx.write_bytes(range.bytes(size));
        }
        Ok(())
    };
    c20_own_bytes_beyond_what_may_be_queued: |cx, range| {
        let mut limits = Limits::default();
        (limits.output_max, limits.high_mark, limits.low_mark) = (1000, 500, 100);
        cx.set_limits(limits).unwrap();
        for size in [10_000, 10, 10_000] {
            cx.write_bytes(range.bytes(size));
        }
        Ok(())
    };
    c20_notes_that_nobody_takes: |cx, range| {
        for id in [range.gone, range.half, range.small, range.connecting] {
            for _ in 0..3 {
                cx.peer(id).notify(range.note());
                range.handle.notify(id, range.note()).unwrap();
            }
        }
        Ok(())
    };
    c20_closures_that_do_not_run: |cx, range| {
        let (bomb, other) = (Bomb::new(0, &range.count), Bomb::new(0, &range.count));
        let mut driver = cx.driver();
        let timer = driver.set_timer(Duration::from_secs(3600), move |_| drop(bomb));
        assert!(driver.cancel_timer(timer));
        range.handle.call(move |_| drop(other)).unwrap();
        Ok(())
    };
    c20_protocols_that_never_take_over: |cx, range| {
        for _ in 0..3 {
            let bomb = Bomb::new(0, &range.count);
            cx.replace(Play::new().opened(move |_| {
                let _ = &bomb;
                Ok(())
            }));
        }
        cx.close();
        Ok(())
    };
    c20_protocols_whose_connect_is_cancelled: |cx, range| {
        for _ in 0..3 {
            let bomb = Bomb::new(0, &range.count);
            let deserted = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
            let protocol = Play::new().opened(move |_| {
                let _ = &bomb;
                Ok(())
            });
            let id = cx.driver().connect(deserted, protocol);
            cx.peer(id).abort();
        }
        Ok(())
    };
    c20_protocols_that_may_not_leave_their_thread: |cx, range| {
        for _ in 0..2 {
            let bomb = Bomb::new(0, &range.count);
            let deserted = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
            cx.driver().connect_local(deserted, Play::new().opened(move |_| {
                let _ = &bomb;
                Ok(())
            }));
        }
        Ok(())
    };
    c20_filters_of_protocols_that_follow_one_another: |cx, range| {
        let (first, second) = (Arc::clone(&range.count), Arc::clone(&range.count));
        cx.replace(Play::new().filter(move || Some(Box::new(Bomb::new(0, &first)))).opened(
            move |cx| {
                let second = Arc::clone(&second);
                cx.replace(Play::new().filter(move || Some(Box::new(Bomb::new(0, &second)))));
                Ok(())
            },
        ));
        Ok(())
    };
    c20_factories_of_listeners_that_stop: |cx, range| {
        for at_once in [true, false] {
            let bomb = Bomb::new(0, &range.count);
            let factory = move |_: &lariat::Incoming| {
                let _ = &bomb;
                None::<Play>
            };
            let mut driver = cx.driver();
            let listener = driver.listen("127.0.0.1:0", factory).unwrap();
            if at_once {
                driver.stop_listening(listener);
            } else {
                let later = Duration::from_millis(10);
                driver.set_timer(later, move |control| control.stop_listening(listener));
            }
        }
        Ok(())
    };
    c20_an_error_alone: |_, range| Err(Nasty(Arc::clone(&range.count)).into());
    c20_an_error_and_an_abort_in_one_callback: |cx, range| {
        cx.abort();
        Err(Nasty(Arc::clone(&range.count)).into())
    };
    c20_an_error_and_a_close_in_one_callback: |cx, range| {
        cx.close();
        Err(Nasty(Arc::clone(&range.count)).into())
    };
    c20_an_error_behind_too_much_output: |cx, range| {
        let own = cx.id();
        cx.peer(own).push(vec![0; 9 * 1024 * 1024]);
        Err(Nasty(Arc::clone(&range.count)).into())
    };
}

/// An error that panics when it is dropped.
#[derive(Debug)]
struct Nasty(Arc<Count>);

impl std::fmt::Display for Nasty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nasty")
    }
}

impl std::error::Error for Nasty {}

impl Drop for Nasty {
    fn drop(&mut self) {
        drop(Bomb::new(0, &self.0));
    }
}

// ---- drivers that are dropped -------------------------------------------------------------------

/// A protocol that panics when it is dropped.
fn heavy(count: &Arc<Count>) -> Play {
    let bomb = Bomb::new(0, count);
    Play::new().opened(move |_| {
        let _ = &bomb;
        Ok(())
    })
}

/// As [`heavy`], of datagrams.
fn heavy_node(count: &Arc<Count>) -> Node {
    let bomb = Bomb::new(0, count);
    Node::new().opened(move |_| {
        let _ = &bomb;
        Ok(())
    })
}

/// Asks for everything that a driver can be asked for before it runs, twice.
fn ask(driver: &mut dyn Driver, count: &Arc<Count>) {
    let bytes = |size| Bytes::from_owner(Bomb::new(size, count));
    for _ in 0..2 {
        let handle = driver.handle();
        let mut control = driver.control();
        let (timed, called) = (Bomb::new(0, count), Bomb::new(0, count));
        control.set_timer(Duration::from_secs(1), move |_| drop(timed));
        let factory = Bomb::new(0, count);
        control
            .listen("127.0.0.1:0", move |_| {
                let _ = &factory;
                None::<Play>
            })
            .unwrap();
        let id = control.connect("127.0.0.1:1", heavy(count));
        for size in [10, 10_000] {
            control.peer(id).push(bytes(size));
            control.peer(id).notify(Note::new(Bomb::new(0, count)));
            handle.write_bytes(id, bytes(size)).unwrap();
            handle.notify(id, Note::new(Bomb::new(0, count))).unwrap();
        }
        handle.call(move |_| drop(called)).unwrap();
        // A listener that is stopped again.
        let factory = Bomb::new(0, count);
        let listener = control.listen("127.0.0.1:0", move |_| {
            let _ = &factory;
            None::<Play>
        });
        control.stop_listening(listener.unwrap());
        control.bind("127.0.0.1:0", heavy_node(count)).unwrap();
    }
}

#[track_caller]
fn all_went_off(count: &Count, told: &str) {
    let [made, dropped, nested] =
        [&count.made, &count.dropped, &count.nested].map(|count| count.load(Ordering::Relaxed));
    assert_eq!((dropped, nested), (made, 0), "of {made} bombs on {told}");
}

#[test]
fn c20_a_driver_that_is_dropped_before_it_runs() {
    quiet();
    type Make = fn() -> Box<dyn Driver>;
    let drivers: [(&str, Make); 3] = [
        ("the simulator", || Box::new(Sim::new(1))),
        ("the reactor", || Box::new(Reactor::new().unwrap())),
        ("blocking threads", || Box::new(Blocking::new())),
    ];
    for (told, make) in drivers {
        let count = Arc::new(Count::default());
        let mut driver = make();
        let handle = driver.handle();
        ask(&mut *driver, &count);
        drop(driver);
        all_went_off(&count, told);
        let metrics = handle.metrics();
        let left = [metrics.open, metrics.lingering, metrics.bound, metrics.buffered];
        assert_eq!(left, [0; 4], "{told}: {metrics:?}");
    }
}

#[test]
fn c20_a_driver_that_is_dropped_with_open_connections() {
    quiet();
    let count = Arc::new(Count::default());
    let mut sim = Sim::new(1);
    let acceptor = sim.acceptor("127.0.0.1:2").unwrap();
    let counted = Arc::clone(&count);
    let filtered = move || Some(Box::new(Bomb::new(0, &counted)) as Box<dyn Filter>);
    let plain = sim.control().connect("127.0.0.1:2", heavy(&count));
    let filtered = sim.control().connect("127.0.0.1:2", heavy(&count).filter(filtered));
    let ids = [plain, filtered];
    for _ in 0..2 {
        sim.control().bind("127.0.0.1:0", heavy_node(&count)).unwrap();
    }
    sim.run_for(Duration::from_millis(1)).unwrap();
    let ends: Vec<_> = ids.iter().filter_map(|_| acceptor.accept()).collect();
    ends.iter().for_each(lariat::sim::Socket::stop_reading);
    for id in ids {
        for _ in 0..3 {
            let bytes = Bytes::from_owner(Bomb::new(1_000_000, &count));
            sim.control().peer(id).push(bytes);
        }
    }
    sim.run_for(Duration::from_millis(10)).unwrap();
    assert!(sim.metrics().buffered > 4_000_000);
    // Notes that wait for `opened`, and such that have not been looked at.
    let connecting = sim.control().connect("127.0.0.1:2", heavy(&count));
    for id in [connecting, connecting, connecting, plain, plain] {
        if id == plain {
            sim.turn(Some(Duration::ZERO)).unwrap();
        }
        sim.control().peer(id).notify(Note::new(Bomb::new(0, &count)));
        sim.control().peer(id).notify(Note::new(Bomb::new(0, &count)));
    }
    drop(sim);
    all_went_off(&count, "the simulator");
}
