//! Captures: the file that comes of a tap, read back field by field.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::capture::{Capture, CaptureOptions};
use lariat::reactor::Reactor;
use lariat::sim::{Faults, Sim};
use lariat::tls::{ClientConfig, ServerConfig, Tls};
use lariat::{Context, Driver, Incoming, Input, Outcome, Protocol};

use crate::certs::Authority;
use crate::kit::{End, Told, everywhere};
use crate::pcapng::{ACK, FIN, RST, follow, read};

/// Sets a tap and goes on as the wrapped protocol.
pub(crate) struct Tapped<P>(pub(crate) Capture, pub(crate) P);

impl<P: Protocol> Protocol for Tapped<P> {
    lariat::forward_protocol! {
        self => self.1;
        pass: data eof drained timeout notified closed stopping name filter;
        own: opened;
    }

    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_tap(self.0.tap());
        self.1.opened(cx)
    }
}

fn echo(told: &Told, incoming: &Incoming) -> End {
    End { told: told.clone(), says: Vec::new(), echoes: true, listener: Some(incoming.listener()) }
}

fn says(told: &Told, words: &[u8]) -> End {
    End { told: told.clone(), says: words.to_vec(), echoes: false, listener: None }
}

/// An echo of `words` over TLS on `driver`, captured by the server.
fn session_on(driver: &mut dyn Driver, capture: &Capture, words: &[u8]) {
    let authority = Authority::new();
    let server = ServerConfig::new(authority.issue("localhost"));
    let client = ClientConfig::new(&authority.roots());
    let capture = capture.clone();
    let factory = move |incoming: &Incoming| {
        let end = echo(&Told::default(), incoming);
        Some(Tls::server(&server, Tapped(capture.clone(), end)))
    };
    let listener = driver.control().listen("127.0.0.1:0", factory).unwrap();
    let addr = driver.addresses(listener)[0];
    let end = says(&Told::default(), words);
    driver.control().connect(addr, Tls::client(&client, "localhost", end).unwrap());
    driver.run().unwrap();
}

#[test]
fn a_session_under_tls_is_captured_in_clear_on_every_driver() {
    let words: Vec<u8> = (0..50_000).map(|at| (at % 251) as u8).collect();
    everywhere(|driver| {
        let capture = Capture::in_memory(CaptureOptions::default());
        session_on(driver, &capture, &words);
        let captured = read(&capture.bytes());
        let (received, sent) = follow(&captured.packets);
        assert!(received == words && sent == words);
        let first = &captured.packets[0];
        assert!(first.inbound, "the client begins");
        assert_eq!(first.to.ip().to_string(), "127.0.0.1");
        let last: Vec<u8> = captured.packets.iter().rev().take(3).map(|p| p.flags).collect();
        assert_eq!(last, [ACK, FIN | ACK, FIN | ACK]);
        let end = captured.packets.iter().find(|packet| packet.flags & FIN != 0).unwrap();
        assert!(end.inbound && end.comment.starts_with("finished by the peer"), "{}", end.comment);
        assert!(captured.packets.iter().all(|packet| packet.length <= 16 * 1024));
        assert_eq!(captured.statistics, Some((captured.packets.len() as u64, 0)));
    });
}

