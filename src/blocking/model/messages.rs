//! Notes, writes and closures of other threads: none is lost, none wakes nobody.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::net::reset_on_close;
use super::{
    Echo, Peers, Quiet, Step, check, check_books, check_in, dawdle, driver_with, join, read_some,
    read_to_end, run, send, spawn, watch,
};
use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::sync::model::{Rules, roll, thread};
use crate::{ConnId, Handle, Note, Timer};

/// Answers each note with a byte, and closes after the last.
struct Collect {
    left: usize,
    paused: bool,
}

impl Protocol for Collect {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        if self.paused {
            cx.pause_reading();
        }
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }

    fn notified(&mut self, cx: &mut Context<'_>, _: Note) -> Outcome {
        cx.write(b"n");
        self.left -= 1;
        if self.left == 0 {
            cx.close();
        }
        Ok(())
    }
}

/// Two threads that each write and then send two notes.
fn two_senders(handle: &Handle, id: ConnId) -> Vec<shuttle::thread::JoinHandle<()>> {
    let sender = || {
        let handle = handle.clone();
        spawn(move || {
            dawdle();
            handle.write(id, b"more than a window").unwrap();
            for _ in 0..2 {
                dawdle();
                handle.notify(id, Note::new(())).unwrap();
            }
        })
    };
    vec![sender(), sender()]
}

#[test]
fn model_writes_and_notes_of_two_threads_all_arrive() {
    check(|| {
        let received = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&received);
        let chatty = roll(2) == 0;
        let (peers, addr) = Peers::start(move |stream| {
            if chatty {
                send(&stream, b"abc");
            }
            count.store(read_to_end(&stream).0.len(), Ordering::SeqCst);
        });
        let mut driver = driver_with(|_| ());
        let (collect, trail) = watch(Collect { left: 4, paused: roll(2) == 0 });
        let id = driver.connect(addr, collect);
        let senders = two_senders(&driver.handle(), id);
        run(&mut driver);
        trail.ended();
        join(senders);
        peers.end();
        assert_eq!(received.load(Ordering::SeqCst), 2 * 18 + 4);
        check_books(&driver);
    });
}

#[test]
fn model_posts_to_a_connection_that_a_closure_begins_arrive() {
    check(|| {
        let (peers, addr) = Peers::start(|stream| drop(read_to_end(&stream)));
        let mut driver = driver_with(|_| ());
        driver.keep_running(true);
        let handle = driver.handle();
        let (collect, trail) = watch(Collect { left: 4, paused: false });
        let ids = handle.clone();
        let beginner = spawn(move || {
            let (tell, told) = shuttle::sync::mpsc::channel();
            let called = ids.call(move |control| {
                // Others may reach for it before it has been entered.
                tell.send(control.connect(addr, collect)).unwrap();
            });
            called.unwrap_or_else(|refused| panic!("{refused}"));
            join(two_senders(&ids, told.recv().unwrap()));
            ids.call(|control| {
                // Ends once the connection has: nothing else is left.
                let _ = control.metrics();
            })
            .unwrap_or_else(|refused| panic!("{refused}"));
        });
        let ending = driver.handle();
        let ender = spawn(move || {
            join([beginner]);
            ending.shutdown();
        });
        run(&mut driver);
        trail.ended();
        join([ender]);
        peers.end();
        check_books(&driver);
    });
}

/// Tells another connection the number of each of its callbacks.
struct Numbering(Arc<OnceLock<ConnId>>, u8);

impl Numbering {
    fn tell(&mut self, cx: &mut Context<'_>) {
        self.1 += 1;
        cx.peer(*self.0.get().unwrap()).write(&[self.1]);
        if self.1 == 8 {
            cx.peer(*self.0.get().unwrap()).close();
            cx.close();
        }
    }
}

impl Protocol for Numbering {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        for _ in input.split_all().iter().take((8 - self.1).into()) {
            self.tell(cx);
        }
        Ok(())
    }

    fn notified(&mut self, cx: &mut Context<'_>, _: Note) -> Outcome {
        if self.1 < 8 {
            self.tell(cx);
        }
        Ok(())
    }
}

#[test]
fn model_wishes_take_effect_in_the_order_of_the_callbacks() {
    check(|| {
        let (talking, talker) = Peers::start(|stream| {
            for byte in [b"1", b"2", b"3", b"4"] {
                send(&stream, byte);
                dawdle();
            }
            read_to_end(&stream);
        });
        let (listening, listener) = Peers::start(|stream| {
            assert_eq!(read_to_end(&stream), (vec![1, 2, 3, 4, 5, 6, 7, 8], None));
        });
        let mut driver = driver_with(|_| ());
        let other = Arc::new(OnceLock::new());
        let (quiet, told) = watch(Quiet { companion: roll(2) == 0 });
        other.set(driver.connect(listener, quiet)).unwrap();
        let (numbering, trail) = watch(Numbering(other, 0));
        let id = driver.connect(talker, numbering);
        let handle = driver.handle();
        let noter = spawn(move || {
            for _ in 0..4 {
                dawdle();
                handle.notify(id, Note::new(())).unwrap();
            }
        });
        run(&mut driver);
        trail.ended();
        told.ended();
        join([noter]);
        talking.end();
        listening.end();
        check_books(&driver);
    });
}

