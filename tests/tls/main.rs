//! TLS under a protocol, on every driver: who is there, how a session ends, and what goes wrong.

mod certs;
mod configs;
mod https;
mod kit;
mod sessions;
