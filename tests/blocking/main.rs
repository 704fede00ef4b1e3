//! The blocking driver on real sockets: its threads, and what peers at their worst do to them.
//!
//! Clients are sockets of std. Nothing sleeps in order to wait for something else; every wait has
//! an end. The ids in the names are those of the failures that a test holds off: `a..` accepting,
//! `b..` reading and writing, `c..` threads and callbacks, `d..` connecting.

mod connecting;
mod datagrams;
mod ends;
mod faults;
mod found;
mod kit;
mod listening;
#[path = "../shared/node.rs"]
mod node;
mod stopping;
mod streams;
mod stuck;
mod threads;
