//! Where threads meet, in those parts that a model checker runs: the real atomics, locks and threads, or, in a build of
//! the tests with `--cfg mfq_loom`, loom's, which try every interleaving and every reordering the memory model allows.
//!
//! That build is for the tests named `models`, as loom's things work inside a model only:
//! `RUSTFLAGS="--cfg mfq_loom" cargo test --lib --target-dir target/loom models`.

#[cfg(not(mfq_loom))]
mod real {
    pub(crate) use ::parking_lot;
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
    pub(crate) use std::{thread, thread_local};
}

#[cfg(not(mfq_loom))]
pub(crate) use real::*;

#[cfg(mfq_loom)]
mod modelled;

#[cfg(mfq_loom)]
pub(crate) use modelled::*;

/// How often a thread looks before it waits in another way: under loom once, as each look multiplies what is to be tried,
/// and a spin in between has the others run first.
pub(crate) const fn looks(times: u32) -> u32 {
    if cfg!(mfq_loom) { 1 } else { times }
}
