//! Clients, and what they should hear.

use lariat::sim::Socket;
use lariat::{CloseKind, CloseReason, Context, Input, Outcome, Protocol};

use super::servers::lengths;
use super::{Common, Kind};

/// The byte at a place of what client `number` says: text with an end of a line now and then.
fn byte_at(number: usize, place: usize) -> u8 {
    match place % 8_191 % 97 % 41 {
        40 => b'\n',
        at => b'0' + (at + number) as u8 % 64,
    }
}

/// The length of a frame for the hub, without its first byte: who, and where in its stream.
const HEAD: usize = 5;
/// The bytes of a stream that are in one frame.
const BODY: usize = 100;

/// An end that the script itself holds.
pub(super) struct Dialled {
    socket: Option<Socket>,
    kind: Kind,
    number: usize,
    /// Bytes of its stream that it has said.
    place: usize,
    most: usize,
    said: Vec<u8>,
    heard: Vec<u8>,
    heard_end: bool,
    finished: bool,
    /// It did not stay to the end.
    left: bool,
}

impl Dialled {
    pub(super) fn new(socket: Socket, kind: Kind, number: usize, most: usize) -> Dialled {
        Dialled {
            socket: Some(socket),
            kind,
            number,
            place: 0,
            most,
            said: Vec::new(),
            heard: Vec::new(),
            heard_end: false,
            finished: false,
            left: false,
        }
    }

    pub(super) fn send(&mut self, count: usize) {
        let Some(socket) = self.socket.as_ref().filter(|_| !self.finished) else { return };
        let count = count.min(self.most - self.place);
        let bytes: Vec<u8> =
            (self.place..self.place + count).map(|at| byte_at(self.number, at)).collect();
        let before = self.said.len();
        if self.kind == Kind::Hub {
            for (at, body) in bytes.chunks(BODY).enumerate() {
                self.said.push((HEAD + body.len()) as u8);
                self.said.push(self.number as u8);
                self.said.extend(((self.place + at * BODY) as u32).to_le_bytes());
                self.said.extend(body);
            }
        } else {
            self.said.extend(&bytes);
        }
        self.place += count;
        socket.send(&self.said[before..]);
    }

    pub(super) fn stop_reading(&mut self) {
        self.socket.iter().for_each(Socket::stop_reading);
    }

    pub(super) fn resume_reading(&mut self) {
        self.socket.iter().for_each(Socket::resume_reading);
    }

    pub(super) fn read(&mut self, count: usize) {
        self.socket.iter().for_each(|socket| socket.read(count));
    }

    pub(super) fn finish(&mut self) {
        if !self.finished {
            self.finished = true;
            self.socket.iter().for_each(Socket::finish);
        }
    }

    pub(super) fn reset(&mut self) {
        self.leave();
        if let Some(socket) = self.socket.take() {
            socket.reset();
        }
    }

    pub(super) fn drop_it(&mut self) {
        self.leave();
        self.socket = None;
    }

    pub(super) fn vanish(&mut self) {
        self.leave();
        self.socket.iter().for_each(Socket::vanish);
    }

    fn leave(&mut self) {
        self.collect();
        self.left = true;
    }

    pub(super) fn collect(&mut self) {
        if let Some(socket) = &self.socket {
            self.heard.extend(socket.take_received());
            self.heard_end = socket.is_finished();
        }
    }

    /// `exact` says that nothing is lost for a client that stays.
    pub(super) fn judge(&self, exact: bool, all: &[Dialled], faults: &mut Vec<String>) {
        let stays = exact && !self.left;
        if self.kind == Kind::Hub {
            self.judge_frames(stays, all, faults);
        } else {
            let lines = self.kind == Kind::Lines;
            let expected = if lines { lengths(&self.said) } else { self.said.clone() };
            let (heard, whole) = (self.heard.len(), expected.len());
            if !expected.starts_with(&self.heard) {
                let at = self.heard.iter().zip(&expected).take_while(|(a, b)| a == b).count();
                faults.push(format!("{}: wrong from byte {at} on", self.who()));
            } else if stays && heard < whole {
                faults.push(format!("{}: heard {heard} of {whole} bytes", self.who()));
            }
        }
        if stays && !self.heard_end {
            faults.push(format!("{}: the end was not heard", self.who()));
        }
    }

