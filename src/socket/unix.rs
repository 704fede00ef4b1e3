//! Files of Unix sockets: a stale one is replaced, and one of this process is removed with its
//! socket.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::endpoint::{Endpoint, UnixName};
use crate::error::rejected;

/// The file that a bound socket has made. It is removed with the socket, if it is still the
/// same file by then.
///
/// It goes before the socket: whoever finds the path in use then finds its server alive as well,
/// and does not replace the file. Behind the socket, a file that another has put there meanwhile
/// could have the number of this one, and be removed in its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    place: (u64, u64),
    removed: AtomicBool,
}

/// The device and the number of a file, which another file at the same path does not have.
fn place(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<SocketFile> {
        // The process may change its directory before the socket is closed.
        let path = std::path::absolute(path)?;
        let place = place(&fs::symlink_metadata(&path)?);
        Ok(SocketFile { path, place, removed: AtomicBool::new(false) })
    }

    /// Removes it before the socket is dropped. What stands at the path later is another's.
    pub(crate) fn remove(&self) {
        if self.removed.swap(true, Ordering::Relaxed) {
            return;
        }
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| place(&file) == self.place);
        if ours {
            if let Err(error) = fs::remove_file(&self.path) {
                log::warn!(target: "lariat::socket", "cannot remove {:?}: {error}", self.path);
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Binds `socket` to `name`, with these permissions of the file. It replaces a file left by a
/// server that has ended.
pub(super) fn bind(
    socket: &Socket,
    name: UnixName,
    mode: Option<u32>,
) -> io::Result<Option<SocketFile>> {
    let addr = Endpoint::Unix(name).to_sock_addr()?;
    let Some(path) = name.as_pathname() else {
        if mode.is_some() {
            let sentence = "an abstract name has no permissions";
            return Err(rejected("mode")(io::Error::new(ErrorKind::Unsupported, sentence)));
        }
        socket.bind(&addr)?;
        return Ok(None);
    };
    let kind = socket.r#type()?;
    restrict(socket, mode)?;
    match socket.bind(&addr) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_stale(path, &addr, kind)? => {
            log::info!(target: "lariat::socket", "{path:?} is of a server that is gone: replaced");
            ignore_absence(fs::remove_file(path))?;
            socket.bind(&addr)?;
        }
        result => result?,
    }
    let file = SocketFile::of(path)?;
    if let Some(mode) = mode {
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(rejected("mode"))?;
    }
    Ok(Some(file))
}

/// Gives the file to come no more than these permissions from its beginning: a datagram can be sent
/// there as soon as it is bound. Only Linux takes them from the socket.
fn restrict(socket: &Socket, mode: Option<u32>) -> io::Result<()> {
    match mode {
        Some(mode) if cfg!(target_os = "linux") => {
            let file = File::from(OwnedFd::from(socket.try_clone()?));
            file.set_permissions(Permissions::from_mode(mode)).map_err(rejected("mode"))
        }
        _ => Ok(()),
    }
}

/// The server that has left a file may remove it at any time.
fn ignore_absence(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Whether no socket is behind a path any more that is in use: a connect to it, of a socket of the
/// same kind, is refused, or the file is gone.
fn is_stale(path: &Path, addr: &SockAddr, kind: Type) -> io::Result<bool> {
    let file = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        result => result?,
    };
    if !file.file_type().is_socket() {
        let sentence = "a file that is no socket has this path";
        return Err(io::Error::new(ErrorKind::AddrInUse, sentence));
    }
    let probe = Socket::new(Domain::UNIX, kind, None)?;
    // It must not wait for a place in a queue.
    probe.set_nonblocking(true)?;
    let gone = [ErrorKind::ConnectionRefused, ErrorKind::NotFound];
    Ok(probe.connect(addr).is_err_and(|error| gone.contains(&error.kind())))
}

#[cfg(test)]
mod tests {
    use super::super::opening::open;
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    /// A directory that is removed at the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let path = std::env::temp_dir().join(format!("lariat-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Directory(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn listens(path: &Path, mode: Option<u32>) -> io::Result<(Socket, Option<SocketFile>)> {
        let name = UnixName::from_pathname(path)?;
        let socket = open(name.into())?;
        let file = bind(&socket, name, mode)?;
        socket.listen(8)?;
        Ok((socket, file))
    }

    #[test]
    fn d10_the_file_goes_with_its_socket_unless_another_has_its_place() {
        let directory = Directory::new("goes");
        let path = directory.0.join("s");
        let (socket, file) = listens(&path, None).unwrap();
        UnixStream::connect(&path).unwrap();
        drop((socket, file));
        assert!(!path.exists());
        let (socket, file) = listens(&path, None).unwrap();
        fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop((socket, file));
        assert!(path.exists(), "it is the other's");
        drop(other);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn as_many_clients_wait_as_the_backlog_says() {
        let directory = Directory::new("backlog");
        let path = directory.0.join("s");
        let _listening = listens(&path, None).unwrap();
        let addr = SockAddr::unix(&path).unwrap();
        let waiting: Vec<Socket> = std::iter::from_fn(|| {
            let client = open(UnixName::from_pathname(&path).unwrap().into()).unwrap();
            client.connect(&addr).ok().map(|()| client)
        })
        .collect();
        // Linux lets one more wait than it was asked for.
        assert_eq!(waiting.len(), 8 + 1);
    }

    #[test]
    fn d10_a_stale_file_is_replaced_and_a_live_one_is_in_use() {
        let directory = Directory::new("stale");
        let path = directory.0.join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let first = listens(&path, None).unwrap();
        let error = listens(&path, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        UnixStream::connect(&path).unwrap();
        drop(first);
        let datagrams = UnixDatagram::bind(&path).unwrap();
        let error = listens(&path, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "another kind of socket is alive");
        drop(datagrams);
        assert!(path.exists());
    }

    #[test]
    fn d10_what_stands_at_the_path_when_the_file_has_been_removed_is_anothers() {
        let directory = Directory::new("removed");
        let path = directory.0.join("s");
        let (socket, file) = listens(&path, None).unwrap();
        file.as_ref().unwrap().remove();
        assert!(!path.exists());
        // The same file comes back: its number does not tell that it is another's.
        let kept = directory.0.join("kept");
        let (other, file_of_other) = listens(&path, None).unwrap();
        fs::hard_link(&path, &kept).unwrap();
        let mut file = file.unwrap();
        file.place = file_of_other.as_ref().unwrap().place;
        drop((socket, file));
        assert!(path.exists() && kept.exists());
        drop((other, file_of_other));
        assert!(!path.exists());
    }

    #[test]
    fn d10_a_path_that_its_server_leaves_at_this_moment_is_free() {
        let directory = Directory::new("moment");
        let path = directory.0.join("s");
        let addr = SockAddr::unix(&path).unwrap();
        assert!(is_stale(&path, &addr, Type::STREAM).unwrap());
        ignore_absence(fs::remove_file(&path)).unwrap();
        assert!(ignore_absence(fs::remove_file(&directory.0)).is_err());
    }

    #[test]
    fn d10_a_file_that_is_no_socket_is_never_removed() {
        let directory = Directory::new("plain");
        let path = directory.0.join("s");
        fs::write(&path, "kept").unwrap();
        let error = listens(&path, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains("no socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
        // A link to a socket of another is none either.
        let link = directory.0.join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(listens(&link, None).is_err());
    }

    #[test]
    fn the_file_has_the_mode_that_was_asked_for() {
        let directory = Directory::new("mode");
        let path = directory.0.join("s");
        for mode in [0o600, 0o660, 0o777] {
            let _listening = listens(&path, Some(mode)).unwrap();
            let found = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(found & 0o7777, mode);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_file_never_has_more_than_its_mode() {
        let directory = Directory::new("never");
        let path = directory.0.join("s");
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap();
        restrict(&socket, Some(0o600)).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        let found = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(found & 0o7777, 0o600);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_name_has_no_file_and_no_mode() {
        let name = format!("lariat-abstract-{}", std::process::id());
        let name = UnixName::from_abstract_name(&name).unwrap();
        let socket = open(name.into()).unwrap();
        let error = bind(&socket, name, Some(0o600)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(bind(&socket, name, None).unwrap().is_none());
        let addr = socket.local_addr().unwrap();
        assert_eq!(Endpoint::from(&addr), Endpoint::Unix(name));
    }
}
