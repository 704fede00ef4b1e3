//! What the loop does with a socket that leaves it.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::time::Duration;

use lariat::reactor::Reactor;
use lariat::{CloseReason, Context, Input, Outcome, Protocol};

use crate::common::{drive, finish, listen};

/// Leaves with its socket, which another thread may have.
struct Leaves(Rc<RefCell<Option<lariat::Detached>>>);

impl Protocol for Leaves {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        Ok(cx.detach()?)
    }

    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, _: &CloseReason) {
        *self.0.borrow_mut() = cx.take_detached();
    }
}

#[test]
fn the_loop_hears_nothing_of_a_socket_that_has_left() {
    let mut reactor = Reactor::new().unwrap();
    let left = Rc::new(RefCell::new(None));
    let leaves = Rc::clone(&left);
    let addr = listen(&mut reactor, move || Leaves(Rc::clone(&leaves)));
    let mut client = TcpStream::connect(addr).unwrap();
    drive(&mut reactor, |_| left.borrow().is_some());
    let before = reactor.metrics().events;
    for _ in 0..3 {
        client.write_all(b"not for the loop").unwrap();
        reactor.turn(Some(Duration::from_millis(20))).unwrap();
    }
    assert_eq!(reactor.metrics().events, before);
    let mut stream = TcpStream::from(left.take().unwrap().socket);
    let mut bytes = [0; 48];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(reactor.metrics().closes.detached, 1);
    finish(reactor);
}
