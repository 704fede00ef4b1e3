//! A small key-value server that speaks the protocol of Redis (RESP), so that `redis-cli` and
//! `redis-benchmark` can talk to it.
//!
//! ```text
//! $ cargo run --release --example redis_like
//! listening on 127.0.0.1:6379 (tcp, reactor, 1 thread)
//!
//! $ redis-cli incr visits                              # in a second terminal
//! (integer) 1
//! $ redis-benchmark -t set,get,incr -P 16 -q
//! ```
//!
//! It shows a format of one's own for the framing layer: `Resp` finds where a command ends, and
//! `Commands` gets whole ones, also where a client sends many at once without waiting (pipelining).
//! It knows PING, ECHO, GET, SET, DEL, INCR, EXISTS, DBSIZE, INFO, COMMAND and QUIT. Keys and
//! values are bounded to 64 MiB in all; nothing is written to disk.

mod common;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use lariat::framing::{Found, FrameError, FrameHandler, Framed, Framing};
use lariat::{CloseReason, Context, ListenOptions, Outcome};

use common::{DriverKind, Options, Program};

/// The longest command, and the most arguments of one.
const COMMAND_MAX: usize = 512 * 1024;
const ARGUMENTS_MAX: usize = 1024;
/// Bytes of all keys and values.
const STORE_MAX: usize = 64 << 20;

// ---- the format ---------------------------------------------------------------------------------

/// A command is an array of strings, `*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n`, or a line of words.
#[derive(Default)]
struct Resp {
    /// What has been looked at of the arriving command, and how many of its strings are to come.
    seen: usize,
    left: Option<usize>,
}

/// What a line at the beginning of `bytes` says behind `mark`, and its length with its end.
fn number(bytes: &[u8], mark: u8) -> Result<Option<(usize, usize)>, FrameError> {
    let Some(end) = bytes.iter().take(32).position(|byte| *byte == b'\n') else {
        return if bytes.len() < 32 { Ok(None) } else { Err(FrameError::InvalidLength) };
    };
    let digits = bytes[..end].strip_suffix(b"\r").and_then(|line| line.strip_prefix(&[mark]));
    let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_digit));
    let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
    let number = digits.and_then(|digits| digits.parse().ok()).ok_or(FrameError::InvalidLength)?;
    Ok(Some((number, end + 1)))
}

impl Framing for Resp {
    fn find(&mut self, bytes: &[u8]) -> Result<Found, FrameError> {
        let more = |seen: usize| match seen > COMMAND_MAX {
            true => Err(FrameError::TooLong(COMMAND_MAX)),
            false => Ok(Found::More(seen)),
        };
        if bytes[0] != b'*' {
            // Words that a person types.
            let Some(end) = bytes[self.seen..].iter().position(|byte| *byte == b'\n') else {
                self.seen = bytes.len();
                return more(bytes.len() + 1);
            };
            let len = self.seen + end + 1;
            if len > COMMAND_MAX {
                return Err(FrameError::TooLong(COMMAND_MAX));
            }
            *self = Resp::default();
            return Ok(Found::Frame { payload: 0..len, len });
        }
        let mut left = match self.left {
            Some(left) => left,
            None => match number(bytes, b'*')? {
                Some((count, _)) if count > ARGUMENTS_MAX => return Err(FrameError::InvalidLength),
                Some((count, len)) => {
                    self.seen = len;
                    count
                }
                None => return more(bytes.len() + 1),
            },
        };
        while left > 0 {
            self.left = Some(left);
            let Some((len, head)) = number(&bytes[self.seen..], b'$')? else {
                return more(bytes.len() + 1);
            };
            let end = self.seen.saturating_add(head).saturating_add(len).saturating_add(2);
            if bytes.len() < end || end > COMMAND_MAX {
                return more(end);
            }
            self.seen = end;
            left -= 1;
        }
        let len = std::mem::take(self).seen;
        Ok(Found::Frame { payload: 0..len, len })
    }
}

/// The words of a whole command.
fn words(command: &[u8]) -> Vec<&[u8]> {
    if command[0] != b'*' {
        let words = command.split(u8::is_ascii_whitespace);
        return words.filter(|word| !word.is_empty()).collect();
    }
    let (mut rest, mut words) = (command, Vec::new());
    let mut line = |mark| match number(rest, mark) {
        Ok(Some((number, len))) => {
            rest = &rest[len..];
            if mark == b'$' {
                words.push(&rest[..number]);
                rest = &rest[number + 2..];
            }
            number
        }
        _ => 0,
    };
    for _ in 0..line(b'*') {
        line(b'$');
    }
    words
}

// ---- the commands -------------------------------------------------------------------------------

/// What all connections share.
#[derive(Default)]
struct Store {
    values: HashMap<Vec<u8>, Vec<u8>>,
    /// Bytes of all keys and values.
    bytes: usize,
}

