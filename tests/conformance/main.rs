//! What every driver does alike: scripted scenarios, each with the callbacks that must come of it.
//!
//! A scenario is a function over a [`Stage`](kit::Stage), which knows its driver only as
//! `dyn lariat::Driver`. It runs in the simulator with several seeds, with and without a rough
//! network, and over real sockets on the reactor and on blocking threads; the traces must be the
//! same.

mod adopting;
mod adopting_datagrams;
mod adopting_listeners;
mod balancers;
mod bounds;
mod callbacks;
mod clients;
mod connecting;
mod context;
mod counters;
mod datagram_families;
mod datagram_offload;
mod datagram_peers;
mod datagram_places;
mod datagrams;
mod descriptors;
mod detaching;
mod discards;
mod driver_timers;
#[path = "../shared/drivers.rs"]
mod drivers;
mod early_notes;
mod ends;
mod filters;
mod handles;
mod handshakes;
mod input;
mod jobs;
mod kept;
mod kit;
#[path = "../shared/leaks.rs"]
mod leaks;
mod limits;
mod listening;
mod names;
#[path = "../shared/node.rs"]
mod node;
mod output;
mod outside;
mod overtaking;
#[path = "../shared/patience.rs"]
mod patience;
mod peers;
mod reasons;
mod reconnecting;
mod replacing;
#[path = "../shared/silence.rs"]
mod silence;
mod sniffing;
#[path = "../shared/sockets.rs"]
mod sockets;
mod stopping;
mod storms;
mod stuck;
mod taps;
mod timers;
#[path = "../shared/toy.rs"]
mod toy;
mod tunnels;
mod unix;
mod unix_datagrams;
