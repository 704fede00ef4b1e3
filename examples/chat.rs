//! A chat room: each client gives a name, and what one types the others read.
//!
//! It shows connections that write to one another (`push_all`), a state that they share, a timer
//! for each, and what keeps a client from hurting the others: lines that are too long are answered
//! and dropped, control bytes never reach another terminal, a client that says nothing is
//! told so and closed, and one that does not read is closed. Run it, and talk to it from more
//! terminals:
//!
//! ```text
//! $ cargo run --release --example chat
//! listening on 127.0.0.1:7000 (tcp, reactor, 1 thread)
//!
//! $ nc 127.0.0.1 7000                           $ nc 127.0.0.1 7000
//! * hello; what is your name?
//! anna
//! * welcome, anna; here before you: nobody      * hello; what is your name?
//!                                               bert
//! * bert has come                               * welcome, bert; here before you: anna
//! hello                                         anna: hello
//! bert: hello anna                              hello anna
//!                                               /who
//!                                               * anna, bert
//!                                               /quit
//! * bert has left                               * goodbye
//! ```
//!
//! Ctrl-C tells all clients, closes, and waits up to 2 s for clients that leave their side open, as
//! `nc` does at a terminal. `--driver blocking` runs the same room on threads: two per connection,
//! as one of them sleeps in `read` while the other waits for the timer and for what others write.
//! With `-v` each connection that ends says why; `--help` has the rest.
//!
//! **The shared room.** On the blocking driver clients have threads of their own, and so the room
//! is an `Arc<Mutex<Room>>`, which works on every driver, also in the simulator of the tests below.
//! A server for the reactor alone could share an `Rc<RefCell<Room>>`. Nothing is sent while the
//! room is locked: what a callback asks for is carried out when it has returned.
//!
//! **The slow reader.** `push_all` neither waits nor holds the writer back: what a client does not
//! read is kept for it, up to `OUTPUT_MAX`. Stop one with Ctrl-Z while the others talk on: first
//! the kernel's buffers fill (4 MB on loopback, where this was tried), then the queue, and then it
//! is closed with `OutputFull` (or with `TimedOut(Write)`, after 30 s without progress):
//!
//! ```text
//! closed 127.0.0.1:47716 (carl): output full by the runtime: 5 bytes in, 4028313 bytes out,
//! 1048858 unsent, 1014 written too late, open for 0.4 s
//! ```
//!
//! The others read `* carl has left (did not read)`, and notice nothing else. The same rule closes
//! a client that goes on reading slower than the others write; a server on an open network would
//! also bound how fast one client may write.

mod common;

use std::collections::BTreeMap;
use std::mem;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lariat::{
    CloseKind, CloseReason, ConnId, Context, Control, Deadline, Input, IntoAddress, ListenOptions,
    ListenerId, Outcome, Protocol, Timer,
};

use common::{DriverKind, Options, Program};

/// Bytes of a line; more are answered and dropped.
const LINE_MAX: usize = 512;
/// Characters of a name.
const NAME_MAX: usize = 20;
/// Bytes that are kept for a client that does not read.
const OUTPUT_MAX: usize = 1024 * 1024;
/// Bytes read from a client before the others have their turn: far below `OUTPUT_MAX`, as all of
/// them may go to each of the others at once.
const READ_BUDGET: usize = 16 * 1024;
/// How long a client may say nothing, by default.
const IDLE: Duration = Duration::from_secs(600);

/// Fires when a client has said nothing for too long.
const SILENCE: Timer = Timer::new(1);

// ---- the room -----------------------------------------------------------------------------------

/// Who is there.
#[derive(Default)]
struct Room {
    names: BTreeMap<ConnId, String>,
}

impl Room {
    /// Lets a client in. `Err` is the sentence that says why not.
    fn enter(&mut self, id: ConnId, name: &str) -> Result<(), String> {
        let fits = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        if name.chars().count() > NAME_MAX || !name.chars().all(fits) {
            return Err(format!("a name has at most {NAME_MAX} letters, digits, - and _"));
        }
        let same = |other: &String| other.to_lowercase() == name.to_lowercase();
        if self.names.values().any(same) {
            return Err(format!("{name} is taken; please choose another name"));
        }
        self.names.insert(id, name.to_owned());
        Ok(())
    }

