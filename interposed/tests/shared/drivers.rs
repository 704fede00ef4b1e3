//! The drivers of `tests/shared/drivers.rs`, set up in a simulated system.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook};
use std::sync::Once;
use std::thread;
use std::time::Duration;

use lariat::blocking::Blocking;
use lariat::reactor::Reactor;
use lariat::{Driver, DriverLimits};
use snare::Sim;

use crate::lacks::{Lack, lack};
pub(crate) use real::Place;
use real::watched;

#[path = "../../../tests/shared/drivers.rs"]
mod real;

/// Seeds without `LARIAT_SEEDS`.
const SEEDS: u64 = 2;

/// The ports that a system gives away first, one after the other.
const PORTS: Range<u16> = 49152..49152 + 64;

/// Runs `scenario` on both drivers that have sockets, with every seed. The seeds of lariat's own
/// simulator, which is left out, mean nothing here.
#[track_caller]
pub(crate) fn everywhere(
    _: Range<u64>,
    limits: DriverLimits,
    scenario: impl FnMut(&mut dyn Driver, &Place),
) {
    on_sockets(limits, scenario);
}

/// Runs `scenario` on both drivers, with every seed.
#[track_caller]
pub(crate) fn on_sockets(limits: DriverLimits, mut scenario: impl FnMut(&mut dyn Driver, &Place)) {
    let lack = lack(thread::current().name().unwrap_or_default());
    for seed in seeds() {
        if lack != Lack::Both {
            in_system(seed, || {
                let mut reactor = Reactor::with_limits(limits.clone()).unwrap();
                watched(&mut reactor, &with_seed(Place::reactor(), seed), &mut scenario);
            });
        }
        if lack == Lack::None {
            in_system(seed, || {
                let mut blocking = Blocking::with_limits(limits.clone()).unwrap();
                watched(&mut blocking, &with_seed(Place::blocking(), seed), &mut scenario);
            });
        }
    }
}

/// The simulated system does not receive many datagrams a call.
#[allow(dead_code, reason = "HTTP has no datagrams")]
pub(crate) fn on_offload(_: DriverLimits, _: impl FnMut(&mut dyn Driver, &Place)) {}

fn with_seed(place: Place, seed: u64) -> Place {
    Place { told: format!("{}, seed {seed}", place.told), ..place }
}

/// `LARIAT_SEED` alone, or as many from 0 on as `LARIAT_SEEDS` says.
fn seeds() -> Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    match number("LARIAT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LARIAT_SEEDS").unwrap_or(SEEDS),
    }
}

/// Runs `act` and every thread that it starts in a system of their own. One thread runs at a time,
/// and time passes only when all of them wait.
fn in_system(seed: u64, act: impl FnOnce()) {
    static HOOK: Once = Once::new();
    // The ordinary hook holds a lock of the whole process, for long where it prints a backtrace. A
    // system whose only thread waits for it takes that for waiting, and its time flies.
    HOOK.call_once(|| set_hook(Box::new(|info| eprintln!("{info}"))));
    let system = Sim::builder().deterministic().seed(seed).record_events(false).build();
    vary(&system, seed);
    // Caught inside: what unwinds drops sockets of the system.
    if let Err(panic) = system.run(|| catch_unwind(AssertUnwindSafe(act))) {
        eprintln!("with LARIAT_SEED={seed}");
        resume_unwind(panic);
    }
}

/// How large buffers are, and how long bytes are on their way. Seed 0 is the system as it is, where
/// everything arrives at once.
fn vary(system: &Sim, seed: u64) {
    if seed == 0 {
        return;
    }
    let mut random = seed;
    let mut below = |most: u64| next(&mut random) % most;
    let (send, receive) = (2048 << below(8), 2048 << below(8));
    system.set_sys_limits(|limits| {
        limits.tcp_wmem_default = send;
        limits.tcp_rmem_default = receive;
    });
    for port in PORTS {
        for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            system.set_tcp_policy(SocketAddr::new(ip, port), |policy| {
                policy.latency = Duration::from_micros(below(200));
                policy.jitter = Duration::from_micros(below(300));
            });
        }
    }
}

/// The next number of the sequence that `state` decides (SplitMix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
