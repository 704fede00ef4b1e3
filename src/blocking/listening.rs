//! Listening sockets, as the threads of a driver share them.

use std::io;
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

/// One listening socket, which its acceptor thread waits for.
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

    /// Sleeps until `accept` finds a client or fails. Once stopped it fails, and calls `accept` at
    /// most on a socket that is shut down.
    pub(super) fn wait_for_client<T>(
        &self,
        accept: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        system::wait_for_client(&self.listener, accept, &self.stopped)
    }

    /// Wakes the thread that waits for a client.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        system::wake_accept(&self.listener);
    }
}

#[cfg(all(test, not(lariat_model)))]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::sync::mpsc;
    use std::time::Duration;

    use socket2::SockRef;

    use super::*;
    use crate::endpoint::UnixName;
    use crate::options::ListenOptions;

    fn listen(addr: impl Into<Endpoint>) -> Socket {
        let bound = system::sockets().listen(addr.into(), &ListenOptions::default()).unwrap();
        Socket::new(bound.addr, *bound.socket.downcast().unwrap())
    }

    fn adopt(socket: impl Into<OwnedFd>) -> Socket {
        let bound = system::sockets().adopt_listener(socket.into(), &ListenOptions::default());
        let bound = bound.unwrap_or_else(|(error, _)| panic!("{error}"));
        Socket::new(bound.addr, *bound.socket.downcast().unwrap())
    }

    /// A path that is free.
    fn path(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("lariat-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    /// A thread that waits for a client of `socket`. It says true when it is called, and in the end
    /// whether it has one.
    fn acceptor(socket: &Arc<Socket>) -> mpsc::Receiver<bool> {
        let (tell, told) = mpsc::channel();
        let socket = Arc::clone(socket);
        std::thread::spawn(move || {
            let accepted = socket.wait_for_client(|| {
                // A listener of its own is slept in.
                let _ = tell.send(true);
                system::accept(&socket.listener)
            });
            // Before it says so: the test is its last owner then.
            drop(socket);
            let _ = tell.send(accepted.is_ok());
        });
        told
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn the_path_of_a_listener_is_free_as_soon_as_it_is_stopped() {
        let path = path("stopped");
        let name = UnixName::from_pathname(&path).unwrap();
        let first = listen(name);
        first.stop();
        assert!(!path.exists());
        let second = listen(name);
        // The thread of the first one has noticed, and drops it.
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_port_is_free_as_soon_as_its_listener_is_stopped_also_beside_a_fork() {
        // An address that no other test listens at.
        let first = listen(Endpoint::Ip(([127, 0, 0, 74], 0).into()));
        // As a child has it between `fork` and `exec`.
        let child = std::os::fd::AsFd::as_fd(&first.listener.socket).try_clone_to_owned().unwrap();
        first.stop();
        assert!(TcpStream::connect(first.addr.socket_addr().unwrap()).is_err());
        let again = listen(first.addr);
        TcpStream::connect(first.addr.socket_addr().unwrap()).unwrap();
        drop((child, again));
    }

    #[test]
    fn a_thread_that_waits_is_woken_by_the_stop_and_each_later_one_as_well() {
        let adopted = || adopt(TcpListener::bind("127.0.0.1:0").unwrap());
        for socket in [listen(std::net::SocketAddr::from(([127, 0, 0, 1], 0))), adopted()] {
            let socket = Arc::new(socket);
            let waits = acceptor(&socket);
            assert_eq!(waits.recv(), Ok(true));
            socket.stop();
            assert_eq!(waits.recv_timeout(PATIENCE), Ok(false), "it sleeps on");
            let later = acceptor(&socket);
            let said = [later.recv_timeout(PATIENCE), later.recv_timeout(PATIENCE)];
            assert!(said.contains(&Ok(false)), "it sleeps");
        }
    }

    #[test]
    fn a_stopped_listener_leaves_its_clients_to_those_who_have_it_as_well() {
        let kept = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = Arc::new(adopt(kept.try_clone().unwrap()));
        assert!(SockRef::from(&kept).nonblocking().unwrap());
        let client = TcpStream::connect(kept.local_addr().unwrap()).unwrap();
        socket.stop();
        assert_eq!(acceptor(&socket).recv_timeout(PATIENCE), Ok(false), "it is not called");
        drop(socket);
        assert!(SockRef::from(&kept).nonblocking().unwrap());
        kept.set_nonblocking(false).unwrap();
        assert_eq!(kept.accept().unwrap().1, client.local_addr().unwrap());
        // What has woken the thread is seen by nobody.
        kept.set_nonblocking(true).unwrap();
        assert_eq!(kept.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn the_file_of_an_adopted_listener_is_left_to_its_owner() {
        let path = path("owned");
        let socket = adopt(UnixListener::bind(&path).unwrap());
        socket.stop();
        drop(socket);
        assert!(path.exists());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_client_that_another_takes_wakes_the_thread_for_nothing_and_it_sleeps_on() {
        let kept = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = kept.local_addr().unwrap();
        let socket = adopt(kept.try_clone().unwrap());
        assert!(SockRef::from(&kept).nonblocking().unwrap());
        let (tell, told) = mpsc::channel();
        let (mut calls, mut taken) = (0, 0);
        let client = std::thread::spawn(move || {
            told.recv().unwrap();
            let _first = TcpStream::connect(addr).unwrap();
            told.recv().unwrap();
            TcpStream::connect(addr).unwrap().local_addr().unwrap()
        });
        let accepted = socket.wait_for_client(|| {
            calls += 1;
            if calls == 1 {
                tell.send(()).unwrap();
            }
            if taken == 0 && kept.accept().is_ok() {
                taken += 1;
                let nothing = system::accept(&socket.listener).map(drop).unwrap_err();
                tell.send(()).unwrap();
                return Err(nothing);
            }
            system::accept(&socket.listener)
        });
        assert_eq!(accepted.unwrap().1, client.join().unwrap());
        assert_eq!(taken, 1);
        // It may have been called before the first client, and between it and its event.
        assert!(calls <= 5, "it was called {calls} times instead of sleeping");
    }

    #[test]
    fn an_accepted_stream_sleeps_although_its_listener_does_not() {
        let kept = TcpListener::bind("127.0.0.1:0").unwrap();
        SockRef::from(&kept).set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let socket = adopt(kept.try_clone().unwrap());
        let _client = TcpStream::connect(kept.local_addr().unwrap()).unwrap();
        let (stream, _) = socket.wait_for_client(|| system::accept(&socket.listener)).unwrap();
        #[cfg(feature = "fd")]
        let stream = match stream {
            system::Stream::Socket(stream) => stream,
            system::Stream::Other(_) => unreachable!("it is a socket"),
        };
        let stream = SockRef::from(&stream);
        assert!(!stream.nonblocking().unwrap());
        assert_eq!(stream.read_timeout().unwrap(), None);
    }
}
