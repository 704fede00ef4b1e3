//! Notes that come while the protocol that they are for does not exist yet.

use std::net::SocketAddr;

use lariat::auth::{AuthSession, Challenge, ClientToken, ServerTokens, Token};
use lariat::proxy_protocol::{AcceptProxy, Header, SendProxy, Version};
use lariat::sniff::{Choice, Sniff};
use lariat::{Context, Endpoint, Incoming, Input, ListenOptions, Note, Outcome, Protocol};

use crate::kit::{Last, Play, Stage, data, everywhere, says};

/// Sends its own connection notes with these numbers as soon as it is open, in which the protocol
/// inside has no say.
struct Noted<P> {
    inner: P,
    count: u8,
}

impl<P: Protocol> Protocol for Noted<P> {
    lariat::forward_protocol! {
        self => self.inner;
        pass: data eof drained timeout notified closed stopping name filter;
        own: opened;
    }

    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.inner.opened(cx)?;
        let id = cx.id();
        (0..self.count).for_each(|number| cx.peer(id).notify(Note::new(number)));
        Ok(())
    }
}

/// Says the number of each note that it gets, and closes when `last` has come.
struct Counts {
    last: u8,
}

impl Protocol for Counts {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }

    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        let number = note.downcast::<u8>().map_err(|_| "a number")?;
        cx.write(&[b'0' + number]);
        if number == self.last {
            cx.close();
        }
        Ok(())
    }
}

/// Listens with what `make` makes of one client, where at most three notes wait.
fn serve<P: Protocol + Send + 'static>(
    stage: &mut Stage<'_>,
    count: u8,
    make: impl Fn(&Incoming) -> P + Send + Sync + 'static,
) -> Endpoint {
    let mut options = ListenOptions::default();
    options.limits.notes_max = 3;
    let factory = move |incoming: &Incoming| {
        Some(Last::new(Noted { inner: make(incoming), count }, incoming))
    };
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = stage.driver.control().listen_with(addr, options, factory).unwrap();
    stage.driver.addresses(listener)[0]
}

#[test]
fn notes_wait_for_the_protocol_that_the_first_bytes_choose() {
    for count in [2, 3] {
        everywhere(|stage| {
            let addr = serve(stage, count, move |_| {
                Sniff::new(move |bytes| match bytes.len() {
                    0..5 => Choice::More(5),
                    _ => Choice::take(Counts { last: count - 1 }),
                })
            });
            stage.connect("client", addr, all_of(b"hello", count));
            stage.run();
            heard(stage, count);
        });
    }
}

#[test]
fn a_note_too_many_for_the_next_protocol_is_refused_and_counted() {
    everywhere(|stage| {
        let addr = serve(stage, 4, |_| {
            Sniff::new(|bytes| match bytes.len() {
                0..5 => Choice::More(5),
                _ => Choice::take(Counts { last: 2 }),
            })
        });
        stage.connect("client", addr, all_of(b"hello", 3));
        stage.run();
        heard(stage, 3);
        assert_eq!(stage.driver.metrics().refused_notes, 1);
    });
}

#[test]
fn notes_wait_for_the_protocol_behind_a_balancers_header() {
    everywhere(|stage| {
        let accept = AcceptProxy::trusting(|_| true);
        let factory = accept.factory(|_: &Incoming| Some(Counts { last: 2 }));
        let addr = serve(stage, 3, move |incoming| factory(incoming).unwrap());
        let play = stage.trace.wrap("client", all_of(b"", 3));
        stage.driver.control().connect(addr, SendProxy::new(&Header::local(), Version::V2, play));
        stage.run();
        heard(stage, 3);
    });
}

#[test]
fn notes_wait_for_the_protocol_behind_a_challenge_at_both_ends() {
    everywhere(|stage| {
        let token = Token::new([1; 16]).unwrap();
        let tokens = ServerTokens::new();
        tokens.add("one", token.clone()).unwrap();
        let addr = serve(stage, 3, move |_| {
            Challenge::server(&tokens, |_: AuthSession| Counts { last: 2 })
        });
        let trace = stage.trace.clone();
        let client = Challenge::client(&ClientToken::new("one", token).unwrap(), move |_| {
            trace.wrap(
                "client",
                all_of(b"", 3).notified(|cx, _| {
                    cx.write(b"noted");
                    Ok(())
                }),
            )
        });
        let id = stage.driver.control().connect(addr, client);
        stage.driver.control().peer(id).notify(Note::new(()));
        stage.run();
        let client = stage.trace.of("client");
        stage.check(client.iter().any(|line| line == "notified"), "the note of the client");
        heard(stage, 3);
    });
}

/// Says `bytes` and waits for as many answers as there are notes.
fn all_of(bytes: &'static [u8], count: u8) -> Play {
    says(bytes).data(move |_, input| {
        if input.len() == usize::from(count) {
            input.consume_all();
        }
        Ok(())
    })
}

/// The client has the numbers of all notes, in their order.
fn heard(stage: &mut Stage<'_>, count: u8) {
    let numbers: Vec<u8> = (0..count).map(|number| b'0' + number).collect();
    let expected = data(&numbers);
    let client = stage.trace.of("client");
    stage.check(client.contains(&expected), "the notes in their order");
}
