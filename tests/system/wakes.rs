//! System calls that wake a loop, counted by strace in a process of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use lariat::reactor::Reactor;
use lariat::{Control, Driver, ErrorKind};

use crate::kit::*;

const SENDERS: usize = 8;
const POSTS: usize = 500;

/// A reactor that eight threads post to, all at once.
fn storm() {
    let mut reactor = Reactor::new().unwrap();
    reactor.keep_running(true);
    let (begin, ran) = (Arc::new(Barrier::new(SENDERS)), Arc::new(AtomicUsize::new(0)));
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (handle, begin, ran) = (reactor.handle(), Arc::clone(&begin), Arc::clone(&ran));
            thread::spawn(move || {
                begin.wait();
                for _ in 0..POSTS {
                    let ran = Arc::clone(&ran);
                    let mut code = move |control: &mut Control<'_>| {
                        if ran.fetch_add(1, Ordering::Relaxed) + 1 == SENDERS * POSTS {
                            control.shutdown();
                        }
                    };
                    while let Err(refused) = handle.call(code) {
                        assert_eq!(refused.error().kind(), ErrorKind::Full);
                        code = refused.into_payload();
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    Driver::run(&mut reactor).unwrap();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    assert_eq!(ran.load(Ordering::Relaxed), SENDERS * POSTS);
    let metrics = reactor.metrics();
    println!("turns {} wakeups {}", metrics.turns, metrics.wakeups);
}

#[test]
fn c10_a_storm_of_posts_makes_one_call_per_turn_that_wakes_the_loop() {
    const NAME: &str = "wakes::c10_a_storm_of_posts_makes_one_call_per_turn_that_wakes_the_loop";
    if part().is_some() {
        return storm();
    }
    let file = format!("lariat-wakes-{}", std::process::id());
    let file = std::env::temp_dir().join(file);
    // Whether it may trace here.
    if strace("write:delay_enter=0").is_none() {
        return;
    }
    let path = file.to_str().unwrap();
    let said = again(&["strace", "-f", "-qq", "-o", path, "-e", "trace=write"], NAME, "storm");
    let trace = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    // An eventfd is written to, with the number one in the order of a little-endian machine.
    let one = if cfg!(target_endian = "little") { r#""\1\0\0\0\0\0\0\0", 8"# } else { r#"\1", 8"# };
    let writes = trace.lines().filter(|line| line.contains(one)).count() as u64;
    let mut words = said.split_once("turns ").unwrap().1.split_whitespace();
    let turns: u64 = words.next().unwrap().parse().unwrap();
    let wakeups: u64 = words.nth(1).unwrap().parse().unwrap();
    println!("{} posts: {writes} calls, {wakeups} wake-ups, {turns} turns", SENDERS * POSTS);
    // One more may come behind the last turn.
    assert!(
        0 < wakeups && wakeups <= writes && writes <= turns + 1,
        "{writes}, {wakeups}, {turns}"
    );
}
