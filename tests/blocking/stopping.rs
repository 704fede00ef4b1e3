//! Shutdown: at once where nothing is under way, and in bounded time where something is.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use lariat::blocking::Blocking;
use lariat::{CloseKind, Context, Input, Outcome, Protocol};

use crate::kit::*;

/// Far less than any deadline that could end a wait instead.
const AT_ONCE: Duration = Duration::from_millis(1500);

#[test]
fn a_driver_that_sleeps_in_accept_stops_at_once() {
    for serial in [false, true] {
        let mut driver = Blocking::new();
        driver.serial(serial);
        listen(&mut driver, || Echo);
        driver.listen("[::1]:0", |_| Some(Echo)).unwrap();
        let running = start_alone(driver);
        until(|| threads().len() == 2, "the listeners did not start");
        let began = Instant::now();
        let (_, report) = running.finish();
        assert!(began.elapsed() < AT_ONCE, "it took {:?}", began.elapsed());
        assert_eq!(report.drained(), 0);
    }
}

#[test]
fn connections_that_sleep_in_read_stop_at_once() {
    for serial in [false, true] {
        let mut driver = Blocking::new();
        driver.serial(serial);
        let (addr, trail) = listen(&mut driver, || Echo);
        let running = start_alone(driver);
        let count = if serial { 1 } else { 20 };
        let mut clients: Vec<_> = (0..count).map(|_| client(addr)).collect();
        for stream in &mut clients {
            echo_once(stream, b"idle from here on");
        }
        let readers: Vec<_> = clients
            .into_iter()
            .map(|mut stream| thread::spawn(move || read_to_end(&mut stream)))
            .collect();
        let began = Instant::now();
        let (metrics, report) = running.finish();
        assert!(began.elapsed() < AT_ONCE, "it took {:?}", began.elapsed());
        for reader in readers {
            assert_eq!(reader.join().unwrap(), (Vec::new(), None));
        }
        assert_eq!((report.drained(), report.aborted()), (count, 0));
        assert_eq!(metrics.closes.shutdown, count);
        trail.wait_for(count as usize, |step| matches!(step, Step::Stopping));
    }
}

/// Goes on when the driver stops, and answers a byte with as much as may be kept.
struct Stubborn;

const ANSWER: usize = 8 * MIB;

impl Protocol for Stubborn {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(b"!");
        Ok(())
    }
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        cx.write(&vec![b'!'; ANSWER]);
        Ok(())
    }
    fn stopping(&mut self, _: &mut Context<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn what_does_not_end_in_time_is_aborted_and_reported() {
    const DRAIN: Duration = Duration::from_millis(300);
    let mut driver = driver_with(|limits| limits.drain = DRAIN);
    let (addr, trail) = listen(&mut driver, || Stubborn);
    let running = start_alone(driver);
    // One sleeps in read, the other in a write that its peer never takes.
    let mut reading = client(addr);
    reading.read_exact(&mut [0]).unwrap();
    let mut writing = client(addr);
    writing.read_exact(&mut [0]).unwrap();
    writing.write_all(b"?").unwrap();
    trail.wait_for(1, |step| matches!(step, Step::Data(..)));
    let began = Instant::now();
    let (metrics, report) = running.finish();
    let took = began.elapsed();
    assert!(took >= DRAIN && took < DRAIN + AT_ONCE, "it took {took:?}");
    assert_eq!((report.drained(), report.aborted()), (0, 2));
    assert!(report.unsent() > 0);
    assert_eq!(metrics.closes.shutdown, 2);
    assert_eq!(trail.kind(), CloseKind::Shutdown);
    let error = read_to_end(&mut reading).1;
    assert_eq!(error, Some(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn shutdown_under_load_ends_every_connection() {
    for _ in 0..10 {
        let mut driver = Blocking::new();
        let (addr, trail) = listen(&mut driver, || Echo);
        let running = start(driver);
        let clients: Vec<_> = (0..16)
            .map(|_| {
                thread::spawn(move || {
                    let Ok(mut stream) = std::net::TcpStream::connect(addr) else { return };
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let mut back = [0; 1000];
                    while stream.write_all(&[7; 1000]).is_ok()
                        && stream.read_exact(&mut back).is_ok()
                    {}
                })
            })
            .collect();
        trail.wait_for(50, |step| matches!(step, Step::Data(..)));
        let (metrics, report) = running.finish();
        for thread in clients {
            thread.join().unwrap();
        }
        assert_eq!(report.aborted(), 0);
        assert_eq!(report.drained(), metrics.accepted);
    }
}

#[test]
fn a_run_ends_by_itself_when_nothing_is_left() {
    let mut driver = Blocking::new();
    let trail = Trail::default();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    driver.connect(listener.local_addr().unwrap(), Watched(Echo, trail.clone()));
    let running = start_alone(driver);
    let (mut stream, _) = listener.accept().unwrap();
    echo_once(&mut stream, b"there");
    drop(stream);
    running.join();
    assert_eq!(trail.names(), "opened data eof closed");
}
