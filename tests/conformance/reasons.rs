//! What the reason of an end counts: the bytes that came, left and were lost, and how long it took.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::{
    By, CloseKind, CloseReason, Context, Deadline, DriverLimits, Input, Limits, Outcome, Timer,
};

use crate::kit::{Play, Stage, echo, everywhere, everywhere_with, on_sockets, says};
use crate::sockets::{self, pattern};

const LATER: Timer = Timer::new(2);

/// What a scenario learns of one connection.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<(Vec<u8>, Option<CloseReason>)>>);

impl Seen {
    /// `play`, which consumes everything, with an eye on what it reads and why it ends.
    fn reading(&self, play: Play) -> Play {
        let heard = self.clone();
        self.ending(play).data(move |_, input| {
            heard.0.lock().unwrap().0.extend_from_slice(input);
            input.consume_all();
            Ok(())
        })
    }

    /// `play`, with an eye on why it ends.
    fn ending(&self, play: Play) -> Play {
        let told = self.clone();
        play.closed(move |_, reason| told.0.lock().unwrap().1 = Some(reason.clone()))
    }

    fn heard(&self) -> Vec<u8> {
        self.0.lock().unwrap().0.clone()
    }

    fn reason(&self) -> CloseReason {
        self.0.lock().unwrap().1.clone().expect("the connection has ended")
    }
}

/// The callbacks of `who`: neighbouring `data` are one, as their cuts are the network's.
fn names(stage: &Stage<'_>, who: &str) -> String {
    let lines = stage.trace.of(who);
    let first = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
    let mut names: Vec<_> = lines.iter().map(first).collect();
    names.retain(|name| name != "drained");
    names.dedup();
    names.join(" ")
}

/// More than a connection's buffers hold.
fn much(stage: &Stage<'_>) -> usize {
    if stage.is_real() { 24 << 20 } else { 3 << 20 }
}

fn roomy() -> Limits {
    let mut limits = Limits::default();
    limits.output_max = 64 << 20;
    limits
}

/// Writes `count` bytes and reads nothing.
fn floods(count: usize) -> Play {
    Play::new().opened(move |cx| {
        cx.pause_reading();
        cx.write_bytes(vec![1; count]);
        Ok(())
    })
}

#[test]
fn b7_a_half_closed_peer_gets_everything_back() {
    everywhere(|stage| {
        let (server, client) = (Seen::default(), Seen::default());
        let kept = server.clone();
        let addr = stage.serve("server", move || kept.ending(echo()));
        let sent = pattern(256 * 1024);
        let all = sent.clone();
        let play = client.reading(Play::new()).opened(move |cx| {
            cx.write(&all);
            cx.shutdown_write();
            Ok(())
        });
        stage.connect("client", addr, play);
        stage.run();
        stage.check(client.heard() == sent, "everything came back");
        assert_eq!(names(stage, "server"), "opened data eof closed");
        let reason = server.reason();
        assert_eq!((reason.kind(), reason.by()), (CloseKind::Finished, By::Peer));
        assert!(reason.peer_finished());
    });
}

#[test]
fn b8_shutdown_write_is_a_fin_after_the_flush_and_input_goes_on() {
    const GREETING: usize = 2 << 20;
    everywhere(|stage| {
        let (server, client) = (Seen::default(), Seen::default());
        let kept = server.clone();
        let addr = stage.serve("server", move || {
            kept.ending(Play::new())
                .opened(|cx| {
                    cx.write(&vec![b'g'; GREETING]);
                    cx.shutdown_write();
                    cx.shutdown_write();
                    cx.write(b"too late");
                    Ok(())
                })
                .data(|cx, input| {
                    input.consume_all();
                    cx.shutdown_write();
                    Ok(())
                })
        });
        let play = client.reading(Play::new()).eof(|cx, _| {
            cx.write(&vec![1; 100_000]);
            cx.close();
            Ok(())
        });
        stage.connect("client", addr, play);
        stage.run();
        stage.check(client.heard() == vec![b'g'; GREETING], "the greeting is whole");
        let reason = server.reason();
        assert_eq!(reason.kind(), CloseKind::Finished);
        assert_eq!((reason.bytes_in(), reason.bytes_out()), (100_000, GREETING as u64));
        assert_eq!(reason.refused(), 8);
    });
}

