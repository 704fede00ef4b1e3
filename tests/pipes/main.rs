//! The scenarios of the conformance list over pipes (feature `fd`), on the reactor and on threads:
//! what has no meaning there is named in `lacks.rs`.

#[path = "../shared/drivers.rs"]
mod drivers;
mod kit;
mod lacks;
#[path = "../shared/leaks.rs"]
mod leaks;
#[path = "../shared/node.rs"]
mod node;
#[path = "../shared/patience.rs"]
mod patience;
#[allow(dead_code, reason = "its own ways to run a scenario")]
#[path = "../conformance/kit.rs"]
mod plain;
#[path = "../shared/sockets.rs"]
mod sockets;
#[path = "../shared/toy.rs"]
mod toy;

#[path = "../conformance/callbacks.rs"]
mod callbacks;
#[path = "../conformance/context.rs"]
mod context;
#[path = "../conformance/counters.rs"]
mod counters;
#[path = "../conformance/discards.rs"]
mod discards;
#[path = "../conformance/ends.rs"]
mod ends;
#[path = "../conformance/filters.rs"]
mod filters;
#[path = "../conformance/handles.rs"]
mod handles;
#[path = "../conformance/input.rs"]
mod input;
#[path = "../conformance/limits.rs"]
mod limits;
#[path = "../conformance/output.rs"]
mod output;
#[path = "../conformance/peers.rs"]
mod peers;
#[path = "../conformance/reasons.rs"]
mod reasons;
#[path = "../conformance/replacing.rs"]
mod replacing;
#[path = "../conformance/stopping.rs"]
mod stopping;
#[path = "../conformance/stuck.rs"]
mod stuck;
#[path = "../conformance/taps.rs"]
mod taps;
#[path = "../conformance/timers.rs"]
mod timers;
