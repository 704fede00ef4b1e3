//! What drivers with the system's sockets keep of a peak of connections: bytes that live, in a
//! process of its own, where nothing else allocates. So the counts are exact.

use std::alloc::System;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lariat::blocking::Blocking;
use lariat::reactor::Reactor;
use lariat::{ConnectOptions, Context, Control, Handle, Input, Metrics, Outcome, Protocol};
use stats_alloc::Region;

use crate::{GLOBAL, lives};

const STREAMS: usize = 60;
const MESSAGE: usize = 48 * KIB;
/// Much more than the buffers of a Unix socket take.
const ANSWER: usize = 1_500_000;
static SEVENS: [u8; ANSWER] = [7; ANSWER];
const KIB: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a whole message, and answers it with much.
struct Answers;

impl Protocol for Answers {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if input.len() < MESSAGE {
            input.need(MESSAGE);
            return Ok(());
        }
        input.consume(MESSAGE);
        cx.write(&SEVENS);
        Ok(())
    }
}

/// A driver that goes on for a moment at each step.
trait Steps {
    fn adopt(&mut self, stream: UnixStream);
    fn step(&mut self);
    fn metrics(&self) -> Metrics;
}

fn adopt(control: &mut Control<'_>, stream: UnixStream) {
    control.adopt_stream(stream, ConnectOptions::default(), Answers).map(drop).unwrap();
}

impl Steps for Reactor {
    fn adopt(&mut self, stream: UnixStream) {
        adopt(&mut self.control(), stream);
    }

    fn step(&mut self) {
        self.turn(Some(Duration::from_millis(1))).unwrap();
    }

    fn metrics(&self) -> Metrics {
        Reactor::metrics(self)
    }
}

/// Threads, which run meanwhile.
impl Steps for Handle {
    fn adopt(&mut self, stream: UnixStream) {
        self.call(|control| adopt(control, stream)).unwrap();
    }

    fn step(&mut self) {
        thread::park_timeout(Duration::from_millis(1));
    }

    fn metrics(&self) -> Metrics {
        Handle::metrics(self)
    }
}

#[track_caller]
fn until(driver: &mut dyn Steps, what: &str, mut holds: impl FnMut(&mut dyn Steps) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds(driver) {
        assert!(Instant::now() < deadline, "{what}: {:?}", driver.metrics());
        driver.step();
    }
}

fn connect(driver: &mut dyn Steps) -> Vec<UnixStream> {
    let connect = |_| {
        let (here, there) = UnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        driver.adopt(there);
        here
    };
    let streams = (0..STREAMS).map(connect).collect();
    until(driver, "not all are open", |driver| driver.metrics().open == STREAMS as u64);
    streams
}

/// All at once have half a message that waits for the rest, and then an answer that waits for room.
/// Then all is read, and it is quiet. `before` is when nothing of it was there.
fn peak(driver: &mut dyn Steps, streams: &mut [UnixStream], before: &Region<'_, System>) {
    let bytes_in = driver.metrics().bytes_in;
    for (part, least) in [(1, MESSAGE / 2), (2, ANSWER / 2)] {
        streams.iter_mut().for_each(|stream| stream.write_all(&SEVENS[..MESSAGE / 2]).unwrap());
        let came = bytes_in + (part * MESSAGE / 2 * STREAMS) as u64;
        until(driver, "it does not wait", |driver| {
            driver.metrics().bytes_in == came && lives(before) >= (least * STREAMS) as isize
        });
    }
    let mut buffer = vec![0; 64 * KIB];
    let mut left = vec![ANSWER; streams.len()];
    until(driver, "not all was answered", |_| {
        for (stream, left) in streams.iter_mut().zip(&mut left) {
            match stream.read(&mut buffer) {
                Ok(count) => *left -= count,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        left.iter().all(|left| *left == 0)
    });
    until(driver, "output is left", |driver| driver.metrics().buffered == 0);
}

fn end(driver: &mut dyn Steps, streams: Vec<UnixStream>) {
    drop(streams);
    until(driver, "not all have ended", |driver| driver.metrics().open == 0);
}

/// How many more blocks live now than did then.
fn blocks(region: &Region<'_, System>) -> isize {
    let change = region.change();
    change.allocations as isize - change.deallocations as isize
}

/// A loop has its pools, at most 16 chunks and two larger buffers, and a cork. Once they are full
/// no block is added, by no peak and by no other connections. How large each is depends on what was
/// given back last, and is within bounds.
fn of_a_reactor() {
    const POOLS: usize = 16 * 64 * KIB + 2 * 512 * KIB + 256 * KIB;
    let most = (POOLS + KIB * STREAMS) as isize;
    let mut reactor = Reactor::new().unwrap();
    let before = Region::new(GLOBAL);
    let (mut busy, mut ended) = (Vec::with_capacity(12), Vec::with_capacity(4));
    for _ in 0..4 {
        let mut streams = connect(&mut reactor);
        for _ in 0..3 {
            peak(&mut reactor, &mut streams, &before);
            busy.push(blocks(&before));
            let kept = lives(&before);
            assert!(kept <= most, "{kept} bytes are kept, and may be {most}");
        }
        end(&mut reactor, streams);
        ended.push(blocks(&before));
    }
    // The first connections fill the pools; the order of what comes and goes may leave a place or
    // two to the next ones. What every connection, or every peak, leaves behind would be more.
    let more = [busy[11] - busy[3], ended[3] - ended[1]];
    assert!(more.iter().all(|blocks| *blocks < 9), "{more:?}: {busy:?} {ended:?}");
    println!("a reactor keeps {} blocks, {} bytes of {most}", ended[1], lives(&before));
}

/// A connection has a thread, and while output is stuck a second one, with at most a chunk and a
/// cork each. When the driver has ended nothing of it is there, where `exact`.
fn of_threads(exact: bool) {
    const OF_A_THREAD: usize = (64 + 64 + 8) * KIB;
    let (others, region) = (threads(), Region::new(GLOBAL));
    let mut driver = Blocking::new();
    driver.keep_running(true);
    let mut handle = driver.handle();
    let runs = thread::spawn(move || driver.run().map(drop));
    let mut streams = connect(&mut handle);
    let before = Region::new(GLOBAL);
    for _ in 0..4 {
        peak(&mut handle, &mut streams, &before);
        let most = (2 * STREAMS * OF_A_THREAD) as isize;
        until(&mut handle, "too much is kept", |_| lives(&before) <= most);
    }
    end(&mut handle, streams);
    handle.shutdown();
    runs.join().unwrap().unwrap();
    drop(handle);
    // The last ones wait a second for more work.
    let deadline = Instant::now() + PATIENCE;
    while threads() > others {
        assert!(Instant::now() < deadline, "{} threads are left", threads());
        thread::park_timeout(Duration::from_millis(1));
    }
    let exact = exact && others > 0;
    assert!(!exact || lives(&region) == 0, "{} bytes are left", lives(&region));
}

/// Threads of this process, where that can be known.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

#[test]
fn c16_after_a_peak_of_connections_their_buffers_are_given_back() {
    const NAME: &str = "peaks::c16_after_a_peak_of_connections_their_buffers_are_given_back";
    const ALONE: &str = "LARIAT_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        of_a_reactor();
        // What is made once for all threads is made in the first round.
        return [false, true].into_iter().for_each(of_threads);
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", NAME, "--nocapture", "--test-threads", "1"]).env(ALONE, "1");
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
