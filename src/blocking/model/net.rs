//! A network of blocking sockets that does not exist: what threads of the model sleep in.
//!
//! It does what Linux does where the driver depends on it: a shutdown of the read side ends a read
//! and sends nothing, a reset ends everything but the bytes that have come, a close with unread
//! bytes is a reset, and a listening socket that is shut down wakes its `accept`. Reads and writes
//! take as many bytes as the schedule decides, and a signal may interrupt any call. What one end
//! writes waits in the other's inbox, which holds [`WINDOW`] bytes.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Mutex as Plain, PoisonError};
use std::time::{Duration, Instant};

use shuttle::sync::{Condvar, Mutex, MutexGuard};

use super::udp::Datagrams;
use crate::datagram::{DatagramOptions, DatagramSocket, Opened};
use crate::endpoint::Endpoint;
use crate::options::{Dial, ListenOptions};
use crate::protocol::{Bound, SocketInfo, Sockets};
use crate::sync::atomic::AtomicBool;
use crate::sync::model;

/// Bytes that an end has room for.
pub(crate) const WINDOW: usize = 8;

/// A read that may sleep no longer than this does not wait at all.
const LOOK: Duration = Duration::from_millis(1);

thread_local! {
    static PLACES: RefCell<BTreeMap<SocketAddr, Place>> = RefCell::default();
    static START: RefCell<Option<Instant>> = const { RefCell::new(None) };
}

#[derive(Clone)]
enum Place {
    Desk(Arc<Desk>),
    Silent(Arc<Silence>),
}

/// Begins a schedule: nobody listens.
pub(crate) fn begin() {
    PLACES.with_borrow_mut(BTreeMap::clear);
    START.with_borrow_mut(|start| *start = Some(Instant::now()));
}

/// The time of the model. Between two schedules only differences are the same.
pub(crate) fn now() -> Instant {
    START.with_borrow(|start| start.expect("a schedule")) + model::elapsed()
}

fn place(addr: SocketAddr) -> Option<Place> {
    PLACES.with_borrow(|places| places.get(&addr).cloned())
}

fn enter(place: Place) -> SocketAddr {
    PLACES.with_borrow_mut(|places| {
        let last = places.last_key_value().map_or(1, |(addr, _)| addr.port());
        let addr = SocketAddr::from(([10, 0, 0, 1], last + 1));
        places.insert(addr, place);
        addr
    })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn waited<'a, T>(changed: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

// ---- listening ----------------------------------------------------------------------------------

struct Desk {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<TcpStream>,
    shut: bool,
}

pub(crate) struct Listener {
    desk: Arc<Desk>,
    addr: SocketAddr,
}

pub(crate) fn listen() -> Listener {
    let desk = Arc::new(Desk { queue: Mutex::default(), changed: Condvar::default() });
    let addr = enter(Place::Desk(Arc::clone(&desk)));
    Listener { desk, addr }
}

struct MadeUp;

impl Sockets for MadeUp {
    fn listen(&self, _: Endpoint, _: &ListenOptions) -> io::Result<Bound> {
        let listener = listen();
        Ok(Bound { addr: listener.addr.into(), socket: Box::new(listener), close: None })
    }

    fn bind(&self, _: Endpoint, _: &DatagramOptions) -> io::Result<Opened> {
        let socket = Datagrams::bind();
        Ok(Opened { addr: socket.local_addr()?, peer: None, socket: Box::new(socket) })
    }
}

pub(crate) fn sockets() -> Box<dyn Sockets> {
    Box::new(MadeUp)
}

pub(crate) fn adopted(_: Box<dyn std::any::Any + Send>) -> Option<TcpStream> {
    unreachable!("no socket of the system can be adopted here");
}

pub(crate) fn accept(listener: &Listener) -> io::Result<(TcpStream, Endpoint)> {
    listener.accept()
}

/// Every listener is the model's own, in whose `accept` a thread sleeps.
pub(crate) fn wait_for_client<T>(
    _: &Listener,
    mut accept: impl FnMut() -> io::Result<T>,
    _: &AtomicBool,
) -> io::Result<T> {
    accept()
}

/// Wakes a thread out of `accept`.
pub(crate) fn wake_accept(listener: &Listener) {
    listener.desk.shut();
}

impl Desk {
    fn shut(&self) {
        let mut queue = locked(&self.queue);
        queue.shut = true;
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        self.changed.notify_all();
        waiting.iter().for_each(reset_on_close);
    }
}

impl Listener {
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn accept(&self) -> io::Result<(TcpStream, Endpoint)> {
        interrupted()?;
        let mut queue = locked(&self.desk.queue);
        loop {
            if let Some(stream) = queue.waiting.pop_front() {
                let peer = stream.peer;
                return Ok((stream, peer.into()));
            }
            if queue.shut {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            queue = waited(&self.desk.changed, queue);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        PLACES.with_borrow_mut(|places| places.remove(&self.addr));
        if !std::thread::panicking() {
            self.desk.shut();
        }
    }
}

/// An address that answers a connect only when the test says so, and then with a time-out.
pub(crate) struct Silence {
    over: Mutex<bool>,
    changed: Condvar,
}

impl Silence {
    pub(crate) fn new() -> (Arc<Silence>, SocketAddr) {
        let silence = Arc::new(Silence { over: Mutex::new(false), changed: Condvar::new() });
        let addr = enter(Place::Silent(Arc::clone(&silence)));
        (silence, addr)
    }

    pub(crate) fn end(&self) {
        *locked(&self.over) = true;
        self.changed.notify_all();
    }

    pub(crate) fn wait(&self) {
        let mut over = locked(&self.over);
        while !*over {
            over = waited(&self.changed, over);
        }
    }
}

// ---- streams ------------------------------------------------------------------------------------

/// Both ends of a connection.
struct Link {
    ends: Mutex<[End; 2]>,
    changed: Condvar,
}

#[derive(Default)]
struct End {
    inbox: VecDeque<u8>,
    /// The other end's FIN has come.
    fin: bool,
    reset: Reset,
    read_shut: bool,
    write_shut: bool,
    closed: bool,
    resets: bool,
    /// The error that each send fails with.
    fault: Option<i32>,
}

/// A reset that has arrived is reported once.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Reset {
    #[default]
    No,
    Untold,
    Told,
}

pub(crate) struct TcpStream {
    link: Arc<Link>,
    side: usize,
    local: SocketAddr,
    peer: SocketAddr,
    read_timeout: Plain<Option<Duration>>,
    write_timeout: Plain<Option<Duration>>,
}

pub(crate) use model::threads_max;

/// A signal may come instead of what a call is for.
fn interrupted() -> io::Result<()> {
    if model::roll(16) == 0 { Err(ErrorKind::Interrupted.into()) } else { Ok(()) }
}

pub(crate) fn connect(dial: &Dial, timeout: Duration) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&dial.to.need_ip()?, timeout)
}

