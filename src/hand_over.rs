//! Descriptors that another process gets, by messages of a Unix socket (`SCM_RIGHTS`, unix(7)): how
//! a new version of a server takes over the listening sockets of the old one.
//!
//! Each call is one system call on a socket of the program's own. A listener is opened by the
//! program and adopted, so that it has a descriptor of its own to hand over:
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::{TcpListener, TcpStream};
//! use std::os::unix::net::UnixStream;
//! # use lariat::{Context, Input, Outcome, Protocol};
//! # struct Echo;
//! # impl Protocol for Echo {
//! #     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
//! #         cx.write(input);
//! #         input.consume_all();
//! #         Ok(())
//! #     }
//! # }
//! use lariat::{ListenOptions, hand_over, reactor::Reactor};
//!
//! // The old process, at the other end of a Unix socket.
//! let (old, new) = UnixStream::pair()?;
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let addr = listener.local_addr()?;
//! hand_over::send(&old, b"http", &[&listener])?;
//! drop(listener);
//!
//! // The new one.
//! let mut label = [0; 16];
//! let received = hand_over::receive(&new, &mut label)?;
//! assert_eq!(&label[..received.len], b"http");
//! let listener = received.descriptors.into_iter().next().ok_or("none came")?;
//! let mut reactor = Reactor::new()?;
//! reactor.control().adopt_listener(listener, ListenOptions::default(), |_| Some(Echo))?;
//! let handle = reactor.handle();
//! let client = std::thread::spawn(move || -> std::io::Result<[u8; 5]> {
//!     let mut client = TcpStream::connect(addr)?;
//!     client.write_all(b"hello")?;
//!     let mut answer = [0; 5];
//!     client.read_exact(&mut answer)?;
//!     handle.shutdown();
//!     Ok(answer)
//! });
//! reactor.run()?;
//! assert_eq!(&client.join().unwrap()?, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Clients that wait in the listener's queue are not lost: the queue belongs to the socket, which
//! both processes have until the old one closes it. Those that the old one has accepted by then are
//! served by it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{FdFlags, fcntl_setfd, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Descriptors in one message, at most: what Linux allows (`SCM_MAX_FD`).
pub const DESCRIPTORS_MAX: usize = 253;

/// Sends `descriptors` with the first of `bytes`, and returns how many bytes were sent. The
/// descriptors stay open here; the receiver gets others for the same sockets or files.
///
/// One call of `sendmsg`, without SIGPIPE. On a stream it may send fewer bytes than there are; the
/// descriptors have gone then, and the rest is to be written without them. On a blocking socket it
/// sleeps while the socket has no room.
///
/// # Errors
///
/// [`InvalidInput`](io::ErrorKind::InvalidInput): no byte, no descriptor, or more than
/// [`DESCRIPTORS_MAX`]. Otherwise those of sendmsg(2): [`WouldBlock`](io::ErrorKind::WouldBlock),
/// for instance, of a nonblocking socket without room. Nothing was sent then.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[impl AsFd]) -> io::Result<usize> {
    if bytes.is_empty() {
        return invalid("descriptors need a byte that they come with");
    }
    if descriptors.is_empty() || descriptors.len() > DESCRIPTORS_MAX {
        return invalid("a message has 1 to 253 descriptors");
    }
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let rights = SendAncillaryMessage::ScmRights(&descriptors);
    let mut space = vec![MaybeUninit::uninit(); rights.size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(rights) {
        return invalid("the descriptors do not fit into a message");
    }
    let bytes = [IoSlice::new(bytes)];
    Ok(retry_on_intr(|| sendmsg(&socket, &bytes, &mut control, flags()))?)
}

/// Does not let a socket whose peer is gone end the process.
fn flags() -> SendFlags {
    #[cfg(not(target_vendor = "apple"))]
    return SendFlags::NOSIGNAL;
    #[cfg(target_vendor = "apple")]
    SendFlags::empty()
}

/// What a message held.
#[derive(Debug)]
#[non_exhaustive]
pub struct Received {
    /// Bytes at the beginning of the buffer that have been filled. 0: the peer has finished.
    pub len: usize,
    /// Its descriptors, in the order of the sender, with close-on-exec set.
    pub descriptors: Vec<OwnedFd>,
}

