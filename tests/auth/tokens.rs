//! Tokens and sessions of every length: no two of them stand for one another.

use lariat::auth::{AuthError, ClientToken, Nonces, Role, ServerTokens, Token};

use crate::kit::{Between, NAME, error_of, reason_of};

fn between(server: &[u8], client: &[u8]) -> Between {
    let tokens = ServerTokens::new().with_nonces(Nonces::seeded(1));
    tokens.add(NAME, Token::new(server).unwrap()).unwrap();
    let client = ClientToken::new(NAME, Token::new(client).unwrap()).unwrap();
    Between::of(&tokens, &client.with_nonces(Nonces::seeded(2)), b"x")
}

#[test]
fn a_token_of_every_length_from_16_bytes_on_passes_and_its_neighbours_do_not() {
    for length in 0..16 {
        assert_eq!(Token::new(vec![7; length]).unwrap_err(), AuthError::WeakToken, "{length}");
    }
    for length in (16..=130).chain([1_000, 100_000]) {
        let token: Vec<u8> = (0..length).map(|at| at as u8).collect();
        let mut same = between(&token, &token);
        same.pass(|_, bytes| bytes);
        assert_eq!(same.answered.bytes(), b"x", "{length} bytes");
        let mut changed = token.clone();
        *changed.last_mut().unwrap() ^= 1;
        let longer = [&token[..], &[0]].concat();
        let doubled = [&token[..], &token[..]].concat();
        for other in [changed, longer, doubled] {
            for (server, client) in [(&token, &other), (&other, &token)] {
                let mut ends = between(server, client);
                ends.pass(|_, bytes| bytes);
                let error = error_of(&reason_of(&mut ends.server));
                assert_eq!(error, AuthError::WrongToken, "{length} bytes");
                assert_eq!((ends.served.name(), ends.answered.name()), (None, None));
            }
        }
    }
}

#[test]
fn datagrams_of_one_session_are_none_of_another_however_alike_they_are() {
    let token = Token::new([1; 32]).unwrap();
    let long = [7; 200];
    let mut sessions: Vec<Vec<u8>> = Vec::new();
    // With zeros behind it, which HMAC fills a short key up with, and a dot.
    for base in [&b""[..], b"1", b"1.", &long[..32], &long[..33], &long[..34], &long[..64], &long] {
        for tail in [&b""[..], b"\0", b"\0\0", b".", b".\0"] {
            let session = [base, tail].concat();
            if !sessions.contains(&session) {
                sessions.push(session);
            }
        }
    }
    assert!(sessions.len() > 30);
    for one in &sessions {
        let mut datagram = Vec::new();
        token.datagrams(Role::Client, one).0.seal(b"pay 100", &mut datagram).unwrap();
        for other in &sessions {
            let opened = token.datagrams(Role::Server, other).1.open(&datagram).map(drop);
            let expected = if one == other { Ok(()) } else { Err(AuthError::Changed) };
            assert_eq!(opened, expected, "{} and {}", one.escape_ascii(), other.escape_ascii());
        }
    }
}
