//! Peers that are not ours, on every driver: silent ones, hasty ones, mirrors, and one that changes
//! a bit.

use std::time::Duration;

use lariat::auth::{AuthError, AuthSession, Challenge, ClientToken, Nonces, Sealed, ServerTokens};
use lariat::proxy_protocol::AcceptProxy;
use lariat::sim::Probe;
use lariat::{
    By, CloseKind, Deadline, Driver, Endpoint, FilterFailure, Incoming, ListenOptions, Protocol,
};

use crate::kit::{
    Between, End, Heard, NAME, Raw, Watched, error_of, everywhere, pair, reason_of, recorded, token,
};

const PROOF: usize = 32;

fn challenge_server(tokens: &ServerTokens, heard: &Heard) -> impl Protocol + Send + use<> {
    let heard = heard.clone();
    Challenge::server(tokens, move |session: AuthSession| {
        heard.set_name(session.client_name());
        End::server(&heard, None)
    })
}

fn challenge_client(
    token: &ClientToken,
    heard: &Heard,
    says: &'static [u8],
) -> impl Protocol + Send + use<> {
    let heard = heard.clone();
    Challenge::client(token, move |session: AuthSession| {
        heard.set_name(session.client_name());
        End::client(&heard, says)
    })
}

/// Listens with what `make` makes for one connection, within `handshake`.
fn serve<P: Protocol + Send + 'static>(
    driver: &mut dyn Driver,
    handshake: Duration,
    watched: &Heard,
    make: impl Fn() -> P + Send + Sync + 'static,
) -> Endpoint {
    let mut options = ListenOptions::default();
    options.limits.handshake = handshake;
    let watched = watched.clone();
    let factory = move |incoming: &Incoming| {
        let (heard, listener) = (watched.clone(), Some(incoming.listener()));
        Some(Watched { inner: make(), heard, listener })
    };
    let listener = driver.control().listen_with("127.0.0.1:0", options, factory).unwrap();
    driver.addresses(listener)[0]
}

#[test]
fn a_peer_that_says_nothing_or_too_little_is_cut_at_the_deadline_on_every_driver() {
    let soon = Duration::from_millis(200);
    for says in [&b""[..], b"LARIAT\x00\x01C"] {
        everywhere(|driver| {
            let (watched, peer) = (Heard::default(), Heard::default());
            let addr = serve(driver, soon, &watched, || {
                Sealed::server(&ServerTokens::new(), End::server(&Heard::default(), None))
            });
            driver.control().connect(addr, Raw::new(&peer, says));
            driver.run().unwrap();
            let reason = watched.reason();
            assert_eq!(reason.kind(), CloseKind::TimedOut(Deadline::Handshake), "{reason}");
            assert!(reason.age() >= soon, "{reason}");
            assert_eq!(peer.bytes().len(), 43, "a hello, and nothing else");
            let metrics = driver.metrics();
            assert_eq!((metrics.handshakes, metrics.failed_handshakes), (0, 1));
        });
        everywhere(|driver| {
            let (watched, peer) = (Heard::default(), Heard::default());
            let addr = serve(driver, soon, &watched, || {
                challenge_server(&ServerTokens::new(), &Heard::default())
            });
            driver.control().connect(addr, Raw::new(&peer, says));
            driver.run().unwrap();
            let reason = watched.reason();
            assert_eq!(reason.kind(), CloseKind::TimedOut(Deadline::Handshake), "{reason}");
            assert!(reason.age() >= soon, "{reason}");
            assert_eq!((reason.by(), error_of(&reason)), (By::Runtime, AuthError::Late));
            assert_eq!(peer.bytes().len(), 43, "a hello, and nothing else");
        });
    }
}

