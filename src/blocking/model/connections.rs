//! A connection's two threads, and others that reach for it at any moment.

use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::net::TcpStream;
use super::{
    Echo, Peers, Quiet, Step, Watched, bury, check, check_books, client, dawdle, driver_with, echo,
    join, read_some, read_to_end, run, run_and_leave, send, spawn, watch,
};
use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::reason::CloseReason;
use crate::sync::model::{roll, thread};
use crate::{ConnId, ConnectOptions, Handle, Note, Timer};

/// Says ten bytes, which is more than the window, and closes when they have come back.
#[derive(Default)]
struct Talk {
    back: usize,
    companion: bool,
}

impl Protocol for Talk {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        if self.companion {
            cx.set_timer(Timer::new(1), Duration::from_secs(3600));
        }
        cx.write(b"0123456789");
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.back += input.split_all().len();
        if self.back >= 10 {
            cx.close();
        }
        Ok(())
    }

    fn notified(&mut self, cx: &mut Context<'_>, _: Note) -> Outcome {
        cx.write(b"n");
        Ok(())
    }
}

/// Asks for something, whatever it is.
fn poke(handle: &Handle, id: ConnId) {
    let _ = match roll(5) {
        0 => handle.write(id, b"w"),
        1 => handle.notify(id, Note::new(7u8)).map_err(Into::into),
        2 => handle.close(id),
        3 => handle.shutdown_write(id),
        _ => {
            handle.abort(id);
            Ok(())
        }
    };
}

#[test]
fn model_handles_may_ask_for_anything_at_any_moment() {
    check(|| {
        let (peers, addr) = Peers::start(echo);
        let mut driver = driver_with(|_| ());
        let (talk, trail) = watch(Talk { companion: roll(2) == 0, ..Talk::default() });
        let id = driver.connect(addr, talk);
        let pokers: Vec<_> = (0..2)
            .map(|_| {
                let handle = driver.handle();
                spawn(move || {
                    for _ in 0..3 {
                        dawdle();
                        poke(&handle, id);
                    }
                })
            })
            .collect();
        run_and_leave(&mut driver);
        trail.ended();
        join(pokers);
        peers.end();
        bury(&driver);
        trail.ended();
        check_books(&driver);
    });
}

#[test]
fn model_an_echo_comes_back_whole_and_ends_with_its_client() {
    check(|| {
        let mut driver = driver_with(|_| ());
        driver.serial(roll(2) == 0);
        let listener = driver.listen("10.0.0.1:1", |_| Some(Echo)).unwrap();
        let addr = driver.addresses(listener)[0];
        let handle = driver.handle();
        let clients = (0..2).map(|_| {
            spawn(move || {
                let stream = Arc::new(client(addr).unwrap());
                let writing = Arc::clone(&stream);
                let writer = spawn(move || {
                    send(&writing, b"more than a window");
                    let _ = writing.shutdown(Shutdown::Write);
                });
                assert_eq!(read_to_end(&stream), (b"more than a window".to_vec(), None));
                join([writer]);
            })
        });
        let clients: Vec<_> = clients.collect();
        let stopper = spawn(move || {
            join(clients);
            handle.stop_listening(listener).unwrap();
        });
        run(&mut driver);
        join([stopper]);
        check_books(&driver);
    });
}

/// Passes everything on to another connection, its end as well.
struct Relay(Arc<[OnceLock<ConnId>; 2]>, usize);

impl Protocol for Relay {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        let other = *self.0[self.1].get().unwrap();
        cx.peer(other).write(input);
        input.consume_all();
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        let other = *self.0[self.1].get().unwrap();
        cx.peer(other).shutdown_write();
        Ok(())
    }
}

#[test]
fn model_two_connections_relay_to_each_other() {
    check(|| {
        let serve = |stream| {
            let stream = Arc::new(stream);
            let writing = Arc::clone(&stream);
            let writer = spawn(move || {
                send(&writing, b"more than a window");
                let _ = writing.shutdown(Shutdown::Write);
            });
            assert_eq!(read_to_end(&stream), (b"more than a window".to_vec(), None));
            join([writer]);
        };
        let ids: Arc<[OnceLock<ConnId>; 2]> = Arc::default();
        let mut driver = driver_with(|_| ());
        let (first, first_addr) = Peers::start(serve);
        let (second, second_addr) = Peers::start(serve);
        let (relay, one) = watch(Relay(Arc::clone(&ids), 1));
        ids[0].set(driver.connect(first_addr, relay)).unwrap();
        let (relay, two) = watch(Relay(Arc::clone(&ids), 0));
        ids[1].set(driver.connect(second_addr, relay)).unwrap();
        run(&mut driver);
        for trail in [one, two] {
            assert_eq!(trail.ended(), crate::CloseKind::Finished, "{:?}", trail.steps());
        }
        first.end();
        second.end();
        check_books(&driver);
    });
}

