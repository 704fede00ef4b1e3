//! A value per peer of a datagram socket: its bounds, its timers, its ends, on every driver.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lariat::datagram_peers::{Full, PeerContext, PeerEnd, PeerProtocol, Peers, ToPeer};
use lariat::{ConnId, Datagram, DatagramContext, Endpoint, Note, Outcome, Timer};

use crate::kit::{Stage, with_datagrams as everywhere};
use crate::node::{Log, Node};

const TICK: Timer = Timer::new(1);

/// Does what its datagrams say, and logs what happens to it.
struct Player {
    name: String,
    log: Log,
    said: u32,
}

impl Player {
    fn add(&self, line: impl Into<String>) {
        self.log.add("server", format!("{}: {}", self.name, line.into()));
    }
}

impl PeerProtocol for Player {
    fn opened(&mut self, cx: &mut PeerContext<'_, '_>) -> Outcome {
        assert!(cx.peer_addr().port().is_some());
        Ok(())
    }

    fn datagram(&mut self, cx: &mut PeerContext<'_, '_>, datagram: &Datagram<'_>) -> Outcome {
        assert_eq!(cx.peer_addr(), datagram.from());
        let word = String::from_utf8_lossy(datagram).into_owned();
        if self.name.is_empty() {
            self.name = word.clone();
        }
        self.said += 1;
        self.add(format!("{word} {}", self.said));
        match word.as_str() {
            "err" => return Err("as asked for".into()),
            "panic" => std::panic::panic_any("planned"),
            "close" => {
                cx.close();
                return Ok(());
            }
            "tick" | "untick" => {
                cx.set_timer(TICK, Duration::from_millis(if word == "tick" { 20 } else { 5 }));
                // The other one is moved and cancelled.
                let moves = word == "untick";
                if moves {
                    cx.set_timer(TICK, Duration::from_millis(1));
                    assert!(cx.cancel_timer(TICK) && !cx.cancel_timer(TICK));
                } else {
                    return Ok(());
                }
            }
            "wait" => return Ok(()),
            _ => {}
        }
        cx.send(format!("{word} {}", self.said).as_bytes())?;
        Ok(())
    }

    fn timeout(&mut self, cx: &mut PeerContext<'_, '_>, timer: Timer) -> Outcome {
        assert_eq!(timer, TICK);
        self.add("tick");
        cx.send(b"ticked")?;
        Ok(())
    }

    fn notified(&mut self, cx: &mut PeerContext<'_, '_>, note: &Note) -> Outcome {
        self.add(format!("note {}", note.get::<u32>().unwrap()));
        cx.send(b"noted")?;
        Ok(())
    }

    fn closed(&mut self, cx: &mut PeerContext<'_, '_>, end: &PeerEnd) {
        self.add(end.to_string());
        // Nothing is armed any more, and the peer can still be told.
        cx.set_timer(TICK, Duration::ZERO);
        let sent = cx.send(b"bye").is_ok();
        assert_eq!(sent, !matches!(end, PeerEnd::SocketClosed));
    }
}

type Made = Peers<Player, Box<dyn FnMut(Endpoint) -> Option<Player> + Send>>;

fn players(log: &Log) -> Made {
    let log = log.clone();
    Peers::new(Box::new(move |_| Some(Player { name: String::new(), log: log.clone(), said: 0 })))
}

/// Binds a server and one client per script. One word is said at a time, in turn: each client waits
/// for its answer, whatever that is, before the next one speaks. The word `note` is a note for the
/// value of its client, and `all` one for all. Then the driver shuts down.
fn play(stage: &mut Stage<'_>, made: Made, scripts: &[&[&'static str]]) -> Vec<String> {
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = stage.driver.control().bind(addr, made).unwrap();
    let to = stage.driver.bound_addr(server).unwrap();
    let longest = scripts.iter().map(|script| script.len()).max().unwrap_or(0);
    let mut turns = Vec::new();
    for nth in 0..longest {
        let words =
            scripts.iter().enumerate().filter_map(|(who, words)| Some((who, words.get(nth)?)));
        turns.extend(words.filter(|(_, word)| !word.is_empty()).map(|(who, word)| (who, *word)));
    }
    let turns = Arc::new(Mutex::new(turns.into_iter()));
    let ids: Arc<Mutex<Vec<ConnId>>> = Arc::default();
    for number in 0..scripts.len() {
        let (turns, others) = (Arc::clone(&turns), Arc::clone(&ids));
        let waits = Arc::new(AtomicBool::new(false));
        let waiting = Arc::clone(&waits);
        let speak = move |cx: &mut DatagramContext<'_>, note: Note| {
            waits.store(true, Ordering::Relaxed);
            let own = cx.local_addr().unwrap();
            match note.downcast::<&'static str>().unwrap() {
                "note" => {
                    let note = ToPeer::new(own, Note::new(1_u32));
                    cx.driver().peer(server).notify(Note::new(note));
                }
                "all" => cx.driver().peer(server).notify(Note::new(2_u32)),
                word => cx.send_to(word.as_bytes(), to)?,
            }
            Ok(())
        };
        let node = Node::new().notified(speak).datagram(move |cx, _| {
            if waiting.swap(false, Ordering::Relaxed) {
                match turns.lock().unwrap().next() {
                    Some((who, word)) => {
                        let id = others.lock().unwrap()[who];
                        cx.driver().peer(id).notify(Note::new(word));
                    }
                    None => cx.driver().shutdown(),
                }
            }
            Ok(())
        });
        let (id, _) = stage.bind(&format!("client {number}"), node);
        ids.lock().unwrap().push(id);
    }
    let (who, word) = turns.lock().unwrap().next().unwrap();
    let id = ids.lock().unwrap()[who];
    stage.driver.control().peer(id).notify(Note::new(word));
    stage.run();
    stage.log.of("server")
}

