//! Sessions between two ends of ours, and with an end that is not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use lariat::reactor::Reactor;
use lariat::sim::Sim;
use lariat::tls::{ClientConfig, ServerConfig, Tls, TlsVersion, rustls};
use lariat::{By, CloseKind, FilterFailure, Incoming};
use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};

use crate::certs::Authority;
use crate::kit::{End, Told, everywhere, session_on};

/// What a server and a client are like that trust one another.
fn pair(authority: &Authority) -> (ServerConfig, ClientConfig) {
    let server = ServerConfig::new(authority.issue("localhost"));
    (server, ClientConfig::new(&authority.roots()))
}

fn much() -> Vec<u8> {
    (0..300_000).map(|at| (at % 251) as u8).collect()
}

#[test]
fn bytes_go_both_ways_and_each_end_closes_in_order() {
    let authority = Authority::new();
    let (server, client) = pair(&authority);
    everywhere(|driver| {
        let (served, heard) = session_on(driver, &server, &client, "localhost", &much());
        assert!(served.bytes() == much() && heard.bytes() == much());
        for told in [&served, &heard] {
            assert_eq!(told.reason().kind(), CloseKind::Finished, "{}", told.reason());
            assert!(told.with(|seen| seen.finished), "close_notify is the end of the stream");
        }
        let session = served.session();
        assert_eq!(session.version(), TlsVersion::Tls13);
        assert_eq!(session.server_name(), Some("localhost"));
        assert_eq!((session.alpn(), session.peer_certificates().len()), (None, 0));
        assert!(session.cipher_suite().starts_with("TLS13_"), "{}", session.cipher_suite());
        assert_eq!(heard.session().peer_certificates().len(), 1);
        assert_eq!(heard.session().server_name(), None);
    });
}

#[test]
fn nothing_goes_over_the_wire_in_clear() {
    let authority = Authority::new();
    let (server, _) = pair(&authority);
    let mut sim = Sim::new(1);
    let acceptor = sim.acceptor("10.0.0.1:443").unwrap();
    let client = ClientConfig::new(&authority.roots());
    let end =
        End { told: Told::default(), says: b"secret".to_vec(), echoes: false, listener: None };
    let id = sim.connect("10.0.0.1:443", Tls::client(&client, "localhost", end).unwrap());
    sim.control().peer(id).write(b"secret by id");
    sim.handle().write(id, &b", by a handle"[..]).unwrap();
    sim.run_for(Duration::from_millis(10)).unwrap();
    let socket = acceptor.accept().unwrap();
    // The other end of the session, by hand.
    let mut other = rustls::ServerConnection::new(shared(&authority)).unwrap();
    let (mut wire, mut clear) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        sim.run_for(Duration::from_millis(10)).unwrap();
        let bytes = socket.take_received();
        wire.extend_from_slice(&bytes);
        let mut bytes = &bytes[..];
        while !bytes.is_empty() && other.read_tls(&mut bytes).unwrap() > 0 {
            other.process_new_packets().unwrap();
        }
        let _ = other.reader().read_to_end(&mut clear);
        let mut out = Vec::new();
        while other.wants_write() {
            other.write_tls(&mut out).unwrap();
        }
        socket.send(&out);
    }
    assert_eq!(clear, b"secret by id, by a handlesecret");
    assert!(!wire.windows(6).any(|window| window == b"secret"));
    drop(server);
}

/// A configuration of rustls itself for the same authority.
fn shared(authority: &Authority) -> std::sync::Arc<rustls::ServerConfig> {
    use rustls::pki_types::pem::PemObject;
    let (chain, key) = authority.issue_pem("localhost", |_| {});
    let chain = rustls::pki_types::CertificateDer::pem_slice_iter(chain.as_bytes());
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    config.into()
}

