//! The reactor on real sockets: what the kernel, and peers at their worst, do to it.
//!
//! Clients are sockets of std, in threads of their own, or protocols on the same reactor. Nothing
//! sleeps in order to wait for something else; every wait has an end. The ids in the names are
//! those of the failures that a test holds off: `a..` accepting, `b..` reading and writing, `c..`
//! the loop.

mod adopting;
mod callbacks;
mod common;
mod connecting;
mod datagrams;
mod detaching;
mod ends;
mod flooding;
mod found;
mod late;
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
mod streams;
#[path = "../shared/trail.rs"]
mod trail;
mod turning;