/// Counts its drops, and asks for something in each.
struct Counted(Arc<AtomicUsize>, Handle, ConnId);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        let _ = self.1.write(self.2, b"w");
    }
}

#[test]
fn model_notes_to_a_connection_that_leaves_are_delivered_or_dropped_once() {
    check(|| {
        let resets = roll(2) == 0;
        let (peers, addr) = Peers::start(move |stream| {
            dawdle();
            if resets {
                reset_on_close(&stream);
            }
        });
        let mut driver = driver_with(|_| ());
        let (quiet, trail) = watch(Quiet { companion: roll(2) == 0 });
        let id = driver.connect(addr, quiet);
        let dropped = Arc::new(AtomicUsize::new(0));
        let noters: Vec<_> = (0..2)
            .map(|_| {
                let (handle, dropped) = (driver.handle(), Arc::clone(&dropped));
                spawn(move || {
                    for _ in 0..3 {
                        dawdle();
                        let counted = Counted(Arc::clone(&dropped), handle.clone(), id);
                        let note = Note::new(counted);
                        handle.notify(id, note).unwrap();
                    }
                })
            })
            .collect();
        run(&mut driver);
        trail.ended();
        join(noters);
        peers.end();
        assert_eq!(dropped.load(Ordering::SeqCst), 6);
        let notified = trail.steps().iter().filter(|step| **step == Step::Notified).count();
        let metrics = driver.metrics();
        assert!(notified as u64 + metrics.refused_notes <= 6, "{metrics:?}");
        check_books(&driver);
    });
}

#[test]
fn model_an_echo_and_pushes_share_a_socket() {
    check(|| {
        let (peers, addr) = Peers::start(|stream| {
            let mut all = Vec::new();
            for letter in *b"abcdef" {
                send(&stream, &[letter]);
                let mut buffer = [0; 16];
                // Whatever comes between, the answer comes.
                while !all.contains(&letter) {
                    match read_some(&stream, &mut buffer) {
                        Ok(count) if count > 0 => all.extend_from_slice(&buffer[..count]),
                        other => panic!("{other:?} behind {all:?}"),
                    }
                }
            }
            let mut buffer = [0; 16];
            while all.len() < 6 + 20 {
                let count = read_some(&stream, &mut buffer).unwrap();
                all.extend_from_slice(&buffer[..count]);
            }
            let digits: Vec<u8> = all.into_iter().filter(u8::is_ascii_digit).collect();
            assert_eq!(digits, b"01234567890123456789");
        });
        let mut driver = driver_with(|_| ());
        let (echo, trail) = watch(Echo);
        let id = driver.connect(addr, echo);
        let handle = driver.handle();
        let pusher = spawn(move || {
            for _ in 0..2 {
                dawdle();
                handle.write_bytes(id, &b"0123456789"[..]).unwrap();
            }
        });
        run(&mut driver);
        trail.ended();
        join([pusher]);
        peers.end();
        check_books(&driver);
    });
}

/// Ends with the first note.
struct UntilNoted(Arc<AtomicBool>);

impl Protocol for UntilNoted {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }

    fn notified(&mut self, cx: &mut Context<'_>, _: Note) -> Outcome {
        self.0.store(true, Ordering::SeqCst);
        cx.close();
        Ok(())
    }
}

#[test]
fn model_a_note_comes_between_writes_that_never_end() {
    check(|| {
        let (peers, addr) = Peers::start(|stream| drop(read_to_end(&stream)));
        let mut driver = driver_with(|_| ());
        let noted = Arc::new(AtomicBool::new(false));
        let (protocol, trail) = watch(UntilNoted(Arc::clone(&noted)));
        let id = driver.connect(addr, protocol);
        let (pusher, noter) = (driver.handle(), driver.handle());
        let threads = [
            spawn(move || {
                while !noted.load(Ordering::SeqCst) {
                    let _ = pusher.write_bytes(id, &b"always more than a window"[..]);
                    thread::yield_now();
                }
            }),
            spawn(move || {
                dawdle();
                noter.notify(id, Note::new(())).unwrap();
            }),
        ];
        run(&mut driver);
        trail.ended();
        join(threads);
        peers.end();
        check_books(&driver);
    });
}

