//! Two ends, and what they were told, on each driver.

use std::sync::{Arc, Mutex};

use lariat::tls::{ClientConfig, ServerConfig, Tls, TlsError, TlsSession};
use lariat::{
    CloseReason, Context, Driver, DriverLimits, Incoming, Input, ListenerId, Outcome, Protocol,
};

use crate::drivers;

/// What an end was told.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Seen>>);

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) session: Option<TlsSession>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) finished: bool,
    pub(crate) reason: Option<CloseReason>,
}

impl Told {
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    pub(crate) fn session(&self) -> TlsSession {
        self.with(|seen| seen.session.clone().expect("the session has opened"))
    }

    pub(crate) fn has_opened(&self) -> bool {
        self.with(|seen| seen.session.is_some())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.with(|seen| seen.bytes.clone())
    }

    pub(crate) fn reason(&self) -> CloseReason {
        self.with(|seen| seen.reason.clone().expect("the connection has ended"))
    }

    /// The sentence of the error that ended it.
    pub(crate) fn error(&self) -> String {
        let reason = self.reason();
        let error = reason.error().expect("an error ended it");
        error.downcast_ref::<TlsError>().expect("of TLS").to_string()
    }
}

/// Sends `says` when it opens and then finishes; keeps what it hears. A server echoes it as well.
pub(crate) struct End {
    pub(crate) told: Told,
    pub(crate) says: Vec<u8>,
    pub(crate) echoes: bool,
    /// Stopped when the connection has opened or ended, so that a run ends.
    pub(crate) listener: Option<ListenerId>,
}

impl End {
    fn stop(&mut self, cx: &mut Context<'_>) {
        if let Some(listener) = self.listener.take() {
            cx.driver().stop_listening(listener);
        }
    }
}

impl Protocol for End {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        let session = cx.session::<TlsSession>().cloned();
        self.told.with(|seen| seen.session = session);
        self.stop(cx);
        if !self.echoes {
            cx.write(&self.says);
            cx.shutdown_write();
        }
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.told.with(|seen| seen.bytes.extend_from_slice(input));
        if self.echoes {
            cx.write(input);
        }
        input.consume_all();
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        self.told.with(|seen| seen.finished = true);
        cx.close();
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        self.told.with(|seen| seen.reason = Some(reason.clone()));
        self.stop(cx);
    }
}

/// One session in which the client says `says` and the server echoes it: what the server and the
/// client were told.
pub(crate) fn session_on(
    driver: &mut dyn Driver,
    server: &ServerConfig,
    client: &ClientConfig,
    name: &str,
    says: &[u8],
) -> (Told, Told) {
    let (served, heard) = (Told::default(), Told::default());
    let (config, told) = (server.clone(), served.clone());
    let factory = move |incoming: &Incoming| {
        let listener = Some(incoming.listener());
        let end = End { told: told.clone(), says: Vec::new(), echoes: true, listener };
        Some(Tls::server(&config, end))
    };
    let listener = driver.control().listen("127.0.0.1:0", factory).unwrap();
    let addr = driver.addresses(listener)[0];
    let end = End { told: heard.clone(), says: says.to_vec(), echoes: false, listener: None };
    driver.control().connect(addr, Tls::client(client, name, end).unwrap());
    driver.run().unwrap();
    (served, heard)
}

/// Runs `scenario` on every driver.
#[track_caller]
pub(crate) fn everywhere(scenario: impl Fn(&mut dyn Driver)) {
    drivers::everywhere(0..3, DriverLimits::default(), |driver, _| scenario(driver));
}
