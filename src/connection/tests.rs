//! The sans-IO connection alone, with a simulated socket and a scripted protocol.

mod closing;
mod deadlines;
mod filtered;
mod filters;
mod input;
mod leaving;
mod output;
mod random;
mod rare;
mod rig;
mod toy;

use super::Connection;

/// Ten thousand idle connections are ten thousand of these: the goal is at most 200 bytes each,
/// with the socket, the protocol and the timer.
#[test]
fn an_idle_connection_is_at_most_112_bytes() {
    let size = size_of::<Connection>();
    assert!(size <= 112, "{size} bytes: what is rare belongs into the rare part");
}
