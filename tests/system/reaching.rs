//! What a connect finds at its address: nobody, no route, no answer, no port left to come from.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lariat::{
    Address, AddressErrors, By, CloseKind, CloseReason, ConnectFailure, ConnectOptions, Context,
    Deadline, DriverLimits, Endpoint, ErrorKind, Input, Limits, Outcome, Protocol,
};

use crate::kit::*;

/// A network with a way into the void: behind it nobody has the addresses to which it leads, so
/// that what is sent there is lost without a word.
const VOID: &str = "ip link add void type veth peer name beyond && ip link set beyond up \
     && ip link set void up && ip address add 203.0.113.1/24 dev void \
     && for n in 2 3 4 5; do ip neighbour add 203.0.113.$n lladdr 02:00:00:00:00:0$n dev void \
     nud permanent || exit 1; done";
const HOLES: [&str; 4] =
    ["203.0.113.2:7000", "203.0.113.3:7000", "203.0.113.4:7000", "203.0.113.5:7000"];

/// How a connect went.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Facts>>);

#[derive(Default)]
struct Facts {
    /// The peer, and how long it took.
    opened: Option<(Endpoint, Duration)>,
    ended: Option<CloseReason>,
}

impl Protocol for Told {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.0.lock().unwrap().opened = Some((cx.peer_addr(), cx.age()));
        cx.close();
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.0.lock().unwrap().ended = Some(reason.clone());
    }
}

impl Told {
    #[track_caller]
    fn reason(&self) -> CloseReason {
        self.0.lock().unwrap().ended.clone().expect("it has ended")
    }

    fn opened(&self) -> Option<(Endpoint, Duration)> {
        self.0.lock().unwrap().opened
    }
}

fn within(connect: Duration) -> ConnectOptions {
    let mut limits = Limits::default();
    limits.connect = connect;
    limits.into()
}

/// Connects on a driver of its own, and waits for the end.
fn connect(driver_name: &str, addr: impl Into<Address>, options: ConnectOptions) -> Told {
    let (told, addr): (_, Address) = (Told::default(), addr.into());
    let mut driver = driver(driver_name, DriverLimits::default());
    driver.control().connect_with(addr, options, told.clone()).unwrap();
    driver.run().unwrap();
    told
}

/// Runs `scenario` once in a network of its own for each driver.
fn everywhere(setup: &str, name: &str, scenario: fn(&str)) {
    match part() {
        Some(driver) => scenario(&driver),
        None => DRIVERS.iter().for_each(|driver| in_a_network(setup, name, driver)),
    }
}

#[test]
fn d1_nobody_no_route_no_answer_and_no_name_are_four_plain_reasons() {
    let name = "reaching::d1_nobody_no_route_no_answer_and_no_name_are_four_plain_reasons";
    let setup = format!("{VOID} && ip route add unreachable 198.51.100.0/24");
    everywhere(&setup, name, |driver| {
        use ConnectFailure::{Name, Refused, Unreachable};
        let cases = [
            (
                "127.0.0.1:7000",
                CloseKind::Connect(Refused),
                By::Peer,
                "connect refused by the peer",
            ),
            // Without any route, and with a route that says so.
            (
                "192.0.2.1:7000",
                CloseKind::Connect(Unreachable),
                By::Peer,
                "connect failed, unreachable by the peer",
            ),
            (
                "198.51.100.1:7000",
                CloseKind::Connect(Unreachable),
                By::Peer,
                "connect failed, unreachable by the peer",
            ),
            (
                HOLES[0],
                CloseKind::TimedOut(Deadline::Connect),
                By::Runtime,
                "timed out (connect) by the runtime",
            ),
            (
                "nobody.invalid:7000",
                CloseKind::Connect(Name),
                By::Runtime,
                "connect failed, no address found by the runtime (nobody.invalid:7000: ",
            ),
        ];
        for (addr, kind, by, sentence) in cases {
            let patient = if kind == CloseKind::TimedOut(Deadline::Connect) {
                Duration::from_millis(200)
            } else {
                PATIENCE
            };
            let told = connect(driver, addr, within(patient));
            let reason = told.reason();
            assert_eq!((reason.kind(), reason.by()), (kind, by), "{addr}: {reason}");
            assert!(reason.to_string().starts_with(sentence), "{addr}: {reason}");
            assert_eq!(told.opened(), None);
        }
    });
}

#[test]
fn d1_behind_a_black_hole_a_server_is_reached_within_300_ms() {
    let name = "reaching::d1_behind_a_black_hole_a_server_is_reached_within_300_ms";
    everywhere(VOID, name, |driver| {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let addrs = [HOLES[0].parse().unwrap(), server.local_addr().unwrap()];
        // A busy machine may be late ten times out of ten only by a defect.
        let mut best = Duration::MAX;
        for _ in 0..10 {
            let told = connect(driver, addrs, within(PATIENCE));
            let (peer, took) = told.opened().expect("the second answers");
            assert_eq!(peer, Endpoint::from(addrs[1]));
            assert!(took >= Duration::from_millis(250), "the first had {took:?} alone");
            best = best.min(took);
            if best <= Duration::from_millis(300) {
                println!("{driver}: open after {best:?}");
                return;
            }
        }
        panic!("{driver}: open after {best:?} at best");
    });
}

