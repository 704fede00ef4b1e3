//! Input: what is unread is shown again, `need`, pausing, and the bound of it all.

use std::time::Duration;

use lariat::{Limits, Timer};

use crate::kit::{Play, Stage, data, everywhere, says, says_all};

const LATER: Timer = Timer::new(2);

fn small() -> Limits {
    let mut limits = Limits::default();
    limits.input_max = 16;
    limits.read_budget = 8;
    limits
}

#[test]
fn what_is_not_consumed_is_shown_again_with_what_follows() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new().data(|cx, input| {
                while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
                    cx.write(&input[..=end]);
                    input.consume(end + 1);
                }
                Ok(())
            })
        });
        let client = Play::new()
            .opened(|cx| {
                cx.write(b"one\ntw");
                cx.set_timer(LATER, Duration::from_millis(20));
                Ok(())
            })
            .timeout(|cx, _| {
                cx.write(b"o\nrest");
                cx.shutdown_write();
                Ok(())
            });
        stage.connect("client", addr, client);
        stage.run();
        let lines = stage.trace.of("client");
        let heard: Vec<&String> = lines.iter().filter(|line| line.starts_with("data")).collect();
        let (whole, one, two) = (data(b"one\ntwo\n"), data(b"one\n"), data(b"two\n"));
        stage.check(heard == [&whole] || heard == [&one, &two], "both lines come back");
        stage.expect(
            "server",
            &["opened", &whole, "eof with 4 bytes left", "closed finished by the peer"],
        );
    });
}

#[test]
fn need_keeps_data_away_until_enough_is_there() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            let mut looks = 0;
            Play::new().data(move |cx, input| {
                looks += 1;
                if input.len() < 10 {
                    assert_eq!(looks, 1, "looked again with {} bytes", input.len());
                    input.need(10);
                    return Ok(());
                }
                assert!(input.len() >= 10);
                input.consume(10);
                cx.write(b"ten");
                input.need(0);
                Ok(())
            })
        });
        let mut left = 10;
        let client = Play::new()
            .opened(|cx| {
                cx.set_timer(LATER, Duration::ZERO);
                Ok(())
            })
            .timeout(move |cx, timer| {
                cx.write(b"x");
                left -= 1;
                if left > 0 {
                    cx.set_timer(timer, Duration::from_millis(2));
                }
                Ok(())
            })
            .data(|cx, input| {
                if input.ends_with(b"ten") {
                    input.consume_all();
                    cx.close();
                }
                Ok(())
            });
        stage.connect("client", addr, client);
        stage.run();
        let ten = data(b"xxxxxxxxxx");
        stage.expect("server", &["opened", &ten, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn fin_before_the_needed_bytes_shows_what_is_there_once_then_eof_with_the_rest() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            let mut looks = 0;
            Play::new().data(move |_, input| {
                looks += 1;
                input.need(100);
                if input.len() == 5 && looks > 1 {
                    input.consume(2);
                }
                Ok(())
            })
        });
        let client = says(b"a").opened(|cx| {
            cx.write(b"a");
            cx.set_timer(LATER, Duration::from_millis(40));
            Ok(())
        });
        let client = client.timeout(|cx, _| {
            cx.write(b"bcde");
            cx.shutdown_write();
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        stage.expect(
            "server",
            &["opened", &data(b"ab"), "eof with 3 bytes left", "closed finished by the peer"],
        );
    });
}

#[test]
fn a_need_above_input_max_ends_with_input_full_at_once() {
    everywhere(|stage| {
        let addr = stage.serve_with("server", small(), || {
            Play::new().data(|_, input| {
                input.need(17);
                Ok(())
            })
        });
        stage.connect("client", addr, says(b"x"));
        stage.run();
        stage.expect("server", &["opened", "closed input full by the runtime"]);
        stage.expect("client", &["opened", "eof", "closed finished by the peer"]);
    });
}