#[test]
fn tls_1_2_is_spoken_with_a_configuration_of_rustls_own_making() {
    let authority = Authority::new();
    let (server, _) = pair(&authority);
    let provider = rustls::crypto::ring::default_provider();
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::pem::PemObject;
    let pem = authority.pem();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let old = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = ClientConfig::from(std::sync::Arc::new(old));
    everywhere(|driver| {
        let (served, heard) = session_on(driver, &server, &client, "localhost", b"old");
        assert_eq!((served.bytes(), heard.bytes()), (b"old".to_vec(), b"old".to_vec()));
        assert_eq!(heard.session().version(), TlsVersion::Tls12);
    });
    let own = ServerConfig::from(shared(&authority));
    let (served, _) = session_on(&mut Sim::new(1), &own, &client, "localhost", b"own");
    assert_eq!(served.bytes(), b"own");
    assert!(own.replace_identity(authority.issue("localhost")).is_err());
}

#[test]
fn the_protocol_that_both_prefer_is_agreed_on_and_none_in_common_is_an_error() {
    let authority = Authority::new();
    let (server, client) = pair(&authority);
    let server = server.alpn(["h2", "http/1.1"]);
    let sim = &mut Sim::new(1);
    let (served, heard) =
        session_on(sim, &server, &client.clone().alpn(["http/1.1"]), "localhost", b"x");
    assert_eq!(served.session().alpn(), Some(&b"http/1.1"[..]));
    assert_eq!(heard.session().alpn(), Some(&b"http/1.1"[..]));
    let sim = &mut Sim::new(1);
    let (served, heard) = session_on(sim, &server, &client.alpn(["spdy"]), "localhost", b"x");
    assert!(!served.has_opened() && !heard.has_opened());
    assert!(heard.error().contains("NoApplicationProtocol"), "{}", heard.error());
}

#[test]
fn a_second_session_is_resumed_and_keeps_its_identity() {
    let authority = Authority::new();
    let server = ServerConfig::mutual(authority.issue("localhost"), &authority.roots()).unwrap();
    let client = ClientConfig::mutual(&authority.roots(), authority.issue("client"));
    let (first, _) = session_on(&mut Sim::new(1), &server, &client, "localhost", b"one");
    let (second, heard) = session_on(&mut Sim::new(2), &server, &client, "localhost", b"two");
    assert!(!first.session().is_resumed());
    assert!(second.session().is_resumed() && heard.session().is_resumed());
    let (one, two) = (first.session(), second.session());
    assert_eq!(one.peer_certificates(), two.peer_certificates());
    assert_eq!(one.peer_certificates().len(), 1);
}

// ---- certificates that do not pass --------------------------------------------------------------

/// The sentence that the client is told of a server whose certificate is made so.
fn refused(name: &str, change: impl FnOnce(&mut rcgen::CertificateParams)) -> String {
    let authority = Authority::new();
    let server = ServerConfig::new(authority.issue_with(name, change));
    let client = ClientConfig::new(&authority.roots());
    refused_by(&server, &client)
}

fn refused_by(server: &ServerConfig, client: &ClientConfig) -> String {
    let (served, heard) = session_on(&mut Sim::new(1), server, client, "localhost", b"x");
    assert!(!served.has_opened() && !heard.has_opened());
    assert!(served.bytes().is_empty());
    let reason = heard.reason();
    assert_eq!(reason.kind(), CloseKind::Filter(FilterFailure::Failed));
    assert_eq!(reason.by(), By::Peer);
    // The server hears why from the alert.
    assert!(served.error().starts_with("the peer has refused the session"), "{}", served.error());
    heard.error()
}

