//! Sockets that are bound to one network interface.

use std::io;

use socket2::SockRef;

use crate::options::Device;

/// Lets packets come and go by `device` only.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn bind(socket: &SockRef<'_>, device: Device) -> io::Result<()> {
    let name = device.bytes();
    socket.bind_device(Some(name)).map_err(|error| explained(error, name))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn bind(_: &SockRef<'_>, _: Device) -> io::Result<()> {
    let sentence = "this system does not bind sockets to an interface";
    Err(io::Error::new(io::ErrorKind::Unsupported, sentence))
}

/// What the system means by its errors.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn explained(error: io::Error, name: &[u8]) -> io::Error {
    let name = String::from_utf8_lossy(name);
    let sentence = match error.raw_os_error() {
        Some(libc::ENODEV) => format!("there is no network interface {name}"),
        // Linux before 5.7, or a socket that was adopted and is bound to another interface.
        Some(libc::EPERM) => {
            format!("to bind a socket to {name} here needs root or the capability CAP_NET_RAW")
        }
        _ => return error,
    };
    io::Error::new(error.kind(), sentence)
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_system_is_a_sentence_with_the_name() {
        let told = |errno| explained(io::Error::from_raw_os_error(errno), b"eth9").to_string();
        assert_eq!(told(libc::ENODEV), "there is no network interface eth9");
        let capability = "to bind a socket to eth9 here needs root or the capability CAP_NET_RAW";
        assert_eq!(told(libc::EPERM), capability);
        assert!(told(libc::ENOMEM).contains("memory"), "others stay as they are");
    }
}
