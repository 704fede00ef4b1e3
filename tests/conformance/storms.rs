//! Many threads that ask one driver at once.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::{self, JoinHandle};

use lariat::blocking::Blocking;
use lariat::reactor::Reactor;
use lariat::sim::Sim;
use lariat::{ConnId, Control, Driver, DriverLimits, ErrorKind, Handle, Limits, Note, Refused};

use crate::kit::{Play, on_sockets};

const SENDERS: usize = 8;
/// Requests of each.
const POSTS: usize = 2_000;
const ALL: usize = SENDERS * POSTS;

/// A queue that is often full.
fn narrow() -> DriverLimits {
    let mut limits = DriverLimits::default();
    limits.posts_max = 100;
    limits
}

/// Asks again as long as the queue is full.
fn insist<T>(mut payload: T, ask: impl Fn(T) -> Result<(), Refused<T>>) -> Result<(), Refused<T>> {
    loop {
        match ask(payload) {
            Err(refused) if refused.error().kind() == ErrorKind::Full => {
                payload = refused.into_payload();
                thread::yield_now();
            }
            result => return result,
        }
    }
}

/// Runs `send` on each of the threads, all at once, with the number of each.
fn storm<T: Send + 'static>(
    handle: &Handle,
    send: impl Fn(&Handle, usize) -> T + Send + Sync + 'static,
) -> Vec<JoinHandle<T>> {
    let (begin, send) = (Arc::new(Barrier::new(SENDERS)), Arc::new(send));
    let sender = |number| {
        let (handle, begin, send) = (handle.clone(), Arc::clone(&begin), Arc::clone(&send));
        thread::spawn(move || {
            begin.wait();
            send(&handle, number)
        })
    };
    (0..SENDERS).map(sender).collect()
}

/// What has come, as the number of the sender and of its request.
type Came = Arc<Mutex<Vec<(usize, usize)>>>;

/// Nothing is missing, nothing comes twice, and that of each sender comes in its order.
#[track_caller]
fn assert_whole(came: &Came, numbers: &[usize], told: &str) {
    let came = came.lock().unwrap();
    assert_eq!(came.len(), SENDERS * numbers.len(), "{told}");
    for sender in 0..SENDERS {
        let of: Vec<usize> =
            came.iter().filter(|(by, _)| *by == sender).map(|(_, number)| *number).collect();
        assert!(of == numbers, "of sender {sender}, {told}: {of:?}");
    }
}

#[test]
fn c10_of_a_storm_of_closures_none_is_lost_and_each_sender_keeps_its_order() {
    on_sockets(narrow(), |stage| {
        let came = Came::default();
        let adds = Arc::clone(&came);
        stage.driver.keep_running(true);
        let senders = storm(&stage.driver.handle(), move |handle, sender| {
            for number in 0..POSTS {
                let came = Arc::clone(&adds);
                let code = move |control: &mut Control<'_>| {
                    let mut came = came.lock().unwrap();
                    came.push((sender, number));
                    if came.len() == ALL {
                        control.shutdown();
                    }
                };
                insist(code, |code| handle.call(code)).unwrap();
            }
        });
        stage.run();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_whole(&came, &(0..POSTS).collect::<Vec<_>>(), "closures");
        // Threads do not count their wake-ups.
        let metrics = stage.driver.metrics();
        assert!(metrics.wakeups <= metrics.turns, "{metrics:?}");
    });
}

#[test]
fn c10_of_a_storm_of_notes_and_writes_to_one_connection_none_is_lost_or_out_of_order() {
    let mut limits = Limits::default();
    limits.notes_max = ALL;
    on_sockets(narrow(), |stage| {
        let (notes, lines, left) = (Came::default(), Came::default(), AtomicUsize::new(ALL));
        let left = Arc::new(left);
        let (reads, counts) = (Arc::clone(&lines), Arc::clone(&left));
        let addr = stage.serve("server", move || {
            let (reads, counts) = (Arc::clone(&reads), Arc::clone(&counts));
            Play::new().data(move |cx, input| {
                while let Some(line) = input.first_chunk::<8>() {
                    let line = std::str::from_utf8(line).unwrap().trim_end();
                    let (sender, number) = line.split_once(' ').unwrap();
                    reads.lock().unwrap().push((sender.parse()?, number.parse()?));
                    input.consume(8);
                    if counts.fetch_sub(1, Ordering::Relaxed) == 1 {
                        cx.driver().shutdown();
                    }
                }
                Ok(())
            })
        });
        let hears = Arc::clone(&notes);
        let client = Play::new().notified(move |cx, note| {
            hears.lock().unwrap().push(note.downcast::<(usize, usize)>().unwrap());
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                cx.driver().shutdown();
            }
            Ok(())
        });
        let id = stage.connect_with("client", addr, limits.clone(), client);
        let senders = storm(&stage.driver.handle(), move |handle, sender| {
            for number in 0..POSTS {
                if number % 2 == 0 {
                    let note = Note::new((sender, number));
                    insist(note, |note| handle.notify(id, note)).unwrap();
                } else {
                    let line = lariat::Bytes::from(format!("{sender} {number:05}\n"));
                    insist(line, |line| handle.write_bytes(id, line)).unwrap();
                }
            }
        });
        stage.run();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let numbers = |odd| (0..POSTS).filter(|number| number % 2 == odd).collect::<Vec<_>>();
        assert_whole(&notes, &numbers(0), "notes");
        assert_whole(&lines, &numbers(1), "writes");
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.stale, metrics.refused_notes), (0, 0));
    });
}

