//! The load against servers that are simple enough to be right, or wrong in a known way.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use super::*;

/// A closed loop of 300 requests over 3 connections, with nobody to talk to.
pub(super) fn order() -> Order {
    Order {
        addr: ([127, 0, 0, 1], 1).into(),
        pid: std::process::id(),
        http: false,
        echo: false,
        connections: 3,
        idle: 0,
        unserved: 0,
        flooders: 0,
        slow_readers: 0,
        size: 0,
        rate: None,
        special: None,
        warm_ms: 0,
        // The requests end it, on a machine that is never so busy.
        run_ms: 60_000,
        requests: Some(300),
        marks: false,
        heat: false,
    }
}

/// What is wrong with a server.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The twentieth answer of a connection.
    Sum,
    /// The last byte of the twentieth answer's padding.
    Byte,
    /// Each connection is served to its end before the next one.
    Serial,
}

/// The adding game on threads of std.
fn game(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if fault == Fault::Serial {
                let _ = play(stream, fault);
            } else {
                thread::spawn(move || play(stream, fault));
            }
        }
    });
    addr
}

fn play(mut stream: TcpStream, fault: Fault) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut sum = 0;
    for (count, line) in BufReader::new(stream.try_clone()?).lines().enumerate() {
        let line = line?;
        let (number, padding) = line.split_once(' ').unwrap_or((&line, ""));
        sum += number.parse::<i64>().map_err(std::io::Error::other)?;
        let wrong = count == 20;
        let said = if wrong && fault == Fault::Sum { sum + 1 } else { sum };
        let mut answer = format!("{said} {padding}").trim_end().to_owned();
        if wrong && fault == Fault::Byte {
            answer.pop();
            answer.push(',');
        }
        answer.push('\n');
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}

#[test]
fn every_connection_asks_and_is_answered() {
    let order = Order { addr: game(Fault::None), size: 32, ..order() };
    let sample = load(&order).unwrap();
    assert_eq!((sample.answered, sample.unanswered), (300, 0));
    assert_eq!((sample.served, sample.asking), (3, 3));
    assert!(sample.p50 > 0.0 && sample.p50 <= sample.p99 && sample.p99 <= sample.max);
    assert!((sample.per_s * sample.seconds - sample.answered as f64).abs() < 0.5);
}

#[test]
fn one_wrong_answer_ends_the_load_and_is_shown() {
    for (fault, what) in [(Fault::Sum, "and the sum is "), (Fault::Byte, "......,")] {
        let order = Order { addr: game(fault), size: 16, ..order() };
        let Err(Failure::Sentence(sentence)) = load(&order) else { panic!("not noticed") };
        assert!(sentence.starts_with("the server answers wrongly: "), "{sentence}");
        assert!(sentence.contains(what), "{sentence}");
    }
}

#[test]
fn those_that_one_at_a_time_never_serves_count_with_their_wait_and_are_not_waited_for() {
    let order = Order { addr: game(Fault::Serial), unserved: 2, ..order() };
    let sample = load(&order).unwrap();
    assert_eq!((sample.served, sample.asking, sample.unanswered), (1, 3, 2));
    // They have asked before the run began, and are older than what was answered in it.
    assert!(sample.max >= sample.seconds * 1e6 * 0.99, "{}", sample.max);
    assert!((sample.jain - 1.0 / 3.0).abs() < 0.01, "{}", sample.jain);
}

#[test]
fn in_an_open_loop_latency_counts_from_when_a_request_was_due() {
    let order = Order { addr: game(Fault::None), connections: 2, run_ms: 2_000, ..order() };
    let talk = Talk::new(&order).unwrap();
    let mut crew = Crew::connect(&order, &talk, 2, None).unwrap();
    let mut tally = Tally::new(&order);
    // The load is two seconds late: all ten requests leave at once.
    let time = Duration::from_secs(2);
    let begun = Instant::now().checked_sub(time).unwrap();
    crew.open_loop(&talk, &order, 5.0, begun, time, &mut tally).unwrap();
    crew.drain(&talk, Duration::from_secs(30), &mut tally).unwrap();
    let sample = tally.sample(crew.shares(), 2.0);
    assert_eq!((tally.answers(), sample.shares), (10, vec![5, 5]));
    // They were due 200 ms to 2 s ago.
    assert!(sample.p50 >= 990_000.0 && sample.max >= 1_990_000.0, "{}", sample.p50);
    assert!(sample.curve[0].1 >= 199_000.0, "{:?}", sample.curve);
    assert!(sample.load_late >= 1_990_000.0, "{}", sample.load_late);
}

#[test]
fn special_requests_come_evenly_and_not_first() {
    let special = Special { verb: "work".to_owned(), micros: 0, one_in: 4 };
    let order = Order { special: Some(special), ..order() };
    let mut asked = 0;
    let specials: Vec<_> = (1..=12).filter(|_| Crew::next_is_special(&mut asked, &order)).collect();
    assert_eq!(specials, [2, 6, 10]);
}

#[test]
fn only_those_that_ask_are_counted_and_the_idle_ones_share_the_memory() {
    let order = Order { addr: game(Fault::None), connections: 2, idle: 5, ..order() };
    let sample = load(&order).unwrap();
    assert_eq!((sample.asking, sample.served, sample.shares.len()), (2, 2, 2));
    // The server is this process: a thread for each of the seven connections at least.
    assert!(sample.threads >= 7, "{}", sample.threads);
}
