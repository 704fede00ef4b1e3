//! What this driver's threads ask of the system: sockets that they sleep in, and the time. The
//! model check puts made-up ones in their place.

#[cfg(all(test, lariat_model))]
pub(super) use super::model::net::{
    TcpListener, TcpStream, connect, listen, now, reset_on_close, wake_accept,
};
#[cfg(not(all(test, lariat_model)))]
pub(super) use real::{TcpListener, TcpStream, connect, listen, now, reset_on_close, wake_accept};

#[cfg(not(all(test, lariat_model)))]
mod real {
    use std::io;
    use std::net::Shutdown;
    use std::time::{Duration, Instant};

    use crate::endpoint::Endpoint;
    use crate::options::ListenOptions;
    use crate::socket;

    pub(crate) use crate::socket::{connect, reset_on_close};
    pub(crate) use std::net::{TcpListener, TcpStream};

    #[inline(always)]
    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    /// Opens a listening socket, which a thread sleeps in.
    pub(crate) fn listen(addr: Endpoint, options: &ListenOptions) -> io::Result<TcpListener> {
        let listener = socket::listen(addr.need_ip()?, options)?;
        listener.set_nonblocking(false)?;
        Ok(listener)
    }

    /// Wakes a thread out of `accept`: by a shutdown of the socket where that helps, by a
    /// connection to it elsewhere.
    pub(crate) fn wake_accept(listener: &TcpListener) {
        let woken = socket2::SockRef::from(listener).shutdown(Shutdown::Both);
        if woken.is_err() || !cfg!(target_os = "linux") {
            if let Ok(addr) = listener.local_addr() {
                drop(TcpStream::connect_timeout(&addr, Duration::from_secs(1)));
            }
        }
    }
}
