//! Ends that several ask for at once, and a driver that is shut down while its threads sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::net::{Silence, fail_sends, reset_on_close};
use super::{
    Echo, Peers, Quiet, Step, Trail, Watched, bury, check, check_books, check_in, client, dawdle,
    driver_with, echo, join, read_to_end, run, run_and_leave, send, spawn, watch,
};
use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::socket::retry;
use crate::sync::model::{Rules, roll, thread};
use crate::{CloseKind, ConnectFailure, Note, Timer};

#[test]
fn model_an_end_that_several_ask_for_is_told_once() {
    check(|| {
        let resets = roll(2) == 0;
        let (peers, addr) = Peers::start(move |stream| {
            send(&stream, b"x");
            dawdle();
            if resets {
                reset_on_close(&stream);
            }
        });
        let mut driver = driver_with(|_| ());
        let (quiet, trail) = watch(Quiet { companion: roll(2) == 0 });
        let id = driver.connect(addr, quiet);
        let (closer, aborter, stopper) = (driver.handle(), driver.handle(), driver.handle());
        let threads = [
            spawn(move || {
                dawdle();
                let _ = closer.close(id);
            }),
            spawn(move || {
                dawdle();
                aborter.abort(id);
            }),
            spawn(move || {
                dawdle();
                stopper.shutdown();
            }),
        ];
        run_and_leave(&mut driver);
        trail.ended();
        join(threads);
        peers.end();
        bury(&driver);
        trail.ended();
        check_books(&driver);
    });
}

#[test]
fn model_shutdown_wakes_whoever_sleeps() {
    check(|| {
        let mut driver = driver_with(|_| ());
        let companion = roll(2) == 0;
        let accepted = Trail::default();
        let kept = accepted.clone();
        let listener = driver
            .listen("10.0.0.1:1", move |_| Some(Watched(Quiet { companion }, kept.clone())))
            .unwrap();
        let addr = driver.addresses(listener)[0];
        let (silence, silent) = Silence::new();
        let (quiet, connecting) = watch(Quiet { companion });
        let id = driver.connect(silent, quiet);
        let handle = driver.handle();
        let (served, serving) = (roll(3) > 0, roll(2) == 0);
        let threads = spawn(move || {
            let stream = served.then(|| client(addr));
            if serving {
                dawdle();
                let _ = handle.notify(id, Note::new(()));
            }
            dawdle();
            handle.shutdown();
            // Nothing is sent: only the end is waited for.
            stream.flatten().iter().for_each(|stream| drop(read_to_end(stream)));
        });
        run_and_leave(&mut driver);
        assert_eq!(connecting.ended(), CloseKind::Connect(ConnectFailure::Cancelled));
        join([threads]);
        // The connect comes back when nobody waits for it any more.
        silence.end();
        bury(&driver);
        assert_eq!(connecting.ended(), CloseKind::Connect(ConnectFailure::Cancelled));
        if !accepted.steps().is_empty() {
            accepted.ended();
        }
        check_books(&driver);
    });
}

#[test]
fn model_a_connect_that_is_cancelled_ends_without_its_answer() {
    check(|| {
        let (silence, silent) = Silence::new();
        let (peers, real) = Peers::start(echo);
        let nobody = ([10, 9, 9, 9], 1).into();
        let addr = [silent, real, nobody][roll(3)];
        let mut driver = driver_with(|_| ());
        let (quiet, trail) = watch(Quiet { companion: roll(2) == 0 });
        let id = driver.connect(addr, quiet);
        let handle = driver.handle();
        let aborts = roll(2) == 0;
        let canceller = spawn(move || {
            dawdle();
            if aborts {
                handle.abort(id);
            } else {
                handle.close(id).unwrap();
            }
        });
        run_and_leave(&mut driver);
        trail.ended();
        join([canceller]);
        silence.end();
        bury(&driver);
        trail.ended();
        peers.end();
        check_books(&driver);
    });
}

/// Does not read.
struct Paused;

impl Protocol for Paused {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.pause_reading();
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn model_a_paused_connection_hears_a_reset_at_once() {
    check(|| {
        let (peers, addr) = Peers::start(|stream| {
            send(&stream, b"abc");
            dawdle();
            reset_on_close(&stream);
        });
        let mut driver = driver_with(|_| ());
        let (paused, trail) = watch(Paused);
        let id = driver.connect(addr, paused);
        let handle = driver.handle();
        let writer = spawn(move || {
            dawdle();
            let _ = handle.write(id, b"w");
        });
        run(&mut driver);
        assert_eq!(trail.ended(), CloseKind::Reset, "{:?}", trail.steps());
        assert!(trail.bytes().is_empty());
        join([writer]);
        peers.end();
        check_books(&driver);
    });
}

/// Sets one timer after another, each due at once.
struct Ticking(u32);

impl Protocol for Ticking {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(Timer::new(0), Duration::from_nanos(1));
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        self.0 += 1;
        if self.0 < 4 {
            cx.set_timer(timer, Duration::from_nanos(1));
        }
        Ok(())
    }

    fn eof(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        panic!("a reset is no end of the stream");
    }
}

#[test]
fn model_a_look_for_input_takes_no_error_away() {
    check(|| {
        let (peers, addr) = Peers::start(|stream| {
            dawdle();
            reset_on_close(&stream);
        });
        let mut driver = driver_with(|_| ());
        let (ticking, trail) = watch(Ticking(0));
        driver.connect(addr, ticking);
        run(&mut driver);
        assert_eq!(trail.ended(), CloseKind::Reset, "{:?}", trail.steps());
        peers.end();
        check_books(&driver);
    });
}

