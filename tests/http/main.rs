//! HTTP/1.1 from the outside: what goes in, what comes out, on every driver.
//!
//! `corpus/` has a file per clause of the failure catalogue (H1 to H17) with the statuses it is to
//! be answered with; `corpus.rs` plays each whole, in pieces, with more behind it, and on all
//! drivers. The other modules have what needs a story.

mod answer;
mod bodies;
mod bodiless;
mod bounds;
mod clients;
mod corpus;
mod deadlines;
#[path = "../shared/drivers.rs"]
mod drivers;
mod exchanges;
mod farewells;
mod found;
mod invitations;
mod kit;
#[path = "../shared/plain.rs"]
mod plain;
mod promises;
mod reasons;
mod site;
mod stopped;
mod surface;
mod switches;
mod tunnels;
mod wire;
