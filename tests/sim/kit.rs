//! What the scripted tests share.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use lariat::sim::Sim;
use lariat::{CloseReason, DriverLimits, Limits, ListenOptions, Protocol};

pub(crate) use crate::plain::{Echo, Sink};

pub(crate) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(crate) fn sim_with(seed: u64, change: impl FnOnce(&mut DriverLimits)) -> Sim {
    let mut limits = DriverLimits::default();
    change(&mut limits);
    Sim::with_limits(seed, limits).unwrap()
}

pub(crate) fn serve<P: Protocol + 'static>(
    sim: &mut Sim,
    make: impl FnMut() -> P + 'static,
) -> SocketAddr {
    serve_with(sim, |_| {}, make)
}

pub(crate) fn serve_with<P: Protocol + 'static>(
    sim: &mut Sim,
    change: impl FnOnce(&mut Limits),
    mut make: impl FnMut() -> P + 'static,
) -> SocketAddr {
    let mut options = ListenOptions::default();
    change(&mut options.limits);
    let listener = sim.listen_with("127.0.0.1:0", options, move |_| Some(make())).unwrap();
    sim.addresses(listener)[0].socket_addr().unwrap()
}

/// The reasons that protocols got, in order.
#[derive(Clone, Default)]
pub(crate) struct Reasons(pub(crate) Rc<RefCell<Vec<CloseReason>>>);

impl Reasons {
    pub(crate) fn keep(&self, reason: &CloseReason) {
        self.0.borrow_mut().push(reason.clone());
    }

    pub(crate) fn sentences(&self) -> Vec<String> {
        let reasons = self.0.borrow();
        reasons.iter().map(|reason| format!("{} by {}", reason.kind(), reason.by())).collect()
    }
}

/// A number that protocols and the test share.
pub(crate) type Count = Rc<Cell<u64>>;

pub(crate) fn add(count: &Count, more: u64) {
    count.set(count.get() + more);
}

/// The byte at a place of the stream that the tests send.
pub(crate) fn byte_at(place: usize) -> u8 {
    // A prime period, so that a lost or repeated block shows.
    ((place % 65_521 * 31) >> 3) as u8
}

pub(crate) fn stream(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(byte_at).collect()
}