    fn leave(&mut self, id: ConnId) {
        self.names.remove(&id);
    }

    fn others(&self, id: ConnId) -> Vec<ConnId> {
        self.names.keys().copied().filter(|other| *other != id).collect()
    }

    fn who(&self) -> String {
        let names: Vec<&str> = self.names.values().map(String::as_str).collect();
        if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
    }
}

/// The room that all clients have.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Room>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Room> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// ---- a client -----------------------------------------------------------------------------------

/// What holds for all clients.
#[derive(Clone, Copy)]
struct Rules {
    idle: Duration,
    /// Each close is printed on standard error.
    verbose: bool,
}

struct Client {
    room: Shared,
    rules: Rules,
    /// None until the room has let it in.
    name: Option<String>,
    has_left: bool,
    /// The rest of a line that was too long is still coming.
    skipping: bool,
}

impl Client {
    fn new(room: &Shared, rules: Rules) -> Client {
        Client { room: room.clone(), rules, name: None, has_left: false, skipping: false }
    }

    /// A whole line. `Break`: nothing more is wanted.
    fn line(&mut self, cx: &mut Context<'_>, line: &[u8]) -> ControlFlow<()> {
        cx.set_timer(SILENCE, self.rules.idle);
        let text = printable(line);
        match (text.as_str(), &self.name) {
            ("", _) => {}
            ("/quit", _) => {
                tell(cx, "goodbye");
                self.leave(cx, "");
                cx.close();
                return ControlFlow::Break(());
            }
            ("/who", _) => tell(cx, &self.room.lock().who()),
            (command, _) if command.starts_with('/') => tell(cx, "there are /who and /quit"),
            (name, None) => self.enter(cx, name),
            (text, Some(name)) => self.tell_others(cx, format!("{name}: {text}\n")),
        }
        ControlFlow::Continue(())
    }

    fn enter(&mut self, cx: &mut Context<'_>, name: &str) {
        let mut room = self.room.lock();
        let before = room.who();
        let entered = room.enter(cx.id(), name);
        drop(room);
        match entered {
            Ok(()) => {
                self.name = Some(name.to_owned());
                tell(cx, &format!("welcome, {name}; here before you: {before}"));
                self.tell_others(cx, format!("* {name} has come\n"));
            }
            Err(sentence) => tell(cx, &sentence),
        }
    }

    /// Leaves the room, once. When the server stops, all leave, and no client hears of each.
    fn leave(&mut self, cx: &mut Context<'_>, why: &str) {
        let Some(name) = &self.name else { return };
        if mem::replace(&mut self.has_left, true) {
            return;
        }
        self.room.lock().leave(cx.id());
        if !cx.driver().is_stopping() {
            self.tell_others(cx, format!("* {name} has left{why}\n"));
        }
    }

    fn tell_others(&self, cx: &mut Context<'_>, line: String) {
        let others = self.room.lock().others(cx.id());
        cx.driver().push_all(&others, line);
    }
}

impl Protocol for Client {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(SILENCE, self.rules.idle);
        tell(cx, "hello; what is your name?");
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
            let line = input.split_to(end + 1);
            if mem::take(&mut self.skipping) {
                continue;
            }
            if end > LINE_MAX {
                refuse_line(cx);
            } else if self.line(cx, &line).is_break() {
                return Ok(());
            }
        }
        if input.len() > LINE_MAX && !self.skipping {
            refuse_line(cx);
            self.skipping = true;
        }
        if self.skipping {
            input.consume_all();
        }
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, rest: &mut Input<'_>) -> Outcome {
        // A last line may come without its end.
        if !self.skipping && self.line(cx, rest).is_break() {
            return Ok(());
        }
        self.leave(cx, "");
        cx.close();
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
        tell(cx, &format!("you have said nothing for {:?}: goodbye", self.rules.idle));
        self.leave(cx, " (said nothing)");
        cx.close();
        Ok(())
    }

    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        tell(cx, "the server stops: goodbye");
        self.leave(cx, "");
        cx.close();
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        if self.rules.verbose {
            let who = self.name.as_deref().unwrap_or("without a name");
            common::tell(format_args!("closed {} ({who}): {reason}", cx.peer_addr()));
        }
        self.leave(
            cx,
            match reason.kind() {
                CloseKind::OutputFull | CloseKind::TimedOut(Deadline::Write) => " (did not read)",
                CloseKind::Reset => " (connection lost)",
                _ => "",
            },
        );
    }
}

