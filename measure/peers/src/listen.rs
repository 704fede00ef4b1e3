//! mio's own `bind` and that of the standard library ask for a backlog of 128 at most on some
//! systems; all peers get 4,096.

use socket2::{Domain, Socket, Type};
use std::io::Result;
use std::net::{Ipv4Addr, SocketAddr};

/// A socket that listens on 127.0.0.1:`port`.
pub(crate) fn on(port: u16) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    Ok(socket)
}
