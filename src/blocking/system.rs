//! What this driver's threads need of the system: sockets that they sleep in, and the time. The
//! model check replaces them by simulated ones.

#[cfg(all(test, lariat_model))]
pub(super) use super::model::net::{
    Listener, TcpStream as Stream, adopted, connect, has_input, now, reset_on_close, send,
    send_vectored, sockets, threads_max, wake_accept, write,
};
#[cfg(all(test, lariat_model))]
pub(super) use super::model::udp::Datagrams;
#[cfg(not(all(test, lariat_model)))]
pub(super) use real::{
    Datagrams, Listener, Stream, adopted, connect, has_input, now, reset_on_close, send,
    send_vectored, sockets, threads_max, wake_accept, write,
};

#[cfg(not(all(test, lariat_model)))]
mod real {
    use std::io::{self, ErrorKind, IoSlice};
    use std::mem::MaybeUninit;
    use std::net::Shutdown;
    use std::os::fd::OwnedFd;
    use std::time::{Duration, Instant};

    use socket2::SockRef;

    use crate::protocol::Sockets;
    use crate::socket::{NO_SIGNAL, SystemSockets, touch};

    pub(crate) use crate::socket::{Datagrams, Listener, connect, reset_on_close};
    pub(crate) use socket2::Socket as Stream;

    #[inline(always)]
    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    /// Sockets that threads sleep in.
    pub(crate) fn sockets() -> Box<dyn Sockets> {
        Box::new(SystemSockets { nonblocking: false })
    }

    /// A stream that was connected elsewhere, and has been prepared.
    pub(crate) fn adopted(stream: OwnedFd) -> Stream {
        stream.into()
    }

    /// Wakes a thread out of `accept`: by a shutdown of the socket where that helps, by a
    /// connection to it elsewhere. False if another may take that connection: a process that has
    /// the socket as well, or another socket of the same port.
    pub(crate) fn wake_accept(listener: &Listener) -> bool {
        let Listener { socket, gives, .. } = listener;
        let socket = SockRef::from(socket);
        // A socket that was adopted may be another process's as well, and has to go on listening.
        let ours = cfg!(target_os = "linux") && gives.is_none();
        if ours && socket.shutdown(Shutdown::Both).is_ok() {
            return true;
        }
        if let Err(error) = touch(&socket, Duration::from_secs(1)) {
            log::debug!(target: "lariat::accept", "cannot wake an accept: {error}");
        }
        false
    }

    /// Sends, and sleeps until there is room.
    pub(crate) fn write(socket: &Stream, bytes: &[u8]) -> io::Result<usize> {
        socket.send_with_flags(bytes, NO_SIGNAL)
    }

    /// Sends without sleeping.
    #[inline(always)]
    pub(crate) fn send(socket: &Stream, bytes: &[u8]) -> io::Result<usize> {
        socket.send_with_flags(bytes, NO_SIGNAL | libc::MSG_DONTWAIT)
    }

    /// Sends several slices without sleeping.
    pub(crate) fn send_vectored(socket: &Stream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        socket.send_vectored_with_flags(slices, NO_SIGNAL | libc::MSG_DONTWAIT)
    }

    /// Whether a read would find bytes or the end. An error of the connection is returned: the
    /// system tells it once, and the next read would find the end of the stream in its place.
    pub(crate) fn has_input(socket: &Stream) -> io::Result<bool> {
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        match crate::socket::retry(|| socket.recv_with_flags(&mut [MaybeUninit::uninit()], flags)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// How many threads the system bears: each takes four of a process's maps. A quarter of them is
    /// left to everything else.
    pub(crate) fn threads_max() -> usize {
        let read = |path| {
            let text: io::Result<String> = std::fs::read_to_string(path);
            text.ok().and_then(|text| text.trim().parse::<usize>().ok())
        };
        let maps = read("/proc/sys/vm/max_map_count").map(|maps| maps / 4);
        let threads = read("/proc/sys/kernel/threads-max");
        let most = maps.into_iter().chain(threads).min();
        most.map_or(usize::MAX, |most| most / 4 * 3)
    }
}
