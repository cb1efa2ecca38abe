//! Group commit: of all who want a sync one leads, and the others wait for its end.
//!
//! Whoever finds nobody leading leads, for everybody who has come by then. Those who come while it is at work are
//! served by the next turn: at the end of each one all whom it served are woken, and one of the next to lead it. There
//! is no other hand-over, and a leader that nobody waits for makes no system call for the others.

use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::sync::{Condvar, Mutex, MutexGuard};
use std::sync::PoisonError;
use std::time::Instant;

/// The standard library's condition: it wakes all its waiters by one system call, where parking_lot's hands them on to
/// the mutex one after the other.
#[derive(Default)]
pub(crate) struct Turns {
    state: Mutex<State>,
    /// The ends of even and of odd turns.
    ended: [Condvar; 2],
}

#[derive(Default)]
struct State {
    /// Of the turn that is under way, or comes next.
    number: usize,
    /// The end that the turn under way is for.
    leading: Option<u64>,
    /// The largest end that was asked for since it began.
    wanted: u64,
    /// Who sleeps until the end of an even and of an odd turn.
    asleep: [usize; 2],
}

/// One thread's time to sync; it ends when this is dropped.
pub(crate) struct Turn<'t> {
    turns: &'t Turns,
    /// The largest end that anybody has asked for.
    pub wanted: u64,
}

impl Turns {
    /// Returns once `done` says so, or with a turn to lead, which is to reach what it wants. `done` is asked again
    /// after each turn. A thread that nobody keeps from leading leads, whatever its deadline.
    pub fn enter(&self, up_to: u64, deadline: Deadline, done: impl Fn() -> Result<bool>) -> Result<Option<Turn<'_>>> {
        let mut state = self.lock();
        loop {
            if done()? {
                return Ok(None);
            }
            state.wanted = state.wanted.max(up_to);
            let Some(covering) = state.leading else {
                let wanted = std::mem::take(&mut state.wanted);
                state.leading = Some(wanted);
                return Ok(Some(Turn { turns: self, wanted }));
            };
            if deadline.has_passed() {
                return Err(Error::new(Status::Timeout, "another flush was at work for all of timeout_ms"));
            }
            let serves_us = if up_to <= covering { state.number } else { state.number.wrapping_add(1) };
            let side = serves_us % 2;
            state.asleep[side] += 1;
            state = self.sleep(state, side, deadline);
            state.asleep[side] -= 1;
        }
    }

    /// Makes everybody who waits ask again.
    pub fn wake_all(&self) {
        let state = self.lock();
        self.ended.iter().for_each(Condvar::notify_all);
        drop(state); // held until here: who was about to sleep has not looked before
    }

    fn sleep<'s>(&self, state: MutexGuard<'s, State>, side: usize, deadline: Deadline) -> MutexGuard<'s, State> {
        match deadline.instant() {
            None => self.ended[side].wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(at) => {
                let rest = at.saturating_duration_since(Instant::now());
                self.ended[side].wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        let served = state.number % 2;
        state.leading = None;
        state.number = state.number.wrapping_add(1);
        let asleep = state.asleep;
        drop(state);
        // The next leader first: the disk has nothing to do until it runs.
        if asleep[1 - served] > 0 {
            self.turns.ended[1 - served].notify_one();
        }
        if asleep[served] > 0 {
            self.turns.ended[served].notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn every_end_asked_for_is_reached_and_nobody_is_forgotten() {
        let (turns, position, led) = (Turns::default(), AtomicU64::new(0), AtomicU64::new(0));
        let next = AtomicU64::new(1);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let up_to = next.fetch_add(1, Ordering::SeqCst);
                        let done = || Ok(position.load(Ordering::SeqCst) >= up_to);
                        while let Some(turn) = turns.enter(up_to, Deadline::after_ms(60_000), done).unwrap() {
                            led.fetch_add(1, Ordering::SeqCst);
                            let before = position.fetch_max(turn.wanted, Ordering::SeqCst);
                            assert!(before < turn.wanted, "a turn that nobody needed");
                        }
                    }
                });
            }
        });
        assert_eq!(position.into_inner(), 16_000);
        assert!(led.into_inner() <= 16_000);
    }

    #[test]
    fn a_turn_takes_in_all_who_came_before_it_began() {
        let (turns, position) = (Turns::default(), AtomicU64::new(0));
        let done = |up_to: u64| {
            let position = &position;
            move || Ok(position.load(Ordering::SeqCst) >= up_to)
        };
        let first = turns.enter(1, Deadline::Never, done(1)).unwrap().unwrap();
        assert_eq!(first.wanted, 1);
        let second = turns.enter(2, Deadline::Now, done(2));
        assert_eq!(second.err().unwrap().status(), Status::Timeout);
        std::thread::scope(|scope| {
            let waiters = [5, 3, 4].map(|up_to| {
                let (turns, done, position) = (&turns, done(up_to), &position);
                scope.spawn(move || {
                    let turn = turns.enter(up_to, Deadline::after_ms(60_000), done).unwrap();
                    turn.map(|turn| position.fetch_max(turn.wanted, Ordering::SeqCst))
                })
            });
            while turns.lock().asleep.iter().sum::<usize>() < 3 {
                std::thread::yield_now();
            }
            position.store(1, Ordering::SeqCst);
            drop(first);
            let led: Vec<u64> = waiters.into_iter().filter_map(|waiter| waiter.join().unwrap()).collect();
            assert_eq!(led, [1], "one of them led, for all three");
        });
        assert_eq!(position.into_inner(), 5);
    }
}

