//! The tools for users' own protocols: `Probe`, `every_split`, `check`.

mod checking;
mod probes;
mod protocols;
mod splits;
#[path = "../shared/toy.rs"]
mod toy;
