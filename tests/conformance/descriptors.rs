//! What is no socket is a connection too: pipes, a terminal, the stdio of a child.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use lariat::reactor::Reactor;
use lariat::sim::Sim;
use lariat::{
    Context, Descriptors, DriverLimits, Endpoint, ErrorKind, Input, Limits, Op, Outcome, Protocol,
    Timer,
};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::OpenptFlags;

use crate::handles::Told;
use crate::kit::{Play, Stage, data, echo, everywhere, on_sockets, says};
use crate::patience::until;

const MEGABYTE: usize = 1024 * 1024;

/// Bytes of which none can pass for its neighbour.
fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

/// The two ends of a pipe: to read and to write.
fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).unwrap()
}

/// A connection of pipes, and what the test reads from it and writes to it.
fn pipes(stage: &mut Stage<'_>, who: &str, play: Play) -> (File, File) {
    pipes_with(stage, who, Limits::default(), play)
}

fn pipes_with(stage: &mut Stage<'_>, who: &str, limits: Limits, play: Play) -> (File, File) {
    let ((read, their_write), (their_read, write)) = (pipe(), pipe());
    adopt(stage, who, Descriptors::new(read, write), limits, play);
    (their_read.into(), their_write.into())
}

fn adopt(stage: &mut Stage<'_>, who: &str, descriptors: Descriptors, limits: Limits, play: Play) {
    let play = stage.trace.wrap(who, play);
    stage.driver.control().adopt_descriptors(descriptors, limits, play).unwrap();
}

fn sleeps(fd: impl AsFd) -> bool {
    !rustix::fs::fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
}

#[test]
fn a_stream_of_two_pipes_echoes_and_ends_like_one_of_sockets() {
    on_sockets(DriverLimits::default(), |stage| {
        let play = echo().opened(|cx| {
            assert_eq!(cx.peer_addr(), Endpoint::Other);
            assert_eq!(cx.local_addr(), Some(Endpoint::Other));
            assert!(cx.descriptor().is_some() && cx.listener().is_none());
            let error = cx.detach().unwrap_err();
            assert_eq!((error.kind(), error.op()), (ErrorKind::Unsupported, Op::Detach));
            Ok(())
        });
        let (mut reads, mut writes) = pipes(stage, "server", play);
        let peer = thread::spawn(move || {
            writes.write_all(b"there and back").unwrap();
            let mut answer = [0; 14];
            reads.read_exact(&mut answer).unwrap();
            drop(writes);
            assert_eq!(reads.read(&mut [0]).unwrap(), 0);
            answer
        });
        stage.run();
        assert_eq!(&peer.join().unwrap(), b"there and back");
        let all = data(b"there and back");
        stage.expect("server", &["opened", &all, "eof", "closed finished by the peer"]);
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.accepted, metrics.bytes_in, metrics.bytes_out), (1, 14, 14));
    });
}

#[test]
fn a_megabyte_goes_through_a_child_and_fin_closes_what_is_its_input() {
    on_sockets(DriverLimits::default(), |stage| {
        let mut cat =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let told = Told::default();
        let (tells, mut got) = (told.clone(), Vec::new());
        let play = Play::new()
            .opened(|cx| {
                cx.write_bytes(pattern(MEGABYTE));
                cx.shutdown_write();
                Ok(())
            })
            .data(move |_, input| {
                got.extend_from_slice(&input.split_all());
                if got.len() == MEGABYTE {
                    tells.tell(format!("whole: {}", got == pattern(MEGABYTE)));
                }
                Ok(())
            });
        let descriptors = Descriptors::of_child(&mut cat).unwrap();
        assert!(Descriptors::of_child(&mut cat).is_none(), "they are taken");
        adopt(stage, "server", descriptors, Limits::default(), play);
        stage.run();
        told.expect(stage, &["whole: true"]);
        assert!(cat.wait().unwrap().success());
        let last = stage.trace.of("server").pop().unwrap();
        stage.check(last == "closed finished by the peer", &last);
    });
}