/// The marks are so low that each write holds its writer.
fn holding() -> ConnectOptions {
    let mut options = ConnectOptions::default();
    (options.limits.high_mark, options.limits.low_mark) = (roll(8), 0);
    options
}

#[test]
fn model_a_writer_that_is_held_goes_on_when_the_queue_has_drained() {
    check(|| {
        let serve = |stream| {
            let stream = Arc::new(stream);
            let writing = Arc::clone(&stream);
            let writer = spawn(move || {
                for _ in 0..3 {
                    send(&writing, b"more than a window");
                    dawdle();
                }
                let _ = writing.shutdown(Shutdown::Write);
            });
            let mut all = Vec::new();
            let mut buffer = [0; 5];
            while let Ok(count) = read_some(&stream, &mut buffer) {
                if count == 0 {
                    break;
                }
                all.extend_from_slice(&buffer[..count]);
                dawdle();
            }
            assert_eq!(all, b"more than a windowmore than a windowmore than a window");
            join([writer]);
        };
        let ids: Arc<[OnceLock<ConnId>; 2]> = Arc::default();
        let mut driver = driver_with(|_| ());
        let (first, first_addr) = Peers::start(serve);
        let (second, second_addr) = Peers::start(serve);
        let (relay, one) = watch(Relay(Arc::clone(&ids), 1));
        let id = driver.control().connect_with(first_addr, holding(), relay).unwrap();
        ids[0].set(id).unwrap();
        let (relay, two) = watch(Relay(Arc::clone(&ids), 0));
        let id = driver.control().connect_with(second_addr, holding(), relay).unwrap();
        ids[1].set(id).unwrap();
        run(&mut driver);
        for trail in [one, two] {
            assert_eq!(trail.ended(), crate::CloseKind::Finished, "{:?}", trail.steps());
        }
        first.end();
        second.end();
        check_books(&driver);
    });
}

#[test]
fn model_a_queue_that_drains_while_its_writer_is_being_held_releases_it() {
    check(|| {
        // Each byte is a write that holds, and each byte of the other peer lets its thread send.
        let drips = |stream: &TcpStream| {
            for _ in 0..12 {
                send(stream, b"d");
                thread::yield_now();
            }
            let _ = stream.shutdown(Shutdown::Write);
        };
        let ids: Arc<[OnceLock<ConnId>; 2]> = Arc::default();
        let mut driver = driver_with(|_| ());
        let (source, source_addr) = Peers::start(move |stream| {
            drips(&stream);
            read_to_end(&stream);
        });
        let (target, target_addr) = Peers::start(move |stream| {
            drips(&stream);
            assert_eq!(read_to_end(&stream), (vec![b'd'; 12], None));
        });
        let mut options = ConnectOptions::default();
        (options.limits.high_mark, options.limits.low_mark) = (0, 0);
        let (relay, one) = watch(Relay(Arc::clone(&ids), 1));
        let id = driver.control().connect_with(source_addr, options.clone(), relay).unwrap();
        ids[0].set(id).unwrap();
        let (quiet, two) = watch(HalfOpen(Arc::clone(&ids)));
        let id = driver.control().connect_with(target_addr, options, quiet).unwrap();
        ids[1].set(id).unwrap();
        run(&mut driver);
        for trail in [one, two] {
            assert_eq!(trail.ended(), crate::CloseKind::Finished, "{:?}", trail.steps());
        }
        source.end();
        target.end();
        check_books(&driver);
    });
}

/// Says more than a window and reads nothing until it is noted.
struct Resuming;

impl Protocol for Resuming {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.pause_reading();
        cx.write(b"more than a window");
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }

    fn notified(&mut self, cx: &mut Context<'_>, _: Note) -> Outcome {
        cx.resume_reading();
        Ok(())
    }
}

/// Writes everything before it reads anything.
fn write_first(stream: TcpStream) {
    send(&stream, b"much more than a window, and than two");
    let _ = stream.shutdown(Shutdown::Write);
    assert_eq!(read_to_end(&stream), (b"more than a window".to_vec(), None));
}

