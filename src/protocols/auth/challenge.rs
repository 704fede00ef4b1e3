//! The exchange alone, as a protocol that another one follows.

use std::fmt;

use super::error::AuthError;
use super::exchange::{Exchange, Form, Side};
use super::session::AuthSession;
use super::token::{ClientToken, ServerTokens};
use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::timer::Timer;

/// The deadline of the exchange.
const DEADLINE: Timer = Timer::reserved(1);

/// The exchange of this module in clear: once both ends have shown that they have the token, the
/// protocol that `next` makes takes the connection over, and its bytes travel as they are.
///
/// It is meant for a connection that something else protects: over TLS
/// (`Tls::server(&config, Challenge::server(&tokens, next))`) it shows who the client is without a
/// certificate of the client's. Without TLS use [`Sealed`](super::Sealed): one who sits on the way
/// can let the exchange pass and then take the connection over.
///
/// The exchange has [`Limits::handshake`](crate::Limits::handshake) \[10 s\]; after that the
/// connection ends with [`TimedOut(Handshake)`](crate::Deadline::Handshake). Whatever else goes
/// wrong ends it with [`CloseKind::Protocol`](crate::CloseKind::Protocol) and an [`AuthError`]. The
/// next protocol is made when the proof has passed, and no earlier byte reaches it. Notes to the
/// connection wait until then, at most [`Limits::notes_max`](crate::Limits::notes_max) \[64\].
/// Until the exchange is over nothing else may write to the connection: those bytes would get among
/// those of the exchange, which then fails.
///
/// ```
/// use lariat::auth::{AuthSession, Challenge, ServerTokens, Token};
/// # use lariat::{Context, Input, Outcome, Protocol};
/// # struct Greeter(String);
/// # impl Protocol for Greeter {
/// #     fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
/// #         input.consume_all();
/// #         Ok(())
/// #     }
/// # }
/// let tokens = ServerTokens::new();
/// tokens.add("sensor 7", Token::new(b"4fae7dd2c0a94b0e9d6f8a31c7e5b290")?)?;
/// let make = |session: AuthSession| Greeter(session.client_name().to_owned());
/// let protocol = Challenge::server(&tokens, make);
/// # let _ = lariat::sim::Probe::new(protocol);
/// # Ok::<(), lariat::auth::AuthError>(())
/// ```
pub struct Challenge<F> {
    exchange: Exchange,
    next: Option<F>,
}

impl<F> Challenge<F> {
    /// The server's end: `next` makes the protocol for a client of `tokens`.
    pub fn server<P>(tokens: &ServerTokens, next: F) -> Challenge<F>
    where
        F: FnOnce(AuthSession) -> P,
    {
        Challenge::new(Side::Server(tokens.clone()), next)
    }

    /// The client's end.
    pub fn client<P>(token: &ClientToken, next: F) -> Challenge<F>
    where
        F: FnOnce(AuthSession) -> P,
    {
        Challenge::new(Side::Client(token.clone()), next)
    }

    fn new(side: Side, next: F) -> Challenge<F> {
        Challenge { exchange: Exchange::new(side, Form::Clear), next: Some(next) }
    }
}

impl<F, P> Protocol for Challenge<F>
where
    F: FnOnce(AuthSession) -> P,
    P: Protocol + Send + 'static,
{
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.defer_notes();
        cx.set_timer(DEADLINE, cx.limits().handshake);
        let mut wire = Vec::new();
        self.exchange.start(&mut wire)?;
        cx.write(&wire);
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        let (mut wire, mut left) = (Vec::new(), input.shown());
        let passed = self.exchange.receive(&mut left, &mut wire)?;
        input.consume(input.len() - left.len());
        cx.write(&wire);
        if let Some(session) = passed {
            let next = self.next.take().ok_or("an exchange passes once")?;
            cx.replace(next(session));
        }
        Ok(())
    }

    fn eof(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Err(AuthError::Unfinished.into())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
        cx.refuse_late(AuthError::Late);
        Ok(())
    }

    fn name(&self) -> &str {
        "the challenge of a token"
    }
}

impl<F> fmt::Debug for Challenge<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenge").finish_non_exhaustive()
    }
}
