//! One who sits between the two ends, and has everything but the token.

use lariat::auth::AuthError;
use lariat::sim::Probe;
use lariat::{CloseKind, FilterFailure};

use crate::kit::{Between, NAME, error_of, reason_of, recorded};

const HELLO: usize = 43;
const PROOF: usize = 32;
const OVERHEAD: usize = 43;

fn error(probe: &mut Probe) -> AuthError {
    error_of(&reason_of(probe))
}

/// Where the pieces of the client's bytes begin: its hello, its proof, its first frame, the last.
fn places(says: &[u8]) -> [usize; 4] {
    let proof = HELLO + NAME.len();
    let first = proof + PROOF;
    [0, proof, first, first + OVERHEAD + says.len()]
}

#[test]
fn every_byte_that_the_client_sends_is_refused_if_it_was_changed() {
    let says = b"some words";
    let (out, _) = recorded(says);
    let [_, _, first, last] = places(says);
    assert_eq!(out.len(), last + OVERHEAD);
    for at in 0..out.len() {
        let mut between = Between::new(says);
        let mut passed = 0;
        between.pass(|from_client, mut bytes| {
            if from_client {
                if (passed..passed + bytes.len()).contains(&at) {
                    bytes[at - passed] ^= 1;
                }
                passed += bytes.len();
            }
            bytes
        });
        // A length that has grown: more has to come until the server can tell.
        between.server.receive(&[0; 20_000]);
        let reason = reason_of(&mut between.server);
        assert_eq!(reason.kind(), CloseKind::Filter(FilterFailure::Failed), "byte {at}");
        let _ = error_of(&reason);
        // Nothing of the changed frame is shown.
        let shown = between.served.bytes();
        assert!(shown.is_empty() || (at >= last && shown == says), "byte {at}");
        assert_eq!(between.served.name().is_some(), at >= first, "byte {at}");
    }
}

#[test]
fn every_byte_that_the_server_sends_is_refused_if_it_was_changed() {
    let says = b"some words";
    let (_, back) = recorded(says);
    for at in 0..back.len() {
        let mut between = Between::new(says);
        let mut passed = 0;
        between.pass(|from_client, mut bytes| {
            if !from_client {
                if (passed..passed + bytes.len()).contains(&at) {
                    bytes[at - passed] ^= 0x80;
                }
                passed += bytes.len();
            }
            bytes
        });
        between.client.receive(&[0; 40_000]);
        // A nonce that was changed is noticed by the server, everything else by the client.
        let refused = [&mut between.client, &mut between.server]
            .into_iter()
            .any(|probe| reason_of(probe).kind() == CloseKind::Filter(FilterFailure::Failed));
        assert!(refused, "byte {at} passed");
        assert!(!between.answered.has_finished() || at >= back.len() - OVERHEAD, "byte {at}");
    }
}

#[test]
fn a_recorded_connection_is_refused_by_the_same_server_later() {
    let (out, _) = recorded(b"pay 100");
    let [_, proof, first, _] = places(b"pay 100");
    let mut between = Between::new(b"");
    // The server has drawn a nonce before: the next one is another.
    between.server = Probe::new({
        let (server, _) = crate::kit::pair();
        let once = lariat::auth::Sealed::server(&server, Quiet);
        drop(Probe::new(once));
        lariat::auth::Sealed::server(&server, Quiet)
    });
    between.server.receive(&out[..proof]);
    assert!(between.server.closed().is_none());
    between.server.receive(&out[proof..first]);
    assert_eq!(error(&mut between.server), AuthError::WrongToken);
    assert_eq!(between.server.sent().len(), HELLO, "a hello and no proof");
}

struct Quiet;

impl lariat::Protocol for Quiet {
    fn data(
        &mut self,
        _: &mut lariat::Context<'_>,
        input: &mut lariat::Input<'_>,
    ) -> lariat::Outcome {
        input.consume_all();
        Ok(())
    }
}

/// The client's frames of `words`, one each, after an exchange that has passed.
fn frames_after_exchange(words: &[&[u8]]) -> (Between, Vec<Vec<u8>>) {
    let says = words.concat();
    let mut between = Between::new(b"");
    let mut keep = Vec::new();
    // Everything but the client's last frame is handed over.
    between.pass(|from_client, mut bytes| {
        if from_client && bytes.len() >= OVERHEAD && bytes[0] == b'e' {
            keep.push(std::mem::take(&mut bytes));
        }
        bytes
    });
    assert!(between.served.name().is_some());
    // The frames come of another connection with the same nonces, so of the same keys.
    let mut other = Between::new(&says);
    let mut all = Vec::new();
    other.pass(|from_client, bytes| {
        if from_client {
            all.extend_from_slice(&bytes);
        }
        bytes
    });
    let [_, _, first, last] = places(&says);
    (between, vec![all[first..last].to_vec(), all[last..].to_vec()])
}

