//! Authentication by a token: exchanges, sealed frames and datagrams, and those who try to pass
//! without the token.

mod attacks;
mod challenges;
mod datagrams;
mod kit;
mod peers;
mod sessions;
mod stacked;
mod tokens;
