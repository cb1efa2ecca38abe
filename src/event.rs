//! Waiting for a position to move, at no cost for those who move it while nobody waits.

use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::os::{heavy_barrier, light_barrier};
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
pub(crate) struct Event {
    /// Set by a waiter, taken back by the notifier that wakes it, so that one wait costs one wake.
    awaited: AtomicBool,
    lock: Mutex<()>,
    moved: Condvar,
}

impl Event {
    /// Call after storing what a waiter may wait for.
    #[inline]
    pub fn notify(&self) {
        light_barrier();
        if self.awaited.load(Ordering::Relaxed) {
            self.wake_all();
        }
    }

    #[cold]
    pub fn wake_all(&self) {
        let _guard = self.lock.lock(); // a waiter between its last look and its sleep holds this
        self.awaited.store(false, Ordering::Relaxed);
        self.moved.notify_all();
    }

    /// Returns once `look` gives something, looking again after each `notify`. `Timeout` once the deadline has passed.
    pub fn wait<T>(&self, deadline: Deadline, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if deadline.has_passed() {
            return Err(Error::new(Status::Timeout, "nothing came within timeout_ms"));
        }
        let mut guard = self.lock.lock();
        loop {
            self.awaited.store(true, Ordering::Relaxed);
            // Either this look sees the notifier's store, or the notifier sees `awaited` (see barrier.rs).
            heavy_barrier();
            if let Some(found) = look()? {
                return Ok(found);
            }
            match deadline.instant() {
                None => self.moved.wait(&mut guard),
                Some(at) if self.moved.wait_until(&mut guard, at).timed_out() => {
                    return look()?.ok_or_else(|| Error::new(Status::Timeout, "nothing came within timeout_ms"));
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn every_step_reaches_every_waiter() {
        let (event, position) = (Event::default(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for wanted in 1..=2_000 {
                        let look = || Ok((position.load(Ordering::Acquire) >= wanted).then_some(()));
                        event.wait(Deadline::after_ms(60_000), look).unwrap();
                    }
                });
            }
            for _ in 0..2_000 {
                position.fetch_add(1, Ordering::Release);
                event.notify();
            }
        });
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        for timeout_ms in [0, 1] {
            let waited = Event::default().wait(Deadline::after_ms(timeout_ms), || Ok(None::<()>));
            assert_eq!(waited.unwrap_err().status(), Status::Timeout);
        }
    }
}