#[test]
fn each_peer_has_a_value_of_its_own() {
    everywhere(|stage| {
        let made = players(&stage.log);
        let counters = made.counters();
        let log = play(stage, made, &[&["ann", "x", "y"], &["bob", "z"]]);
        let said = ["ann: ann 1", "bob: bob 1", "ann: x 2", "bob: z 2", "ann: y 3"];
        assert_eq!(log[..5], said);
        assert_eq!(log[5..], ["bob: shut down", "ann: shut down"], "the longest silent one first");
        let counts = counters.get();
        assert_eq!((counts.open, counts.opened, counts.refused), (0, 2, 0));
    });
}

#[test]
fn what_ends_one_peer_ends_no_other_and_a_new_one_may_follow() {
    everywhere(|stage| {
        stage.panics();
        let made = players(&stage.log);
        let counters = made.counters();
        let scripts: [&[_]; 2] = [
            &["ann", "err", "ann", "panic", "ann", "close", "ann"],
            &["bob", "", "", "", "", "", "", "x"],
        ];
        let log = play(stage, made, &scripts);
        let expected = [
            "ann: ann 1",
            "bob: bob 1",
            "ann: err 2",
            "ann: failed: as asked for",
            "ann: ann 1",
            "ann: panic 2",
            "ann: panicked: planned",
            "ann: ann 1",
            "ann: close 2",
            "ann: closed",
            "ann: ann 1",
            "bob: x 2",
            "ann: shut down",
            "bob: shut down",
        ];
        assert_eq!(log, expected);
        let counts = counters.get();
        assert_eq!((counts.open, counts.opened, counts.failed), (0, 5, 2));
        assert_eq!(stage.driver.metrics().panics, 1);
    });
}

#[test]
fn timers_belong_to_one_peer() {
    everywhere(|stage| {
        let made = players(&stage.log);
        let log = play(stage, made, &[&["ann", "untick", "tick"], &["bob", "tick"]]);
        let said = ["ann: ann 1", "bob: bob 1", "ann: untick 2", "bob: tick 2", "bob: tick"];
        assert_eq!(log[..5], said);
        assert_eq!(log[5..7], ["ann: tick 3", "ann: tick"]);
        assert_eq!(log.len(), 9);
    });
}

/// Thinks, and then sets a timer.
struct Slow(Option<Instant>);

impl PeerProtocol for Slow {
    fn datagram(&mut self, cx: &mut PeerContext<'_, '_>, _: &Datagram<'_>) -> Outcome {
        thread::sleep(Duration::from_millis(60));
        self.0 = Some(cx.now());
        cx.set_timer(TICK, Duration::from_millis(30));
        Ok(())
    }

    fn timeout(&mut self, cx: &mut PeerContext<'_, '_>, _: Timer) -> Outcome {
        let waited = cx.now().duration_since(self.0.unwrap());
        assert!(waited >= Duration::from_millis(30), "it was early: after {waited:?}");
        cx.send(b"ticked")?;
        Ok(())
    }
}

#[test]
fn c18_a_timer_of_a_peer_that_is_set_late_in_a_callback_is_not_early() {
    everywhere(|stage| {
        let made = Peers::new(|_| Some(Slow(None)));
        let server = stage.driver.control().bind("127.0.0.1:0", made).unwrap();
        let addr = stage.driver.bound_addr(server).unwrap();
        let client = Node::new().opened(move |cx| Ok(cx.send_to(b"x", addr)?)).datagram(
            move |cx, datagram| {
                assert_eq!(&**datagram, b"ticked");
                cx.driver().shutdown();
                Ok(())
            },
        );
        stage.bind("client", client);
        stage.run();
    });
}

#[test]
fn notes_reach_one_peer_or_all() {
    everywhere(|stage| {
        let made = players(&stage.log);
        let log = play(stage, made, &[&["ann", "note", "all"], &["bob", "x"]]);
        let said = ["ann: ann 1", "bob: bob 1", "ann: note 1", "bob: x 2", "ann: note 2"];
        assert_eq!(log[..5], said);
        assert_eq!(log[5..], ["bob: note 2", "ann: shut down", "bob: shut down"]);
    });
}

#[test]
fn one_more_than_there_are_places_ends_the_one_that_was_silent_for_longest() {
    everywhere(|stage| {
        let made = players(&stage.log).max(2).when_full(Full::Evict);
        let counters = made.counters();
        let log = play(stage, made, &[&["ann", "x"], &["bob"], &["", "", "cid"]]);
        let expected =
            ["ann: ann 1", "bob: bob 1", "ann: x 2", "bob: evicted for another one", "cid: cid 1"];
        assert_eq!(log[..5], expected);
        let counts = counters.get();
        assert_eq!((counts.evicted, counts.opened, counts.refused), (1, 3, 0));
    });
}

#[test]
fn a_silent_peer_ends_and_is_told() {
    everywhere(|stage| {
        let made = players(&stage.log).idle(Some(Duration::from_millis(400)));
        let counters = made.counters();
        let log = play(stage, made, &[&["ann", "wait", "ann"]]);
        assert_eq!(
            log[..4],
            ["ann: ann 1", "ann: wait 2", "ann: silent for too long", "ann: ann 1"]
        );
        assert!(counters.get().idle >= 1);
    });
}
