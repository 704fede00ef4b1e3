//! The system beneath the reactor: mio.
//!
//! Streams are registered once, for both directions, edge-triggered, and never again; dropping one
//! takes it out of the poll.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token as MioToken, Waker};

use crate::clock::Clock;
use crate::connection::Flags;
use crate::driver::ListenOptions;
use crate::event_loop::{Listener, Stream, System, Token};
use crate::protocol::SocketInfo;
use crate::socket::{self, Reserve, retry};

/// The upper half of a token is a connection's generation, which is never 0. With 0 there, the lower
/// half is one of these, or a listener's number.
const WAKE: usize = u32::MAX as usize;
#[cfg(feature = "signals")]
const SIGNALS: usize = WAKE - 1;

#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "lariat needs a 64-bit target: a token holds a slot and a generation of 32 bits each"
);

pub(super) struct MioSystem {
    poll: Poll,
    events: Events,
    reserve: Reserve,
    spin: Duration,
    #[cfg(feature = "signals")]
    signals: Option<(signal_hook_mio::v1_0::Signals, crate::handle::Handle)>,
}

impl MioSystem {
    pub(super) fn new(events_max: usize, spin: Duration) -> io::Result<MioSystem> {
        Ok(MioSystem {
            poll: Poll::new()?,
            events: Events::with_capacity(events_max),
            reserve: Reserve::new(),
            spin,
            #[cfg(feature = "signals")]
            signals: None,
        })
    }

    pub(super) fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), MioToken(WAKE))
    }

    pub(super) fn adopt(&self, listener: std::net::TcpListener) -> TcpListener {
        TcpListener::from_std(listener)
    }

    #[cfg(feature = "signals")]
    pub(super) fn watch_signals(&mut self, handle: crate::handle::Handle) -> io::Result<()> {
        let mut signals = signal_hook_mio::v1_0::Signals::new(crate::signals::STOPPING)?;
        self.poll.registry().register(&mut signals, MioToken(SIGNALS), Interest::READABLE)?;
        self.signals = Some((signals, handle));
        Ok(())
    }

    /// Waits without sleeping for a while, then with sleep.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if !self.spin.is_zero() && timeout != Some(Duration::ZERO) {
            let spin = timeout.map_or(self.spin, |timeout| timeout.min(self.spin));
            let until = Instant::now() + spin;
            loop {
                self.poll.poll(&mut self.events, Some(Duration::ZERO))?;
                if !self.events.is_empty() {
                    return Ok(());
                }
                if Instant::now() >= until {
                    break;
                }
                std::hint::spin_loop();
            }
        }
        self.poll.poll(&mut self.events, timeout)
    }
}

impl AsFd for MioSystem {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // mio gives the number of its descriptor alone; a duplicate would not carry a lifetime either.
        self.poll.registry().as_fd()
    }
}

fn flags_of(event: &Event) -> Flags {
    let mut flags = Flags::NONE;
    if event.is_readable() {
        flags.set(Flags::READABLE);
    }
    if event.is_writable() {
        flags.set(Flags::WRITABLE);
    }
    if event.is_read_closed() {
        flags.set(Flags::READABLE | Flags::HUNG);
    }
    if event.is_error() {
        flags.set(Flags::FAULTY);
    }
    flags
}

impl System for MioSystem {
    type Stream = TcpStream;
    type Listener = TcpListener;

    const CHECKED: bool = cfg!(debug_assertions);

    fn poll(
        &mut self,
        timeout: Option<Duration>,
        _clock: &mut Clock,
        mut sink: impl FnMut(Token, Flags),
    ) -> io::Result<()> {
        match self.wait(timeout) {
            Ok(()) => {}
            // The turn goes on without events: the caller looks at its deadlines and waits again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        for event in &self.events {
            let MioToken(token) = event.token();
            let token = match token {
                connection if connection >> 32 != 0 => Token::Connection(connection as u64),
                WAKE => Token::Wake,
                #[cfg(feature = "signals")]
                SIGNALS => {
                    if let Some((signals, handle)) = &mut self.signals {
                        if signals.pending().next().is_some() {
                            handle.shutdown();
                        }
                    }
                    Token::Wake
                }
                listener => Token::Listener(listener as u32),
            };
            sink(token, flags_of(event));
        }
        Ok(())
    }

    fn listen(&mut self, addr: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
        Ok(TcpListener::from_std(socket::listen(addr, options)?))
    }

    fn connect(&mut self, addr: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn register_listener(&mut self, listener: &mut TcpListener, token: u32) -> io::Result<()> {
        self.poll.registry().register(listener, MioToken(token as usize), Interest::READABLE)
    }

    fn register_stream(&mut self, stream: &mut TcpStream, token: u64) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(stream, MioToken(token as usize), both)
    }

    fn shed(&mut self, listener: &mut TcpListener) -> bool {
        self.reserve.lend(|| retry(|| TcpListener::accept(listener)))
    }
}

impl SocketInfo for TcpStream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpStream::local_addr(self)
    }
}

impl Stream for TcpStream {
    #[inline(always)]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| Read::read(self, buffer))
    }

    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        retry(|| Write::write(self, bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        retry(|| self.try_io(|| socket::send_vectored(self, slices)))
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        match TcpStream::shutdown(self, Shutdown::Write) {
            // The peer has reset: reading will tell.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        }
    }

    fn take_error(&mut self) -> io::Result<Option<io::Error>> {
        TcpStream::take_error(self)
    }

    fn check_connected(&mut self) -> io::Result<()> {
        TcpStream::peer_addr(self).map(drop)
    }

    fn reset_on_close(&mut self) {
        socket::reset_on_close(self);
    }

    fn as_info(&self) -> &dyn SocketInfo {
        self
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        retry(|| TcpListener::accept(self))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}
