//! C17: a process that is stopped and continued. What has come meanwhile comes before the deadlines
//! that it puts off.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lariat::http::{self, Handler, Http, Request, Response, Status};
use lariat::{
    ConnectOptions, Context, Driver, DriverLimits, Input, ListenOptions, Outcome, Protocol, Timer,
};
use socket2::{Domain, Socket, Type};

use crate::kit::*;

/// Every deadline.
const TIME: Duration = Duration::from_millis(1500);
/// Of each service.
const CLIENTS: usize = 80;
const DEADLINE: Timer = Timer::new(1);

/// An echo with a companion.
struct Accompanied;

impl Protocol for Accompanied {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(DEADLINE, Duration::from_secs(3600));
        Ok(())
    }
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        Echo.data(cx, input)
    }
}

/// An echo whose deadline is a timer of its own.
struct Timed;

impl Protocol for Timed {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.set_timer(DEADLINE, TIME);
        Echo.data(cx, input)
    }
}

/// Answers every request when all of it is there.
struct Page;

impl Handler for Page {
    fn request(
        &mut self,
        _: &mut Context<'_>,
        _: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        response.collect();
        Ok(())
    }
    fn collected(&mut self, cx: &mut Context<'_>, _: &[u8], response: &mut Response) -> Outcome {
        response.send(cx, Status::OK, &[], b"page");
        Ok(())
    }
}

/// What a client says at first, how the answer to that ends, what it says while the process is
/// stopped, and how that is answered.
struct Service {
    first: &'static [u8],
    answer: &'static [u8],
    rest: &'static [u8],
    last: &'static [u8],
}

