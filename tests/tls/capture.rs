//! Captures: the file that comes of a tap, read back field by field.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::capture::{Capture, CaptureOptions};
use lariat::reactor::Reactor;
use lariat::sim::{Faults, Sim};
use lariat::tls::{ClientConfig, Roots, ServerConfig, Tls};
use lariat::{ConnId, Context, Driver, Incoming, Input, Outcome, Protocol};

use crate::certs::Authority;
use crate::kit::{End, Told, everywhere};

/// A packet as a reader of the file sees it.
#[derive(Clone, Debug)]
struct Packet {
    time: u64,
    from: SocketAddr,
    to: SocketAddr,
    seq: u32,
    ack: u32,
    flags: u8,
    payload: Vec<u8>,
    /// Bytes of payload before any were left out.
    length: usize,
    inbound: bool,
    comment: String,
}

struct Captured {
    packets: Vec<Packet>,
    /// What the last block says: packets in all, and those that are missing.
    statistics: Option<(u64, u64)>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

fn options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    loop {
        let (code, length) = (u16_at(bytes, 0), usize::from(u16_at(bytes, 2)));
        if code == 0 {
            assert_eq!((length, bytes.len()), (0, 4), "the last option ends the block");
            return found;
        }
        found.push((code, bytes[4..4 + length].to_vec()));
        bytes = &bytes[4 + length.next_multiple_of(4)..];
    }
}

fn read(mut file: &[u8]) -> Captured {
    let mut captured = Captured { packets: Vec::new(), statistics: None };
    let mut kinds = Vec::new();
    while !file.is_empty() {
        let (kind, length) = (u32_at(file, 0), u32_at(file, 4) as usize);
        assert_eq!(length % 4, 0);
        assert_eq!(u32_at(file, length - 4) as usize, length, "both lengths of a block");
        let body = &file[8..length - 4];
        kinds.push(kind);
        match kind {
            0x0A0D_0D0A => {
                assert_eq!((u32_at(body, 0), u16_at(body, 4)), (0x1A2B_3C4D, 1));
            }
            1 => {
                assert_eq!(u16_at(body, 0), 101);
                assert!(options(&body[8..]).contains(&(9, vec![9])));
            }
            5 => {
                let of = |code| {
                    let (_, value) =
                        options(&body[12..]).into_iter().find(|(found, _)| *found == code).unwrap();
                    u64_of(&value)
                };
                captured.statistics = Some((of(4), of(5)));
            }
            6 => captured.packets.push(packet(body)),
            other => panic!("a block of kind {other}"),
        }
        file = &file[length..];
    }
    assert_eq!(kinds[..2], [0x0A0D_0D0A, 1]);
    captured
}

