//! SIGINT and SIGTERM, sent to a process by another.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use lariat::blocking::Blocking;
use lariat::reactor::Reactor;
use lariat::{Context, Driver, DriverLimits, Input, Outcome, Protocol};

use crate::kit::*;

/// The process of a test, and what it prints.
struct Process {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn start(name: &str, part: &str) -> Process {
        let mut child = command(&[], name, part).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Process { child, lines }
    }

    /// Reads until a line holds `words`, and returns what follows them.
    #[track_caller]
    fn wait_for(&mut self, words: &str) -> String {
        let mut line = String::new();
        while self.lines.read_line(&mut line).unwrap() > 0 {
            if let Some((_, rest)) = line.split_once(words) {
                return rest.trim().to_owned();
            }
            line.clear();
        }
        panic!("it ended without a word of {words:?}: {:?}", self.child.wait());
    }

    fn send(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Where the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prints what happened.
fn say(words: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{words}").unwrap();
    out.flush().unwrap();
}

/// Does not end in `stopping`.
struct Stubborn;

impl Protocol for Stubborn {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
    fn stopping(&mut self, _: &mut Context<'_>) -> Outcome {
        say("asked to stop");
        Ok(())
    }
}

/// A driver that has ended, without a signal.
fn shut_down(name: &str) -> Box<dyn Driver> {
    let mut driver = watching(name);
    driver.control().set_timer(Duration::ZERO, |control| control.shutdown());
    driver.run().unwrap();
    driver
}

/// Runs a driver until a signal has drained it.
fn run_until_a_signal(name: &str) {
    drain_by_a_signal(watching(name));
}

/// A driver that waits for a signal from here on.
fn watching(name: &str) -> Box<dyn Driver> {
    let mut driver = driver(name, DriverLimits::default());
    driver.stop_on_signals().unwrap();
    driver
}

fn drain_by_a_signal(mut driver: Box<dyn Driver>) {
    driver.control().listen("127.0.0.1:0", |_| Some(Echo)).unwrap();
    // Said by a timer: by then it runs.
    driver.control().set_timer(Duration::ZERO, |_| say("it runs"));
    driver.run().unwrap();
    say("it has ended");
}

#[test]
fn c21_each_driver_of_a_process_has_its_own_first_signal() {
    let name = "signals::c21_each_driver_of_a_process_has_its_own_first_signal";
    if let Some(driver) = part() {
        (0..3).for_each(|_| run_until_a_signal(&driver));
        return;
    }
    for driver in DRIVERS {
        let mut process = Process::start(name, driver);
        for signal in ["-TERM", "-INT", "-TERM"] {
            process.wait_for("it runs");
            process.send(signal);
            process.wait_for("it has ended");
        }
        assert!(process.end().success(), "{driver}");
    }
}

/// One signal ends what the part `name` runs, in order and on each driver.
fn ends_at_the_first_signal(name: &str) {
    for driver in DRIVERS {
        let mut process = Process::start(name, driver);
        process.wait_for("it runs");
        process.send("-TERM");
        process.wait_for("it has ended");
        assert!(process.end().success(), "{driver}");
    }
}

#[test]
fn c21_a_driver_that_is_kept_does_not_take_the_first_signal_of_the_next() {
    let name = "signals::c21_a_driver_that_is_kept_does_not_take_the_first_signal_of_the_next";
    if let Some(name) = part() {
        let kept = shut_down(&name);
        run_until_a_signal(&name);
        return drop(kept);
    }
    ends_at_the_first_signal(name);
}

#[test]
fn c21_the_end_of_one_driver_leaves_another_its_first_signal() {
    let name = "signals::c21_the_end_of_one_driver_leaves_another_its_first_signal";
    if let Some(name) = part() {
        let driver = watching(&name);
        drop(shut_down(&name));
        return drain_by_a_signal(driver);
    }
    ends_at_the_first_signal(name);
}

#[test]
fn c21_a_second_signal_ends_the_process_while_it_drains() {
    let name = "signals::c21_a_second_signal_ends_the_process_while_it_drains";
    if let Some(name) = part() {
        run_until_a_signal_with_company(&name);
        return;
    }
    for driver in DRIVERS {
        for (signal, status) in [("-TERM", 143), ("-INT", 130)] {
            let mut process = Process::start(name, driver);
            // Of a second driver, so that a first one has left nothing behind.
            process.wait_for("it runs");
            process.send(signal);
            let addr = process.wait_for("listening on ");
            let _client = TcpStream::connect(addr).unwrap();
            process.wait_for("accepted");
            process.send(signal);
            process.wait_for("asked to stop");
            process.send(signal);
            assert_eq!(process.end().code(), Some(status), "{driver}");
        }
    }
}

/// One driver that ends, and one with a connection that does not.
fn run_until_a_signal_with_company(name: &str) {
    run_until_a_signal(name);
    let mut driver = watching(name);
    let factory = |_: &lariat::Incoming| {
        say("accepted");
        Some(Stubborn)
    };
    let listener = driver.control().listen("127.0.0.1:0", factory).unwrap();
    say(&format!("listening on {}", driver.addresses(listener)[0]));
    driver.run().unwrap();
}

#[test]
fn c21_without_a_driver_the_first_signal_ends_the_process() {
    let name = "signals::c21_without_a_driver_the_first_signal_ends_the_process";
    if let Some(name) = part() {
        // One that has ended and is kept, and one that is gone.
        let mut kept = shut_down(&name);
        drop(shut_down(&name));
        say("only waiting");
        // Until the signal; a driver that has ended cannot keep the process.
        thread::sleep(PATIENCE);
        kept.run().unwrap();
        return;
    }
    for driver in DRIVERS {
        let mut process = Process::start(name, driver);
        process.wait_for("only waiting");
        process.send("-TERM");
        assert_eq!(process.end().code(), Some(143), "{driver}");
    }
}

#[test]
fn c21_a_driver_that_could_not_run_leaves_the_first_signal_to_the_process() {
    let name = "signals::c21_a_driver_that_could_not_run_leaves_the_first_signal_to_the_process";
    if part().is_some() {
        let mut driver = Blocking::new();
        // No system has a stack of that size.
        driver.stack_size(1 << 60);
        driver.listen("127.0.0.1:0", |_| Some(Echo)).unwrap();
        driver.stop_on_signals().unwrap();
        driver.run().unwrap_err();
        assert!(driver.handle().is_ended());
        say("only waiting");
        thread::sleep(PATIENCE);
        return;
    }
    let mut process = Process::start(name, "blocking");
    process.wait_for("only waiting");
    process.send("-TERM");
    assert_eq!(process.end().code(), Some(143));
}

/// Threads of this process that wait for signals.
fn waiting() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name == "lariat signals\n").count()
}