    fn who(&self) -> String {
        format!("client {} of {:?}", self.number, self.kind)
    }

    /// What a member hears of each of them begins somewhere and has no gap; of itself, it hears
    /// everything.
    fn judge_frames(&self, stays: bool, all: &[Dialled], faults: &mut Vec<String>) {
        let mut next: Vec<Option<usize>> = vec![None; all.len()];
        let mut rest = &self.heard[..];
        while let Some((length, behind)) = rest.split_first() {
            let Some(frame) = behind.get(..usize::from(*length)) else { break };
            rest = &behind[frame.len()..];
            let (Some((head, body)), Some(number)) =
                (frame.split_at_checked(HEAD), frame.first().map(|number| usize::from(*number)))
            else {
                return faults.push(format!("{}: a frame without a head", self.who()));
            };
            let place = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let right = body.iter().zip(place..).all(|(byte, at)| *byte == byte_at(number, at));
            let expected = next.get(number).copied().flatten().unwrap_or(place);
            if !right || number >= all.len() || expected != place {
                return faults.push(format!(
                    "{}: a wrong frame of {number} at {place}, expected at {expected}",
                    self.who()
                ));
            }
            next[number] = Some(place + body.len());
        }
        if stays && !rest.is_empty() {
            faults.push(format!("{}: the last frame was cut", self.who()));
        }
        let own = next.get(self.number).copied().flatten().unwrap_or(0);
        if stays && own != self.place {
            let heard = format!("{}: heard {own} of its {} bytes", self.who(), self.place);
            faults.push(heard);
        }
    }
}

/// What has become of the callers.
pub(super) type Outcomes = Common<Vec<Ended>>;

/// The end of a [`Caller`].
pub(super) struct Ended {
    number: usize,
    count: usize,
    heard: usize,
    wrong: bool,
    reason: CloseReason,
}

impl Ended {
    pub(super) fn judge(&self, exact: bool, faults: &mut Vec<String>) {
        let Ended { number, count, heard, .. } = self;
        if self.wrong {
            faults.push(format!("caller {number}: a wrong byte came back"));
        }
        let done = self.reason.kind() == CloseKind::Finished && heard == count;
        if exact && !done {
            faults.push(format!("caller {number}: heard {heard} of {count}: {}", self.reason));
        }
    }
}

/// A protocol that connects, says `count` bytes as there is room for them, hears them all again,
/// and closes.
pub(super) struct Caller {
    number: usize,
    count: usize,
    said: usize,
    heard: usize,
    wrong: bool,
    outcomes: Outcomes,
}

impl Caller {
    pub(super) fn new(number: usize, count: usize, outcomes: &Outcomes) -> Caller {
        let outcomes = outcomes.clone();
        Caller { number: number + 100, count, said: 0, heard: 0, wrong: false, outcomes }
    }

    fn speak(&mut self, cx: &mut Context<'_>) {
        while self.said < self.count && !cx.is_congested() {
            let to = self.count.min(self.said + 2_000);
            let bytes: Vec<u8> = (self.said..to).map(|at| byte_at(self.number, at)).collect();
            cx.write(&bytes);
            self.said = to;
        }
        if self.heard == self.count {
            cx.close();
        }
    }
}

impl Protocol for Caller {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.speak(cx);
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        let (number, from) = (self.number, self.heard);
        self.wrong |= input.iter().zip(from..).any(|(byte, at)| *byte != byte_at(number, at));
        self.heard += input.len();
        input.consume_all();
        self.speak(cx);
        Ok(())
    }

    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.speak(cx);
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.outcomes.borrow_mut().push(Ended {
            number: self.number,
            count: self.count,
            heard: self.heard,
            wrong: self.wrong,
            reason: reason.clone(),
        });
    }
}
