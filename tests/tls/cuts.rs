//! A session cut at every byte, in both directions; inputs that have broken others.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use lariat::sim::{Sim, Socket, Trace};
use lariat::tls::{ClientConfig, ServerConfig, Tls, rustls};
use lariat::{CloseKind, Context, Deadline, FilterFailure, Incoming, Input, Outcome, Protocol};
use rustls::pki_types::UnixTime;

use crate::certs::Authority;
use crate::kit::{End, Told};

/// A clock that stands still: the same certificate passes for ever.
#[derive(Debug)]
struct Fixed;

impl rustls::time_provider::TimeProvider for Fixed {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(1_700_000_000)))
    }
}

/// Both ends as rustls has them, with certificates and a time that give the same lengths each time.
struct Configs {
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
}

impl Configs {
    fn new() -> Configs {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;
        let authority = Authority::new();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let identity = authority.issue("localhost");
        let resolver = rustls::sign::SingleCertAndKey::from(identity.certified_key());
        let mut server =
            rustls::ServerConfig::builder_with_details(Arc::clone(&provider), Arc::new(Fixed))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(resolver));
        // A session that is resumed has other lengths.
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
        let mut client = rustls::ClientConfig::builder_with_details(provider, Arc::new(Fixed))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = rustls::client::Resumption::disabled();
        Configs { server: server.into(), client: client.into() }
    }
}

/// One end of a session by hand, over a socket of the simulator. What it sends beyond `cut` bytes
/// is lost, and FIN comes in its place.
struct Hand<C> {
    session: C,
    socket: Socket,
    sent: usize,
    cut: usize,
    heard: Vec<u8>,
}

impl<C, D> Hand<C>
where
    C: std::ops::DerefMut<Target = rustls::ConnectionCommon<D>>,
    D: rustls::SideData,
{
    /// Moves bytes both ways once.
    fn step(&mut self, sim: &mut Sim) {
        let mut out = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut out).unwrap();
        }
        let left = self.cut.saturating_sub(self.sent);
        self.socket.send(&out[..out.len().min(left)]);
        if out.len() > left || self.cut == 0 {
            self.socket.finish();
        }
        self.sent += out.len();
        sim.run_for(Duration::from_millis(1)).unwrap();
        let bytes = self.socket.take_received();
        let mut bytes = &bytes[..];
        while !bytes.is_empty() && self.session.read_tls(&mut bytes).is_ok_and(|count| count > 0) {
            if self.session.process_new_packets().is_err() {
                break;
            }
        }
        let _ = self.session.reader().read_to_end(&mut self.heard);
    }
}

/// What a server of ours saw of a client that was cut after so many bytes, and how many it would
/// have sent.
fn server_of_a_cut_client(configs: &Configs, cut: usize) -> (Told, String, usize) {
    let (mut sim, told, trace) = (Sim::new(7), Told::default(), Trace::new());
    let config = ServerConfig::from(Arc::clone(&configs.server));
    let (kept, traced) = (told.clone(), trace.clone());
    let factory = move |_: &Incoming| {
        let end = End { told: kept.clone(), says: Vec::new(), echoes: true, listener: None };
        Some(traced.wrap("server", Tls::server(&config, end)))
    };
    let listener = sim.listen("127.0.0.1:1", factory).unwrap();
    let socket = sim.dial(sim.addresses(listener)[0]);
    let name = "localhost".try_into().unwrap();
    let session = rustls::ClientConnection::new(Arc::clone(&configs.client), name).unwrap();
    let mut client = Hand { session, socket, sent: 0, cut, heard: Vec::new() };
    for _ in 0..3 {
        client.step(&mut sim);
    }
    client.session.writer().write_all(b"a message").unwrap();
    client.step(&mut sim);
    client.session.send_close_notify();
    client.step(&mut sim);
    client.step(&mut sim);
    client.socket.finish();
    sim.run_for(Duration::from_secs(30)).unwrap();
    (told, trace.text(), client.sent)
}

#[test]
fn t4_a_session_that_is_cut_at_any_byte_of_the_client_is_truncated() {
    let configs = Configs::new();
    let (told, _, whole) = server_of_a_cut_client(&configs, usize::MAX);
    assert_eq!((told.reason().kind(), told.bytes()), (CloseKind::Finished, b"a message".to_vec()));
    assert!(whole > 200, "{whole} bytes");
    for cut in 0..=whole {
        let (told, trace, sent) = server_of_a_cut_client(&configs, cut);
        let kind = told.reason().kind();
        if cut == whole {
            assert_eq!(kind, CloseKind::Finished);
        } else {
            assert_eq!(kind, CloseKind::Filter(FilterFailure::Truncated), "at {cut}");
            assert!(!told.with(|seen| seen.finished), "at {cut}");
            assert!(told.bytes().is_empty() || told.bytes() == b"a message", "at {cut}");
        }
        assert!(sent >= cut.min(whole), "at {cut}");
        if cut % 16 == 0 {
            let again = server_of_a_cut_client(&configs, cut).1;
            assert_eq!(again, trace, "the same seed, cut at {cut}");
        }
    }
}

