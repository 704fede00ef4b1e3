//! Each kind of fault by itself: it changes what happens, in its own way, and the same each time.

use std::fmt::Write;

use lariat::sim::{Faults, Sim, Trace};
use lariat::{Context, DatagramOptions, Input, Metrics, Outcome, Protocol, Timer};

use crate::kit::{Echo, ms, serve_with, stream};
use crate::node::{Log, Node};

/// What was to be seen of a run.
struct Seen {
    /// The callbacks with their times, what the test's own ends heard and when, and the events of
    /// each turn.
    trace: String,
    metrics: Metrics,
    /// Most events of one turn.
    most_events: u64,
    /// The datagrams that came back.
    echoed: Vec<u8>,
}

impl Seen {
    fn in_order(&self) -> bool {
        self.echoed.is_sorted()
    }
}

/// Sends and expects the same back, and fires a timer now and then.
struct Caller {
    left: u8,
}

impl Protocol for Caller {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(&stream(0, 5_000));
        cx.set_timer(Timer::new(1), ms(3));
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        match self.left {
            0 => cx.close(),
            _ => cx.set_timer(timer, ms(3)),
        }
        self.left = self.left.saturating_sub(1);
        cx.write(b"tick");
        Ok(())
    }
}

/// Sends numbered datagrams to whoever sends them back.
fn converse(sim: &mut Sim, log: &Log) {
    let echo = Node::new().datagram(|cx, datagram| Ok(cx.send_to(datagram, datagram.from())?));
    let echo = sim.bind("127.0.0.1:0", echo).unwrap();
    let mut options = DatagramOptions::default();
    options.connect = sim.bound_addr(echo);
    let (mut number, heard) = (0, log.clone());
    let caller = Node::new()
        .opened(|cx| {
            cx.set_timer(Timer::new(1), ms(2));
            Ok(())
        })
        .timeout(move |cx, timer| {
            for _ in 0..3 {
                number += 1;
                cx.send(&[number])?;
            }
            if number < 60 {
                cx.set_timer(timer, ms(2));
            }
            Ok(())
        })
        .datagram(move |_, datagram| {
            heard.add("heard", datagram[0].to_string());
            Ok(())
        });
    sim.bind_with("127.0.0.1:0", options, caller.under("caller", log)).unwrap();
}

fn run(seed: u64, faults: &Faults) -> Seen {
    let mut sim = Sim::new(seed);
    sim.set_faults(faults.clone());
    let trace = Trace::new();
    let served = trace.clone();
    let mut made = 0;
    let idle = |limits: &mut lariat::Limits| limits.idle = Some(ms(500));
    let addr = serve_with(&mut sim, idle, move || {
        made += 1;
        served.wrap(&format!("server {made}"), Echo)
    });
    for number in 0..6 {
        let caller = trace.wrap(&format!("caller {number}"), Caller { left: 5 });
        sim.connect(addr, caller);
    }
    let log = Log::default();
    converse(&mut sim, &log);
    let clients: Vec<_> = (0..6).map(|_| sim.dial(addr)).collect();
    let (mut heard, mut most_events) = (String::new(), 0);
    for step in 0..40 {
        for (number, client) in clients.iter().enumerate() {
            if step % 4 == 0 && step < 30 {
                client.send(&stream(step * 10, 900));
            }
            let bytes = client.take_received();
            if !bytes.is_empty() {
                writeln!(heard, "{step} {number}: {}", bytes.len()).unwrap();
            }
        }
        let until = sim.now() + ms(2);
        while sim.now() < until {
            let before = sim.metrics().events;
            sim.turn(Some(until - sim.now())).unwrap();
            let events = sim.metrics().events - before;
            most_events = most_events.max(events);
            write!(heard, "{events} ").unwrap();
        }
    }
    // Long enough for the deadlines of who has vanished.
    sim.run_for(ms(10_000)).unwrap();
    let mut metrics = sim.metrics();
    metrics.busy = ms(0);
    let echoed: Vec<u8> = log.of("heard").iter().map(|number| number.parse().unwrap()).collect();
    writeln!(heard, "{:?} {echoed:?}", log.of("caller")).unwrap();
    Seen { trace: trace.text() + &heard, metrics, most_events, echoed }
}

/// Sets one field.
type Set = fn(&mut Faults, u32);
/// Whether what was seen without and with a fault is what it is for.
type Shows = fn(&Seen, &Seen) -> bool;

