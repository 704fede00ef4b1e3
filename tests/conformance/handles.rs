//! Requests of handles, closures on the driver, and its own timers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::{
    ConnectOptions, Context, Control, Driver, DriverLimits, ErrorKind, Handle, Input, Limits,
    ListenOptions, ListenerId, Note, Op, Outcome, Protocol,
};

use crate::kit::{Last, Play, Stage, closes_after, data, echo, everywhere, everywhere_with};
use crate::node::Node;

/// Says `bytes`, and closes when they have come back.
pub(crate) fn answered(bytes: &'static [u8]) -> Play {
    closing_after(bytes.len()).opened(move |cx| {
        cx.write(bytes);
        Ok(())
    })
}

/// Closes when `count` bytes have come.
fn closing_after(count: usize) -> Play {
    Play::new().data(move |cx, input| {
        if input.len() == count {
            input.consume_all();
            cx.close();
        }
        Ok(())
    })
}

/// What closures tell, in order.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    pub(crate) fn tell(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    #[track_caller]
    pub(crate) fn expect(&self, stage: &Stage<'_>, lines: &[&str]) {
        let found = self.all();
        stage.check(found == lines, &format!("told: {found:?}, expected: {lines:?}"));
    }
}

#[test]
fn requests_for_a_connection_are_carried_out_in_their_order() {
    everywhere(|stage| {
        let addr = stage.serve("server", Play::new);
        let id = stage.connect("client", addr, Play::new());
        let handle = stage.driver.handle();
        handle.write(id, b"one ").unwrap();
        handle.write_bytes(id, "two ").unwrap();
        handle.write(id, b"three").unwrap();
        handle.shutdown_write(id).unwrap();
        handle.write(id, b"too late").unwrap();
        stage.run();
        stage.expect(
            "server",
            &[
                "opened".to_owned(),
                data(b"one two three"),
                "eof".to_owned(),
                "closed finished by the peer".to_owned(),
            ],
        );
        stage.check(stage.driver.metrics().refused_bytes == 8, "what came too late is counted");
    });
}

#[test]
fn what_is_asked_for_before_a_close_is_done_and_what_comes_after_is_not() {
    everywhere(|stage| {
        let addr = stage.serve("server", Play::new);
        let handle = stage.driver.handle();
        let play = Play::new().opened(move |cx| {
            cx.write(b"first ");
            handle.write(cx.id(), b"last words")?;
            handle.close(cx.id())?;
            handle.write(cx.id(), b"never")?;
            Ok(())
        });
        stage.connect("client", addr, play);
        stage.run();
        stage.expect("client", &["opened", "closed finished by us"]);
        let words = data(b"first last words");
        stage.expect("server", &["opened", &words, "eof", "closed finished by the peer"]);
        stage.check(stage.driver.metrics().refused_bytes == 5, "what came after is counted");
    });
}

#[test]
fn a_note_that_is_posted_before_the_connection_opens_waits_for_it() {
    everywhere(|stage| {
        let addr = stage.serve("server", Play::new);
        let play = Play::new().notified(|cx, note| {
            cx.write(&note.downcast::<Vec<u8>>().unwrap());
            cx.close();
            Ok(())
        });
        let id = stage.connect("client", addr, play);
        stage.driver.handle().notify(id, Note::new(b"noted".to_vec())).unwrap();
        stage.run();
        stage.expect("client", &["opened", "notified", "closed finished by us"]);
        stage.expect(
            "server",
            &[
                "opened".to_owned(),
                data(b"noted"),
                "eof".to_owned(),
                "closed finished by the peer".to_owned(),
            ],
        );
    });
}

#[test]
fn notes_of_handles_beyond_notes_max_are_refused_and_counted() {
    for (sent, refused) in [(1, 0), (2, 0), (3, 1)] {
        everywhere(|stage| {
            let mut limits = Limits::default();
            limits.notes_max = 2;
            let addr = stage.serve("server", Play::new);
            // From its own callback: none of them can be taken before all of them are sent.
            let (handle, left) = (stage.driver.handle(), sent - refused);
            let play = Play::new()
                .opened(move |cx| {
                    (0..sent).for_each(|_| handle.notify(cx.id(), Note::new(())).unwrap());
                    Ok(())
                })
                .notified(closes_after(left));
            stage.connect_with("client", addr, limits, play);
            stage.run();
            let metrics = stage.driver.metrics();
            stage.check(metrics.refused_notes == refused, &format!("{metrics}"));
        });
    }
}

