//! Faults by chance: drawn from the choices of the run, and noted in its log.

use std::io;

use super::{MILLISECOND, Network};
use crate::sim::choices::Kind;
use crate::sim::faults::{Call, Fault};
use crate::sim::log::What;

/// The upper bound of a delay.
pub(super) const DELAY: u64 = 20 * MILLISECOND;

impl Network {
    /// The fault of this call, by the script or by chance: an error, or a bound on its bytes. `end`
    /// is the end that makes the call, if one does.
    pub(super) fn fault(
        &mut self,
        call: Call,
        end: Option<usize>,
    ) -> Result<Option<usize>, io::Error> {
        let number = self.enter_call(call);
        if let Some(scripted) = self.scripted(call, number) {
            return scripted.map(Some);
        }
        if call != Call::Register && self.roll(end, Kind::Interrupts, 1).is_some() {
            return Err(io::Error::from_raw_os_error(libc::EINTR));
        }
        Ok(None)
    }

    /// Counts a call: its number among those of its kind.
    pub(super) fn enter_call(&mut self, call: Call) -> u64 {
        self.spend_call();
        let number = self.calls[call as usize];
        self.calls[call as usize] += 1;
        number
    }

    /// What the script has for a call.
    pub(super) fn scripted(&mut self, call: Call, nth: u64) -> Option<io::Result<usize>> {
        let at = self.script.iter().position(|s| s.call == call && s.nth == nth)?;
        Some(match self.script.swap_remove(at).fault {
            Fault::Error(errno) => Err(io::Error::from_raw_os_error(errno)),
            Fault::Short(bytes) => Ok(bytes),
        })
    }

    /// A run with other choices than its seed's may have no end, or not be wanted. The run is
    /// abandoned here and nowhere else, because no call is made while something is dropped.
    fn spend_call(&mut self) {
        assert!(self.log.as_ref().is_none_or(|log| !log.is_full()), "too much happens in this run");
        if let Some(left) = &mut self.calls_left {
            assert!(*left > 0, "this run makes too many calls");
            *left -= 1;
        }
    }

    /// Calls of the driver so far.
    pub(in crate::sim) fn calls_made(&self) -> u64 {
        self.calls.iter().sum()
    }

    /// Whether a fault happens, at an end or to the network as a whole, and in which of `ways`
    /// ways.
    pub(super) fn roll(&mut self, end: Option<usize>, kind: Kind, ways: u64) -> Option<u64> {
        let of_thousand = self.faults.of(kind);
        if of_thousand == 0 {
            return None;
        }
        let source = match end {
            Some(end) => &mut self.endpoints[end].source,
            None => &mut self.source,
        };
        let way = self.tape.borrow_mut().fault(source, kind, of_thousand, ways)?;
        if self.log.is_some() {
            let place = end.map_or(String::new(), |end| {
                let end = &self.endpoints[end];
                format!(" at {}, peer {}", end.local, end.remote)
            });
            self.note_fault(kind, way, &place);
        }
        Some(way)
    }

    pub(super) fn note_fault(&mut self, kind: Kind, way: u64, place: &str) {
        let what = match kind {
            Kind::Delays => format!("a delay of {} us{place}", way / 1000),
            Kind::Stops => format!("the process is stopped for {} us", way / 1000),
            _ => format!("{}{place}", sentence(kind)),
        };
        self.note(What::Fault(what));
    }

    /// How much longer than usual the next job or lookup takes.
    pub(in crate::sim) fn delay_of_job(&mut self) -> u64 {
        self.delay(None)
    }

    pub(super) fn delay(&mut self, end: Option<usize>) -> u64 {
        self.roll(end, Kind::Delays, DELAY).unwrap_or(0)
    }

    pub(super) fn note(&mut self, what: What) {
        if let Some(log) = &mut self.log {
            log.push(self.now, what);
        }
    }

    /// Notes what the test does at its own end, where a log is kept.
    pub(in crate::sim) fn note_deed(&mut self, end: usize, what: &'static str) {
        if self.log.is_some() {
            let local = self.endpoints[end].local;
            self.note(What::Does(local, what));
        }
    }
}

fn sentence(kind: Kind) -> &'static str {
    match kind {
        Kind::Choice | Kind::Delays | Kind::Stops => kind.name(),
        Kind::ShortReads => "a read returns less than there is",
        Kind::ShortWrites => "a write takes less than fits",
        Kind::Interrupts => "a call is interrupted",
        Kind::Spurious => "an event without a cause",
        Kind::Cuts => "a segment is cut in two",
        Kind::Resets => "a reset by the network",
        Kind::Vanishes => "the host vanishes",
        Kind::AcceptErrors => "an accept fails",
        Kind::ConnectErrors => "the connect fails",
        Kind::ClockStalls => "the clock stands still",
        Kind::SingleEvents => "one event alone is reported",
        Kind::Losses => "a datagram is lost",
        Kind::Duplicates => "a datagram comes twice",
        Kind::Reorders => "a datagram is overtaken",
        Kind::Refusals => "a datagram is refused",
    }
}
