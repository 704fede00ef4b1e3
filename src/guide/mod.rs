#![doc = include_str!("en/guide.md")]
//!
//! *[En español](es).*

pub mod es;

#[doc = include_str!("en/sockets.md")]
pub mod sockets {}

#[doc = include_str!("en/addresses.md")]
pub mod addresses {}

#[doc = include_str!("en/waiting.md")]
pub mod waiting {}

#[doc = include_str!("en/errors.md")]
pub mod errors {}

#[doc = include_str!("en/closing.md")]
pub mod closing {}

#[doc = include_str!("en/many_clients.md")]
pub mod many_clients {}

#[doc = include_str!("en/partial.md")]
pub mod partial {}

#[doc = include_str!("en/pressure.md")]
pub mod pressure {}

#[doc = include_str!("en/security.md")]
pub mod security {}
