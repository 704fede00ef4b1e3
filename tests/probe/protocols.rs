//! Protocols to try the tools on.

use lariat::{Context, Filter, Input, Outcome, Protocol};

use crate::toy::Toy;

/// A mistake that protocols written by hand have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// Takes what arrives for a whole message.
    Hasty,
    /// Looks for one message per `data` and forgets that there may be more.
    OneAtATime,
    /// Cannot tell an end that is split.
    SplitEnd,
    /// Forgets the rest of the input behind a message.
    Forgetful,
    /// Closes with a reason that depends on the cut.
    Touchy,
    /// Answers a message that came in pieces only when FIN says that no more will come.
    Late,
}

/// Answers each line with its length. A line `quit` closes.
pub(crate) struct Lines(pub(crate) Bug);

impl Protocol for Lines {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if self.0 == Bug::Hasty {
            cx.write(format!("{}\n", input.len()).as_bytes());
            input.consume_all();
            return Ok(());
        }
        if self.0 == Bug::Late && !input.ends_with(b"\r\n") && input.contains(&b'\n') {
            // Waits for more, although a whole line is there.
            return Ok(());
        }
        while let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") {
            if &input[..end] == b"quit" {
                cx.close();
                return Ok(());
            }
            cx.write(format!("{end}\n").as_bytes());
            match self.0 {
                Bug::Forgetful => input.consume_all(),
                _ => input.consume(end + 2),
            }
            if self.0 == Bug::OneAtATime {
                break;
            }
        }
        if self.0 == Bug::SplitEnd && input.ends_with(b"\r") {
            input.consume_all();
        }
        if self.0 == Bug::Touchy && !input.is_empty() {
            return Err("half a line".into());
        }
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, rest: &mut Input<'_>) -> Outcome {
        if self.0 == Bug::Late {
            self.0 = Bug::None;
            self.data(cx, rest)?;
        }
        cx.close();
        Ok(())
    }
}

/// Answers each frame, two bytes of length and as many more, with its last byte.
pub(crate) struct Frames(pub(crate) Bug);

impl Protocol for Frames {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        loop {
            let Some(head) = input.first_chunk::<2>() else {
                if self.0 == Bug::SplitEnd && input.len() == 1 {
                    input.consume(1);
                }
                input.need(2);
                return Ok(());
            };
            let length = usize::from(u16::from_be_bytes(*head));
            if self.0 == Bug::Hasty {
                // Takes the frame for whole.
                let end = input.len().min(2 + length);
                cx.write(&input[end - 1..end]);
                input.consume(end);
                continue;
            }
            if input.len() < 2 + length {
                input.need(2 + length);
                return Ok(());
            }
            if let Some(last) = input[2..2 + length].last() {
                cx.write(&[*last]);
            }
            match self.0 {
                Bug::Forgetful => input.consume_all(),
                _ => input.consume(2 + length),
            }
            if self.0 == Bug::OneAtATime {
                return Ok(());
            }
        }
    }
}

pub(crate) const LINES: &[u8] = b"one\r\n\r\na longer line\r\nquit\r\nnever read";
pub(crate) const FRAMES: &[u8] = b"\x00\x03abc\x00\x00\x00\x01x\x00\x05vwxyz\x00\x09cut";

/// Answers under a filter.
pub(crate) struct Filtered(Option<Toy>, Lines);

impl Protocol for Filtered {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.1.data(cx, input)
    }
    fn filter(&mut self) -> Option<Box<dyn Filter>> {
        self.0.take().map(|toy| Box::new(toy) as Box<dyn Filter>)
    }
}

pub(crate) fn filtered() -> Filtered {
    Filtered(Some(Toy::server()), Lines(Bug::None))
}
