//! Conversations with a server, on every driver.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::sim::{Link, Sim};
use lariat::{
    CloseReason, Context, Driver, DriverLimits, Input, Limits, ListenOptions, Outcome, Protocol,
    Timer, forward_protocol,
};

use crate::drivers;

const NEXT: Timer = Timer::new(1);

/// What a client does, in order.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Lets time pass.
    Wait(Duration),
    /// Waits until this has come.
    Until(&'static [u8]),
    /// Finishes sending.
    Finish,
}

/// Sends everything, finishes, and waits for the end.
pub(crate) fn says(bytes: &[u8]) -> Vec<Step> {
    vec![Step::Send(bytes.to_vec()), Step::Finish]
}

/// As [`says`], in as many pieces as there are bytes.
pub(crate) fn spells(bytes: &[u8]) -> Vec<Step> {
    let mut steps = Vec::new();
    for byte in bytes {
        steps.push(Step::Send(vec![*byte]));
        steps.push(Step::Wait(Duration::ZERO));
    }
    steps.push(Step::Finish);
    steps
}

/// Runs `scenario` on every driver.
#[track_caller]
pub(crate) fn everywhere(mut scenario: impl FnMut(&mut dyn Driver, &str)) {
    let limits = DriverLimits::default();
    drivers::everywhere(0..1, limits, |driver, place| scenario(driver, &place.told));
}

/// Runs `scenario` on the drivers with real sockets.
#[track_caller]
pub(crate) fn on_sockets(mut scenario: impl FnMut(&mut dyn Driver, &str)) {
    drivers::on_sockets(DriverLimits::default(), |driver, place| scenario(driver, &place.told));
}

/// Lets each of `scripts` be played by a client of its own, all at once, against a server of
/// `make`; gives what each client received.
pub(crate) fn converse<P: Protocol + Send + 'static>(
    driver: &mut dyn Driver,
    make: impl Fn() -> P + Send + Sync + 'static,
    scripts: Vec<Vec<Step>>,
) -> Vec<Vec<u8>> {
    let addr = serve(driver, make);
    let left = Arc::new(AtomicUsize::new(scripts.len()));
    let talks = play(driver, addr, scripts, &left);
    talks.into_iter().map(|talk| talk.heard).collect()
}

/// One conversation, once it is over.
#[derive(Default)]
pub(crate) struct Talk {
    pub(crate) heard: Vec<u8>,
    /// The address of the client's end, and with it that of the connection at the server.
    addr: String,
    /// Why the connection ended at the server.
    reason: Option<CloseReason>,
    /// And why it did at the client.
    client: Option<CloseReason>,
}

impl Talk {
    pub(crate) fn reason(&self) -> &CloseReason {
        self.reason.as_ref().unwrap()
    }

    pub(crate) fn client(&self) -> &CloseReason {
        self.client.as_ref().unwrap()
    }
}

/// As [`converse`], with limits of the server's connections, which must not be handed over to
/// another protocol: it also waits for each of them to end, and tells why it did.
pub(crate) fn talk<P: Protocol + Send + 'static>(
    driver: &mut dyn Driver,
    limits: &Limits,
    make: impl Fn() -> P + Send + Sync + 'static,
    scripts: Vec<Vec<Step>>,
) -> Vec<Talk> {
    let left = Arc::new(AtomicUsize::new(2 * scripts.len()));
    let reasons = Arc::new(Mutex::new(HashMap::new()));
    let (ends, told) = (Arc::clone(&left), Arc::clone(&reasons));
    let mut options = ListenOptions::default();
    options.limits = limits.clone();
    let addr = serve_with(driver, options, move || Witnessed {
        inner: make(),
        left: Arc::clone(&ends),
        reasons: Arc::clone(&told),
    });
    let mut talks = play(driver, addr, scripts, &left);
    for talk in &mut talks {
        talk.reason = reasons.lock().unwrap().remove(&talk.addr);
    }
    talks
}

