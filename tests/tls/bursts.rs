//! Many handshakes at once: each turn does a few of them, and established connections come first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use lariat::reactor::Reactor;
use lariat::sim::{Link, Sim};
use lariat::tls::{ClientConfig, ServerConfig, Tls};
use lariat::{Context, Endpoint, Incoming, Input, Metrics, Outcome, Protocol};

use crate::certs::Authority;

const BURST: u64 = 500;
/// Steps of handshakes in one turn, by the budget.
const STEPS: u64 = 16;
/// What the established client has seen.
#[derive(Default)]
struct Seen {
    rounds: AtomicU64,
    /// The most turns that an answer took.
    slowest: AtomicU64,
    done: AtomicU64,
}

struct Echo;

impl Protocol for Echo {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume_all();
        Ok(())
    }
}

/// Asks for one echo after the other, until the burst is over.
struct Established {
    seen: Arc<Seen>,
    /// Starts the burst, once it has had an answer.
    burst: Option<(Endpoint, ClientConfig)>,
    asked: u64,
}

impl Established {
    fn ask(&mut self, cx: &mut Context<'_>) {
        self.asked = cx.driver().metrics().turns;
        cx.write(b"x");
    }
}

impl Protocol for Established {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.ask(cx);
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        let took = cx.driver().metrics().turns - self.asked;
        if let Some((addr, config)) = self.burst.take() {
            for _ in 0..BURST {
                let one = One(Arc::clone(&self.seen));
                cx.connect(addr, Tls::client(&config, "localhost", one)?);
            }
        } else {
            self.seen.rounds.fetch_add(1, Relaxed);
            self.seen.slowest.fetch_max(took, Relaxed);
        }
        if self.seen.done.load(Relaxed) < BURST {
            self.ask(cx);
        } else {
            cx.close();
        }
        Ok(())
    }
}

/// One of the burst: it is done when its handshake is.
struct One(Arc<Seen>);

impl Protocol for One {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.0.done.fetch_add(1, Relaxed);
        cx.close();
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
}

/// Judges a burst on a driver that is turned one turn at a time. An answer takes at most `slowest`
/// turns.
fn burst<D>(
    driver: &mut D,
    slowest: u64,
    addr: Endpoint,
    connect: impl FnOnce(&mut D, Tls<Established>),
    client: &ClientConfig,
    turn: impl Fn(&mut D) -> Metrics,
) {
    let seen = Arc::<Seen>::default();
    let burst = Some((addr, client.clone()));
    let established = Established { seen: Arc::clone(&seen), burst, asked: 0 };
    connect(driver, Tls::client(client, "localhost", established).unwrap());
    let (mut before, mut most, mut turns) = (0, 0, 0);
    while seen.done.load(Relaxed) < BURST {
        let metrics = turn(driver);
        most = most.max(metrics.handshakes - before);
        before = metrics.handshakes;
        turns += 1;
        assert_eq!(metrics.failed_handshakes, 0, "{metrics}");
        assert!(turns < 1_000_000, "{metrics}");
    }
    // A handshake that is complete has taken its last step in this turn, at either end.
    assert!(most <= STEPS, "{most} handshakes in one turn");
    // Three steps of each, and the budget of a turn.
    let least = 3 * BURST / STEPS / slowest;
    assert!(
        seen.rounds.load(Relaxed) >= least,
        "{} rounds, at least {least}",
        seen.rounds.load(Relaxed)
    );
    let took = seen.slowest.load(Relaxed);
    assert!(took <= slowest, "an answer after {took} turns");
}

fn configs() -> (ServerConfig, ClientConfig) {
    let authority = Authority::new();
    let server = ServerConfig::new(authority.issue("localhost"));
    (server, ClientConfig::new(&authority.roots()))
}

#[test]
fn a_burst_of_handshakes_does_not_delay_the_established_on_the_reactor() {
    let (server, client) = configs();
    let mut reactor = Reactor::new().unwrap();
    let factory = move |_: &Incoming| Some(Tls::server(&server, Echo));
    let listener = reactor.listen("127.0.0.1:0", factory).unwrap();
    let addr = reactor.addresses(listener)[0];
    let connect = |reactor: &mut Reactor, client| {
        reactor.connect(addr, client);
    };
    // A turn for each end, and one to spare.
    burst(&mut reactor, 3, addr, connect, &client, |reactor| {
        reactor.turn(Some(Duration::from_secs(30))).unwrap();
        reactor.metrics()
    });
}

#[test]
fn a_burst_of_handshakes_does_not_delay_the_established_in_the_simulator() {
    let (server, client) = configs();
    let mut sim = Sim::new(1);
    // Time stands still while a turn has work: with a delay no answer could come.
    let mut link = Link::default();
    link.latency = Duration::ZERO;
    sim.set_link(link);
    let factory = move |_: &Incoming| Some(Tls::server(&server, Echo));
    let listener = sim.listen("127.0.0.1:0", factory).unwrap();
    let addr = sim.addresses(listener)[0];
    let connect = |sim: &mut Sim, client| {
        sim.connect(addr, client);
    };
    // Its network reports what happens at one instant in several polls.
    burst(&mut sim, 16, addr, connect, &client, |sim| {
        sim.turn(Some(Duration::from_secs(30))).unwrap();
        sim.metrics()
    });
}