#[test]
fn model_a_paused_connection_whose_output_is_stuck_reads_on_when_it_is_resumed() {
    check(|| {
        let (peers, addr) = Peers::start(write_first);
        let mut driver = driver_with(|_| ());
        let (resuming, trail) = watch(Resuming);
        let mut options = ConnectOptions::default();
        options.limits.input_max = 8;
        let id = driver.control().connect_with(addr, options, resuming).unwrap();
        let handle = driver.handle();
        let noter = spawn(move || {
            dawdle();
            handle.notify(id, Note::new(())).unwrap();
        });
        run(&mut driver);
        assert_eq!(trail.ended(), crate::CloseKind::Finished, "{:?}", trail.steps());
        assert_eq!(trail.bytes(), b"much more than a window, and than two");
        join([noter]);
        peers.end();
        check_books(&driver);
    });
}

/// A [`Relay`] that says more than a window itself.
struct Saying(Relay);

impl Protocol for Saying {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(b"more than a window");
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.0.data(cx, input)
    }

    fn eof(&mut self, cx: &mut Context<'_>, rest: &mut Input<'_>) -> Outcome {
        self.0.eof(cx, rest)?;
        cx.close();
        Ok(())
    }
}

#[test]
fn model_a_held_connection_whose_output_is_stuck_reads_on_when_it_is_released() {
    check(|| {
        let ids: Arc<[OnceLock<ConnId>; 2]> = Arc::default();
        let mut driver = driver_with(|_| ());
        let (source, source_addr) = Peers::start(write_first);
        let (target, target_addr) = Peers::start(|stream| {
            dawdle();
            let all = b"much more than a window, and than two".to_vec();
            assert_eq!(read_to_end(&stream), (all, None));
        });
        let (relay, one) = watch(Saying(Relay(Arc::clone(&ids), 1)));
        let id = driver.control().connect_with(source_addr, holding(), relay).unwrap();
        ids[0].set(id).unwrap();
        let (quiet, two) = watch(Quiet { companion: roll(2) == 0 });
        let id = driver.control().connect_with(target_addr, holding(), quiet).unwrap();
        ids[1].set(id).unwrap();
        run(&mut driver);
        for trail in [one, two] {
            assert_eq!(trail.ended(), crate::CloseKind::Finished, "{:?}", trail.steps());
        }
        source.end();
        target.end();
        check_books(&driver);
    });
}

/// Takes everything, and finishes the source's other half at its end.
struct HalfOpen(Arc<[OnceLock<ConnId>; 2]>);

impl Protocol for HalfOpen {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        cx.peer(*self.0[0].get().unwrap()).shutdown_write();
        Ok(())
    }
}

#[test]
fn model_an_echo_that_is_held_by_its_own_queue_goes_on() {
    check(|| {
        let mut driver = driver_with(|_| ());
        let mut options = crate::ListenOptions::default();
        (options.limits.high_mark, options.limits.low_mark) = (roll(8), 0);
        let listener = driver.listen_with("10.0.0.1:1", options, |_| Some(Echo)).unwrap();
        let addr = driver.addresses(listener)[0];
        let handle = driver.handle();
        let client = spawn(move || {
            let stream = Arc::new(client(addr).unwrap());
            let writing = Arc::clone(&stream);
            let writer = spawn(move || {
                send(&writing, b"much more than a window, and than two");
                let _ = writing.shutdown(Shutdown::Write);
            });
            dawdle();
            let all = b"much more than a window, and than two".to_vec();
            assert_eq!(read_to_end(&stream), (all, None));
            join([writer]);
            handle.stop_listening(listener).unwrap();
        });
        run(&mut driver);
        join([client]);
        check_books(&driver);
    });
}

#[test]
fn model_whoever_is_written_to_may_end_at_any_moment() {
    check(|| {
        let (source, source_addr) = Peers::start(|stream| {
            for _ in 0..4 {
                send(&stream, b"more than a window");
            }
        });
        let (target, target_addr) = Peers::start(|stream| drop(read_to_end(&stream)));
        let ids: Arc<[OnceLock<ConnId>; 2]> = Arc::default();
        let mut driver = driver_with(|_| ());
        let (quiet, written_to) = watch(Quiet { companion: roll(2) == 0 });
        ids[1].set(driver.connect(target_addr, quiet)).unwrap();
        let (relay, relaying) = watch(Relay(Arc::clone(&ids), 1));
        ids[0].set(driver.connect(source_addr, relay)).unwrap();
        let handle = driver.handle();
        let ender = spawn(move || {
            dawdle();
            poke(&handle, *ids[1].get().unwrap());
            dawdle();
            handle.abort(*ids[1].get().unwrap());
            // The relay's own end is half of it: nobody closes it.
            handle.close(*ids[0].get().unwrap()).unwrap();
        });
        run_and_leave(&mut driver);
        written_to.ended();
        relaying.ended();
        join([ender]);
        source.end();
        target.end();
        bury(&driver);
        check_books(&driver);
    });
}

