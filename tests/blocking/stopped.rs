//! C17: a process that is stopped and continued. What has come meanwhile comes before the deadlines
//! that it puts off.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lariat::{Context, Input, Outcome, Protocol, Timer};

use crate::kit::*;

const SERVER: &str = "LARIAT_TEST_STOPPED_SERVER";
const IDLE: Duration = Duration::from_millis(600);
const CLIENTS: usize = 200;

/// An echo with a companion.
struct Timed;

impl Protocol for Timed {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(Timer::new(1), Duration::from_secs(3600));
        Ok(())
    }
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        Echo.data(cx, input)
    }
}

/// Serves with and without companions until its standard input ends, in a process of its own.
fn serve() {
    let mut driver = driver_with(|limits| limits.connections_max = 2 * CLIENTS);
    let (plain, _) = listen_with(&mut driver, |limits| limits.idle = Some(IDLE), || Echo);
    let (timed, _) = listen_with(&mut driver, |limits| limits.idle = Some(IDLE), || Timed);
    let running = start(driver);
    println!("ports {} {}", plain.port(), timed.port());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    running.finish();
}

fn signal(server: &Child, name: &str) {
    let id = server.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

/// Starts the server. What it prints later has to be read, and the ports that it listens on come
/// with it.
fn start_server(test: &str) -> (Child, impl Read, Vec<u16>) {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(SERVER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(server.stdout.take().unwrap());
    let told = output.by_ref().lines().map(Result::unwrap).find_map(|line| {
        // The harness prints before it.
        line.split_once("ports ").map(|(_, ports)| ports.to_owned())
    });
    let ports = told.unwrap().split(' ').map(|port| port.parse().unwrap()).collect();
    (server, output, ports)
}

#[test]
fn c17_input_that_came_while_the_process_was_stopped_puts_the_idle_deadline_off() {
    if std::env::var_os(SERVER).is_some() {
        return serve();
    }
    let test =
        "stopped::c17_input_that_came_while_the_process_was_stopped_puts_the_idle_deadline_off";
    let (mut server, mut output, ports) = start_server(test);
    for port in ports {
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let mut clients = stop_in_time(&server, addr);
        for stream in clients.iter_mut().rev() {
            stream.write_all(b"x").unwrap();
        }
        std::thread::sleep(2 * IDLE);
        signal(&server, "-CONT");
        let alive = clients.iter_mut().filter_map(|stream| stream.read_exact(&mut [0]).ok());
        assert_eq!(alive.count(), CLIENTS, "some were cut, although their bytes came in time");
    }
    drop(server.stdin.take());
    output.read_to_end(&mut Vec::new()).unwrap();
    assert!(server.wait().unwrap().success());
}

/// Connects, lets every connection be active and stops the server, before any has been idle for too
/// long. A machine that does much else may need several attempts.
fn stop_in_time(server: &Child, addr: SocketAddr) -> Vec<TcpStream> {
    loop {
        let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| client(addr)).collect();
        let began = Instant::now();
        let active = clients.iter_mut().all(|stream| stream.write_all(b"x").is_ok())
            && clients.iter_mut().all(|stream| stream.read_exact(&mut [0]).is_ok());
        signal(server, "-STOP");
        if active && began.elapsed() < IDLE / 2 {
            return clients;
        }
        signal(server, "-CONT");
    }
}
