//! What is logged: each trouble once, with how often it came.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::proxy_protocol::{AcceptProxy, Networks};
use lariat::sim::{Call, Fault, Sim, Socket};
use lariat::{
    Context, Control, Datagram, DatagramContext, DatagramProtocol, DriverLimits, Input, JobError,
    Note, Outcome, Protocol, Timer,
};
use log::Level;

use crate::kit::*;

// ---- the log ------------------------------------------------------------------------------------

/// Everything that was logged in this process.
static LINES: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

/// Whether what is of level debug is kept too.
pub(crate) static DETAILS: AtomicBool = AtomicBool::new(false);

struct Keeps;

impl log::Log for Keeps {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        let most = if DETAILS.load(Ordering::Relaxed) { Level::Debug } else { Level::Info };
        if record.target().starts_with("lariat") && record.level() <= most {
            LINES.lock().unwrap().push((record.level(), record.args().to_string()));
        }
    }
    fn flush(&self) {}
}

fn keep_log() {
    static KEEPS: Keeps = Keeps;
    log::set_logger(&KEEPS).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
}

/// The lines at `level` since the last call, and nothing of others.
pub(crate) fn take(level: Level) -> Vec<String> {
    let lines = std::mem::take(&mut *LINES.lock().unwrap());
    lines.into_iter().filter(|(of, _)| *of == level).map(|(_, line)| line).collect()
}

#[track_caller]
pub(crate) fn expect(level: Level, words: &[&str]) {
    let lines = take(level);
    let fit = lines.len() == words.len() && lines.iter().zip(words).all(|(l, w)| l.contains(w));
    assert!(fit, "expected {words:?}: {lines:#?}");
}

/// Runs the test `name` in a process of its own for each part, and returns true in those.
pub(crate) fn is_child(name: &str, parts: &[&str]) -> Option<String> {
    if let Some(part) = part() {
        keep_log();
        return Some(part);
    }
    for part in parts {
        again(&[], name, part);
    }
    None
}

// ---- accepting ----------------------------------------------------------------------------------

fn run(sim: &mut Sim, ms: u64) {
    sim.run_for(Duration::from_millis(ms)).unwrap();
}

fn dial(sim: &mut Sim, count: u64) -> Vec<Socket> {
    let clients = (0..count).map(|_| sim.dial("127.0.0.1:1")).collect();
    run(sim, 1);
    clients
}

#[test]
fn c12_connections_that_cannot_be_watched_are_one_warning_and_a_number() {
    let name = "logs::c12_connections_that_cannot_be_watched_are_one_warning_and_a_number";
    if is_child(name, &["sim"]).is_none() {
        return;
    }
    let mut sim = Sim::new(1);
    sim.listen("127.0.0.1:1", |_| Some(Echo)).unwrap();
    for nth in 0..100 {
        sim.script(Call::Register, nth, Fault::Error(libc::ENOSPC));
    }
    let _refused = dial(&mut sim, 100);
    expect(Level::Warn, &["cannot watch the connection of "]);
    // One that can be watched too soon is not the end of it.
    let _first = dial(&mut sim, 1);
    expect(Level::Info, &[]);
    run(&mut sim, 2001);
    let _second = dial(&mut sim, 1);
    expect(Level::Info, &["connections are watched again; 100 were refused"]);
}

#[test]
fn refused_clients_of_one_address_are_one_warning_and_a_number() {
    let name = "logs::refused_clients_of_one_address_are_one_warning_and_a_number";
    if is_child(name, &["sim"]).is_none() {
        return;
    }
    let mut limits = DriverLimits::default();
    limits.connections_per_address = Some(2);
    let mut sim = Sim::with_limits(1, limits).unwrap();
    sim.listen("127.0.0.1:1", |_| Some(Echo)).unwrap();
    let _served = dial(&mut sim, 2);
    expect(Level::Warn, &[]);
    let reached =
        "a connection of 127.0.0.1 is refused: it has 2, which is connections_per_address";
    let _refused = dial(&mut sim, 100);
    expect(Level::Warn, &[reached]);
    run(&mut sim, 2001);
    let _again = dial(&mut sim, 1);
    expect(Level::Warn, &[&format!("{reached} (and 99 times before, not logged)")]);
    assert_eq!((sim.metrics().accepted, sim.metrics().refused), (2, 101));
}