impl Store {
    fn get(&self, key: &[u8]) -> Option<&Vec<u8>> {
        self.values.get(key)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let before = self.get(key).map_or(0, |old| key.len() + old.len());
        let bytes = self.bytes - before + key.len() + value.len();
        if bytes > STORE_MAX {
            return Err("OOM command not allowed when used memory > 'maxmemory'.");
        }
        self.bytes = bytes;
        match self.values.get_mut(key) {
            Some(old) => value.clone_into(old),
            None => drop(self.values.insert(key.to_vec(), value.to_vec())),
        }
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        let removed = self.values.remove(key);
        self.bytes -= removed.as_ref().map_or(0, |value| key.len() + value.len());
        removed.is_some()
    }

    fn increment(&mut self, key: &[u8]) -> Result<i64, &'static str> {
        let text = self.get(key).map_or(Some("0"), |value| std::str::from_utf8(value).ok());
        let number = text.and_then(|text| text.parse::<i64>().ok());
        let number = number.ok_or("ERR value is not an integer or out of range")?;
        let number = number.checked_add(1).ok_or("ERR increment or decrement would overflow")?;
        self.set(key, number.to_string().as_bytes()).map(|()| number)
    }
}

/// One client.
struct Commands {
    store: Arc<Mutex<Store>>,
    /// Tell the close on standard error.
    tells: bool,
}

fn bulk(cx: &mut Context<'_>, value: Option<&[u8]>) -> Outcome {
    match value {
        Some(value) => {
            write!(cx, "${}\r\n", value.len())?;
            cx.write(value);
            cx.write(b"\r\n");
        }
        None => cx.write(b"$-1\r\n"),
    }
    Ok(())
}

