//! Ready protocols: what a user could have written, on the public contract.

pub mod http;