#[test]
fn a1_a9_failing_accepts_are_one_warning_and_a_number() {
    let name = "logs::a1_a9_failing_accepts_are_one_warning_and_a_number";
    let warnings = [
        // Also with the reserve, each time.
        ("24", 100, "Too many open files (os error 24); connections are turned away or wait"),
        // The first 63 were of one connection each.
        ("1", 137, "Operation not permitted (os error 1) 64 times in a row; the listener pauses"),
        ("22", 200, "a listener cannot accept: Invalid argument (os error 22)"),
    ];
    let Some(errno) = is_child(name, &warnings.map(|(errno, ..)| errno)) else { return };
    let (_, count, warning) = *warnings.iter().find(|(of, ..)| **of == errno).unwrap();
    let mut sim = Sim::new(1);
    sim.listen("127.0.0.1:1", |_| Some(Echo)).unwrap();
    for nth in 0..200 {
        sim.script(Call::Accept, nth, Fault::Error(errno.parse().unwrap()));
    }
    let _first = dial(&mut sim, 1);
    run(&mut sim, 5000);
    expect(Level::Warn, &[warning]);
    // A success too soon is not the end of it.
    run(&mut sim, 300_000);
    assert_eq!(sim.metrics().accepted, 1);
    assert!(LINES.lock().unwrap().is_empty());
    let _second = dial(&mut sim, 1);
    expect(Level::Info, &[&format!("accepting again after {count} failed accepts")]);
}

// ---- callbacks that fail ------------------------------------------------------------------------

/// Begins with what is no header, and takes the end of its peer badly.
struct Headless;

impl Protocol for Headless {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(b"no header");
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        cx.driver().shutdown();
        Err("enough".into())
    }
    fn name(&self) -> &str {
        "Headless"
    }
}

/// The lines about callbacks that failed, each without the address.
fn failed() -> Vec<String> {
    let lines = take(Level::Debug).into_iter();
    let parts = lines.filter_map(|line| {
        let (what, error) = line.split_once(" failed: ")?;
        let (callback, place) = what.split_once(" for ")?;
        assert!(place.starts_with("127.0.0.1:"), "{place}");
        Some(format!("{callback}: {error}"))
    });
    parts.collect()
}

#[test]
fn a_callback_that_fails_is_logged_with_its_protocol_and_its_error() {
    let name = "logs::a_callback_that_fails_is_logged_with_its_protocol_and_its_error";
    let Some(name) = is_child(name, &["sim", "reactor", "blocking"]) else { return };
    DETAILS.store(true, Ordering::Relaxed);
    let mut driver = driver(&name, DriverLimits::default());
    let accept = AcceptProxy::from(Networks::new(["127.0.0.0/8"]).unwrap());
    let factory = accept.factory(|_| Some(Echo));
    let listener = driver.control().listen("127.0.0.1:0", factory).unwrap();
    let addr = driver.addresses(listener)[0];
    driver.control().connect(addr, Headless);
    driver.run().unwrap();
    let missing = "data of the receiver of a PROXY header: the PROXY header is missing";
    assert_eq!(failed(), [missing, "eof of Headless: enough"]);
    // The same, where one connection is all that the driver is for.
    if name == "sim" {
        return;
    }
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = server.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        std::io::Read::read_exact(&mut stream, &mut [0; 9]).unwrap();
    });
    let ended = match name.as_str() {
        "reactor" => lariat::reactor::connect(addr, Headless),
        _ => lariat::blocking::connect(addr, Headless),
    };
    let (_, reason) = ended.unwrap();
    serving.join().unwrap();
    assert_eq!(reason.kind(), lariat::CloseKind::Protocol);
    assert_eq!(failed(), ["eof of Headless: enough"]);
}

/// Closes as soon as it is open, or lets another take over, and panics when it is dropped.
struct Heavy {
    replaces: bool,
}

impl Drop for Heavy {
    fn drop(&mut self) {
        panic!("planned");
    }
}

