//! The exchange alone, and what follows it.

use std::time::Duration;

use lariat::auth::{AuthError, AuthSession, Challenge, ClientToken, Nonces, Sealed, ServerTokens};
use lariat::sim::{Probe, Sim, every_split};
use lariat::{By, CloseKind, Context, Deadline, Incoming, Input, Outcome, Protocol};

use crate::kit::{End, Heard, NAME, error_of, everywhere, pair, reason_of, token};

fn server(
    tokens: &ServerTokens,
    heard: &Heard,
    incoming: Option<&Incoming>,
) -> impl Protocol + use<> {
    let (heard, listener) = (heard.clone(), incoming.map(Incoming::listener));
    Challenge::server(tokens, move |session: AuthSession| {
        heard.set_name(session.client_name());
        End::server(&heard, listener)
    })
}

fn client(token: &ClientToken, heard: &Heard, says: &'static [u8]) -> impl Protocol + Send + use<> {
    let heard = heard.clone();
    Challenge::client(token, move |session: AuthSession| {
        heard.set_name(session.client_name());
        End::client(&heard, says)
    })
}

#[test]
fn the_next_protocol_takes_over_once_both_ends_have_proved() {
    everywhere(|driver| {
        let tokens = ServerTokens::new();
        tokens.add(NAME, token(1)).unwrap();
        let mine = ClientToken::new(NAME, token(1)).unwrap();
        let (served, answered) = (Heard::default(), Heard::default());
        let heard = served.clone();
        let factory = move |incoming: &Incoming| {
            let (heard, listener) = (heard.clone(), incoming.listener());
            Some(Challenge::server(&tokens, move |session: AuthSession| {
                heard.set_name(session.client_name());
                End::server(&heard, Some(listener))
            }))
        };
        let listener = driver.control().listen("127.0.0.1:0", factory).unwrap();
        let addr = driver.addresses(listener)[0];
        driver.control().connect(addr, client(&mine, &answered, b"some words"));
        driver.run().unwrap();
        for heard in [served, answered] {
            assert_eq!(heard.name().as_deref(), Some(NAME));
            assert_eq!(heard.bytes(), b"some words", "{}", heard.reason());
            assert_eq!(heard.reason().kind(), CloseKind::Finished, "{}", heard.reason());
        }
    });
}

/// What a client sends that passes, with `says` behind.
fn recorded(says: &'static [u8]) -> (Vec<u8>, Vec<u8>) {
    let (tokens, mine) = pair();
    let heard = Heard::default();
    let mut ends =
        (Probe::new(client(&mine, &heard, says)), Probe::new(server(&tokens, &heard, None)));
    let (mut out, mut back) = (Vec::new(), Vec::new());
    loop {
        let (one, other) = (ends.0.sent(), ends.1.sent());
        if one.is_empty() && other.is_empty() {
            return (out, back);
        }
        ends.1.receive(&one);
        ends.0.receive(&other);
        out.extend_from_slice(&one);
        back.extend_from_slice(&other);
    }
}

#[test]
fn what_follows_the_proof_at_once_reaches_the_next_protocol() {
    let (out, back) = recorded(b"and more");
    assert!(out.ends_with(b"and more") && back.ends_with(b"and more"));
    every_split(
        || {
            let (tokens, _) = pair();
            server(&tokens, &Heard::default(), None)
        },
        &out,
    );
}

#[test]
fn every_byte_of_the_exchange_is_refused_if_it_was_changed() {
    let (out, back) = recorded(b"");
    for at in 0..out.len() {
        let (tokens, _) = pair();
        let heard = Heard::default();
        let mut probe = Probe::new(server(&tokens, &heard, None));
        let mut changed = out.clone();
        changed[at] ^= 1;
        // A name that has grown by one byte takes one of the proof.
        changed.push(0);
        probe.receive(&changed);
        let reason = probe.closed().unwrap_or_else(|| panic!("byte {at} passed"));
        assert_eq!((reason.kind(), reason.by()), (CloseKind::Protocol, By::Us));
        let _ = error_of(&reason);
        assert_eq!(heard.name(), None);
    }
    for at in 0..back.len() {
        let (_, mine) = pair();
        let heard = Heard::default();
        let mut probe = Probe::new(client(&mine, &heard, b""));
        let mut changed = back.clone();
        changed[at] ^= 1;
        probe.receive(&changed);
        let reason = probe.closed().unwrap_or_else(|| panic!("byte {at} passed"));
        let _ = error_of(&reason);
        assert_eq!(heard.name(), None);
    }
}

