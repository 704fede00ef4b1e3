//! One connection of the load: its requests, and the check of each answer.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use super::{Order, Special};
use crate::Failure;
use crate::web::HELLO;

/// How requests look, and answers.
#[derive(Clone)]
pub(super) struct Talk {
    http: bool,
    echo: bool,
    padding: Vec<u8>,
    special: Option<Special>,
    /// The first answer of HTTP: the others differ from it in their date only.
    answer: Vec<u8>,
    date: std::ops::Range<usize>,
}

/// How a slow reader reads.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub(super) bytes: usize,
    pub(super) pause: Duration,
}

pub(super) struct Lane {
    socket: TcpStream,
    /// The sum as this side knows it, with all requests that were sent.
    sum: i64,
    random: u64,
    /// When each request without an answer was due, and the sum it has to be answered with.
    pub(super) pending: VecDeque<(Instant, i64)>,
    unsent: Vec<u8>,
    partial: Vec<u8>,
    pub(super) answered: u64,
}

/// The padding of a request is what is left of its size beside a number and a sum.
const NUMBER_ROOM: usize = 4;

fn wrong(what: &str) -> io::Error {
    io::Error::other(format!("the server answers wrongly: {what}"))
}

impl Talk {
    pub(super) fn new(order: &Order) -> Result<Talk, Failure> {
        let (answer, date) = if order.http { learn(order)? } else { (Vec::new(), 0..0) };
        let special = order.special.clone();
        let talk =
            Talk { http: order.http, echo: order.echo, padding: Vec::new(), special, answer, date };
        Ok(talk.sized(order.size))
    }

    pub(super) fn sized(&self, size: usize) -> Talk {
        Talk { padding: vec![b'.'; size.saturating_sub(NUMBER_ROOM)], ..self.clone() }
    }

    /// Appends a request to `out`; `wanted` is the answer's sum.
    fn ask(&self, out: &mut Vec<u8>, number: i64, special: bool) -> io::Result<()> {
        let special = self.special.as_ref().filter(|_| special);
        if self.http {
            match (special, number) {
                (Some(Special { verb, micros, .. }), _) => {
                    write!(out, "GET /?{verb}={micros} HTTP/1.1\r\nHost: lariat\r\n\r\n")?;
                }
                (None, super::BEGIN..) => {
                    write!(out, "GET /{number} HTTP/1.1\r\nHost: lariat\r\n\r\n")?;
                }
                (None, _) => out.extend_from_slice(b"GET / HTTP/1.1\r\nHost: lariat\r\n\r\n"),
            }
            return Ok(());
        }
        write!(out, "{number}")?;
        if let Some(Special { verb, micros, .. }) = special {
            write!(out, " {verb} {micros}")?;
        }
        if !self.padding.is_empty() {
            out.push(b' ');
            out.extend_from_slice(&self.padding);
        }
        out.push(b'\n');
        Ok(())
    }

    /// How many bytes of `bytes` are the answer with `sum`; 0 while it is not whole.
    fn check(&self, bytes: &[u8], sum: i64) -> io::Result<usize> {
        if self.http {
            let length = self.answer.len();
            if bytes.len() < length {
                return Ok(0);
            }
            let (before, after) = (&self.answer[..self.date.start], &self.answer[self.date.end..]);
            let alike = bytes[..length].starts_with(before) && bytes[..length].ends_with(after);
            return if alike { Ok(length) } else { Err(wrong("another page")) };
        }
        let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else { return Ok(0) };
        let line = &bytes[..end];
        let digits = line.iter().position(|&byte| byte == b' ').unwrap_or(end);
        let number = std::str::from_utf8(&line[..digits]).ok().and_then(|n| n.parse().ok());
        let padding = line.get(digits + 1..).unwrap_or_default();
        if number != Some(sum) || padding != self.padding {
            let line = String::from_utf8_lossy(&line[..line.len().min(40)]);
            return Err(wrong(&format!("{line:?}, and the sum is {sum}")));
        }
        Ok(end + 1)
    }
}

