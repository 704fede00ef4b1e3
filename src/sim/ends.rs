//! How the connections of a run ended, for the report of a failure.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::Sim;
use crate::endpoint::Endpoint;
use crate::guard::guarded;
use crate::id::ConnId;
use crate::reason::CloseReason;

/// The most ends that are remembered; the oldest are forgotten first.
const KEPT: usize = 40;

/// The connections that have ended, and the addresses of those that have not.
#[derive(Default)]
pub(super) struct Ends {
    locals: BTreeMap<ConnId, Endpoint>,
    ended: VecDeque<Line>,
    forgotten: usize,
    /// The first connection, for a probe.
    pub(super) first: Option<First>,
}

/// The first connection: its id, once it has a socket, and how it ended.
#[derive(Default)]
pub(super) struct First {
    pub(super) id: Option<ConnId>,
    pub(super) reason: Option<CloseReason>,
}

/// One connection.
struct Line {
    id: ConnId,
    /// None if it never had a socket.
    local: Option<Endpoint>,
    peer: Endpoint,
    sentence: String,
}

impl Ends {
    /// The connection has a socket.
    pub(super) fn begun(&mut self, id: ConnId, local: Endpoint) {
        self.locals.insert(id, local);
        if let Some(first) = &mut self.first {
            first.id.get_or_insert(id);
        }
    }

    pub(super) fn ended(&mut self, id: ConnId, peer: Endpoint, reason: &CloseReason) {
        if self.ended.len() == KEPT {
            self.ended.pop_front();
            self.forgotten += 1;
        }
        let local = self.locals.remove(&id);
        if let Some(first) = self.first.as_mut().filter(|first| first.id == Some(id)) {
            first.reason = Some(reason.clone());
        }
        let sentence = sentence(reason);
        self.ended.push_back(Line { id, local, peer, sentence });
    }
}

/// The error in a reason is the user's, and so is its `Display`.
fn sentence(reason: &CloseReason) -> String {
    guarded(|| reason.to_string()).unwrap_or_else(|panic| format!("displaying it panics: {panic}"))
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { id, local, peer, sentence } = self;
        match local {
            Some(local) => write!(f, "{id} at {local}, peer {peer}: {sentence}"),
            None => write!(f, "{id} without a socket, peer {peer}: {sentence}"),
        }
    }
}

impl Sim {
    /// A line for each connection: how it ended, or its state.
    pub(super) fn connection_lines(&self) -> Vec<String> {
        let ends = &self.inner.system.ends;
        let mut lines = Vec::new();
        if ends.forgotten > 0 {
            lines.push(format!("({} have ended before these)", ends.forgotten));
        }
        lines.extend(ends.ended.iter().map(Line::to_string));
        let open = self.inner.connections();
        let more = open.len().saturating_sub(KEPT);
        for (id, peer, decided) in open.into_iter().take(KEPT) {
            let sentence = match decided {
                Some(reason) => format!("is ending: {}", sentence(&reason)),
                None => "is open".to_owned(),
            };
            let local = ends.locals.get(&id).copied();
            lines.push(Line { id, local, peer, sentence }.to_string());
        }
        if more > 0 {
            lines.push(format!("({more} more are open)"));
        }
        lines
    }
}
