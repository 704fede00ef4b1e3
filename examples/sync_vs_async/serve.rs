//! A server as a process of its own. It ends when its standard input does, and so with the process
//! that started it, however that ends.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lariat::blocking::Blocking;
use lariat::http::Http;
use lariat::reactor::Reactor;
use lariat::{Driver, DriverLimits, Handle, ListenOptions, ListenerId};
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::game::{Adding, Waiting};
use crate::web::Hello;

/// Clients may all connect before the first of them is accepted.
const BACKLOG: u32 = 4096;
/// Samples are kept for a minute at most.
const SAMPLES_MAX: usize = 12_000;
/// Where the unsent bytes are watched, the kernel keeps few of its own.
const SEND_BUFFER: usize = 64 * 1024;

/// What a server tells when it ends.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Served {
    /// Milliseconds, unsent bytes of all connections.
    pub(crate) unsent: Vec<(f64, u64)>,
}

/// Serves until standard input ends. `sample` is the time between two looks at the unsent bytes.
pub(crate) fn serve(kind: &str, http: bool, sample: Option<Duration>) -> Result<(), Failure> {
    let mut driver = driver(kind)?;
    let waiting = match kind {
        "timer" => Waiting::Timer,
        "offload" => Waiting::Offload,
        _ => Waiting::Sleep,
    };
    let listener = listen(&mut *driver, waiting, http, sample.map(|_| SEND_BUFFER))?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", driver.addresses(listener)[0])?;
    stdout.flush()?;
    drop(stdout);

    let unsent = Arc::new(Mutex::new(Vec::new()));
    if let Some(pause) = sample {
        let (handle, unsent) = (driver.handle(), Arc::clone(&unsent));
        thread::spawn(move || watch(&handle, pause, &unsent));
    }
    thread::spawn(move || {
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        let unsent = unsent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let told = serde_json::to_string(&Served { unsent }).unwrap_or_default();
        let _ = writeln!(io::stdout().lock(), "{told}");
        // A thread may be asleep in a callback; nothing here is worth waiting for it.
        std::process::exit(0);
    });
    driver.run()?;
    Ok(())
}

fn driver(kind: &str) -> Result<Box<dyn Driver>, Failure> {
    let mut limits = DriverLimits::default();
    limits.connections_max = 1 << 20;
    // The slow callback is the point here, and no news.
    limits.slow_callback = None;
    Ok(match kind {
        "serial" | "threads" => {
            let mut driver = Blocking::with_limits(limits)?;
            driver.serial(kind == "serial");
            Box::new(driver)
        }
        "reactor" | "offload" | "timer" => Box::new(Reactor::with_limits(limits)?),
        _ => return Err(Failure::Sentence(format!("there is no server {kind}"))),
    })
}

fn listen(
    driver: &mut dyn Driver,
    waiting: Waiting,
    http: bool,
    send_buffer: Option<usize>,
) -> lariat::Result<ListenerId> {
    let mut options = ListenOptions::default();
    options.backlog = BACKLOG;
    options.send_buffer = send_buffer;
    if http {
        let factory = move |_: &_| Some(Http::new(Hello::new(waiting)));
        driver.control().listen_with("127.0.0.1:0", options, factory)
    } else {
        let factory = move |_: &_| Some(Adding::new(waiting));
        driver.control().listen_with("127.0.0.1:0", options, factory)
    }
}

fn watch(handle: &Handle, pause: Duration, unsent: &Mutex<Vec<(f64, u64)>>) {
    let begun = Instant::now();
    for _ in 0..SAMPLES_MAX {
        let buffered = handle.metrics().buffered;
        let at = begun.elapsed().as_secs_f64() * 1e3;
        unsent.lock().unwrap_or_else(PoisonError::into_inner).push((at, buffered));
        thread::sleep(pause);
    }
}
