//! The driver over sockets of the system: their options, and how many threads it starts.

mod looks;
pub(super) mod rig;
mod workers;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::worker::{Role, Worker};
use super::*;
use crate::connection::Connection;
use crate::limits::Overload;
use crate::protocol::{Context, Input, Outcome};
use crate::reason::{By, CloseKind, ConnectFailure};
use crate::socket::read_back;
use crate::timer::Timer;

#[test]
fn every_option_of_a_socket_is_read_back() {
    read_back::every_option_is_read_back(Blocking::new);
}

#[test]
fn what_is_adopted_is_given_its_options() {
    read_back::what_is_adopted_is_given_its_options(Blocking::new);
}

#[cfg(target_os = "linux")]
#[test]
fn an_option_that_the_system_rejects_is_named() {
    read_back::what_the_system_rejects_is_named(Blocking::new);
}

#[cfg(target_os = "linux")]
#[test]
fn a_socket_is_bound_to_its_device() {
    read_back::a_socket_is_bound_to_its_device(Blocking::new);
}

#[cfg(target_os = "linux")]
#[test]
fn a_connect_leaves_from_the_address_it_is_bound_to() {
    read_back::a_connect_leaves_from_the_address_it_is_bound_to(Blocking::new);
}

// ---- the bound of threads -----------------------------------------------------------------------

/// More than any test takes on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough to see that nothing happens, on a machine that has the time.
const MOMENT: Duration = Duration::from_millis(100);

struct Echo;

impl Protocol for Echo {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume_all();
        Ok(())
    }
}

/// A driver on a system that bears so many threads.
fn driver(threads: usize, overload: Overload) -> Blocking {
    let limits = DriverLimits { overload, ..DriverLimits::blocking() };
    let driver = Blocking::with_limits(limits).unwrap();
    lock(&driver.hub.state).pool = pool::Pool::new(threads);
    driver
}

/// Runs an echo where one thread accepts and two are left for connections.
fn echo_with_two_threads(overload: Overload) -> (SocketAddr, Handle, JoinHandle<Metrics>) {
    let mut driver = driver(3, overload);
    let listener = driver.listen("127.0.0.1:0", |_| Some(Echo)).unwrap();
    let addr = driver.addresses(listener)[0].socket_addr().unwrap();
    let handle = driver.handle();
    let running = thread::spawn(move || {
        driver.run().unwrap();
        driver.metrics()
    });
    (addr, handle, running)
}

fn client(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(b"x").unwrap();
    stream
}

/// Whether the echo comes.
fn is_served(mut stream: &TcpStream, patience: Duration) -> bool {
    stream.set_read_timeout(Some(patience)).unwrap();
    match stream.read(&mut [0]) {
        Ok(count) => count == 1,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

#[test]
fn a_newcomer_waits_for_a_thread_and_a_parked_one_takes_it() {
    let (addr, handle, running) = echo_with_two_threads(Overload::Pause);
    // In the second round the threads of the first are parked.
    for _ in 0..2 {
        let (first, second) = (client(addr), client(addr));
        assert!(is_served(&first, PATIENCE) && is_served(&second, PATIENCE));
        let third = client(addr);
        assert!(!is_served(&third, MOMENT), "three connections have a thread");
        drop(first);
        assert!(is_served(&third, PATIENCE), "a thread was free");
    }
    handle.shutdown();
    let metrics = running.join().unwrap();
    assert_eq!((metrics.accepted, metrics.refused), (6, 0));
}

#[test]
fn a_newcomer_without_a_thread_is_shed_where_the_driver_sheds() {
    let (addr, handle, running) = echo_with_two_threads(Overload::Shed);
    let (first, second) = (client(addr), client(addr));
    assert!(is_served(&first, PATIENCE) && is_served(&second, PATIENCE));
    let mut third = TcpStream::connect(addr).unwrap();
    third.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(third.read(&mut [0]).unwrap(), 0, "it is turned away");
    handle.shutdown();
    let metrics = running.join().unwrap();
    assert_eq!((metrics.accepted, metrics.refused), (2, 1));
}

/// Sets a timer, which needs a companion, and tells what becomes of that.
struct Timed(mpsc::Sender<(By, CloseKind)>);

impl Protocol for Timed {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(Timer::new(1), Duration::from_millis(1));
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
        cx.abort();
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        let _ = self.0.send((reason.by(), reason.kind()));
    }
}

/// How a connection ends that needs a companion, on a system that bears so many threads.
fn end_of_timed(threads: usize, stack_size: usize) -> (By, CloseKind) {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (tell, told) = mpsc::channel();
    let mut driver = driver(threads, Overload::Pause);
    driver.stack_size(stack_size);
    driver.connect(silent.local_addr().unwrap(), Timed(tell));
    driver.run().unwrap();
    told.recv().unwrap()
}

#[test]
fn companions_and_connects_count_as_threads() {
    let exhausted = CloseKind::Connect(ConnectFailure::Exhausted);
    assert_eq!(end_of_timed(0, 0), (By::Runtime, exhausted), "not even a connect has a thread");
    assert_eq!(end_of_timed(1, 0), (By::Runtime, CloseKind::Aborted), "no companion has one");
    assert_eq!(end_of_timed(2, 0), (By::Us, CloseKind::Aborted));
}

#[test]
fn a_stack_that_the_system_cannot_give_is_told_as_a_lack_of_threads() {
    let exhausted = CloseKind::Connect(ConnectFailure::Exhausted);
    assert_eq!(end_of_timed(usize::MAX, 1 << 50), (By::Runtime, exhausted));
    let mut driver = Blocking::new();
    driver.stack_size(1 << 50);
    driver.listen("127.0.0.1:0", |_| Some(Echo)).unwrap();
    let error = driver.run().unwrap_err();
    assert_eq!(error.op(), Op::Start);
}

#[test]
fn a_byte_that_leaves_behind_the_end_of_its_connection_is_counted() {
    let hub = Arc::new(Hub::new(
        Clock::system(Readings { monotonic: system::now, wall: SystemTime::now }),
        DriverLimits::blocking(),
        |_, _, _| (),
    ));
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let id = lock(&hub.ids).reserve();
    let mut conn = Connection::accepted(id, None, Endpoint::Other, Arc::default(), 0);
    conn.end(By::Us, CloseKind::Aborted, None);
    let cell =
        cell::Cell::new(id, conn, Box::new(Echo), system::adopted(Box::new(OwnedFd::from(ours))));
    let mut desk = Desk::new(&hub);
    Worker::new(&hub, &cell, &mut desk, Role::Reader).sleep_for_room(b'x');
    let mut byte = [0];
    theirs.read_exact(&mut byte).unwrap();
    let metrics = &desk.shared.metrics;
    assert_eq!((byte, metrics.writes, metrics.bytes_out), (*b"x", 1, 1));
    assert_eq!(lock(&cell.member).conn.bytes_out(), 1);
}