/// Says more than the peer takes.
struct Talker;

impl Protocol for Talker {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(b"more than a window, and more than two windows");
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
}

#[test]
fn model_a_write_that_nobody_takes_ends_with_its_connection() {
    // The time to drain.
    let rules = Rules { longest: Duration::from_millis(100), ..Rules::default() };
    check_in(rules, || {
        let (over, _) = Silence::new();
        let waiting = Arc::clone(&over);
        let (peers, addr) = Peers::start(move |_stream| waiting.wait());
        let mut driver = driver_with(|limits| limits.drain = Duration::from_millis(100));
        let (talker, trail) = watch(Talker);
        let id = driver.connect(addr, talker);
        let handle = driver.handle();
        let (aborts, pushes) = (roll(2) == 0, roll(2) == 0);
        let ender = spawn(move || {
            dawdle();
            if pushes {
                handle.write_bytes(id, &b"pushed"[..]).unwrap();
                dawdle();
            }
            if aborts {
                handle.abort(id);
            } else {
                handle.shutdown();
            }
        });
        run_and_leave(&mut driver);
        let kind = trail.ended();
        let cancelled = CloseKind::Connect(ConnectFailure::Cancelled);
        assert!([CloseKind::Aborted, CloseKind::Shutdown, cancelled].contains(&kind), "{kind:?}");
        over.end();
        join([ender]);
        peers.end();
        bury(&driver);
        check_books(&driver);
    });
}

#[test]
fn model_a_send_that_fails_at_home_ends_the_connection_with_its_reason() {
    check(|| {
        let (errno, kind) = [
            (libc::ENOBUFS, CloseKind::SystemError),
            (libc::EPERM, CloseKind::SystemError),
            (libc::EHOSTUNREACH, CloseKind::Reset),
        ][roll(3)];
        let talks = roll(2) == 0;
        let (peers, addr) = Peers::start(move |stream| {
            dawdle();
            fail_sends(&stream, errno);
            // What has come by then is delivered first.
            send(&stream, b"abc");
            // It is the other end that ends.
            read_to_end(&stream);
        });
        let mut driver = driver_with(|_| ());
        let (echo, echoing) = watch(Echo);
        let (talker, talking) = watch(Talker);
        let (id, trail) = match talks {
            true => (driver.connect(addr, talker), talking),
            false => (driver.connect(addr, echo), echoing),
        };
        let handle = driver.handle();
        let pushes = roll(2) == 0;
        let pusher = spawn(move || {
            if pushes {
                dawdle();
                let _ = handle.write_bytes(id, &b"pushed"[..]);
            }
        });
        run(&mut driver);
        assert_eq!(trail.ended(), kind, "{:?}", trail.steps());
        join([pusher]);
        peers.end();
        check_books(&driver);
    });
}

/// Closes at once.
struct Curt;

impl Protocol for Curt {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(b"bye");
        cx.close();
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
}

#[test]
fn model_one_lingering_too_many_ends_the_oldest() {
    check(|| {
        let mut driver = driver_with(|limits| limits.lingering_max = 1);
        let listener = driver.listen("10.0.0.1:1", |_| Some(Curt)).unwrap();
        let addr = driver.addresses(listener)[0];
        let over = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..3)
            .map(|_| {
                let over = Arc::clone(&over);
                spawn(move || {
                    let stream = client(addr).unwrap();
                    assert_eq!(read_to_end(&stream), (b"bye".to_vec(), None));
                    // The first and the second stay until they are cut off, or are the last.
                    while over.load(Ordering::SeqCst) < 2 {
                        let mut writing = &stream;
                        if retry(|| std::io::Write::write(&mut writing, b"z")).is_err() {
                            break;
                        }
                        thread::yield_now();
                    }
                    over.fetch_add(1, Ordering::SeqCst);
                })
            })
            .collect();
        let handle = driver.handle();
        let stopper = spawn(move || {
            join(clients);
            handle.stop_listening(listener).unwrap();
        });
        run(&mut driver);
        join([stopper]);
        check_books(&driver);
    });
}

/// Closes in answer to a note, while the peer closes as well.
struct Crossing;

impl Protocol for Crossing {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume_all();
        Ok(())
    }

    fn notified(&mut self, cx: &mut Context<'_>, _: Note) -> Outcome {
        cx.shutdown_write();
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        cx.shutdown_write();
        Ok(())
    }
}

#[test]
fn model_two_ends_that_finish_at_once_are_one_end() {
    check(|| {
        let (peers, addr) = Peers::start(|stream| {
            send(&stream, b"abc");
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let (bytes, error) = read_to_end(&stream);
            assert!(b"abc".starts_with(&bytes) && error.is_none(), "{bytes:?} {error:?}");
        });
        let mut driver = driver_with(|_| ());
        let (crossing, trail) = watch(Crossing);
        let id = driver.connect(addr, crossing);
        let handle = driver.handle();
        let noter = spawn(move || {
            dawdle();
            let _ = handle.notify(id, Note::new(()));
        });
        run(&mut driver);
        assert_eq!(trail.ended(), CloseKind::Finished, "{:?}", trail.steps());
        assert_eq!(trail.steps().iter().filter(|step| **step == Step::Eof).count(), 1);
        join([noter]);
        peers.end();
        check_books(&driver);
    });
}
