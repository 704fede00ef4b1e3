//! Sockets that a protocol takes out of its driver: no byte is lost, none comes twice.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use lariat::{
    CloseReason, ConnId, ConnectOptions, Context, Detached, DriverLimits, ErrorKind, Limits, Note,
    Op, Timer,
};

use crate::handles::Told;
use crate::kit::{Play, Stage, data, echo, everywhere, on_sockets, says};
use crate::patience::{PATIENCE, until};
use crate::toy::Toy;

const MEGABYTE: usize = 1024 * 1024;

/// Bytes of which none can pass for its neighbour.
fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

/// The end of a connection that the driver has, and the other.
fn adopt(stage: &mut Stage<'_>, who: &str, play: Play) -> TcpStream {
    adopt_with_id(stage, who, play).0
}

fn adopt_with_id(stage: &mut Stage<'_>, who: &str, play: Play) -> (TcpStream, ConnId) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let play = stage.trace.wrap(who, play);
    let options = ConnectOptions::default();
    let id = stage.driver.control().adopt_stream(stream, options, play).unwrap();
    (client, id)
}

/// Passes on what `closed` takes.
fn taking(play: Play) -> (Play, Receiver<Option<Detached>>) {
    let (gives, gets) = channel();
    let play = play.closed(move |cx: &mut Context<'_>, _: &CloseReason| {
        gives.send(cx.take_detached()).unwrap();
        assert!(cx.take_detached().is_none(), "once");
    });
    (play, gets)
}

/// Reads to the end what a detached socket gives: first what was unread.
fn rest(detached: Detached) -> Vec<u8> {
    let mut bytes = detached.unread;
    TcpStream::from(detached.socket).read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_socket_leaves_with_what_was_not_consumed_and_the_stream_goes_on() {
    on_sockets(DriverLimits::default(), |stage| {
        let play = Play::new().data(|cx, input| {
            if input.len() == 10 {
                input.consume(4);
                cx.write(b"go on");
                cx.detach()?;
                cx.detach()?;
                cx.resume_reading();
            }
            Ok(())
        });
        let (play, gets) = taking(play);
        let mut client = adopt(stage, "server", play);
        client.write_all(b"headbehind").unwrap();
        let peer = thread::spawn(move || {
            let mut answer = [0; 5];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"go on");
            client
        });
        stage.run();
        let mut client = peer.join().unwrap();
        let detached = gets.recv().unwrap().unwrap();
        assert_eq!((&detached.unread[..], detached.unsent.len()), (&b"behind"[..], 0));
        stage.expect("server", &["opened", &data(b"head"), "closed detached by us"]);
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.closes.detached, metrics.closes.total()), (1, 1));
        // It is an ordinary socket: it sleeps until there is something.
        let mut stream = TcpStream::from(detached.socket);
        let late = thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            client.write_all(b"later").unwrap();
            client.read(&mut [0]).unwrap()
        });
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"later");
        drop(stream);
        assert_eq!(late.join().unwrap(), 0, "no other descriptor keeps it open");
    });
}

#[test]
fn a_socket_leaves_without_the_time_outs_of_its_driver() {
    on_sockets(DriverLimits::default(), |stage| {
        let play = Play::new().data(|cx, input| {
            input.consume_all();
            Ok(cx.detach()?)
        });
        let (play, gets) = taking(play);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        // A thread sleeps no longer than this in a read.
        let mut options = ConnectOptions::default();
        options.limits.idle = Some(Duration::from_secs(20));
        stage.driver.control().adopt_stream(stream, options, play).unwrap();
        client.write_all(b"go").unwrap();
        stage.run();
        let stream = TcpStream::from(gets.recv().unwrap().unwrap().socket);
        let times = (stream.read_timeout().unwrap(), stream.write_timeout().unwrap());
        stage.check(times == (None, None), "it has no time-out");
    });
}

#[test]
fn a_socket_leaves_without_the_time_out_of_a_write_that_waited_for_room() {
    const MUCH: usize = 6 << 20;
    on_sockets(DriverLimits::default(), |stage| {
        let play = Play::new().opened(|cx| {
            cx.write_bytes(vec![7; MUCH]);
            Ok(())
        });
        let (play, gets) = taking(play.drained(|cx| Ok(cx.detach()?)));
        let (client, handle) = (adopt(stage, "server", play), stage.driver.handle());
        let reads = thread::spawn(move || {
            until(|| handle.metrics().bytes_out > 0, "what the socket takes is sent");
            // All but what may be left when it has drained, and what ends the read of a thread.
            (&client).read_exact(&mut vec![0; MUCH - (64 << 10)]).unwrap();
            (&client).write_all(b"x").unwrap();
            client
        });
        stage.run();
        let _client = reads.join().unwrap();
        let stream = TcpStream::from(gets.recv().unwrap().unwrap().socket);
        let times = (stream.read_timeout().unwrap(), stream.write_timeout().unwrap());
        stage.check(times == (None, None), "it has no time-out");
    });
}