/// A byte now and then does not put the deadline off.
#[test]
fn a_peer_that_sends_a_byte_a_second_has_no_more_time() {
    let (out, _) = recorded(b"");
    let mut sealed = Between::new(b"").server;
    let (tokens, _) = pair();
    let challenge = challenge_server(&tokens, &Heard::default());
    assert_eq!(challenge.name(), "the challenge of a token");
    let mut challenge = Probe::new(challenge);
    let (mut one, mut other) = (0, 0);
    for byte in &out[..40] {
        one += u32::from(sealed.closed().is_none());
        other += u32::from(challenge.closed().is_none());
        // The form of a challenge is another one.
        let clear = if *byte == b's' { b'c' } else { *byte };
        sealed.receive(&[*byte]);
        challenge.receive(&[clear]);
        // Deadlines are counted in whole milliseconds, rounded up.
        sealed.advance(Duration::from_millis(1_001));
        challenge.advance(Duration::from_millis(1_001));
    }
    assert_eq!((one, other), (10, 10));
}

/// All that a client says, in one piece, before it has heard anything.
#[test]
fn what_comes_in_one_piece_with_the_proof_is_taken_on_every_driver() {
    let (out, back) = recorded(b"some words");
    everywhere(|driver| {
        let (watched, inner, peer) = (Heard::default(), Heard::default(), Heard::default());
        let served = inner.clone();
        let addr = serve(driver, Duration::from_secs(10), &watched, move || {
            let (tokens, _) = pair();
            Sealed::server(&tokens, End::server(&served, None))
        });
        driver.control().connect(addr, Raw::new(&peer, &out));
        driver.run().unwrap();
        assert_eq!(watched.reason().kind(), CloseKind::Finished, "{}", watched.reason());
        assert_eq!(inner.name().as_deref(), Some(NAME));
        assert_eq!((inner.bytes(), inner.has_finished()), (b"some words".to_vec(), true));
        // Its hello, its proof and the last frame; what is between may be cut into other frames.
        let answer = peer.bytes();
        assert_eq!(answer[..43 + PROOF], back[..43 + PROOF]);
        assert!(answer.len() >= back.len());
    });
}

/// Behind a balancer: its header, the hello, the proof and a frame in one piece.
#[test]
fn a_header_of_a_balancer_may_come_in_one_piece_with_the_exchange() {
    let (out, back) = recorded(b"some words");
    let without_the_last = &out[..out.len() - 43];
    let header = b"PROXY TCP4 203.0.113.9 192.0.2.1 40312 443\r\n";
    let says = [&header[..], without_the_last].concat();
    everywhere(|driver| {
        let (watched, inner, peer) = (Heard::default(), Heard::default(), Heard::default());
        let (served, ends) = (inner.clone(), watched.clone());
        let factory = AcceptProxy::trusting(|_| true).factory(move |incoming: &Incoming| {
            assert_eq!(incoming.peer().to_string(), "203.0.113.9:40312");
            let (tokens, _) = pair();
            let inner = Sealed::server(&tokens, End::server(&served, None));
            let (heard, listener) = (ends.clone(), Some(incoming.listener()));
            Some(Watched { inner, heard, listener })
        });
        let listener = driver.control().listen("127.0.0.1:0", factory).unwrap();
        let addr = driver.addresses(listener)[0];
        // It leaves when it has the echo, without a last frame.
        driver.control().connect(addr, Raw { until: back.len() - 43, ..Raw::new(&peer, &says) });
        driver.run().unwrap();
        let kind = watched.reason().kind();
        assert_eq!(kind, CloseKind::Filter(FilterFailure::Truncated), "{}", watched.reason());
        assert_eq!((inner.name().as_deref(), inner.bytes()), (Some(NAME), b"some words".to_vec()));
        assert!(!inner.has_finished());
    });
}

