//! What a peer sends behind our close_notify: TLS 1.3 lets it go on, and nothing that it sends may
//! panic the server.

use std::io::Write;
use std::time::Duration;

use lariat::sim::Sim;
use lariat::tls::{ServerConfig, Tls};
use lariat::{By, CloseKind, Context, FilterFailure, Incoming, Input, Outcome, Protocol};

use crate::certs::Authority;
use crate::kit::Told;

/// Says that it has no more to say as soon as it opens, and listens.
struct Finished(Told);

impl Protocol for Finished {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.shutdown_write();
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.0.with(|seen| seen.bytes.extend_from_slice(input));
        input.consume_all();
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_>, reason: &lariat::CloseReason) {
        self.0.with(|seen| seen.reason = Some(reason.clone()));
    }
}

/// A server that has finished, and a client by hand: what the server heard when `change` has been
/// at the record of the client's message.
fn message_behind_the_end(change: impl FnOnce(&mut Vec<u8>)) -> (Told, lariat::Metrics) {
    let authority = Authority::new();
    let config = ServerConfig::new(authority.issue("localhost"));
    let (mut sim, told) = (Sim::new(1), Told::default());
    let kept = told.clone();
    let factory = move |_: &Incoming| Some(Tls::server(&config, Finished(kept.clone())));
    let listener = sim.listen("127.0.0.1:1", factory).unwrap();
    let socket = sim.dial(sim.addresses(listener)[0]);
    let mut client = authority.session_by_hand("localhost");
    for _ in 0..4 {
        let mut out = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut out).unwrap();
        }
        socket.send(&out);
        sim.run_for(Duration::from_millis(1)).unwrap();
        let bytes = socket.take_received();
        let mut bytes = &bytes[..];
        while !bytes.is_empty() && client.read_tls(&mut bytes).unwrap() > 0 {
            client.process_new_packets().unwrap();
        }
    }
    assert!(!client.is_handshaking());
    client.writer().write_all(b"a message").unwrap();
    let mut out = Vec::new();
    client.write_tls(&mut out).unwrap();
    change(&mut out);
    socket.send(&out);
    sim.run_for(Duration::from_secs(20)).unwrap();
    (told, sim.metrics())
}

#[test]
fn a_peer_goes_on_behind_our_end() {
    let (told, _) = message_behind_the_end(|_| {});
    assert_eq!(told.bytes(), b"a message");
    assert!(told.with(|seen| seen.reason.is_none()), "it may go on for as long as it likes");
}

#[test]
fn a_bad_record_behind_our_end_fails_the_session_and_panics_nothing() {
    // rustls says of each of these that an alert has to follow.
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 4] = [
        ("a wrong byte", |out| *out.last_mut().unwrap() ^= 1),
        ("no record at all", |out| out.splice(.., *b"GET / HTTP/1.1\r\n\r\n").for_each(drop)),
        ("too long a record", |out| out[3] = 0xFF),
        ("an alert without a level", |out| out.splice(.., [21, 3, 3, 0, 2, 9, 9]).for_each(drop)),
    ];
    for (told_as, change) in changes {
        let (told, metrics) = message_behind_the_end(change);
        let reason = told.reason();
        assert_eq!(reason.kind(), CloseKind::Filter(FilterFailure::Failed), "{told_as}: {reason}");
        assert_eq!(reason.by(), By::Peer, "{told_as}");
        assert!(told.bytes().is_empty(), "{told_as}");
        assert_eq!(metrics.panics, 0, "{told_as}");
        assert!(!told.error().is_empty());
    }
}