#[test]
fn model_each_closure_is_run() {
    check(|| {
        let mut driver = driver_with(|_| ());
        driver.keep_running(true);
        let ran = Arc::new(AtomicUsize::new(0));
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let (handle, ran) = (driver.handle(), Arc::clone(&ran));
                spawn(move || {
                    for _ in 0..3 {
                        dawdle();
                        let (ran, stopping) = (Arc::clone(&ran), handle.clone());
                        let call = handle.call(move |_| {
                            // The last one ends the driver, which would else sleep for ever.
                            if ran.fetch_add(1, Ordering::SeqCst) == 5 {
                                stopping.shutdown();
                            }
                        });
                        call.unwrap_or_else(|refused| panic!("{refused}"));
                    }
                })
            })
            .collect();
        run(&mut driver);
        assert_eq!(ran.load(Ordering::SeqCst), 6);
        join(callers);
        assert!(driver.handle().is_ended());
        check_books(&driver);
    });
}

#[test]
fn model_without_a_companion_the_connection_ends() {
    let no_companions = Rules { refused: Some("companion"), ..Rules::default() };
    check_in(no_companions, || {
        let (peers, addr) = Peers::start(|stream| drop(read_to_end(&stream)));
        let mut driver = driver_with(|_| ());
        let (quiet, trail) = watch(Quiet { companion: roll(2) == 0 });
        let id = driver.connect(addr, quiet);
        let handle = driver.handle();
        let noter = spawn(move || {
            for _ in 0..2 {
                dawdle();
                handle.notify(id, Note::new(())).unwrap();
            }
            // Its own thread may have received both.
            handle.close(id).unwrap();
        });
        run(&mut driver);
        trail.ended();
        join([noter]);
        peers.end();
        check_books(&driver);
    });
}

#[test]
fn model_without_a_thread_the_connection_ends() {
    let no_threads = Rules { refused: Some("connection"), ..Rules::default() };
    check_in(no_threads, || {
        let mut driver = driver_with(|_| ());
        let (quiet, trail) = watch(Quiet { companion: true });
        let (peers, addr) = Peers::start(|stream| drop(read_to_end(&stream)));
        let id = driver.connect(addr, quiet);
        let handle = driver.handle();
        let noter = spawn(move || drop(handle.notify(id, Note::new(()))));
        run(&mut driver);
        trail.ended();
        join([noter]);
        peers.end();
        check_books(&driver);
    });
}

#[test]
fn model_pushes_to_a_slow_reader_arrive_in_order() {
    check(|| {
        let received = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&received);
        let (peers, addr) = Peers::start(move |stream| {
            let mut all = Vec::new();
            let mut buffer = [0; 3];
            while all.len() < 40 {
                dawdle();
                match read_some(&stream, &mut buffer) {
                    Ok(read) if read > 0 => all.extend_from_slice(&buffer[..read]),
                    _ => break,
                }
            }
            let (letters, digits): (Vec<u8>, Vec<u8>) =
                all.iter().partition(|byte| byte.is_ascii_lowercase());
            assert_eq!(letters, b"abcdefghijabcdefghij");
            assert_eq!(digits, b"01234567890123456789");
            count.store(all.len(), Ordering::SeqCst);
        });
        let mut driver = driver_with(|_| ());
        let (quiet, trail) = watch(Quiet { companion: false });
        let id = driver.connect(addr, quiet);
        let pushers: Vec<_> = [b"abcdefghij", b"0123456789"]
            .into_iter()
            .map(|bytes| {
                let handle = driver.handle();
                spawn(move || {
                    for _ in 0..2 {
                        handle.write_bytes(id, &bytes[..]).unwrap();
                    }
                })
            })
            .collect();
        run(&mut driver);
        trail.ended();
        join(pushers);
        peers.end();
        assert_eq!(received.load(Ordering::SeqCst), 40);
        check_books(&driver);
    });
}

const SOON: Timer = Timer::new(1);
const LATE: Timer = Timer::new(2);

/// Takes a byte of what it is shown, the first time with a timer that is due at once.
#[derive(Default)]
struct Leaving {
    shown: u32,
    left: bool,
}

impl Protocol for Leaving {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        // A companion waits for this one, and sees the other.
        cx.set_timer(LATE, Duration::from_secs(3600));
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if self.shown == 0 {
            cx.set_timer(SOON, Duration::ZERO);
            self.left = input.len() > 1;
        }
        self.shown += 1;
        input.consume(1);
        Ok(())
    }

    fn timeout(&mut self, _: &mut Context<'_>, _: Timer) -> Outcome {
        assert!(self.shown > 1 || !self.left, "a timer came before input that had been read");
        Ok(())
    }
}

#[test]
fn model_input_that_was_read_comes_before_a_timer_that_is_due() {
    check(|| {
        let (peers, addr) = Peers::start(|stream| {
            send(&stream, b"abcd");
            let _ = stream.shutdown(std::net::Shutdown::Write);
            read_to_end(&stream);
        });
        let mut driver = driver_with(|_| ());
        driver.control().connect(addr, Leaving::default());
        run(&mut driver);
        peers.end();
        check_books(&driver);
    });
}