#[test]
fn a_proof_with_one_bit_changed_passes_at_neither_end_in_neither_form() {
    let proof_of_client = 43 + NAME.len();
    for bit in 0..8 * PROOF {
        let (byte, mask) = (bit / 8, 1 << (bit % 8));
        for client in [true, false] {
            let mut between = Between::new(b"words");
            let at = byte + if client { proof_of_client } else { 43 };
            let mut passed = 0;
            between.pass(|from_client, mut bytes| {
                if from_client == client {
                    if (passed..passed + bytes.len()).contains(&at) {
                        bytes[at - passed] ^= mask;
                    }
                    passed += bytes.len();
                }
                bytes
            });
            let (refusing, heard) = match client {
                true => (&mut between.server, &between.served),
                false => (&mut between.client, &between.answered),
            };
            assert_eq!(error_of(&reason_of(refusing)), AuthError::WrongToken, "bit {bit}");
            assert_eq!((heard.name(), heard.bytes()), (None, Vec::new()));

            let heard = Heard::default();
            let (tokens, mine) = pair();
            let mut ends = (
                Probe::new(challenge_client(&mine, &Heard::default(), b"")),
                Probe::new(challenge_server(&tokens, &Heard::default())),
            );
            let hellos = (ends.0.sent().to_vec(), ends.1.sent().to_vec());
            ends.0.receive(&hellos.1);
            ends.1.receive(&hellos.0);
            let mut proof = ends.0.sent().to_vec();
            assert_eq!(proof.len(), PROOF);
            let mut refusing = ends.1;
            if !client {
                refusing.receive(&proof);
                proof = refusing.sent().to_vec();
                assert_eq!(proof.len(), PROOF);
                refusing = ends.0;
            }
            proof[byte] ^= mask;
            refusing.receive(&proof);
            assert_eq!(error_of(&reason_of(&mut refusing)), AuthError::WrongToken, "bit {bit}");
            assert_eq!((refusing.sent().len(), heard.name()), (0, None));
        }
    }
}

/// A mirror: it sends an end's own bytes back, as they are, or with the role of the other.
#[test]
fn a_challenge_refuses_its_own_bytes_sent_back() {
    let (tokens, mine) = pair();
    let client = || Probe::new(challenge_client(&mine, &Heard::default(), b""));
    let server = || Probe::new(challenge_server(&tokens, &Heard::default()));
    for mut end in [client(), server()] {
        let hello = end.sent().to_vec();
        end.receive(&hello);
        assert_eq!(error_of(&reason_of(&mut end)), AuthError::WrongRole);
    }
    let mut end = client();
    let mut hello = end.sent()[..43].to_vec();
    (hello[8], hello[42]) = (b'S', 0);
    end.receive(&hello);
    let proof = end.sent().to_vec();
    end.receive(&proof);
    assert_eq!(error_of(&reason_of(&mut end)), AuthError::WrongToken);
    // The server speaks second, so that there is no proof of it to send back.
    let mut end = server();
    let mut hello = end.sent().to_vec();
    (hello[8], hello[42]) = (b'C', NAME.len() as u8);
    hello.extend_from_slice(NAME.as_bytes());
    end.receive(&hello);
    assert_eq!(end.sent().len(), 0);
    end.receive(&[0; PROOF]);
    assert_eq!(error_of(&reason_of(&mut end)), AuthError::WrongToken);
}

/// Two clients of one token that are connected to each other, with the roles changed on the way.
#[test]
fn two_clients_do_not_take_one_another_for_the_server() {
    let mine = |seed| {
        let client = ClientToken::new(NAME, token(1)).unwrap();
        client.with_nonces(Nonces::seeded(seed))
    };
    let client = |seed| Probe::new(challenge_client(&mine(seed), &Heard::default(), b""));
    let mut ends = [client(1), client(2)];
    let hellos = [0, 1].map(|end| ends[end].sent().to_vec());
    for end in [0, 1] {
        let mut hello = hellos[1 - end][..43].to_vec();
        (hello[8], hello[42]) = (b'S', 0);
        ends[end].receive(&hello);
    }
    let proofs = [0, 1].map(|end| ends[end].sent().to_vec());
    for end in [0, 1] {
        assert_eq!(proofs[end].len(), PROOF);
        ends[end].receive(&proofs[1 - end]);
        assert_eq!(error_of(&reason_of(&mut ends[end])), AuthError::WrongToken);
    }
}