// ---- the end ------------------------------------------------------------------------------------

const RAN: u8 = 1;
const DROPPED: u8 = 2;
const REFUSED: u8 = 4;

/// Goes with a request, and knows what became of it.
struct Token(Arc<AtomicU8>);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.fetch_or(DROPPED, Ordering::Relaxed);
    }
}

/// Refusals after which a sender believes that the driver has ended.
const ENOUGH: usize = 100;

/// Posts closures and notes until the driver has ended. Returns what became of each.
fn post_to_the_end(handle: &Handle, id: ConnId, ran: &Arc<AtomicUsize>) -> Vec<Arc<AtomicU8>> {
    let (mut fates, mut refused) = (Vec::new(), 0);
    while refused < ENOUGH {
        let fate = Arc::new(AtomicU8::new(0));
        let (token, count) = (Token(Arc::clone(&fate)), Arc::clone(ran));
        let result = if fates.len() % 2 == 0 {
            let code = move |control: &mut Control<'_>| {
                token.0.fetch_or(RAN, Ordering::Relaxed);
                if count.fetch_add(1, Ordering::Relaxed) + 1 == POSTS {
                    control.shutdown();
                }
            };
            insist(code, |code| handle.call(code)).map_err(|refused| refused.error().kind())
        } else {
            let note = Note::new(token);
            insist(note, |note| handle.notify(id, note)).map_err(|refused| refused.error().kind())
        };
        match result {
            Ok(()) => assert_eq!(refused, 0, "a driver that has ended takes nothing any more"),
            Err(kind) => {
                assert_eq!(kind, ErrorKind::Stopped);
                fate.fetch_or(REFUSED, Ordering::Relaxed);
                refused += 1;
            }
        }
        fates.push(fate);
    }
    assert!(handle.is_ended());
    fates
}

#[test]
fn c10_what_is_posted_while_a_driver_ends_is_done_or_dropped_or_given_back_and_only_one_of_these() {
    on_sockets(narrow(), |stage| {
        let ran = Arc::new(AtomicUsize::new(0));
        let addr = stage.serve("server", Play::new);
        let client = Play::new().notified(|_, note| {
            note.get::<Token>().unwrap().0.fetch_or(RAN, Ordering::Relaxed);
            Ok(())
        });
        let id = stage.connect("client", addr, client);
        let senders =
            storm(&stage.driver.handle(), move |handle, _| post_to_the_end(handle, id, &ran));
        stage.run();
        let fates: Vec<u8> = senders
            .into_iter()
            .flat_map(|sender| sender.join().unwrap())
            .map(|fate| fate.load(Ordering::Relaxed))
            .collect();
        let count = |what| fates.iter().filter(|fate| **fate == what).count();
        let (done, dropped, refused) =
            (count(RAN | DROPPED), count(DROPPED), count(REFUSED | DROPPED));
        // Nothing is left anywhere, and nothing was both refused and done.
        assert_eq!(done + dropped + refused, fates.len(), "{fates:?}");
        assert!(done >= POSTS, "{done} of {}", fates.len());
        assert_eq!(refused, SENDERS * ENOUGH);
    });
}

/// What no driver ever takes: nothing is lost without its drop.
#[test]
fn c10_what_waits_for_a_driver_that_is_dropped_is_dropped_with_it() {
    let drivers: [Box<dyn Driver>; 3] =
        [Box::new(Sim::new(1)), Box::new(Reactor::new().unwrap()), Box::new(Blocking::new())];
    for mut driver in drivers {
        let (handle, fates) = (driver.handle(), [0; 20].map(|_| Arc::new(AtomicU8::new(0))));
        let id = driver.control().connect("127.0.0.1:1", Play::new());
        for (number, fate) in fates.iter().enumerate() {
            let token = Token(Arc::clone(fate));
            if number % 2 == 0 {
                let code = move |_: &mut Control<'_>| {
                    token.0.fetch_or(RAN, Ordering::Relaxed);
                };
                handle.call(code).unwrap();
            } else {
                handle.notify(id, Note::new(token)).unwrap();
            }
        }
        drop(driver);
        let found = fates.map(|fate| fate.load(Ordering::Relaxed));
        assert_eq!(found, [DROPPED; 20]);
        let refused = handle.notify(id, Note::new(())).unwrap_err();
        assert_eq!(refused.error().kind(), ErrorKind::Stopped);
    }
}
