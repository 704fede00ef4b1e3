//! A connection that is handed over, and why it may not be.

use std::fmt;

/// Why [`Response::upgrade`](super::Response::upgrade) did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpgradeRefused {
    pub(super) why: &'static str,
}

impl fmt::Display for UpgradeRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot upgrade: {}", self.why)
    }
}

impl std::error::Error for UpgradeRefused {}