/// What is written to a challenge by its id gets among its bytes, and then it fails.
#[test]
fn what_others_write_before_the_end_of_a_challenge_makes_it_fail() {
    let (tokens, mine) = pair();
    let mut sim = lariat::sim::Sim::new(1);
    let (watched, heard) = (Heard::default(), Heard::default());
    let addr = serve(&mut sim, Duration::from_secs(10), &watched, {
        let (tokens, heard) = (tokens.clone(), heard.clone());
        move || challenge_server(&tokens, &heard)
    });
    let id = sim.connect(addr, challenge_client(&mine, &Heard::default(), b"words"));
    sim.control().peer(id).write(b"too early");
    sim.run().unwrap();
    assert_eq!(error_of(&watched.reason()), AuthError::NotSpoken);
    assert_eq!((heard.name(), heard.bytes()), (None, Vec::new()));
    // Under `Sealed` it waits, and is sealed.
    let mut sim = lariat::sim::Sim::new(1);
    let (watched, heard) = (Heard::default(), Heard::default());
    let addr = serve(&mut sim, Duration::from_secs(10), &watched, {
        let (tokens, heard) = (tokens.clone(), heard.clone());
        move || Sealed::server(&tokens, End::server(&heard, None))
    });
    let id = sim.connect(addr, Sealed::client(&mine, End::client(&Heard::default(), b", words")));
    sim.control().peer(id).write(b"early");
    sim.run().unwrap();
    assert_eq!(heard.bytes(), b"early, words");
    assert_eq!(watched.reason().kind(), CloseKind::Finished);
}

/// A frame that is cut is no frame, wherever that is, and also behind others that were whole.
#[test]
fn a_sealed_stream_that_is_cut_at_any_byte_is_truncated_on_the_last_whole_frame() {
    let (out, _) = recorded(b"some words");
    let first = 43 + NAME.len() + PROOF;
    let last = out.len() - 43;
    for cut in first..=out.len() {
        let mut between = Between::new(b"");
        between.server.receive(&out[..cut]);
        between.server.finish();
        let kind = reason_of(&mut between.server).kind();
        let expected = match cut == out.len() {
            true => CloseKind::Finished,
            false => CloseKind::Filter(FilterFailure::Truncated),
        };
        assert_eq!(kind, expected, "at {cut}");
        let shown: &[u8] = if cut >= last { b"some words" } else { b"" };
        assert_eq!(between.served.bytes(), shown, "at {cut}");
        assert_eq!(between.served.has_finished(), cut == out.len(), "at {cut}");
    }
}

/// Header, exchange, frame and last frame in one piece, with FIN behind it and without: a stream
/// that is whole is no cut.
#[test]
fn a_whole_stream_that_came_before_its_filter_is_not_truncated() {
    let (out, back) = recorded(b"some words");
    let says = [&b"PROXY TCP4 203.0.113.9 192.0.2.1 40312 443\r\n"[..], &out].concat();
    for fin in [false, true] {
        let (watched, inner) = (Heard::default(), Heard::default());
        let (served, ends) = (inner.clone(), watched.clone());
        let mut sim = lariat::sim::Sim::new(1);
        let factory = AcceptProxy::trusting(|_| true).factory(move |incoming: &Incoming| {
            let (tokens, _) = pair();
            let inner = Sealed::server(&tokens, End::server(&served, None));
            let (heard, listener) = (ends.clone(), Some(incoming.listener()));
            Some(Watched { inner, heard, listener })
        });
        let listener = sim.listen("127.0.0.1:1", factory).unwrap();
        let socket = sim.dial(sim.addresses(listener)[0]);
        socket.send(&says);
        if fin {
            socket.finish();
        }
        sim.run_for(Duration::from_secs(20)).unwrap();
        assert_eq!(socket.take_received(), back);
        assert_eq!((inner.bytes(), inner.has_finished()), (b"some words".to_vec(), true));
        assert_eq!(watched.reason().kind(), CloseKind::Finished, "{}", watched.reason());
    }
}
