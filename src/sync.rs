//! Locks, atomics and threads: those of std, or those of a scheduler that makes up every order from
//! a seed, when the blocking driver is checked as a model.

#[cfg(all(test, lariat_model))]
pub(crate) mod model;

#[cfg(all(test, lariat_model))]
pub(crate) use model::{Condvar, Mutex, MutexGuard, atomic, thread};
#[cfg(not(all(test, lariat_model)))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
};