/// Writes `bytes`, and aborts 60 ms later.
fn aborts_after(bytes: &'static [u8]) -> Play {
    says(bytes)
        .opened(move |cx| {
            cx.write(bytes);
            cx.set_timer(LATER, Duration::from_millis(60));
            Ok(())
        })
        .timeout(abort)
}

fn abort(cx: &mut Context<'_>, _: Timer) -> Outcome {
    cx.abort();
    Ok(())
}

#[test]
fn b9_all_that_came_before_a_reset_is_delivered_and_counted() {
    everywhere(|stage| {
        let server = Seen::default();
        let kept = server.clone();
        let addr = stage.serve("server", move || kept.ending(Play::new()));
        stage.connect("client", addr, aborts_after(&[5; 50_000]));
        stage.run();
        assert_eq!(names(stage, "server"), "opened data closed");
        let reason = server.reason();
        assert_eq!((reason.kind(), reason.by()), (CloseKind::Reset, By::Peer));
        assert_eq!(reason.bytes_in(), 50_000);
        assert!(!reason.peer_finished());
    });
}

#[test]
fn b9_a_write_that_fails_first_neither_eats_the_data_nor_makes_the_reset_an_eof() {
    on_sockets(DriverLimits::default(), |stage| {
        let server = Seen::default();
        let kept = server.clone();
        let addr = stage.serve("server", move || kept.ending(says(b"welcome")));
        // All of it before the driver accepts: its first call on the socket is the write.
        let mut peer = sockets::client(addr);
        peer.write_all(&[5; 50_000]).unwrap();
        sockets::reset(peer);
        stage.run();
        assert_eq!(names(stage, "server"), "opened data closed");
        let reason = server.reason();
        assert_eq!((reason.kind(), reason.by()), (CloseKind::Reset, By::Peer));
        assert_eq!((reason.bytes_in(), reason.bytes_out()), (50_000, 0));
        assert!(!reason.peer_finished());
    });
}

#[test]
fn b9_a_reset_while_reading_is_paused_ends_at_once_and_counts_what_was_unread() {
    everywhere(|stage| {
        let server = Seen::default();
        let kept = server.clone();
        let addr = stage.serve("server", move || {
            kept.ending(Play::new()).data(|cx, input| {
                if input.len() == 10 {
                    cx.pause_reading();
                    cx.write(b"paused");
                }
                Ok(())
            })
        });
        let client = says(b"0123456789")
            .data(|cx, input| {
                input.consume_all();
                cx.set_timer(LATER, Duration::from_millis(60));
                Ok(())
            })
            .timeout(abort);
        stage.connect("client", addr, client);
        stage.run();
        // A trace has no line for data that was left.
        assert_eq!(names(stage, "server"), "opened closed");
        let reason = server.reason();
        assert_eq!((reason.kind(), reason.by()), (CloseKind::Reset, By::Peer));
        assert_eq!((reason.bytes_in(), reason.unread()), (10, 10));
    });
}

#[test]
fn b9_a_reset_while_flow_control_holds_is_not_taken_for_an_eof() {
    everywhere(|stage| {
        let server = Seen::default();
        let kept = server.clone();
        let addr = stage.serve("server", move || kept.ending(echo()));
        let much = much(stage);
        let client = floods(much)
            .opened(move |cx| {
                cx.pause_reading();
                cx.write_bytes(vec![1; much]);
                cx.set_timer(LATER, Duration::from_millis(1));
                Ok(())
            })
            .timeout(|cx, timer| {
                if cx.driver().metrics().held == 1 {
                    cx.abort();
                } else {
                    cx.set_timer(timer, Duration::from_millis(1));
                }
                Ok(())
            });
        stage.connect_with("client", addr, roomy(), client);
        stage.run();
        assert_eq!(names(stage, "server"), "opened data closed");
        let reason = server.reason();
        assert_eq!(reason.kind(), CloseKind::Reset);
        assert!(reason.unsent() > 0 && !reason.peer_finished(), "{reason}");
    });
}