fn packet(body: &[u8]) -> Packet {
    assert_eq!(u32_at(body, 0), 0);
    let time = u64::from(u32_at(body, 4)) << 32 | u64::from(u32_at(body, 8));
    let (held, whole) = (u32_at(body, 12) as usize, u32_at(body, 16) as usize);
    let options = options(&body[20 + held.next_multiple_of(4)..]);
    let flags = options.iter().find(|(code, _)| *code == 2).map(|(_, value)| u32_at(value, 0));
    let comment = options.iter().find(|(code, _)| *code == 1).map(|(_, value)| value.clone());
    let bytes = &body[20..20 + held];
    let be16 = |at: usize| u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap());
    let (header, from, to) = match bytes[0] >> 4 {
        4 => {
            assert_eq!(usize::from(be16(2)), whole);
            assert_eq!((bytes[9], sum(&[&bytes[..20]])), (6, 0));
            let octets = |at: usize| <[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap();
            (20, octets(12).into(), octets(16).into())
        }
        6 => {
            assert_eq!((usize::from(be16(4)) + 40, bytes[6]), (whole, 6));
            let octets = |at: usize| <[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap();
            (40, std::net::IpAddr::from(octets(8)), octets(24).into())
        }
        other => panic!("version {other} of IP"),
    };
    let tcp = &bytes[header..];
    let be32 = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
    let data = usize::from(tcp[12] >> 4) * 4;
    if held == whole {
        let addrs = if header == 20 { &bytes[12..20] } else { &bytes[8..40] };
        let length = (tcp.len() as u32).to_be_bytes();
        assert_eq!(sum(&[addrs, &[0, 0, 0, 6], &length, tcp]), 0, "the checksum of TCP");
    }
    Packet {
        time,
        from: SocketAddr::new(from, be16(header)),
        to: SocketAddr::new(to, be16(header + 2)),
        seq: be32(4),
        ack: be32(8),
        flags: tcp[13],
        payload: tcp[data..].to_vec(),
        length: whole - header - data,
        inbound: flags == Some(1),
        comment: String::from_utf8(comment.unwrap_or_default()).unwrap(),
    }
}

fn sum(parts: &[&[u8]]) -> u16 {
    let all = parts.concat();
    let pair = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u64 = all.chunks(2).map(pair).sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Follows one connection as a reader does: the bytes of each direction, those from the peer first.
fn follow(packets: &[Packet]) -> (Vec<u8>, Vec<u8>) {
    let (mut streams, mut next) = ([Vec::new(), Vec::new()], [0_u32; 2]);
    let mut last = 0;
    for (at, packet) in packets.iter().enumerate() {
        let side = usize::from(!packet.inbound);
        assert_eq!(packet.seq, next[side], "packet {at} is the next one of its direction");
        assert!(packet.flags & ACK == 0 || packet.ack == next[1 - side], "packet {at}");
        assert!(packet.time >= last, "time goes on");
        last = packet.time;
        streams[side].extend_from_slice(&packet.payload);
        next[side] += packet.length as u32 + u32::from(packet.flags & (SYN | FIN) != 0);
    }
    let flags: Vec<u8> = packets[..3].iter().map(|packet| packet.flags).collect();
    assert_eq!(flags, [SYN, SYN | ACK, ACK]);
    assert_ne!(packets[0].inbound, packets[1].inbound);
    let [received, sent] = streams;
    (received, sent)
}

/// Sets a tap and goes on as the wrapped protocol.
struct Tapped<P>(Capture, P);

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
    assert_eq!(clients.len(), 2);
    for client in clients {
        let of: Vec<_> =
            packets.iter().filter(|p| p.from == client || p.to == client).cloned().collect();
        assert_eq!(follow(&of), (b"x".to_vec(), b"x".to_vec()));
    }
}

// ---- STARTTLS and a peer's write ---------------------------------------------------------------

/// Agrees on TLS in clear; keeps its id for another connection to write to.
struct Upgrading {
    config: ServerConfig,
    capture: Capture,
    id: Arc<Mutex<Option<ConnId>>>,
}

impl Protocol for Upgrading {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_tap(self.capture.tap());
        *self.id.lock().unwrap() = Some(cx.id());
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if input.starts_with(b"STARTTLS\n") {
            input.consume(9);
            cx.write(b"GO\n");
            let end = End { told: Told::default(), says: vec![], echoes: true, listener: None };
            cx.replace(Tls::server(&self.config, end));
        }
        Ok(())
    }
}

/// Asks for TLS, speaks it, and says `one` under it.
struct Asking(Roots);

impl Protocol for Asking {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(b"STARTTLS\n");
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if &input[..] == b"GO\n" {
            input.consume_all();
            let config = ClientConfig::new(&self.0);
            cx.replace(Tls::client(&config, "localhost", Saying)?);
        }
        Ok(())
    }
}

struct Saying;

impl Protocol for Saying {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(b"one ");
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
}

#[test]
fn starttls_and_a_peers_write_are_in_one_capture() {
    let authority = Authority::new();
    let capture = Capture::in_memory(CaptureOptions::default());
    let id = Arc::<Mutex<Option<ConnId>>>::default();
    let mut sim = Sim::new(1);
    let (config, made, kept) =
        (ServerConfig::new(authority.issue("localhost")), capture.clone(), Arc::clone(&id));
    let listener = sim
        .listen("127.0.0.1:25", move |_| {
            let (config, capture) = (config.clone(), made.clone());
            Some(Upgrading { config, capture, id: Arc::clone(&kept) })
        })
        .unwrap();
    let addr = sim.addresses(listener)[0];
    sim.connect(addr, Asking(authority.roots()));
    sim.run_for(Duration::from_millis(100)).unwrap();
    let id = id.lock().unwrap().unwrap();
    sim.control().peer(id).write(b"two, by another");
    sim.run_for(Duration::from_millis(100)).unwrap();
    sim.control().peer(id).close();
    sim.run_for(Duration::from_secs(20)).unwrap();
    let captured = read(&capture.bytes());
    let (received, sent) = follow(&captured.packets);
    assert_eq!(received, b"STARTTLS\none ");
    assert_eq!(sent, b"GO\none two, by another");
    let times: Vec<u64> = captured.packets.iter().map(|packet| packet.time).collect();
    assert!(times.last().unwrap() - times[0] >= 200_000_000, "virtual time: {times:?}");
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
