//! The callbacks of protocols, as text that can be compared.

use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::note::Note;
use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::reason::CloseReason;
use crate::timer::Timer;

/// Records the callbacks of protocols that it [wraps](Trace::wrap), on any driver.
///
/// Adjacent `data` of a connection merge to the number of consumed bytes and their hash, so that a
/// trace does not depend on how the bytes were cut. The order between connections is the driver's.
///
/// ```
/// use lariat::sim::{Sim, Trace};
/// # use lariat::{Context, Input, Outcome, Protocol};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
/// #         cx.write(input);
/// #         input.consume(input.len());
/// #         Ok(())
/// #     }
/// # }
/// let trace = Trace::new();
/// let wrap = trace.clone();
/// let mut sim = Sim::new(1);
/// let listener = sim.listen("127.0.0.1:7000", move |_| Some(wrap.wrap("echo", Echo)))?;
/// let client = sim.dial(sim.addresses(listener)[0]);
/// client.send(b"hello");
/// client.finish();
/// sim.run()?;
/// assert_eq!(
///     trace.of("echo"),
///     ["opened", "data 5 bytes a430d84680aabd0b", "eof", "closed finished by the peer"]
/// );
/// # Ok::<(), lariat::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Trace {
    lines: Arc<Mutex<Vec<Line>>>,
}

struct Line {
    who: String,
    /// Virtual or real time since the connection began.
    age: std::time::Duration,
    what: What,
}

enum What {
    Data { bytes: u64, hash: u64 },
    Other(String),
}

impl Trace {
    /// An empty trace.
    pub fn new() -> Trace {
        Trace::default()
    }

    /// Records the callbacks of `protocol` under the name `who`.
    pub fn wrap<P: Protocol>(&self, who: &str, protocol: P) -> Traced<P> {
        Traced { protocol, who: who.to_owned(), trace: self.clone() }
    }

    /// The callbacks of `who`, one line each, without times.
    pub fn of(&self, who: &str) -> Vec<String> {
        self.lock()
            .iter()
            .filter(|line| line.who == who)
            .map(|line| line.what.to_string())
            .collect()
    }

    /// All callbacks, one line each with who and when, in order.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in self.lock().iter() {
            let _ = writeln!(text, "{:.6} {} {}", line.age.as_secs_f64(), line.who, line.what);
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn data(&self, cx: &Context<'_>, who: &str, consumed: &[u8]) {
        let mut lines = self.lock();
        let last = lines.iter_mut().rev().find(|line| line.who == who);
        if let Some(Line { what: What::Data { bytes, hash }, .. }) = last {
            *bytes += consumed.len() as u64;
            *hash = hash_on(*hash, consumed);
        } else if !consumed.is_empty() {
            let what = What::Data {
                bytes: consumed.len() as u64,
                hash: hash_on(0xCBF2_9CE4_8422_2325, consumed),
            };
            lines.push(Line { who: who.to_owned(), age: cx.age(), what });
        }
    }

    fn other(&self, cx: &Context<'_>, who: &str, what: String) {
        let line = Line { who: who.to_owned(), age: cx.age(), what: What::Other(what) };
        self.lock().push(line);
    }
}

/// FNV-1a: short, known, and the same everywhere.
fn hash_on(mut hash: u64, bytes: &[u8]) -> u64 {
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
    }
    hash
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Data { bytes, hash } => write!(f, "data {bytes} bytes {hash:016x}"),
            What::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// A protocol whose callbacks are recorded: see [`Trace::wrap`].
#[derive(Debug)]
pub struct Traced<P> {
    protocol: P,
    who: String,
    trace: Trace,
}

impl<P: Protocol> Protocol for Traced<P> {
    crate::forward_protocol! {
        self => self.protocol;
        pass: name filter;
        own: opened data eof drained timeout notified closed stopping;
    }

    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.trace.other(cx, &self.who, "opened".into());
        self.protocol.opened(cx)
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        let before = input.to_vec();
        let outcome = catch_unwind(AssertUnwindSafe(|| self.protocol.data(cx, input)));
        // Bytes consumed before a panic count as consumed.
        self.trace.data(cx, &self.who, &before[..before.len() - input.len()]);
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn eof(&mut self, cx: &mut Context<'_>, rest: &mut Input<'_>) -> Outcome {
        let what = match rest.len() {
            0 => "eof".to_owned(),
            left => format!("eof with {left} bytes left"),
        };
        self.trace.other(cx, &self.who, what);
        self.protocol.eof(cx, rest)
    }

    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.trace.other(cx, &self.who, "drained".into());
        self.protocol.drained(cx)
    }

    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        self.trace.other(cx, &self.who, format!("timeout of {timer}"));
        self.protocol.timeout(cx, timer)
    }

    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        self.trace.other(cx, &self.who, "notified".into());
        self.protocol.notified(cx, note)
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        let what = format!("closed {} by {}", reason.kind(), reason.by());
        self.trace.other(cx, &self.who, what);
        self.protocol.closed(cx, reason);
    }

    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.trace.other(cx, &self.who, "stopping".into());
        self.protocol.stopping(cx)
    }
}
