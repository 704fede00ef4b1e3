//! An address from which no answer comes.

#![allow(dead_code)]

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

/// A listener that lets nobody in: its queue is full, so that the system answers no connect.
pub(crate) struct Silent {
    pub(crate) addr: SocketAddr,
    _listener: Socket,
    _queued: Vec<Socket>,
}

pub(crate) fn silent() -> Silent {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    // One more than it takes, on any system: the last of them gets no answer.
    for _ in 0..4 {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        let _ = client.connect(&addr);
        queued.push(client);
    }
    Silent { addr: addr.as_socket().unwrap(), _listener: listener, _queued: queued }
}

/// Whether a full queue is silent here: Linux drops what it cannot queue.
pub(crate) fn has_silence() -> bool {
    cfg!(target_os = "linux")
}