#[test]
fn a_need_of_exactly_input_max_is_served() {
    everywhere(|stage| {
        let addr = stage.serve_with("server", small(), || {
            Play::new().data(|cx, input| {
                input.need(16);
                if input.len() >= 16 {
                    input.consume(16);
                    cx.close();
                }
                Ok(())
            })
        });
        stage.connect("client", addr, says(b"0123456789abcdef"));
        stage.run();
        stage.expect("server", &["opened", &data(b"0123456789abcdef"), "closed finished by us"]);
    });
}

#[test]
fn input_max_unread_bytes_and_nothing_consumed_is_input_full() {
    everywhere(|stage| {
        let addr = stage.serve_with("server", small(), || Play::new().data(|_, _| Ok(())));
        stage.connect("client", addr, says(b"a line that never ends"));
        stage.run();
        stage.expect("server", &["opened", "closed input full by the runtime"]);
    });
}

#[test]
fn a_data_that_consumes_something_may_leave_input_max_and_is_called_again() {
    everywhere(|stage| {
        let addr = stage.serve_with("server", small(), || {
            let mut waits = true;
            Play::new()
                .data(move |cx, input| {
                    // Lets fifteen bytes gather, then takes them one by one.
                    if waits && input.len() < 15 {
                        input.need(15);
                        return Ok(());
                    }
                    waits = false;
                    cx.write(&input[..1]);
                    input.consume(1);
                    if !input.is_empty() && input.len() < 16 {
                        let own = cx.id();
                        cx.peer(own).notify(lariat::Note::new(()));
                        cx.pause_reading();
                    }
                    Ok(())
                })
                .notified(|cx, _| {
                    cx.resume_reading();
                    Ok(())
                })
        });
        let client = Play::new().opened(|cx| {
            cx.write(b"abcdefghijklmnopqrstuvwxyz");
            Ok(())
        });
        let client = client.data(|cx, input| {
            if input.len() == 26 {
                input.consume_all();
                cx.close();
            }
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        let all = data(b"abcdefghijklmnopqrstuvwxyz");
        stage.expect("client", &["opened", &all, "closed finished by us"]);
    });
}

#[test]
fn paused_reading_stops_at_once_and_resume_shows_what_is_unread() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            let mut paused = false;
            let mut took = false;
            Play::new()
                .data(move |cx, input| {
                    if !took {
                        input.consume(1);
                        took = true;
                        cx.pause_reading();
                        cx.pause_reading();
                        cx.set_timer(LATER, Duration::from_millis(50));
                        assert!(!paused, "data while paused");
                        paused = true;
                        return Ok(());
                    }
                    input.consume_all();
                    Ok(())
                })
                .timeout(|cx, _| {
                    cx.resume_reading();
                    cx.resume_reading();
                    Ok(())
                })
        });
        stage.connect("client", addr, says_all(b"abc"));
        stage.run();
        stage.expect(
            "server",
            &[
                "opened",
                &data(b"a"),
                "timeout of timer 2",
                &data(b"bc"),
                "eof",
                "closed finished by the peer",
            ],
        );
    });
}

#[test]
fn resume_shows_again_what_a_paused_protocol_has_left_whole() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            let mut shown = 0;
            Play::new()
                .data(move |cx, input| {
                    shown += usize::from(input.len() == 3);
                    match shown {
                        0 => {}
                        1 => {
                            cx.pause_reading();
                            cx.set_timer(LATER, Duration::from_millis(20));
                        }
                        _ => {
                            input.consume_all();
                            cx.close();
                        }
                    }
                    Ok(())
                })
                .timeout(|cx, _| {
                    cx.resume_reading();
                    Ok(())
                })
        });
        stage.connect("client", addr, says(b"abc"));
        stage.run();
        let lines = stage.trace.of("server");
        let end = ["timeout of timer 2", &data(b"abc"), "closed finished by us"];
        stage.check(lines.ends_with(&end.map(str::to_owned)), &format!("{lines:?}"));
    });
}

