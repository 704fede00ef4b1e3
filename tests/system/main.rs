//! What needs a process of its own: system calls that fail, networks, signals, the log.
//!
//! Each test runs this binary again, for itself alone, on both drivers with real sockets. Where the
//! machine does not allow what a test needs, the test says so and does nothing.

mod accepting;
mod connecting;
mod datagrams;
mod hand_over;
mod http_logs;
mod kit;
mod logs;
#[path = "../shared/patience.rs"]
mod patience;
#[path = "../shared/plain.rs"]
mod plain;
mod reaching;
mod reports;
mod signals;
mod stopped;
mod transfers;
mod unix;
mod wakes;
