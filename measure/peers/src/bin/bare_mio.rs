//! The echo server on bare mio. `bare_mio PORT` listens on 127.0.0.1:PORT.
#![forbid(unsafe_code)]

use mio::net::TcpListener;
use std::error::Error;

#[path = "../bare_mio.rs"]
mod bare_mio;
#[path = "../listen.rs"]
mod listen;

fn main() -> Result<(), Box<dyn Error>> {
    let socket = listen::on(std::env::args().next_back().unwrap_or_default().parse()?)?;
    socket.set_nonblocking(true)?;
    Ok(bare_mio::serve(TcpListener::from_std(socket.into()))?)
}
