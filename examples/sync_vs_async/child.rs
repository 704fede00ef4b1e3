//! Processes that this one starts: servers and loads. Each has a pipe as standard input and ends
//! when it is closed, so none outlives this process, whatever happens to it.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::process::{self, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use std::os::unix::process::CommandExt;

use crate::stop;

/// Why nothing came of a measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Ctrl-C.
    Stopped,
    Failed(String),
}

pub(crate) struct Child {
    inner: process::Child,
    lines: Receiver<String>,
}

/// How often a wait looks for Ctrl-C.
const LOOK: Duration = Duration::from_millis(50);
/// How long a process may take to end by itself.
const ENDING: Duration = Duration::from_secs(2);

impl Child {
    /// Starts `program`, with as many open files as the hard limit allows and in a process group of
    /// its own, so that Ctrl-C reaches this process alone.
    pub(crate) fn start(program: &OsStr, arguments: &[OsString]) -> Result<Child, End> {
        let failed = |error: std::io::Error| {
            End::Failed(format!("{} does not start: {error}", program.to_string_lossy()))
        };
        let mut inner = Command::new("/bin/sh")
            .args(["-c", "ulimit -n \"$(ulimit -Hn)\" 2>/dev/null; exec \"$@\"", "sh"])
            .arg(program)
            .args(arguments)
            .env_remove("RUST_LOG")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let (sender, lines) = mpsc::channel();
        if let Some(stdout) = inner.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Child { inner, lines })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.inner.id()
    }

    /// The next line of its standard output.
    pub(crate) fn line(&self, patience: Duration) -> Result<String, End> {
        let until = Instant::now() + patience;
        loop {
            if stop::is_asked_for() {
                return Err(End::Stopped);
            }
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) if Instant::now() < until => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(End::Failed(format!("no answer for {patience:?}")));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(End::Failed("the process has ended".to_owned()));
                }
            }
        }
    }

    /// Ends it, and returns the last line that it printed then.
    pub(crate) fn end(mut self) -> Option<String> {
        self.inner.stdin.take();
        let last = self.lines.recv_timeout(ENDING).ok();
        let until = Instant::now() + ENDING;
        while Instant::now() < until {
            if !matches!(self.inner.try_wait(), Ok(None)) {
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
        last
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.inner.stdin.take();
        // Ended already, as a rule; a process that has been waited for is not signalled.
        let _ = self.inner.kill();
        let _ = self.inner.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Child {
        Child::start(OsStr::new("/bin/sh"), &["-c".into(), script.into()]).unwrap()
    }

    #[test]
    fn a_child_ends_with_its_standard_input_and_has_a_last_word() {
        let child = shell("echo ready; cat; echo bye");
        assert_eq!(child.line(Duration::from_secs(30)).unwrap(), "ready");
        assert_eq!(child.end().as_deref(), Some("bye"));
    }

    #[test]
    fn a_child_that_ends_too_early_is_noticed() {
        let ended = End::Failed("the process has ended".to_owned());
        assert_eq!(shell("exit 1").line(Duration::from_secs(30)), Err(ended));
    }

    #[test]
    fn a_silent_child_is_waited_for_with_an_end() {
        let silent = shell("cat >/dev/null").line(Duration::from_millis(60));
        assert_eq!(silent, Err(End::Failed("no answer for 60ms".to_owned())));
    }
}
