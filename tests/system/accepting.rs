//! Accepts that the system fails.

use std::fs::File;
use std::time::Instant;

use lariat::DriverLimits;
use socket2::{Domain, Socket, Type};

use crate::kit::*;

const RESOURCES: [&str; 4] = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"];

/// Runs the test `name` on both drivers, with accepts that fail.
#[track_caller]
fn injected(name: &str, errors: &[&str], when: &str) {
    for driver in DRIVERS {
        for error in errors {
            let Some(strace) = strace(&format!("accept4:error={error}{when}")) else { return };
            let before: Vec<&str> = strace.iter().map(String::as_str).collect();
            again(&before, name, driver);
        }
    }
}

#[test]
fn a8_a_lack_that_is_over_at_once_turns_no_connection_away() {
    let Some(driver) = part() else {
        let name = "accepting::a8_a_lack_that_is_over_at_once_turns_no_connection_away";
        return injected(name, &RESOURCES, ":when=2+2");
    };
    let server = Server::start(&driver, DriverLimits::default(), || Echo);
    let served = (0..20).filter(|_| echoes(&mut server.client())).count();
    let metrics = server.finish();
    assert_eq!((served, metrics.accepted, metrics.refused), (20, 20, 0), "{metrics:?}");
    assert!(metrics.accept_errors >= 9, "{metrics:?}");
}

#[test]
fn a9_accepts_that_always_fail_are_few_after_the_64th() {
    let Some(driver) = part() else {
        let name = "accepting::a9_accepts_that_always_fail_are_few_after_the_64th";
        return injected(name, &["EPERM", "ENOSYS"], "");
    };
    let began = Instant::now();
    let server = Server::start(&driver, DriverLimits::default(), || Echo);
    let _waiting = server.client();
    until(|| server.metrics().accept_errors >= 67, "accepts are tried again");
    // After the 64th at 10, 30, 70, 150, 310 and 630 ms, then once a second.
    let metrics = server.metrics();
    let most = 64 + 6 + began.elapsed().as_millis() as u64 / 1000;
    assert!(metrics.accept_errors <= most, "{metrics:?} after {:?}", began.elapsed());
    assert_eq!((metrics.accepted, metrics.refused), (0, 0));
    server.finish();
}

#[test]
fn a9_a_listener_recovers_when_accepts_succeed_again() {
    let Some(driver) = part() else {
        let name = "accepting::a9_a_listener_recovers_when_accepts_succeed_again";
        return injected(name, &["EPERM"], ":when=1..68");
    };
    let server = Server::start(&driver, DriverLimits::default(), || Echo);
    assert!(echoes(&mut server.client()) && echoes(&mut server.client()));
    let metrics = server.finish();
    assert_eq!((metrics.accept_errors, metrics.accepted), (68, 2));
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a1_without_descriptors_newcomers_are_turned_away_and_later_ones_are_served() {
    let name =
        "accepting::a1_without_descriptors_newcomers_are_turned_away_and_later_ones_are_served";
    let Some(driver) = part() else {
        for driver in DRIVERS {
            again(&["sh", "-c", "ulimit -n 64 && exec \"$0\" \"$@\""], name, driver);
        }
        return;
    };
    let server = Server::start(&driver, DriverLimits::default(), || Echo);
    let mut inside = server.client();
    assert!(echoes(&mut inside));
    let before = descriptors();
    // Twice: the reserve is there again for the second time.
    for round in 1..=2 {
        // None is about to become free: those of the last round are gone.
        until(|| descriptors() == before, "all others have left");
        // Everything that is left is taken; the newcomers have their own ends already.
        let newcomers: Vec<Socket> =
            (0..4).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()).collect();
        let mut taken = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
        for newcomer in &newcomers {
            newcomer.connect(&server.addr.into()).unwrap();
        }
        until(|| server.metrics().refused >= round, "one is turned away");
        assert!(echoes(&mut inside));
        drop((taken, newcomers));
        assert!(echoes(&mut server.client()), "there is room again");
    }
    drop(inside);
    server.finish();
}
