//! The armed timers of a connection, by name.

use super::Connection;
use crate::timer::{Timer, TimerKey};

/// Armed timers. Most connections that have any have one, which needs no allocation.
#[derive(Default)]
pub(super) enum Armed {
    #[default]
    None,
    One(Timer, TimerKey),
    /// Two or more, sorted by name, or what is left of them.
    Many(Vec<(Timer, TimerKey)>),
}

impl Armed {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        match self {
            Armed::None => 0,
            Armed::One(..) => 1,
            Armed::Many(timers) => timers.len(),
        }
    }

    fn get(&self, timer: Timer) -> Option<TimerKey> {
        match self {
            Armed::One(name, key) if *name == timer => Some(*key),
            Armed::Many(timers) => place(timers, timer).ok().map(|at| timers[at].1),
            _ => None,
        }
    }

    fn put(&mut self, timer: Timer, key: TimerKey) -> Option<TimerKey> {
        match self {
            Armed::None => {
                *self = Armed::One(timer, key);
                None
            }
            Armed::One(name, old) if *name == timer => Some(std::mem::replace(old, key)),
            Armed::One(name, old) => {
                let mut timers = vec![(*name, *old), (timer, key)];
                timers.sort_unstable_by_key(|(name, _)| *name);
                *self = Armed::Many(timers);
                None
            }
            Armed::Many(timers) => match place(timers, timer) {
                Ok(at) => Some(std::mem::replace(&mut timers[at].1, key)),
                Err(at) => {
                    timers.insert(at, (timer, key));
                    None
                }
            },
        }
    }

    fn take(&mut self, timer: Timer) -> Option<TimerKey> {
        match self {
            Armed::One(name, key) if *name == timer => {
                let key = *key;
                *self = Armed::None;
                Some(key)
            }
            Armed::Many(timers) => {
                let at = place(timers, timer).ok()?;
                Some(timers.remove(at).1)
            }
            _ => None,
        }
    }
}

fn place(timers: &[(Timer, TimerKey)], timer: Timer) -> Result<usize, usize> {
    timers.binary_search_by_key(&timer, |(name, _)| *name)
}

impl Connection {
    /// Remembers an armed timer and hands back the one it replaces.
    pub(crate) fn put_timer(&mut self, timer: Timer, key: TimerKey) -> Option<TimerKey> {
        self.rare_mut().timers.put(timer, key)
    }

    /// Forgets a timer.
    pub(crate) fn take_timer(&mut self, timer: Timer) -> Option<TimerKey> {
        self.rare.as_mut()?.timers.take(timer)
    }

    /// Forgets all timers.
    pub(crate) fn take_timers(&mut self) -> Vec<TimerKey> {
        let Some(rare) = self.rare.as_mut() else { return Vec::new() };
        match std::mem::take(&mut rare.timers) {
            Armed::None => Vec::new(),
            Armed::One(_, key) => vec![key],
            Armed::Many(timers) => timers.into_iter().map(|(_, key)| key).collect(),
        }
    }

    /// Whether `key` is what `timer` was last set to.
    pub(crate) fn has_timer(&self, timer: Timer, key: TimerKey) -> bool {
        self.rare().and_then(|rare| rare.timers.get(timer)) == Some(key)
    }

    /// How many timers are armed.
    #[cfg(debug_assertions)]
    pub(crate) fn timers_len(&self) -> usize {
        self.rare().map_or(0, |rare| rare.timers.len())
    }
}
