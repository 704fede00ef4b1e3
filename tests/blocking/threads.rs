//! What a connection costs in threads, and what its threads do to one another.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use lariat::blocking::Blocking;
use lariat::{CloseKind, CloseReason, Context, Handle, Input, Outcome, Protocol, Timer};

use crate::kit::*;

const CLIENTS: usize = 8;

#[test]
fn an_echo_costs_one_thread_per_connection() {
    let mut driver = Blocking::new();
    let (addr, _) = listen(&mut driver, || Echo);
    let running = start_alone(driver);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| client(addr)).collect();
    for stream in &mut clients {
        for _ in 0..10 {
            echo_once(stream, &pattern(1000));
        }
    }
    // One more sleeps in `accept`.
    assert_eq!(threads().len(), CLIENTS + 1, "{:?}", threads());
    drop(clients);
    until(|| threads().len() == 1, "the threads did not end with their connections");
    running.finish();
}

#[test]
fn a_timer_costs_a_second_thread() {
    struct Timed;
    impl Protocol for Timed {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.set_timer(Timer::new(1), Duration::from_secs(3600));
            Ok(())
        }
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            Echo.data(cx, input)
        }
    }
    let mut driver = Blocking::new();
    let (addr, _) = listen(&mut driver, || Timed);
    let running = start_alone(driver);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| client(addr)).collect();
    for stream in &mut clients {
        echo_once(stream, b"there");
    }
    assert_eq!(threads().len(), 2 * CLIENTS + 1, "{:?}", threads());
    drop(clients);
    until(|| threads().len() == 1, "the threads did not end with their connections");
    running.finish();
}

#[test]
fn a_thread_whose_connection_has_ended_serves_another() {
    struct Named(Arc<Mutex<Vec<thread::ThreadId>>>);
    impl Protocol for Named {
        fn opened(&mut self, _: &mut Context<'_>) -> Outcome {
            self.0.lock().unwrap().push(thread::current().id());
            Ok(())
        }
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            Echo.data(cx, input)
        }
    }
    let served = Arc::new(Mutex::new(Vec::new()));
    let names = Arc::clone(&served);
    let mut driver = Blocking::new();
    let (addr, trail) = listen(&mut driver, move || Named(Arc::clone(&names)));
    let running = start(driver);
    for number in 1..=20 {
        echo_once(&mut client(addr), b"there");
        trail.wait_for(number, |step| matches!(step, Step::Closed(_)));
        // Its thread has time to wait for work, or to end where none is kept: one that is still on
        // its way would serve the next connection in either case.
        thread::sleep(Duration::from_millis(20));
    }
    running.finish();
    let mut threads = served.lock().unwrap().clone();
    assert_eq!(threads.len(), 20);
    threads.sort_by_key(|thread| format!("{thread:?}"));
    threads.dedup();
    // One may not have come back to wait when the next connection needs one.
    let count = threads.len();
    assert!(count <= 15, "20 connections had {count} threads");
}

/// The bytes of the mapping that this thread's stack is in.
#[cfg(target_os = "linux")]
fn stack() -> usize {
    let local = 0u8;
    let here = std::ptr::from_ref(&local).addr();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let ranges = maps.lines().map(|line| {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        [start, end].map(|at| usize::from_str_radix(at, 16).unwrap())
    });
    let [start, end] =
        ranges.into_iter().find(|[start, end]| (start..end).contains(&&here)).unwrap();
    end - start
}

#[cfg(target_os = "linux")]
#[test]
fn the_size_of_a_stack_is_read_back_on_threads_of_every_kind() {
    /// Tells of the stack of its own thread and of its companion's.
    struct Measured(mpsc::Sender<usize>, Arc<AtomicUsize>);
    impl Protocol for Measured {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            self.0.send(stack())?;
            cx.set_timer(Timer::new(1), Duration::ZERO);
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
        fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
            self.0.send(stack())?;
            if self.1.fetch_add(1, Ordering::SeqCst) == 1 {
                cx.driver().shutdown();
            }
            Ok(())
        }
    }
    let _guard = not_alone();
    // That of the standard library where none is asked for. The C library uses a stack again that
    // is less than four times as large: these are not.
    for (asked, given) in [(256 * KIB, 256 * KIB), (0, 2 * MIB), (16 * MIB, 16 * MIB)] {
        let (tell, told) = mpsc::channel();
        let measured = Arc::new(AtomicUsize::new(0));
        let mut driver = Blocking::new();
        driver.stack_size(asked);
        let (accepting, accepted) = (tell.clone(), Arc::clone(&measured));
        let factory = move |_: &lariat::Incoming| {
            let _ = accepting.send(stack());
            Some(Measured(accepting.clone(), Arc::clone(&accepted)))
        };
        let listener = driver.listen("127.0.0.1:0", factory).unwrap();
        let addr = driver.addresses(listener).remove(0);
        driver.connect(addr, Measured(tell, measured));
        driver.run().unwrap();
        drop(driver);
        let sizes: Vec<usize> = told.iter().collect();
        assert_eq!(sizes.len(), 5, "one accepts, two are connections, two companions");
        // A guard page and the thread's own data are beside it.
        let fits = |size: &usize| size.abs_diff(given) <= 64 * KIB;
        assert!(sizes.iter().all(fits), "{asked} were asked for: {sizes:?}");
    }
}

