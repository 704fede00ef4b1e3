//! A server of reminders: a client says when it wants to hear what, and hears it then.
//!
//! It shows the three ways in which something happens without a byte from a client: timers of a
//! connection, any number of them, each with a key; a timer of the driver itself, which repeats;
//! and another thread, which reaches the driver by its `Handle`. The thread here reads the
//! operator's terminal. Run it, and talk to it from a second one:
//!
//! ```text
//! $ cargo run --release --example timers
//! listening on 127.0.0.1:7000 (tcp, reactor, 1 thread)
//! lunch                                         $ nc 127.0.0.1 7000
//!                                               in 3 tea is ready
//!                                               timer 1 fires in 3s
//!                                               in 600 milk
//!                                               timer 2 fires in 600s
//!                                               again 2 1.5
//!                                               timer 2 fires in 1.5s
//!                                               operator: lunch
//!                                               now: milk
//!                                               now: tea is ready
//!                                               here: 1
//! quit                                          stop 1
//!                                               no: timer 1 is not set
//! ```
//!
//! `again` sets a timer again, `stop` cancels it. Every ten seconds all clients hear how many are
//! connected. They also hear what the operator types, and `quit` stops the server, as Ctrl-C does.
//! `--driver blocking` runs the same on threads; `--help` has the rest.
//!
//! A timer never fires early, and late only as far as the program is busy. The tests below set one
//! of an hour and wait for it: the simulator's time is virtual.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead};
use std::process::ExitCode;
use std::str::{FromStr, SplitWhitespace};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use lariat::{
    CloseReason, ConnId, Context, Control, Driver, Handle, Input, ListenOptions, ListenerId,
    Outcome, Protocol, Timer,
};

use common::{DriverKind, Options, Program};

/// Timers that a client may have at a time.
const TIMERS_MAX: u16 = 16;
/// Bytes of a line.
const LINE_MAX: usize = 512;
/// How often all clients hear how many are connected.
const ROUND: Duration = Duration::from_secs(10);

// ---- what all share -----------------------------------------------------------------------------

/// Who is connected: the driver's timer and the operator's thread write to all of them.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<BTreeSet<ConnId>>>);

impl Clients {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<ConnId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<ConnId> {
        self.lock().iter().copied().collect()
    }
}

// ---- timers of a connection ---------------------------------------------------------------------

struct Reminders {
    clients: Clients,
    /// What is to be said when the timer fires. The library knows the time, this the rest.
    texts: BTreeMap<Timer, String>,
    verbose: bool,
}

impl Reminders {
    fn new(clients: &Clients, verbose: bool) -> Reminders {
        Reminders { clients: clients.clone(), texts: BTreeMap::new(), verbose }
    }

    /// Carries a command out; `Err` says what is wrong with it.
    fn command(&mut self, cx: &mut Context<'_>, line: &str) -> Result<String, String> {
        let mut words = line.split_whitespace();
        match words.next() {
            None => Err("in SECONDS TEXT, again N SECONDS, or stop N".to_owned()),
            Some("in") => {
                let delay = seconds(&mut words)?;
                let free = (1..=TIMERS_MAX).map(Timer::new).find(|t| !self.texts.contains_key(t));
                let timer = free.ok_or(format!("{TIMERS_MAX} timers are set already"))?;
                self.texts.insert(timer, words.collect::<Vec<_>>().join(" "));
                cx.set_timer(timer, delay);
                Ok(format!("{timer} fires in {delay:?}"))
            }
            Some("again") => {
                let timer = self.known(&mut words)?;
                let delay = seconds(&mut words)?;
                // The same key: what was set before is replaced.
                cx.set_timer(timer, delay);
                Ok(format!("{timer} fires in {delay:?}"))
            }
            Some("stop") => {
                let timer = self.known(&mut words)?;
                cx.cancel_timer(timer);
                self.texts.remove(&timer);
                Ok(format!("{timer} is stopped"))
            }
            Some(other) => Err(format!("{} is no command", other.escape_debug())),
        }
    }

