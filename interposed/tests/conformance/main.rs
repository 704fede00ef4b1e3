//! The scenarios of lariat's conformance list, unchanged, over a simulated system. `README.md` says
//! which are left out, and why.

#[path = "../shared/drivers.rs"]
mod drivers;
#[allow(dead_code, reason = "the scenarios of offload are left out")]
#[path = "../../../tests/conformance/kit.rs"]
mod kit;
#[path = "../shared/lacks.rs"]
mod lacks;
#[path = "../../../tests/shared/leaks.rs"]
mod leaks;
#[path = "../../../tests/shared/node.rs"]
mod node;
#[path = "../../../tests/shared/patience.rs"]
mod patience;
#[path = "../../../tests/shared/silence.rs"]
mod silence;
#[path = "../../../tests/shared/sockets.rs"]
mod sockets;
#[path = "../../../tests/shared/toy.rs"]
mod toy;

#[path = "../../../tests/conformance/adopting.rs"]
mod adopting;
#[path = "../../../tests/conformance/balancers.rs"]
mod balancers;
#[path = "../../../tests/conformance/bounds.rs"]
mod bounds;
#[path = "../../../tests/conformance/callbacks.rs"]
mod callbacks;
#[path = "../../../tests/conformance/context.rs"]
mod context;
#[path = "../../../tests/conformance/counters.rs"]
mod counters;
#[path = "../../../tests/conformance/datagram_peers.rs"]
mod datagram_peers;
#[path = "../../../tests/conformance/datagrams.rs"]
mod datagrams;
#[path = "../../../tests/conformance/discards.rs"]
mod discards;
#[path = "../../../tests/conformance/driver_timers.rs"]
mod driver_timers;
#[path = "../../../tests/conformance/ends.rs"]
mod ends;
#[path = "../../../tests/conformance/filters.rs"]
mod filters;
#[path = "../../../tests/conformance/handles.rs"]
mod handles;
#[path = "../../../tests/conformance/handshakes.rs"]
mod handshakes;
#[path = "../../../tests/conformance/input.rs"]
mod input;
#[path = "../../../tests/conformance/jobs.rs"]
mod jobs;
#[path = "../../../tests/conformance/limits.rs"]
mod limits;
#[path = "../../../tests/conformance/listening.rs"]
mod listening;
#[path = "../../../tests/conformance/names.rs"]
mod names;
#[path = "../../../tests/conformance/output.rs"]
mod output;
#[path = "../../../tests/conformance/outside.rs"]
mod outside;
#[path = "../../../tests/conformance/peers.rs"]
mod peers;
#[path = "../../../tests/conformance/reasons.rs"]
mod reasons;
#[path = "../../../tests/conformance/replacing.rs"]
mod replacing;
#[path = "../../../tests/conformance/sniffing.rs"]
mod sniffing;
#[path = "../../../tests/conformance/stopping.rs"]
mod stopping;
#[path = "../../../tests/conformance/stuck.rs"]
mod stuck;
#[path = "../../../tests/conformance/taps.rs"]
mod taps;
#[path = "../../../tests/conformance/timers.rs"]
mod timers;
#[path = "../../../tests/conformance/tunnels.rs"]
mod tunnels;