#[test]
fn t8_a_certificate_that_does_not_pass_is_an_error_that_says_why() {
    let expired = refused("localhost", |params| params.not_after = date_time_ymd(2001, 1, 1));
    assert_eq!(expired, "the peer's certificate has expired");
    let early = refused("localhost", |params| params.not_before = date_time_ymd(2990, 1, 1));
    assert_eq!(early, "the peer's certificate is not valid yet");
    assert_eq!(refused("elsewhere", |_| {}), "the peer's certificate is for another name");
    let purpose = refused("localhost", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    assert_eq!(purpose, "the peer's certificate is not for this purpose");
    let server = ServerConfig::new(Authority::new().issue("localhost"));
    let stranger = refused_by(&server, &ClientConfig::new(&Authority::new().roots()));
    assert_eq!(stranger, "the peer's certificate is not issued by a trusted authority");
}

#[test]
fn t9_a_client_without_a_certificate_or_with_a_strangers_is_refused() {
    let authority = Authority::new();
    let server = ServerConfig::mutual(authority.issue("localhost"), &authority.roots()).unwrap();
    let none = ClientConfig::new(&authority.roots());
    let (served, _) = session_on(&mut Sim::new(1), &server, &none, "localhost", b"x");
    assert!(!served.has_opened() && served.bytes().is_empty());
    assert_eq!(served.error(), "the peer has not shown a certificate");
    let stranger = ClientConfig::mutual(&authority.roots(), Authority::new().issue("client"));
    let (served, _) = session_on(&mut Sim::new(1), &server, &stranger, "localhost", b"x");
    assert!(!served.has_opened() && served.bytes().is_empty());
    assert_eq!(served.error(), "the peer's certificate is not issued by a trusted authority");
}

// ---- ends ---------------------------------------------------------------------------------------

/// A server in the simulator, and the bytes of a client of rustls' that has finished its handshake.
struct Scene {
    sim: Sim,
    served: Told,
    socket: lariat::sim::Socket,
    client: rustls::ClientConnection,
}

impl Scene {
    fn new() -> Scene {
        Scene::of(&Authority::new())
    }

    fn of(authority: &Authority) -> Scene {
        let (server, _) = pair(authority);
        let client = authority.session_by_hand("localhost");
        let (mut sim, served) = (Sim::new(1), Told::default());
        let told = served.clone();
        let factory = move |incoming: &Incoming| {
            let listener = Some(incoming.listener());
            let end = End { told: told.clone(), says: Vec::new(), echoes: true, listener };
            Some(Tls::server(&server, end))
        };
        let listener = sim.listen("127.0.0.1:1", factory).unwrap();
        let socket = sim.dial(sim.addresses(listener)[0]);
        Scene { sim, served, socket, client }
    }

    /// What the client has to send next.
    fn output(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut out).unwrap();
        }
        out
    }

    fn input(&mut self) {
        self.sim.run_for(Duration::from_millis(1)).unwrap();
        let bytes = self.socket.take_received();
        let mut bytes = &bytes[..];
        while !bytes.is_empty() && self.client.read_tls(&mut bytes).unwrap() > 0 {
            self.client.process_new_packets().unwrap();
        }
    }

    fn handshake(&mut self) {
        for _ in 0..4 {
            let out = self.output();
            self.socket.send(&out);
            self.input();
        }
        assert!(!self.client.is_handshaking() && self.served.has_opened());
    }
}

#[test]
fn t4_a_stream_that_is_cut_at_any_byte_is_truncated_and_never_finished() {
    let mut whole = Scene::new();
    whole.handshake();
    whole.client.writer().write_all(b"a message").unwrap();
    let message = whole.output().len();
    for cut in 0..=message {
        let mut scene = Scene::new();
        scene.handshake();
        scene.client.writer().write_all(b"a message").unwrap();
        let out = scene.output();
        scene.socket.send(&out[..cut]);
        scene.socket.finish();
        scene.sim.run_for(Duration::from_secs(1)).unwrap();
        let reason = scene.served.reason();
        assert_eq!(reason.kind(), CloseKind::Filter(FilterFailure::Truncated), "at {cut}");
        assert!(!scene.served.with(|seen| seen.finished), "at {cut}");
        let expected: &[u8] = if cut == message { b"a message" } else { b"" };
        assert_eq!(scene.served.bytes(), expected, "at {cut}");
    }
}

#[test]
fn t2_bytes_that_come_before_the_end_of_the_handshake_are_never_shown() {
    for cut in [1, 5, 60, usize::MAX] {
        let mut scene = Scene::new();
        let hello = scene.output();
        scene.socket.send(&hello[..cut.min(hello.len())]);
        scene.socket.finish();
        scene.sim.run_for(Duration::from_secs(1)).unwrap();
        assert!(!scene.served.has_opened() && scene.served.bytes().is_empty());
        let kind = scene.served.reason().kind();
        assert_eq!(kind, CloseKind::Filter(FilterFailure::Truncated), "{}", scene.served.reason());
    }
}

