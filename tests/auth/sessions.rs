//! Sealed connections between two ends that have the token.

use std::time::Duration;

use lariat::auth::{
    AuthError, AuthSession, ClientToken, Nonces, Role, Sealed, ServerTokens, Token,
};
use lariat::sim::{Sim, Trace, every_split};
use lariat::{
    By, CloseKind, Context, Deadline, Driver, FilterFailure, Incoming, Input, Outcome, Protocol,
};

use crate::kit::{
    Between, End, Heard, NAME, error_of, everywhere, pair, reason_of, recorded, token,
};

fn much() -> Vec<u8> {
    (0..300_000).map(|at| (at % 251) as u8).collect()
}

/// One sealed connection on `driver`: what the server and the client heard.
fn session_on(
    driver: &mut dyn Driver,
    server: &ServerTokens,
    client: &ClientToken,
    says: &[u8],
) -> (Heard, Heard) {
    let (served, answered) = (Heard::default(), Heard::default());
    let (tokens, heard) = (server.clone(), served.clone());
    let factory = move |incoming: &Incoming| {
        Some(Sealed::server(&tokens, End::server(&heard, Some(incoming.listener()))))
    };
    let listener = driver.control().listen("127.0.0.1:0", factory).unwrap();
    let addr = driver.addresses(listener)[0];
    driver.control().connect(addr, Sealed::client(client, End::client(&answered, says)));
    driver.run().unwrap();
    (served, answered)
}

#[test]
fn both_ends_know_one_another_and_bytes_go_both_ways() {
    let server = ServerTokens::new();
    server.add(NAME, token(1)).unwrap();
    let client = ClientToken::new(NAME, token(1)).unwrap();
    everywhere(|driver| {
        let (served, answered) = session_on(driver, &server, &client, &much());
        assert!(served.bytes() == much() && answered.bytes() == much());
        for heard in [served, answered] {
            assert_eq!(heard.name().as_deref(), Some(NAME));
            assert!(heard.has_finished());
            assert_eq!(heard.reason().kind(), CloseKind::Finished, "{}", heard.reason());
        }
    });
}

#[test]
fn a_client_with_another_token_or_an_unknown_name_is_refused_in_the_same_words() {
    let server = ServerTokens::new();
    server.add(NAME, token(1)).unwrap();
    let wrong = ClientToken::new(NAME, token(2)).unwrap();
    let unknown = ClientToken::new("sensor 8", token(1)).unwrap();
    // The token that stands in for that of an unknown name opens nothing.
    let guessed = ClientToken::new("sensor 8", token(0)).unwrap();
    for client in [wrong, unknown, guessed] {
        everywhere(|driver| {
            let (served, answered) = session_on(driver, &server, &client, b"secret");
            refused(&served, &answered);
        });
    }
}

fn refused(served: &Heard, answered: &Heard) {
    assert_eq!(served.error(), AuthError::WrongToken);
    assert_eq!(served.reason().kind(), CloseKind::Filter(FilterFailure::Failed));
    assert_eq!(served.reason().by(), By::Peer);
    assert_eq!((served.name(), served.bytes()), (None, Vec::new()));
    // The server has said nothing that the client could try tokens against.
    assert_eq!(answered.name(), None);
    assert_eq!(answered.reason().kind(), CloseKind::Filter(FilterFailure::Truncated));
}

#[test]
fn a_server_without_the_token_is_refused_by_the_client() {
    // One who says yes to every client cannot prove it.
    let mut between = Between::new(b"x");
    let hello = between.client.sent();
    between.server.receive(&hello);
    between.client.receive(&between.server.sent());
    assert_eq!(between.client.sent().len(), 32);
    between.client.receive(&[0; 32]);
    assert_eq!(error_of(&reason_of(&mut between.client)), AuthError::WrongToken);
    assert_eq!(between.answered.name(), None);
}

#[test]
fn a_token_is_added_replaced_and_removed_while_the_server_runs() {
    let (server, client) = (ServerTokens::new(), ClientToken::new(NAME, token(1)).unwrap());
    let passes = || session_on(&mut Sim::new(1), &server, &client, b"x").0.name().is_some();
    assert!(!passes());
    server.clone().add(NAME, token(1)).unwrap();
    assert!(passes());
    server.add(NAME, token(2)).unwrap();
    assert!(!passes());
    server.add(NAME, token(1)).unwrap();
    assert!(passes());
    assert!(server.remove(NAME) && !server.remove(NAME));
    assert!(!passes());
}