const fn service(
    first: &'static [u8],
    answer: &'static [u8],
    rest: &'static [u8],
    last: &'static [u8],
) -> Service {
    Service { first, answer, rest, last }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
/// In the order in which [`serve`] prints their ports.
const SERVICES: [Service; 6] = [
    service(b"GET / HTTP/1.1\r\nHo", b"", b"st: x\r\n\r\n", b"page"),
    service(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n1", b"", b"2", b"page"),
    service(GET, b"page", GET, b"page"),
    service(b"x", b"x", b"y", b"y"),
    service(b"x", b"x", b"y", b"y"),
    service(b"x", b"x", b"y", b"y"),
];

fn listen<P: Protocol + Send + 'static>(
    driver: &mut dyn Driver,
    make: impl Fn() -> P + Send + Sync + 'static,
) -> u16 {
    let mut options = ListenOptions::default();
    options.limits.idle = Some(TIME);
    let listener =
        driver.control().listen_with("127.0.0.1:0", options, move |_| Some(make())).unwrap();
    driver.addresses(listener)[0].port().unwrap()
}

/// Serves until standard input ends, in a process of its own.
fn serve(name: &str) {
    let mut limits = DriverLimits::default();
    limits.connections_max = 2 * SERVICES.len() * CLIENTS;
    let mut driver = driver(name, limits);
    let mut times = http::Limits::default();
    (times.head, times.keep_alive, times.body_grace) = (TIME, TIME, TIME);
    let times = times.validate().unwrap();
    let mut ports = Vec::new();
    for _ in 0..3 {
        let times = times.clone();
        ports.push(listen(&mut *driver, move || Http::with_limits(Page, &times)));
    }
    ports.push(listen(&mut *driver, || Echo));
    ports.push(listen(&mut *driver, || Accompanied));
    ports.push(listen(&mut *driver, || Timed));
    let handle = driver.handle();
    std::thread::spawn(move || {
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        handle.shutdown();
    });
    println!("ports {ports:?}");
    driver.run().unwrap();
}

fn signal(server: &Child, name: &str) {
    let id = server.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

/// Starts the server. What it prints later has to be read.
fn start_server(test: &str, driver: &str) -> (Child, impl Read, Vec<SocketAddr>) {
    let mut command = command(&[], test, driver);
    let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(server.stdout.take().unwrap());
    let told = output.by_ref().lines().map(Result::unwrap).find_map(|line| {
        // The harness prints before it.
        line.split_once("ports [").map(|(_, ports)| ports.trim_end_matches(']').to_owned())
    });
    let told = told.unwrap();
    let ports = told.split(", ").map(|port| ([127, 0, 0, 1], port.parse().unwrap()).into());
    let ports = ports.collect();
    (server, output, ports)
}

/// Whether what comes ends so, sooner or later.
fn hears(stream: &mut TcpStream, end: &[u8]) -> bool {
    let mut heard = Vec::new();
    while !heard.ends_with(end) {
        let mut buffer = [0; 512];
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => heard.extend_from_slice(&buffer[..count]),
            _ => return false,
        }
    }
    true
}

type Clients = Vec<(TcpStream, &'static Service)>;

/// Connects, lets every connection begin and stops the server, before any deadline can have passed.
/// A machine that does much else may need several attempts.
fn stop_in_time(server: &Child, ports: &[SocketAddr]) -> Clients {
    loop {
        let began = Instant::now();
        let mut clients = Clients::new();
        for (port, service) in ports.iter().zip(&SERVICES) {
            for _ in 0..CLIENTS {
                let stream = TcpStream::connect(port).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                clients.push((stream, service));
            }
        }
        let active =
            clients.iter_mut().all(|(stream, service)| stream.write_all(service.first).is_ok())
                && clients.iter_mut().all(|(stream, service)| hears(stream, service.answer));
        signal(server, "-STOP");
        if active && began.elapsed() < TIME / 2 {
            return clients;
        }
        signal(server, "-CONT");
    }
}

#[test]
fn c17_input_that_came_while_the_process_was_stopped_puts_every_deadline_off() {
    let test = "stopped::c17_input_that_came_while_the_process_was_stopped_puts_every_deadline_off";
    if let Some(driver) = part() {
        return serve(&driver);
    }
    for driver in DRIVERS {
        let (mut server, mut output, ports) = start_server(test, driver);
        let mut clients = stop_in_time(&server, &ports);
        for (stream, service) in clients.iter_mut().rev() {
            stream.write_all(service.rest).unwrap();
        }
        // A timer waits as long for a thread that has its input as it is late already.
        std::thread::sleep(3 * TIME);
        signal(&server, "-CONT");
        let alive: Vec<bool> =
            clients.iter_mut().map(|(stream, service)| hears(stream, service.last)).collect();
        let cut = alive.chunks(CLIENTS).map(|some| some.iter().filter(|alive| !**alive).count());
        assert_eq!(cut.collect::<Vec<_>>(), [0; SERVICES.len()], "cut by service on {driver}");
        drop(clients);
        drop(server.stdin.take());
        output.read_to_end(&mut Vec::new()).unwrap();
        assert!(server.wait().unwrap().success());
    }
}

/// Says whether it was reached.
struct Reaches;

impl Protocol for Reaches {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        println!("reached");
        cx.close();
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

/// Listens, and has no room for another client.
fn full() -> (Socket, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap();
    let waiting = (0..3).map(|_| {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        let _ = client.connect(&addr);
        client
    });
    let waiting = waiting.collect();
    (listener, waiting)
}

#[test]
fn c17_a_connect_that_succeeded_while_the_process_was_stopped_is_not_late() {
    const COUNT: usize = 10;
    const TEST: &str =
        "stopped::c17_a_connect_that_succeeded_while_the_process_was_stopped_is_not_late";
    if let Some(part) = part() {
        let mut words = part.split(' ');
        let mut driver = driver(words.next().unwrap(), DriverLimits::default());
        let port = |word: &str| SocketAddr::from(([127, 0, 0, 1], word.parse().unwrap()));
        let addrs: Vec<SocketAddr> = words.map(port).collect();
        let mut options = ConnectOptions::default();
        options.limits.connect = Duration::from_secs(3);
        let mut control = driver.control();
        for _ in 0..COUNT {
            control.connect_with(addrs.clone(), options.clone(), Reaches).unwrap();
            control.connect_with(addrs[0], options.clone(), Reaches).unwrap();
        }
        control.set_timer(Duration::from_millis(500), |_| println!("begun"));
        drop(control);
        driver.run().unwrap();
        return;
    }
    for driver in DRIVERS {
        let servers = [full(), full()];
        let port = |server: &(Socket, Vec<Socket>)| {
            server.0.local_addr().unwrap().as_socket().unwrap().port()
        };
        let part = format!("{driver} {} {}", port(&servers[0]), port(&servers[1]));
        let mut child = command(&[], TEST, &part).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("begun")));
        signal(&child, "-STOP");
        // The system asks once more after a second, and has a connection then. The process finds
        // out behind its deadline.
        servers.iter().for_each(|(listener, _)| listener.listen(1000).unwrap());
        std::thread::sleep(Duration::from_secs(4));
        signal(&child, "-CONT");
        let reached = lines.filter(|line| line.contains("reached")).count();
        assert!(child.wait().unwrap().success());
        assert_eq!(reached, 2 * COUNT, "{driver}");
    }
}