    fn known(&self, words: &mut SplitWhitespace<'_>) -> Result<Timer, String> {
        let timer = Timer::new(number(words)?);
        self.texts.contains_key(&timer).then_some(timer).ok_or(format!("{timer} is not set"))
    }
}

impl Protocol for Reminders {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.clients.lock().insert(cx.id());
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
            let line = input.split_to(end + 1);
            let answer = self.command(cx, &String::from_utf8_lossy(&line));
            let answer = answer.unwrap_or_else(|sentence| format!("no: {sentence}"));
            cx.write(format!("{answer}\n").as_bytes());
        }
        // The answer to the last lines still arrives.
        if input.len() > LINE_MAX { Err("a line is too long".into()) } else { Ok(()) }
    }

    /// A timer fires once; it is set again to fire again.
    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        if let Some(text) = self.texts.remove(&timer) {
            cx.write(format!("now: {text}\n").as_bytes());
        }
        Ok(())
    }

    /// Timers die with their connection: there is none to cancel.
    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        self.clients.lock().remove(&cx.id());
        if self.verbose {
            common::tell(format_args!("closed {}: {reason}", cx.peer_addr()));
        }
    }
}

fn number<T: FromStr>(words: &mut SplitWhitespace<'_>) -> Result<T, String> {
    words.next().and_then(|word| word.parse().ok()).ok_or_else(|| "a number is missing".to_owned())
}

fn seconds(words: &mut SplitWhitespace<'_>) -> Result<Duration, String> {
    let seconds = number(words)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{seconds} s is no time to wait"))
}

// ---- a timer of the driver ----------------------------------------------------------------------

/// Runs on the driver, outside of any connection, and sets itself again.
fn round(control: &mut Control<'_>, clients: Clients) {
    let all = clients.all();
    control.push_all(&all, format!("here: {}\n", all.len()));
    control.set_timer(ROUND, move |control| round(control, clients));
}

// ---- another thread -----------------------------------------------------------------------------

/// Sends what the operator types to all clients. `Err`: the driver has ended, or too much waits for
/// it.
fn listen_to_the_operator(
    lines: impl BufRead,
    handle: &Handle,
    clients: &Clients,
) -> lariat::Result<()> {
    for line in lines.lines().map_while(Result::ok) {
        if line == "quit" {
            handle.shutdown();
        } else {
            let clients = clients.clone();
            // Nothing here waits: the closure is run by the driver's thread.
            handle.call(move |control| {
                control.push_all(&clients.all(), format!("operator: {line}\n"));
            })?;
        }
    }
    Ok(())
}

// ---- the server ---------------------------------------------------------------------------------

const PROGRAM: Program = Program {
    name: "timers",
    about: "says what you ask for, when you ask for it",
    addr: "127.0.0.1:7000",
    try_this: r"printf 'in 1 tea is ready\n' | nc -q2 127.0.0.1 7000",
    drivers: &[DriverKind::Reactor, DriverKind::Blocking],
    threads: "two threads per connection",
    idle_timeout: None,
    scales: false,
    udp: false,
    tls: None,
    counted: None,
};

fn main() -> ExitCode {
    common::main(&PROGRAM, |options| {
        let mut driver = options.driver()?;
        let listeners = prepare(&mut *driver, options)?;
        common::run(&mut *driver, &listeners, options)
    })
}