impl Protocol for Heavy {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        if self.replaces {
            cx.replace(Heavy { replaces: false });
        } else {
            cx.driver().shutdown();
        }
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

impl DatagramProtocol for Heavy {
    fn datagram(&mut self, _: &mut DatagramContext<'_>, _: &Datagram<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn a_protocol_that_panics_while_it_is_dropped_is_an_error_in_the_log() {
    let name = "logs::a_protocol_that_panics_while_it_is_dropped_is_an_error_in_the_log";
    let Some(name) = is_child(name, &["sim", "reactor", "blocking"]) else { return };
    let mut driver = driver(&name, DriverLimits::default());
    let listener = driver.control().listen("127.0.0.1:0", |_| Some(Echo)).unwrap();
    let addr = driver.addresses(listener)[0];
    driver.control().bind("127.0.0.1:0", Heavy { replaces: false }).unwrap();
    driver.control().connect(addr, Heavy { replaces: true });
    driver.run().unwrap();
    // The one that was replaced, the one that took over, and that of the datagrams.
    expect(Level::Error, &["a protocol panicked while it was dropped"; 3]);
    assert_eq!(driver.metrics().panics, 3);
}

/// Closes as soon as it is open.
struct Brief;

impl DatagramProtocol for Brief {
    fn opened(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
        cx.close();
        Ok(())
    }
    fn datagram(&mut self, _: &mut DatagramContext<'_>, _: &Datagram<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn every_end_is_a_line_in_the_log_and_so_is_a_connect_that_fails() {
    let name = "logs::every_end_is_a_line_in_the_log_and_so_is_a_connect_that_fails";
    let Some(name) = is_child(name, &["sim", "reactor", "blocking"]) else { return };
    DETAILS.store(true, Ordering::Relaxed);
    let mut driver = driver(&name, DriverLimits::default());
    let id = driver.control().bind("127.0.0.1:0", Brief).unwrap();
    driver.run().unwrap();
    let ended = format!("{id}: finished by us: 0 bytes in, 0 bytes out, open for ");
    expect(Level::Debug, &[&ended]);
    let id = driver.control().connect("127.0.0.1:1", Echo);
    driver.run().unwrap();
    let error = std::io::Error::from_raw_os_error(libc::ECONNREFUSED);
    let ended = format!("{id} 127.0.0.1:1: connect refused by the peer ({error}): 0 bytes in, ");
    expect(Level::Debug, &[&format!("127.0.0.1:1: {error}"), &ended]);
}

// ---- late writes --------------------------------------------------------------------------------

/// Closes, and writes then.
struct Late;

impl Protocol for Late {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.close();
        cx.write(b"one");
        cx.write(b"two");
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn b13_late_writes_are_one_warning_and_a_number() {
    let name = "logs::b13_late_writes_are_one_warning_and_a_number";
    let Some(name) = is_child(name, &["sim", "reactor", "blocking"]) else { return };
    let mut driver = driver(&name, DriverLimits::default());
    let listener = driver.control().listen("127.0.0.1:0", |_| Some(Echo)).unwrap();
    let addr = driver.addresses(listener)[0];
    for _ in 0..20 {
        driver.control().connect(addr, Late);
    }
    driver.control().set_timer(Duration::from_secs(1), |control| control.shutdown());
    driver.run().unwrap();
    assert_eq!(driver.metrics().refused_bytes, 120);
    drop(driver);
    let lines = std::mem::take(&mut *LINES.lock().unwrap());
    let warnings: Vec<_> = lines.iter().filter(|(level, _)| *level == Level::Warn).collect();
    assert!(matches!(warnings[..], [(_, line)] if line.contains("3 bytes were written to ")));
    assert!(lines.contains(&(Level::Info, "late writes: 39 more times, not logged".to_owned())));
}

// ---- threads ------------------------------------------------------------------------------------

#[test]
fn c19_threads_that_do_not_start_are_one_error_and_a_number() {
    let name = "logs::c19_threads_that_do_not_start_are_one_error_and_a_number";
    if part().is_none() {
        // Each thread counts its own: the accepting one starts two before it may start no more.
        let Some(strace) = strace("clone3:error=EAGAIN:when=3+") else { return };
        let before: Vec<&str> = strace.iter().map(String::as_str).collect();
        again(&before, name, "blocking");
        return;
    }
    keep_log();
    let server = Server::start("blocking", DriverLimits::default(), || Echo);
    let mut inside = [server.client(), server.client()];
    assert!(inside.iter_mut().all(echoes));
    for _ in 0..20 {
        assert!(!echoes(&mut server.client()));
    }
    assert!(inside.iter_mut().all(echoes));
    expect(Level::Error, &["cannot start a thread: "]);
    drop(inside);
    let metrics = server.finish();
    assert_eq!((metrics.closes.connect, metrics.accepted), (20, 22));
    // The last thread that ends drops the driver's state, which says so.
    let number = "threads that do not start: 19 more times, not logged".to_owned();
    until(|| take(Level::Info).contains(&number), "the number is logged");
}

#[test]
fn c19_without_any_thread_a_job_is_refused_and_a_listener_closes() {
    let name = "logs::c19_without_any_thread_a_job_is_refused_and_a_listener_closes";
    let Some(name) = part() else {
        let Some(strace) = strace("clone3:error=EAGAIN") else { return };
        let before: Vec<&str> = strace.iter().map(String::as_str).collect();
        for part in DRIVERS {
            again(&before, name, part);
        }
        return;
    };
    keep_log();
    let mut driver = driver(&name, DriverLimits::default());
    let result = Arc::new(Mutex::new(None));
    let tells = Arc::clone(&result);
    driver.control().offload(|| 7, move |_, result| *tells.lock().unwrap() = Some(result));
    driver.run().unwrap();
    assert_eq!(*result.lock().unwrap(), Some(Err(JobError::Full)));
    expect(Level::Error, &["cannot start a thread (lariat job): "]);
    if name == "blocking" {
        let listen = |control: &mut Control<'_>| {
            control.listen("127.0.0.1:0", |_| Some(Echo)).unwrap();
        };
        driver.control().set_timer(Duration::ZERO, listen);
        // It would not end while there is a listener.
        driver.run().unwrap();
        expect(Level::Error, &["cannot accept: "]);
    }
}

// ---- slow turns ---------------------------------------------------------------------------------

/// Keeps everyone waiting, in several callbacks of one turn.
struct Slow {
    each: Duration,
    left: u32,
}

impl Protocol for Slow {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        self.timeout(cx, Timer::new(0))
    }
    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
        std::thread::sleep(self.each);
        self.left -= 1;
        if self.left > 0 {
            cx.set_timer(Timer::new(0), Duration::ZERO);
        } else {
            cx.write(b"done.");
        }
        Ok(())
    }
    fn name(&self) -> &str {
        "Slow"
    }
}

/// Runs `count` connections, which begin together, of some slow callbacks each: milliseconds that
/// one may take, and does.
fn slow_turns(limit: u64, each: u64, rounds: u32, count: usize) {
    let mut limits = DriverLimits::default();
    limits.slow_callback = Some(Duration::from_millis(limit));
    let server = Server::start("reactor", limits, move || Slow {
        each: Duration::from_millis(each),
        left: rounds,
    });
    let mut clients: Vec<TcpStream> = (0..count).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"go").unwrap());
    for client in &mut clients {
        std::io::Read::read_exact(client, &mut [0; 5]).unwrap();
    }
    drop(clients);
    let metrics = server.finish();
    assert!(metrics.slow_turns >= 2, "{metrics:?}");
}