/// A line of the server's own.
fn tell(cx: &mut Context<'_>, sentence: &str) {
    cx.write(format!("* {sentence}\n").as_bytes());
}

fn refuse_line(cx: &mut Context<'_>) {
    tell(cx, &format!("a line has at most {LINE_MAX} bytes; yours was dropped"));
}

/// What may be shown to others. On a terminal, control characters would move the cursor, set the
/// title or worse, and marks of direction would turn the line round.
fn printable(line: &[u8]) -> String {
    let turns = |c| {
        ('\u{200E}'..='\u{200F}').contains(&c)
            || ('\u{2028}'..='\u{202E}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c)
    };
    let text = String::from_utf8_lossy(line);
    let shown = text.trim().chars().map(|c| match c {
        '\t' => ' ',
        c if c.is_control() || turns(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    });
    shown.collect()
}

// ---- the server ---------------------------------------------------------------------------------

const PROGRAM: Program = Program {
    name: "chat",
    about: "a room in which all read what one types",
    addr: "127.0.0.1:7000",
    try_this: r"printf 'anna\nhello\n/who\n/quit\n' | nc 127.0.0.1 7000",
    drivers: &[DriverKind::Reactor, DriverKind::Blocking],
    threads: "two threads per connection",
    idle_timeout: Some("close a client that says nothing for T [10m]"),
    scales: false,
    udp: false,
    tls: None,
    counted: None,
};

fn main() -> ExitCode {
    common::main(&PROGRAM, serve)
}

fn serve(options: &Options) -> common::Result {
    let rules = Rules { idle: options.idle_timeout.unwrap_or(IDLE), verbose: options.verbose };
    let room = Shared::default();
    let mut driver = options.driver()?;
    let mut listeners = Vec::new();
    for addr in &options.addrs {
        listeners.push(open(&mut driver.control(), addr, &room, rules)?);
    }
    common::run(&mut *driver, &listeners, options)
}

/// Opens the room on an address, on any driver.
fn open(
    driver: &mut Control<'_>,
    addr: impl IntoAddress,
    room: &Shared,
    rules: Rules,
) -> lariat::Result<ListenerId> {
    let room = room.clone();
    driver.listen_with(addr, listening(), move |_| Some(Client::new(&room, rules)))
}

fn listening() -> ListenOptions {
    let mut how = ListenOptions::default();
    how.limits.output_max = OUTPUT_MAX;
    how.limits.read_budget = READ_BUDGET;
    how
}

#[cfg(test)]
mod tests {
    use super::*;
    use lariat::sim::{Sim, Socket, check, every_split};

    const RULES: Rules = Rules { idle: IDLE, verbose: false };

    /// A room in the simulator, and a client of each name in it.
    fn enter(sim: &mut Sim, names: &[&str]) -> Vec<Socket> {
        let room = Shared::default();
        let listener = open(&mut sim.control(), "127.0.0.1:7000", &room, RULES).unwrap();
        let addr = sim.addresses(listener)[0];
        let enter = |name: &&str| {
            let client = sim.dial(addr);
            client.send(format!("{name}\n").as_bytes());
            sim.run_for(Duration::from_secs(1)).unwrap();
            client
        };
        let clients: Vec<Socket> = names.iter().map(enter).collect();
        clients.iter().for_each(|client| drop(client.take_received()));
        clients
    }

    fn received(client: &Socket) -> String {
        String::from_utf8(client.take_received().into_vec()).unwrap()
    }

    #[test]
    fn answers_do_not_depend_on_how_lines_are_cut() {
        // Of slashes, so that any part of it that is taken for a line is answered.
        let long = "/".repeat(600);
        let lines = format!("anna\r\n{long}\nhello\n/who\n/help\n\n/quit\nmore");
        let room = Shared::default();
        every_split(|| Client::new(&room, RULES), lines.as_bytes());
        assert_eq!(room.lock().who(), "nobody");
    }

    #[test]
    fn a_line_reaches_all_others_without_control_bytes() {
        check(0..50, |sim| {
            let clients = enter(sim, &["anna", "bert", "carl"]);
            clients[0].send(b"\x1b]0;title\x07 hello\xff\x08\n");
            sim.run_for(Duration::from_secs(1)).unwrap();
            for client in &clients[1..] {
                assert_eq!(
                    received(client),
                    "anna: \u{fffd}]0;title\u{fffd} hello\u{fffd}\u{fffd}\n"
                );
            }
            assert_eq!(received(&clients[0]), "");
        });
    }

    #[test]
    fn what_would_change_the_line_of_a_reader_is_shown_as_a_mark() {
        let turning = ['\u{200E}', '\u{200F}', '\u{2028}', '\u{202E}', '\u{2066}', '\u{2069}'];
        for c in turning.into_iter().chain(['\x1B', '\x7F', '\u{9B}', '\0']) {
            assert_eq!(printable(format!("a{c}b").as_bytes()), "a\u{FFFD}b", "{c:?}");
        }
        for c in ['\u{200D}', '\u{2010}', '\u{2027}', '\u{2030}', '\u{2065}', '\u{206A}', 'é'] {
            assert_eq!(printable(format!(" a{c}b\r\n").as_bytes()), format!("a{c}b"));
        }
        assert_eq!(printable(b"a\tb"), "a b");
    }

    #[test]
    fn a_line_without_an_end_is_answered_once_and_not_kept() {
        let mut sim = Sim::new(1);
        let clients = enter(&mut sim, &["anna", "bert"]);
        let line = vec![b'x'; 3 * OUTPUT_MAX];
        clients[0].send(&line);
        clients[0].send(b"\nhello\n");
        sim.run_for(Duration::from_secs(10)).unwrap();
        assert_eq!(received(&clients[0]), "* a line has at most 512 bytes; yours was dropped\n");
        assert_eq!(received(&clients[1]), "anna: hello\n");
    }

    #[test]
    fn a_name_belongs_to_one() {
        let mut sim = Sim::new(1);
        let clients = enter(&mut sim, &["anna", "Anna"]);
        clients[1].send(b"a b\nbert\n");
        sim.run_for(Duration::from_secs(1)).unwrap();
        let said = received(&clients[1]);
        assert!(said.contains("a name has at most") && said.contains("welcome, bert"), "{said}");
        assert_eq!(received(&clients[0]), "* bert has come\n");
    }

    #[test]
    fn whoever_does_not_read_is_closed_and_nobody_else_notices() {
        let mut sim = Sim::new(1);
        let clients = enter(&mut sim, &["anna", "bert", "carl"]);
        clients[2].stop_reading();
        let line = "y".repeat(LINE_MAX);
        let mut heard = String::new();
        for _ in 0..4 * OUTPUT_MAX / LINE_MAX {
            clients[0].send(format!("{line}\n").as_bytes());
            sim.run_for(Duration::from_millis(1)).unwrap();
            heard += &received(&clients[1]);
        }
        assert_eq!(heard.matches("anna: y").count(), 4 * OUTPUT_MAX / LINE_MAX);
        assert_eq!(heard.matches("* carl has left (did not read)\n").count(), 1);
        assert!(clients[2].is_reset() && !clients[1].is_finished());
    }

    #[test]
    fn whoever_says_nothing_is_told_so_and_closed() {
        let mut sim = Sim::new(1);
        let clients = enter(&mut sim, &["anna", "bert"]);
        sim.run_for(IDLE / 2).unwrap();
        clients[0].send(b"hello\n");
        // Long enough for the close to be complete.
        sim.run_for(IDLE / 2 + Duration::from_secs(10)).unwrap();
        assert!(received(&clients[1]).ends_with("you have said nothing for 600s: goodbye\n"));
        assert!(clients[1].is_finished() && !clients[0].is_finished());
        assert_eq!(received(&clients[0]), "* bert has left (said nothing)\n");
    }
}
