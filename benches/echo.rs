//! The two drivers beside each other, from 1 to 1,000 connections: the same echo over real sockets
//! on loopback, on the reactor and on threads.
//!
//! One iteration is a round: a client sends 64 bytes on each connection and then reads them all
//! back. The report (`target/criterion/report/index.html`) draws both drivers as lines over the
//! number of connections; elements per second are messages.
//!
//! How to read it: the lines of one run compare, for the client is the same for both. Its two calls
//! for each message are in the times, and it has a core of its own where there are two; what a
//! driver itself costs is better seen in the counts of measure/RESULTS.md.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use criterion::{AxisScale, BenchmarkId, Criterion, PlotConfiguration, Throughput};
use lariat::blocking::Blocking;
use lariat::reactor::Reactor;
use lariat::{Context, Driver, DriverLimits, Handle, Input, ListenOptions, Outcome, Protocol};

const CONNECTIONS: [usize; 4] = [1, 10, 100, 1000];
const MESSAGE: [u8; 64] = [7; 64];
/// Descriptors beside those of connections.
const FILES_BESIDE: usize = 64;

/// Makes a driver.
type Make = fn(DriverLimits) -> lariat::Result<Box<dyn Driver>>;

struct Echo;

impl Protocol for Echo {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume_all();
        Ok(())
    }
}

/// A driver with [`Echo`] on a thread of its own, until it is dropped.
struct Server {
    addr: SocketAddr,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(make: Make) -> Server {
        let (started, addr) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut limits = DriverLimits::default();
            limits.connections_max = 2 * CONNECTIONS[CONNECTIONS.len() - 1];
            let mut driver = make(limits).unwrap();
            let options = ListenOptions::default();
            // The request takes effect when the `Control` is dropped: it must not outlive the line.
            let listener = driver.control().listen_with("127.0.0.1:0", options, |_| Some(Echo));
            let listener = listener.unwrap();
            let addr = driver.addresses(listener)[0].socket_addr().unwrap();
            started.send((addr, driver.handle())).unwrap();
            driver.run().unwrap();
        });
        let (addr, handle) = addr.recv().unwrap();
        Server { addr, handle, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.shutdown();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// One thread that plays all clients.
struct Clients(Vec<TcpStream>);

impl Clients {
    fn connect(addr: SocketAddr, count: usize) -> Clients {
        let connect = |_| {
            let stream = TcpStream::connect(addr).unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        };
        let mut clients = Clients((0..count).map(connect).collect());
        // All are accepted, and have their threads.
        clients.round();
        clients
    }

    /// A message on each connection, and all answers.
    fn round(&mut self) {
        for stream in &mut self.0 {
            stream.write_all(&MESSAGE).unwrap();
        }
        let mut answer = [0; MESSAGE.len()];
        for stream in &mut self.0 {
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, MESSAGE);
        }
    }
}

/// How many connections the limit of open files allows; each has both its ends in this process.
fn connections_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let files = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    files.map_or(usize::MAX, |files: usize| files.saturating_sub(FILES_BESIDE) / 2)
}

fn echo(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("echo");
    let axes = PlotConfiguration::default().summary_scale(AxisScale::Logarithmic);
    group.plot_config(axes).sample_size(30);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    for count in CONNECTIONS {
        if count > connections_max() {
            eprintln!("{count} connections are left out: raise `ulimit -n`");
            continue;
        }
        group.throughput(Throughput::Elements(count as u64));
        let drivers: [(_, Make); 2] = [
            ("reactor", |limits| Ok(Box::new(Reactor::with_limits(limits)?))),
            ("blocking", |limits| Ok(Box::new(Blocking::with_limits(limits)?))),
        ];
        for (name, make) in drivers {
            let server = Server::start(make);
            let mut clients = Clients::connect(server.addr, count);
            let id = BenchmarkId::new(name, count);
            group.bench_function(id, |bencher| bencher.iter(|| clients.round()));
            drop(clients);
        }
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    echo(&mut criterion);
    criterion.final_summary();
}
