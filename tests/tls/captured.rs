//! One capture of connections that change on their way: a balancer's header, STARTTLS, TLS, and
//! what another connection writes.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::capture::{Capture, CaptureOptions};
use lariat::proxy_protocol::{AcceptProxy, Header, SendProxy, Version};
use lariat::tls::{ClientConfig, ServerConfig, Tls};
use lariat::{ConnId, Context, Endpoint, Incoming, Input, ListenerId, Outcome, Protocol};

use crate::capture::Tapped;
use crate::certs::Authority;
use crate::kit::everywhere;
use crate::pcapng::{follow, read};

const HEADER: &[u8] = b"PROXY TCP4 203.0.113.9 203.0.113.9 40312 40312\r\n";

/// Where connections find one another.
type Place = Arc<Mutex<Option<ConnId>>>;

/// Agrees on TLS in clear.
struct Agreeing {
    config: ServerConfig,
    place: Place,
    listener: ListenerId,
}

impl Protocol for Agreeing {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if input.len() < 9 {
            input.need(9);
        } else if input.starts_with(b"STARTTLS\n") {
            input.consume(9);
            cx.write(b"GO\n");
            let secure = Secure { place: Arc::clone(&self.place), listener: Some(self.listener) };
            cx.replace(Tls::server(&self.config, secure));
        }
        Ok(())
    }
}

/// Waits under TLS until another connection has written to it.
struct Secure {
    place: Place,
    listener: Option<ListenerId>,
}

impl Protocol for Secure {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        *self.place.lock().unwrap() = Some(cx.id());
        if let Some(listener) = self.listener.take() {
            cx.driver().stop_listening(listener);
        }
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume_all();
        Ok(())
    }
}

/// Asks for TLS, and says `one` under it. When that has come back, it makes a connection of its own
/// driver write to the server's, and closes at the last word.
struct Asking {
    config: ClientConfig,
    place: Place,
}

impl Protocol for Asking {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(b"STARTTLS\n");
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if input.len() < 3 {
            input.need(3);
            return Ok(());
        }
        assert_eq!(&input[..], b"GO\n");
        input.consume_all();
        let saying = Saying { place: Arc::clone(&self.place) };
        cx.replace(Tls::client(&self.config, "localhost", saying)?);
        Ok(())
    }
}

struct Saying {
    place: Place,
}

impl Protocol for Saying {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(b"one ");
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if &input[..] == b"one " {
            input.consume_all();
            let peer = self.place.lock().unwrap().unwrap();
            cx.peer(peer).write(b"two, by another");
        } else if input.ends_with(b"another") {
            input.consume_all();
            cx.close();
        }
        Ok(())
    }
}

#[test]
fn a_balancers_header_starttls_and_a_peers_write_are_in_one_capture_on_every_driver() {
    let authority = Authority::new();
    let source = Endpoint::from(std::net::SocketAddr::from(([203, 0, 113, 9], 40_312)));
    let header = Header::proxied(source, source);
    everywhere(|driver| {
        let capture = Capture::in_memory(CaptureOptions::default());
        let (place, made) = (Place::default(), capture.clone());
        let (config, kept) = (ServerConfig::new(authority.issue("localhost")), Arc::clone(&place));
        let agreeing = move |incoming: &Incoming| {
            let (config, place) = (config.clone(), Arc::clone(&kept));
            Some(Agreeing { config, place, listener: incoming.listener() })
        };
        let receive = AcceptProxy::trusting(|_| true).factory(agreeing);
        let factory = move |incoming: &Incoming| Some(Tapped(made.clone(), receive(incoming)?));
        let listener = driver.control().listen("127.0.0.1:0", factory).unwrap();
        let addr = driver.addresses(listener)[0];
        let config = ClientConfig::new(&authority.roots());
        let asking = Asking { config, place };
        driver.control().connect(addr, SendProxy::new(&header, Version::V1, asking));
        driver.run().unwrap();
        let connections = read(&capture.bytes()).connections();
        assert_eq!(connections.len(), 1);
        let (received, sent) = follow(&connections[0]);
        let expected = [HEADER, b"STARTTLS\n", b"one "].concat();
        assert_eq!(String::from_utf8_lossy(&received), String::from_utf8_lossy(&expected));
        assert_eq!(sent, b"GO\none two, by another");
        assert_eq!(seen_by_tshark(&capture.bytes()), received_and_sent(&received, &sent));
    });
}

fn received_and_sent(received: &[u8], sent: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    has_tshark().then(|| (received.to_vec(), sent.to_vec()))
}

fn has_tshark() -> bool {
    Command::new("tshark").arg("--version").output().is_ok()
}

/// The bytes of both directions of the only connection, from the peer first; None without tshark.
fn seen_by_tshark(file: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    if !has_tshark() {
        eprintln!("tshark is not installed: nobody but the tests reads the capture");
        return None;
    }
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("lariat-captured-{}-{number}.pcapng", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, file).unwrap();
    let fields = ["-Y", "tcp.len > 0", "-T", "fields", "-e", "frame.p2p_dir", "-e", "tcp.payload"];
    let done = Command::new("tshark").arg("-r").arg(&path).args(fields).output().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let (mut received, mut sent) = (Vec::new(), Vec::new());
    for line in String::from_utf8(done.stdout).unwrap().lines() {
        let (direction, payload) = line.split_once('\t').unwrap();
        let bytes = (0..payload.len()).step_by(2);
        let bytes = bytes.map(|at| u8::from_str_radix(&payload[at..at + 2], 16).unwrap());
        // 1 is what has come in; without a direction the file is read wrongly.
        match direction {
            "1" => received.extend(bytes),
            "0" => sent.extend(bytes),
            other => panic!("direction {other:?}"),
        }
    }
    Some((received, sent))
}

/// Echoes under TLS right behind the header.
#[test]
fn a_header_and_tls_in_one_piece_are_captured_as_they_came() {
    let authority = Authority::new();
    let source = Endpoint::from(std::net::SocketAddr::from(([203, 0, 113, 9], 40_312)));
    let header = Header::proxied(source, source);
    let mut sim = lariat::sim::Sim::new(1);
    let capture = Capture::in_memory(CaptureOptions::default());
    let (config, made) = (ServerConfig::new(authority.issue("localhost")), capture.clone());
    let place = Place::default();
    let echoing = move |_: &Incoming| {
        Some(Tls::server(&config, Secure { place: Arc::clone(&place), listener: None }))
    };
    let receive = AcceptProxy::trusting(|_| true).factory(echoing);
    let factory = move |incoming: &Incoming| Some(Tapped(made.clone(), receive(incoming)?));
    let listener = sim.listen("127.0.0.1:0", factory).unwrap();
    let addr = sim.addresses(listener)[0];
    let client = ClientConfig::new(&authority.roots());
    let told = crate::kit::Told::default();
    let end =
        crate::kit::End { told: told.clone(), says: b"one".into(), echoes: false, listener: None };
    let client = Tls::client(&client, "localhost", end).unwrap();
    sim.connect(addr, SendProxy::new(&header, Version::V1, client));
    sim.run_for(Duration::from_secs(30)).unwrap();
    assert_eq!(told.bytes(), b"one");
    let (received, sent) = follow(&read(&capture.bytes()).packets);
    assert!(received.starts_with(HEADER) && received.ends_with(b"one"), "{received:?}");
    assert_eq!(sent, b"one");
}