/// Receives bytes, at most those that `buffer` takes, and the descriptors that came with them.
///
/// One call of `recvmsg`. A stream does not join messages that have descriptors, but may cut the
/// bytes of one: the descriptors come with the first.
///
/// # Errors
///
/// Those of recvmsg(2). [`InvalidData`](io::ErrorKind::InvalidData): the system could not hand over
/// all descriptors, because this process may not open as many; those that came are closed again.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [IoSliceMut::new(buffer)];
    #[cfg(not(target_vendor = "apple"))]
    let flags = RecvFlags::CMSG_CLOEXEC;
    #[cfg(target_vendor = "apple")]
    let flags = RecvFlags::empty();
    let message = retry_on_intr(|| recvmsg(&socket, &mut bytes, &mut control, flags))?;
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        let sentence = "some descriptors did not come: this process may not open as many";
        return Err(io::Error::new(io::ErrorKind::InvalidData, sentence));
    }
    if cfg!(target_vendor = "apple") {
        for descriptor in &descriptors {
            fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
        }
    }
    Ok(Received { len: message.bytes, descriptors })
}

fn invalid<T>(sentence: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidInput, sentence))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
        result.map(drop).unwrap_err().kind()
    }

    #[test]
    fn descriptors_come_in_order_with_the_first_byte_and_lead_to_the_same_sockets() {
        let (old, new) = UnixStream::pair().unwrap();
        let pairs: Vec<_> = (0..3).map(|_| UnixStream::pair().unwrap()).collect();
        let ends: Vec<_> = pairs.iter().map(|(end, _)| end).collect();
        assert_eq!(send(&old, b"abc", &ends).unwrap(), 3);
        let mut byte = [0];
        let received = receive(&new, &mut byte).unwrap();
        assert_eq!((received.len, &byte), (1, b"a"));
        assert_eq!(received.descriptors.len(), 3);
        let mut rest = [0; 9];
        let later = receive(&new, &mut rest).unwrap();
        assert_eq!((later.len, later.descriptors.len()), (2, 0));
        assert_eq!(&rest[..2], b"bc");
        for (number, (descriptor, (end, other))) in
            received.descriptors.into_iter().zip(pairs).enumerate()
        {
            let flags = rustix::io::fcntl_getfd(&descriptor).unwrap();
            assert!(flags.contains(FdFlags::CLOEXEC));
            assert_ne!(descriptor.as_raw_fd(), end.as_raw_fd());
            drop(end);
            UnixStream::from(descriptor).write_all(&[number as u8]).unwrap();
            let mut all = Vec::new();
            (&other).read_to_end(&mut all).unwrap();
            assert_eq!(all, [number as u8]);
        }
    }

    #[test]
    fn a_message_has_at_least_a_byte_and_a_descriptor_and_at_most_253() {
        let (old, new) = UnixStream::pair().unwrap();
        assert_eq!(kind(send(&old, b"", &[&old])), io::ErrorKind::InvalidInput);
        assert_eq!(kind(send(&old, b"x", &[] as &[&UnixStream])), io::ErrorKind::InvalidInput);
        assert_eq!(kind(send(&old, b"x", &[&old; 254])), io::ErrorKind::InvalidInput);
        for count in [1, 252, 253] {
            assert_eq!(send(&old, b"x", &vec![&old; count]).unwrap(), 1);
            let received = receive(&new, &mut [0; 2]).unwrap();
            assert_eq!((received.len, received.descriptors.len()), (1, count));
        }
    }

    #[test]
    fn plain_bytes_the_end_and_a_peer_that_is_gone_are_what_they_are_of_any_stream() {
        let (mut old, new) = UnixStream::pair().unwrap();
        new.set_nonblocking(true).unwrap();
        assert_eq!(kind(receive(&new, &mut [0; 8])), io::ErrorKind::WouldBlock);
        old.write_all(b"plain").unwrap();
        let mut buffer = [0; 8];
        let received = receive(&new, &mut buffer).unwrap();
        assert_eq!((received.len, received.descriptors.len()), (5, 0));
        drop(old);
        assert_eq!(receive(&new, &mut buffer).unwrap().len, 0);
        assert_eq!(kind(send(&new, b"x", &[&new])), io::ErrorKind::BrokenPipe);
    }
}
