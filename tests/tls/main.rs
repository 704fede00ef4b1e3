//! TLS under a protocol, on every driver: who is there, how a session ends, and what goes wrong.

mod bursts;
mod capture;
mod captured;
mod certs;
mod chains;
mod configs;
mod cuts;
mod dates;
#[path = "../shared/drivers.rs"]
mod drivers;
mod ends;
mod https;
mod keys;
mod kit;
mod late;
mod pcapng;
mod sessions;
mod starttls;
