//! TLS under a protocol, on every driver: who is there, how a session ends, and what goes wrong.

mod capture;
mod certs;
mod chains;
mod configs;
mod cuts;
#[path = "../shared/drivers.rs"]
mod drivers;
mod https;
mod kit;
mod sessions;
