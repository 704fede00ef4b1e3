//! The command line.

use std::net::ToSocketAddrs;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use lariat::blocking::Blocking;
use lariat::reactor::Reactor;
use lariat::{Address, Driver, DriverLimits};
use lexopt::prelude::*;

use super::secure::TlsFlags;
use super::{Failure, Result};

/// How long connections may go on after the first Ctrl-C.
const DRAIN: Duration = Duration::from_secs(5);

/// What the examples differ in.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// What it does, after its name.
    pub(crate) about: &'static str,
    /// Where it listens by default.
    pub(crate) addr: &'static str,
    /// A line to paste into a second terminal.
    pub(crate) try_this: &'static str,
    /// The drivers that it can run on; the first is the default.
    pub(crate) drivers: &'static [DriverKind],
    /// What a connection costs on the blocking driver, for the ready line.
    pub(crate) threads: &'static str,
    /// What `--idle-timeout` does; None for what it does in the library.
    pub(crate) idle_timeout: Option<&'static str>,
    /// Whether there is `--threads`: what is served needs nothing that the drivers would share.
    pub(crate) scales: bool,
    /// Whether there is `--udp`.
    pub(crate) udp: bool,
    /// Whether there is `--tls-cert` and the like, and what is then offered by ALPN.
    pub(crate) tls: Option<&'static [&'static str]>,
    /// What it counts itself, for the rates of `--stats`: the name, and the count so far.
    pub(crate) counted: Option<(&'static str, &'static AtomicU64)>,
}

/// The drivers that real sockets have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DriverKind {
    Reactor,
    Blocking,
}

impl DriverKind {
    fn name(self) -> &'static str {
        match self {
            DriverKind::Reactor => "reactor",
            DriverKind::Blocking => "blocking",
        }
    }

    fn limits(self) -> DriverLimits {
        match self {
            DriverKind::Reactor => DriverLimits::default(),
            DriverKind::Blocking => DriverLimits::blocking(),
        }
    }
}

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    /// As they were written.
    named: Vec<String>,
    /// What each of them stands for, after [`Options::resolve`].
    pub(crate) addrs: Vec<Address>,
    pub(crate) driver: DriverKind,
    /// How many drivers, each on a thread of its own.
    pub(crate) threads: usize,
    /// Datagrams instead of connections.
    pub(crate) udp: bool,
    pub(super) tls: TlsFlags,
    /// With TLS, after [`Options::prepare_tls`].
    #[cfg(feature = "tls")]
    pub(super) secured: Option<super::secure::Secured>,
    /// The driver and its threads, for the ready line.
    pub(super) how: String,
    connections_max: Option<usize>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) duration: Option<Duration>,
    pub(crate) stats: Option<Duration>,
    /// As in [`Program::counted`].
    pub(crate) counted: Option<(&'static str, &'static AtomicU64)>,
    pub(crate) verbose: bool,
    pub(crate) quiet: bool,
}

/// What a command line comes to.
pub(super) enum Parsed {
    Options(Box<Options>),
    /// Something to print, and nothing to do.
    Text(String),
}