#[test]
fn d1_behind_four_black_holes_a_loop_finds_the_server_and_threads_do_not() {
    let name = "reaching::d1_behind_four_black_holes_a_loop_finds_the_server_and_threads_do_not";
    everywhere(VOID, name, |driver| {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut addrs: Vec<SocketAddr> = HOLES.iter().map(|hole| hole.parse().unwrap()).collect();
        addrs.push(server.local_addr().unwrap());
        let loops = driver == "reactor";
        let patient = if loops { PATIENCE } else { Duration::from_secs(2) };
        let told = connect(driver, addrs.clone(), within(patient));
        if loops {
            let (peer, took) = told.opened().expect("the fifth answers");
            assert_eq!(peer, Endpoint::from(addrs[4]));
            assert!(took >= Duration::from_secs(1), "each of the four had its time");
            return;
        }
        // Three attempts are under way, each until its deadline.
        let reason = told.reason();
        assert_eq!(reason.kind(), CloseKind::TimedOut(Deadline::Connect));
        let error = reason.error().unwrap();
        let errors: &AddressErrors = error.downcast_ref().unwrap();
        let mut said: Vec<(String, String)> =
            errors.iter().map(|(addr, error)| (addr.to_string(), error.to_string())).collect();
        said.sort();
        let late: Vec<bool> = said.iter().map(|(_, error)| error == "not tried in time").collect();
        // 127.0.0.1 sorts before the holes.
        assert_eq!(late, [true, false, false, false, true], "{said:?}");
    });
}

#[test]
fn d2_without_a_port_to_come_from_a_connect_fails_at_once_and_the_next_one_with_a_port_works() {
    let name = "reaching::d2_without_a_port_to_come_from_a_connect_fails_at_once_and_the_next_one_\
                with_a_port_works";
    let range = "sysctl -qw net.ipv4.ip_local_port_range='40000 40009'";
    everywhere(range, name, |driver| {
        let server = TcpListener::bind("127.0.0.1:7000").unwrap();
        let addr = server.local_addr().unwrap();
        let mut taken: Vec<TcpStream> = Vec::new();
        while let Ok(stream) = TcpStream::connect(addr) {
            taken.push(stream);
            assert!(taken.len() <= 10, "there are ten ports");
        }
        let told = connect(driver, addr, within(PATIENCE));
        let reason = told.reason();
        let unavailable = CloseKind::Connect(ConnectFailure::AddressUnavailable);
        assert_eq!((reason.kind(), reason.by()), (unavailable, By::Runtime), "{reason}");
        // With a reset, so that the port does not wait for late segments.
        let one = socket2::SockRef::from(&taken[0]);
        one.set_linger(Some(Duration::ZERO)).unwrap();
        taken.remove(0);
        assert!(connect(driver, addr, within(PATIENCE)).opened().is_some());
    });
}

#[test]
fn a_client_comes_from_the_address_that_it_is_bound_to() {
    for name in DRIVERS {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = server.local_addr().unwrap();
        let mut options = within(PATIENCE);
        options.bind = Some(SocketAddr::from(([127, 0, 0, 77], 0)).into());
        assert!(connect(name, addr, options.clone()).opened().is_some());
        let (_, from) = server.accept().unwrap();
        assert_eq!(from.ip().to_string(), "127.0.0.77");
        // Of addresses of both families, the one that such a client can reach.
        let six = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], addr.port()));
        let told = connect(name, [six, addr], options.clone());
        assert_eq!(told.opened().map(|(peer, _)| peer), Some(addr.into()), "{name}");
        options.bind = Some(SocketAddr::from(([192, 0, 2, 1], 0)).into());
        let reason = connect(name, addr, options).reason();
        let unavailable = CloseKind::Connect(ConnectFailure::AddressUnavailable);
        assert_eq!((reason.kind(), reason.by()), (unavailable, By::Runtime), "{reason}");
    }
}

/// Counts how its connects ended.
struct Counts(Arc<[AtomicUsize; 2]>);

