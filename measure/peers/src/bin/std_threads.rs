//! The echo server on plain threads.
//!
//! `std_threads PORT` listens on 127.0.0.1:PORT. `std_threads --pool PORT` keeps at most 64 buffers
//! of connections that have ended for the next ones, as lariat does.
#![forbid(unsafe_code)]

use std::error::Error;

#[path = "../listen.rs"]
mod listen;
#[path = "../std_threads.rs"]
mod std_threads;

fn main() -> Result<(), Box<dyn Error>> {
    let socket = listen::on(std::env::args().next_back().unwrap_or_default().parse()?)?;
    let pools = std::env::args().any(|argument| argument == "--pool");
    Ok(std_threads::serve(&socket.into(), pools)?)
}
