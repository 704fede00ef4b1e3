#![doc = include_str!("es/guide.md")]
//!
//! *[In English](super).*

#[doc = include_str!("es/sockets.md")]
pub mod sockets {}

#[doc = include_str!("es/addresses.md")]
pub mod addresses {}

#[doc = include_str!("es/waiting.md")]
pub mod waiting {}

#[doc = include_str!("es/errors.md")]
pub mod errors {}

#[doc = include_str!("es/closing.md")]
pub mod closing {}

#[doc = include_str!("es/many_clients.md")]
pub mod many_clients {}

#[doc = include_str!("es/partial.md")]
pub mod partial {}

#[doc = include_str!("es/pressure.md")]
pub mod pressure {}

#[doc = include_str!("es/security.md")]
pub mod security {}
