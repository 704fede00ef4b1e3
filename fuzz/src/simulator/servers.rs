//! Servers that answer in ways that can be foretold to the byte, and never write too late.

use std::net::SocketAddr;

use lariat::{CloseReason, ConnId, Context, Input, Outcome, Protocol};

use super::Common;

/// Answers every byte with the same byte.
pub(super) struct Echo;

impl Protocol for Echo {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume_all();
        Ok(())
    }
}

/// Answers each line with its length.
pub(super) struct Lines;

impl Protocol for Lines {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
            cx.write(format!("{end}\n").as_bytes());
            input.consume(end + 1);
        }
        Ok(())
    }
}

/// What a client of [`Lines`] hears when it says `said`.
pub(super) fn lengths(said: &[u8]) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = said.split(|byte| *byte == b'\n').collect();
    // What follows the last end of a line is none.
    lines.pop();
    lines.iter().flat_map(|line| format!("{}\n", line.len()).into_bytes()).collect()
}

/// Passes everything on to another server, and back.
pub(super) struct Relay {
    target: SocketAddr,
    far: Option<ConnId>,
}

impl Relay {
    pub(super) fn new(target: SocketAddr) -> Relay {
        Relay { target, far: None }
    }
}

impl Protocol for Relay {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        let near = cx.id();
        self.far = Some(cx.driver().connect_local(self.target, Far { near }));
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if let Some(far) = self.far {
            cx.peer(far).write(input);
        }
        input.consume_all();
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        if let Some(far) = self.far {
            cx.peer(far).shutdown_write();
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, _: &CloseReason) {
        if let Some(far) = self.far {
            cx.peer(far).close();
        }
    }
}

/// The far side of a relay.
struct Far {
    near: ConnId,
}

impl Protocol for Far {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.peer(self.near).write(input);
        input.consume_all();
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, _: &CloseReason) {
        // Behind what was written there.
        cx.peer(self.near).close();
    }
}

/// The connections of a hub.
pub(super) type Members = Common<Vec<ConnId>>;

/// Pushes what one member says to all of them.
pub(super) struct Hub {
    members: Members,
}

impl Hub {
    pub(super) fn new(members: &Members) -> Hub {
        Hub { members: members.clone() }
    }
}

impl Protocol for Hub {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.members.borrow_mut().push(cx.id());
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        // Whole frames only, so that those of several members do not mix.
        while let Some(&length) = input.first() {
            let frame = 1 + usize::from(length);
            if input.len() < frame {
                input.need(frame);
                break;
            }
            let bytes = input.split_to(frame);
            cx.driver().push_all(&self.members.borrow(), bytes);
        }
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        self.leave(cx);
        cx.close();
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, _: &CloseReason) {
        self.leave(cx);
    }

    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.leave(cx);
        cx.close();
        Ok(())
    }
}

impl Hub {
    /// A client that leaves hears no more, so that nothing is pushed to it too late.
    fn leave(&self, cx: &Context<'_>) {
        self.members.borrow_mut().retain(|id| *id != cx.id());
    }
}