/// The same for a client of ours and a server by hand.
fn client_of_a_cut_server(configs: &Configs, cut: usize) -> (Told, String, usize) {
    let (mut sim, told, trace) = (Sim::new(7), Told::default(), Trace::new());
    let acceptor = sim.acceptor("10.0.0.1:443").unwrap();
    let config = ClientConfig::from(Arc::clone(&configs.client));
    let end = Waiting { told: told.clone() };
    let client = Tls::client(&config, "localhost", end).unwrap();
    sim.connect("10.0.0.1:443", trace.wrap("client", client));
    sim.run_for(Duration::from_millis(1)).unwrap();
    let socket = acceptor.accept().unwrap();
    let session = rustls::ServerConnection::new(Arc::clone(&configs.server)).unwrap();
    let mut server = Hand { session, socket, sent: 0, cut, heard: Vec::new() };
    for _ in 0..3 {
        server.step(&mut sim);
    }
    server.session.writer().write_all(b"a message").unwrap();
    server.step(&mut sim);
    server.session.send_close_notify();
    server.step(&mut sim);
    server.step(&mut sim);
    server.socket.finish();
    sim.run_for(Duration::from_secs(30)).unwrap();
    (told, trace.text(), server.sent)
}

/// Says nothing and keeps what it hears.
struct Waiting {
    told: Told,
}

impl Protocol for Waiting {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.told.with(|seen| seen.bytes.extend_from_slice(input));
        input.consume_all();
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        self.told.with(|seen| seen.finished = true);
        cx.close();
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_>, reason: &lariat::CloseReason) {
        self.told.with(|seen| seen.reason = Some(reason.clone()));
    }
}

#[test]
fn t4_a_session_that_is_cut_at_any_byte_of_the_server_is_truncated() {
    let configs = Configs::new();
    let (told, _, whole) = client_of_a_cut_server(&configs, usize::MAX);
    assert_eq!((told.reason().kind(), told.bytes()), (CloseKind::Finished, b"a message".to_vec()));
    assert!(whole > 400, "{whole} bytes");
    for cut in 0..=whole {
        let (told, trace, _) = client_of_a_cut_server(&configs, cut);
        let expected = match cut {
            _ if cut == whole => CloseKind::Finished,
            _ => CloseKind::Filter(FilterFailure::Truncated),
        };
        assert_eq!(told.reason().kind(), expected, "at {cut}");
        assert!(told.bytes().is_empty() || told.bytes() == b"a message", "at {cut}");
        if cut % 32 == 0 {
            let again = client_of_a_cut_server(&configs, cut).1;
            assert_eq!(again, trace, "the same seed, cut at {cut}");
        }
    }
}

// ---- inputs that have broken others -------------------------------------------------------------

/// A server of ours with `words` sent to it in pieces of `size` bytes, after as much time as
/// lingering takes: what it heard, and what came back.
fn served(words: &[u8], size: usize) -> (Told, Vec<u8>) {
    let (sim, told, socket) = serving(words, size);
    assert!(sim.metrics().turns < 2_000, "it spins: {:?}", sim.metrics());
    (told, socket.take_received().to_vec())
}

/// The same, to go on with. 8 s have passed.
fn serving(words: &[u8], size: usize) -> (Sim, Told, Socket) {
    let configs = Configs::new();
    let (mut sim, told) = (Sim::new(1), Told::default());
    let config = ServerConfig::from(configs.server);
    let kept = told.clone();
    let factory = move |_: &Incoming| {
        let end = End { told: kept.clone(), says: Vec::new(), echoes: true, listener: None };
        Some(Tls::server(&config, end))
    };
    let listener = sim.listen("127.0.0.1:1", factory).unwrap();
    let socket = sim.dial(sim.addresses(listener)[0]);
    for part in words.chunks(size) {
        socket.send(part);
        sim.run_for(Duration::from_micros(100)).unwrap();
    }
    sim.run_for(Duration::from_secs(8)).unwrap();
    (sim, told, socket)
}

fn hello(configs: &Configs) -> Vec<u8> {
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::clone(&configs.client), name).unwrap();
    let mut out = Vec::new();
    client.write_tls(&mut out).unwrap();
    out
}

