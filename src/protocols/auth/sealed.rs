//! The exchange and sealed frames, as a filter under any protocol.

use std::any::Any;

use super::error::AuthError;
use super::exchange::{Exchange, Form, Side};
use super::frames::{Opener, Sealer};
use super::session::{AuthSession, Use};
use super::token::{ClientToken, ServerTokens};
use crate::filter::{Filter, FilterResult, Progress};
use crate::protocol::Protocol;
use crate::protocols::stacked::alone;

/// A protocol whose connection begins with the exchange of this module, and whose bytes then travel
/// in frames that carry a number and an HMAC.
///
/// `opened` runs when both ends have shown that they have the token; what is written before waits.
/// [`Limits::handshake`](crate::Limits::handshake) \[10 s\] bounds the exchange. What other
/// connections and handles write to the connection is sealed as well. The session is in
/// [`Context::session::<AuthSession>()`](crate::Context::session).
///
/// The protocol inside must not have a filter of its own, and `Sealed` does not go with TLS,
/// neither inside nor outside of it: a connection has one filter, and fails before it opens if two
/// are asked for. Over TLS, use [`Challenge`](super::Challenge).
///
/// A peer that does not pass, and a frame that was changed, repeated, left out or sent back, ends
/// the connection with [`FilterFailure::Failed`](crate::FilterFailure::Failed), and
/// [`CloseReason::error`](crate::CloseReason::error) is the [`AuthError`]. A stream that ends
/// without its last frame is [`FilterFailure::Truncated`](crate::FilterFailure::Truncated). A
/// client with a wrong token sees the same: the server ends the connection without an answer, so
/// that a guess reveals nothing.
///
/// ```
/// use lariat::auth::{AuthSession, ClientToken, Sealed, ServerTokens, Token};
/// # use lariat::{Context, Input, Outcome, Protocol};
/// struct Echo;
/// impl Protocol for Echo {
///     fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
///         let session = cx.session::<AuthSession>().ok_or("there is always a session")?;
///         println!("{} is here", session.client_name());
///         Ok(())
///     }
///     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
///         cx.write(input);
///         input.consume_all();
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let token = Token::new(b"4fae7dd2c0a94b0e9d6f8a31c7e5b290")?;
/// let tokens = ServerTokens::new();
/// tokens.add("sensor 7", token.clone())?;
/// let mut reactor = lariat::reactor::Reactor::new()?;
/// let listener =
///     reactor.listen("127.0.0.1:0", move |_| Some(Sealed::server(&tokens, Echo)))?;
/// let sensor = ClientToken::new("sensor 7", token)?;
/// reactor.connect(reactor.addresses(listener)[0], Sealed::client(&sensor, Echo));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Sealed<P> {
    side: Side,
    inner: P,
}

impl<P> Sealed<P> {
    /// The server's end: clients of `tokens` are served.
    pub fn server(tokens: &ServerTokens, inner: P) -> Sealed<P> {
        Sealed { side: Side::Server(tokens.clone()), inner }
    }

    /// The client's end.
    pub fn client(token: &ClientToken, inner: P) -> Sealed<P> {
        Sealed { side: Side::Client(token.clone()), inner }
    }

    /// The wrapped protocol.
    pub fn get_ref(&self) -> &P {
        &self.inner
    }
}

impl<P: Protocol> Protocol for Sealed<P> {
    crate::forward_protocol! {
        self => self.inner;
        pass: opened data eof drained timeout notified closed stopping name;
        own: filter;
    }

    fn filter(&mut self) -> Option<Box<dyn Filter>> {
        let exchange = Some(Exchange::new(self.side.clone(), Form::Sealed));
        Some(alone(SealFilter { exchange, open: None }, &mut self.inner))
    }
}

struct SealFilter {
    /// Until both ends have shown that they have the token.
    exchange: Option<Exchange>,
    open: Option<Open>,
}

/// What there is once the exchange is over.
struct Open {
    session: AuthSession,
    sealer: Sealer,
    opener: Opener,
}

impl Open {
    fn new(session: AuthSession) -> Open {
        let sealer = Sealer::new(session.keys.of(session.role, Use::Frames));
        let opener = Opener::new(session.keys.of(session.role.other(), Use::Frames));
        Open { session, sealer, opener }
    }
}

impl Filter for SealFilter {
    fn start(&mut self, wire: &mut Vec<u8>) -> FilterResult {
        if let Some(exchange) = &mut self.exchange {
            exchange.start(wire)?;
        }
        Ok(Progress::Handshaking)
    }

    fn receive(
        &mut self,
        bytes: &mut [u8],
        clear: &mut Vec<u8>,
        wire: &mut Vec<u8>,
    ) -> FilterResult {
        let mut bytes = &*bytes;
        if let Some(exchange) = &mut self.exchange {
            let Some(session) = exchange.receive(&mut bytes, wire)? else {
                return Ok(Progress::Handshaking);
            };
            self.exchange = None;
            self.open = Some(Open::new(session));
        }
        let open = self.open.as_mut().ok_or(AuthError::Unfinished)?;
        open.opener.open(bytes, clear)?;
        Ok(if open.opener.has_ended() { Progress::PeerFinished } else { Progress::Open })
    }

    fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> FilterResult {
        let open = self.open.as_mut().ok_or(AuthError::Unfinished)?;
        open.sealer.seal(clear, wire)?;
        Ok(if open.opener.has_ended() { Progress::PeerFinished } else { Progress::Open })
    }

    fn finish(&mut self, wire: &mut Vec<u8>) {
        if let Some(open) = &mut self.open {
            // Without numbers left, the end looks like a cut.
            let _ = open.sealer.end(wire);
        }
    }

    fn session(&self) -> Option<&dyn Any> {
        self.open.as_ref().map(|open| &open.session as &dyn Any)
    }
}
