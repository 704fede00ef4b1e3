//! The order of callbacks, checked.
//!
//! The connection's own flags decide which callback runs. This second, smaller state machine does
//! not look at them and checks the callbacks that run. `data`, the hot one, is checked in debug
//! builds and in the simulator, all others always.

/// A callback of [`Protocol`](crate::Protocol).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callback {
    Opened,
    Data,
    Eof,
    Drained,
    Timeout,
    Notified,
    Stopping,
    Closed,
    /// Of a datagram socket.
    Datagram,
    Refused,
}

impl Callback {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Callback::Opened => "opened",
            Callback::Data => "data",
            Callback::Eof => "eof",
            Callback::Drained => "drained",
            Callback::Timeout => "timeout",
            Callback::Notified => "notified",
            Callback::Stopping => "stopping",
            Callback::Closed => "closed",
            Callback::Datagram => "datagram",
            Callback::Refused => "refused",
        }
    }

    /// Whether what it writes counts as caused by input.
    #[inline(always)]
    pub(crate) fn answers_input(self) -> bool {
        matches!(self, Callback::Data | Callback::Eof)
    }
}

/// Where a connection is in the order of callbacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Grammar {
    #[default]
    Fresh,
    Open,
    AfterEof,
    Over,
}

impl Grammar {
    /// Where a connection is after `callback`.
    ///
    /// # Panics
    ///
    /// When `callback` must not run here: a defect of this library, not of its user.
    pub(crate) fn after(self, callback: Callback) -> Grammar {
        match (self, callback) {
            (Grammar::Fresh, Callback::Opened) => Grammar::Open,
            (Grammar::Open, Callback::Eof) => Grammar::AfterEof,
            (Grammar::Fresh | Grammar::Open | Grammar::AfterEof, Callback::Closed) => Grammar::Over,
            (Grammar::Open, Callback::Data) => Grammar::Open,
            (
                Grammar::Open | Grammar::AfterEof,
                Callback::Drained | Callback::Timeout | Callback::Notified | Callback::Stopping,
            ) => self,
            _ => panic!("lariat called {} where the order forbids it: {self:?}", callback.name()),
        }
    }

    /// Another protocol takes the connection over and gets `opened` again.
    pub(crate) fn replaced(self) -> Grammar {
        match self {
            Grammar::Over => Grammar::Over,
            _ => Grammar::Fresh,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_takes_over_what_is_over() {
        for (before, after) in [
            (Grammar::Fresh, Grammar::Fresh),
            (Grammar::Open, Grammar::Fresh),
            (Grammar::AfterEof, Grammar::Fresh),
            (Grammar::Over, Grammar::Over),
        ] {
            assert_eq!(before.replaced(), after, "{before:?}");
        }
    }

    const ALL: [Callback; 8] = [
        Callback::Opened,
        Callback::Data,
        Callback::Eof,
        Callback::Drained,
        Callback::Timeout,
        Callback::Notified,
        Callback::Stopping,
        Callback::Closed,
    ];

    #[test]
    fn a_callback_has_the_name_of_its_method() {
        let of_datagrams = [Callback::Datagram, Callback::Refused];
        let names: Vec<&str> = ALL.into_iter().chain(of_datagrams).map(Callback::name).collect();
        let methods = "opened data eof drained timeout notified stopping closed datagram refused";
        assert_eq!(names.join(" "), methods);
    }

    fn allowed(grammar: Grammar) -> Vec<Callback> {
        ALL.into_iter().filter(|c| crate::guard::guarded(|| grammar.after(*c)).is_ok()).collect()
    }

    #[test]
    fn only_the_callbacks_of_the_contract_are_allowed_in_each_state() {
        use Callback::*;
        assert_eq!(allowed(Grammar::Fresh), [Opened, Closed]);
        assert_eq!(
            allowed(Grammar::Open),
            [Data, Eof, Drained, Timeout, Notified, Stopping, Closed]
        );
        assert_eq!(allowed(Grammar::AfterEof), [Drained, Timeout, Notified, Stopping, Closed]);
        assert_eq!(allowed(Grammar::Over), []);
    }
}
