//! Refuses a protocol with a filter inside another one with a filter.

use std::error::Error;
use std::fmt;

use crate::filter::{Filter, FilterResult};
use crate::protocol::Protocol;

/// The filter `own` of a protocol around `inner`. If `inner` has a filter too, the connection fails
/// before it opens. It has room for one: the outer filter would silently replace the inner one, and
/// leave a session without authentication, or bytes in clear.
pub(super) fn alone(own: impl Filter + 'static, inner: &mut impl Protocol) -> Box<dyn Filter> {
    match inner.filter() {
        None => Box::new(own),
        Some(_) => Box::new(Stacked),
    }
}

/// Fails at once.
struct Stacked;

impl Filter for Stacked {
    fn start(&mut self, _: &mut Vec<u8>) -> FilterResult {
        Err(Box::new(TwoFilters))
    }

    fn receive(&mut self, _: &mut [u8], _: &mut Vec<u8>, _: &mut Vec<u8>) -> FilterResult {
        Err(Box::new(TwoFilters))
    }

    fn send(&mut self, _: &[u8], _: &mut Vec<u8>) -> FilterResult {
        Err(Box::new(TwoFilters))
    }
}

#[derive(Debug)]
struct TwoFilters;

impl fmt::Display for TwoFilters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the protocol inside wants a filter too, and a connection has one")
    }
}

impl Error for TwoFilters {}
