//! An echo over real sockets on loopback, in one run: lariat's reactor beside an equally sparing
//! echo server on bare mio, and its blocking driver beside plain threads of the standard library.
//!
//! Shown are one round trip of 64 bytes of a lone client (nearly all of it is the kernel's and the
//! wake-up of the other thread) and 1 MiB through one connection, sent and read at once.
//!
//! How to read it: only rows of the same run compare, and the row `bare mio again`, which is the
//! first one repeated, says how much of a difference is noise. What lariat itself costs is better
//! seen in the instruction counts of measure/RESULTS.md. `cargo bench --bench echo`.

mod common;

use std::net::SocketAddr;

use common::{Client, Server, start_bare_mio, start_std_threads};
use criterion::{Criterion, Throughput};

const MIB: usize = 1024 * 1024;

/// All servers, each pair with its floor first, and the first once more.
struct Servers {
    reactor: Server,
    blocking: Server,
    mio: SocketAddr,
    threads: SocketAddr,
}

impl Servers {
    fn start() -> Servers {
        Servers {
            reactor: Server::reactor(),
            blocking: Server::blocking(),
            mio: start_bare_mio(),
            threads: start_std_threads(),
        }
    }

    fn rows(&self) -> [(&'static str, SocketAddr); 5] {
        [
            ("bare mio", self.mio),
            ("lariat, reactor", self.reactor.addr),
            ("std threads", self.threads),
            ("lariat, blocking", self.blocking.addr),
            ("bare mio again", self.mio),
        ]
    }
}

fn round_trip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("echo/round trip of 64 B");
    let servers = Servers::start();
    for (name, addr) in servers.rows() {
        let mut client = Client::connect(addr);
        let mut answer = [0; 64];
        group.bench_function(name, |bencher| {
            bencher.iter(|| client.round_trip(&[7; 64], &mut answer));
        });
    }
    group.finish();
}

fn bulk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("echo/bulk of 1 MiB");
    group.throughput(Throughput::Bytes(MIB as u64));
    let servers = Servers::start();
    let bytes = vec![7; MIB];
    let mut buffer = vec![0; 256 * 1024];
    for (name, addr) in servers.rows() {
        let mut client = Client::connect(addr);
        group.bench_function(name, |bencher| {
            bencher.iter(|| client.stream(&bytes, &mut buffer));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    round_trip(&mut criterion);
    bulk(&mut criterion);
    criterion.final_summary();
}
