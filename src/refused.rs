//! A request that a driver refused, with its payload.

use std::fmt;

use crate::error::Error;

/// A request that a driver refused, with its payload. `?` turns it into an [`Error`], in a callback
/// as well as in a function that returns [`Result`]; the payload is dropped then.
///
/// ```
/// use lariat::{ConnId, Context, Handle, Input, Note, Outcome, Protocol};
///
/// /// Sends what arrives to another connection.
/// struct Teller {
///     others: Handle,
///     to: ConnId,
/// }
///
/// impl Protocol for Teller {
///     fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
///         self.others.notify(self.to, Note::new(input.split_all()))?;
///         Ok(())
///     }
/// }
///
/// fn greet(others: &Handle, to: ConnId) -> lariat::Result<()> {
///     others.notify(to, Note::new("hello"))?;
///     others.call(|control| control.shutdown())?;
///     Ok(())
/// }
/// ```
///
/// `into_payload` returns a payload that matters:
///
/// ```
/// use lariat::{ErrorKind, sim::Sim};
/// let sim = Sim::new(1);
/// let handle = sim.handle();
/// drop(sim);
/// let text = "precious".to_owned();
/// let refused = handle.call(move |_| println!("{text}")).unwrap_err();
/// assert_eq!(refused.error().kind(), ErrorKind::Stopped);
/// let mut elsewhere = Sim::new(2);
/// refused.into_payload()(&mut elsewhere.control());
/// ```
pub struct Refused<T> {
    pub(crate) error: Error,
    pub(crate) payload: T,
}

impl<T> Refused<T> {
    /// Why it was refused.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The payload of the request.
    pub fn into_payload(self) -> T {
        self.payload
    }
}

impl<T> fmt::Display for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> fmt::Debug for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl<T> From<Refused<T>> for Error {
    fn from(refused: Refused<T>) -> Error {
        refused.error
    }
}

// As an error type itself it would need `Send` and `Sync` payloads for `?` in a callback, which
// notes, closures and protocols need not be.
impl<T> From<Refused<T>> for Box<dyn std::error::Error + Send + Sync> {
    fn from(refused: Refused<T>) -> Self {
        Box::new(refused.error)
    }
}

impl<T> From<Refused<T>> for Box<dyn std::error::Error> {
    fn from(refused: Refused<T>) -> Self {
        Box::new(refused.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, Op};

    fn refused() -> Refused<&'static str> {
        Refused { error: Error::new(ErrorKind::Full, Op::Post), payload: "precious" }
    }

    #[test]
    fn a_refused_request_says_why_and_gives_its_payload_back() {
        assert_eq!(refused().error().kind(), ErrorKind::Full);
        assert_eq!(refused().to_string(), "cannot reach the driver: its queue is full");
        let hinted = "cannot reach the driver: its queue is full\nhint: the driver is behind; \
                      try again later";
        assert_eq!(format!("{:?}", refused()), hinted);
        assert_eq!(refused().into_payload(), "precious");
    }

    /// The payload need be neither `Send` nor an error.
    #[test]
    fn a_question_mark_makes_an_error_of_it_wherever_one_may_be() {
        type Local = Result<(), Refused<std::rc::Rc<()>>>;
        let local =
            || -> Local { Err(Refused { error: refused().error, payload: std::rc::Rc::new(()) }) };
        let ours = || -> crate::error::Result<()> { Ok(local()?) };
        let any = || -> Result<(), Box<dyn std::error::Error>> { Ok(local()?) };
        let shared = || -> crate::protocol::Outcome { Ok(local()?) };
        assert_eq!(ours().unwrap_err().kind(), ErrorKind::Full);
        let kind = |error: Option<&Error>| error.map(Error::kind);
        assert_eq!(kind(any().unwrap_err().downcast_ref()), Some(ErrorKind::Full));
        assert_eq!(kind(shared().unwrap_err().downcast_ref()), Some(ErrorKind::Full));
    }
}
