//! Output: marks, `drained`, the bound, and flow control.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lariat::{Context, Limits, Outcome, Timer};

use crate::kit::{Play, data, everywhere, says, says_all};

const LATER: Timer = Timer::new(2);

fn marks(low: usize, high: usize) -> Limits {
    let mut limits = Limits::default();
    limits.low_mark = low;
    limits.high_mark = high;
    limits
}

/// Closes when it has read `count` bytes.
fn reads(count: usize) -> Play {
    let mut left = count;
    Play::new().data(move |cx, input| {
        left -= input.len();
        input.consume_all();
        if left == 0 {
            cx.close();
        }
        Ok(())
    })
}

#[test]
fn output_above_output_max_ends_with_output_full() {
    everywhere(|stage| {
        let mut limits = marks(10, 100);
        limits.output_max = 1000;
        let addr = stage.serve_with("server", limits, || {
            Play::new()
                .opened(|cx| {
                    cx.write(&[1; 900]);
                    cx.write(&[2; 101]);
                    cx.write(&[3; 10]);
                    Ok(())
                })
                .closed(|_, reason| assert!(reason.unsent() >= 111, "{reason}"))
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        stage.expect("server", &["opened", "closed output full by the runtime"]);
        // A client that has not looked at its connect yet finds the reset there.
        let lines = stage.trace.of("client");
        let ends = ["closed reset by the peer", "closed connect failed by the peer"];
        stage.check(ends.contains(&lines[lines.len() - 1].as_str()), "the peer is reset");
    });
}

#[test]
fn output_of_exactly_output_max_is_taken() {
    everywhere(|stage| {
        let mut limits = marks(10, 100);
        limits.output_max = 1000;
        let addr = stage.serve_with("server", limits, || {
            Play::new().opened(|cx| {
                cx.write(&[1; 1000]);
                assert_eq!(cx.unsent(), 1000);
                cx.close();
                Ok(())
            })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        let all = data(&[1; 1000]);
        stage.expect("client", &["opened", &all, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn drained_follows_every_crossing_of_the_high_mark_exactly_once() {
    everywhere(|stage| {
        let addr = stage.serve_with("server", marks(0, 9), || {
            let mut left = 5;
            let write = |cx: &mut Context<'_>| {
                // Three writes, one crossing.
                cx.write(&[b'd'; 8]);
                assert!(!cx.is_congested());
                cx.write(&[b'd'; 8]);
                assert!(cx.is_congested());
                cx.write(&[b'd'; 8]);
            };
            Play::new()
                .opened(move |cx| {
                    write(cx);
                    Ok(())
                })
                .drained(move |cx| {
                    assert!(!cx.is_congested());
                    assert_eq!(cx.unsent(), 0);
                    left -= 1;
                    if left == 0 {
                        cx.write(b"short");
                        cx.close();
                    } else {
                        write(cx);
                    }
                    Ok(())
                })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        let all = [&[b'd'; 120][..], b"short"].concat();
        stage.expect("client", &["opened", &data(&all), "eof", "closed finished by the peer"]);
        let drained = ["drained"; 5];
        stage.expect("server", &[&["opened"][..], &drained, &["closed finished by us"]].concat());
    });
}

#[test]
fn output_at_the_high_mark_is_not_congested() {
    everywhere(|stage| {
        let addr = stage.serve_with("server", marks(0, 9), || {
            Play::new().opened(|cx| {
                cx.write(&[b'd'; 9]);
                assert!(!cx.is_congested());
                Ok(())
            })
        });
        stage.connect("client", addr, reads(9));
        stage.run();
        stage.expect("server", &["opened", "eof", "closed finished by the peer"]);
    });
}

#[test]
fn a_producer_that_writes_whenever_it_has_drained_sends_everything_in_order() {
    everywhere(|stage| {
        const WHOLE: usize = 600_000;
        fn produce(cx: &mut Context<'_>, next: &mut usize) -> Outcome {
            while *next < WHOLE && !cx.is_congested() {
                let chunk: Vec<u8> = (*next..WHOLE.min(*next + 1000)).map(|at| at as u8).collect();
                *next += chunk.len();
                cx.write(&chunk);
            }
            if *next == WHOLE {
                cx.shutdown_write();
            }
            Ok(())
        }
        let addr = stage.serve_with("server", marks(2000, 8000), || {
            let mut first = 0;
            let next = Arc::new(AtomicUsize::new(0));
            let shared = Arc::clone(&next);
            Play::new()
                .opened(move |cx| {
                    let outcome = produce(cx, &mut first);
                    next.store(first, Ordering::Relaxed);
                    outcome
                })
                .drained(move |cx| {
                    let mut at = shared.load(Ordering::Relaxed);
                    let outcome = produce(cx, &mut at);
                    shared.store(at, Ordering::Relaxed);
                    outcome
                })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        let all: Vec<u8> = (0..WHOLE).map(|at| at as u8).collect();
        stage.expect("client", &["opened", &data(&all), "eof", "closed finished by the peer"]);
    });
}

#[test]
fn a_peer_that_does_not_read_ends_with_the_write_deadline() {
    everywhere(|stage| {
        let mut limits = Limits::default();
        limits.write_stall = Duration::from_millis(100);
        // More than loopback sockets hold.
        limits.output_max = 64 << 20;
        let addr = stage.serve_with("server", limits, || {
            Play::new().opened(|cx| {
                cx.write_bytes(vec![0; 32 << 20]);
                Ok(())
            })
        });
        let client = Play::new().opened(|cx| {
            cx.pause_reading();
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        stage.expect("server", &["opened", "closed timed out (write) by the runtime"]);
        stage.expect("client", &["opened", "closed reset by the peer"]);
    });
}

#[test]
fn b5_an_echo_whose_peer_reads_late_is_held_and_loses_nothing() {
    everywhere(|stage| {
        const WHOLE: usize = 3 << 20;
        let addr = stage.serve_with("server", marks(1000, 4000), || {
            Play::new().data(|cx, input| {
                cx.write(input);
                input.consume_all();
                Ok(())
            })
        });
        let client = reads(WHOLE);
        let client = client
            .opened(|cx| {
                cx.write_bytes(vec![5; WHOLE]);
                cx.pause_reading();
                cx.set_timer(LATER, Duration::from_millis(30));
                Ok(())
            })
            .timeout(|cx, _| {
                cx.resume_reading();
                Ok(())
            });
        stage.connect("client", addr, client);
        stage.run();
        let end = ["eof", "closed finished by the peer"];
        let lines = stage.trace.of("server");
        let without: Vec<&String> = lines.iter().filter(|line| *line != "drained").collect();
        stage.check(without[without.len() - 2..] == end, "the server ends in order");
        let bytes = stage.driver.metrics().bytes_in;
        stage.check(bytes == 2 * WHOLE as u64, "every byte went there and back");
    });
}

#[test]
fn b4_a_large_write_to_a_peer_that_reads_late_arrives_as_it_was_written() {
    everywhere(|stage| {
        // More than the system's buffers take, so that writes are cut.
        let whole = if stage.is_real() { 20 << 20 } else { 300_000 };
        let mut limits = Limits::default();
        limits.output_max = whole;
        // A thread that writes looks up each second.
        limits.write_stall = Duration::from_secs(4);
        let bytes: Vec<u8> = (0..whole).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect();
        let expected = data(&bytes);
        let bytes = Arc::new(bytes);
        let addr = stage.serve_with("server", limits, move || {
            let bytes = Arc::clone(&bytes);
            Play::new().opened(move |cx| {
                cx.write(&bytes);
                cx.shutdown_write();
                Ok(())
            })
        });
        let client = Play::new()
            .opened(|cx| {
                cx.pause_reading();
                cx.set_timer(LATER, Duration::from_millis(1300));
                Ok(())
            })
            .timeout(|cx, _| {
                cx.resume_reading();
                Ok(())
            });
        stage.connect("client", addr, client);
        stage.run();
        let timeout = "timeout of timer 2";
        let lines = ["opened", timeout, &expected, "eof", "closed finished by the peer"];
        stage.expect("client", &lines);
    });
}

#[test]
fn large_shared_bytes_and_small_copies_keep_their_order() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new().data(|cx, input| {
                let middle = input.len() / 2;
                cx.write(&input[..middle]);
                cx.write_bytes(vec![b'B'; 10_000]);
                cx.write(&input[middle..]);
                cx.write_bytes(&b"small"[..]);
                let own = cx.id();
                cx.peer(own).write(b"own");
                input.consume_all();
                cx.close();
                Ok(())
            })
        });
        stage.connect("client", addr, says(b"!"));
        stage.run();
        let all = [&[b'B'; 10_000][..], b"!smallown"].concat();
        stage.expect("client", &["opened", &data(&all), "eof", "closed finished by the peer"]);
    });
}

#[test]
fn slices_of_the_input_leave_as_they_were_written_whatever_lies_between_them() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new().data(|cx, input| {
                if input.len() < 8 {
                    input.need(8);
                    return Ok(());
                }
                // Two with a byte between them, one that is before and one that overlaps.
                cx.write(&input[3..5]);
                cx.write(&input[6..8]);
                cx.write(&input[0..3]);
                cx.write(&input[2..4]);
                input.consume_all();
                cx.close();
                Ok(())
            })
        });
        stage.connect("client", addr, says(b"01234567"));
        stage.run();
        let all = data(b"346701223");
        stage.expect("client", &["opened", &all, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn b14_an_empty_write_is_nothing() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new().opened(|cx| {
                cx.write(b"");
                cx.write_bytes(&b""[..]);
                let own = cx.id();
                cx.peer(own).write(b"");
                assert_eq!(cx.unsent(), 0);
                Ok(())
            })
        });
        stage.connect("client", addr, says_all(b""));
        stage.run();
        stage.expect("server", &["opened", "eof", "closed finished by the peer"]);
        stage.expect("client", &["opened", "eof", "closed finished by the peer"]);
    });
}

#[test]
fn formatted_text_keeps_its_place_and_fails_where_a_write_would_be_dropped() {
    // With the trait in scope, the plain `write` still is the context's own.
    #[allow(unused_imports)]
    use std::io::Write;

    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new().data(|cx, input| {
                write!(cx, "<{:>3}>", input.len())?;
                cx.write(input);
                writeln!(cx, " and {:?}", [1])?;
                cx.write_bytes(lariat::Bytes::from_static(b"end"));
                input.consume_all();
                cx.close();
                let error = write!(cx, "{} late", input.len()).unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
                Ok(())
            })
        });
        stage.connect("client", addr, says(b"!"));
        stage.run();
        let all = data(b"<  1>! and [1]\nend");
        stage.expect("client", &["opened", &all, "eof", "closed finished by the peer"]);
        stage.check(stage.driver.metrics().refused_bytes > 0, "what came late is counted");
    });
}