#[test]
fn a_slow_callback_is_named_once() {
    if is_child("logs::a_slow_callback_is_named_once", &["reactor"]).is_none() {
        return;
    }
    slow_turns(20, 30, 20, 1);
    let lines = take(Level::Warn);
    let named = lines.iter().filter(|line| line.contains("timeout of Slow for ")).count();
    let turns = lines.iter().filter(|line| line.starts_with("a turn took ")).count();
    assert_eq!((named, turns, lines.len()), (1, 2, 3), "{lines:#?}");
}

/// Two slow callbacks that take turns.
struct TakesTurns {
    left: u32,
}

impl TakesTurns {
    fn be_slow(&mut self, cx: &mut Context<'_>, next: impl FnOnce(&mut Context<'_>)) -> Outcome {
        std::thread::sleep(Duration::from_millis(30));
        self.left -= 1;
        match self.left {
            0 => cx.write(b"done."),
            _ => next(cx),
        }
        Ok(())
    }
}

impl Protocol for TakesTurns {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        cx.set_timer(Timer::new(0), Duration::ZERO);
        Ok(())
    }
    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
        self.be_slow(cx, |cx| {
            let own = cx.id();
            cx.peer(own).notify(Note::new(()));
        })
    }
    fn notified(&mut self, cx: &mut Context<'_>, _: Note) -> Outcome {
        self.be_slow(cx, |cx| cx.set_timer(Timer::new(0), Duration::ZERO))
    }
    fn name(&self) -> &str {
        "TakesTurns"
    }
}

#[test]
fn each_of_two_slow_callbacks_that_take_turns_is_named_once() {
    let name = "logs::each_of_two_slow_callbacks_that_take_turns_is_named_once";
    if is_child(name, &["reactor"]).is_none() {
        return;
    }
    let mut limits = DriverLimits::default();
    limits.slow_callback = Some(Duration::from_millis(20));
    let server = Server::start("reactor", limits, || TakesTurns { left: 10 });
    let mut client = server.client();
    client.write_all(b"go").unwrap();
    std::io::Read::read_exact(&mut client, &mut [0; 5]).unwrap();
    drop(client);
    server.finish();
    let lines = take(Level::Warn);
    for callback in ["timeout", "notified"] {
        let start = format!("{callback} of TakesTurns for ");
        let named = lines.iter().filter(|line| line.starts_with(&start)).count();
        assert_eq!(named, 1, "{callback}: {lines:#?}");
    }
}

#[test]
fn a_slow_turn_without_a_slow_callback_blames_none() {
    if is_child("logs::a_slow_turn_without_a_slow_callback_blames_none", &["reactor"]).is_none() {
        return;
    }
    slow_turns(300, 20, 4, 20);
    let lines = take(Level::Warn);
    assert!(lines.iter().all(|line| line.starts_with("a turn took ")), "{lines:#?}");
    let explained = lines.iter().find(|line| line.contains(" ms in callbacks, ")).unwrap();
    let numbers = explained.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
    let numbers: Vec<u64> = numbers.map(|number| number.parse().unwrap()).collect();
    let [took, spent, moved] = numbers[..] else { panic!("{explained}") };
    assert!(spent >= took / 2 && spent <= took && moved < 1000, "{explained}");
}
