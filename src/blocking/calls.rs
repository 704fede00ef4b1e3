//! Calls on sockets that sleep, and on such sockets without sleeping.

use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;

use socket2::Socket;

use crate::socket::{NO_SIGNAL, retry};

/// Sends, and sleeps until there is room.
pub(crate) fn write(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    socket.send_with_flags(bytes, NO_SIGNAL)
}

/// Sends without sleeping.
#[inline(always)]
pub(crate) fn send(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    socket.send_with_flags(bytes, NO_SIGNAL | libc::MSG_DONTWAIT)
}

/// Sends several slices without sleeping.
pub(crate) fn send_vectored(socket: &Socket, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    socket.send_vectored_with_flags(slices, NO_SIGNAL | libc::MSG_DONTWAIT)
}

/// Whether a read would find bytes or the end. An error of the connection is returned: the system
/// tells it once, and the next read would find the end of the stream in its place.
pub(crate) fn has_input(socket: &Socket) -> io::Result<bool> {
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    match retry(|| socket.recv_with_flags(&mut [MaybeUninit::uninit()], flags)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}
