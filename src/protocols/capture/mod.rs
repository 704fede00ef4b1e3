//! Capture: the clear bytes of connections as a file that Wireshark and tshark read, also those of
//! connections under TLS.
//!
//! A [`Tap`] sees the clear bytes of both directions of one connection. [`Capture::tap`] makes one
//! that turns them into IP packets with TCP segments, as if they had been on a network: with a
//! handshake, sequence numbers, checksums and the driver's time, and with the reason of the end as
//! a comment. A thread writes them in pcapng form. It needs no rights and no packet socket, and is
//! off unless a protocol asks for it.
//!
//! ```no_run
//! use lariat::capture::Capture;
//! # use lariat::{Context, Input, Outcome, Protocol};
//!
//! struct Echo(Capture);
//!
//! impl Protocol for Echo {
//!     fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
//!         cx.set_tap(self.0.tap());
//!         Ok(())
//!     }
//! #   fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
//! #       cx.write(input);
//! #       input.consume_all();
//! #       Ok(())
//! #   }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let capture = Capture::create("echo.pcapng")?;
//! let mut reactor = lariat::reactor::Reactor::new()?;
//! let made = capture.clone();
//! reactor.listen("127.0.0.1:7000", move |_| Some(Echo(made.clone())))?;
//! reactor.run()?;
//! println!("{}", capture.finish()?);
//! # Ok(())
//! # }
//! ```
//!
//! What is written is what protocols see: passwords and keys of users as well. Leave the payload
//! out with [`CaptureOptions::payload`] where sizes and times are enough.
//!
//! The segments are made up. What was lost and sent again on the real network, and where the real
//! segments began, is not in the file; every byte is there once, acknowledged by the next segment
//! of the other direction. A connection of a Unix socket has addresses of 127.0.0.1 in the file.

mod file;
mod pcapng;
mod segment;
mod sink;
mod tapping;

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use crate::tap::Tap;

use file::Named;
use sink::Sink;
use tapping::CaptureTap;

/// What is captured, and its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CaptureOptions {
    /// Whether the bytes themselves are written \[yes\]. Without them there are headers alone, with
    /// the lengths of what was left out.
    pub payload: bool,
    /// Bytes of packets that may wait for the thread that writes \[4 MiB\]. Packets beyond that are
    /// dropped and counted: a slow disk never holds a connection up.
    pub queue_max: usize,
    /// Bytes of the file, beyond which packets are dropped and counted \[1 GiB\]. The last block,
    /// with the counts, comes on top.
    pub bytes_max: u64,
}

impl Default for CaptureOptions {
    fn default() -> CaptureOptions {
        CaptureOptions { payload: true, queue_max: 4 << 20, bytes_max: 1 << 30 }
    }
}

/// A capture of any number of connections. Clones are the same capture.
#[derive(Clone)]
pub struct Capture(Arc<Sink>);

impl Capture {
    /// Writes to a new file, in the place of one that exists: a capture that still writes to the
    /// old one, in this process or another, goes on there and harms neither. Behind a symbolic link
    /// the file is replaced and the link stays. What is no regular file, such as a pipe or
    /// `/dev/stderr`, is opened as it is, and so is a file that may not be removed.
    ///
    /// # Errors
    ///
    /// The file cannot be created, which the error says with its name; the system has no thread for
    /// it. That it cannot be written is an error of [`finish`](Capture::finish).
    pub fn create(path: impl AsRef<Path>) -> io::Result<Capture> {
        Capture::create_with(path, CaptureOptions::default())
    }

    /// Creates with options.
    ///
    /// # Errors
    ///
    /// As [`create`](Capture::create).
    pub fn create_with(path: impl AsRef<Path>, options: CaptureOptions) -> io::Result<Capture> {
        Capture::to_writer(Named::create(path.as_ref())?, options)
    }

    /// Writes to `out`, from a thread of its own.
    ///
    /// # Errors
    ///
    /// The first write fails; the system has no thread for it.
    pub fn to_writer(
        out: impl Write + Send + 'static,
        options: CaptureOptions,
    ) -> io::Result<Capture> {
        Ok(Capture(Arc::new(Sink::thread(Box::new(out), options)?)))
    }

    /// Keeps everything in memory, for tests: the same run of the simulator, the same bytes.
    ///
    /// ```
    /// use lariat::capture::{Capture, CaptureOptions};
    /// let capture = Capture::in_memory(CaptureOptions::default());
    /// assert_eq!(capture.bytes()[..4], [0x0A, 0x0D, 0x0D, 0x0A]);
    /// ```
    pub fn in_memory(options: CaptureOptions) -> Capture {
        Capture(Arc::new(Sink::memory(options)))
    }

    /// A tap for one connection: see [`Context::set_tap`](crate::Context::set_tap).
    pub fn tap(&self) -> impl Tap + use<> {
        CaptureTap::new(Arc::clone(&self.0))
    }

    /// Packets that were dropped so far because too many waited, or because they came after
    /// [`finish`](Capture::finish). Those beyond [`CaptureOptions::bytes_max`] are counted at once
    /// in memory, else by `finish`.
    pub fn dropped(&self) -> u64 {
        self.0.dropped()
    }

    /// The whole file of a capture in memory; empty for others.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.bytes()
    }

    /// Waits until everything that was captured is written, and ends the file. What comes later is
    /// counted as dropped. Without this call the file lacks its last block, which readers do not
    /// mind, and, when the process ends at once, perhaps its last packets.
    ///
    /// # Errors
    ///
    /// A write has failed: the error names the file, and what came after is missing. Or `finish`
    /// was called before.
    pub fn finish(&self) -> io::Result<CaptureReport> {
        self.0.finish()
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture")
            .field("options", &self.0.options)
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}

/// What a capture came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CaptureReport {
    /// Packets in the file.
    pub packets: u64,
    /// Packets that are missing.
    pub dropped: u64,
}

impl fmt::Display for CaptureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} packets captured, {} dropped", self.packets, self.dropped)
    }
}
