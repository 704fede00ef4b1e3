//! A datagram socket over a made-up one: no system, and a time that the tests move.

mod calls;
mod due;
mod ends;
mod lacks;
mod sends;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use super::*;
use crate::id::{ConnId, Ids};

const MILLISECOND: u64 = 1_000_000;

/// Errors that may report of an earlier datagram: those into which Linux turns ICMP and ICMPv6,
/// and ECONNRESET.
pub(super) const REPORTS: &[i32] = &[
    libc::EACCES,
    libc::ECONNREFUSED,
    libc::ECONNRESET,
    libc::EHOSTDOWN,
    libc::EHOSTUNREACH,
    libc::EMSGSIZE,
    libc::ENETUNREACH,
    #[cfg(target_os = "linux")]
    libc::ENONET,
    libc::ENOPROTOOPT,
    libc::EOPNOTSUPP,
    libc::EPROTO,
];

/// A socket that answers each call as planned: with an error of the system, or with 0 that it has
/// taken the datagram. Without a plan it takes it.
#[derive(Default)]
struct Planned {
    unix: bool,
    segments: usize,
    answers: RefCell<VecDeque<i32>>,
    /// The calls: their bytes, the size of each datagram where there are several, and for whom.
    calls: RefCell<Vec<String>>,
}

impl Planned {
    fn new(answers: &[i32]) -> Planned {
        let answers = RefCell::new(answers.to_vec().into());
        Planned { segments: 1, answers, ..Planned::default() }
    }

    fn unix(answers: &[i32]) -> Planned {
        Planned { unix: true, ..Planned::new(answers) }
    }

    fn with_trains(answers: &[i32]) -> Planned {
        Planned { segments: 64, ..Planned::new(answers) }
    }

    fn answer(&self, mut call: String, to: Option<&Endpoint>) -> io::Result<()> {
        match to {
            Some(to) if self.unix => call += &format!(" to {to}"),
            Some(to) => call += &format!(" to {}", to.port().unwrap()),
            None => {}
        }
        self.calls.borrow_mut().push(call);
        match self.answers.borrow_mut().pop_front() {
            None | Some(0) => Ok(()),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// The calls since the last look.
    fn calls(&self) -> Vec<String> {
        self.calls.take()
    }
}

impl DatagramSocket for Planned {
    fn local_addr(&self) -> io::Result<Endpoint> {
        Ok(port(80))
    }

    fn send(&self, bytes: &[u8], to: Option<&Endpoint>) -> io::Result<()> {
        self.answer(String::from_utf8_lossy(bytes).into_owned(), to)
    }

    fn receive(&self, _: &mut [u8]) -> io::Result<Received> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn set_member(&self, _: IpAddr, _: Interface, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn segments_max(&self) -> usize {
        self.segments
    }

    fn send_many(&self, bytes: &[u8], size: usize, to: Option<&Endpoint>) -> io::Result<()> {
        let whole: Vec<_> = bytes.chunks(size).map(String::from_utf8_lossy).collect();
        self.answer(whole.join("+"), to)
    }

    fn is_unix(&self) -> bool {
        self.unix
    }
}

fn port(port: u16) -> Endpoint {
    ([10, 0, 0, 1], port).into()
}

fn id() -> ConnId {
    Ids::default().reserve()
}

/// A socket, bound at 7 ns, whose `opened` has not run.
fn fresh(change: impl FnOnce(&mut DatagramOptions)) -> State {
    let mut options = DatagramOptions::default();
    change(&mut options);
    State::new(id(), Arc::new(options), 7)
}

/// The same behind `opened`.
fn open(change: impl FnOnce(&mut DatagramOptions)) -> State {
    let mut state = fresh(change);
    assert!(matches!(state.poll_due(&mut Round::default()), Some(Due::Opened)));
    state
}

/// A note that shares `left` until it is dropped.
fn note(left: &Arc<()>) -> Note {
    Note::new(Arc::clone(left))
}

/// How many notes have not been dropped.
fn left(notes: &Arc<()>) -> usize {
    Arc::strong_count(notes) - 1
}