impl Protocol for Counts {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        let refused = reason.kind() == CloseKind::Connect(ConnectFailure::Refused);
        self.0[usize::from(refused)].fetch_add(1, Ordering::Relaxed);
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn ten_thousand_connects_to_a_dead_port_are_all_refused_and_leave_no_descriptor() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let name = "reaching::\
                ten_thousand_connects_to_a_dead_port_are_all_refused_and_leave_no_descriptor";
    let Some(name) = part() else {
        DRIVERS.iter().for_each(|driver| drop(again(&[], name, driver)));
        return;
    };
    // Bound by nobody else for as long as this lives, and nobody listens.
    let dead = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    dead.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = dead.local_addr().unwrap().as_socket().unwrap();
    let before = [descriptors(), threads()];
    let ends: Arc<[AtomicUsize; 2]> = Arc::default();
    let mut driver = driver(&name, DriverLimits::blocking());
    let own = descriptors();
    let mut most = 0;
    for _ in 0..50 {
        for _ in 0..200 {
            driver.control().connect(addr, Counts(Arc::clone(&ends)));
        }
        driver.run().unwrap();
        most = most.max(threads() - before[1]);
        assert!(descriptors() <= own + 1, "a descriptor is left after a round");
    }
    let [others, refused] = [0, 1].map(|at| ends[at].load(Ordering::Relaxed));
    assert_eq!((others, refused), (0, 10_000));
    let metrics = driver.metrics();
    assert_eq!((metrics.connects, metrics.closes.connect, metrics.open), (10_000, 10_000, 0));
    // A thread for each of a round, those that wait for more, and those of the round before that
    // the system has not quite ended.
    let bound = if name == "reactor" { 0 } else { 200 + 64 + 200 };
    assert!(most <= bound, "{most} threads");
    drop(driver);
    until(|| [descriptors(), threads()] == before, "descriptors or threads are left");
}

#[test]
fn a7_a_port_that_needs_a_privilege_is_an_error_that_says_so() {
    let name = "reaching::a7_a_port_that_needs_a_privilege_is_an_error_that_says_so";
    let Some(name) = part() else {
        // As a user without privileges, if this one may become it and it may run this file.
        let nobody = ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all"];
        let this = std::env::current_exe().unwrap();
        let probe = std::process::Command::new(nobody[0])
            .args(&nobody[1..])
            .arg(this)
            .arg("--list")
            .output();
        if !probe.is_ok_and(|probe| probe.status.success()) {
            eprintln!("skipped: this user cannot become another one here");
            return;
        }
        let mut words = vec!["unshare", "-n"];
        words.extend(nobody);
        let network = std::process::Command::new("unshare").args(["-n", "true"]).status();
        if network.is_ok_and(|status| status.success()) {
            DRIVERS.iter().for_each(|driver| drop(again(&words, name, driver)));
        }
        return;
    };
    let mut driver = driver(&name, DriverLimits::default());
    let error = driver.control().listen("0.0.0.0:80", |_| Some(Echo)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(error.to_string(), "cannot listen on 0.0.0.0:80: permission denied");
    let hint = "\nhint: ports below 1024 are reserved; try a port above 1023";
    assert!(format!("{error:?}").ends_with(hint));
    let other = driver.control().listen("127.0.0.1:0", |_| Some(Echo)).unwrap();
    assert_eq!(driver.addresses(other).len(), 1, "others are not affected");
}

#[test]
fn d4_a_peer_that_comes_over_ipv6_with_an_ipv4_address_has_its_ipv4_address() {
    for name in DRIVERS {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let mut driver = driver(name, DriverLimits::default());
        let mut options = lariat::ListenOptions::default();
        options.v6_only = false;
        let noted = Arc::clone(&seen);
        let factory = move |incoming: &lariat::Incoming| {
            let (peer, local) = (incoming.peer(), incoming.local_addr().unwrap());
            let text = format!("{} to {}", peer.ip().unwrap(), local.ip().unwrap());
            noted.lock().unwrap().push(text);
            Some(Echo)
        };
        let listener = driver.control().listen_with("[::]:0", options, factory).unwrap();
        let port = driver.addresses(listener)[0].port().unwrap();
        // With `v6_only`, as is the default, both families may be listened on by themselves.
        let both = driver.control().listen("[::]:0", |_| Some(Echo)).unwrap();
        let same = driver.addresses(both)[0].port().unwrap();
        driver.control().listen(("0.0.0.0", same), |_| Some(Echo)).unwrap();
        let handle = driver.handle();
        let clients = std::thread::spawn(move || {
            let _stops = crate::connecting::Stops(handle);
            for host in ["127.0.0.1", "::1"] {
                assert!(echoes(&mut TcpStream::connect((host, port)).unwrap()));
            }
            for host in ["127.0.0.1", "::1"] {
                assert!(echoes(&mut TcpStream::connect((host, same)).unwrap()));
            }
        });
        driver.run().unwrap();
        clients.join().unwrap();
        assert_eq!(*seen.lock().unwrap(), ["127.0.0.1 to 127.0.0.1", "::1 to ::1"], "{name}");
    }
}

#[test]
fn the_deadline_of_a_connect_into_the_void_is_kept() {
    let name = "reaching::the_deadline_of_a_connect_into_the_void_is_kept";
    everywhere(VOID, name, |driver| {
        let begun = Instant::now();
        let told = connect(driver, HOLES[0], within(Duration::from_millis(300)));
        assert!(begun.elapsed() >= Duration::from_millis(300));
        assert!(told.reason().age() >= Duration::from_millis(300));
        assert!(begun.elapsed() < PATIENCE, "and no longer than the deadline");
    });
}