impl FrameHandler for Commands {
    fn frame(&mut self, cx: &mut Context<'_>, command: &[u8]) -> Outcome {
        let words = words(command);
        let [name, args @ ..] = &words[..] else { return Ok(()) };
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        // A thread that panicked has ended its own connection; the values are whole.
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        match (name.as_str(), args) {
            ("ping", []) => cx.write(b"+PONG\r\n"),
            ("ping" | "echo", [text]) => bulk(cx, Some(text))?,
            ("get", [key]) => bulk(cx, store.get(key).map(Vec::as_slice))?,
            ("set", [key, value]) => match store.set(key, value) {
                Ok(()) => cx.write(b"+OK\r\n"),
                Err(error) => write!(cx, "-{error}\r\n")?,
            },
            ("set", [_, _, ..]) => cx.write(b"-ERR syntax error\r\n"),
            ("incr", [key]) => match store.increment(key) {
                Ok(number) => write!(cx, ":{number}\r\n")?,
                Err(error) => write!(cx, "-{error}\r\n")?,
            },
            ("del", [_, ..]) => {
                let removed = args.iter().filter(|key| store.remove(key)).count();
                write!(cx, ":{removed}\r\n")?;
            }
            ("exists", [_, ..]) => {
                let found = args.iter().filter(|key| store.get(key).is_some()).count();
                write!(cx, ":{found}\r\n")?;
            }
            ("dbsize", []) => write!(cx, ":{}\r\n", store.values.len())?,
            ("info", _) => {
                let (keys, used) = (store.values.len(), store.bytes);
                let text = format!(
                    "# Server\r\nserver_name:lariat\r\n# Memory\r\nused_memory:{used}\r\n\
                     # Keyspace\r\ndb0:keys={keys}\r\n"
                );
                bulk(cx, Some(text.as_bytes()))?;
            }
            ("command", _) => cx.write(b"*0\r\n"),
            ("quit", _) => {
                cx.write(b"+OK\r\n");
                cx.close();
            }
            ("ping" | "echo" | "get" | "set" | "incr" | "del" | "exists" | "dbsize", _) => {
                write!(cx, "-ERR wrong number of arguments for '{name}' command\r\n")?;
            }
            _ => {
                // A line break in it would end the answer.
                let name = name.escape_default();
                write!(cx, "-ERR unknown command '{name}'\r\n")?;
            }
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        if self.tells {
            common::tell(format_args!("closed {}: {reason}", cx.peer_addr()));
        }
    }
}

const PROGRAM: Program = Program {
    name: "redis_like",
    about: "keeps values by key, for clients of Redis",
    addr: "127.0.0.1:6379",
    try_this: r"printf 'incr visits\r\n' | nc -q1 127.0.0.1 6379",
    drivers: &[DriverKind::Reactor, DriverKind::Blocking],
    threads: "a thread per connection",
    idle_timeout: None,
    scales: false,
    udp: false,
    tls: None,
    counted: None,
};

fn main() -> ExitCode {
    common::main(&PROGRAM, serve)
}

fn serve(options: &Options) -> common::Result {
    let mut how = ListenOptions::default();
    how.limits.idle = options.idle_timeout;
    let mut driver = options.driver()?;
    let store: Arc<Mutex<Store>> = Arc::default();
    let mut listeners = Vec::new();
    for addr in &options.addrs {
        let (store, tells) = (Arc::clone(&store), options.verbose);
        let factory = move |_: &_| {
            let store = Arc::clone(&store);
            Some(Framed::new(Resp::default(), Commands { store, tells }))
        };
        listeners.push(driver.control().listen_with(addr, how.clone(), factory)?);
    }
    common::run(&mut *driver, &listeners, options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lariat::sim::{Probe, every_split};

    fn server() -> Framed<Resp, Commands> {
        Framed::new(Resp::default(), Commands { store: Arc::default(), tells: false })
    }

    fn answer(asked: &[u8]) -> String {
        every_split(server, asked);
        let mut probe = Probe::new(server());
        probe.receive(asked);
        String::from_utf8(probe.sent().into_vec()).unwrap()
    }

    #[test]
    fn commands_are_answered_in_order_however_they_arrive() {
        let asked = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4\r\n1\r\n2\r\n*2\r\n$3\r\nget\r\n$1\r\na\r\n\
            incr n\r\nincr n\r\nexists a n x\r\ndel a x\r\nget a\r\nPING\r\nping hi\ndbsize\n";
        let expected =
            "+OK\r\n$4\r\n1\r\n2\r\n:1\r\n:2\r\n:2\r\n:1\r\n$-1\r\n+PONG\r\n$2\r\nhi\r\n:1\r\n";
        assert_eq!(answer(asked), expected);
        assert_eq!(answer(b"*0\r\n\r\n*1\r\n$4\r\nPING\r\n"), "+PONG\r\n");
    }

    #[test]
    fn what_cannot_be_done_is_an_error_and_the_connection_goes_on() {
        for (asked, error) in [
            ("get\r\n", "-ERR wrong number of arguments for 'get' command\r\n"),
            ("hello 3\r\n", "-ERR unknown command 'hello'\r\n"),
            ("set a b ex 1\r\n", "-ERR syntax error\r\n"),
            ("set a b\r\nincr a\r\n", "+OK\r\n-ERR value is not an integer or out of range\r\n"),
        ] {
            assert_eq!(answer(format!("{asked}ping\r\n").as_bytes()), format!("{error}+PONG\r\n"));
        }
        assert_eq!(answer(b"quit\r\nping\r\n"), "+OK\r\n");
    }

    #[test]
    fn what_is_no_command_ends_the_connection() {
        let long = format!("*1\r\n${COMMAND_MAX}\r\n");
        let many = format!("*{}\r\n", ARGUMENTS_MAX + 1);
        for bad in
            ["*x\r\n", "*-1\r\n", "*1\r\nx", "*1\r\n+4\r\n", "*+1\r\n", &long, &many, "*1\r\n$1\n"]
        {
            let mut probe = Probe::new(server());
            probe.receive(bad.as_bytes());
            probe.receive(&[b' '; 40]);
            let reason = probe.closed().unwrap_or_else(|| panic!("{bad:?} goes on"));
            assert!(reason.error().unwrap().is::<FrameError>(), "{reason}");
        }
    }

    #[test]
    fn a_command_has_so_many_arguments_and_bytes_and_one_more_ends_the_connection() {
        let begins = |bytes: &str| {
            let mut probe = Probe::new(server());
            probe.receive(bytes.as_bytes());
            probe.closed().is_none()
        };
        assert!(begins(&format!("*{ARGUMENTS_MAX}\r\n")));
        assert!(!begins(&format!("*{}\r\n", ARGUMENTS_MAX + 1)));
        // Behind eight bytes of the argument's own line, and with the line break behind it.
        let head = "*1\r\n$524273\r\n";
        assert!(begins(head) && head.len() + 524_273 + 2 == COMMAND_MAX);
        assert!(!begins("*1\r\n$524274\r\n"));
        assert!(begins(&"x".repeat(COMMAND_MAX - 1)) && !begins(&"x".repeat(COMMAND_MAX)));
        // Also where it is whole at once.
        let whole = |digits: usize| format!("*1\r\n${digits}\r\n{}\r\n", "x".repeat(digits));
        assert!(begins(&whole(524_273)) && !begins(&whole(524_274)));
        let words = |count| format!("{}\n", "x".repeat(count));
        assert!(begins(&words(COMMAND_MAX - 1)) && !begins(&words(COMMAND_MAX)));
    }

    #[test]
    fn a_number_is_counted_up_to_the_last_there_is() {
        let max = i64::MAX;
        assert_eq!(answer(b"set a -1\r\nincr a\r\nincr a\r\n"), "+OK\r\n:0\r\n:1\r\n");
        let asked = format!("set a {}\r\nincr a\r\nincr a\r\nget a\r\n", max - 1);
        let error = "-ERR increment or decrement would overflow";
        let expected = format!("+OK\r\n:{max}\r\n{error}\r\n$19\r\n{max}\r\n");
        assert_eq!(answer(asked.as_bytes()), expected);
    }

    #[test]
    fn keys_and_values_have_a_bound() {
        let mut store = Store::default();
        store.set(b"a", &vec![0; STORE_MAX - 1]).unwrap();
        assert!(store.set(b"b", b"").is_err());
        assert!(store.remove(b"a") && !store.remove(b"a"));
        assert_eq!(store.bytes, 0);
        store.set(b"b", b"12").unwrap();
        store.set(b"b", b"1").unwrap();
        assert_eq!((store.bytes, store.increment(b"b")), (2, Ok(2)));
    }
}