/// Reads the command line; `Err` is the sentence that says what is wrong with it.
pub(super) fn parse(
    program: &Program,
    mut parser: lexopt::Parser,
) -> std::result::Result<Parsed, String> {
    let mut options = Options::new(program.drivers[0]);
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Short('a') | Long("addr") => options.named.push(value(&mut parser, "--addr", address)?),
            Short('d') | Long("driver") if program.drivers.len() > 1 => {
                options.driver = value(&mut parser, "--driver", driver)?;
            }
            Short('t') | Long("threads") if program.scales => {
                options.threads = value(&mut parser, "--threads", threads)?;
            }
            Long("udp") if program.udp => options.udp = true,
            Long("tls-cert") if program.tls.is_some() => {
                options.tls.cert = Some(value(&mut parser, "--tls-cert", file)?);
            }
            Long("tls-key") if program.tls.is_some() => {
                options.tls.key = Some(value(&mut parser, "--tls-key", file)?);
            }
            Long("tls-self-signed") if program.tls.is_some() => options.tls.self_signed = true,
            Long("max-conns") => {
                options.connections_max = Some(value(&mut parser, "--max-conns", count)?);
            }
            Long("idle-timeout") => {
                options.idle_timeout = Some(value(&mut parser, "--idle-timeout", duration)?);
            }
            Long("duration") => {
                options.duration = Some(value(&mut parser, "--duration", duration)?);
            }
            Long("stats") => {
                options.stats = Some(value(&mut parser, "--stats", duration)?);
            }
            Short('v') | Long("verbose") => options.verbose = true,
            Short('q') | Long("quiet") => options.quiet = true,
            Short('h') | Long("help") => return Ok(Parsed::Text(help(program))),
            Short('V') | Long("version") => {
                return Ok(Parsed::Text(format!(
                    "{} (lariat {})",
                    program.name,
                    env!("CARGO_PKG_VERSION")
                )));
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    if options.verbose && options.quiet {
        return Err("--verbose and --quiet contradict one another".to_owned());
    }
    if let Some(fault) = options.tls.fault() {
        return Err(fault.to_owned());
    }
    if options.udp && options.tls.are_given() {
        return Err("--udp has no TLS".to_owned());
    }
    options.check_threads()?;
    options.counted = program.counted;
    options.how = match options.driver {
        DriverKind::Reactor if options.threads > 1 => {
            format!("reactor, {} threads", options.threads)
        }
        DriverKind::Reactor => "reactor, 1 thread".to_owned(),
        DriverKind::Blocking if options.udp => "blocking, a thread per socket".to_owned(),
        DriverKind::Blocking => format!("blocking, {}", program.threads),
    };
    if options.named.is_empty() {
        options.named.push(program.addr.to_owned());
    }
    Ok(Parsed::Options(Box::new(options)))
}

/// The value of `flag`, as `read` understands it.
fn value<T>(
    parser: &mut lexopt::Parser,
    flag: &str,
    read: fn(&str) -> Option<T>,
) -> std::result::Result<T, String> {
    let text = parser.value().map_err(|_| format!("{flag} needs a value"))?;
    let text = text.to_string_lossy();
    read(&text).ok_or_else(|| format!("{flag} {text}: {}", expected(flag)))
}

fn expected(flag: &str) -> &'static str {
    match flag {
        "--addr" => "not an address; one looks like 127.0.0.1:7000, [::1]:7000, :0 or unix:PATH",
        "--driver" => "not a driver; there are reactor and blocking",
        "--tls-cert" | "--tls-key" => "not a file",
        "--threads" => "not a number from 1 to 1024",
        "--max-conns" => "not a number from 1 to 1073741824",
        _ => "not a time above zero; one looks like 500ms, 30s or 2m",
    }
}

/// At most 24 lines of 80 columns, the last of them to paste.
fn help(program: &Program) -> String {
    let Program { name, about, addr, try_this, drivers, idle_timeout, .. } = program;
    let scales = "  -t, --threads N       serve on N reactors, each on a thread of its own [1]\n";
    let scales = if program.scales { scales } else { "" };
    let udp = "      --udp             serve datagrams, not connections\n";
    let udp = if program.udp { udp } else { "" };
    let tls = "      --tls-cert FILE, --tls-key FILE  serve TLS with these PEM files
      --tls-self-signed serve TLS with a certificate made for localhost\n";
    let tls = if program.tls.is_some() { tls } else { "" };
    let idle = "close a connection when for T no byte has moved [off]";
    let idle = idle_timeout.unwrap_or(idle);
    let chosen = drivers[0];
    let (mut driver, mut most) = (String::new(), chosen.limits().connections_max.to_string());
    for other in &drivers[1..] {
        let (first, other_name) = (chosen.name(), other.name());
        driver += &format!("  -d, --driver NAME     {first} or {other_name} [{first}]\n");
        most += &format!("; {other_name} {}", other.limits().connections_max);
    }
    format!(
        "{name}: {about}

usage: {name} [options]

  -a, --addr ADDR       listen here; may be given several times [{addr}]
                        HOST:PORT, [::1]:PORT or :PORT (local); 0: a free port
{driver}{scales}{udp}{tls}      --max-conns N     open at a time; others wait [{most}]
      --idle-timeout T  {idle}
      --duration T      stop after T [off]
      --stats T         print what happens per second on stderr, every T [off]
  -v, --verbose         print each close with its reason
  -q, --quiet           print the ready line and errors only
  -h, --help, -V, --version  print this, print the version

T is a time: 500ms, 30s, 2m, 1h, or a number of seconds.
Ctrl-C lets connections finish for 5 s; a second one ends at once.
RUST_LOG=debug shows what the library does.

{try_this}"
    )
}