/// Sends, and sleeps until there is room.
pub(crate) fn write(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    Write::write(&mut stream, bytes)
}

/// Sends without sleeping.
pub(crate) fn send(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    interrupted()?;
    stream.send(bytes).unwrap_or_else(|_| Err(ErrorKind::WouldBlock.into()))
}

/// From now on each send of the other end fails with this error of the system, one that sleeps as
/// well.
pub(crate) fn fail_sends(stream: &TcpStream, errno: i32) {
    locked(&stream.link.ends)[1 - stream.side].fault = Some(errno);
    stream.link.changed.notify_all();
}

pub(crate) fn send_vectored(stream: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let first = slices.iter().find(|slice| !slice.is_empty());
    send(stream, first.map_or(&[][..], |first| first))
}

/// Whether a read would find something.
pub(crate) fn has_input(stream: &TcpStream) -> io::Result<bool> {
    let end = &mut locked(&stream.link.ends)[stream.side];
    if end.inbox.is_empty() && end.reset == Reset::Untold {
        end.reset = Reset::Told;
        return Err(ErrorKind::ConnectionReset.into());
    }
    Ok(!end.inbox.is_empty() || end.reset != Reset::No || end.fin || end.read_shut)
}

impl TcpStream {
    pub(crate) fn connect_timeout(addr: &SocketAddr, _: Duration) -> io::Result<TcpStream> {
        for _ in 0..model::roll(4) {
            model::thread::yield_now();
        }
        match place(*addr) {
            Some(Place::Desk(desk)) => {
                let link = Arc::new(Link { ends: Mutex::default(), changed: Condvar::default() });
                let local = SocketAddr::from(([10, 0, 0, 2], 1));
                let stream = |side, local, peer| TcpStream {
                    link: Arc::clone(&link),
                    side,
                    local,
                    peer,
                    read_timeout: Plain::default(),
                    write_timeout: Plain::default(),
                };
                let mut queue = locked(&desk.queue);
                if queue.shut {
                    return Err(ErrorKind::ConnectionRefused.into());
                }
                queue.waiting.push_back(stream(1, *addr, local));
                drop(queue);
                desk.changed.notify_all();
                Ok(stream(0, local, *addr))
            }
            Some(Place::Silent(silence)) => {
                silence.wait();
                Err(ErrorKind::TimedOut.into())
            }
            None => Err(ErrorKind::ConnectionRefused.into()),
        }
    }

    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        *self.read_timeout.lock().unwrap_or_else(PoisonError::into_inner) = timeout;
        Ok(())
    }

    pub(crate) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        *self.write_timeout.lock().unwrap_or_else(PoisonError::into_inner) = timeout;
        Ok(())
    }

    /// A reset that no call has reported yet, once.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        let end = &mut locked(&self.link.ends)[self.side];
        let untold = end.reset == Reset::Untold;
        if untold {
            end.reset = Reset::Told;
        }
        Ok(untold.then(|| ErrorKind::ConnectionReset.into()))
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let mut ends = locked(&self.link.ends);
        let end = &mut ends[self.side];
        // The system forgets a connection that both ends have finished, or one has reset.
        let gone = end.reset != Reset::No || (end.fin && end.write_shut);
        end.read_shut |= how != Shutdown::Write;
        if how != Shutdown::Read && !end.write_shut {
            end.write_shut = true;
            ends[1 - self.side].fin = true;
        }
        drop(ends);
        self.link.changed.notify_all();
        if gone { Err(ErrorKind::NotConnected.into()) } else { Ok(()) }
    }

    /// Waits for a change; an error when the time-out fires.
    fn wait<'a>(
        &'a self,
        ends: MutexGuard<'a, [End; 2]>,
        timeout: &Plain<Option<Duration>>,
    ) -> io::Result<MutexGuard<'a, [End; 2]>> {
        let timeout = *timeout.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(most) = timeout.filter(|most| *most <= LOOK || model::may_fire(*most)) else {
            return Ok(waited(&self.link.changed, ends));
        };
        drop(ends);
        if most <= LOOK || model::sleep(most) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(locked(&self.link.ends))
    }
}

