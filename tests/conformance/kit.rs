//! The stage that scenarios run on, and a protocol made of closures.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use lariat::sim::Trace;
use lariat::{
    Address, CloseReason, ConnId, Context, DatagramOptions, Driver, DriverLimits, Endpoint, Filter,
    Input, IntoAddress, Limits, ListenOptions, ListenerId, Note, Outcome, Protocol, Report, Timer,
};

use crate::drivers::{self, Place};
use crate::leaks::nothing_is_left;
use crate::node::{Log, Node};
use crate::sockets::Deserted;

// ---- drivers ------------------------------------------------------------------------------------

/// Runs `scenario` on every driver.
#[track_caller]
pub(crate) fn everywhere(scenario: impl Fn(&mut Stage<'_>)) {
    everywhere_with(DriverLimits::default(), scenario);
}

/// Runs `scenario` on every driver, with limits of the driver.
#[track_caller]
pub(crate) fn everywhere_with(limits: DriverLimits, scenario: impl Fn(&mut Stage<'_>)) {
    drivers::everywhere(0..4, limits, |driver, place| play(driver, place, &scenario));
}

/// Runs a scenario of datagrams on every driver, also where `DatagramOptions::offload` is on.
#[track_caller]
pub(crate) fn with_datagrams(scenario: impl Fn(&mut Stage<'_>)) {
    let limits = DriverLimits::default();
    everywhere_with(limits.clone(), &scenario);
    drivers::on_offload(limits, |driver, place| play(driver, place, &scenario));
}

/// Runs `scenario` on the drivers that have the system's sockets.
#[track_caller]
pub(crate) fn on_sockets(limits: DriverLimits, scenario: impl Fn(&mut Stage<'_>)) {
    drivers::on_sockets(limits, |driver, place| play(driver, place, &scenario));
}

pub(crate) fn play(driver: &mut dyn Driver, place: &Place, scenario: &dyn Fn(&mut Stage<'_>)) {
    play_by(None, driver, place, scenario);
}

/// Closes when so many notes have come.
pub(crate) fn closes_after(
    mut left: u64,
) -> impl FnMut(&mut Context<'_>, Note) -> Outcome + Send + 'static {
    move |cx, _| {
        left -= 1;
        if left == 0 {
            cx.close();
        }
        Ok(())
    }
}

/// A protocol as either kind of wire takes it.
pub(crate) type Boxed = Box<dyn Protocol + Send>;

/// What connects the ends of a scenario in place of sockets: see `tests/pipes`.
pub(crate) trait Wires {
    /// The address at which `make` makes protocols.
    fn serve(&mut self, limits: Limits, make: Box<dyn Fn() -> Boxed>) -> SocketAddr;

    /// Connects to an address; the protocol comes back if nothing is served there.
    fn connect(
        &mut self,
        driver: &mut dyn Driver,
        addr: &str,
        limits: &Limits,
        protocol: Boxed,
    ) -> Result<ConnId, Boxed>;
}

/// Plays with other wires than sockets.
pub(crate) fn play_by(
    wires: Option<Box<dyn Wires>>,
    driver: &mut dyn Driver,
    place: &Place,
    scenario: &dyn Fn(&mut Stage<'_>),
) {
    let deserted = Vec::new();
    let (trace, log, place) = (Trace::new(), Log::default(), place.clone());
    let mut stage = Stage { driver, trace, log, ran: false, panics: false, place, deserted, wires };
    scenario(&mut stage);
    assert!(stage.ran, "a scenario runs its driver");
    let metrics = stage.driver.metrics();
    // An assertion in a callback is a panic, which ends that connection and no more: it is lost
    // where `closed` fails, unless it is looked for.
    let panicked = metrics.panics > 0 && !stage.panics;
    let told = &stage.place.told;
    assert!(!panicked, "a callback panicked on {told}: {metrics:?}\n{:?}", stage.trace);
    nothing_is_left(&metrics, format_args!("on {told}: {:?}", stage.trace));
}

/// Where a scenario happens: a driver, and the trace of everybody on it.
pub(crate) struct Stage<'a> {
    pub(crate) driver: &'a mut dyn Driver,
    pub(crate) trace: Trace,
    pub(crate) log: Log,
    ran: bool,
    /// Whether callbacks panic on purpose.
    panics: bool,
    place: Place,
    /// Kept, so that nobody else is given their addresses.
    deserted: Vec<Deserted>,
    wires: Option<Box<dyn Wires>>,
}

impl Stage<'_> {
    /// Callbacks of this scenario panic on purpose.
    pub(crate) fn panics(&mut self) {
        self.panics = true;
    }

    /// Listens for one connection, under the name `who`.
    pub(crate) fn serve(
        &mut self,
        who: &str,
        make: impl Fn() -> Play + Send + Sync + 'static,
    ) -> SocketAddr {
        self.serve_with(who, Limits::default(), make)
    }

    pub(crate) fn serve_with(
        &mut self,
        who: &str,
        limits: Limits,
        make: impl Fn() -> Play + Send + Sync + 'static,
    ) -> SocketAddr {
        let who = who.to_owned();
        self.serve_many(1, limits, move |_| (who.clone(), make()))
    }

    /// Listens for `count` connections; `make` is told the number of each, from 0.
    pub(crate) fn serve_many(
        &mut self,
        count: usize,
        limits: Limits,
        make: impl Fn(usize) -> (String, Play) + Send + Sync + 'static,
    ) -> SocketAddr {
        let trace = self.trace.clone();
        let made = AtomicUsize::new(0);
        if let Some(wires) = &mut self.wires {
            let make = move || {
                let (who, play) = make(made.fetch_add(1, Ordering::Relaxed));
                Box::new(trace.wrap(&who, play)) as Boxed
            };
            return wires.serve(limits, Box::new(make));
        }
        let mut options = ListenOptions::default();
        options.limits = limits;
        let factory = move |incoming: &lariat::Incoming| {
            let number = made.fetch_add(1, Ordering::Relaxed);
            let (who, play) = make(number);
            let last = (number + 1 == count).then(|| incoming.listener());
            Some(Last { inner: trace.wrap(&who, play), stops: last })
        };
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = self.driver.control().listen_with(addr, options, factory).unwrap();
        self.driver.addresses(listener)[0].socket_addr().unwrap()
    }

    /// Whether bytes go through the system, whose buffers are large.
    pub(crate) fn is_real(&self) -> bool {
        self.place.real
    }

    /// Whether each connection has a thread of its own.
    pub(crate) fn has_threads(&self) -> bool {
        self.place.threads
    }

    /// Whether UDP sockets have `DatagramOptions::offload`.
    pub(crate) fn has_offload(&self) -> bool {
        self.place.offload
    }

    /// Whether a UDP socket on all addresses is told where a datagram was sent to.
    pub(crate) fn knows_destinations(&self) -> bool {
        self.has_offload() || !self.is_real()
    }

    /// An address at which nobody listens, and for as long as the stage stands nobody will.
    pub(crate) fn deserted(&mut self) -> SocketAddr {
        if !self.is_real() {
            return SocketAddr::from(([127, 0, 0, 1], 1));
        }
        let deserted = Deserted::new();
        let addr = deserted.addr();
        self.deserted.push(deserted);
        addr
    }

    pub(crate) fn connect(&mut self, who: &str, addr: impl IntoAddress, play: Play) -> ConnId {
        self.connect_with(who, addr, Limits::default(), play)
    }

    pub(crate) fn connect_with(
        &mut self,
        who: &str,
        addr: impl IntoAddress,
        limits: Limits,
        play: Play,
    ) -> ConnId {
        let (addr, mut protocol): (_, Boxed) =
            (addr.into_address(), Box::new(self.trace.wrap(who, play)));
        if let Some(wires) = &mut self.wires {
            match wires.connect(self.driver, &addr.to_string(), &limits, protocol) {
                Ok(id) => return id,
                Err(back) => protocol = back,
            }
        }
        self.driver.control().connect_with(addr, limits.into(), protocol).unwrap()
    }

    /// A datagram socket on the loopback interface. Its callbacks are under the name `who`.
    pub(crate) fn bind(&mut self, who: &str, node: Node) -> (ConnId, SocketAddr) {
        self.bind_with(who, DatagramOptions::default(), node)
    }

    pub(crate) fn bind_with(
        &mut self,
        who: &str,
        options: DatagramOptions,
        node: Node,
    ) -> (ConnId, SocketAddr) {
        let id = self.bind_at(who, ([127, 0, 0, 1], 0), options, node);
        (id, self.driver.bound_addr(id).unwrap().socket_addr().unwrap())
    }

    /// A datagram socket at any address.
    pub(crate) fn bind_at(
        &mut self,
        who: &str,
        addr: impl IntoAddress,
        mut options: DatagramOptions,
        node: Node,
    ) -> ConnId {
        let addr = addr.into_address();
        options.offload |= self.place.offload && !is_unix(&addr);
        let node = node.under(who, &self.log);
        self.driver.control().bind_with(addr, options, node).unwrap()
    }

    /// What must have happened to the datagram socket `who`.
    #[track_caller]
    pub(crate) fn expect_node<S: AsRef<str>>(&self, who: &str, lines: &[S]) {
        let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
        let found = self.log.of(who);
        assert!(
            found == lines,
            "{who} on {}\nexpected: {lines:#?}\n   found: {found:#?}\n{:?}",
            self.place.told,
            self.driver.metrics(),
        );
    }

    pub(crate) fn run(&mut self) -> Report {
        self.ran = true;
        self.driver.run().unwrap()
    }

    /// What must have happened to `who`.
    #[track_caller]
    pub(crate) fn expect<S: AsRef<str>>(&self, who: &str, lines: &[S]) {
        let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
        let found = self.trace.of(who);
        assert!(
            found == lines,
            "{who} on {}\nexpected: {lines:#?}\n   found: {found:#?}\neverybody:\n{:?}",
            self.place.told,
            self.trace,
        );
    }

    /// A condition that must hold, with everything that happened if it does not.
    #[track_caller]
    pub(crate) fn check(&self, holds: bool, what: &str) {
        assert!(holds, "{what} on {}\n{:?}", self.place.told, self.trace);
    }
}

fn is_unix(addr: &Address) -> bool {
    matches!(addr, Address::Path(_) | Address::Endpoint(Endpoint::Unix(_)))
}

/// The line of a trace for data that was consumed.
pub(crate) fn data(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    format!("data {} bytes {hash:016x}", bytes.len())
}

// ---- protocols ----------------------------------------------------------------------------------

type Act = Box<dyn FnMut(&mut Context<'_>) -> Outcome + Send>;
type WithInput = Box<dyn FnMut(&mut Context<'_>, &mut Input<'_>) -> Outcome + Send>;
type WithTimer = Box<dyn FnMut(&mut Context<'_>, Timer) -> Outcome + Send>;
type WithNote = Box<dyn FnMut(&mut Context<'_>, Note) -> Outcome + Send>;
type WithReason = Box<dyn FnMut(&mut Context<'_>, &CloseReason) + Send>;
type Makes = Box<dyn FnMut() -> Option<Box<dyn Filter>> + Send>;

/// A protocol made of closures. What is not given is as in [`Protocol`], and `data` consumes
/// everything.
#[derive(Default)]
pub(crate) struct Play {
    opened: Option<Act>,
    data: Option<WithInput>,
    eof: Option<WithInput>,
    drained: Option<Act>,
    timeout: Option<WithTimer>,
    notified: Option<WithNote>,
    closed: Option<WithReason>,
    stopping: Option<Act>,
    filter: Option<Makes>,
}

macro_rules! acts {
    ($($name:ident($($kind:ty),*) -> $out:ty;)*) => {
        $(pub(crate) fn $name(
            mut self,
            act: impl FnMut($($kind),*) -> $out + Send + 'static,
        ) -> Play {
            self.$name = Some(Box::new(act));
            self
        })*
    };
}

impl Play {
    pub(crate) fn new() -> Play {
        Play::default()
    }

    acts! {
        opened(&mut Context<'_>) -> Outcome;
        data(&mut Context<'_>, &mut Input<'_>) -> Outcome;
        eof(&mut Context<'_>, &mut Input<'_>) -> Outcome;
        drained(&mut Context<'_>) -> Outcome;
        timeout(&mut Context<'_>, Timer) -> Outcome;
        notified(&mut Context<'_>, Note) -> Outcome;
        stopping(&mut Context<'_>) -> Outcome;
        filter() -> Option<Box<dyn Filter>>;
    }

    pub(crate) fn closed(
        mut self,
        act: impl FnMut(&mut Context<'_>, &CloseReason) + Send + 'static,
    ) -> Play {
        self.closed = Some(Box::new(act));
        self
    }
}

impl Protocol for Play {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.opened.as_mut().map_or(Ok(()), |act| act(cx))
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        match &mut self.data {
            Some(act) => act(cx, input),
            None => {
                input.consume_all();
                Ok(())
            }
        }
    }

    fn eof(&mut self, cx: &mut Context<'_>, rest: &mut Input<'_>) -> Outcome {
        match &mut self.eof {
            Some(act) => act(cx, rest),
            None => {
                cx.close();
                Ok(())
            }
        }
    }

    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.drained.as_mut().map_or(Ok(()), |act| act(cx))
    }

    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        match &mut self.timeout {
            Some(act) => act(cx, timer),
            None => {
                cx.close();
                Ok(())
            }
        }
    }

    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        self.notified.as_mut().map_or(Ok(()), |act| act(cx, note))
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        if let Some(act) = &mut self.closed {
            act(cx, reason);
        }
    }

    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        match &mut self.stopping {
            Some(act) => act(cx),
            None => {
                cx.close();
                Ok(())
            }
        }
    }

    fn filter(&mut self) -> Option<Box<dyn Filter>> {
        self.filter.as_mut().and_then(|make| make())
    }
}

/// Says `bytes` when it opens.
pub(crate) fn says(bytes: &'static [u8]) -> Play {
    Play::new().opened(move |cx| {
        cx.write(bytes);
        Ok(())
    })
}

/// Says `bytes` when it opens, and finishes sending.
pub(crate) fn says_all(bytes: &'static [u8]) -> Play {
    Play::new().opened(move |cx| {
        cx.write(bytes);
        cx.shutdown_write();
        Ok(())
    })
}

/// Answers every byte with the same byte.
pub(crate) fn echo() -> Play {
    Play::new().data(|cx, input| {
        cx.write(input);
        input.consume_all();
        Ok(())
    })
}

/// Stops its listener as soon as it is known, so that a run comes to its end.
pub(crate) struct Last<P> {
    inner: P,
    stops: Option<ListenerId>,
}

impl<P> Last<P> {
    pub(crate) fn new(inner: P, incoming: &lariat::Incoming) -> Last<P> {
        Last { inner, stops: Some(incoming.listener()) }
    }

    fn stop(&mut self, cx: &mut Context<'_>) {
        if let Some(listener) = self.stops.take() {
            cx.driver().stop_listening(listener);
        }
    }
}

impl<P: Protocol> Protocol for Last<P> {
    lariat::forward_protocol! {
        self => self.inner;
        pass: data eof drained timeout notified stopping name filter;
        own: opened closed;
    }

    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.stop(cx);
        self.inner.opened(cx)
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        self.stop(cx);
        self.inner.closed(cx, reason);
    }
}