#[test]
fn a_paused_connection_never_ends_with_input_full() {
    everywhere(|stage| {
        let addr = stage.serve_with("server", small(), || {
            Play::new()
                .opened(|cx| {
                    cx.pause_reading();
                    cx.set_timer(LATER, Duration::from_millis(50));
                    Ok(())
                })
                .timeout(|cx, _| {
                    cx.resume_reading();
                    Ok(())
                })
        });
        let client = Play::new().opened(|cx| {
            cx.write(&[b'x'; 1000]);
            cx.shutdown_write();
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        let all = data(&[b'x'; 1000]);
        stage.expect(
            "server",
            &["opened", "timeout of timer 2", &all, "eof", "closed finished by the peer"],
        );
    });
}

#[test]
fn eof_shows_the_rest_and_what_is_left_of_it_is_counted_as_unread() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new()
                .data(|_, _| Ok(()))
                .eof(|cx, rest| {
                    assert_eq!(&rest[..], b"half a lin");
                    rest.consume(5);
                    cx.close();
                    Ok(())
                })
                .closed(|_, reason| assert_eq!(reason.unread(), 5))
        });
        stage.connect("client", addr, says_all(b"half a lin"));
        stage.run();
        stage
            .expect("server", &["opened", "eof with 10 bytes left", "closed finished by the peer"]);
    });
}

/// Ten requests of a byte come in one segment, to a server that answers while it is not congested.
fn ask_ten_times(stage: &mut Stage<'_>, finishes: bool) {
    const ANSWER: usize = 200_000;
    let addr = stage.serve("server", || {
        Play::new().data(|cx, input| {
            while !input.is_empty() && !cx.is_congested() {
                input.consume(1);
                cx.write(&vec![b'a'; ANSWER]);
            }
            Ok(())
        })
    });
    let mut seen = 0;
    let client = Play::new()
        .opened(move |cx| {
            cx.write(b"0123456789");
            if finishes {
                cx.shutdown_write();
            }
            Ok(())
        })
        .data(move |cx, input| {
            seen += input.len();
            input.consume_all();
            if seen == 10 * ANSWER {
                cx.close();
            }
            Ok(())
        });
    stage.connect("client", addr, client);
    stage.run();
    let answers = data(&vec![b'a'; 10 * ANSWER]);
    stage.check(stage.trace.of("client").contains(&answers), "all ten are answered");
}

#[test]
fn b17_pipelined_requests_are_all_answered_by_a_server_that_stops_while_congested() {
    everywhere(|stage| ask_ten_times(stage, false));
}

#[test]
fn b17_pipelined_requests_before_a_fin_are_all_answered_before_eof() {
    everywhere(|stage| ask_ten_times(stage, true));
}

#[test]
fn data_runs_again_until_it_consumes_nothing() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new().data(|_, input| {
                // One byte for each call, and the last two are left.
                if input.len() > 2 {
                    input.consume(1);
                }
                Ok(())
            })
        });
        stage.connect("client", addr, says_all(b"12345678"));
        stage.run();
        let whole = data(b"123456");
        stage.expect(
            "server",
            &["opened", &whole, "eof with 2 bytes left", "closed finished by the peer"],
        );
    });
}

#[test]
fn a_need_of_what_is_left_already_keeps_nothing_away() {
    everywhere(|stage| {
        for (more, who) in [(false, "content"), (true, "asking")] {
            let addr = stage.serve(who, move || {
                let mut begun = false;
                Play::new().data(move |cx, input| {
                    begun |= input.len() == 4;
                    if !begun {
                        return Ok(());
                    }
                    input.consume(1);
                    input.need(input.len() + usize::from(more));
                    if input.is_empty() {
                        cx.close();
                    } else if more {
                        cx.shutdown_write();
                    }
                    Ok(())
                })
            });
            // It goes on waiting: what it has sent is all there is.
            let client = Play::new().opened(|cx| {
                cx.write(b"1234");
                Ok(())
            });
            stage.connect("client", addr, client);
        }
        stage.run();
        stage.expect("content", &["opened", &data(b"1234"), "closed finished by us"]);
        // One look when it is asked for, and one at the FIN.
        let lines =
            ["opened", &data(b"12"), "eof with 2 bytes left", "closed finished by the peer"];
        stage.expect("asking", &lines);
    });
}
