//! Listening sockets, as the threads of a driver share them.

use std::sync::Arc;

use super::system::{self, Listener};
use crate::endpoint::Endpoint;
use crate::id::ListenerId;
use crate::sync::atomic::{AtomicBool, Ordering};

/// One call of `listen`.
pub(super) struct Listening {
    pub(super) id: ListenerId,
    pub(super) sockets: Vec<Arc<Socket>>,
}

/// One listening socket, which its acceptor thread sleeps in.
pub(super) struct Socket {
    pub(super) addr: Endpoint,
    pub(super) listener: Listener,
    stopped: AtomicBool,
}

impl Socket {
    pub(super) fn new(addr: Endpoint, listener: Listener) -> Socket {
        Socket { addr, listener, stopped: AtomicBool::new(false) }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Wakes the thread out of `accept`. False if it may have to be woken once more.
    pub(super) fn stop(&self) -> bool {
        self.stopped.store(true, Ordering::Release);
        system::wake_accept(&self.listener)
    }
}

#[cfg(all(test, target_os = "linux", not(lariat_model)))]
mod tests {
    use std::net::TcpStream;
    use std::os::fd::AsFd;

    use super::*;
    use crate::endpoint::UnixName;
    use crate::options::ListenOptions;

    #[test]
    fn the_path_of_a_listener_is_free_as_soon_as_it_is_stopped() {
        let path = std::env::temp_dir().join(format!("lariat-stopped-{}", std::process::id()));
        let listen = || {
            let addr = UnixName::from_pathname(&path).unwrap().into();
            let bound = system::sockets().listen(addr, &ListenOptions::default()).unwrap();
            Socket::new(bound.addr, *bound.socket.downcast().unwrap())
        };
        let first = listen();
        assert!(first.stop());
        assert!(!path.exists());
        let second = listen();
        // The thread of the first one has noticed, and drops it.
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_port_is_free_as_soon_as_its_listener_is_stopped_also_beside_a_fork() {
        let listen = |addr| {
            let bound = system::sockets().listen(addr, &ListenOptions::default()).unwrap();
            Socket::new(bound.addr, *bound.socket.downcast().unwrap())
        };
        // An address that no other test listens at.
        let first = listen(Endpoint::Ip(([127, 0, 0, 74], 0).into()));
        // As a child has it between `fork` and `exec`.
        let child = first.listener.socket.as_fd().try_clone_to_owned().unwrap();
        assert!(first.stop());
        assert!(TcpStream::connect(first.addr.socket_addr().unwrap()).is_err());
        let again = listen(first.addr);
        TcpStream::connect(first.addr.socket_addr().unwrap()).unwrap();
        drop((child, again));
    }
}