#[test]
fn a_child_without_both_pipes_keeps_the_one_that_it_has() {
    for (input, output) in [(true, false), (false, true), (false, false)] {
        let way = |pipe: bool| if pipe { Stdio::piped() } else { Stdio::null() };
        let mut child = Command::new("cat").stdin(way(input)).stdout(way(output)).spawn().unwrap();
        assert!(Descriptors::of_child(&mut child).is_none());
        assert_eq!((child.stdin.is_some(), child.stdout.is_some()), (input, output));
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_close_waits_for_no_fin_and_an_abort_closes_both_at_once() {
    on_sockets(DriverLimits::default(), |stage| {
        let begun = Instant::now();
        let closes = says(b"bye").data(|_, _| Ok(()));
        let closes = closes.drained(|_| Ok(()));
        let aborts = Play::new().data(|cx, input| {
            input.consume_all();
            cx.write_bytes(pattern(MEGABYTE));
            cx.abort();
            Ok(())
        });
        let closes = closes.opened(|cx| {
            cx.write(b"bye");
            cx.close();
            Ok(())
        });
        let (mut reads, writes) = pipes(stage, "closes", closes);
        let (mut other_reads, mut other_writes) = pipes(stage, "aborts", aborts);
        other_writes.write_all(b"x").unwrap();
        stage.run();
        // The ends of the test are open for all that time.
        assert!(begun.elapsed() < Duration::from_millis(1900), "it has lingered");
        let mut said = Vec::new();
        reads.read_to_end(&mut said).unwrap();
        assert_eq!(said, b"bye");
        let mut rest = Vec::new();
        other_reads.read_to_end(&mut rest).unwrap();
        assert!(rest.len() < MEGABYTE, "what waited is dropped");
        assert!(other_writes.write_all(b"x").is_err(), "nobody reads it");
        drop(writes);
        stage.expect("closes", &["opened", "closed finished by us"]);
        stage.expect("aborts", &["opened", &data(b"x"), "closed aborted by us"]);
        assert_eq!(stage.driver.metrics().lingering, 0);
    });
}

#[test]
fn a_single_descriptor_stays_open_behind_a_fin() {
    on_sockets(DriverLimits::default(), |stage| {
        // One of a pair of sockets is read and written like any other descriptor.
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let play = Play::new()
            .opened(|cx| {
                cx.write(b"all");
                cx.shutdown_write();
                Ok(())
            })
            .data(|cx, input| {
                input.consume_all();
                cx.close();
                Ok(())
            });
        adopt(stage, "one", Descriptors::one(ours), Limits::default(), play);
        let peer = thread::spawn(move || {
            let mut said = [0; 3];
            theirs.read_exact(&mut said).unwrap();
            theirs.write_all(b"answer").unwrap();
            theirs.read(&mut [0]).unwrap()
        });
        stage.run();
        assert_eq!(peer.join().unwrap(), 0);
        stage.expect("one", &["opened", &data(b"answer"), "closed finished by us"]);
    });
}

#[test]
fn a_single_descriptor_takes_all_output_of_a_reader_that_takes_its_time() {
    on_sockets(DriverLimits::default(), |stage| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let play = Play::new().opened(|cx| {
            cx.write_bytes(pattern(MEGABYTE));
            cx.close();
            Ok(())
        });
        let one = Descriptors::one(OwnedFd::from(ours));
        adopt(stage, "server", one, Limits::default(), play);
        let peer = thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).unwrap();
            all
        });
        stage.run();
        assert!(peer.join().unwrap() == pattern(MEGABYTE));
        stage.expect("server", &["opened", "closed finished by us"]);
    });
}

#[test]
fn the_byte_for_which_there_is_no_room_is_one_write_more() {
    // What a pipe of Linux holds.
    const PIPE: usize = 64 * 1024;
    if !cfg!(target_os = "linux") {
        return;
    }
    on_sockets(DriverLimits::default(), |stage| {
        let play = Play::new().opened(|cx| {
            cx.write_bytes(pattern(PIPE + 1));
            cx.close();
            Ok(())
        });
        let (mut reads, _writes) = pipes(stage, "server", play);
        let handle = stage.driver.handle();
        let peer = thread::spawn(move || {
            until(|| handle.metrics().bytes_out == PIPE as u64, "the pipe is full");
            let mut all = Vec::new();
            reads.read_to_end(&mut all).unwrap();
            all
        });
        stage.run();
        assert!(peer.join().unwrap() == pattern(PIPE + 1));
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.writes, metrics.bytes_out), (2, PIPE as u64 + 1));
    });
}

