//! The file of a capture: a new one, so that a capture that still writes to the old one at the same
//! path, in this process or in another, and this one do not write into each other.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Links that are followed, as on Linux.
const LINKS_MAX: usize = 40;

/// A file whose errors have its name in them.
pub(super) struct Named {
    out: BufWriter<File>,
    path: PathBuf,
}

impl Named {
    pub(super) fn create(path: &Path) -> io::Result<Named> {
        let file = create(path).map_err(|error| named(path, &error))?;
        Ok(Named { out: BufWriter::new(file), path: path.to_owned() })
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()))
}

impl Write for Named {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).map_err(|error| named(&self.path, &error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().map_err(|error| named(&self.path, &error))
    }
}

/// Puts a new file into the place of a regular one. Whatever else is there is opened as it is, and
/// so is a file that may be written but not removed.
fn create(path: &Path) -> io::Result<File> {
    let Some(place) = behind_links(path)? else { return File::create(path) };
    loop {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let mut group = None;
        match fs::symlink_metadata(&place) {
            Ok(old) if old.is_file() => {
                // One that may not be written is kept.
                OpenOptions::new().write(true).open(&place)?;
                if !is_gone(fs::remove_file(&place)) {
                    return File::create(path);
                }
                // It has what users sent: nobody may read it who could not read the old one. Its
                // group may be another.
                options.mode(old.mode() & 0o700);
                group = Some((old.gid(), old.mode() & 0o777));
            }
            Ok(_) => return File::create(path),
            Err(_) => {}
        }
        match options.open(&place) {
            // Another capture has begun there at this moment.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Ok(file) => {
                if let Some((_, mode)) = group.filter(|(gid, _)| is_of(&file, *gid)) {
                    file.set_permissions(Permissions::from_mode(mode))?;
                }
                return Ok(file);
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_of(file: &File, gid: u32) -> bool {
    file.metadata().is_ok_and(|new| new.gid() == gid)
}

fn is_gone(removed: io::Result<()>) -> bool {
    removed.map_or_else(|error| error.kind() == ErrorKind::NotFound, |()| true)
}

/// Where the links of a path lead, also if nothing is there. None where one of them stands for a
/// descriptor, as `/dev/stderr` does: that file is not this capture's to remove.
fn behind_links(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut path = std::path::absolute(path)?;
    for _ in 0..=LINKS_MAX {
        let Some(directory) = path.parent() else { break };
        let real = fs::canonicalize(directory)?;
        if real.starts_with("/proc") || real.starts_with("/dev/fd") {
            break;
        }
        match fs::read_link(&path) {
            Ok(target) => path = directory.join(target),
            Err(_) => return Ok(Some(path)),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// A directory that is removed at the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let path = format!("lariat-capture-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(path);
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

    #[track_caller]
    fn write(mut file: &File, bytes: &str) {
        file.write_all(bytes.as_bytes()).unwrap();
    }

    #[track_caller]
    fn holds(path: &Path, bytes: &str) {
        assert_eq!(fs::read_to_string(path).unwrap(), bytes);
    }

    #[test]
    fn two_that_write_to_one_path_do_not_write_into_each_other() {
        let directory = Directory::new("two");
        let path = directory.0.join("x");
        let old = create(&path).unwrap();
        write(&old, "old");
        fs::hard_link(&path, directory.0.join("old")).unwrap();
        let new = create(&path).unwrap();
        write(&old, " goes on");
        write(&new, "new");
        holds(&path, "new");
        holds(&directory.0.join("old"), "old goes on");
    }

    #[test]
    fn a_link_stays_and_the_file_behind_it_is_replaced() {
        let directory = Directory::new("link");
        fs::create_dir(directory.0.join("sub")).unwrap();
        let (path, link) = (directory.0.join("sub/x"), directory.0.join("link"));
        symlink("sub/second", &link).unwrap();
        // From the directory of the second link, not of the first.
        symlink("x", directory.0.join("sub/second")).unwrap();
        let old = create(&link).unwrap();
        assert!(path.is_file(), "made where the links lead");
        write(&old, "old");
        write(&create(&link).unwrap(), "new");
        write(&old, " goes on");
        holds(&path, "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        symlink("round", directory.0.join("round")).unwrap();
        assert!(create(&directory.0.join("round")).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_behind_a_descriptor_is_not_removed() {
        let directory = Directory::new("descriptor");
        let path = directory.0.join("x");
        let open = File::create(&path).unwrap();
        let link = directory.0.join("stderr");
        for of in ["/proc/self/fd", "/dev/fd"] {
            let descriptor = PathBuf::from(format!("{of}/{}", open.as_raw_fd()));
            let _ = fs::remove_file(&link);
            symlink(&descriptor, &link).unwrap();
            for path in [&descriptor, &link] {
                write(&create(path).unwrap(), of);
                assert_eq!(open.metadata().unwrap().nlink(), 1, "{path:?}");
            }
            holds(&path, of);
        }
    }

    #[test]
    fn what_is_no_regular_file_stays_and_is_opened() {
        let directory = Directory::new("special");
        let path = directory.0.join("s");
        let _listening = UnixListener::bind(&path).unwrap();
        assert!(create(&path).is_err(), "the system opens no socket as a file");
        UnixStream::connect(&path).unwrap();
        assert_eq!(create(&directory.0).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert!(directory.0.is_dir());
        assert!(create(&directory.0.join("none/x")).is_err());
    }

    #[test]
    fn a_new_file_has_no_more_permissions_than_the_old_one() {
        let directory = Directory::new("mode");
        let path = directory.0.join("x");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let mode = create(&path).unwrap().metadata().unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_may_not_be_written_stays() {
        let directory = Directory::new("kept");
        let path = directory.0.join("sleep");
        fs::copy("/bin/sleep", &path).unwrap();
        // Nobody may write a program that runs, not even root.
        let mut running = std::process::Command::new(&path).arg("600").spawn().unwrap();
        let created = create(&path);
        running.kill().unwrap();
        running.wait().unwrap();
        let error = created.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ExecutableFileBusy);
        assert!(path.exists());
    }

    #[test]
    fn a_file_that_another_removes_at_this_moment_is_gone() {
        assert!(is_gone(Ok(())) && is_gone(Err(ErrorKind::NotFound.into())));
        assert!(!is_gone(Err(ErrorKind::PermissionDenied.into())));
    }
}
