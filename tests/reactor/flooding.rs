//! One connection that always has more to say, beside others: counted in turns.
//!
//! The streams are Unix sockets. What is sent on one has arrived when the call returns, so that no
//! turn has to be waited for.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lariat::ConnectOptions;
use lariat::reactor::Reactor;

use crate::common::{Echo, KIB, Sink, drive, finish};

const BUDGET: usize = 16 * KIB;
const OTHERS: usize = 20;
const ROUNDS: u64 = 200;

/// A stream whose other end the reactor has, with `change` of its limits.
fn adopt(reactor: &mut Reactor, protocol: impl lariat::Protocol + Send + 'static) -> UnixStream {
    let (here, there) = UnixStream::pair().unwrap();
    here.set_nonblocking(true).unwrap();
    let mut options = ConnectOptions::default();
    options.limits.read_budget = BUDGET;
    reactor.control().adopt_stream(there, options, protocol).unwrap();
    here
}

/// Writes as much as fits.
fn fill(stream: &mut UnixStream) -> usize {
    let mut count = 0;
    loop {
        match stream.write(&[7; 8 * KIB]) {
            Ok(taken) => count += taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn b15_a_flood_is_read_by_its_budget_a_turn_and_every_other_is_answered_in_that_turn() {
    let mut reactor = Reactor::new().unwrap();
    let mut flooder = adopt(&mut reactor, Sink);
    let mut others: Vec<_> = (0..OTHERS).map(|_| adopt(&mut reactor, Echo)).collect();
    drive(&mut reactor, |reactor| reactor.metrics().open == 1 + OTHERS as u64);
    let before = reactor.metrics();
    for round in 0..ROUNDS {
        // Always more than one budget waits.
        fill(&mut flooder);
        others.iter_mut().for_each(|other| other.write_all(&[round as u8; 8]).unwrap());
        let earlier = reactor.metrics();
        reactor.turn(Some(Duration::ZERO)).unwrap();
        let now = reactor.metrics();
        assert_eq!(now.turns - earlier.turns, 1);
        for other in &mut others {
            let mut back = [0; 8];
            other.read_exact(&mut back).unwrap_or_else(|e| panic!("not in turn {round}: {e}"));
            assert_eq!(back, [round as u8; 8]);
        }
        let flood = now.bytes_in - earlier.bytes_in - 8 * OTHERS as u64;
        assert_eq!(flood, BUDGET as u64, "in turn {round}: neither more nor nothing");
    }
    let after = reactor.metrics();
    assert_eq!(after.turns - before.turns, ROUNDS);
    assert_eq!(after.bytes_out - before.bytes_out, ROUNDS * 8 * OTHERS as u64);
    // When the others are silent, the flood has turns to itself: four budgets in each.
    for _ in 0..10 {
        fill(&mut flooder);
        let earlier = reactor.metrics();
        reactor.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(reactor.metrics().bytes_in - earlier.bytes_in, 4 * BUDGET as u64);
    }
    drop((flooder, others));
    finish(reactor);
}

#[test]
fn b15_of_several_floods_each_is_read_in_every_turn_and_all_take_the_same() {
    let mut reactor = Reactor::new().unwrap();
    let mut flooders: Vec<_> = (0..5).map(|_| adopt(&mut reactor, Sink)).collect();
    let mut other = adopt(&mut reactor, Echo);
    drive(&mut reactor, |reactor| reactor.metrics().open == 6);
    let mut sent: Vec<usize> = flooders.iter_mut().map(fill).collect();
    let first = sent.clone();
    for round in 0..50 {
        other.write_all(b"x").unwrap();
        let earlier = reactor.metrics();
        reactor.turn(Some(Duration::ZERO)).unwrap();
        other.read_exact(&mut [0]).unwrap_or_else(|error| panic!("not in turn {round}: {error}"));
        assert_eq!(reactor.metrics().bytes_in - earlier.bytes_in, 5 * BUDGET as u64 + 1);
        flooders.iter_mut().zip(&mut sent).for_each(|(flooder, sent)| *sent += fill(flooder));
    }
    // What a flooder could send more is what was read of it: a system gives room by the buffer.
    for (first, sent) in first.iter().zip(&sent) {
        let read = sent - first;
        assert!(read.abs_diff(50 * BUDGET) <= 64 * KIB, "{read} of one: {sent:?}");
    }
    drop((flooders, other));
    finish(reactor);
}