#[test]
fn in_serial_mode_one_connection_is_served_at_a_time_and_costs_no_thread() {
    struct Counted(Arc<AtomicUsize>);
    impl Protocol for Counted {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            let before = self.0.fetch_add(1, Ordering::SeqCst);
            assert_eq!(before, 0, "another connection is being served");
            cx.write(b"!");
            Ok(())
        }
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            Echo.data(cx, input)
        }
        fn closed(&mut self, _: &mut Context<'_>, _: &CloseReason) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let mut driver = Blocking::new();
    driver.serial(true);
    let served = Arc::new(AtomicUsize::new(0));
    let (addr, _) = listen(&mut driver, move || Counted(Arc::clone(&served)));
    let running = start_alone(driver);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| client(addr)).collect();
    for (number, mut stream) in clients.drain(..).enumerate() {
        stream.read_exact(&mut [0]).unwrap();
        echo_once(&mut stream, &[number as u8; 100]);
        assert_eq!(threads().len(), 1, "{:?}", threads());
    }
    let (metrics, _) = running.finish();
    assert_eq!((metrics.accepted, metrics.panics), (CLIENTS as u64, 0));
}

#[test]
fn a_handle_closes_and_aborts_from_another_thread() {
    let mut driver = Blocking::new();
    let (closing, closed) = listen(&mut driver, || Echo);
    let (aborting, aborted) = listen(&mut driver, || Echo);
    let running = start(driver);
    let (mut first, mut second) = (client(closing), client(aborting));
    echo_once(&mut first, b"one");
    echo_once(&mut second, b"two");
    running.handle.close(closed.id()).unwrap();
    assert_eq!(read_to_end(&mut first), (Vec::new(), None));
    drop(first);
    assert_eq!(closed.kind(), CloseKind::Finished);
    running.handle.abort(aborted.id());
    let (rest, error) = read_to_end(&mut second);
    assert_eq!((rest.len(), error), (0, Some(std::io::ErrorKind::ConnectionReset)));
    assert_eq!(aborted.kind(), CloseKind::Aborted);
    // Nothing comes of an id that has ended.
    running.handle.close(closed.id()).unwrap();
    running.handle.abort(aborted.id());
    let (metrics, _) = running.finish();
    assert_eq!((metrics.closes.finished, metrics.closes.aborted), (1, 1));
}

#[test]
fn an_abort_right_behind_an_answer_is_a_reset_and_no_fin() {
    let mut driver = Blocking::new();
    let (addr, trail) = listen(&mut driver, || Echo);
    let running = start(driver);
    for _ in 0..300 {
        let mut stream = client(addr);
        echo_once(&mut stream, b"there");
        running.handle.abort(trail.id());
        let (rest, error) = read_to_end(&mut stream);
        assert_eq!((rest.len(), error), (0, Some(std::io::ErrorKind::ConnectionReset)));
    }
    let (metrics, _) = running.finish();
    assert_eq!(metrics.closes.aborted, 300);
}

#[test]
fn a_handle_used_in_a_callback_does_not_wait_for_the_callback() {
    struct Leaver(Arc<Mutex<Option<Handle>>>);
    impl Protocol for Leaver {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            input.consume_all();
            cx.write(b"bye");
            let handle = self.0.lock().unwrap();
            handle.as_ref().unwrap().close(cx.id())?;
            Ok(())
        }
    }
    let mut driver = Blocking::new();
    let place = Arc::new(Mutex::new(Some(driver.handle())));
    let (addr, trail) = listen(&mut driver, move || Leaver(Arc::clone(&place)));
    let running = start(driver);
    for _ in 0..50 {
        let mut stream = client(addr);
        stream.write_all(b"x").unwrap();
        assert_eq!(read_to_end(&mut stream), (b"bye".to_vec(), None));
    }
    trail.wait_for(50, |step| matches!(step, Step::Closed(_)));
    let (metrics, _) = running.finish();
    assert_eq!(metrics.closes.finished, 50);
}