#[test]
fn a_token_and_a_name_have_bounds() {
    assert_eq!(Token::new([1; 15]).unwrap_err(), AuthError::WeakToken);
    assert!(Token::new([1; 16]).is_ok() && Token::new([1; 1_000]).is_ok());
    let name = |length: usize| ClientToken::new(&"n".repeat(length), token(1)).map(drop);
    assert_eq!(name(0), Err(AuthError::InvalidName));
    assert_eq!((name(1), name(64)), (Ok(()), Ok(())));
    assert_eq!(name(65), Err(AuthError::InvalidName));
    // In bytes, and not in letters.
    assert!(ClientToken::new(&"é".repeat(32), token(1)).is_ok());
    assert!(ClientToken::new(&"é".repeat(33), token(1)).is_err());
    let server = ServerTokens::new();
    assert_eq!(server.add("", token(1)), Err(AuthError::InvalidName));
    assert_eq!(server.add(&"é".repeat(33), token(1)), Err(AuthError::InvalidName));
    let longest = "n".repeat(64);
    server.add(&longest, token(1)).unwrap();
    let client = ClientToken::new(&longest, token(1)).unwrap();
    let (served, _) = session_on(&mut Sim::new(1), &server, &client, b"x");
    assert_eq!(served.name(), Some(longest));
}

#[test]
fn no_secret_is_printed() {
    let secret = "4fae7dd2c0a94b0e9d6f8a31c7e5b290";
    let token = Token::new(secret).unwrap();
    let server = ServerTokens::new();
    server.add(NAME, token.clone()).unwrap();
    let client = ClientToken::new(NAME, token.clone()).unwrap();
    let printed =
        format!("{token:?} {server:?} {client:?} {:?}", token.datagrams(Role::Client, b""));
    assert!(!printed.contains(secret) && !printed.contains("52, 102"), "{printed}");
    assert!(printed.len() < 600, "{printed}");
}

#[test]
fn the_token_never_goes_over_the_wire_and_the_bytes_do_so_in_clear() {
    let (out, back) = recorded(b"not a secret");
    let finds = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|part| part == what);
    assert!(finds(&out, b"not a secret") && finds(&out, NAME.as_bytes()));
    assert!(!finds(&out, &[1; 8]) && !finds(&back, &[1; 8]));
}

#[test]
fn the_same_nonces_give_the_same_bytes_and_fresh_ones_give_others() {
    assert_eq!(recorded(b"x"), recorded(b"x"));
    let (server, client) = pair();
    let hello =
        |client: &ClientToken| Between::of(&server, client, b"").client.sent()[10..42].to_vec();
    let first = hello(&client);
    assert_ne!(first, hello(&client), "a source gives every nonce once");
    let fresh = client.with_nonces(Nonces::system());
    assert_ne!(hello(&fresh), hello(&fresh));
}

#[test]
fn a_run_in_the_simulator_repeats_byte_for_byte() {
    let run = |seed| {
        let mut sim = Sim::new(seed);
        sim.set_faults(lariat::sim::Faults::rough());
        let (server, client) = pair();
        let trace = Trace::new();
        let served = trace.clone();
        let listener = sim
            .listen("127.0.0.1:1", move |_| {
                Some(served.wrap("server", Sealed::server(&server, Counting::default())))
            })
            .unwrap();
        let addr = sim.addresses(listener)[0];
        let said = End::client(&Heard::default(), &much());
        sim.connect(addr, trace.wrap("client", Sealed::client(&client, said)));
        sim.run().unwrap();
        (sim.now(), trace.text())
    };
    let first = run(5);
    assert!(first.1.contains("server eof"), "{}", first.1);
    assert_eq!(first, run(5));
}

/// Answers once, when all has come: its frames do not depend on how its input was cut.
#[derive(Default)]
struct Counting(usize);

impl Protocol for Counting {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.0 += input.len();
        input.consume_all();
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        writeln!(cx, "{}", self.0)?;
        cx.close();
        Ok(())
    }
}

#[test]
fn an_exchange_and_frames_pass_however_they_are_cut() {
    let (out, _) = recorded(b"some words");
    let server = || {
        let (server, _) = pair();
        Sealed::server(&server, Counting::default())
    };
    every_split(server, &out);
}

#[test]
fn a_silent_peer_is_cut_at_the_handshake_deadline_and_not_before() {
    for words in [&b""[..], b"LARIAT", &recorded(b"").0[..60]] {
        let mut between = Between::new(b"");
        between.server.receive(words);
        between.server.advance(Duration::from_millis(9_900));
        assert!(between.server.closed().is_none());
        between.server.advance(Duration::from_millis(200));
        let kind = between.server.closed().unwrap().kind();
        assert_eq!(kind, CloseKind::TimedOut(Deadline::Handshake));
    }
}

