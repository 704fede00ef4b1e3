//! The blocking driver on real sockets: its threads, and what peers at their worst do to them.
//!
//! Clients are sockets of std. Nothing sleeps in order to wait for something else; every wait has
//! an end. The ids in the names are those of the failures that a test holds off: `a..` accepting,
//! `b..` reading and writing, `c..` threads and callbacks, `d..` connecting.

mod connecting;
mod datagrams;
mod ends;
mod faults;
mod flooding;
mod found;
mod kit;
#[path = "../shared/leaks.rs"]
mod leaks;
mod listening;
#[path = "../shared/node.rs"]
mod node;
#[path = "../shared/patience.rs"]
mod patience;
#[path = "../shared/plain.rs"]
mod plain;
#[path = "../shared/sockets.rs"]
mod sockets;
mod stopping;
mod streams;
mod stuck;
mod threads;
#[path = "../shared/trail.rs"]
mod trail;