#[test]
fn c21_a_driver_that_is_gone_leaves_no_thread_that_waits_for_signals() {
    let name = "signals::c21_a_driver_that_is_gone_leaves_no_thread_that_waits_for_signals";
    if part().is_none() {
        again(&[], name, "blocking");
        return;
    }
    for _ in 0..3 {
        let mut driver = driver("blocking", DriverLimits::default());
        driver.stop_on_signals().unwrap();
        until(|| waiting() == 1, "one thread waits");
        drop(driver);
        until(|| waiting() == 0, "none is left");
    }
}

#[test]
fn c21_a_reactor_that_was_turned_to_its_end_leaves_the_first_signal_to_the_process() {
    let name =
        "signals::c21_a_reactor_that_was_turned_to_its_end_leaves_the_first_signal_to_the_process";
    if part().is_some() {
        let mut reactor = Reactor::new().unwrap();
        reactor.stop_on_signals().unwrap();
        reactor.handle().shutdown();
        while !reactor.handle().is_ended() {
            reactor.turn(None).unwrap();
        }
        say("only waiting");
        thread::sleep(PATIENCE);
        return;
    }
    let mut process = Process::start(name, "reactor");
    process.wait_for("only waiting");
    process.send("-TERM");
    assert_eq!(process.end().code(), Some(143));
}

#[test]
fn c21_a_driver_that_comes_while_another_drains_does_not_put_the_second_signal_off() {
    let name =
        "signals::c21_a_driver_that_comes_while_another_drains_does_not_put_the_second_signal_off";
    if let Some(name) = part() {
        let draining = name.clone();
        let (tell, told) = channel();
        thread::spawn(move || {
            let mut driver = watching(&draining);
            let factory = move |_: &lariat::Incoming| {
                say("accepted");
                Some(Staying(tell.clone()))
            };
            let listener = driver.control().listen("127.0.0.1:0", factory).unwrap();
            say(&format!("listening on {}", driver.addresses(listener)[0]));
            driver.run().unwrap();
        });
        told.recv().unwrap();
        let _second = watching(&name);
        say("another has come");
        thread::sleep(PATIENCE);
        return;
    }
    for driver in DRIVERS {
        let mut process = Process::start(name, driver);
        let addr = process.wait_for("listening on ");
        let _client = TcpStream::connect(addr).unwrap();
        process.wait_for("accepted");
        process.send("-TERM");
        process.wait_for("another has come");
        process.send("-INT");
        assert_eq!(process.end().code(), Some(130), "{driver}");
    }
}

/// Tells when it is asked to stop, and does not.
struct Staying(Sender<()>);

impl Protocol for Staying {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
    fn stopping(&mut self, _: &mut Context<'_>) -> Outcome {
        self.0.send(())?;
        Ok(())
    }
}