#[test]
fn a_terminal_is_served_and_its_flags_are_as_before() {
    on_sockets(DriverLimits::default(), |stage| {
        let (master, terminal) = terminal();
        let kept = terminal.try_clone().unwrap();
        let shout = Play::new().data(|cx, input| {
            let line = input.split_all().to_ascii_uppercase();
            cx.write(&line);
            if line.ends_with(b"\n") {
                cx.close();
            }
            Ok(())
        });
        let other = kept.try_clone().unwrap();
        let shout = shout.opened(move |_| {
            assert!(!sleeps(&other), "everybody has the same flags");
            Ok(())
        });
        adopt(stage, "terminal", Descriptors::one(terminal), Limits::default(), shout);
        let mut user = File::from(master);
        user.write_all(b"hello\n").unwrap();
        stage.run();
        let mut shown = [0; 6];
        user.read_exact(&mut shown).unwrap();
        assert_eq!(&shown, b"HELLO\n");
        stage.expect("terminal", &["opened", &data(b"hello\n"), "closed finished by us"]);
        assert!(sleeps(&kept));
    });
}

/// A terminal that changes no byte: the user's side, and the program's.
fn terminal() -> (OwnedFd, OwnedFd) {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    let mut modes = rustix::termios::tcgetattr(&terminal).unwrap();
    modes.make_raw();
    rustix::termios::tcsetattr(&terminal, rustix::termios::OptionalActions::Now, &modes).unwrap();
    (master, terminal)
}

#[test]
fn the_end_of_a_terminal_is_the_end_of_the_stream() {
    on_sockets(DriverLimits::default(), |stage| {
        let (master, terminal) = terminal();
        adopt(stage, "master", Descriptors::one(master), Limits::default(), echo());
        let program = thread::spawn(move || {
            let mut program = File::from(terminal);
            program.write_all(b"said").unwrap();
            let mut echoed = [0; 4];
            program.read_exact(&mut echoed).unwrap();
            echoed
        });
        stage.run();
        assert_eq!(&program.join().unwrap(), b"said");
        stage.expect("master", &["opened", &data(b"said"), "eof", "closed finished by the peer"]);
    });
}

#[test]
fn what_is_always_ready_is_refused_and_comes_back_as_it_was() {
    on_sockets(DriverLimits::default(), |stage| {
        stage.run();
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let directory = File::open("/").unwrap();
        let regular = "a regular file is always ready; put a pipe or a thread between";
        let mut refused = vec![(file, regular), (directory, "it is a directory")];
        if cfg!(target_os = "linux") {
            refused.push((File::open("/dev/null").unwrap(), "this device is always ready"));
        }
        for (file, sentence) in refused {
            let (read, write) = pipe();
            for reads in [true, false] {
                let (file, pipe) = (file.try_clone().unwrap(), read.try_clone().unwrap());
                let descriptors = match reads {
                    true => Descriptors::new(file, pipe),
                    false => Descriptors::new(pipe, file),
                };
                let mut control = stage.driver.control();
                let adopted = control.adopt_descriptors(descriptors, Limits::default(), Silent);
                let refused = adopted.unwrap_err();
                let error = refused.error();
                assert_eq!((error.kind(), error.op()), (ErrorKind::Unsupported, Op::Adopt));
                assert_eq!(error.to_string(), format!("cannot adopt the socket: {sentence}"));
                assert!(refused.into_payload().into_parts().1.is_some());
                assert!(sleeps(&read));
            }
            let mut limits = Limits::default();
            limits.read_budget = 0;
            let descriptors = Descriptors::new(read, write);
            let adopted = stage.driver.control().adopt_descriptors(descriptors, limits, Silent);
            assert_eq!(adopted.unwrap_err().error().kind(), ErrorKind::InvalidLimits);
        }
    });
}

struct Silent;

