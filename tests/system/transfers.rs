//! Reads and writes that the system fails.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use lariat::{
    By, CloseKind, CloseReason, Context, Descriptors, DriverLimits, Input, Limits, Outcome,
    Protocol, Timer,
};

use crate::kit::*;

/// Answers every byte, and tells how it ended.
struct Tells(Sender<Told>);

#[derive(Debug)]
enum Told {
    Eof,
    Closed(CloseReason),
}

impl Protocol for Tells {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        Echo.data(cx, input)
    }
    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        self.0.send(Told::Eof)?;
        cx.close();
        Ok(())
    }
    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.0.send(Told::Closed(reason.clone())).unwrap();
    }
}

fn server(driver: &str) -> (Server, Receiver<Told>) {
    let (tell, told) = mpsc::channel();
    (Server::start(driver, DriverLimits::default(), move || Tells(tell.clone())), told)
}

#[track_caller]
fn expect_closed(told: &Receiver<Told>, kind: CloseKind, by: By) {
    match told.recv_timeout(PATIENCE).unwrap() {
        Told::Closed(reason) => assert_eq!((reason.kind(), reason.by()), (kind, by), "{reason}"),
        Told::Eof => panic!("the end of the stream, in order"),
    }
}

/// Runs the test `name` on `drivers`, with calls that fail.
#[track_caller]
fn injected(name: &str, drivers: &[&str], call: &str, errors: &[&str], when: &str) {
    for driver in drivers {
        for error in errors {
            let Some(strace) = strace(&format!("{call}:error={error}:when={when}")) else { return };
            let before: Vec<&str> = strace.iter().map(String::as_str).collect();
            again(&before, name, driver);
        }
    }
}

/// The test's own end, by other calls than those that fail.
fn uninjected(stream: TcpStream) -> File {
    File::from(OwnedFd::from(stream))
}

/// Sends until the server has failed, and returns what ended it at this side: None for its FIN.
fn talk(stream: TcpStream) -> Option<ErrorKind> {
    let mut stream = uninjected(stream);
    loop {
        let mut back = [0; 5];
        let echoed = stream.write_all(b"hello").and_then(|()| stream.read(&mut back));
        match echoed {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(error.kind()),
        }
    }
}

#[test]
fn b16_a_read_that_timed_out_in_the_system_is_no_end_in_order() {
    let Some(driver) = part() else {
        let name = "transfers::b16_a_read_that_timed_out_in_the_system_is_no_end_in_order";
        return injected(name, &DRIVERS, "recvfrom", &["ETIMEDOUT", "EHOSTUNREACH"], "2");
    };
    let (server, told) = server(&driver);
    let mut stream = uninjected(server.client());
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    stream.write_all(b"again").unwrap();
    expect_closed(&told, CloseKind::Reset, By::Peer);
    server.finish();
}

#[test]
fn b16_a_write_that_timed_out_in_the_system_is_the_peers_end_at_once() {
    let Some(driver) = part() else {
        let name = "transfers::b16_a_write_that_timed_out_in_the_system_is_the_peers_end_at_once";
        return injected(name, &DRIVERS, "sendto", &["ETIMEDOUT", "EHOSTUNREACH"], "2+");
    };
    let (server, told) = server(&driver);
    talk(server.client());
    expect_closed(&told, CloseKind::Reset, By::Peer);
    server.finish();
}

#[test]
fn b20_a_write_that_failed_at_home_resets_the_connection() {
    let Some(driver) = part() else {
        let name = "transfers::b20_a_write_that_failed_at_home_resets_the_connection";
        return injected(
            name,
            &["reactor"],
            "sendto",
            &["ENOBUFS", "ENOMEM", "EACCES", "EPERM"],
            "2+",
        );
    };
    let (server, told) = server(&driver);
    assert_eq!(talk(server.client()), Some(ErrorKind::ConnectionReset), "not a FIN");
    expect_closed(&told, CloseKind::SystemError, By::Runtime);
    let metrics = server.finish();
    assert_eq!((metrics.closes.system_error, metrics.closes.reset), (1, 0));
}

/// Fires its timer so often, and closes.
struct Ticks(u32, Sender<Told>);

impl Protocol for Ticks {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(Timer::new(1), Duration::from_millis(1));
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        unreachable!("nothing is written")
    }
    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        self.0 -= 1;
        match self.0 {
            0 => cx.close(),
            _ => cx.set_timer(timer, Duration::from_millis(1)),
        }
        Ok(())
    }
    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.1.send(Told::Closed(reason.clone())).unwrap();
    }
}

