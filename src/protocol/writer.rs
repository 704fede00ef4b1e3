//! Output of the own connection: what a callback writes, and what is refused.

use std::fmt;
use std::io;

use bytes::Bytes;

use super::{Context, Shared};
use crate::connection::{Connection, Flags};
use crate::guard::GuardedBytes;

impl Context<'_> {
    /// Queues a copy of `bytes`; a slice of the shown input, or adjacent ones, are not even copied.
    ///
    /// If more than [`Limits::output_max`](crate::Limits::output_max) \[8 MiB\] would be unsent,
    /// `bytes` is dropped and the connection ends with
    /// [`OutputFull`](crate::CloseKind::OutputFull). After [`close`](Context::close) or
    /// [`shutdown_write`](Context::shutdown_write) `bytes` is dropped and counted in
    /// [`CloseReason::refused`](crate::CloseReason::refused); the first of a series is logged.
    #[inline(always)]
    pub fn write(&mut self, bytes: &[u8]) {
        // The straight path: nothing waits, and this is the callback's first write.
        let straight = self.conn.flags().none(Flags::NO_WRITES | Flags::QUEUED)
            && bytes.len() <= self.conn.limits().high_mark
            && self.shared.output.is_empty();
        if straight {
            self.shared.output.push_first(bytes, self.shown);
        } else {
            self.write_more(bytes);
        }
    }

    #[inline(never)]
    fn write_more(&mut self, bytes: &[u8]) {
        if self.conn.flags().any(Flags::NO_WRITES) {
            refuse(self.shared, self.conn, bytes.len());
        } else if admit(self.shared, self.conn, bytes.len()) {
            self.shared.output.push(bytes, self.shown);
        }
    }

    /// Queues `bytes` without copying, unless they are short (below 4 KiB).
    pub fn write_bytes(&mut self, bytes: impl Into<Bytes>) {
        let bytes = GuardedBytes::new(bytes);
        if self.conn.flags().any(Flags::NO_WRITES) {
            refuse(self.shared, self.conn, bytes.len());
        } else if admit(self.shared, self.conn, bytes.len()) {
            self.shared.output.push_shared(bytes, self.shown);
        }
    }

    /// Writes formatted text: what `write!` and `writeln!` call.
    ///
    /// ```
    /// # use lariat::{Context, Outcome};
    /// fn greet(cx: &mut Context<'_>) -> Outcome {
    ///     write!(cx, "you are guest {}\r\n", 42)?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::BrokenPipe`] where [`write`](Context::write) would drop the bytes.
    pub fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        io::Write::write_fmt(&mut self.writer(), text)
    }

    /// An [`io::Write`] for serializers. It never blocks; it fails with
    /// [`io::ErrorKind::BrokenPipe`] where [`write`](Context::write) would drop.
    ///
    /// ```
    /// # use lariat::{Context, Outcome};
    /// fn greet(cx: &mut Context<'_>, mut page: &[u8]) -> Outcome {
    ///     std::io::copy(&mut page, &mut cx.writer())?;
    ///     Ok(())
    /// }
    /// ```
    pub fn writer(&mut self) -> Writer<'_> {
        Writer { shared: self.shared, conn: self.conn, shown: self.shown }
    }

    /// Bytes written and not yet taken by the kernel.
    pub fn unsent(&self) -> usize {
        self.conn.unsent() + self.shared.output.len()
    }

    /// Whether the unsent bytes went above [`Limits::high_mark`](crate::Limits::high_mark) \[64
    /// KiB\] and [`drained`](crate::Protocol::drained) has not run since. A producer stops here and
    /// goes on in `drained`.
    pub fn is_congested(&self) -> bool {
        self.conn.is_congested()
    }

    /// Writes what `write` appends, without a copy of its own. `write` also gets the status line of
    /// 200 and a `date` header, up to and with its line break.
    #[cfg(feature = "http")]
    #[inline]
    pub(crate) fn compose(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>, &[u8; crate::date::OK_LINE]),
    ) {
        let Shared { output, clock, date, .. } = &mut *self.shared;
        let line = date.line(clock.recent(), clock);
        let count = output.compose(self.shown, |cork| write(cork, line));
        let refused = self.conn.flags().any(Flags::NO_WRITES);
        if refused || !self.conn.check_marks(self.shared.output.len()) {
            self.shared.output.take_back(count);
            if refused {
                refuse(self.shared, self.conn, count);
            } else {
                self.conn.want_overflow();
                self.conn.lose_output(count);
            }
        }
    }
}

/// Whether `count` more bytes may be written. Past `output_max` they are lost and the connection
/// ends after the callback.
pub(super) fn admit(shared: &Shared, conn: &mut Connection, count: usize) -> bool {
    let fits = conn.check_marks(shared.output.len() + count);
    if !fits {
        conn.want_overflow();
        conn.lose_output(count);
    }
    fits
}

pub(super) fn refuse(shared: &mut Shared, conn: &mut Connection, count: usize) {
    if count == 0 {
        return;
    }
    if conn.flags().any(Flags::OVERFLOW) {
        return conn.lose_output(count);
    }
    shared.metrics.refused_bytes += count as u64;
    conn.handle_refused(count);
    let now = shared.clock.exact();
    let logged = match &shared.common {
        Some(common) => common.note_late_write(now),
        None => shared.late_writes.note(now),
    };
    if let Some(earlier) = logged {
        log::warn!(
            target: "lariat::dispatch",
            "{count} bytes were written to {} after it was closed for writing; they are \
             dropped{earlier}",
            conn.peer(),
        );
    }
    if shared.strict {
        let peer = conn.peer();
        shared.late_write.get_or_insert_with(|| {
            format!("{count} bytes were written to {peer} after it was closed for writing")
        });
    }
}

/// An [`io::Write`] into a connection's output.
pub struct Writer<'a> {
    shared: &'a mut Shared,
    conn: &'a mut Connection,
    shown: &'a [u8],
}

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.conn.flags().any(Flags::NO_WRITES) {
            refuse(self.shared, self.conn, bytes.len());
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if !admit(self.shared, self.conn, bytes.len()) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.shared.output.push(bytes, self.shown);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("id", &self.conn.id()).finish_non_exhaustive()
    }
}
