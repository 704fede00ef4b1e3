//! A tap sees what a protocol sees, in both directions, and stays when another takes over.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use lariat::{CloseReason, ConnId, Tap, Tapped};

use crate::kit::{Play, Stage, everywhere, says, says_all};
use crate::toy::Toy;

/// What was shown, as lines: adjacent bytes of one direction together.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    lines: Vec<(&'static str, Vec<u8>)>,
    ids: Vec<ConnId>,
    times: Vec<SystemTime>,
    addressed: bool,
}

impl Seen {
    fn add(&self, at: &Tapped, what: &'static str, bytes: &[u8]) {
        let mut inside = self.0.lock().unwrap();
        inside.ids.push(at.id());
        inside.times.push(at.time());
        inside.addressed = at.local_addr().is_some_and(|addr| addr.port().is_some())
            && at.peer_addr().port() > Some(0);
        match inside.lines.last_mut() {
            Some((last, all)) if *last == what => all.extend_from_slice(bytes),
            _ => inside.lines.push((what, bytes.to_vec())),
        }
    }

    /// Each direction as a whole, and the last line.
    fn whole(&self, what: &str) -> Vec<u8> {
        let inside = self.0.lock().unwrap();
        let bytes = inside.lines.iter().filter(|(name, _)| *name == what).map(|(_, bytes)| bytes);
        bytes.flatten().copied().collect()
    }

    fn check(&self) {
        let inside = self.0.lock().unwrap();
        assert!(inside.addressed, "both addresses are known");
        assert!(inside.times.is_sorted(), "time goes on");
        assert!(inside.ids.iter().all(|id| *id == inside.ids[0]));
        assert_eq!(inside.lines.last().map(|(what, _)| *what), Some("closed"));
    }
}

impl Tap for Seen {
    fn received(&mut self, at: &Tapped, bytes: &[u8]) {
        self.add(at, "received", bytes);
    }

    fn sent(&mut self, at: &Tapped, bytes: &[u8]) {
        self.add(at, "sent", bytes);
    }

    fn closed(&mut self, at: &Tapped, reason: &CloseReason) {
        self.add(at, "closed", reason.kind().to_string().as_bytes());
    }
}

/// The checks in `closed` have held.
fn unharmed(stage: &Stage<'_>) {
    stage.check(stage.driver.metrics().panics == 0, "nothing has panicked");
}

/// An echo with a tap; `done` is shown what was seen when it has ended.
fn tapped(done: fn(&Seen)) -> Play {
    let seen = Seen::default();
    let tap = seen.clone();
    Play::new()
        .opened(move |cx| {
            cx.set_tap(tap.clone());
            Ok(())
        })
        .data(|cx, input| {
            cx.write(b"<");
            cx.write(input);
            input.consume_all();
            Ok(())
        })
        .closed(move |_, _| {
            seen.check();
            done(&seen);
        })
}

#[test]
fn a_tap_sees_both_directions_and_the_end() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            tapped(|seen| {
                assert_eq!(seen.whole("received"), b"hello, tap");
                let sent = seen.whole("sent");
                let text: Vec<u8> = sent.into_iter().filter(|byte| *byte != b'<').collect();
                assert_eq!(text, b"hello, tap");
                assert_eq!(seen.whole("closed"), b"finished");
            })
        });
        stage.connect("client", addr, says_all(b"hello, tap"));
        stage.run();
        unharmed(stage);
    });
}

#[test]
fn a_tap_lies_above_the_filter() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            tapped(|seen| {
                assert_eq!(seen.whole("received"), b"secret");
                assert!(seen.whole("sent").ends_with(b"secret"));
            })
            .filter(|| Some(Box::new(Toy::server())))
        });
        let client = says_all(b"secret").filter(|| Some(Box::new(Toy::client(7))));
        stage.connect("client", addr, client);
        stage.run();
        unharmed(stage);
    });
}

#[test]
fn a_tap_stays_when_another_protocol_takes_over() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            let seen = Seen::default();
            let tap = seen.clone();
            Play::new()
                .opened(move |cx| {
                    cx.set_tap(tap.clone());
                    Ok(())
                })
                .data(move |cx, input| {
                    input.consume(1);
                    cx.write(b"1");
                    let seen = seen.clone();
                    cx.replace(
                        Play::new()
                            .data(|cx, input| {
                                cx.write(b"2");
                                input.consume_all();
                                Ok(())
                            })
                            .closed(move |_, _| {
                                seen.check();
                                assert_eq!(seen.whole("received"), b"ab");
                                assert_eq!(seen.whole("sent"), b"12");
                            }),
                    );
                    Ok(())
                })
        });
        stage.connect("client", addr, says_all(b"ab"));
        stage.run();
        unharmed(stage);
    });
}

#[test]
fn a_tap_sees_what_others_write() {
    everywhere(|stage| {
        let receiver: Arc<Mutex<Option<ConnId>>> = Arc::default();
        let (kept, to) = (Arc::clone(&receiver), Arc::clone(&receiver));
        let addr = stage.serve_many(2, Default::default(), move |number| {
            if number == 0 {
                let kept = Arc::clone(&kept);
                let seen = Seen::default();
                let tap = seen.clone();
                let play = Play::new()
                    .opened(move |cx| {
                        cx.set_tap(tap.clone());
                        *kept.lock().unwrap() = Some(cx.id());
                        cx.write(b"go ");
                        Ok(())
                    })
                    .closed(move |_, _| {
                        assert_eq!(seen.whole("sent"), b"go by another");
                        seen.check();
                    });
                ("receiver".to_owned(), play)
            } else {
                let to = Arc::clone(&to);
                let play = Play::new().data(move |cx, input| {
                    if input.len() < 10 {
                        input.need(10);
                        return Ok(());
                    }
                    let id = to.lock().unwrap().unwrap();
                    cx.peer(id).write(input);
                    input.consume_all();
                    cx.peer(id).shutdown_write();
                    Ok(())
                });
                ("writer".to_owned(), play)
            }
        });
        let trace = stage.trace.clone();
        let mut heard = 0;
        stage.connect(
            "first",
            addr,
            Play::new().data(move |cx, input| {
                if heard == 0 {
                    let protocol = trace.wrap("second", says_all(b"by another"));
                    cx.connect(addr, protocol);
                }
                heard += input.len();
                input.consume_all();
                Ok(())
            }),
        );
        stage.run();
        unharmed(stage);
    });
}

/// Panics at its first byte.
struct Broken;

impl Tap for Broken {
    fn received(&mut self, _: &Tapped, _: &[u8]) {
        panic!("planned");
    }
    fn sent(&mut self, _: &Tapped, _: &[u8]) {
        panic!("planned");
    }
}

#[test]
fn a_tap_that_panics_ends_its_connection_and_no_other() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new().opened(|cx| {
                cx.set_tap(Broken);
                Ok(())
            })
        });
        stage.connect("client", addr, says(b"x"));
        stage.run();
        stage.expect("server", &["opened", "closed panicked by us"]);
    });
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new().opened(|cx| {
                cx.set_tap(Broken);
                cx.write(b"x");
                Ok(())
            })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        stage.expect("server", &["opened", "closed panicked by us"]);
    });
}