const ANSWER: usize = 64 * 1024;

/// Uploads, reads the answer, and does so again `left` times.
fn uploads(addr: SocketAddr, upload: usize, left: usize, answers: Arc<Mutex<Vec<usize>>>) -> Play {
    let mut heard = 0;
    let kept = Arc::new(Mutex::new(0));
    let count = Arc::clone(&kept);
    Play::new()
        .opened(move |cx| {
            cx.write_bytes(vec![0; upload]);
            cx.shutdown_write();
            Ok(())
        })
        .data(move |_, input| {
            heard += input.len();
            input.consume_all();
            *kept.lock().unwrap() = heard;
            Ok(())
        })
        .closed(move |cx, _| {
            answers.lock().unwrap().push(*count.lock().unwrap());
            if left > 0 {
                cx.connect(addr, uploads(addr, upload, left - 1, Arc::clone(&answers)));
            }
        })
}

#[test]
fn b10_a_close_with_unread_input_does_not_destroy_the_answer() {
    everywhere(|stage| {
        let (rounds, upload) = if stage.is_real() { (25, 8 << 20) } else { (5, 1 << 20) };
        let addr = stage.serve_many(4 * rounds, Limits::default(), |number| {
            // Answers the first bytes of an upload and closes; the rest is never read by it.
            let refuser = Play::new().data(|cx, _| {
                cx.write(&[b'!'; ANSWER]);
                cx.close();
                Ok(())
            });
            (format!("server {number}"), refuser)
        });
        let answers = Arc::default();
        for _ in 0..4 {
            stage.connect("client", addr, uploads(addr, upload, rounds - 1, Arc::clone(&answers)));
        }
        stage.run();
        assert_eq!(*answers.lock().unwrap(), vec![ANSWER; 4 * rounds]);
        for number in 0..4 * rounds {
            let lines = stage.trace.of(&format!("server {number}"));
            let last = lines.last().map(String::as_str);
            stage.check(last == Some("closed finished by us"), "the server has finished");
        }
    });
}

/// A server that says `count` bytes and closes, and a peer that neither reads nor closes.
fn leaves(stage: &mut Stage<'_>, limits: Limits, count: usize) -> CloseReason {
    let server = Seen::default();
    let kept = server.clone();
    let addr = stage.serve_with("server", limits, move || {
        kept.ending(Play::new()).opened(move |cx| {
            cx.write(&vec![0; count]);
            cx.close();
            Ok(())
        })
    });
    let told = server.clone();
    let peer = floods(0)
        .opened(|cx| {
            cx.pause_reading();
            cx.set_timer(LATER, Duration::from_millis(1));
            Ok(())
        })
        // It leaves behind the server.
        .timeout(move |cx, timer| {
            match told.0.lock().unwrap().1 {
                Some(_) => cx.abort(),
                None => cx.set_timer(timer, Duration::from_millis(1)),
            }
            Ok(())
        });
    stage.connect("peer", addr, peer);
    stage.run();
    server.reason()
}

#[test]
fn a_peer_that_never_closes_cannot_hold_a_close_beyond_linger_idle() {
    everywhere(|stage| {
        // It has read nothing but will: the kernel has it all.
        let mut limits = Limits::default();
        limits.linger_idle = Duration::from_millis(200);
        let reason = leaves(stage, limits, 10);
        assert_eq!(reason.kind(), CloseKind::Finished);
        assert!(reason.age() >= Duration::from_millis(200), "{reason}");
    });
}

#[test]
fn a_peer_that_never_reads_cannot_hold_a_close_beyond_its_deadline() {
    everywhere(|stage| {
        // The kernel does not take it all.
        let (mut limits, count) = (roomy(), much(stage));
        limits.close_deadline = Duration::from_millis(300);
        let reason = leaves(stage, limits, count);
        assert_eq!(reason.kind(), CloseKind::TimedOut(Deadline::Close));
        assert!(reason.unsent() > 0, "{reason}");
        assert_eq!(reason.unsent() + reason.bytes_out(), count as u64);
    });
}