#[test]
fn what_others_write_before_and_after_the_exchange_is_sealed_too() {
    let (server, client) = pair();
    let mut sim = Sim::new(1);
    let served = Heard::default();
    let heard = served.clone();
    let listener = sim
        .listen("127.0.0.1:1", move |_| Some(Sealed::server(&server, End::server(&heard, None))))
        .unwrap();
    let addr = sim.addresses(listener)[0];
    struct Quiet;
    impl Protocol for Quiet {
        fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            input.consume_all();
            Ok(())
        }
    }
    let id = sim.connect(addr, Sealed::client(&client, Quiet));
    sim.control().peer(id).write(b"early ");
    sim.run_for(Duration::from_millis(50)).unwrap();
    assert_eq!(served.bytes(), b"early ");
    sim.control().peer(id).write(b"late");
    sim.handle().write(id, b", by a handle").unwrap();
    sim.run_for(Duration::from_millis(50)).unwrap();
    assert_eq!(served.bytes(), b"early late, by a handle");
    assert_eq!(served.name().as_deref(), Some(NAME));
}

#[test]
fn each_direction_ends_by_itself() {
    // The client finishes first and is still answered: `Counting` answers at the end.
    let (server, client) = pair();
    let mut sim = Sim::new(1);
    let answered = Heard::default();
    let listener = sim
        .listen("127.0.0.1:1", move |_| Some(Sealed::server(&server, Counting::default())))
        .unwrap();
    let addr = sim.addresses(listener)[0];
    sim.connect(addr, Sealed::client(&client, End::client(&answered, b"12345")));
    sim.run_for(Duration::from_secs(1)).unwrap();
    assert_eq!(answered.bytes(), b"5\n");
    assert_eq!(answered.reason().kind(), CloseKind::Finished);
}

#[test]
fn the_session_has_the_name_and_the_role() {
    struct Asking;
    impl Protocol for Asking {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            let session = cx.session::<AuthSession>().unwrap().clone();
            write!(cx, "{} {:?}", session.client_name(), session.role())?;
            cx.close();
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
    }
    let (server, client) = pair();
    let mut sim = Sim::new(1);
    let answered = Heard::default();
    let listener =
        sim.listen("127.0.0.1:1", move |_| Some(Sealed::server(&server, Asking))).unwrap();
    let addr = sim.addresses(listener)[0];
    sim.connect(addr, Sealed::client(&client, End::client(&answered, b"")));
    sim.run_for(Duration::from_secs(1)).unwrap();
    assert_eq!(answered.bytes(), b"sensor 7 Server");
}

/// As a program of a few lines in another language makes them, from the description alone.
#[test]
fn the_format_on_the_wire_is_the_one_that_is_described() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (out, back) = recorded(b"hello");
    let expected = "4c415249415400014373ce56971cde355897421efc0b1046c8bf2f537eddbfbc7b9864f6e7ff7a\
                    82f2c30873656e736f7220373305912f051518054d97f2123ab3301db4120dda1da8ab63342533\
                    680e732566640005000000000000000068656c6c6f84fcbdbc92d787bf98ec61aa65f596932586\
                    48a32df58dc9c1e377375c30f9536500000000000000000001abdb9cbdfc257c3c70ffedf66da8\
                    89c84d74980dcfbb79636b2f2b1b132ac974";
    assert_eq!(hex(&out), expected);
    let expected = "4c415249415400015373c15c0289ec2d0a9167ec8e65a18debbe5e5532fbeea293f80bc942ee90\
                    86c1710070edb863c377ca14500028bec00544d9e2725455494220e5a45aedc61f58afba640005\
                    000000000000000068656c6c6f34b3f6fb1186b0e02640d46a90bb2cc21d08f5fbcf65c7884dc2\
                    95af88ce250f6500000000000000000001d3035c593dbbf71307302f44d6ad11e2d87188b4e70a\
                    6b4dbf23e6ea958b4200";
    assert_eq!(hex(&back), expected);
    let mut datagram = Vec::new();
    token(1).datagrams(Role::Client, b"1").0.seal(b"hello", &mut datagram).unwrap();
    let expected = "000000000000000068656c6c6f32b831ec0b918efbe71fafc88dfd3f0e6e4e4f726769213aa0b8\
                    d954f2540408";
    assert_eq!(hex(&datagram), expected);
}