#[test]
fn no_byte_of_a_stream_that_is_under_way_is_lost_or_comes_twice() {
    on_sockets(DriverLimits::default(), |stage| {
        let (tells, told) = channel();
        let mut seen = 0;
        let play = Play::new().data(move |cx, input| {
            let half = input.len().div_ceil(2);
            tells.send(input[..half].to_vec()).unwrap();
            input.consume(half);
            seen += half;
            if seen > 300_000 {
                cx.detach()?;
            }
            Ok(())
        });
        let (play, gets) = taking(play);
        let mut client = adopt(stage, "server", play);
        let peer = thread::spawn(move || client.write_all(&pattern(2 * MEGABYTE)).unwrap());
        stage.run();
        let detached = gets.recv().unwrap().unwrap();
        let mut bytes: Vec<u8> = told.try_iter().flatten().collect();
        assert!(bytes.len() > 300_000 && !detached.unread.is_empty());
        bytes.extend(rest(detached));
        peer.join().unwrap();
        assert!(bytes == pattern(2 * MEGABYTE), "{} bytes", bytes.len());
    });
}

#[test]
fn what_the_socket_has_not_taken_is_handed_over() {
    on_sockets(DriverLimits::default(), |stage| {
        let play = Play::new().opened(|cx| {
            cx.write_bytes(pattern(7 * MEGABYTE));
            cx.detach()?;
            cx.write(b"the last");
            Ok(())
        });
        let (play, gets) = taking(play);
        let mut client = adopt(stage, "server", play);
        stage.run();
        let detached = gets.recv().unwrap().unwrap();
        assert!(detached.unsent.len() > MEGABYTE, "{} unsent", detached.unsent.len());
        let peer = thread::spawn(move || {
            let mut bytes = Vec::new();
            client.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let mut stream = TcpStream::from(detached.socket);
        stream.write_all(&detached.unsent).unwrap();
        drop(stream);
        let expected = [&pattern(7 * MEGABYTE)[..], b"the last"].concat();
        assert!(peer.join().unwrap() == expected, "in order and whole");
        stage.expect("server", &["opened", "closed detached by us"]);
    });
}

#[test]
fn a_timer_detaches_an_idle_connection_and_the_next_byte_is_not_lost() {
    on_sockets(DriverLimits::default(), |stage| {
        let (tells, told) = channel();
        let play = Play::new()
            .opened(|cx| {
                cx.set_timer(Timer::new(1), Duration::from_millis(5));
                Ok(())
            })
            .timeout(move |cx, _| {
                cx.detach()?;
                tells.send(()).unwrap();
                Ok(())
            });
        let (play, gets) = taking(play);
        let (mut client, id) = adopt_with_id(stage, "server", play);
        let handle = stage.driver.handle();
        // On threads its own thread sleeps in a read meanwhile, from which this byte calls it.
        let peer = thread::spawn(move || {
            told.recv().unwrap();
            // Too late for a callback.
            let _ = handle.notify(id, Note::new("late"));
            client.write_all(b"!").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            client
        });
        stage.run();
        let client = peer.join().unwrap();
        assert_eq!(rest(gets.recv().unwrap().unwrap()), b"!");
        stage.expect("server", &["opened", "timeout of timer 1", "closed detached by us"]);
        drop(client);
    });
}

#[test]
fn a_detached_socket_is_adopted_again_in_the_same_callback() {
    on_sockets(DriverLimits::default(), |stage| {
        let trace = stage.trace.clone();
        let parent = Play::new()
            .data(|cx, input| {
                input.consume_all();
                cx.detach()?;
                cx.resume_reading();
                Ok(())
            })
            .closed(move |cx, _| {
                let detached = cx.take_detached().unwrap();
                let child = trace.wrap("child", echo());
                let options = ConnectOptions::default();
                cx.driver().adopt_stream(detached.socket, options, child).unwrap();
            });
        let mut client = adopt(stage, "parent", parent);
        client.write_all(b"first").unwrap();
        let peer = thread::spawn(move || {
            // What comes before the child is there may be the parent's.
            thread::sleep(Duration::from_millis(50));
            client.write_all(b"second").unwrap();
            let mut answer = [0; 6];
            client.read_exact(&mut answer).unwrap();
            answer
        });
        stage.run();
        assert_eq!(&peer.join().unwrap(), b"second");
        stage.expect("parent", &["opened", &data(b"first"), "closed detached by us"]);
        let all = data(b"second");
        stage.expect("child", &["opened", &all, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn a_socket_that_nobody_takes_is_closed_and_an_abort_comes_first() {
    on_sockets(DriverLimits::default(), |stage| {
        let nobody = Play::new().opened(|cx| Ok(cx.detach()?));
        let mut first = adopt(stage, "nobody", nobody);
        let (aborts, gets) = taking(Play::new().opened(|cx| {
            cx.detach()?;
            cx.abort();
            Ok(())
        }));
        let mut second = adopt(stage, "aborts", aborts);
        let (fails, gets_too) = taking(Play::new().opened(|cx| {
            cx.detach()?;
            Err("it failed".into())
        }));
        let mut third = adopt(stage, "fails", fails);
        let peer = thread::spawn(move || {
            assert_eq!(first.read(&mut [0]).unwrap(), 0);
            assert!(second.read(&mut [0]).is_err(), "it is a reset");
            assert_eq!(third.read(&mut [0]).unwrap(), 0);
        });
        stage.run();
        peer.join().unwrap();
        assert!(gets.recv().unwrap().is_none() && gets_too.recv().unwrap().is_none());
        stage.expect("nobody", &["opened", "closed detached by us"]);
        stage.expect("aborts", &["opened", "closed aborted by us"]);
        stage.expect("fails", &["opened", "closed protocol error by us"]);
    });
}

#[test]
fn what_cannot_be_detached_goes_on() {
    everywhere(|stage| {
        let told = Told::default();
        let tells = told.clone();
        let addr = stage.serve("server", move || {
            let tells = tells.clone();
            let play = Play::new().filter(|| Some(Box::new(Toy::server())));
            play.data(move |cx, input| {
                let error = cx.detach().unwrap_err();
                tells.tell(format!("{:?} {error}", error.kind()));
                cx.write(input);
                input.consume_all();
                cx.close();
                Ok(())
            })
        });
        let tells = told.clone();
        let client = says(b"x").filter(|| Some(Box::new(Toy::client(7)))).closed(move |cx, _| {
            let error = cx.detach().unwrap_err();
            assert_eq!((error.kind(), error.op()), (ErrorKind::InvalidSocket, Op::Detach));
            tells.tell(error.to_string());
        });
        stage.connect("client", addr, client);
        stage.run();
        let filter = "InvalidSocket cannot detach the socket: it has a filter";
        told.expect(stage, &[filter, "cannot detach the socket: the connection is ending"]);
        stage.check(stage.trace.of("client").contains(&data(b"x")), "it was answered");
    });
}

#[test]
fn a_connection_that_its_callback_ends_in_any_way_cannot_leave() {
    type End = fn(&mut Context<'_>);
    let ends: [(End, &str); 3] = [
        (|cx| cx.close(), "closed finished by us"),
        (|cx| cx.abort(), "closed aborted by us"),
        (|cx| cx.write(&[0; 1001]), "closed output full by the runtime"),
    ];
    for (end, closed) in ends {
        on_sockets(DriverLimits::default(), |stage| {
            let mut limits = Limits::default();
            (limits.low_mark, limits.high_mark, limits.output_max) = (10, 100, 1000);
            let addr = stage.serve_with("server", limits, move || {
                Play::new().opened(move |cx| {
                    end(cx);
                    let error = cx.detach().unwrap_err();
                    assert_eq!((error.kind(), error.op()), (ErrorKind::InvalidSocket, Op::Detach));
                    Ok(())
                })
            });
            stage.connect("client", addr, Play::new());
            stage.run();
            stage.expect("server", &["opened", closed]);
        });
    }
}

#[test]
fn a_simulated_socket_cannot_leave() {
    everywhere(|stage| {
        let told = Told::default();
        let (tells, real) = (told.clone(), stage.is_real());
        let addr = stage.serve("server", move || {
            let tells = tells.clone();
            Play::new().opened(move |cx| {
                let told = cx.detach().map_err(|error| error.to_string());
                assert_eq!(told.is_ok(), real);
                tells.tell(told.err().unwrap_or_default());
                cx.close();
                Ok(())
            })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        let sentence = "cannot detach the socket: this driver has no sockets of the system";
        told.expect(stage, &[if stage.is_real() { "" } else { sentence }]);
    });
}

#[test]
fn a_detached_socket_is_the_programs_alone() {
    on_sockets(DriverLimits::default(), |stage| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (told, tells) = channel();
        let client = Play::new()
            .opened(|cx| {
                cx.detach()?;
                Ok(())
            })
            .closed(move |cx, _| {
                let (mut peer, _) = listener.accept().unwrap();
                peer.set_read_timeout(Some(PATIENCE)).unwrap();
                // As it is dropped, it is closed: the driver has let go of it.
                drop(cx.take_detached().unwrap());
                told.send(peer.read(&mut [0]).map_err(|error| error.kind())).unwrap();
            });
        stage.connect("client", addr, client);
        stage.run();
        assert_eq!(tells.recv(), Ok(Ok(0)));
    });
}