/// Asks once, to learn how an answer of HTTP looks.
fn learn(order: &Order) -> Result<(Vec<u8>, std::ops::Range<usize>), Failure> {
    let mut socket = std::net::TcpStream::connect(order.addr)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.write_all(b"GET / HTTP/1.1\r\nHost: lariat\r\nConnection: keep-alive\r\n\r\n")?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(HELLO) {
        match socket.read(&mut buffer)? {
            0 => return Err(wrong("no page").into()),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    let length = format!("content-length: {}\r\n", HELLO.len());
    if !text.starts_with("http/1.1 200 ") || !text.contains(&length) {
        return Err(wrong(&text).into());
    }
    let date = text.find("\r\ndate: ").map_or(0..0, |at| {
        let from = at + "\r\ndate: ".len();
        from..from + text[from..].find("\r\n").unwrap_or(0)
    });
    Ok((answer, date))
}

impl Lane {
    pub(super) fn connect(
        poll: &Poll,
        order: &Order,
        number: usize,
        buffer: Option<usize>,
    ) -> io::Result<Lane> {
        let socket = Socket::new(Domain::for_address(order.addr), Type::STREAM, None)?;
        if let Some(bytes) = buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.connect_timeout(&order.addr.into(), Duration::from_secs(5))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        // The end is a reset: thousands of connections leave no port in TIME_WAIT.
        socket.set_linger(Some(Duration::ZERO))?;
        let mut socket = TcpStream::from_std(socket.into());
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut socket, Token(number), both)?;
        Ok(Lane {
            socket,
            sum: 0,
            random: number as u64 + 1,
            pending: VecDeque::new(),
            unsent: Vec::new(),
            partial: Vec::new(),
            answered: 0,
        })
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.random >> 33
    }

    /// Sends a request that was due at `since`.
    pub(super) fn ask(&mut self, talk: &Talk, since: Instant, special: bool) -> io::Result<()> {
        let number = (self.random() % 99) as i64 + 1;
        self.ask_for(talk, since, number, special)?;
        self.send()
    }

    pub(super) fn ask_for(
        &mut self,
        talk: &Talk,
        since: Instant,
        number: i64,
        special: bool,
    ) -> io::Result<()> {
        self.sum = if talk.echo { number } else { self.sum + number };
        talk.ask(&mut self.unsent, number, special)?;
        self.pending.push_back((since, self.sum));
        Ok(())
    }

    /// Keeps `depth` requests under way, as far as the socket takes them.
    pub(super) fn fill(&mut self, talk: &Talk, depth: usize) -> io::Result<()> {
        let now = Instant::now();
        loop {
            if self.unsent.is_empty() {
                let more = depth.saturating_sub(self.pending.len()).min(FILL_MAX);
                for _ in 0..more {
                    let number = (self.random() % 99) as i64 + 1;
                    self.ask_for(talk, now, number, false)?;
                }
            }
            let before = self.unsent.len();
            self.send()?;
            if before == 0 || !self.unsent.is_empty() {
                return Ok(());
            }
        }
    }

    /// Sends what waits, as far as the socket takes it.
    pub(super) fn send(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match self.socket.write(&self.unsent[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent.drain(..sent);
        Ok(())
    }

    /// Reads until the socket has no more, at most `most` bytes; each answer that became whole is
    /// shown to `each` with the moment when its request was due. Returns how many bytes came.
    pub(super) fn receive(
        &mut self,
        talk: &Talk,
        buffer: &mut [u8],
        most: usize,
        mut each: impl FnMut(Instant),
    ) -> io::Result<usize> {
        let mut total = 0;
        while total < most {
            let room = buffer.len().min(most - total);
            let count = match self.socket.read(&mut buffer[..room]) {
                Ok(0) => return Err(io::Error::other("the server has closed a connection")),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            total += count;
            self.take(talk, &buffer[..count], &mut each)?;
            if count < room {
                break;
            }
        }
        Ok(total)
    }

    fn take(
        &mut self,
        talk: &Talk,
        bytes: &[u8],
        each: &mut impl FnMut(Instant),
    ) -> io::Result<()> {
        let mut partial = std::mem::take(&mut self.partial);
        let mut bytes = bytes;
        if !partial.is_empty() {
            partial.extend_from_slice(bytes);
            bytes = &partial;
        }
        while !bytes.is_empty() {
            let Some(&(since, sum)) = self.pending.front() else {
                return Err(wrong("more than was asked for"));
            };
            let length = talk.check(bytes, sum)?;
            if length == 0 {
                break;
            }
            bytes = &bytes[length..];
            self.pending.pop_front();
            self.answered += 1;
            each(since);
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}

/// Requests that are made at a time for a client that sends without end.
const FILL_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn game(size: usize) -> Talk {
        let talk = Talk {
            http: false,
            echo: false,
            padding: Vec::new(),
            special: None,
            answer: vec![],
            date: 0..0,
        };
        talk.sized(size)
    }

    #[test]
    fn a_request_is_padded_and_names_its_special_wish() {
        let mut talk = game(10);
        talk.special = Some(Special { verb: "wait".to_owned(), micros: 50, one_in: 2 });
        let mut out = Vec::new();
        talk.ask(&mut out, 7, false).unwrap();
        talk.ask(&mut out, 8, true).unwrap();
        assert_eq!(out, b"7 ......\n8 wait 50 ......\n");
    }

    #[test]
    fn an_answer_is_checked_to_the_last_byte() {
        let talk = game(6);
        assert_eq!(talk.check(b"21 ..\n22", 21).unwrap(), 6);
        assert_eq!(talk.check(b"21 .", 21).unwrap(), 0);
        for wrong in [&b"22 ..\n"[..], b"21 .\n", b"21 ...\n", b"21 .,\n", b"21\n", b"\n"] {
            assert!(talk.check(wrong, 21).is_err(), "{wrong:?}");
        }
        assert_eq!(game(0).check(b"-3\n", -3).unwrap(), 3);
    }

    #[test]
    fn a_page_may_differ_from_the_first_one_in_its_date_only() {
        let talk = Talk { http: true, answer: b"A date: 12 B".to_vec(), date: 8..10, ..game(0) };
        assert_eq!(talk.check(b"A date: 34 B", 0).unwrap(), 12);
        assert_eq!(talk.check(b"A date: 34", 0).unwrap(), 0);
        assert!(talk.check(b"A date: 34 C", 0).is_err());
        assert!(talk.check(b"B date: 34 B", 0).is_err());
    }
}