#[test]
fn t5_a_hello_in_pieces_and_in_many_records_is_understood() {
    let hello = hello(&Configs::new());
    // One record for each byte of the message.
    let records: Vec<u8> = hello[5..].iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
    for (words, size) in [(&hello, 1), (&hello, 7), (&records, 100_000), (&records, 11)] {
        let (told, answer) = served(words, size);
        assert_eq!(answer.first(), Some(&22), "a hello of the server's, in pieces of {size}");
        assert!(told.with(|seen| seen.reason.is_none()));
    }
}

#[test]
fn t5_records_without_anything_in_them_end_a_handshake() {
    for kind in [22, 23, 20, 21] {
        let empty: Vec<u8> = [kind, 3, 3, 0, 0].repeat(10_000);
        let (told, answer) = served(&empty, 5_000);
        let kind = told.reason().kind();
        assert_eq!(kind, CloseKind::Filter(FilterFailure::Failed), "{}", told.reason());
        assert!(!told.has_opened() && answer.len() <= 7, "an alert at most");
    }
}

/// A close_notify that nothing protects may be anybody's.
const CLOSE_NOTIFY: [u8; 7] = [21, 3, 3, 0, 2, 1, 0];

#[test]
fn t5_a_close_in_the_handshake_of_tls_1_3_is_a_failure_at_once() {
    let mut words = hello(&Configs::new());
    words.extend_from_slice(&CLOSE_NOTIFY);
    let (told, _) = served(&words, 1_000);
    let reason = told.reason();
    assert_eq!(reason.kind(), CloseKind::Filter(FilterFailure::Failed), "{reason}");
    assert_eq!(told.error(), "the peer has refused the session: CloseNotify");
    // It lingers for 2 s, as its peer is silent.
    assert!(reason.age() < Duration::from_millis(2_100), "{reason} after {:?}", reason.age());
    assert!(!told.has_opened() && told.bytes().is_empty());
}

#[test]
fn t5_a_close_before_the_version_is_agreed_or_under_tls_1_2_opens_nothing_and_ends_in_time() {
    // An alert that may be ignored by these rules: what ends the session is its deadline, or FIN.
    let mut old = hello(&Configs::new());
    let list = old.windows(2).position(|pair| pair == [0, 43]).unwrap();
    old[list + 1] = 143;
    for before in [&[][..], &old] {
        let words = [before, &CLOSE_NOTIFY].concat();
        for fin in [false, true] {
            let (mut sim, told, socket) = serving(&words, 1_000);
            assert!(told.with(|seen| seen.reason.is_none()), "its time is not over");
            if fin {
                socket.finish();
            }
            sim.run_for(Duration::from_secs(5)).unwrap();
            let reason = told.reason();
            let (kind, seconds) = match fin {
                true => (CloseKind::Filter(FilterFailure::Truncated), 8),
                false => (CloseKind::TimedOut(Deadline::Handshake), 10),
            };
            assert_eq!((reason.kind(), reason.age().as_secs()), (kind, seconds), "{reason}");
            assert!(!told.has_opened() && told.bytes().is_empty());
            assert!(sim.metrics().turns < 100, "it spins: {:?}", sim.metrics());
        }
    }
}

#[test]
fn t7_old_versions_are_refused_with_an_alert() {
    for version in [[3, 0], [3, 1], [3, 2]] {
        let mut old = hello(&Configs::new());
        // The version of the message, and no list of others: the extension has another number.
        old[9..11].copy_from_slice(&version);
        let list = old.windows(2).position(|pair| pair == [0, 43]).unwrap();
        old[list + 1] = 143;
        let (told, answer) = served(&old, 1_000);
        assert!(!told.has_opened());
        assert_eq!(told.reason().kind(), CloseKind::Filter(FilterFailure::Failed));
        assert_eq!(answer.first(), Some(&21), "an alert");
    }
}

#[test]
fn t6_a_peer_that_floods_a_paused_protocol_waits() {
    struct Paused;
    impl Protocol for Paused {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.pause_reading();
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            panic!("it is paused")
        }
    }
    let configs = Configs::new();
    let mut sim = Sim::new(1);
    let config = ServerConfig::from(Arc::clone(&configs.server));
    let listener = sim.listen("127.0.0.1:1", move |_| Some(Tls::server(&config, Paused))).unwrap();
    let socket = sim.dial(sim.addresses(listener)[0]);
    let name = "localhost".try_into().unwrap();
    let session = rustls::ClientConnection::new(configs.client, name).unwrap();
    let mut client = Hand { session, socket, sent: 0, cut: usize::MAX, heard: Vec::new() };
    for _ in 0..3 {
        client.step(&mut sim);
    }
    client.session.set_buffer_limit(None);
    for _ in 0..64 {
        client.session.writer().write_all(&[7; 1 << 20]).unwrap();
        client.step(&mut sim);
    }
    let read = sim.metrics().bytes_in;
    assert!(read < 3 << 20, "{read} of 64 MiB were read");
    assert_eq!(sim.metrics().open, 1);
}
