//! Datagram sockets: what others ask reaches them whatever their threads sleep in, and each ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::udp;
use super::{check, check_books, check_in, dawdle, driver_with, join, run, spawn};
use crate::datagram::{Datagram, DatagramContext, DatagramProtocol};
use crate::protocol::Outcome;
use crate::reason::{CloseKind, CloseReason};
use crate::sync::model::{Rules, roll};
use crate::{Note, Timer};

/// Closes after so many datagrams, notes and timers; counts them, and how it ended.
struct Counting {
    left: usize,
    timers: u16,
    seen: Arc<AtomicUsize>,
    ended: Arc<Mutex<Vec<CloseKind>>>,
}

#[derive(Clone, Default)]
struct Watched {
    seen: Arc<AtomicUsize>,
    ended: Arc<Mutex<Vec<CloseKind>>>,
}

impl Watched {
    fn node(&self, left: usize, timers: u16) -> Counting {
        let (seen, ended) = (Arc::clone(&self.seen), Arc::clone(&self.ended));
        Counting { left, timers, seen, ended }
    }

    /// How it ended: once.
    #[track_caller]
    fn ended(&self) -> CloseKind {
        let ended = self.ended.lock().unwrap();
        assert_eq!(ended.len(), 1, "{ended:?}");
        ended[0]
    }
}

impl Counting {
    fn count(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
        assert!(self.ended.lock().unwrap().is_empty(), "`closed` is the last");
        self.seen.fetch_add(1, Ordering::SeqCst);
        self.left -= 1;
        if self.left == 0 {
            cx.close();
        }
        Ok(())
    }
}

impl DatagramProtocol for Counting {
    fn opened(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
        for number in 0..self.timers {
            cx.set_timer(Timer::new(number), Duration::from_millis(roll(4) as u64));
        }
        Ok(())
    }

    fn datagram(&mut self, cx: &mut DatagramContext<'_>, _: &Datagram<'_>) -> Outcome {
        self.count(cx)
    }

    fn notified(&mut self, cx: &mut DatagramContext<'_>, _: Note) -> Outcome {
        self.count(cx)
    }

    fn timeout(&mut self, cx: &mut DatagramContext<'_>, _: Timer) -> Outcome {
        self.count(cx)
    }

    fn closed(&mut self, _: &mut DatagramContext<'_>, reason: &CloseReason) {
        self.ended.lock().unwrap().push(reason.kind());
    }
}

#[test]
fn model_datagrams_notes_and_timers_all_arrive() {
    check_in(Rules { longest: Duration::from_millis(5), ..Rules::default() }, || {
        let mut driver = driver_with(|_| ());
        let watched = Watched::default();
        let id = driver.bind("10.0.0.2:0", watched.node(7, 1)).unwrap();
        let to = driver.bound_addr(id).unwrap().socket_addr().unwrap();
        let senders = (0..2).map(|_| {
            let handle = driver.handle();
            spawn(move || {
                for _ in 0..2 {
                    dawdle();
                    handle.notify(id, Note::new(())).unwrap();
                }
            })
        });
        let mut threads: Vec<_> = senders.collect();
        threads.push(spawn(move || {
            for _ in 0..2 {
                dawdle();
                assert!(udp::send_to(to, b"datagram"));
            }
        }));
        run(&mut driver);
        assert_eq!(
            (watched.ended(), watched.seen.load(Ordering::SeqCst)),
            (CloseKind::Finished, 7)
        );
        join(threads);
        check_books(&driver);
        assert!(!udp::send_to(to, b"late"), "its address is free");
    });
}

#[test]
fn model_a_close_an_abort_and_shutdown_each_end_a_socket_that_hears_nothing() {
    check(|| {
        let mut driver = driver_with(|_| ());
        let watched = Watched::default();
        let id = driver.bind("10.0.0.2:0", watched.node(9, 0)).unwrap();
        let handle = driver.handle();
        let way = roll(3);
        let asker = spawn(move || {
            dawdle();
            match way {
                0 => handle.close(id).unwrap(),
                1 => handle.abort(id),
                _ => handle.shutdown(),
            }
        });
        run(&mut driver);
        let kinds = match way {
            0 => [CloseKind::Finished; 2],
            1 => [CloseKind::Aborted; 2],
            // It may have come before the socket was entered.
            _ => [CloseKind::Finished, CloseKind::Shutdown],
        };
        assert!(kinds.contains(&watched.ended()));
        join([asker]);
        check_books(&driver);
    });
}

#[test]
fn model_two_sockets_that_end_each_other_both_end() {
    /// Closes the other when it hears of it.
    struct Rival(Arc<Mutex<Vec<crate::ConnId>>>, Counting);
    impl DatagramProtocol for Rival {
        fn datagram(&mut self, cx: &mut DatagramContext<'_>, _: &Datagram<'_>) -> Outcome {
            for id in self.0.lock().unwrap().clone() {
                cx.peer(id).notify(Note::new(()));
                cx.peer(id).close();
            }
            Ok(())
        }
        fn closed(&mut self, cx: &mut DatagramContext<'_>, reason: &CloseReason) {
            self.1.closed(cx, reason);
        }
    }
    check(|| {
        let mut driver = driver_with(|_| ());
        let (ids, watched) = (Arc::default(), [Watched::default(), Watched::default()]);
        let both: Vec<_> = watched
            .iter()
            .map(|watched| {
                let rival = Rival(Arc::clone(&ids), watched.node(1, 0));
                driver.bind("10.0.0.2:0", rival).unwrap()
            })
            .collect();
        let addrs: Vec<_> =
            both.iter().map(|id| driver.bound_addr(*id).unwrap().socket_addr().unwrap()).collect();
        *ids.lock().unwrap() = both;
        let senders: Vec<_> = addrs
            .into_iter()
            .map(|to| {
                spawn(move || {
                    dawdle();
                    udp::send_to(to, b"now");
                })
            })
            .collect();
        run(&mut driver);
        for watched in &watched {
            assert_eq!(watched.ended(), CloseKind::Finished);
        }
        join(senders);
        check_books(&driver);
    });
}

#[test]
fn model_without_a_thread_a_socket_ends() {
    for refused in ["datagrams", "companion"] {
        let no_threads = Rules { refused: Some(refused), ..Rules::default() };
        let scenario = if refused == "companion" { without_companion } else { without_thread };
        check_in(no_threads, scenario);
    }
}

fn without_thread() {
    let mut driver = driver_with(|_| ());
    let watched = Watched::default();
    let id = driver.bind("10.0.0.2:0", watched.node(1, 0)).unwrap();
    let handle = driver.handle();
    let noter = spawn(move || drop(handle.notify(id, Note::new(()))));
    run(&mut driver);
    // A thread that was started for a companion may have served it.
    assert!(matches!(
        watched.ended(),
        CloseKind::Connect(_) | CloseKind::Finished | CloseKind::Aborted
    ));
    join([noter]);
    check_books(&driver);
}

fn without_companion() {
    let mut driver = driver_with(|_| ());
    let watched = Watched::default();
    let id = driver.bind("10.0.0.2:0", watched.node(1, 0)).unwrap();
    let handle = driver.handle();
    let noter = spawn(move || {
        dawdle();
        drop(handle.notify(id, Note::new(())));
    });
    run(&mut driver);
    // Its own thread may have received the note.
    assert!(matches!(
        watched.ended(),
        CloseKind::Finished | CloseKind::Aborted | CloseKind::Connect(_)
    ));
    join([noter]);
    check_books(&driver);
}
