//! Descriptors that a process gets and may not have.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use lariat::hand_over;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::kit::{again, part};

const COUNT: usize = 20;

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The limit with which so many more files can be opened: one above the largest number.
fn limit_for(room: usize) -> u64 {
    let held: Vec<_> = (0..room).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    held.iter().map(AsRawFd::as_raw_fd).max().unwrap() as u64 + 1
}

#[test]
fn descriptors_above_the_limit_are_an_error_and_none_stays_open() {
    if part().is_none() {
        let name = "hand_over::descriptors_above_the_limit_are_an_error_and_none_stays_open";
        again(&[], name, "receive");
        return;
    }
    let (old, new) = UnixStream::pair().unwrap();
    let before = open_files();
    for (room, comes) in [(COUNT - 1, false), (COUNT, true), (COUNT + 1, true)] {
        hand_over::send(&old, b"x", &[&old; COUNT]).unwrap();
        let limit = getrlimit(Resource::Nofile);
        let current = Some(limit_for(room));
        setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
        let received = hand_over::receive(&new, &mut [0; 2]);
        setrlimit(Resource::Nofile, limit).unwrap();
        match received {
            Ok(received) => assert!(comes && received.descriptors.len() == COUNT, "{room}"),
            Err(error) => assert!(!comes && error.kind() == ErrorKind::InvalidData, "{error}"),
        }
        assert_eq!(open_files(), before, "with room for {room}");
    }
}