/// Listens, begins the rounds and starts the operator's thread, on any driver.
fn prepare(driver: &mut dyn Driver, options: &Options) -> lariat::Result<Vec<ListenerId>> {
    let clients = Clients::default();
    let mut how = ListenOptions::default();
    how.limits.idle = options.idle_timeout;
    let mut listeners = Vec::new();
    for addr in &options.addrs {
        let (clients, verbose) = (clients.clone(), options.verbose);
        let factory = move |_: &_| Some(Reminders::new(&clients, verbose));
        listeners.push(driver.control().listen_with(addr, how.clone(), factory)?);
    }
    round(&mut driver.control(), clients.clone());
    // It ends with the process, if not before: nothing can wake it out of its read.
    let handle = driver.handle();
    thread::spawn(move || {
        if let Err(error) = listen_to_the_operator(io::stdin().lock(), &handle, &clients) {
            common::tell(format_args!("the operator is not heard any more: {error}"));
        }
    });
    Ok(listeners)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lariat::sim::{Sim, every_split};

    #[test]
    fn answers_do_not_depend_on_how_lines_are_cut() {
        let clients = Clients::default();
        let lines = b"in 5 tea\nagain 1 7\nstop 1\nstop 1\nin -1 y\nin\nnonsense\n\n";
        every_split(|| Reminders::new(&clients, false), lines);
        assert_eq!(clients.all(), []);
    }

    #[test]
    fn an_hour_is_waited_for_to_the_millisecond_and_a_timer_can_be_set_anew() {
        let mut sim = Sim::new(1);
        let clients = Clients::default();
        let factory = move |_: &_| Some(Reminders::new(&clients, false));
        let listener = sim.listen("127.0.0.1:7000", factory).unwrap();
        let client = sim.dial(sim.addresses(listener)[0]);
        client.send(b"in 3600 tea\nin 1800 milk\nin 1 sugar\nstop 3\n");
        sim.run_for(Duration::from_secs(1799)).unwrap();
        client.send(b"again 2 60\n");
        sim.run_for(Duration::from_secs(59)).unwrap();
        assert!(!String::from_utf8_lossy(&client.take_received()).contains("now"));
        sim.run_for(Duration::from_secs(2)).unwrap();
        assert_eq!(client.take_received(), b"now: milk\n");
        sim.run_for(Duration::from_millis(3_600_000 - 1_860_000 - 1)).unwrap();
        assert_eq!(client.take_received(), b"");
        sim.run_for(Duration::from_millis(3)).unwrap();
        assert_eq!(client.take_received(), b"now: tea\n");
    }

    #[test]
    fn a_client_has_so_many_timers_and_one_that_is_stopped_or_fired_makes_room() {
        let clients = Clients::default();
        let mut probe = lariat::sim::Probe::new(Reminders::new(&clients, false));
        let mut says = |line: &str| {
            probe.receive(format!("{line}\n").as_bytes());
            String::from_utf8(probe.sent().into_vec()).unwrap()
        };
        for number in 1..=TIMERS_MAX {
            assert!(says(&format!("in {number}00 x")).contains(" fires in "));
        }
        let full = format!("no: {TIMERS_MAX} timers are set already\n");
        assert_eq!(says("in 5 x"), full);
        assert!(says("stop 7").ends_with(" is stopped\n"));
        assert!(says("in 5 tea").contains(" fires in 5s"));
        assert_eq!(says("in 5 x"), full);
        probe.advance(Duration::from_secs(5));
        assert_eq!(probe.sent(), b"now: tea\n");
        probe.receive(b"in 1 milk\n");
        probe.advance(Duration::from_secs(2));
        assert!(String::from_utf8_lossy(&probe.sent()).ends_with("now: milk\n"));
    }

    #[test]
    fn everybody_hears_the_rounds_and_the_operator() {
        let mut sim = Sim::new(1);
        let clients = Clients::default();
        let (kept, rounds) = (clients.clone(), clients.clone());
        let factory = move |_: &_| Some(Reminders::new(&kept, false));
        let listener = sim.listen("127.0.0.1:7000", factory).unwrap();
        let people = [(); 2].map(|()| sim.dial(sim.addresses(listener)[0]));
        round(&mut sim.control(), rounds);
        sim.run_for(Duration::from_secs(5)).unwrap();
        let typed = b"lunch is ready\n";
        listen_to_the_operator(&typed[..], &sim.handle(), &clients).unwrap();
        sim.run_for(Duration::from_secs(16)).unwrap();
        for person in &people {
            assert_eq!(person.take_received(), b"operator: lunch is ready\nhere: 2\nhere: 2\n");
        }
        listen_to_the_operator(&b"quit\n"[..], &sim.handle(), &clients).unwrap();
        sim.run_for(Duration::from_secs(1)).unwrap();
        assert!(people.iter().all(|person| person.is_finished()));
    }
}