/// Does anything to another connection whenever it is called, also by its own driver's handle.
struct Meddler(Arc<[OnceLock<ConnId>; 2]>, usize, Handle);

impl Meddler {
    fn meddle(&mut self, cx: &mut Context<'_>) {
        let other = *self.0[self.1].get().unwrap();
        match roll(8) {
            6 => poke(&self.2, other),
            7 => poke(&self.2, cx.id()),
            0 => cx.peer(other).close(),
            1 => cx.peer(other).abort(),
            2 => cx.peer(other).notify(Note::new(1u8)),
            3 => cx.peer(other).shutdown_write(),
            4 => cx.peer(other).push(&b"push"[..]),
            _ => cx.peer(other).write(b"more than a window"),
        }
    }
}

impl Protocol for Meddler {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.meddle(cx);
        cx.write(b"x");
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        self.meddle(cx);
        cx.close();
        Ok(())
    }

    fn notified(&mut self, cx: &mut Context<'_>, _: Note) -> Outcome {
        cx.write(b"n");
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, _: &CloseReason) {
        assert!(cx.driver().metrics().connects <= 2);
        self.meddle(cx);
    }
}

#[test]
fn model_two_connections_meddle_with_each_other() {
    check(|| {
        let ids: Arc<[OnceLock<ConnId>; 2]> = Arc::default();
        let mut driver = driver_with(|_| ());
        // They read all the time: a peer that writes before it reads may stall another one that
        // does so.
        let serve = |stream| {
            send(&stream, b"y");
            read_to_end(&stream);
        };
        let (first, first_addr) = Peers::start(serve);
        let (second, second_addr) = Peers::start(serve);
        let (meddler, one) = watch(Meddler(Arc::clone(&ids), 1, driver.handle()));
        ids[0].set(driver.connect(first_addr, meddler)).unwrap();
        let (meddler, two) = watch(Meddler(Arc::clone(&ids), 0, driver.handle()));
        ids[1].set(driver.connect(second_addr, meddler)).unwrap();
        run_and_leave(&mut driver);
        one.ended();
        two.ended();
        bury(&driver);
        first.end();
        second.end();
        check_books(&driver);
    });
}

/// Hands over to a [`Second`] at the first `r`.
struct First {
    replaced: Arc<AtomicBool>,
    wrong: Arc<AtomicUsize>,
    next: Option<Watched<Second>>,
}

struct Second;

impl First {
    fn note_call(&self) {
        let wrong = usize::from(self.replaced.load(Ordering::SeqCst));
        self.wrong.fetch_add(wrong, Ordering::SeqCst);
    }
}

impl Protocol for First {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.note_call();
        cx.set_timer(Timer::new(1), Duration::from_secs(3600));
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.note_call();
        while !input.is_empty() {
            if input.split_to(1)[0] == b'r' {
                self.replaced.store(true, Ordering::SeqCst);
                self.next.take().into_iter().for_each(|next| cx.replace(next).feed_unread());
                break;
            }
        }
        Ok(())
    }

    fn notified(&mut self, _: &mut Context<'_>, _: Note) -> Outcome {
        self.note_call();
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_>, _: &CloseReason) {
        self.note_call();
    }
}

impl Protocol for Second {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if input.split_all().contains(&b'b') {
            cx.close();
        }
        Ok(())
    }
}

#[test]
fn model_a_successor_takes_over_while_the_companion_runs() {
    check(|| {
        let (peers, addr) = Peers::start(|stream| {
            send(&stream, b"arb");
            read_to_end(&stream);
        });
        let mut driver = driver_with(|_| ());
        let (second, trail) = watch(Second);
        let (replaced, wrong) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let next = Some(second);
        let first = First { replaced: Arc::clone(&replaced), wrong: Arc::clone(&wrong), next };
        let id = driver.connect(addr, first);
        let handle = driver.handle();
        let noter = spawn(move || {
            for _ in 0..3 {
                dawdle();
                let _ = handle.notify(id, Note::new(()));
            }
        });
        run(&mut driver);
        trail.ended();
        assert_eq!(trail.steps()[0], Step::Opened);
        assert_eq!(trail.bytes(), b"b");
        assert_eq!(wrong.load(Ordering::SeqCst), 0, "the first was called after its successor");
        join([noter]);
        peers.end();
        check_books(&driver);
    });
}
