//! The stage of `tests/conformance/kit.rs`, over pipes.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::thread;

use lariat::blocking::Blocking;
use lariat::reactor::Reactor;
use lariat::{ConnId, Descriptors, Driver, DriverLimits, Limits};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::drivers::{Place, watched};
use crate::lacks::has_no_meaning;
use crate::plain::{Boxed, Wires, play_by};
pub(crate) use crate::plain::{Last, Play, Stage, closes_after, data, echo, says, says_all};

/// Runs `scenario` on both drivers that have descriptors.
#[track_caller]
pub(crate) fn everywhere(scenario: impl Fn(&mut Stage<'_>)) {
    on_sockets(DriverLimits::default(), scenario);
}

#[track_caller]
pub(crate) fn everywhere_with(limits: DriverLimits, scenario: impl Fn(&mut Stage<'_>)) {
    on_sockets(limits, scenario);
}

#[track_caller]
pub(crate) fn on_sockets(limits: DriverLimits, scenario: impl Fn(&mut Stage<'_>)) {
    let test = thread::current().name().unwrap_or_default().to_owned();
    if has_no_meaning(&test) && std::env::var_os("LARIAT_ALL").is_none() {
        return;
    }
    let scenario = &mut |driver: &mut dyn Driver, place: &Place| {
        play_by(Some(Box::new(Pipes::default())), driver, place, &scenario);
    };
    let over_pipes = |place: Place| Place { told: format!("{}, over pipes", place.told), ..place };
    let mut reactor = Reactor::with_limits(limits.clone()).unwrap();
    watched(&mut reactor, &over_pipes(Place::reactor()), scenario);
    let mut blocking = Blocking::with_limits(limits).unwrap();
    watched(&mut blocking, &over_pipes(Place::blocking()), scenario);
}

/// What is served, at addresses that nobody else has.
#[derive(Default)]
struct Pipes(Vec<(Limits, Box<dyn Fn() -> Boxed>)>);

/// No port of a client, and none that a scenario has for itself.
const FIRST: u16 = 10_000;

impl Wires for Pipes {
    fn serve(&mut self, limits: Limits, make: Box<dyn Fn() -> Boxed>) -> SocketAddr {
        self.0.push((limits, make));
        SocketAddr::from(([127, 77, 0, 1], FIRST + self.0.len() as u16 - 1))
    }

    fn connect(
        &mut self,
        driver: &mut dyn Driver,
        addr: &str,
        limits: &Limits,
        protocol: Boxed,
    ) -> Result<ConnId, Boxed> {
        let addr: Option<SocketAddr> = addr.parse().ok();
        let addr = addr.filter(|addr| addr.ip() == std::net::Ipv4Addr::new(127, 77, 0, 1));
        let served = addr.and_then(|addr| self.0.get(usize::from(addr.port() - FIRST)));
        let Some((served_by, make)) = served else { return Err(protocol) };
        let ((read, their_write), (their_read, write)) = (pipe(), pipe());
        let (here, there) =
            (Descriptors::new(read, write), Descriptors::new(their_read, their_write));
        let mut control = driver.control();
        control.adopt_descriptors(there, served_by.clone(), make()).unwrap();
        Ok(control.adopt_descriptors(here, limits.clone(), protocol).unwrap())
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).unwrap()
}