/// Panics where it is told to.
struct Panicker;

impl Protocol for Panicker {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        assert!(!input.starts_with(b"panic"), "as it was told");
        Echo.data(cx, input)
    }
    fn timeout(&mut self, _: &mut Context<'_>, _: Timer) -> Outcome {
        panic!("in the companion")
    }
    fn notified(&mut self, _: &mut Context<'_>, _: lariat::Note) -> Outcome {
        Ok(())
    }
}

#[test]
fn c4_one_panic_in_ten_costs_nobody_else_anything() {
    let mut driver = Blocking::new();
    let (addr, trail) = listen(&mut driver, || Panicker);
    let running = start(driver);
    let clients: Vec<_> = (0..50)
        .map(|number| {
            thread::spawn(move || {
                let mut stream = client(addr);
                for round in 0..20 {
                    if number % 10 == 3 && round == 10 {
                        stream.write_all(b"panic").unwrap();
                        return read_to_end(&mut stream).0.len();
                    }
                    echo_once(&mut stream, &pattern(500));
                }
                0
            })
        })
        .collect();
    for thread in clients {
        assert_eq!(thread.join().unwrap(), 0);
    }
    trail.wait_for(50, |step| matches!(step, Step::Closed(_)));
    let (metrics, _) = running.finish();
    assert_eq!((metrics.panics, metrics.closes.panicked), (5, 5));
    assert_eq!(metrics.closes.finished, 45);
}

#[test]
fn c4_a_panic_in_the_companion_ends_its_connection_alone() {
    struct Timed;
    impl Protocol for Timed {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.set_timer(Timer::new(1), Duration::from_millis(20));
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
        fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
            Panicker.timeout(cx, timer)
        }
    }
    let mut driver = Blocking::new();
    let (panicking, trail) = listen(&mut driver, || Timed);
    let (echoing, _) = listen(&mut driver, || Echo);
    let running = start(driver);
    let mut other = client(echoing);
    let mut stream = client(panicking);
    assert_eq!(read_to_end(&mut stream).0, b"");
    assert_eq!(trail.kind(), CloseKind::Panicked);
    assert_eq!(trail.names(), "opened timeout closed");
    echo_once(&mut other, b"still here");
    drop(other);
    let (metrics, _) = running.finish();
    assert_eq!(metrics.panics, 1);
}

#[test]
fn c4_panics_in_closed_and_in_the_drop_end_nothing_else() {
    struct Untidy;
    impl Protocol for Untidy {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            Echo.data(cx, input)
        }
        fn closed(&mut self, _: &mut Context<'_>, _: &CloseReason) {
            panic!("in closed")
        }
    }
    impl Drop for Untidy {
        fn drop(&mut self) {
            panic!("in the drop")
        }
    }
    let mut driver = Blocking::new();
    let listener = driver.listen("127.0.0.1:0", |_| Some(Untidy)).unwrap();
    let addr = driver.addresses(listener)[0].socket_addr().unwrap();
    let running = start(driver);
    for _ in 0..5 {
        echo_once(&mut client(addr), b"in order so far");
    }
    let (metrics, _) = running.finish();
    assert_eq!((metrics.panics, metrics.closes.total()), (10, 5));
}

#[test]
fn c5_a_lock_that_a_panic_has_poisoned_stops_only_those_who_share_it() {
    /// Counts under a lock of its own, with a protocol that may panic while it holds it.
    struct Counter(Arc<Mutex<u64>>);
    impl Protocol for Counter {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            let mut count = self.0.lock().map_err(|_| "the counter is poisoned")?;
            *count += 1;
            assert!(!input.starts_with(b"panic"), "as it was told");
            drop(count);
            Echo.data(cx, input)
        }
    }
    let mut driver = Blocking::new();
    let count = Arc::new(Mutex::new(0));
    let (addr, trail) = listen(&mut driver, move || Counter(Arc::clone(&count)));
    let (echoing, _) = listen(&mut driver, || Echo);
    let running = start(driver);
    let (mut first, mut second) = (client(addr), client(addr));
    let mut other = client(echoing);
    echo_once(&mut first, b"one");
    echo_once(&mut second, b"two");
    first.write_all(b"panic").unwrap();
    read_to_end(&mut first);
    second.write_all(b"three").unwrap();
    assert_eq!(read_to_end(&mut second), (Vec::new(), None));
    drop(second);
    trail.wait_for(2, |step| matches!(step, Step::Closed(_)));
    echo_once(&mut other, b"still here");
    drop(other);
    let (metrics, _) = running.finish();
    assert_eq!((metrics.closes.panicked, metrics.closes.protocol), (1, 1));
}
