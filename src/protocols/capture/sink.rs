//! Where packets go: a thread that writes, behind a queue with a bound, or memory.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::pcapng::{self, Packet};
use super::{CaptureOptions, CaptureReport};

/// What the taps of a capture share.
pub(super) struct Sink {
    pub(super) options: CaptureOptions,
    dropped: AtomicU64,
    kind: Kind,
}

enum Kind {
    Memory(Mutex<File<Vec<u8>>>),
    Thread {
        /// Bytes of packets that wait.
        queued: Arc<AtomicUsize>,
        /// Empty once the capture is finished.
        writer: Mutex<Option<Writer>>,
    },
}

struct Writer {
    packets: Sender<Packet>,
    thread: JoinHandle<io::Result<File<Box<dyn Write + Send>>>>,
}

impl Sink {
    pub(super) fn memory(options: CaptureOptions) -> Sink {
        let mut file = File::new(Vec::new(), options.bytes_max);
        // A vector takes everything.
        let _ = file.start();
        let kind = Kind::Memory(Mutex::new(file));
        Sink { options, dropped: AtomicU64::new(0), kind }
    }

    /// Starts the thread that writes to `out`.
    pub(super) fn thread(out: Box<dyn Write + Send>, options: CaptureOptions) -> io::Result<Sink> {
        let mut file = File::new(out, options.bytes_max);
        file.start()?;
        let queued = Arc::<AtomicUsize>::default();
        let (packets, waiting) = channel();
        let freed = Arc::clone(&queued);
        let thread = thread::Builder::new()
            .name("lariat-capture".to_owned())
            .spawn(move || write_all(file, &waiting, &freed))?;
        let writer = Mutex::new(Some(Writer { packets, thread }));
        Ok(Sink { options, dropped: AtomicU64::new(0), kind: Kind::Thread { queued, writer } })
    }

    /// Takes a packet, or counts it as dropped. Never waits for the writer.
    pub(super) fn take(&self, packet: Packet) {
        let taken = match &self.kind {
            Kind::Memory(file) => {
                let mut file = lock(file);
                !file.finished && file.packet(&packet).is_ok_and(|fits| fits)
            }
            Kind::Thread { queued, writer } => {
                let size = packet.bytes.len();
                let before = queued.fetch_add(size, Ordering::Relaxed);
                let fits = before + size <= self.options.queue_max;
                let writer = lock(writer);
                let sent = fits && writer.as_ref().is_some_and(|w| w.packets.send(packet).is_ok());
                if !sent {
                    queued.fetch_sub(size, Ordering::Relaxed);
                }
                sent
            }
        };
        if !taken {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// What has been written to memory, with the end of a file.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let Kind::Memory(file) = &self.kind else { return Vec::new() };
        let file = lock(file);
        let mut bytes = file.out.clone();
        pcapng::statistics(&mut bytes, file.last, file.packets, self.dropped());
        bytes
    }

    /// Waits until everything that was taken is written. Later packets count as dropped.
    pub(super) fn finish(&self) -> io::Result<CaptureReport> {
        let packets = match &self.kind {
            Kind::Memory(file) => {
                let mut file = lock(file);
                if std::mem::replace(&mut file.finished, true) {
                    return Err(finished_before());
                }
                file.packets
            }
            Kind::Thread { writer, .. } => {
                let Some(Writer { packets, thread }) = lock(writer).take() else {
                    return Err(finished_before());
                };
                drop(packets);
                let ended = thread.join();
                let mut file = ended.map_err(|_| io::Error::other("the writer panicked"))??;
                self.dropped.fetch_add(file.dropped, Ordering::Relaxed);
                file.finish(self.dropped())?;
                file.packets
            }
        };
        Ok(CaptureReport { packets, dropped: self.dropped() })
    }
}

fn finished_before() -> io::Error {
    io::Error::other("the capture has been finished before")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread: writes packets until their senders are gone, and flushes when none waits.
fn write_all(
    mut file: File<Box<dyn Write + Send>>,
    waiting: &Receiver<Packet>,
    queued: &AtomicUsize,
) -> io::Result<File<Box<dyn Write + Send>>> {
    loop {
        let packet = match waiting.try_recv() {
            Ok(packet) => packet,
            Err(TryRecvError::Disconnected) => return Ok(file),
            Err(TryRecvError::Empty) => {
                file.out.flush()?;
                match waiting.recv() {
                    Ok(packet) => packet,
                    Err(_) => return Ok(file),
                }
            }
        };
        let fits = file.packet(&packet)?;
        file.dropped += u64::from(!fits);
        queued.fetch_sub(packet.bytes.len(), Ordering::Relaxed);
    }
}

/// A file under way.
struct File<W> {
    out: W,
    bytes: u64,
    bytes_max: u64,
    packets: u64,
    dropped: u64,
    /// The time of the last packet.
    last: u64,
    /// Nothing more is taken. A file that a thread writes does not need it: its queue is closed.
    finished: bool,
    block: Vec<u8>,
}

impl<W: Write> File<W> {
    fn new(out: W, bytes_max: u64) -> File<W> {
        let block = Vec::new();
        File { out, bytes: 0, bytes_max, packets: 0, dropped: 0, last: 0, finished: false, block }
    }

    fn start(&mut self) -> io::Result<()> {
        pcapng::start(&mut self.block);
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        self.bytes += self.block.len() as u64;
        self.out.write_all(&self.block)
    }

    /// False when it would make the file longer than it may be.
    fn packet(&mut self, packet: &Packet) -> io::Result<bool> {
        self.block.clear();
        pcapng::packet(&mut self.block, packet);
        if self.bytes + self.block.len() as u64 > self.bytes_max {
            return Ok(false);
        }
        self.packets += 1;
        self.last = packet.time;
        self.write().map(|()| true)
    }

    fn finish(&mut self, dropped: u64) -> io::Result<()> {
        self.block.clear();
        pcapng::statistics(&mut self.block, self.last, self.packets, dropped);
        self.write()?;
        self.out.flush()
    }
}
