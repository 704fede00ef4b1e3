//! The core in the simulator: random runs, and each failure of the catalogue that a made-up network
//! can show.
//!
//! `LARIAT_SEEDS=10000 cargo test --release --test sim -- --nocapture` is the long check.

mod accepting;
mod actor;
mod budget;
mod datagram_peers;
mod datagrams;
mod driver;
mod faults;
mod flow;
mod found;
mod general;
mod kit;
mod listening;
mod network;
#[path = "../shared/node.rs"]
mod node;
#[path = "../shared/plain.rs"]
mod plain;
mod races;
mod reached;
mod reconnecting;
mod stopped;
mod streams;
#[path = "../shared/toy.rs"]
mod toy;
mod tunnels;
mod turns;
mod wakes;
mod watchdog;
mod world;

use std::sync::Once;

/// Panics that a test means to happen are not worth their noise.
fn quiet_planned_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"planned") {
                before(info);
            }
        }));
    });
}