#[test]
fn b1_a_signal_that_interrupts_a_look_at_a_pipe_before_a_timer_ends_no_connection() {
    let Some(name) = part() else {
        let name = "transfers::b1_a_signal_that_interrupts_a_look_at_a_pipe_before_a_timer_ends_\
                    no_connection";
        // Every other call.
        return injected(name, &DRIVERS, "poll,ppoll", &["EINTR"], "1+2");
    };
    let (tell, told) = mpsc::channel();
    let mut driver = driver(&name, DriverLimits::default());
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let ((read, their_write), (their_read, write)) = (pipe(), pipe());
    let here = Descriptors::new(read, write);
    driver.control().adopt_descriptors(here, Limits::default(), Ticks(30, tell)).unwrap();
    let peer = std::thread::spawn(move || {
        let read = File::from(their_read).read_to_end(&mut Vec::new());
        drop(their_write);
        read
    });
    driver.run().unwrap();
    expect_closed(&told, CloseKind::Finished, By::Us);
    assert_eq!(peer.join().unwrap().unwrap(), 0);
}

/// Keeps its side open behind the end of the stream.
struct Stays(Sender<Told>);

impl Protocol for Stays {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        unreachable!("nothing is written")
    }
    fn eof(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(self.0.send(Told::Eof)?)
    }
    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.0.send(Told::Closed(reason.clone())).unwrap();
    }
}

#[test]
fn b1_a_signal_that_interrupts_the_look_whether_anybody_reads_a_pipe_hides_nothing() {
    let Some(name) = part() else {
        let name = "transfers::b1_a_signal_that_interrupts_the_look_whether_anybody_reads_a_pipe_\
                    hides_nothing";
        // Either half of the calls.
        injected(name, &DRIVERS, "poll,ppoll", &["EINTR"], "1+2");
        return injected(name, &DRIVERS, "poll,ppoll", &["EINTR"], "2+2");
    };
    let (tell, told) = mpsc::channel();
    let mut driver = driver(&name, DriverLimits::default());
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let ((read, their_write), (their_read, write)) = (pipe(), pipe());
    let here = Descriptors::new(read, write);
    driver.control().adopt_descriptors(here, Limits::default(), Stays(tell)).unwrap();
    let handle = driver.handle();
    let peer = std::thread::spawn(move || {
        drop(their_write);
        assert!(matches!(told.recv_timeout(PATIENCE), Ok(Told::Eof)));
        drop(their_read);
        let end = told.recv_timeout(Duration::from_secs(20));
        handle.shutdown();
        end
    });
    driver.run().unwrap();
    let Ok(Told::Closed(reason)) = peer.join().unwrap() else { panic!("it was not noticed") };
    assert_eq!((reason.kind(), reason.by()), (CloseKind::Reset, By::Peer), "{reason}");
}

/// As [`Tells`], and speaks all the time.
struct Chats(Tells);

impl Protocol for Chats {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.timeout(cx, Timer::new(1))
    }
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        cx.write(b".");
        cx.set_timer(timer, Duration::from_millis(20));
        Ok(())
    }
    fn eof(&mut self, cx: &mut Context<'_>, rest: &mut Input<'_>) -> Outcome {
        self.0.eof(cx, rest)
    }
    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        self.0.closed(cx, reason);
    }
}

#[test]
fn b16_a_peer_that_vanished_during_an_upload_is_no_end_in_order() {
    let Some(driver) = part() else {
        let name = "transfers::b16_a_peer_that_vanished_during_an_upload_is_no_end_in_order";
        let drops_all = "tc qdisc replace dev lo root tbf rate 1kbit burst 10 limit 10";
        let checks = format!("{drops_all} && tc qdisc del dev lo root");
        for driver in DRIVERS {
            in_a_network(&format!("sysctl -qw net.ipv4.tcp_retries2=3 && {checks}"), name, driver);
        }
        return;
    };
    let (tell, told) = mpsc::channel();
    let make = move || Chats(Tells(tell.clone()));
    let server = Server::start(&driver, DriverLimits::default(), make);
    let mut stream = server.client();
    stream.write_all(b"part of an upload").unwrap();
    stream.read_exact(&mut [0; 3]).unwrap();
    let cut = ["qdisc", "replace", "dev", "lo", "root", "tbf", "rate", "1kbit", "burst", "10"];
    assert!(Command::new("tc").args(cut).args(["limit", "10"]).status().unwrap().success());
    expect_closed(&told, CloseKind::Reset, By::Peer);
    server.finish();
}
