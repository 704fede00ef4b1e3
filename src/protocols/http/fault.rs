//! A fault of the peer, and the status that answers it.

use super::Status;

/// A request that ends its connection: the status to answer, and a sentence for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: Status,
    pub(super) why: &'static str,
}

impl Fault {
    pub(super) const fn new(status: Status, why: &'static str) -> Fault {
        Fault { status, why }
    }

    pub(super) const fn bad(why: &'static str) -> Fault {
        Fault::new(Status::BAD_REQUEST, why)
    }
}