#[test]
fn the_same_seed_gives_the_same_file() {
    let run = |seed| {
        let mut sim = Sim::new(seed);
        sim.set_faults(Faults::rough());
        let capture = Capture::in_memory(CaptureOptions::default());
        let made = capture.clone();
        let listener = sim
            .listen("127.0.0.1:1", move |incoming| {
                Some(Tapped(made.clone(), echo(&Told::default(), incoming)))
            })
            .unwrap();
        let addr = sim.addresses(listener)[0];
        sim.connect(addr, says(&Told::default(), &[7; 30_000]));
        sim.run().unwrap();
        capture.bytes()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn a_client_is_the_one_that_begins() {
    let capture = Capture::in_memory(CaptureOptions::default());
    let mut sim = Sim::new(1);
    let listener =
        sim.listen("[2001:db8::1]:80", |incoming| Some(echo(&Told::default(), incoming))).unwrap();
    let addr = sim.addresses(listener)[0];
    sim.connect(addr, Tapped(capture.clone(), says(&Told::default(), b"over IPv6")));
    sim.run().unwrap();
    let captured = read(&capture.bytes());
    let (received, sent) = follow(&captured.packets);
    assert_eq!((received, sent), (b"over IPv6".to_vec(), b"over IPv6".to_vec()));
    assert!(!captured.packets[0].inbound);
    assert_eq!(captured.packets[0].to.to_string(), "[2001:db8::1]:80");
}

#[test]
fn without_payload_there_are_lengths_and_no_bytes() {
    let mut options = CaptureOptions::default();
    options.payload = false;
    let capture = Capture::in_memory(options);
    session_on(&mut Sim::new(1), &capture, b"a secret of the user");
    let bytes = capture.bytes();
    assert!(!bytes.windows(8).any(|part| part == b"a secret"));
    let captured = read(&bytes);
    let (received, _) = follow(&captured.packets);
    assert!(received.is_empty());
    let lengths: usize = captured.packets.iter().filter(|p| p.inbound).map(|p| p.length).sum();
    assert_eq!(lengths, 20);
}

#[test]
fn an_abort_is_a_reset_with_its_reason() {
    struct Aborting;
    impl Protocol for Aborting {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            input.consume_all();
            cx.abort();
            Ok(())
        }
    }
    let capture = Capture::in_memory(CaptureOptions::default());
    let mut sim = Sim::new(1);
    let made = capture.clone();
    let listener =
        sim.listen("127.0.0.1:1", move |_| Some(Tapped(made.clone(), Aborting))).unwrap();
    sim.dial(sim.addresses(listener)[0]).send(b"x");
    sim.run_for(Duration::from_secs(1)).unwrap();
    let last = read(&capture.bytes()).packets.pop().unwrap();
    assert_eq!((last.flags, last.inbound), (RST | ACK, false));
    assert!(last.comment.starts_with("aborted by us"), "{}", last.comment);
}

/// Ends in a way of its own, and keeps the words for it.
#[derive(Clone)]
struct Ending {
    how: &'static str,
    reason: Arc<Mutex<String>>,
}

impl Protocol for Ending {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        if self.how == "late" {
            cx.set_idle(Some(Duration::from_millis(500)));
        }
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        match self.how {
            "closes" => cx.close(),
            "fails" => return Err("no more".into()),
            "panics" => panic!("planned"),
            _ => {}
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_>, reason: &lariat::CloseReason) {
        *self.reason.lock().unwrap() = reason.to_string();
    }
}

#[test]
fn each_end_is_drawn_as_what_it_was_and_from_where_it_came() {
    let in_order = [FIN | ACK, FIN | ACK, ACK];
    // Whether it came from the peer, and what is drawn.
    let ends: [(&str, bool, &[u8]); 7] = [
        ("closes", false, &in_order),
        ("finishes", true, &in_order),
        ("is shut down", false, &in_order),
        ("resets", true, &[RST | ACK]),
        ("fails", false, &[RST | ACK]),
        ("panics", false, &[RST | ACK]),
        ("late", false, &[RST | ACK]),
    ];
    for (how, from_peer, flags) in ends {
        let capture = Capture::in_memory(CaptureOptions::default());
        let mut sim = Sim::new(1);
        let ending = Ending { how, reason: Arc::default() };
        let (made, server) = (capture.clone(), ending.clone());
        let factory = move |_: &Incoming| Some(Tapped(made.clone(), server.clone()));
        let listener = sim.listen("127.0.0.1:1", factory).unwrap();
        let client = sim.dial(sim.addresses(listener)[0]);
        client.send(b"x");
        sim.run_for(Duration::from_millis(10)).unwrap();
        match how {
            "finishes" => client.finish(),
            "resets" => client.reset(),
            "is shut down" => sim.handle().shutdown(),
            _ => {}
        }
        sim.run_for(Duration::from_secs(1)).unwrap();
        client.finish();
        sim.run_for(Duration::from_secs(5)).unwrap();
        let captured = read(&capture.bytes());
        let end = &captured.packets[captured.packets.len() - flags.len()..];
        assert_eq!(end.iter().map(|packet| packet.flags).collect::<Vec<_>>(), flags, "{how}");
        assert_eq!(end[0].inbound, from_peer, "{how}");
        assert_eq!(end[0].comment, *ending.reason.lock().unwrap(), "{how}");
        assert!(end.iter().skip(1).all(|packet| packet.comment.is_empty()), "{how}");
        if let [first, second, third] = end {
            assert!(second.inbound != first.inbound && third.inbound == first.inbound, "{how}");
            assert_eq!((second.ack, third.ack), (first.seq + 1, second.seq + 1), "{how}");
        }
    }
}

#[test]
fn connections_of_unix_sockets_have_addresses_that_tell_them_apart() {
    let capture = Capture::in_memory(CaptureOptions::default());
    let mut sim = Sim::new(1);
    let made = capture.clone();
    let listener = sim
        .listen("unix:/tmp/one", move |_| {
            let end = End { told: Told::default(), says: vec![], echoes: true, listener: None };
            Some(Tapped(made.clone(), end))
        })
        .unwrap();
    let addr = sim.addresses(listener)[0];
    let sockets = [sim.dial(addr), sim.dial(addr)];
    sockets.iter().for_each(|socket| socket.send(b"x"));
    sim.run_for(Duration::from_secs(1)).unwrap();
    let packets = read(&capture.bytes()).packets;
    let clients: std::collections::BTreeSet<_> =
        packets.iter().filter(|packet| packet.inbound).map(|packet| packet.from).collect();
    let ports: Vec<u16> = clients.iter().map(|client| client.port()).collect();
    assert_eq!(ports, [1024, 1025], "made up of their slots");
    for client in clients {
        let of: Vec<_> =
            packets.iter().filter(|p| p.from == client || p.to == client).cloned().collect();
        assert_eq!(follow(&of), (b"x".to_vec(), b"x".to_vec()));
    }
}

// ---- the thread that writes --------------------------------------------------------------------

/// A disk that takes a block only when the test says so.
struct Gate {
    open: Receiver<()>,
    into: Arc<Mutex<Vec<u8>>>,
    begun: bool,
}

impl Gate {
    fn new() -> (Gate, Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (key, open) = channel();
        let into = Arc::<Mutex<Vec<u8>>>::default();
        (Gate { open, into: Arc::clone(&into), begun: false }, key, into)
    }
}

impl io::Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.begun {
            // Without a key any more, everything passes.
            let _ = self.open.recv();
        }
        self.begun = true;
        self.into.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_slow_disk_costs_packets_and_holds_no_connection_up() {
    let (gate, key, into) = Gate::new();
    let mut options = CaptureOptions::default();
    options.queue_max = 100_000;
    let capture = Capture::to_writer(gate, options).unwrap();
    let words = vec![7; 300_000];
    // The whole session passes while nothing is written.
    session_on(&mut Sim::new(1), &capture, &words);
    let dropped = capture.dropped();
    assert!(dropped > 0);
    drop(key);
    let report = capture.finish().unwrap();
    assert_eq!(report.dropped, dropped);
    assert!(report.packets > 3, "{report}");
    let captured = read(&into.lock().unwrap());
    assert_eq!(captured.packets.len() as u64, report.packets);
    assert_eq!(captured.statistics, Some((report.packets + dropped, dropped)));
    let held: usize = captured.packets.iter().map(|packet| packet.payload.len()).sum();
    assert!(held < 130_000, "the queue, and what was being written: {held}");
    // A gap in the numbers shows a reader what is missing.
    let next: usize = captured.packets.last().unwrap().seq as usize;
    assert!(next > held);
    session_on(&mut Sim::new(2), &capture, b"late");
    assert!(capture.dropped() > dropped, "what comes behind the end is counted");
    assert!(capture.finish().is_err());
}

/// Tells of each flush, which comes when no packet waits.
struct Telling {
    flushed: Sender<usize>,
    written: usize,
}

impl io::Write for Telling {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.flushed.send(self.written);
        Ok(())
    }
}

