//! One connection that always has more to say, beside others: counted in exchanges.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use lariat::blocking::Blocking;
use lariat::{Context, Input, Outcome, Protocol};

use crate::kit::*;

const OTHERS: usize = 8;
const ROUNDS: u64 = 300;

/// The flood is made of these, and no other begins with one.
const DROP: u8 = 7;

/// Answers, and counts a flood.
struct Counts(Arc<AtomicU64>);

impl Protocol for Counts {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if input[0] == DROP {
            self.0.fetch_add(input.len() as u64, Ordering::Relaxed);
        } else {
            cx.write(input);
        }
        input.consume_all();
        Ok(())
    }
}

#[test]
fn b15_beside_a_flood_every_exchange_of_every_other_is_answered_and_the_flood_goes_on() {
    let flood = Arc::new(AtomicU64::new(0));
    let (mut driver, counts) = (Blocking::new(), Arc::clone(&flood));
    let listener =
        driver.listen("127.0.0.1:0", move |_| Some(Counts(Arc::clone(&counts)))).unwrap();
    let addr = driver.addresses(listener)[0].socket_addr().unwrap();
    let running = start(driver);
    let connect = || {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let over = Arc::new(AtomicBool::new(false));
    let (mut flooder, stops) = (connect(), Arc::clone(&over));
    let floods = thread::spawn(move || {
        let mut sent = 0;
        while !stops.load(Ordering::Relaxed) {
            flooder.write_all(&[DROP; 64 * KIB]).unwrap();
            sent += 64 * KIB as u64;
        }
        sent
    });
    let mut others: Vec<_> = (0..OTHERS).map(|_| connect()).collect();
    for round in 0..ROUNDS {
        let before = flood.load(Ordering::Relaxed);
        let word = round.to_be_bytes();
        others.iter_mut().for_each(|other| other.write_all(&word).unwrap());
        for other in &mut others {
            let mut back = [0; 8];
            other.read_exact(&mut back).unwrap();
            assert_eq!(back, word);
        }
        // It has not come to rest: its end would make this easy.
        until(|| flood.load(Ordering::Relaxed) > before, "the flood has stopped");
    }
    over.store(true, Ordering::Relaxed);
    let sent = floods.join().unwrap();
    drop(others);
    until(|| flood.load(Ordering::Relaxed) == sent, "a part of the flood was lost");
    let (metrics, _) = running.finish();
    assert_eq!(metrics.bytes_in, sent + ROUNDS * 8 * OTHERS as u64);
    assert_eq!(metrics.bytes_out, ROUNDS * 8 * OTHERS as u64);
}