/// Bytes whose owner panics when it is dropped.
struct Bad;

impl AsRef<[u8]> for Bad {
    fn as_ref(&self) -> &[u8] {
        b"bad"
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        panic!("planned");
    }
}

#[test]
fn what_handles_write_to_a_datagram_socket_is_stale_and_thrown_away() {
    everywhere(|stage| {
        stage.panics();
        let node = Node::new().notified(|cx, _| {
            cx.close();
            Ok(())
        });
        let (id, _) = stage.bind("node", node);
        let handle = stage.driver.handle();
        handle.write(id, b"lost").unwrap();
        handle.write_bytes(id, bytes::Bytes::from_owner(Bad)).unwrap();
        handle.shutdown_write(id).unwrap();
        handle.notify(id, Note::new(())).unwrap();
        stage.run();
        stage.expect_node("node", &["opened", "notified", "closed finished by us"]);
        let metrics = stage.driver.metrics();
        stage.check(metrics.stale == 3, &format!("{metrics}"));
    });
}

#[test]
fn a_close_cancels_a_connect_that_has_not_begun() {
    everywhere(|stage| {
        let addr = stage.deserted();
        let id = stage.connect("client", addr, Play::new());
        stage.driver.handle().close(id).unwrap();
        stage.run();
        let found = stage.trace.of("client");
        // The connect may have been refused before the request was looked at.
        let closed = found.len() == 1 && found[0].starts_with("closed");
        stage.check(closed, &format!("{found:?}"));
    });
}

#[test]
fn an_abort_before_the_driver_runs_is_not_forgotten() {
    everywhere(|stage| {
        let addr = stage.deserted();
        let id = stage.connect("client", addr, Play::new());
        stage.driver.handle().abort(id);
        stage.run();
        let found = stage.trace.of("client");
        stage.check(found.len() == 1 && found[0].starts_with("closed"), &format!("{found:?}"));
    });
}

#[test]
fn an_abort_of_a_connection_that_its_callback_has_just_asked_for_is_not_forgotten() {
    everywhere(|stage| {
        let (addr, deserted) = (stage.serve("server", Play::new), stage.deserted());
        let (handle, trace) = (stage.driver.handle(), stage.trace.clone());
        let play = Play::new().opened(move |cx| {
            let id = cx.driver().connect(deserted, trace.wrap("aborted", Play::new()));
            // It has an id, and does not exist before this callback has returned.
            handle.abort(id);
            cx.close();
            Ok(())
        });
        stage.connect("client", addr, play);
        stage.run();
        let found = stage.trace.of("aborted");
        // On a loop the connect may have been refused before the request is looked at.
        let [line] = &found[..] else { panic!("{found:?}") };
        let refused = !stage.has_threads() && line.contains("refused");
        stage.check(line == "closed connect cancelled by us" || refused, &format!("{found:?}"));
    });
}

#[test]
fn a_closure_that_posts_itself_for_ever_does_not_keep_shutdown_away() {
    fn again(handle: Handle, turns: u32) {
        if turns == 100 {
            handle.shutdown();
        }
        assert!(turns < 10_000, "shutdown is not seen");
        let next = handle.clone();
        // Refused when the driver has ended.
        let _ = handle.call(move |_| again(next, turns + 1));
    }
    everywhere(|stage| {
        let handle = stage.driver.handle();
        let first = handle.clone();
        handle.call(move |_| again(first, 0)).unwrap();
        stage.run();
        stage.check(handle.is_ended(), "it has ended");
    });
}

#[test]
fn a_connect_by_handle_runs_its_protocol() {
    everywhere(|stage| {
        let addr = stage.serve("server", echo);
        let client = stage.trace.wrap("client", answered(b"by handle"));
        stage.driver.handle().connect(addr, client).unwrap();
        stage.run();
        stage.expect(
            "client",
            &["opened".to_owned(), data(b"by handle"), "closed finished by us".to_owned()],
        );
    });
}

