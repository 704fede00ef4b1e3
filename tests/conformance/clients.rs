//! One protocol, run to its end and given back: `connect` of the drivers on real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use lariat::{
    Address, CloseKind, CloseReason, ConnectFailure, Context, Deadline, ErrorKind, Input, Limits,
    Outcome, Protocol, Result,
};

type Given = Result<(Option<Asking>, CloseReason)>;

/// Runs `scenario` with the `connect` of each driver.
fn both(scenario: impl Fn(&dyn Fn(Address, Asking) -> Given)) {
    scenario(&|addr, asking| lariat::reactor::connect(addr, asking));
    scenario(&|addr, asking| lariat::blocking::connect(addr, asking));
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Mood {
    #[default]
    Calm,
    Replaced,
    Panicking,
}

/// Says a word, and keeps what is answered.
#[derive(Default)]
struct Asking {
    answer: Vec<u8>,
    mood: Mood,
    ends: Vec<CloseKind>,
}

impl Protocol for Asking {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(b"word");
        cx.shutdown_write();
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.answer.extend_from_slice(&input.split_all());
        match self.mood {
            Mood::Calm => {}
            Mood::Replaced => {
                cx.replace(Asking::default());
            }
            Mood::Panicking => panic!("while being answered"),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.ends.push(reason.kind());
    }
}

/// Answers one client with what it said.
fn server() -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        // A client that panicked is gone.
        let _ = stream.write_all(&said);
    });
    (addr, thread)
}

/// An address at which nobody listens, for as long as the listener is kept.
fn deserted() -> (SocketAddr, socket2::Socket) {
    let kind = socket2::Type::STREAM;
    let socket = socket2::Socket::new(socket2::Domain::IPV4, kind, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    (socket.local_addr().unwrap().as_socket().unwrap(), socket)
}

#[test]
fn a_protocol_comes_back_with_what_it_learnt() {
    both(|connect| {
        let (addr, server) = server();
        let (asking, reason) = connect(addr.into(), Asking::default()).unwrap();
        let asking = asking.unwrap();
        assert_eq!((asking.answer.as_slice(), reason.kind()), (&b"word"[..], CloseKind::Finished));
        assert_eq!(asking.ends, [CloseKind::Finished]);
        assert_eq!((reason.bytes_in(), reason.bytes_out()), (4, 4));
        server.join().unwrap();
    });
}

#[test]
fn a_failed_connect_is_no_error_and_the_protocol_comes_back() {
    both(|connect| {
        let (addr, _kept) = deserted();
        let (asking, reason) = connect(addr.into(), Asking::default()).unwrap();
        let refused = CloseKind::Connect(ConnectFailure::Refused);
        assert_eq!((reason.kind(), asking.unwrap().ends), (refused, vec![refused]));
    });
}

#[test]
fn the_first_address_that_answers_is_taken_and_the_others_are_not_told_of() {
    both(|connect| {
        let ((nobody, _kept), (addr, server)) = (deserted(), server());
        let several = Address::Several(vec![nobody.into(), addr.into()]);
        let (asking, reason) = connect(several, Asking::default()).unwrap();
        assert_eq!(reason.kind(), CloseKind::Finished);
        assert_eq!(asking.unwrap().ends, [CloseKind::Finished]);
        server.join().unwrap();
    });
}

#[test]
fn a_protocol_that_was_replaced_or_panicked_does_not_come_back() {
    both(|connect| {
        for (mood, end) in
            [(Mood::Replaced, CloseKind::Finished), (Mood::Panicking, CloseKind::Panicked)]
        {
            let (addr, server) = server();
            let asking = Asking { mood, ..Asking::default() };
            let (asking, reason) = connect(addr.into(), asking).unwrap();
            assert!(asking.is_none(), "{mood:?}");
            assert_eq!(reason.kind(), end);
            server.join().unwrap();
        }
    });
}

#[test]
fn a_name_that_stands_for_nothing_is_an_error() {
    both(|connect| {
        let error = connect(Address::from("nonsense"), Asking::default()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidAddress);
        assert!(error.to_string().starts_with("cannot connect to nonsense: "), "{error}");
    });
}

#[test]
fn a_client_may_have_limits_of_its_own() {
    let both = |addr: SocketAddr, limits: &Limits| -> [Given; 2] {
        [
            lariat::reactor::connect_with(addr, limits.clone().into(), Asking::default()),
            lariat::blocking::connect_with(addr, limits.clone().into(), Asking::default()),
        ]
    };
    // It lets them in and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut limits = Limits::default();
    limits.idle = Some(Duration::from_millis(50));
    for given in both(addr, &limits) {
        let (_, reason) = given.unwrap();
        assert_eq!(reason.kind(), CloseKind::TimedOut(Deadline::Idle));
    }
    limits.idle = Some(Duration::ZERO);
    for given in both(addr, &limits) {
        assert_eq!(given.err().unwrap().kind(), ErrorKind::InvalidLimits);
    }
}