/// Runs until `left` conversations and connections are over.
fn play(
    driver: &mut dyn Driver,
    addr: SocketAddr,
    scripts: Vec<Vec<Step>>,
    left: &Arc<AtomicUsize>,
) -> Vec<Talk> {
    let talks: Vec<_> = scripts
        .into_iter()
        .map(|script| {
            let talk = Arc::new(Mutex::new(Talk::default()));
            let client =
                Client { script: script.into(), talk: Arc::clone(&talk), left: Arc::clone(left) };
            driver.control().connect(addr, client);
            talk
        })
        .collect();
    driver.run().unwrap();
    assert_eq!(left.load(Ordering::Acquire), 0, "not all conversations came to their end");
    talks.into_iter().map(|talk| std::mem::take(&mut *talk.lock().unwrap())).collect()
}

/// Listens; gives the address.
pub(crate) fn serve<P: Protocol + Send + 'static>(
    driver: &mut dyn Driver,
    make: impl Fn() -> P + Send + Sync + 'static,
) -> SocketAddr {
    serve_with(driver, ListenOptions::default(), make)
}

pub(crate) fn serve_with<P: Protocol + Send + 'static>(
    driver: &mut dyn Driver,
    options: ListenOptions,
    make: impl Fn() -> P + Send + Sync + 'static,
) -> SocketAddr {
    let listener =
        driver.control().listen_with("127.0.0.1:0", options, move |_| Some(make())).unwrap();
    driver.addresses(listener)[0].socket_addr().unwrap()
}

/// A server's protocol, with an eye on its end.
struct Witnessed<P> {
    inner: P,
    left: Arc<AtomicUsize>,
    reasons: Arc<Mutex<HashMap<String, CloseReason>>>,
}

impl<P: Protocol> Protocol for Witnessed<P> {
    forward_protocol! {
        self => self.inner;
        pass: opened data eof drained timeout notified stopping name filter;
        own: closed;
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        self.inner.closed(cx, reason);
        self.reasons.lock().unwrap().insert(cx.peer_addr().to_string(), reason.clone());
        end(cx, &self.left);
    }
}

/// The last of all to end stops the driver.
fn end(cx: &mut Context<'_>, left: &AtomicUsize) {
    if left.fetch_sub(1, Ordering::AcqRel) == 1 {
        cx.driver().shutdown();
    }
}

/// Plays a script.
struct Client {
    script: VecDeque<Step>,
    talk: Arc<Mutex<Talk>>,
    left: Arc<AtomicUsize>,
}

impl Client {
    fn go_on(&mut self, cx: &mut Context<'_>) {
        while let Some(step) = self.script.front() {
            match step {
                Step::Send(bytes) => cx.write(bytes),
                Step::Finish => cx.shutdown_write(),
                Step::Wait(time) => {
                    cx.set_timer(NEXT, *time);
                    return;
                }
                Step::Until(what) => {
                    let talk = self.talk.lock().unwrap();
                    if !talk.heard.windows(what.len()).any(|part| part == *what) {
                        return;
                    }
                }
            }
            self.script.pop_front();
        }
    }
}

impl Protocol for Client {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.talk.lock().unwrap().addr = cx.local_addr().map(|a| a.to_string()).unwrap_or_default();
        self.go_on(cx);
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.talk.lock().unwrap().heard.extend_from_slice(input);
        input.consume_all();
        if matches!(self.script.front(), Some(Step::Until(_))) {
            self.go_on(cx);
        }
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
        self.script.pop_front();
        self.go_on(cx);
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        self.talk.lock().unwrap().client = Some(reason.clone());
        end(cx, &self.left);
    }
}

/// A simulator whose links take in little, so that what is not read soon stays with the sender.
pub(crate) fn narrow() -> Sim {
    let mut sim = Sim::new(0);
    let mut link = Link::default();
    link.window = 64 * 1024;
    sim.set_link(link);
    sim
}
