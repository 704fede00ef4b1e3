//! A protocol of datagrams made of closures, and the log of what it was told.

#![allow(dead_code)]

use std::sync::{Arc, Mutex};

use lariat::{
    CloseReason, Datagram, DatagramContext, DatagramProtocol, Endpoint, Note, Outcome, Timer,
};

/// What happened to nodes, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<(String, String)>>>);

impl Log {
    pub(crate) fn add(&self, who: &str, line: impl Into<String>) {
        self.0.lock().unwrap().push((who.to_owned(), line.into()));
    }

    pub(crate) fn of(&self, who: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|(of, _)| of == who).map(|(_, line)| line.clone()).collect()
    }
}

type Act = Box<dyn FnMut(&mut DatagramContext<'_>) -> Outcome + Send>;
type WithDatagram = Box<dyn FnMut(&mut DatagramContext<'_>, &Datagram<'_>) -> Outcome + Send>;
type WithTimer = Box<dyn FnMut(&mut DatagramContext<'_>, Timer) -> Outcome + Send>;
type WithNote = Box<dyn FnMut(&mut DatagramContext<'_>, Note) -> Outcome + Send>;
type WithReceiver = Box<dyn FnMut(&mut DatagramContext<'_>, Option<Endpoint>) -> Outcome + Send>;
type WithEnd = Box<dyn FnMut(&mut DatagramContext<'_>, &CloseReason) + Send>;

/// What is not given is as in [`DatagramProtocol`].
#[derive(Default)]
pub(crate) struct Node {
    who: String,
    log: Log,
    opened: Option<Act>,
    datagram: Option<WithDatagram>,
    refused: Option<Act>,
    refused_by: Option<WithReceiver>,
    drained: Option<Act>,
    timeout: Option<WithTimer>,
    notified: Option<WithNote>,
    stopping: Option<Act>,
    closed: Option<WithEnd>,
}

macro_rules! acts {
    ($($name:ident($($kind:ty),*) -> $out:ty;)*) => {
        $(pub(crate) fn $name(
            mut self,
            act: impl FnMut($($kind),*) -> $out + Send + 'static,
        ) -> Node {
            self.$name = Some(Box::new(act));
            self
        })*
    };
}

impl Node {
    pub(crate) fn new() -> Node {
        Node::default()
    }

    /// Writes what it is told into `log`.
    pub(crate) fn under(self, who: &str, log: &Log) -> Node {
        Node { who: who.to_owned(), log: log.clone(), ..self }
    }

    acts! {
        opened(&mut DatagramContext<'_>) -> Outcome;
        datagram(&mut DatagramContext<'_>, &Datagram<'_>) -> Outcome;
        refused(&mut DatagramContext<'_>) -> Outcome;
        drained(&mut DatagramContext<'_>) -> Outcome;
        timeout(&mut DatagramContext<'_>, Timer) -> Outcome;
        notified(&mut DatagramContext<'_>, Note) -> Outcome;
        stopping(&mut DatagramContext<'_>) -> Outcome;
    }

    /// As `refused`, with who it was that did not receive.
    pub(crate) fn refused_by(
        mut self,
        act: impl FnMut(&mut DatagramContext<'_>, Option<Endpoint>) -> Outcome + Send + 'static,
    ) -> Node {
        self.refused_by = Some(Box::new(act));
        self
    }

    pub(crate) fn closed(
        mut self,
        act: impl FnMut(&mut DatagramContext<'_>, &CloseReason) + Send + 'static,
    ) -> Node {
        self.closed = Some(Box::new(act));
        self
    }
}

impl DatagramProtocol for Node {
    fn opened(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
        self.log.add(&self.who, "opened");
        self.opened.as_mut().map_or(Ok(()), |act| act(cx))
    }

    fn datagram(&mut self, cx: &mut DatagramContext<'_>, datagram: &Datagram<'_>) -> Outcome {
        let cut = if datagram.is_truncated() { ", truncated" } else { "" };
        self.log.add(&self.who, format!("datagram of {} bytes{cut}", datagram.len()));
        self.datagram.as_mut().map_or(Ok(()), |act| act(cx, datagram))
    }

    fn refused(&mut self, cx: &mut DatagramContext<'_>, to: Option<Endpoint>) -> Outcome {
        assert!(cx.peer_addr().is_none_or(|peer| to == Some(peer)), "it was sent to the peer");
        self.log.add(&self.who, "refused");
        if let Some(act) = &mut self.refused_by {
            return act(cx, to);
        }
        self.refused.as_mut().map_or(Ok(()), |act| act(cx))
    }

    fn drained(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
        assert!(!cx.is_congested() && cx.unsent() == 0, "nothing waits");
        self.log.add(&self.who, "drained");
        self.drained.as_mut().map_or(Ok(()), |act| act(cx))
    }

    fn timeout(&mut self, cx: &mut DatagramContext<'_>, timer: Timer) -> Outcome {
        self.log.add(&self.who, timer.to_string());
        match &mut self.timeout {
            Some(act) => act(cx, timer),
            None => {
                cx.close();
                Ok(())
            }
        }
    }

    fn notified(&mut self, cx: &mut DatagramContext<'_>, note: Note) -> Outcome {
        self.log.add(&self.who, "notified");
        self.notified.as_mut().map_or(Ok(()), |act| act(cx, note))
    }

    fn stopping(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
        self.log.add(&self.who, "stopping");
        match &mut self.stopping {
            Some(act) => act(cx),
            None => {
                cx.close();
                Ok(())
            }
        }
    }

    fn closed(&mut self, cx: &mut DatagramContext<'_>, reason: &CloseReason) {
        // First: an assertion that fails in there would be lost, and so its line is missing.
        if let Some(act) = &mut self.closed {
            act(cx, reason);
        }
        self.log.add(&self.who, format!("closed {} by {}", reason.kind(), reason.by()));
    }
}

/// Sends each of `count` datagrams back to where it came from, then closes.
pub(crate) fn echo(count: usize) -> Node {
    let mut left = count;
    Node::new().datagram(move |cx, datagram| {
        cx.send_to(datagram, datagram.from())?;
        left -= 1;
        if left == 0 {
            cx.close();
        }
        Ok(())
    })
}
