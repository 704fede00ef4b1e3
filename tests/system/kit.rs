//! Processes of a test's own, and drivers in them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use lariat::blocking::Blocking;
use lariat::reactor::Reactor;
use lariat::sim::Sim;
use lariat::{Control, Driver, DriverLimits, Handle, Metrics, Protocol};

pub(crate) use crate::patience::{PATIENCE, until};
pub(crate) use crate::plain::Echo;

pub(crate) const DRIVERS: [&str; 2] = ["reactor", "blocking"];

// ---- processes ----------------------------------------------------------------------------------

const PART: &str = "LARIAT_TEST_PART";

/// What this process is to do for the test, if it was started by [`again`].
pub(crate) fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// The command that runs the test `name` in a process of its own, where [`part`] is `part`;
/// `before` is what runs it.
pub(crate) fn command(before: &[&str], name: &str, part: &str) -> Command {
    let this = std::env::current_exe().unwrap();
    let mut words = before.iter().map(|word| (*word).to_owned().into()).collect::<Vec<_>>();
    words.push(this.into_os_string());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["--exact", name, "--nocapture", "--test-threads", "1"]);
    command.env(PART, part);
    command
}

/// Runs the test `name` in a process of its own and returns what it printed.
#[track_caller]
pub(crate) fn again(before: &[&str], name: &str, part: &str) -> String {
    let output = command(before, name, part).output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    let said = said.concat();
    assert!(output.status.success(), "{before:?} {name} {part}: {:?}\n{said}", output.status);
    assert!(said.contains("1 passed"), "no test is called {name}:\n{said}");
    said
}

/// What runs a process whose calls named in `inject` fail, as strace wants it. None where that is
/// not allowed.
pub(crate) fn strace(inject: &str) -> Option<Vec<String>> {
    let probe = Command::new("strace").args(["-D", "-o", "/dev/null", "true"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        eprintln!("skipped: strace is missing, or may not trace here");
        return None;
    }
    let call = inject.split(':').next().unwrap();
    let traced = format!("trace={call}");
    let inject = format!("inject={inject}");
    // As a grandchild (-D), so that the process started is the test itself.
    let words = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &traced, "-e", &inject];
    Some(words.map(str::to_owned).to_vec())
}

/// Runs the test `name` in a network of its own, which has nothing but a loopback and what the
/// shell's `setup` makes of it.
#[track_caller]
pub(crate) fn in_a_network(setup: &str, name: &str, part: &str) {
    let setup = format!("ip link set lo up && {setup}");
    let probe = Command::new("unshare").args(["-n", "sh", "-c", &setup]).output();
    if !probe.as_ref().is_ok_and(|probe| probe.status.success()) {
        eprintln!("skipped: no network of its own can be had here: {probe:?}");
        return;
    }
    let script = format!("{setup} && exec \"$0\" \"$@\"");
    again(&["unshare", "-n", "sh", "-c", &script], name, part);
}

// ---- drivers ------------------------------------------------------------------------------------

pub(crate) fn driver(name: &str, limits: DriverLimits) -> Box<dyn Driver> {
    match name {
        "sim" => Box::new(Sim::with_limits(1, limits).unwrap()),
        "reactor" => Box::new(Reactor::with_limits(limits).unwrap()),
        _ => Box::new(Blocking::with_limits(limits).unwrap()),
    }
}

/// A driver that serves on a thread of its own.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) handle: Handle,
    thread: JoinHandle<Metrics>,
}

impl Server {
    pub(crate) fn start<P: Protocol + Send + 'static>(
        name: &str,
        limits: DriverLimits,
        make: impl Fn() -> P + Send + Sync + 'static,
    ) -> Server {
        let (tell, told) = mpsc::channel();
        let name = name.to_owned();
        let thread = thread::spawn(move || {
            let mut driver = driver(&name, limits);
            let listener = driver.control().listen("127.0.0.1:0", move |_| Some(make())).unwrap();
            let addr = driver.addresses(listener)[0].socket_addr().unwrap();
            tell.send((addr, driver.handle())).unwrap();
            driver.run().unwrap();
            driver.metrics()
        });
        let (addr, handle) = told.recv().unwrap();
        Server { addr, handle, thread }
    }

    pub(crate) fn client(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn metrics(&self) -> Metrics {
        self.call(|control| control.metrics())
    }

    /// Runs `code` on the driver's thread.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        code: impl FnOnce(&mut Control<'_>) -> T + Send + 'static,
    ) -> T {
        let (tell, told) = mpsc::channel();
        self.handle.call(move |control| drop(tell.send(code(control)))).unwrap();
        told.recv_timeout(PATIENCE).unwrap()
    }

    pub(crate) fn finish(self) -> Metrics {
        self.handle.shutdown();
        self.thread.join().unwrap()
    }
}

/// Whether `stream` is answered with what it sends.
pub(crate) fn echoes(stream: &mut TcpStream) -> bool {
    let mut back = [0; 5];
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut back).is_ok() && back == *b"hello"
}