impl Protocol for Silent {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn a_driver_that_is_dropped_or_unwound_leaves_the_flags_as_they_were() {
    for unwinds in [false, true] {
        let (read, write) = pipe();
        let (kept, kept_too) = (read.try_clone().unwrap(), write.try_clone().unwrap());
        let mut reactor = Reactor::new().unwrap();
        let descriptors = Descriptors::new(read, write);
        reactor.control().adopt_descriptors(descriptors, Limits::default(), Silent).unwrap();
        reactor.turn(Some(Duration::ZERO)).unwrap();
        assert!(!sleeps(&kept) && !sleeps(&kept_too));
        let result = catch_unwind(AssertUnwindSafe(move || {
            let _reactor = reactor;
            assert!(!unwinds, "on purpose");
        }));
        assert_eq!(result.is_err(), unwinds);
        assert!(sleeps(&kept) && sleeps(&kept_too));
    }
}

#[test]
fn a_reader_that_is_gone_is_noticed_by_a_write_behind_what_had_come() {
    on_sockets(DriverLimits::default(), |stage| {
        let play = Play::new().data(|cx, input| {
            if input.len() == 4 {
                input.consume_all();
                cx.write(b"too late");
            }
            Ok(())
        });
        let (reads, mut writes) = pipes(stage, "server", play);
        drop(reads);
        writes.write_all(b"word").unwrap();
        stage.run();
        stage.expect("server", &["opened", &data(b"word"), "closed reset by the peer"]);
        drop(writes);
    });
}

#[test]
fn a_reader_that_leaves_a_full_pipe_ends_what_waits_for_room() {
    on_sockets(DriverLimits::default(), |stage| {
        let begun = Instant::now();
        let (tells, told) = channel();
        let play = Play::new().opened(move |cx| {
            cx.write_bytes(pattern(MEGABYTE));
            tells.send(()).unwrap();
            Ok(())
        });
        let (reads, writes) = pipes(stage, "server", play);
        let peer = thread::spawn(move || {
            told.recv().unwrap();
            // Long enough for the pipe to be full.
            thread::sleep(Duration::from_millis(30));
            drop(reads);
        });
        stage.run();
        peer.join().unwrap();
        stage.expect("server", &["opened", "closed reset by the peer"]);
        assert!(begun.elapsed() < Duration::from_secs(20), "not at the deadline, which tries too");
        drop(writes);
    });
}

#[test]
fn what_comes_from_a_child_that_reads_nothing_is_shown() {
    on_sockets(DriverLimits::default(), |stage| {
        // It closes its input first, and speaks a while later.
        let script = "exec <&-; sleep 0.05; echo still here";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let descriptors = Descriptors::of_child(&mut child).unwrap();
        adopt(stage, "child", descriptors, Limits::default(), Play::new());
        stage.run();
        child.wait().unwrap();
        let line = data(b"still here\n");
        stage.expect("child", &["opened", &line, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn output_waits_for_a_pipe_that_is_full_and_its_reader_gets_all_of_it() {
    on_sockets(DriverLimits::default(), |stage| {
        let (tells, told) = channel();
        let play = Play::new()
            .opened(|cx| {
                cx.write_bytes(pattern(3 * MEGABYTE));
                Ok(())
            })
            .drained(move |cx| {
                cx.close();
                tells.send(()).unwrap();
                Ok(())
            });
        let (mut reads, writes) = pipes(stage, "server", play);
        let peer = thread::spawn(move || {
            // Long enough for the pipe to be full.
            thread::sleep(Duration::from_millis(30));
            let mut bytes = Vec::new();
            reads.read_to_end(&mut bytes).unwrap();
            bytes
        });
        stage.run();
        assert!(peer.join().unwrap() == pattern(3 * MEGABYTE));
        told.recv().unwrap();
        drop(writes);
    });
}

#[test]
fn a_pipe_that_nobody_empties_ends_at_the_deadline() {
    on_sockets(DriverLimits::default(), |stage| {
        let mut limits = Limits::default();
        limits.write_stall = Duration::from_millis(60);
        let play = Play::new().opened(|cx| {
            cx.write_bytes(pattern(MEGABYTE));
            Ok(())
        });
        let kept = pipes_with(stage, "server", limits, play);
        stage.run();
        stage.expect("server", &["opened", "closed timed out (write) by the runtime"]);
        drop(kept);
    });
}

/// Each of these reaches a thread that sleeps in a wait for input.
#[test]
fn a_stream_that_is_silent_hears_timers_handles_and_shutdown() {
    on_sockets(DriverLimits::default(), |stage| {
        let timed = Play::new()
            .opened(|cx| {
                cx.set_timer(Timer::new(7), Duration::from_millis(5));
                Ok(())
            })
            .timeout(|cx, _| {
                cx.close();
                Ok(())
            });
        let timed_ends = pipes(stage, "timed", timed);
        let (tells, told) = channel();
        let aborted = Play::new().opened(move |cx| {
            tells.send(cx.id()).unwrap();
            Ok(())
        });
        let aborted_ends = pipes(stage, "aborted", aborted);
        let mut limits = Limits::default();
        limits.idle = Some(Duration::from_millis(20));
        let idle_ends = pipes_with(stage, "idle", limits, Play::new());
        let stays_ends = pipes(stage, "stays", Play::new());
        let handle = stage.driver.handle();
        let asks = thread::spawn(move || {
            handle.abort(told.recv().unwrap());
            until(|| handle.metrics().closes.total() == 3, "not all the others have ended");
            handle.shutdown();
        });
        stage.run();
        asks.join().unwrap();
        stage.expect("timed", &["opened", "timeout of timer 7", "closed finished by us"]);
        stage.expect("aborted", &["opened", "closed aborted by us"]);
        stage.expect("idle", &["opened", "closed timed out (idle) by the runtime"]);
        stage.expect("stays", &["opened", "stopping", "closed shut down by the runtime"]);
        drop((timed_ends, aborted_ends, idle_ends, stays_ends));
    });
}

#[test]
fn a_paused_stream_leaves_its_bytes_in_the_pipe_until_it_is_resumed() {
    on_sockets(DriverLimits::default(), |stage| {
        let play = Play::new()
            .opened(|cx| {
                cx.pause_reading();
                cx.set_timer(Timer::new(1), Duration::from_millis(20));
                Ok(())
            })
            .timeout(|cx, _| {
                cx.resume_reading();
                Ok(())
            });
        let (reads, mut writes) = pipes(stage, "server", play);
        writes.write_all(b"waits").unwrap();
        drop(writes);
        stage.run();
        let (timer, all) = ("timeout of timer 1", data(b"waits"));
        stage.expect("server", &["opened", timer, &all, "eof", "closed finished by the peer"]);
        drop(reads);
    });
}

#[test]
fn the_simulator_takes_no_descriptors_and_has_pipes_of_its_own() {
    let mut sim = Sim::new(1);
    let (read, write) = pipe();
    let descriptors = Descriptors::new(read, write);
    let refused = sim.control().adopt_descriptors(descriptors, Limits::default(), Silent);
    assert_eq!(refused.unwrap_err().error().kind(), ErrorKind::Unsupported);
    let trace = lariat::sim::Trace::new();
    let aborts = Play::new().data(|cx, input| {
        assert_eq!((cx.peer_addr(), cx.local_addr()), (Endpoint::Other, Some(Endpoint::Other)));
        input.consume_all();
        cx.abort();
        Ok(())
    });
    let aborted = sim.pipe(Limits::default(), trace.wrap("aborts", aborts)).unwrap();
    aborted.send(b"x");
    let writes = Play::new().data(|cx, input| {
        cx.write(input);
        input.consume_all();
        Ok(())
    });
    let deserted = sim.pipe(Limits::default(), trace.wrap("writes", writes)).unwrap();
    deserted.send(b"y");
    deserted.reset();
    let closes = says(b"bye").data(|cx, input| {
        input.consume_all();
        cx.close();
        Ok(())
    });
    let open = sim.pipe(Limits::default(), trace.wrap("closes", closes)).unwrap();
    open.send(b"z");
    let begun = sim.now();
    sim.run().unwrap();
    let over = sim.now();
    sim.run_for(Duration::from_millis(10)).unwrap();
    assert!(aborted.is_finished() && !aborted.is_reset(), "a pipe has no reset");
    assert_eq!(open.take_received(), b"bye");
    assert_eq!(trace.of("aborts"), ["opened", &data(b"x"), "closed aborted by us"]);
    assert_eq!(trace.of("writes"), ["opened", &data(b"y"), "closed reset by the peer"]);
    assert_eq!(trace.of("closes"), ["opened", &data(b"z"), "closed finished by us"]);
    assert!(over - begun < Duration::from_secs(1), "nothing lingers");
}

#[test]
fn a_driver_that_stops_gives_descriptors_back() {
    everywhere(|stage| {
        let (read, write) = pipe();
        let told = Told::default();
        let tells = told.clone();
        let mut descriptors = Some(Descriptors::new(read, write));
        // It stays until the other has asked.
        let server = || {
            Play::new()
                .opened(|cx| {
                    cx.write(b"x");
                    Ok(())
                })
                .stopping(|_| Ok(()))
        };
        let addr = stage.serve("server", server);
        let asks = Play::new()
            .data(|cx, input| {
                input.consume_all();
                cx.driver().shutdown();
                Ok(())
            })
            .stopping(move |cx| {
                let descriptors = descriptors.take().unwrap();
                let mut driver = cx.driver();
                let refused = driver.adopt_descriptors(descriptors, Limits::default(), Silent);
                tells.tell(format!("{:?}", refused.unwrap_err().error().kind()));
                cx.close();
                Ok(())
            });
        stage.connect("asks", addr, asks);
        stage.run();
        told.expect(stage, &["Stopped"]);
    });
}