#[test]
fn a_frame_that_comes_twice_is_refused() {
    let (mut between, frames) = frames_after_exchange(&[b"pay 100"]);
    between.server.receive(&frames[0]);
    assert_eq!(between.served.bytes(), b"pay 100");
    between.server.receive(&frames[0]);
    assert_eq!(error(&mut between.server), AuthError::WrongOrder { expected: 1, found: 0 });
    assert_eq!(between.served.bytes(), b"pay 100");
}

#[test]
fn a_frame_that_was_left_out_is_noticed_at_the_next_one() {
    let (mut between, frames) = frames_after_exchange(&[b"pay 100"]);
    between.server.receive(&frames[1]);
    assert_eq!(error(&mut between.server), AuthError::WrongOrder { expected: 0, found: 1 });
    assert!(!between.served.has_finished());
}

#[test]
fn a_stream_that_is_cut_between_frames_is_truncated() {
    let (mut between, frames) = frames_after_exchange(&[b"pay 100"]);
    between.server.receive(&frames[0]);
    between.server.finish();
    let reason = reason_of(&mut between.server);
    assert_eq!(reason.kind(), CloseKind::Filter(FilterFailure::Truncated));
    assert!(!between.served.has_finished());
}

#[test]
fn an_ends_own_bytes_sent_back_are_refused() {
    // As they are, the role gives them away.
    let mut between = Between::new(b"");
    let hello = between.client.sent();
    between.client.receive(&hello);
    assert_eq!(error(&mut between.client), AuthError::WrongRole);
    // With the role changed, the proof does: it was made with the key of the other role.
    let mut between = Between::new(b"");
    let mut hello = between.client.sent().to_vec();
    hello[8] = b'S';
    hello[HELLO - 1] = 0;
    between.client.receive(&hello[..HELLO]);
    let proof = between.client.sent();
    assert_eq!(proof.len(), PROOF);
    between.client.receive(&proof);
    assert_eq!(error(&mut between.client), AuthError::WrongToken);
    // And so with frames: each direction has its own key.
    let (mut between, frames) = frames_after_exchange(&[b"pay 100"]);
    let client = &mut between.client;
    client.receive(&frames[0]);
    assert_eq!(error(client), AuthError::Changed);
}

#[test]
fn one_who_speaks_something_else_is_refused_at_the_first_wrong_byte() {
    for (words, expected) in [
        (&b"GET / HTTP/1.1\r\n"[..], AuthError::NotSpoken),
        (b"LARIAX", AuthError::NotSpoken),
        (b"LARIAT\x00\x02", AuthError::NotSpoken),
        (b"LARIAT\x00\x01S", AuthError::WrongRole),
        (b"LARIAT\x00\x01Cc", AuthError::WrongForm),
        (b"LARIAT\x00\x01Cs01234567890123456789012345678901\x00", AuthError::InvalidName),
        (b"LARIAT\x00\x01Cs01234567890123456789012345678901\x41", AuthError::InvalidName),
        (b"LARIAT\x00\x01Cs01234567890123456789012345678901\x02\xFF\xFF", AuthError::InvalidName),
    ] {
        let mut between = Between::new(b"");
        between.server.receive(words);
        assert_eq!(error(&mut between.server), expected, "{}", words.escape_ascii());
        assert_eq!(between.server.sent().len(), HELLO, "a hello, which says nothing");
        let mut short = Between::new(b"");
        short.server.receive(&words[..words.len() - 1]);
        if expected != AuthError::NotSpoken || words[0] == b'L' {
            assert!(short.server.closed().is_none(), "{}", words.escape_ascii());
        }
    }
}

#[test]
fn bytes_that_precede_the_proof_are_never_shown() {
    let (out, _) = recorded(b"early");
    let [_, proof, first, _] = places(b"early");
    // The frames without the proof.
    let mut between = Between::new(b"");
    between.server.receive(&out[..proof]);
    between.server.receive(&out[first..]);
    assert_eq!(error(&mut between.server), AuthError::WrongToken);
    assert_eq!((between.served.bytes(), between.served.name()), (Vec::new(), None));
}

#[test]
fn a_connection_that_is_cut_in_the_exchange_is_truncated() {
    let (out, _) = recorded(b"");
    let [_, _, first, _] = places(b"");
    for cut in 0..first {
        let mut between = Between::new(b"");
        between.server.receive(&out[..cut]);
        between.server.finish();
        let kind = reason_of(&mut between.server).kind();
        assert_eq!(kind, CloseKind::Filter(FilterFailure::Truncated), "at {cut}");
        assert_eq!(between.served.name(), None);
    }
}

#[test]
fn a_server_has_no_name_and_a_client_that_says_a_role_of_its_own_is_none() {
    for (words, expected) in [
        (&b"LARIAT\x00\x01C"[..], AuthError::WrongRole),
        (b"LARIAT\x00\x01Sc", AuthError::WrongForm),
        (b"LARIAT\x00\x01Ss01234567890123456789012345678901\x01", AuthError::InvalidName),
        (b"LARIAT\x00\x01Ss01234567890123456789012345678901\x40", AuthError::InvalidName),
    ] {
        let mut between = Between::new(b"");
        between.client.receive(words);
        assert_eq!(error(&mut between.client), expected, "{}", words.escape_ascii());
    }
}
