//! Certificates and the date: the simulator's is virtual.

use std::time::{Duration, SystemTime};

use lariat::sim::Sim;
use lariat::tls::{ClientConfig, ServerConfig};
use rcgen::{CertificateParams, date_time_ymd};

use crate::certs::Authority;
use crate::kit::session_on;

const HOUR: Duration = Duration::from_secs(3600);

/// Valid for one day, the first on which a simulator runs.
fn one_day(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2026, 1, 2);
}

#[test]
fn a_certificate_that_expires_while_the_simulator_runs_is_refused_from_then_on() {
    let authority = Authority::new();
    let server = ServerConfig::new(authority.issue_with("localhost", one_day));
    let fresh = || ClientConfig::new(&authority.roots());
    let returning = fresh();
    let mut sim = Sim::new(1);
    let (_, heard) = session_on(&mut sim, &server, &returning, "localhost", b"at once");
    assert_eq!(heard.bytes(), b"at once", "{}", heard.reason());
    sim.run_for(12 * HOUR).unwrap();
    let (_, heard) = session_on(&mut sim, &server, &returning, "localhost", b"at noon");
    assert!(heard.session().is_resumed(), "tickets are valid for a day");
    let (_, heard) = session_on(&mut sim, &server, &fresh(), "localhost", b"at noon");
    assert_eq!(heard.bytes(), b"at noon", "{}", heard.reason());
    sim.run_for(25 * HOUR).unwrap();
    // Neither the one that has never been here nor the one whose ticket is too old as well.
    for client in [fresh(), returning] {
        let (served, heard) = session_on(&mut sim, &server, &client, "localhost", b"late");
        assert!(!heard.has_opened() && served.bytes().is_empty());
        assert_eq!(heard.error(), "the peer's certificate has expired");
    }
}

#[test]
fn a_server_judges_its_clients_by_the_same_date() {
    let authority = Authority::new();
    let server = ServerConfig::mutual(authority.issue("localhost"), &authority.roots()).unwrap();
    let own = authority.issue_with("client", one_day);
    let fresh = || ClientConfig::mutual(&authority.roots(), own.clone());
    let mut sim = Sim::new(1);
    let (served, _) = session_on(&mut sim, &server, &fresh(), "localhost", b"today");
    assert_eq!(served.bytes(), b"today", "{}", served.reason());
    sim.run_for(25 * HOUR).unwrap();
    let (served, _) = session_on(&mut sim, &server, &fresh(), "localhost", b"tomorrow");
    assert!(!served.has_opened() && served.bytes().is_empty());
    assert_eq!(served.error(), "the peer's certificate has expired");
}

#[test]
fn the_date_of_a_simulator_is_set() {
    let authority = Authority::new();
    let server = ServerConfig::new(authority.issue_with("localhost", one_day));
    let client = || ClientConfig::new(&authority.roots());
    let january = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    for (date, said) in [
        (january - Duration::from_secs(1), Some("the peer's certificate is not valid yet")),
        (january, None),
        (january + 24 * HOUR, None),
        (january + 25 * HOUR, Some("the peer's certificate has expired")),
    ] {
        let mut sim = Sim::new(1);
        sim.set_wall_clock(date);
        let (_, heard) = session_on(&mut sim, &server, &client(), "localhost", b"x");
        assert_eq!(heard.has_opened(), said.is_none(), "{}", heard.reason());
        if let Some(said) = said {
            assert_eq!(heard.error(), said);
        }
    }
    // Other limits leave the date as it is set.
    let mut sim = Sim::new(1);
    sim.set_wall_clock(january + 25 * HOUR);
    sim.set_limits(lariat::DriverLimits::default()).unwrap();
    assert_eq!(sim.control().wall_clock(), january + 25 * HOUR);
}