#[test]
fn a_silent_peer_is_cut_at_the_handshake_deadline_and_not_before() {
    let (tokens, _) = pair();
    let mut probe = Probe::new(server(&tokens, &Heard::default(), None));
    probe.receive(b"LARIAT");
    probe.advance(Duration::from_millis(9_990));
    assert!(probe.closed().is_none());
    probe.advance(Duration::from_millis(20));
    let reason = probe.closed().unwrap();
    assert_eq!(reason.kind(), CloseKind::TimedOut(Deadline::Handshake));
    assert_eq!((reason.by(), error_of(&reason)), (By::Runtime, AuthError::Late));
}

#[test]
fn a_peer_that_says_a_byte_now_and_then_has_no_more_time() {
    let (tokens, mine) = pair();
    let heard = Heard::default();
    let hello = |role: u8, form: u8| [&b"LARIAT\x00\x01"[..], &[role, form], &[7; 32]].concat();
    let ends = [
        (Probe::new(server(&tokens, &heard, None)), hello(b'C', b'c')),
        (Probe::new(client(&mine, &heard, b"x")), hello(b'S', b'c')),
        (Probe::new(Sealed::server(&tokens, Quiet)), hello(b'C', b's')),
        (Probe::new(Sealed::client(&mine, Quiet)), hello(b'S', b's')),
    ];
    for (mut probe, hello) in ends {
        for byte in &hello[..19] {
            assert!(probe.closed().is_none());
            probe.receive(&[*byte]);
            probe.advance(Duration::from_millis(520));
        }
        // 9.88 s have passed.
        assert!(probe.closed().is_none());
        probe.receive(&hello[19..20]);
        probe.advance(Duration::from_millis(130));
        assert_eq!(probe.closed().unwrap().kind(), CloseKind::TimedOut(Deadline::Handshake));
    }
}

#[test]
fn the_deadline_is_that_of_the_connections_limits_and_ends_with_the_exchange() {
    let mut sim = Sim::new(1);
    let mut options = lariat::ListenOptions::default();
    options.limits.handshake = Duration::from_secs(2);
    let (tokens, mine) = pair();
    let served = Heard::default();
    let heard = served.clone();
    let factory = move |_: &Incoming| Some(server(&tokens, &heard, None));
    let listener = sim.listen_with("127.0.0.1:1", options, factory).unwrap();
    let addr = sim.addresses(listener)[0];
    let silent = sim.dial(addr);
    sim.run_for(Duration::from_millis(2_500)).unwrap();
    assert!(silent.is_finished());
    let quiet = Challenge::client(&mine, |_| Quiet);
    sim.connect(addr, quiet);
    sim.run_for(Duration::from_secs(60)).unwrap();
    assert_eq!(served.name().as_deref(), Some(NAME));
    assert_eq!(sim.metrics().open, 2, "both ends are still there");
}

struct Quiet;

impl Protocol for Quiet {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
}

#[test]
fn a_peer_that_finishes_first_is_no_peer() {
    let (out, _) = recorded(b"");
    for cut in 0..out.len() {
        let (tokens, _) = pair();
        let heard = Heard::default();
        let mut probe = Probe::new(server(&tokens, &heard, None));
        probe.receive(&out[..cut]);
        probe.finish();
        assert_eq!(error_of(&probe.closed().unwrap()), AuthError::Unfinished, "at {cut}");
        assert_eq!(heard.name(), None);
    }
}

#[test]
fn a_proof_for_one_connection_is_none_for_the_next() {
    let (out, _) = recorded(b"");
    let (tokens, _) = pair();
    let heard = Heard::default();
    for (round, passes) in [(0, true), (1, false)] {
        let mut probe = Probe::new(server(&tokens, &heard, None));
        probe.receive(&out);
        assert_eq!(probe.closed().is_none(), passes, "round {round}");
    }
}

#[test]
fn one_end_that_seals_and_one_that_does_not_refuse_one_another() {
    let (tokens, mine) = pair();
    let mut server = Probe::new(server(&tokens, &Heard::default(), None));
    let sealed = Sealed::client(&mine, End::client(&Heard::default(), b""));
    let mut client = Probe::new(sealed);
    server.receive(&client.sent());
    client.receive(&server.sent());
    for mut probe in [server, client] {
        assert_eq!(error_of(&reason_of(&mut probe)), AuthError::WrongForm);
    }
}

#[test]
fn nonces_of_the_system_are_the_default() {
    let tokens = ServerTokens::new();
    let hello = || Probe::new(server(&tokens, &Heard::default(), None)).sent();
    assert_ne!(hello(), hello());
    let tokens = tokens.with_nonces(Nonces::seeded(1));
    let seeded = || {
        let tokens = tokens.clone().with_nonces(Nonces::seeded(1));
        Probe::new(server(&tokens, &Heard::default(), None)).sent()
    };
    assert_eq!(seeded(), seeded());
}