#[test]
fn what_is_written_makes_room_for_more() {
    let (flushed, flushes) = channel();
    let mut options = CaptureOptions::default();
    options.queue_max = 150_000;
    let capture = Capture::to_writer(Telling { flushed, written: 0 }, options).unwrap();
    let mut least = 0;
    for seed in 0..4 {
        // 100,000 bytes and their headers; twice as many would be too many to wait.
        session_on(&mut Sim::new(seed), &capture, &[7; 50_000]);
        least += 100_000;
        while flushes.recv_timeout(Duration::from_secs(60)).unwrap() < least {}
    }
    assert_eq!(capture.finish().unwrap().dropped, 0);
}

#[test]
fn a_file_has_a_bound() {
    for (bytes_max, fits) in [(100_000, false), (1_000_000, true)] {
        let mut options = CaptureOptions::default();
        options.bytes_max = bytes_max;
        let capture = Capture::in_memory(options.clone());
        session_on(&mut Sim::new(1), &capture, &[7; 100_000]);
        assert_eq!(capture.dropped() == 0, fits);
        assert!(capture.bytes().len() as u64 <= bytes_max + 100, "the last block comes on top");
        let (gate, key, into) = Gate::new();
        drop(key);
        let capture = Capture::to_writer(gate, options).unwrap();
        session_on(&mut Sim::new(1), &capture, &[7; 100_000]);
        let report = capture.finish().unwrap();
        assert_eq!(report.dropped == 0, fits, "{report}");
        assert!(into.lock().unwrap().len() as u64 <= bytes_max + 100);
    }
}