#[test]
fn b5_an_echo_to_a_peer_that_never_reads_ends_with_a_write_time_out() {
    everywhere(|stage| {
        let server = Seen::default();
        let kept = server.clone();
        let mut limits = Limits::default();
        limits.write_stall = Duration::from_millis(300);
        let addr = stage.serve_with("server", limits, move || kept.ending(echo()));
        let count = much(stage);
        stage.connect_with("client", addr, roomy(), floods(count));
        stage.run();
        let reason = server.reason();
        assert_eq!(reason.kind(), CloseKind::TimedOut(Deadline::Write));
        assert!(reason.unsent() > 0 && reason.age() >= Duration::from_millis(300), "{reason}");
    });
}

#[test]
fn more_output_than_may_be_kept_is_counted_as_unsent() {
    const WHOLE: u64 = 40 << 20;
    everywhere(|stage| {
        let server = Seen::default();
        let kept = server.clone();
        let addr = stage.serve("server", move || {
            kept.ending(Play::new()).data(|cx, input| {
                input.consume_all();
                for _ in 0..40 {
                    cx.write(&vec![0; 1 << 20]);
                }
                Ok(())
            })
        });
        stage.connect("client", addr, says(b"go"));
        stage.run();
        let reason = server.reason();
        assert_eq!(reason.kind(), CloseKind::OutputFull);
        assert_eq!(reason.unsent() + reason.bytes_out(), WHOLE);
    });
}

#[test]
fn input_that_nobody_consumes_is_counted_as_unread() {
    const KEPT: usize = 64 * 1024;
    everywhere(|stage| {
        let server = Seen::default();
        let kept = server.clone();
        let mut limits = Limits::default();
        limits.input_max = KEPT;
        let addr = stage
            .serve_with("server", limits, move || kept.ending(Play::new()).data(|_, _| Ok(())));
        // It is cut off sooner or later; where, is the network's business.
        stage.connect("client", addr, says(&[0; 1 << 20]));
        stage.run();
        let reason = server.reason();
        assert_eq!(reason.kind(), CloseKind::InputFull);
        assert!(reason.unread() >= KEPT as u64, "{reason}");
    });
}

#[test]
fn c14_what_does_not_end_in_time_is_aborted_and_reported() {
    let mut limits = DriverLimits::default();
    limits.drain = Duration::from_millis(300);
    everywhere_with(limits, |stage| {
        let server = Seen::default();
        let kept = server.clone();
        let much = much(stage);
        let addr = stage.serve_with("server", roomy(), move || {
            kept.ending(Play::new())
                .data(move |cx, input| {
                    input.consume_all();
                    cx.write_bytes(vec![0; much]);
                    cx.driver().shutdown();
                    Ok(())
                })
                .stopping(|_| Ok(()))
        });
        let client = says(b"go").stopping(|_| Ok(()));
        let client = client.opened(|cx| {
            cx.pause_reading();
            cx.write(b"go");
            Ok(())
        });
        stage.connect("client", addr, client);
        let report = stage.run();
        let reason = server.reason();
        assert_eq!((report.drained(), report.aborted()), (0, 2));
        assert_eq!((reason.kind(), reason.by()), (CloseKind::Shutdown, By::Runtime));
        assert!(report.unsent() == reason.unsent() && report.unsent() > 0, "{reason}");
        assert!(reason.age() >= Duration::from_millis(300), "{reason}");
    });
}

#[test]
fn a_reason_says_whether_the_peer_had_finished_also_of_an_abort() {
    for finishes in [true, false] {
        everywhere(|stage| {
            let addr = stage.serve("server", move || {
                let aborts = move |cx: &mut Context<'_>, rest: &mut Input<'_>| {
                    rest.consume_all();
                    cx.abort();
                    Ok(())
                };
                let play = Play::new().closed(move |_, reason| {
                    assert_eq!(reason.kind(), CloseKind::Aborted);
                    assert_eq!(reason.peer_finished(), finishes);
                });
                if finishes { play.eof(aborts) } else { play.data(aborts) }
            });
            let client = Play::new().opened(move |cx| {
                if finishes {
                    cx.shutdown_write();
                } else {
                    cx.write(b"x");
                }
                Ok(())
            });
            stage.connect("client", addr, client);
            stage.run();
        });
    }
}
