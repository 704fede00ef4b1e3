//! The test's own ends: they do what the test calls, and read at once unless it has stopped them.

use super::wire::take;
use super::{Network, Progress, Raw};

impl Network {
    pub(in crate::sim) fn queue_raw(&mut self, end: usize, bytes: &[u8]) {
        if let Some(raw) = &mut self.endpoints[end].raw {
            raw.outbox.extend(bytes);
        }
        self.send_raw(end);
    }

    pub(in crate::sim) fn finish_raw(&mut self, end: usize) {
        if let Some(raw) = &mut self.endpoints[end].raw {
            raw.finish = true;
        }
        self.send_raw(end);
    }

    /// Closes after everything that was queued. With nothing queued, a connect under way is
    /// abandoned.
    pub(in crate::sim) fn close_raw(&mut self, end: usize) {
        let connecting = self.endpoints[end].progress == Progress::Connecting;
        match &mut self.endpoints[end].raw {
            Some(raw) if connecting && !raw.outbox.is_empty() => raw.closing = true,
            _ => self.close(end),
        }
    }

    pub(in crate::sim) fn vanish(&mut self, end: usize) {
        self.endpoints[end].vanished = true;
    }

    pub(in crate::sim) fn is_finished(&self, end: usize) -> bool {
        self.endpoints[end].fin_arrived
    }

    /// Turns a connection at a listener of the test into an end of the test.
    pub(in crate::sim) fn adopt_raw(&mut self, end: usize) {
        self.uncount(end);
        self.endpoints[end].raw = Some(Raw::default());
        self.receive_raw(end);
    }

    /// Sends what the test has queued, as far as the window allows.
    pub(super) fn send_raw(&mut self, end: usize) {
        if self.endpoints[end].progress != Progress::Open || self.endpoints[end].fin_sent {
            return;
        }
        let window = self.window(end);
        let Some(raw) = &mut self.endpoints[end].raw else { return };
        if !raw.outbox.is_empty() && window > 0 {
            let count = raw.outbox.len().min(window);
            let bytes = take(&mut raw.outbox, count);
            self.send(end, bytes);
        }
        let done =
            self.endpoints[end].raw.as_ref().is_some_and(|raw| raw.finish && raw.outbox.is_empty());
        if done {
            self.shutdown_write(end);
        }
    }

    /// Reads what arrives at once, unless the test has stopped reading.
    pub(in crate::sim) fn receive_raw(&mut self, end: usize) {
        let endpoint = &mut self.endpoints[end];
        let Some(raw) = &mut endpoint.raw else { return };
        if !raw.stopped && !endpoint.arrived.is_empty() {
            let count = endpoint.arrived.len();
            raw.received.extend(take(&mut endpoint.arrived, count));
            self.open_window(end);
        }
    }

    /// Reads at most `count` bytes although the test has stopped reading.
    pub(in crate::sim) fn read_raw(&mut self, end: usize, count: usize) {
        let endpoint = &mut self.endpoints[end];
        let Some(raw) = &mut endpoint.raw else { return };
        let count = count.min(endpoint.arrived.len());
        raw.received.extend(take(&mut endpoint.arrived, count));
        self.open_window(end);
    }
}
