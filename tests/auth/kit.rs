//! Two ends, what they heard, and one who sits between them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::auth::{AuthError, AuthSession, ClientToken, Nonces, Sealed, ServerTokens, Token};
use lariat::blocking::Blocking;
use lariat::reactor::Reactor;
use lariat::sim::{Faults, Probe, Sim};
use lariat::{CloseReason, Context, Driver, Input, ListenerId, Outcome, Protocol};

pub(crate) fn token(byte: u8) -> Token {
    Token::new([byte; 32]).unwrap()
}

pub(crate) const NAME: &str = "sensor 7";

/// A server that knows one client, and that client; the same bytes on the wire every time.
pub(crate) fn pair() -> (ServerTokens, ClientToken) {
    let server = ServerTokens::new().with_nonces(Nonces::seeded(1));
    server.add(NAME, token(1)).unwrap();
    let client = ClientToken::new(NAME, token(1)).unwrap().with_nonces(Nonces::seeded(2));
    (server, client)
}

/// What an end heard.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    name: Option<String>,
    bytes: Vec<u8>,
    finished: bool,
    reason: Option<CloseReason>,
}

impl Heard {
    fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    pub(crate) fn set_name(&self, name: &str) {
        self.with(|seen| seen.name = Some(name.to_owned()));
    }

    /// The client's name; None unless the session has opened.
    pub(crate) fn name(&self) -> Option<String> {
        self.with(|seen| seen.name.clone())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.with(|seen| seen.bytes.clone())
    }

    pub(crate) fn has_finished(&self) -> bool {
        self.with(|seen| seen.finished)
    }

    pub(crate) fn reason(&self) -> CloseReason {
        self.with(|seen| seen.reason.clone()).expect("the connection has ended")
    }

    pub(crate) fn error(&self) -> AuthError {
        error_of(&self.reason())
    }
}

pub(crate) fn error_of(reason: &CloseReason) -> AuthError {
    let error = reason.error().unwrap_or_else(|| panic!("an error ended it: {reason}"));
    *error.downcast_ref::<AuthError>().expect("of authentication")
}

/// Why the connection of a probe ended, which may still linger: time passes, but not that of an
/// exchange.
pub(crate) fn reason_of(probe: &mut Probe) -> CloseReason {
    probe.advance(Duration::from_secs(9));
    probe.closed().expect("it has ended")
}

/// A client says `says` and finishes; a server echoes.
pub(crate) struct End {
    pub(crate) heard: Heard,
    pub(crate) says: Option<Vec<u8>>,
    /// Stopped at the end, so that a run ends.
    pub(crate) listener: Option<ListenerId>,
}

impl End {
    pub(crate) fn server(heard: &Heard, listener: Option<ListenerId>) -> End {
        End { heard: heard.clone(), says: None, listener }
    }

    pub(crate) fn client(heard: &Heard, says: &[u8]) -> End {
        End { heard: heard.clone(), says: Some(says.to_vec()), listener: None }
    }
}

impl Protocol for End {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        if let Some(session) = cx.session::<AuthSession>() {
            self.heard.set_name(session.client_name());
        }
        if let Some(says) = &self.says {
            cx.write(says);
            cx.shutdown_write();
        }
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.heard.with(|seen| seen.bytes.extend_from_slice(input));
        if self.says.is_none() {
            cx.write(input);
        }
        input.consume_all();
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        self.heard.with(|seen| seen.finished = true);
        cx.close();
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        self.heard.with(|seen| seen.reason = Some(reason.clone()));
        if let Some(listener) = self.listener.take() {
            cx.driver().stop_listening(listener);
        }
    }
}

/// A protocol around the whole of an end, the exchange included: it keeps why that ended, and stops
/// the listener then.
pub(crate) struct Watched<P> {
    pub(crate) inner: P,
    pub(crate) heard: Heard,
    pub(crate) listener: Option<ListenerId>,
}

impl<P: Protocol> Protocol for Watched<P> {
    lariat::forward_protocol! {
        self => self.inner;
        pass: opened data eof drained timeout notified stopping name filter;
        own: closed;
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        self.inner.closed(cx, reason);
        self.heard.with(|seen| seen.reason = Some(reason.clone()));
        if let Some(listener) = self.listener.take() {
            cx.driver().stop_listening(listener);
        }
    }
}

/// A peer that is not ours: writes `says` in clear, keeps what comes, and leaves the end to others,
/// unless it has heard all that it waits for.
pub(crate) struct Raw {
    pub(crate) heard: Heard,
    pub(crate) says: Vec<u8>,
    pub(crate) until: usize,
}

impl Raw {
    pub(crate) fn new(heard: &Heard, says: &[u8]) -> Raw {
        Raw { heard: heard.clone(), says: says.to_vec(), until: usize::MAX }
    }
}

impl Protocol for Raw {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(&self.says);
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.heard.with(|seen| seen.bytes.extend_from_slice(input));
        input.consume_all();
        if self.heard.bytes().len() >= self.until {
            cx.close();
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.heard.with(|seen| seen.reason = Some(reason.clone()));
    }
}

/// Runs `scenario` on every driver, in the simulator also over a rough network.
pub(crate) fn everywhere(scenario: impl Fn(&mut dyn Driver)) {
    for faults in [Faults::none(), Faults::rough()] {
        for seed in 0..3 {
            let mut sim = Sim::new(seed);
            sim.set_faults(faults.clone());
            scenario(&mut sim);
        }
    }
    scenario(&mut Reactor::new().unwrap());
    scenario(&mut Blocking::new());
}

/// The two ends of one connection, with nothing between them but this test.
pub(crate) struct Between {
    pub(crate) client: Probe,
    pub(crate) server: Probe,
    pub(crate) served: Heard,
    pub(crate) answered: Heard,
}

impl Between {
    pub(crate) fn of(server: &ServerTokens, client: &ClientToken, says: &[u8]) -> Between {
        let (served, answered) = (Heard::default(), Heard::default());
        let server = Probe::new(Sealed::server(server, End::server(&served, None)));
        let client = Probe::new(Sealed::client(client, End::client(&answered, says)));
        Between { client, server, served, answered }
    }

    pub(crate) fn new(says: &[u8]) -> Between {
        let (server, client) = pair();
        Between::of(&server, &client, says)
    }

    /// Hands over what both ends have sent, until neither sends more. `change` sees each piece:
    /// true for those of the client.
    pub(crate) fn pass(&mut self, mut change: impl FnMut(bool, Vec<u8>) -> Vec<u8>) {
        loop {
            let (out, back) = (self.client.sent().to_vec(), self.server.sent().to_vec());
            if out.is_empty() && back.is_empty() {
                return;
            }
            for (from_client, bytes) in [(true, out), (false, back)] {
                if bytes.is_empty() {
                    continue;
                }
                let bytes = change(from_client, bytes);
                if from_client { self.server.receive(&bytes) } else { self.client.receive(&bytes) }
            }
        }
    }
}

/// Everything that the client of an untouched connection sends.
pub(crate) fn recorded(says: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut between = Between::new(says);
    let (mut out, mut back) = (Vec::new(), Vec::new());
    between.pass(|from_client, bytes| {
        if from_client { &mut out } else { &mut back }.extend_from_slice(&bytes);
        bytes
    });
    assert_eq!(between.served.bytes(), says);
    assert_eq!(between.answered.bytes(), says);
    (out, back)
}
