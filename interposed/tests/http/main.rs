//! The tests of HTTP of `tests/http`, unchanged, over a simulated system.

#[path = "../shared/drivers.rs"]
mod drivers;
#[path = "../shared/lacks.rs"]
mod lacks;

#[path = "../../../tests/http/answer.rs"]
mod answer;
#[path = "../../../tests/http/bodies.rs"]
mod bodies;
#[path = "../../../tests/http/bodiless.rs"]
mod bodiless;
#[path = "../../../tests/http/bounds.rs"]
mod bounds;
#[path = "../../../tests/http/clients.rs"]
mod clients;
#[path = "../../../tests/http/corpus.rs"]
mod corpus;
#[path = "../../../tests/http/deadlines.rs"]
mod deadlines;
#[path = "../../../tests/http/exchanges.rs"]
mod exchanges;
#[path = "../../../tests/http/found.rs"]
mod found;
#[path = "../../../tests/http/kit.rs"]
mod kit;
#[path = "../../../tests/shared/plain.rs"]
mod plain;
#[path = "../../../tests/http/reasons.rs"]
mod reasons;
#[path = "../../../tests/http/site.rs"]
mod site;
#[path = "../../../tests/http/stopped.rs"]
mod stopped;
#[path = "../../../tests/http/surface.rs"]
mod surface;
#[path = "../../../tests/http/switches.rs"]
mod switches;
#[path = "../../../tests/http/tunnels.rs"]
mod tunnels;