/// A disk that is full.
struct Full(usize);

impl io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or_else(|| io::Error::other("full"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_last_packet_may_end_at_the_bound_and_not_a_byte_behind_it() {
    let captured = |bytes_max| {
        let mut options = CaptureOptions::default();
        options.bytes_max = bytes_max;
        let capture = Capture::in_memory(options);
        let made = capture.clone();
        let mut sim = Sim::new(1);
        let factory = move |_: &Incoming| {
            Some(Tapped(made.clone(), Ending { how: "closes", reason: Arc::default() }))
        };
        let listener = sim.listen("127.0.0.1:1", factory).unwrap();
        sim.dial(sim.addresses(listener)[0]).send(b"x");
        sim.run_for(Duration::from_secs(10)).unwrap();
        (capture.bytes(), capture.dropped())
    };
    let (all, dropped) = captured(1 << 30);
    assert_eq!(dropped, 0);
    // The statistics at the end do not count.
    let last = u32::from_le_bytes(all.last_chunk().copied().unwrap());
    let size = all.len() as u64 - u64::from(last);
    let packets = read(&all).packets.len();
    for (bound, lost) in [(size + 1, 0), (size, 0), (size - 1, 1)] {
        let (bytes, dropped) = captured(bound);
        assert_eq!((dropped, read(&bytes).packets.len()), (lost, packets - lost as usize));
    }
}

#[test]
fn a_write_that_fails_is_said_and_harms_no_connection() {
    let capture = Capture::to_writer(Full(1_000), CaptureOptions::default()).unwrap();
    session_on(&mut Sim::new(1), &capture, &[7; 100_000]);
    assert_eq!(capture.finish().unwrap_err().to_string(), "full");
    assert!(Capture::to_writer(Full(10), CaptureOptions::default()).is_err());
    let error = Capture::create("/no such folder/x.pcapng").unwrap_err();
    assert!(error.to_string().starts_with("cannot write /no such folder/x.pcapng: "), "{error}");
}

#[test]
fn a_file_is_written_while_a_reactor_runs() {
    let path = std::env::temp_dir().join(format!("lariat-capture-{}.pcapng", std::process::id()));
    let capture = Capture::create(&path).unwrap();
    session_on(&mut Reactor::new().unwrap(), &capture, b"over a real socket");
    let report = capture.finish().unwrap();
    let captured = read(&std::fs::read(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    let (received, sent) = follow(&captured.packets);
    assert_eq!(
        (&received[..], &sent[..]),
        (&b"over a real socket"[..], &b"over a real socket"[..])
    );
    assert_eq!((captured.packets.len() as u64, 0), (report.packets, report.dropped));
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    assert!(now.abs_diff(captured.packets[0].time) < 3_600_000_000_000);
}

#[test]
fn an_older_capture_of_the_same_path_does_not_harm_the_file() {
    let path = std::env::temp_dir().join(format!("lariat-old-{}.pcapng", std::process::id()));
    let old = Capture::create(&path).unwrap();
    session_on(&mut Reactor::new().unwrap(), &old, b"old");
    let new = Capture::create(&path).unwrap();
    session_on(&mut Reactor::new().unwrap(), &new, b"new");
    // Both write what waits, and their ends.
    old.finish().unwrap();
    let report = new.finish().unwrap();
    let captured = read(&std::fs::read(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    assert_eq!(captured.packets.len() as u64, report.packets);
    let all = captured.connections();
    assert_eq!(follow(&all[0]).0, b"new");
}

#[test]
fn a_file_that_cannot_be_written_to_its_end_is_named() {
    if !std::path::Path::new("/dev/full").exists() {
        return;
    }
    let capture = Capture::create("/dev/full").unwrap();
    session_on(&mut Sim::new(1), &capture, &[7; 100_000]);
    let error = capture.finish().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(error.to_string().starts_with("cannot write /dev/full: "), "{error}");
}

#[test]
fn a_queue_takes_as_many_bytes_as_its_bound_and_not_one_more() {
    // SYN and its answer have 44 bytes each, the segment behind them 40.
    for (queue_max, packets) in [(43, 0), (44, 1), (88, 2), (127, 2), (128, 3)] {
        let (gate, key, _) = Gate::new();
        let mut options = CaptureOptions::default();
        options.queue_max = queue_max;
        let capture = Capture::to_writer(gate, options).unwrap();
        session_on(&mut Sim::new(1), &capture, &[7; 100]);
        drop(key);
        let report = capture.finish().unwrap();
        // A packet of 40 bytes may take the place that one of 44 had no room in.
        let expected = if queue_max == 43 { 1 } else { packets };
        assert_eq!(report.packets, expected, "{queue_max} bytes");
    }
}

#[test]
fn a_file_has_as_many_bytes_as_its_bound_without_its_end_and_not_one_more() {
    let size_of = |bytes_max: u64| {
        let mut options = CaptureOptions::default();
        options.bytes_max = bytes_max;
        let capture = Capture::in_memory(options);
        session_on(&mut Sim::new(1), &capture, b"some words");
        (capture.bytes().len() as u64, capture.dropped())
    };
    let (whole, none) = size_of(u64::MAX);
    let end = 12 + 12 + 2 * 12 + 4;
    assert_eq!((none, size_of(whole - end)), (0, (whole, 0)));
    let (short, dropped) = size_of(whole - end - 1);
    assert!(short < whole && dropped == 1, "{short} of {whole}, {dropped} dropped");
}

#[test]
fn a_capture_in_memory_is_finished_once_and_counts_what_comes_later() {
    let capture = Capture::in_memory(CaptureOptions::default());
    session_on(&mut Sim::new(1), &capture, b"in time");
    let report = capture.finish().unwrap();
    assert!(report.packets > 0 && report.dropped == 0, "{report}");
    session_on(&mut Sim::new(2), &capture, b"late");
    assert_eq!(capture.dropped(), report.packets, "as many as the first session had");
    let captured = read(&capture.bytes());
    assert_eq!(captured.packets.len() as u64, report.packets);
    assert!(capture.finish().is_err());
}