/// Makes the close of `stream` a reset.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    locked(&stream.link.ends)[stream.side].resets = true;
}

/// Part of what could be taken at once.
fn part(count: usize) -> usize {
    if model::roll(2) == 0 { count } else { 1 + model::roll(count) }
}

impl Read for &TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        interrupted()?;
        let mut ends = locked(&self.link.ends);
        loop {
            let end = &mut ends[self.side];
            if !end.inbox.is_empty() {
                let count = part(end.inbox.len().min(buffer.len()));
                for (to, from) in buffer.iter_mut().zip(end.inbox.drain(..count)) {
                    *to = from;
                }
                drop(ends);
                self.link.changed.notify_all();
                return Ok(count);
            }
            match end.reset {
                Reset::Untold => {
                    end.reset = Reset::Told;
                    return Err(ErrorKind::ConnectionReset.into());
                }
                Reset::Told => return Ok(0),
                Reset::No if end.fin || end.read_shut => return Ok(0),
                Reset::No => ends = self.wait(ends, &self.read_timeout)?,
            }
        }
    }
}

impl TcpStream {
    /// Sends as much as there is room for. The ends come back when there is none.
    fn send(&self, bytes: &[u8]) -> Result<io::Result<usize>, MutexGuard<'_, [End; 2]>> {
        self.send_in(locked(&self.link.ends), bytes)
    }

    fn send_in<'a>(
        &'a self,
        mut ends: MutexGuard<'a, [End; 2]>,
        bytes: &[u8],
    ) -> Result<io::Result<usize>, MutexGuard<'a, [End; 2]>> {
        let end = &mut ends[self.side];
        if let Some(errno) = end.fault {
            return Ok(Err(io::Error::from_raw_os_error(errno)));
        }
        match end.reset {
            Reset::Untold => {
                end.reset = Reset::Told;
                return Ok(Err(ErrorKind::ConnectionReset.into()));
            }
            Reset::Told => return Ok(Err(ErrorKind::BrokenPipe.into())),
            Reset::No if end.write_shut => return Ok(Err(ErrorKind::BrokenPipe.into())),
            Reset::No => {}
        }
        let other = &mut ends[1 - self.side];
        if other.closed {
            // Nobody is there: the answer is a reset.
            ends[self.side].reset = Reset::Untold;
            return Ok(Ok(bytes.len()));
        }
        let room = WINDOW.saturating_sub(other.inbox.len()).min(bytes.len());
        if room == 0 {
            return Err(ends);
        }
        let count = part(room);
        other.inbox.extend(&bytes[..count]);
        drop(ends);
        self.link.changed.notify_all();
        Ok(Ok(count))
    }
}

impl Write for &TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        interrupted()?;
        let mut ends = locked(&self.link.ends);
        loop {
            match self.send_in(ends, bytes) {
                Ok(result) => return result,
                Err(full) => ends = self.wait(full, &self.write_timeout)?,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let mut ends = locked(&self.link.ends);
        let end = &mut ends[self.side];
        end.closed = true;
        let resets = end.resets || !end.inbox.is_empty();
        let other = &mut ends[1 - self.side];
        if resets && other.reset == Reset::No {
            other.reset = Reset::Untold;
        }
        other.fin = true;
        drop(ends);
        self.link.changed.notify_all();
    }
}

impl SocketInfo for TcpStream {
    fn local_addr(&self) -> io::Result<Endpoint> {
        Ok(self.local.into())
    }
}