/// Every field of [`Faults`], in its order, how often it is to happen, and what shows it.
const FIELDS: [(&str, u32, Set, Shows); 17] = [
    (
        "short_reads",
        500,
        |f, of| f.short_reads = of,
        |no, with| {
            with.metrics.callbacks > no.metrics.callbacks
                && with.metrics.bytes_in == no.metrics.bytes_in
        },
    ),
    (
        "short_writes",
        500,
        |f, of| f.short_writes = of,
        |no, with| {
            with.metrics.turns > no.metrics.turns && with.metrics.bytes_out == no.metrics.bytes_out
        },
    ),
    (
        "interrupts",
        300,
        |f, of| f.interrupts = of,
        |no, with| {
            // Those of reads and writes are hidden from the loop; those of polls are empty turns.
            with.metrics.turns > no.metrics.turns && with.metrics.bytes_in == no.metrics.bytes_in
        },
    ),
    (
        "spurious",
        500,
        |f, of| f.spurious = of,
        |no, with| {
            with.metrics.events > no.metrics.events && with.metrics.bytes_in == no.metrics.bytes_in
        },
    ),
    (
        "delays",
        300,
        |f, of| f.delays = of,
        |no, with| with.trace != no.trace && with.metrics.bytes_in == no.metrics.bytes_in,
    ),
    (
        "cuts",
        700,
        |f, of| f.cuts = of,
        |no, with| {
            with.metrics.events > no.metrics.events && with.metrics.bytes_in == no.metrics.bytes_in
        },
    ),
    (
        "resets",
        200,
        |f, of| f.resets = of,
        |no, with| no.metrics.closes.reset == 0 && with.metrics.closes.reset > 0,
    ),
    (
        "vanishes",
        500,
        |f, of| f.vanishes = of,
        |_, with| {
            // Servers never hear of it again, callers cannot close.
            with.metrics.closes.timed_out > 0 && with.metrics.closes.reset == 0
        },
    ),
    (
        "accept_errors",
        500,
        |f, of| f.accept_errors = of,
        |no, with| no.metrics.accept_errors == 0 && with.metrics.accept_errors > 0,
    ),
    (
        "connect_errors",
        700,
        |f, of| f.connect_errors = of,
        |no, with| no.metrics.closes.connect == 0 && with.metrics.closes.connect > 0,
    ),
    (
        "clock_stalls",
        700,
        |f, of| f.clock_stalls = of,
        |no, with| with.trace != no.trace && with.metrics.bytes_in == no.metrics.bytes_in,
    ),
    (
        "single_events",
        1000,
        |f, of| f.single_events = of,
        |no, with| {
            no.most_events > 1 && with.most_events == 1 && with.metrics.turns > no.metrics.turns
        },
    ),
    (
        "stops",
        100,
        |f, of| f.stops = of,
        |no, with| {
            with.metrics.late_timers > no.metrics.late_timers
                && with.metrics.bytes_in == no.metrics.bytes_in
        },
    ),
    (
        "losses",
        300,
        |f, of| f.losses = of,
        |no, with| with.metrics.datagrams_in < no.metrics.datagrams_in && with.in_order(),
    ),
    (
        "duplicates",
        300,
        |f, of| f.duplicates = of,
        |no, with| with.metrics.datagrams_in > no.metrics.datagrams_in && with.in_order(),
    ),
    (
        "reorders",
        300,
        |f, of| f.reorders = of,
        |no, with| {
            with.metrics.datagrams_in == no.metrics.datagrams_in
                && no.in_order()
                && !with.in_order()
        },
    ),
    (
        "refusals",
        300,
        |f, of| f.refusals = of,
        |no, with| {
            with.metrics.datagrams_in < no.metrics.datagrams_in
                && with.metrics.datagrams_refused > no.metrics.datagrams_refused
        },
    ),
];

#[test]
fn every_kind_of_fault_alone_changes_what_happens_in_its_own_way() {
    for (name, of, set, shows) in FIELDS {
        let mut shown = 0;
        for seed in 0..4 {
            let none = run(seed, &Faults::none());
            let mut faults = Faults::none();
            set(&mut faults, of);
            let with = run(seed, &faults);
            assert!(with.trace != none.trace, "{name} changes nothing with seed {seed}");
            shown += u32::from(shows(&none, &with));
        }
        assert!(shown >= 3, "{name}: {shown} of 4 seeds show what it is for");
    }
}

#[test]
fn the_same_seed_and_faults_are_the_same_run_twice() {
    for (name, of, set, _) in FIELDS {
        let mut faults = Faults::none();
        // What always happens leaves nothing to the seed.
        set(&mut faults, of.min(700));
        let (first, second) = (run(7, &faults), run(7, &faults));
        assert!(first.trace == second.trace, "{name}");
        let metrics = [&first.metrics, &second.metrics].map(|metrics| format!("{metrics:?}"));
        assert_eq!(metrics[0], metrics[1], "{name}");
        assert!(first.trace != run(8, &faults).trace, "{name}: the seed decides");
    }
}

#[test]
fn the_table_above_names_every_field_of_faults() {
    let shown = format!("{:?}", Faults::none());
    let fields = shown.trim_start_matches("Faults { ").trim_end_matches(" }").split(", ");
    let names: Vec<&str> = fields.filter_map(|field| field.split(':').next()).collect();
    assert_eq!(names, FIELDS.map(|(name, ..)| name));
}

#[test]
fn without_faults_the_seed_changes_nothing() {
    assert!(run(1, &Faults::none()).trace == run(2, &Faults::none()).trace);
}

#[test]
fn rough_and_harsh_are_what_their_names_say() {
    assert_eq!(Faults::none(), Faults::default());
    let (rough, harsh) = (Faults::rough(), Faults::harsh());
    let survived = [rough.resets, rough.vanishes, rough.accept_errors, rough.connect_errors];
    assert_eq!(survived, [0; 4], "a peer survives what is rough");
    let on = |faults: &Faults| format!("{faults:?}").matches(": 0").count();
    assert_eq!((on(&rough), on(&harsh)), (8, 0));
    let mut calmer = harsh;
    (calmer.resets, calmer.vanishes, calmer.accept_errors, calmer.connect_errors) = (0, 0, 0, 0);
    (calmer.losses, calmer.duplicates, calmer.reorders, calmer.refusals) = (0, 0, 0, 0);
    assert_eq!(calmer, rough);
}
