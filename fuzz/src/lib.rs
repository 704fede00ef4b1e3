//! What the fuzzer's bytes do to lariat, and the rules that must hold whatever they do.
//!
//! The bytes are a program, read front to back: see [`Script`]. [`connection`] is one connection
//! whose callbacks and whose peer do anything at all, in any order; [`simulator`] is a network of
//! well-behaved servers and clients in which the bytes decide what goes wrong; [`http`] is what may
//! be requests, for a handler that answers in every way; [`framing`] is a stream of frames in every
//! format; [`headers`] is what a connection may begin with; [`tls`] is a session whose wire is
//! tampered with. All run on the public API alone, and panic when a rule is broken.
//!
//! The fuzz targets hand these functions the fuzzer's bytes; `tests/corpus.rs` hands them bytes
//! that are always the same, and needs nothing but a stable compiler.

pub mod connection;
pub mod framing;
pub mod headers;
pub mod http;
mod script;
pub mod simulator;
pub mod tls;
#[path = "../../tests/shared/toy.rs"]
mod toy;

pub use script::Script;