#[test]
fn t1_a_peer_that_does_not_speak_tls_gets_an_alert_and_the_reason_says_so() {
    for words in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], &[0xFF; 300]] {
        let scene = Scene::new();
        let (mut sim, socket) = (scene.sim, scene.socket);
        socket.send(words);
        sim.run_for(Duration::from_secs(10)).unwrap();
        assert_eq!(scene.served.error(), "the peer does not speak TLS");
        assert!(!scene.served.has_opened() && scene.served.bytes().is_empty());
        let alert = socket.take_received();
        assert_eq!((alert.len(), alert.first()), (7, Some(&21)), "an alert, whole");
    }
}

#[test]
fn t3_a_silent_client_is_cut_at_the_handshake_deadline() {
    let mut scene = Scene::new();
    scene.sim.run_for(Duration::from_secs(11)).unwrap();
    let kind = scene.served.reason().kind();
    assert_eq!(kind, CloseKind::TimedOut(lariat::Deadline::Handshake));
}

#[test]
fn t11_a_client_that_has_finished_is_still_answered() {
    let mut scene = Scene::new();
    scene.handshake();
    scene.client.writer().write_all(b"last words").unwrap();
    scene.client.send_close_notify();
    let out = scene.output();
    scene.socket.send(&out);
    scene.input();
    let mut answer = Vec::new();
    let _ = scene.client.reader().read_to_end(&mut answer);
    assert_eq!(answer, b"last words");
    assert!(scene.served.with(|seen| seen.finished));
    scene.socket.finish();
    scene.sim.run_for(Duration::from_secs(1)).unwrap();
    assert_eq!(scene.served.reason().kind(), CloseKind::Finished);
}

#[test]
fn records_that_arrive_together_are_shown_together() {
    let mut scene = Scene::new();
    scene.handshake();
    for word in ["one ", "two ", "three"] {
        scene.client.writer().write_all(word.as_bytes()).unwrap();
    }
    let out = scene.output();
    scene.socket.send(&out);
    scene.sim.run_for(Duration::from_millis(1)).unwrap();
    assert_eq!(scene.served.bytes(), b"one two three");
}

#[test]
fn a_wrong_byte_in_a_record_ends_the_session_and_shows_nothing() {
    let mut scene = Scene::new();
    scene.handshake();
    scene.client.writer().write_all(b"a message").unwrap();
    let mut out = scene.output();
    *out.last_mut().unwrap() ^= 1;
    scene.socket.send(&out);
    scene.sim.run_for(Duration::from_secs(10)).unwrap();
    assert!(scene.served.bytes().is_empty());
    assert_eq!(scene.served.reason().kind(), CloseKind::Filter(FilterFailure::Failed));
}

// ---- a peer that is not ours --------------------------------------------------------------------

#[test]
fn a_client_of_rustls_own_is_served_over_a_real_socket() {
    let authority = Authority::new();
    let (server, _) = pair(&authority);
    let mut reactor = Reactor::new().unwrap();
    let served = Told::default();
    let told = served.clone();
    let factory = move |incoming: &Incoming| {
        let listener = Some(incoming.listener());
        let end = End { told: told.clone(), says: Vec::new(), echoes: true, listener };
        Some(Tls::server(&server, end))
    };
    let listener = reactor.listen("127.0.0.1:0", factory).unwrap();
    let addr = reactor.addresses(listener)[0].socket_addr().unwrap();
    let mut client = Scene::of(&authority).client;
    let peer = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(addr).unwrap();
        let mut tls = rustls::Stream::new(&mut client, &mut stream);
        tls.write_all(b"over a real socket").unwrap();
        let mut answer = [0; 18];
        tls.read_exact(&mut answer).unwrap();
        tls.conn.send_close_notify();
        tls.flush().unwrap();
        answer
    });
    reactor.run().unwrap();
    assert_eq!(&peer.join().unwrap(), b"over a real socket");
    assert_eq!(served.bytes(), b"over a real socket");
    assert_eq!(served.reason().kind(), CloseKind::Finished);
}
