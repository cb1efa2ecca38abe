//! Waiting for a position to move, at no cost for those who move it while nobody waits.

use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::os::{heavy_barrier, light_barrier};
use crate::pin;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::parking_lot::{Condvar, Mutex};

#[derive(Default)]
pub(crate) struct Event {
    /// Set by a waiter, taken back by the notifier that wakes it, so that one wait costs one wake.
    awaited: AtomicBool,
    /// How often waiters were woken.
    wakes: Mutex<u64>,
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
        let mut wakes = self.wakes.lock();
        *wakes += 1;
        self.awaited.store(false, Ordering::Relaxed);
        self.moved.notify_all();
    }

    /// Returns once `look` gives something, looking again after each `notify`. `Timeout` once the deadline has passed.
    ///
    /// A wait is rest (`pin::at_rest`): the caller keeps no plain reference to a file over it.
    pub fn wait<T>(&self, deadline: Deadline, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        if let Some(found) = look()? {
            return Ok(found);
        }
        let mut in_time = !deadline.has_passed();
        while in_time {
            let seen = *self.wakes.lock();
            self.awaited.store(true, Ordering::Relaxed);
            // Either this look sees the notifier's store, or the notifier sees `awaited` (see barrier.rs). No lock is
            // held meanwhile: a look may have to read from the disk, and the notifier is a writer.
            heavy_barrier();
            if let Some(found) = look()? {
                return Ok(found);
            }
            let mut wakes = self.wakes.lock();
            if *wakes != seen {
                continue;
            }
            pin::at_rest(|| match deadline.instant() {
                None => self.moved.wait(&mut wakes),
                Some(at) => in_time = !self.moved.wait_until(&mut wakes, at).timed_out(),
            });
        }
        look()?.ok_or_else(|| Error::new(Status::Timeout, "nothing came within timeout_ms"))
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

#[cfg(all(test, mfq_loom))]
mod models {
    use super::*;
    use crate::sync::atomic::AtomicU64;
    use crate::sync::{explore, thread};
    use loom::sync::Arc;

    #[derive(Default)]
    struct Moving {
        event: Event,
        position: AtomicU64,
    }

    impl Moving {
        fn step(&self) {
            self.position.fetch_add(1, Ordering::Release);
            self.event.notify();
        }

        fn wait_for(&self, wanted: u64) {
            let look = || Ok((self.position.load(Ordering::Acquire) >= wanted).then_some(()));
            self.event.wait(Deadline::Never, look).unwrap();
        }
    }

    fn start(moving: &Arc<Moving>, act: impl FnOnce(&Moving) + 'static) -> loom::thread::JoinHandle<()> {
        let moving = moving.clone();
        thread::spawn(move || act(&moving))
    }

    #[test]
    fn a_waiter_hears_of_every_step() {
        explore(|| {
            let moving = Arc::new(Moving::default());
            let waiter = start(&moving, |moving| {
                moving.wait_for(1);
                moving.wait_for(2);
            });
            moving.step();
            moving.step();
            waiter.join().unwrap();
        });
    }

    #[test]
    fn a_step_reaches_all_who_wait_for_it() {
        explore(|| {
            let moving = Arc::new(Moving::default());
            let waiters = [(); 2].map(|()| start(&moving, |moving| moving.wait_for(1)));
            moving.step();
            waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        });
    }

    #[test]
    fn one_of_two_who_move_it_wakes_the_waiter() {
        explore(|| {
            let moving = Arc::new(Moving::default());
            let mover = start(&moving, Moving::step);
            let waiter = start(&moving, |moving| moving.wait_for(2));
            moving.step();
            mover.join().unwrap();
            waiter.join().unwrap();
        });
    }

    /// As a close does: the state it looks at is told by nothing but the wake.
    #[test]
    fn a_close_brings_out_who_waits_in_vain() {
        explore(|| {
            let (event, closed) = (Arc::new(Event::default()), Arc::new(AtomicBool::new(false)));
            let waiter = {
                let (event, closed) = (event.clone(), closed.clone());
                thread::spawn(move || {
                    let look = || if closed.load(Ordering::Relaxed) { Err(Error::closed()) } else { Ok(None::<()>) };
                    assert_eq!(event.wait(Deadline::Never, look).unwrap_err().status(), Status::Closed);
                })
            };
            closed.fetch_or(true, Ordering::SeqCst);
            event.wake_all();
            waiter.join().unwrap();
        });
    }
}