#[cfg(all(test, mfq_loom))]
mod models {
    use super::*;
    use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
    use crate::sync::{explore, explore_up_to, thread};
    use loom::sync::Arc;

    /// A queue, as far as its flushes concern.
    #[derive(Default)]
    struct Flushing {
        turns: Turns,
        flushed: AtomicU64,
        syncing: AtomicBool,
        failed: AtomicBool,
    }

    impl Flushing {
        /// What a flush does; `sync` says whether its sync succeeds.
        fn flush(&self, up_to: u64, sync: impl Fn() -> bool) -> Result<()> {
            let done = || match self.flushed.load(Acquire) >= up_to {
                true => Ok(true),
                false if self.failed.load(Relaxed) => Err(Error::closed()),
                false => Ok(false),
            };
            let Some(turn) = self.turns.enter(up_to, Deadline::Never, done)? else { return Ok(()) };
            assert!(!self.syncing.swap(true, Relaxed), "two lead at once");
            let before = self.flushed.load(Relaxed);
            assert!(before < turn.wanted, "a turn that nobody needs");
            let synced = sync();
            if synced {
                self.flushed.store(turn.wanted, Release);
            } else {
                self.end();
            }
            self.syncing.store(false, Relaxed);
            drop(turn);
            if synced { Ok(()) } else { Err(Error::closed()) }
        }

        /// Poisons or closes it.
        fn end(&self) {
            self.failed.fetch_or(true, SeqCst);
            self.turns.wake_all();
        }

        fn reached(&self, up_to: u64) -> bool {
            self.flushed.load(Acquire) >= up_to
        }
    }

    type Flusher<T> = loom::thread::JoinHandle<T>;

    fn start<T: 'static>(flushing: &Arc<Flushing>, act: impl FnOnce(&Flushing) -> T + 'static) -> Flusher<T> {
        let flushing = flushing.clone();
        thread::spawn(move || act(&flushing))
    }

    #[test]
    fn every_flush_comes_back_with_its_end_reached() {
        explore(|| {
            let flushing = Arc::new(Flushing::default());
            let others = [2, 3].map(|up_to| {
                start(&flushing, move |flushing| {
                    flushing.flush(up_to, || true).unwrap();
                    assert!(flushing.reached(up_to));
                })
            });
            flushing.flush(1, || true).unwrap();
            others.into_iter().for_each(|other| other.join().unwrap());
        });
    }

    /// One leads, one leads next, and two are served by that.
    #[test]
    fn four_flushes_share_turns_and_none_of_them_is_left_asleep() {
        explore_up_to(2, || {
            let flushing = Arc::new(Flushing::default());
            let others = [2, 3, 4].map(|up_to| start(&flushing, move |flushing| flushing.flush(up_to, || true)));
            flushing.flush(1, || true).unwrap();
            others.into_iter().for_each(|other| other.join().unwrap().unwrap());
            assert!(flushing.reached(4));
        });
    }

    #[test]
    fn whoever_flushes_again_forgets_nobody() {
        explore(|| {
            let flushing = Arc::new(Flushing::default());
            let other = start(&flushing, |flushing| {
                flushing.flush(1, || true).unwrap();
                flushing.flush(3, || true).unwrap();
            });
            flushing.flush(2, || true).unwrap();
            flushing.flush(4, || true).unwrap();
            other.join().unwrap();
            assert!(flushing.reached(4));
        });
    }

    #[test]
    fn a_leader_whose_sync_fails_brings_everybody_out() {
        explore(|| {
            let flushing = Arc::new(Flushing::default());
            let others = [2, 3].map(|up_to| start(&flushing, move |flushing| flushing.flush(up_to, || true)));
            let led = flushing.flush(1, || false);
            let others = others.map(|other| other.join().unwrap());
            assert_eq!(led.is_ok(), flushing.reached(1));
            assert_eq!(others.map(|other| other.is_ok()), [2, 3].map(|up_to| flushing.reached(up_to)));
        });
    }

    #[test]
    fn a_close_brings_out_who_waits_for_a_leader() {
        explore(|| {
            let flushing = Arc::new(Flushing::default());
            let leads = Arc::new(AtomicBool::new(false));
            let leader = {
                let leads = leads.clone();
                start(&flushing, move |flushing| {
                    let turn = flushing.turns.enter(1, Deadline::Never, || Ok(false)).unwrap().unwrap();
                    leads.store(true, Release);
                    std::mem::forget(turn); // its sync hangs
                })
            };
            leader.join().unwrap();
            let waiter = start(&flushing, |flushing| flushing.flush(1, || true));
            flushing.end();
            assert!(waiter.join().unwrap().is_err());
        });
    }
}