/// Anything that has the form of an address; whether it stands for one, the system tells later.
fn address(text: &str) -> Option<String> {
    if text.strip_prefix("unix:").is_some_and(|name| !name.is_empty()) {
        return Some(text.to_owned());
    }
    let (host, port) = text.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if bare_v6 || host.contains(char::is_whitespace) {
        return None;
    }
    Some(if host.is_empty() { format!("127.0.0.1:{port}") } else { text.to_owned() })
}

fn file(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn driver(text: &str) -> Option<DriverKind> {
    [DriverKind::Reactor, DriverKind::Blocking].into_iter().find(|kind| kind.name() == text)
}

fn count(text: &str) -> Option<usize> {
    text.parse().ok().filter(|count| (1..=1 << 30).contains(count))
}

fn threads(text: &str) -> Option<usize> {
    text.parse().ok().filter(|threads| (1..=1024).contains(threads))
}

/// `500ms`, `30s`, `2m`, `1h`; a number alone is one of seconds.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "" | "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3600)?),
        _ => return None,
    };
    (!duration.is_zero()).then_some(duration)
}

impl Options {
    fn new(driver: DriverKind) -> Options {
        Options {
            named: Vec::new(),
            addrs: Vec::new(),
            driver,
            threads: 1,
            udp: false,
            tls: TlsFlags::default(),
            #[cfg(feature = "tls")]
            secured: None,
            how: String::new(),
            connections_max: None,
            idle_timeout: None,
            duration: None,
            stats: None,
            counted: None,
            verbose: false,
            quiet: false,
        }
    }

    /// The driver that was asked for, with its bounds.
    #[allow(dead_code)] // `echo_blocking` has but one, and names it.
    pub(crate) fn driver(&self) -> lariat::Result<Box<dyn Driver>> {
        let limits = self.driver_limits();
        Ok(match self.driver {
            DriverKind::Reactor => Box::new(Reactor::with_limits(limits)?),
            DriverKind::Blocking => Box::new(Blocking::with_limits(limits)?),
        })
    }

    /// What several drivers cannot do, as a sentence.
    fn check_threads(&self) -> std::result::Result<(), String> {
        if self.threads == 1 {
            return Ok(());
        }
        if self.driver == DriverKind::Blocking {
            return Err("--threads is for the reactor: blocking has threads of its own".to_owned());
        }
        if let Some(name) = self.named.iter().find(|named| named.starts_with("unix:")) {
            return Err(format!("--threads needs a port that can be shared: {name} cannot"));
        }
        match self.connections_max {
            Some(most) if most < self.threads => Err(format!(
                "--max-conns {most}: less than one for each of {} threads",
                self.threads
            )),
            _ => Ok(()),
        }
    }

    /// The bounds of a driver: its part of what was asked for, and 5 s for connections to finish
    /// in.
    pub(crate) fn driver_limits(&self) -> DriverLimits {
        let mut limits = self.driver.limits();
        limits.drain = DRAIN;
        if let Some(most) = self.connections_max {
            limits.connections_max = most / self.threads;
        }
        limits
    }

    /// Reads the files of TLS, or makes a certificate.
    #[cfg(feature = "tls")]
    pub(super) fn prepare_tls(&mut self, program: &Program) -> Result {
        if self.tls.are_given() {
            let protocols = program.tls.unwrap_or_default();
            let secured = super::secure::Secured::new(&self.tls, program.name, protocols)?;
            self.secured = Some(secured);
        }
        Ok(())
    }

    /// Says that there is no TLS, if it was asked for.
    #[cfg(not(feature = "tls"))]
    pub(super) fn prepare_tls(&mut self, _: &Program) -> Result {
        if self.tls.are_given() {
            let sentence = "this program was built without TLS: build it with --features tls";
            return Err(Failure::Sentence(sentence.to_owned()));
        }
        Ok(())
    }

    /// Looks the addresses up. Several flags may stand for the same one; that is for the system to
    /// refuse.
    pub(super) fn resolve(&mut self) -> Result {
        for named in &self.named {
            if named.starts_with("unix:") {
                self.addrs.push(Address::from(named));
                continue;
            }
            match named.to_socket_addrs() {
                Ok(found) => self.addrs.push(found.collect::<Vec<_>>().into()),
                Err(error) => {
                    let sentence = format!("cannot listen on {named}: {error}");
                    return Err(Failure::Sentence(sentence));
                }
            }
        }
        Ok(())
    }
}
