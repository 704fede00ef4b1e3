//! The tools for users' own protocols: `Probe`, `every_split`, `check`.

mod checking;
mod framing;
mod planned;
mod probes;
mod protocols;
mod proxy_headers;
mod shrinking;
mod sniffing;
mod splits;
#[path = "../shared/toy.rs"]
mod toy;
