//! The credentials of the peer of a Unix stream.

use std::os::fd::AsFd;

use crate::credentials::PeerCredentials;

/// Asks the system; None where it does not tell. The socket is one of the Unix family: of others
/// the system tells a process 0, which is none.
pub(super) fn of_peer(socket: &impl AsFd) -> Option<PeerCredentials> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let told = rustix::net::sockopt::socket_peercred(socket).ok()?;
        let pid = u32::try_from(told.pid.as_raw_pid()).ok()?;
        Some(PeerCredentials::new(pid, told.uid.as_raw(), told.gid.as_raw()))
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = socket;
        None
    }
}
