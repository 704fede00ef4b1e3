//! Tests that need what the simulated system does not have. `README.md` lists the calls.

/// Which drivers cannot run a test.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    None,
    Blocking,
    Both,
}

pub(crate) fn lack(_: &str) -> Lack {
    Lack::None
}