#[test]
fn a_closure_listens_connects_and_writes() {
    everywhere(|stage| {
        let (trace, told) = (stage.trace.clone(), Told::default());
        let tells = told.clone();
        let call = move |control: &mut Control<'_>| {
            let server = trace.clone();
            let listener = control
                .listen("127.0.0.1:0", move |incoming| {
                    Some(server.wrap("server", Last::new(echo(), incoming)))
                })
                .unwrap();
            let addr = control.addresses(listener)[0];
            assert_ne!(addr.port(), Some(0));
            let id = control.connect(addr, trace.wrap("client", closing_after(5)));
            control.peer(id).write(b"hello");
            tells.tell(format!("open: {}", control.peer(id).is_open()));
        };
        stage.driver.handle().call(call).unwrap();
        stage.run();
        told.expect(stage, &["open: true"]);
        let hello = data(b"hello");
        stage.expect("client", &["opened", &hello, "closed finished by us"]);
        stage.expect("server", &["opened", &hello, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn a_callback_listens_and_knows_the_port_at_once() {
    everywhere(|stage| {
        let trace = stage.trace.clone();
        let server = move || {
            let trace = trace.clone();
            Play::new().opened(move |cx| {
                let passive = trace.clone();
                let listener = cx.driver().listen("127.0.0.1:0", move |incoming| {
                    Some(passive.wrap("passive", Last::new(echo(), incoming)))
                })?;
                let port = cx.driver().addresses(listener)[0].port().unwrap();
                cx.write(&port.to_be_bytes());
                Ok(())
            })
        };
        let addr = stage.serve("server", server);
        let trace = stage.trace.clone();
        let client = Play::new().data(move |cx, input| {
            if input.len() == 2 {
                let port = u16::from_be_bytes([input[0], input[1]]);
                input.consume_all();
                let second = trace.wrap("second", answered(b"passive"));
                cx.connect(([127, 0, 0, 1], port), second);
                cx.close();
            }
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        let passive = data(b"passive");
        stage.expect("passive", &["opened", &passive, "eof", "closed finished by the peer"]);
        stage.expect("second", &["opened", &passive, "closed finished by us"]);
    });
}

#[test]
fn what_came_of_listening_is_told_on_the_driver() {
    everywhere(|stage| {
        let told = Told::default();
        let handle = stage.driver.handle();
        let (tells, again) = (told.clone(), handle.clone());
        handle
            .listen_with(
                "127.0.0.1:0",
                ListenOptions::default(),
                |_| Some(echo()),
                move |control, listener| {
                    let first = listener.unwrap();
                    let addr = control.addresses(first)[0];
                    tells.tell(format!("port: {}", addr.port() != Some(0)));
                    let told = move |control: &mut Control<'_>, listener: lariat::Result<_>| {
                        tells.tell(format!("{:?}", listener.unwrap_err().kind()));
                        control.stop_listening(first);
                        assert!(control.addresses(first).len() <= 1);
                    };
                    again.listen(addr, |_| Some(echo()), told).unwrap();
                },
            )
            .unwrap();
        let refused = handle.listen("nonsense", |_| Some(echo()), |_, _| {});
        let refused = refused.err().unwrap();
        stage.check(refused.error().kind() == ErrorKind::InvalidAddress, "no address");
        stage.run();
        told.expect(stage, &["port: true", "AddressInUse"]);
    });
}

#[test]
fn a_listener_that_is_stopped_in_the_closure_that_made_it_never_accepts() {
    everywhere(|stage| {
        let told = Told::default();
        let tells = told.clone();
        let call = move |control: &mut Control<'_>| {
            let listener = control.listen("127.0.0.1:0", |_| Some(echo())).unwrap();
            control.stop_listening(listener);
            tells.tell("stopped");
        };
        stage.driver.handle().call(call).unwrap();
        stage.run();
        told.expect(stage, &["stopped"]);
    });
}

#[test]
fn a_closure_that_panics_harms_nobody_and_what_it_wished_for_before_is_done() {
    everywhere(|stage| {
        stage.panics();
        let addr = stage.serve("server", Play::new);
        let id = stage.connect("client", addr, Play::new());
        let handle = stage.driver.handle();
        let call = move |control: &mut Control<'_>| {
            control.peer(id).write(b"before");
            control.peer(id).shutdown_write();
            panic!("in a closure");
        };
        handle.call(call).unwrap();
        stage.run();
        stage.check(stage.driver.metrics().panics == 1, "the panic is counted");
        let before = data(b"before");
        stage.expect("server", &["opened", &before, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn a_request_for_a_connection_that_is_gone_is_counted() {
    everywhere(|stage| {
        let addr = stage.deserted();
        let handle = stage.driver.handle();
        let play = Play::new().closed(move |cx, _| {
            let (handle, id) = (handle.clone(), cx.id());
            let later = handle.clone();
            let call = move |control: &mut Control<'_>| {
                control.set_timer(Duration::from_millis(50), move |_| {
                    later.write(id, b"to nobody").unwrap();
                    later.notify(id, Note::new(())).unwrap();
                    later.close(id).unwrap();
                    later.abort(id);
                });
            };
            handle.call(call).unwrap();
        });
        stage.connect("client", addr, play);
        stage.run();
        let stale = stage.driver.metrics().stale;
        stage.check(stale >= 3, &format!("{stale} requests were stale"));
    });
}

#[test]
fn a_full_queue_gives_back_what_it_refuses_and_never_shutdown() {
    let mut limits = DriverLimits::default();
    limits.posts_max = 2;
    everywhere_with(limits, |stage| {
        let told = Told::default();
        let handle = stage.driver.handle();
        let tell = |line: &'static str| {
            let told = told.clone();
            move |_: &mut Control<'_>| told.tell(line)
        };
        handle.call(tell("first")).unwrap();
        handle.call(tell("second")).unwrap();
        let refused = handle.call(tell("third")).unwrap_err();
        stage.check(refused.error().kind() == ErrorKind::Full, "the queue is full");
        let third = refused.into_payload();
        let again = handle.clone();
        stage.run();
        told.expect(stage, &["first", "second"]);
        again.call(third).unwrap();
        stage.run();
        told.expect(stage, &["first", "second", "third"]);
        handle.shutdown();
        stage.run();
        let refused = handle.call(tell("fourth")).unwrap_err();
        stage.check(refused.error().kind() == ErrorKind::Stopped, "the driver has ended");
        stage.check(handle.is_ended(), "it says so");
    });
}

#[test]
fn posting_from_the_drivers_own_threads_does_not_wait() {
    everywhere(|stage| {
        let addr = stage.serve("server", Play::new);
        let handle: Arc<Mutex<Option<Handle>>> = Arc::default();
        *handle.lock().unwrap() = Some(stage.driver.handle());
        let play = Play::new().opened(move |cx| {
            let handle = handle.lock().unwrap().clone().unwrap();
            let id = cx.id();
            handle.write(id, b"to myself")?;
            let inner = handle.clone();
            handle.call(move |_| inner.close(id).unwrap())?;
            Ok(())
        });
        stage.connect("client", addr, play);
        stage.run();
        stage.expect("client", &["opened", "closed finished by us"]);
    });
}

// ---- none is lost -------------------------------------------------------------------------------

const ROUNDS: usize = 10_000;

/// Every round is posted when the one before has been carried out, so that each has to wake the
/// driver anew.
#[test]
fn of_ten_thousand_posts_and_wakes_none_is_lost() {
    fn round(handle: &Handle, done: &Arc<AtomicUsize>) {
        let (again, count) = (handle.clone(), Arc::clone(done));
        handle
            .call(move |_| {
                if count.fetch_add(1, Ordering::Relaxed) + 1 < ROUNDS {
                    round(&again, &count);
                }
            })
            .unwrap();
    }
    let mut sim = lariat::sim::Sim::new(1);
    let mut reactor = lariat::reactor::Reactor::new().unwrap();
    let mut blocking = lariat::blocking::Blocking::new();
    for driver in [&mut sim as &mut dyn Driver, &mut reactor, &mut blocking] {
        let done = Arc::new(AtomicUsize::new(0));
        round(&driver.handle(), &done);
        driver.run().unwrap();
        assert_eq!(done.load(Ordering::Relaxed), ROUNDS);
    }
}

/// Another thread asks, and goes on when it was answered: a lost wake-up would stop it for good.
#[test]
fn of_ten_thousand_rounds_between_two_threads_none_is_lost() {
    fn rounds(driver: &mut dyn Driver) {
        driver.keep_running(true);
        let handle = driver.handle();
        let (told, tell) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let patience = Duration::from_secs(60);
            for number in 0..ROUNDS {
                let told = told.clone();
                let (answer, answered) = std::sync::mpsc::channel();
                handle.call(move |_| answer.send(number).unwrap()).unwrap();
                assert_eq!(answered.recv_timeout(patience), Ok(number));
                told.send(number).unwrap();
            }
            handle.shutdown();
        });
        driver.run().unwrap();
        thread.join().unwrap();
        assert_eq!(tell.iter().count(), ROUNDS);
    }
    rounds(&mut lariat::reactor::Reactor::new().unwrap());
    rounds(&mut lariat::blocking::Blocking::new());
}

/// The same with notes to one connection, which answers each.
#[test]
fn of_ten_thousand_notes_to_a_connection_none_is_lost() {
    struct Answering(std::sync::mpsc::Sender<usize>);
    impl Protocol for Answering {
        fn opened(&mut self, _: &mut Context<'_>) -> Outcome {
            self.0.send(usize::MAX)?;
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            input.consume_all();
            Ok(())
        }
        fn notified(&mut self, _: &mut Context<'_>, note: Note) -> Outcome {
            self.0.send(note.downcast::<usize>().unwrap())?;
            Ok(())
        }
    }
    fn rounds(driver: &mut dyn Driver) {
        let listener = driver.control().listen("127.0.0.1:0", |_| Some(echo())).unwrap();
        let addr = driver.addresses(listener)[0];
        let (told, answered) = std::sync::mpsc::channel();
        let id = driver.control().connect(addr, Answering(told));
        let handle = driver.handle();
        let thread = std::thread::spawn(move || {
            let patience = Duration::from_secs(60);
            assert_eq!(answered.recv_timeout(patience), Ok(usize::MAX));
            for number in 0..ROUNDS {
                handle.notify(id, Note::new(number)).unwrap();
                assert_eq!(answered.recv_timeout(patience), Ok(number));
            }
            handle.shutdown();
        });
        driver.run().unwrap();
        thread.join().unwrap();
    }
    rounds(&mut lariat::reactor::Reactor::new().unwrap());
    rounds(&mut lariat::blocking::Blocking::new());
}

#[test]
fn a_driver_that_cannot_take_over_signals_says_so() {
    let driver: &mut dyn Driver = &mut lariat::sim::Sim::new(1);
    let error = driver.stop_on_signals().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.to_string(), "cannot take over signals: the simulator has none");
    if cfg!(not(feature = "signals")) {
        let mut reactor = lariat::reactor::Reactor::new().unwrap();
        let mut blocking = lariat::blocking::Blocking::new();
        for driver in [&mut reactor as &mut dyn Driver, &mut blocking] {
            let error = driver.stop_on_signals().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let sentence = "lariat was built without the feature `signals`";
            assert_eq!(error.to_string(), format!("cannot take over signals: {sentence}"));
        }
    }
}

#[test]
fn options_that_cannot_work_give_the_protocol_back_and_reach_no_driver() {
    everywhere(|stage| {
        let handle = stage.driver.handle();
        let mut options = ConnectOptions::default();
        options.limits.input_max = 0;
        let refused = handle.connect_with("127.0.0.1:1", options, Marked(7)).unwrap_err();
        assert_eq!(
            (refused.error().kind(), refused.error().op()),
            (ErrorKind::InvalidLimits, Op::Limits)
        );
        assert_eq!(refused.into_payload().0, 7);
        let told = Told::default();
        let tells = told.clone();
        let mut options = ListenOptions::default();
        options.limits.input_max = 0;
        let done = move |_: &mut Control<'_>, listener: lariat::Result<ListenerId>| {
            tells.tell(listener.unwrap_err().to_string());
        };
        handle.listen_with("127.0.0.1:0", options, |_| Some(Marked(8)), done).unwrap();
        stage.run();
        told.expect(
            stage,
            &["these limits cannot work: input_max and output_max must be at least 1 byte"],
        );
        assert_eq!(stage.driver.metrics().connects, 0);
    });
}

#[derive(Debug)]
struct Marked(u8);

impl Protocol for Marked {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}
