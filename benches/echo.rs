//! An echo over real sockets on loopback: lariat's reactor beside an equally sparing echo server on
//! bare mio, in one run.
//!
//! Shown are one round trip of 64 bytes of a lone client (nearly all of it is the kernel's and the
//! wake-up of the other thread) and 1 MiB through one connection, sent and read at once.
//!
//! How to read it: only rows of the same run compare, and the row `bare mio again`, which is the
//! first one repeated, says how much of a difference is noise. What lariat itself costs is better
//! seen in the instruction counts of CONTRIBUTING.md. `cargo bench --bench echo`.

mod common;

use common::{Client, ReactorServer, start_bare_mio};
use criterion::{Criterion, Throughput};

const MIB: usize = 1024 * 1024;

fn round_trip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("echo/round trip of 64 B");
    let (lariat, mio) = (ReactorServer::start(), start_bare_mio());
    for (name, addr) in [("bare mio", mio), ("lariat", lariat.addr), ("bare mio again", mio)] {
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
    let (lariat, mio) = (ReactorServer::start(), start_bare_mio());
    let bytes = vec![7; MIB];
    let mut buffer = vec![0; 256 * 1024];
    for (name, addr) in [("bare mio", mio), ("lariat", lariat.addr), ("bare mio again", mio)] {
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
