//! RAW commits in the order of offsets: how the writers that copied sooner than the one before them wait for it.
//!
//! One that is held up, by a page fault say, holds up all behind it. When it is done it commits for those that wait, as
//! far as they follow each other, and wakes just them: if each woke all, or each only the next, 64 writers would be woken
//! 64 times for 64 records, or one after the other.

use crate::error::{Error, Result, Status};
use crate::os::{heavy_barrier, light_barrier};
use crate::pin;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// What a writer has copied and wants committed.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub(crate) struct Copied {
    pub len: u64,
    /// 0 for the rest of a full file.
    pub records: u64,
}

impl Copied {
    /// Of the records.
    pub fn bytes(&self) -> u64 {
        if self.records == 0 { 0 } else { self.len }
    }
}

#[derive(Default)]
pub(crate) struct CommitOrder {
    /// Whether anybody waits; changed under the lock.
    awaited: AtomicBool,
    waiting: Mutex<BTreeMap<u64, Waiter>>,
}

struct Waiter {
    /// `None`: has not copied yet, and has to be there when its turn comes.
    copied: Option<Copied>,
    ticket: Arc<Ticket>,
}

#[derive(Default)]
struct Ticket {
    turn: Condvar,
    /// Another one has committed for this writer, or has failed to, which poisons the queue.
    committed: OnceLock<bool>,
}

/// How a wait ended.
#[derive(Debug, PartialEq)]
pub(crate) enum Turn {
    Mine,
    /// Another one has taken it for this writer.
    Taken,
}

impl CommitOrder {
    /// Call after `end` was committed, with how far all is, and with what commits more of the log: up to there, so many
    /// records, so many bytes of them. If it fails, those are told to whom it happened; it has to poison the queue.
    #[inline]
    pub fn reached(&self, end: u64, committed: impl Fn() -> u64, commit: impl FnMut(u64, u64, u64) -> Result<()>) {
        light_barrier();
        if self.awaited.load(Ordering::Relaxed) {
            self.commit_those_behind(end, committed, commit);
        }
    }

    #[cold]
    fn commit_those_behind(
        &self,
        mut end: u64,
        committed: impl Fn() -> u64,
        mut commit: impl FnMut(u64, u64, u64) -> Result<()>,
    ) {
        loop {
            let mut waiting = self.waiting.lock();
            // It may be a while since, and a truncation come between: its `end` is another one's offset by now. But none
            // gets past those that are taken here and not committed.
            if committed() != end {
                return;
            }
            let (mut records, mut bytes, mut served) = (0, 0, Vec::new());
            while let Some(Waiter { copied: Some(copied), .. }) = waiting.get(&end) {
                records += copied.records;
                bytes += copied.bytes();
                let next = end + copied.len;
                served.extend(waiting.remove(&end).map(|waiter| waiter.ticket));
                end = next;
            }
            if served.is_empty() {
                if let Some(next) = waiting.get(&end) {
                    next.ticket.turn.notify_one();
                }
                return;
            }
            // Not under the lock: if it fails it wakes everybody.
            drop(waiting);
            let mut served = Served { order: self, tickets: served, committed: false };
            served.committed = commit(end, records, bytes).is_ok();
            if !served.committed {
                return;
            }
        }
    }

    /// Everybody who waits asks again.
    pub fn wake_all(&self) {
        for waiter in self.waiting.lock().values() {
            waiter.ticket.turn.notify_one();
        }
    }

    /// Waits until everything before `offset` is committed, as `is_reached` tells, or another one has committed what was
    /// `copied` there; an offset has one writer. An error of `is_reached` ends it.
    ///
    /// A wait is rest (`pin::at_rest`): the caller keeps no plain reference to a file over it.
    pub fn wait(&self, offset: u64, copied: Option<Copied>, is_reached: impl Fn() -> Result<bool>) -> Result<Turn> {
        let ticket = Arc::new(Ticket::default());
        let mut waiting = self.waiting.lock();
        let other = waiting.insert(offset, Waiter { copied, ticket: ticket.clone() });
        debug_assert!(other.is_none(), "two writers at {offset}");
        // Whoever commits from now on sees that somebody waits, or is seen by the look below. While anybody waits that
        // is so already: it was made so under this lock.
        if !self.awaited.swap(true, Ordering::Relaxed) {
            heavy_barrier();
        }
        let turn = loop {
            match ticket.committed.get() {
                Some(true) => break Ok(Turn::Taken),
                Some(false) => {
                    break Err(Error::new(Status::Poisoned, "the writer before could not commit what was appended"));
                }
                None => {}
            }
            if waiting.contains_key(&offset) {
                match is_reached() {
                    Ok(true) => break Ok(Turn::Mine),
                    Ok(false) => {}
                    Err(cause) => break Err(cause),
                }
            }
            pin::at_rest(|| ticket.turn.wait(&mut waiting));
        };
        self.leave(waiting, offset, &ticket);
        turn
    }

    fn leave(&self, mut waiting: MutexGuard<'_, BTreeMap<u64, Waiter>>, offset: u64, ticket: &Arc<Ticket>) {
        if waiting.get(&offset).is_some_and(|waiter| Arc::ptr_eq(&waiter.ticket, ticket)) {
            waiting.remove(&offset);
        }
        if waiting.is_empty() {
            self.awaited.store(false, Ordering::Relaxed);
        }
    }
}

/// Those whose turn was taken; they are told when this is dropped, however the commit ended.
struct Served<'o> {
    order: &'o CommitOrder,
    tickets: Vec<Arc<Ticket>>,
    committed: bool,
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        let _still = self.order.waiting.lock();
        for ticket in &self.tickets {
            let _ = ticket.committed.set(self.committed);
            ticket.turn.notify_one();
        }
    }
}

#[cfg(all(test, not(mfq_loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    /// What a queue keeps of its log.
    #[derive(Default)]
    struct Log {
        order: CommitOrder,
        wrote: AtomicU64,
        records: AtomicU64,
        bytes: AtomicU64,
        poisoned: AtomicBool,
    }

    impl Log {
        fn commit(&self, end: u64, records: u64, bytes: u64) -> Result<()> {
            self.records.store(self.records.load(Ordering::Relaxed) + records, Ordering::Relaxed);
            self.bytes.store(self.bytes.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
            assert!(self.wrote.swap(end, Ordering::AcqRel) < end);
            Ok(())
        }

        fn is_reached(&self, offset: u64) -> Result<bool> {
            match self.wrote.load(Ordering::Acquire) == offset {
                true => Ok(true),
                false if self.poisoned.load(Ordering::Acquire) => Err(Error::new(Status::Poisoned, "a test")),
                false => Ok(false),
            }
        }

        fn append(&self, offset: u64, copied: Copied) -> Result<Turn> {
            let turn = self.order.wait(offset, Some(copied), || self.is_reached(offset))?;
            if turn == Turn::Mine {
                self.commit(offset + copied.len, copied.records, copied.len)?;
                let committed = || self.wrote.load(Ordering::Acquire);
                let commit = |end, records, bytes| self.commit(end, records, bytes);
                self.order.reached(offset + copied.len, committed, commit);
            }
            Ok(turn)
        }

        fn until_waiting(&self, count: usize) {
            while self.order.waiting.lock().len() < count {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn the_one_that_held_them_up_commits_for_those_behind_it() {
        let log = Log::default();
        let copied = Copied { len: 10, records: 1 };
        std::thread::scope(|scope| {
            let behind = [30, 10, 20].map(|offset| {
                let log = &log;
                scope.spawn(move || log.append(offset, copied).unwrap())
            });
            log.until_waiting(3);
            assert_eq!(log.append(0, copied).unwrap(), Turn::Mine);
            for writer in behind {
                assert_eq!(writer.join().unwrap(), Turn::Taken);
            }
        });
        assert_eq!((log.wrote.into_inner(), log.records.into_inner(), log.bytes.into_inner()), (40, 4, 40));
        assert!(!log.order.awaited.into_inner(), "nobody waits any more");
    }

    #[test]
    fn nobody_commits_for_one_that_has_to_be_there_itself() {
        let log = Log::default();
        std::thread::scope(|scope| {
            let claim = scope.spawn(|| log.order.wait(10, None, || log.is_reached(10)).unwrap());
            log.until_waiting(1);
            log.append(0, Copied { len: 10, records: 1 }).unwrap();
            assert_eq!(claim.join().unwrap(), Turn::Mine);
        });
        assert_eq!(log.wrote.into_inner(), 10);
    }

    #[test]
    fn nobody_commits_from_an_end_that_was_cut_off_since() {
        let log = Log::default();
        std::thread::scope(|scope| {
            let behind = scope.spawn(|| log.append(20, Copied { len: 10, records: 1 }).unwrap());
            log.until_waiting(1);
            // As one that committed up to there before the cut, and was held up since.
            let committed = || log.wrote.load(Ordering::Acquire);
            log.order.reached(20, committed, |_, _, _| panic!("10 to 20 is not there yet"));
            let last = log
                .append(0, Copied { len: 10, records: 1 })
                .and_then(|_| log.append(10, Copied { len: 10, records: 1 }));
            assert_eq!(last.unwrap(), Turn::Mine);
            assert_eq!(behind.join().unwrap(), Turn::Taken);
        });
        assert_eq!(log.wrote.into_inner(), 30);
    }

    #[test]
    fn a_poisoned_log_keeps_nobody_waiting() {
        let log = Log::default();
        std::thread::scope(|scope| {
            let behind = scope.spawn(|| log.append(10, Copied { len: 10, records: 1 }));
            log.until_waiting(1);
            log.poisoned.store(true, Ordering::Release);
            log.order.wake_all();
            assert_eq!(behind.join().unwrap().unwrap_err().status(), Status::Poisoned);

            // As far as where the next one waits, but its commit fails.
            log.poisoned.store(false, Ordering::Release);
            let taken = scope.spawn(|| log.append(20, Copied { len: 10, records: 1 }));
            log.until_waiting(1);
            log.wrote.store(20, Ordering::Release);
            let committed = || log.wrote.load(Ordering::Acquire);
            log.order.reached(20, committed, |_, _, _| {
                log.poisoned.store(true, Ordering::Release);
                log.order.wake_all();
                Err(Error::new(Status::Io, "a test"))
            });
            assert_eq!(taken.join().unwrap().unwrap_err().status(), Status::Poisoned);
        });
    }

    #[test]
    fn everybody_gets_through_whoever_comes_first() {
        const WRITERS: u64 = 4;
        const APPENDS: u64 = 5_000;
        let (log, reserved) = (Log::default(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (log, reserved) = (&log, &reserved);
                scope.spawn(move || {
                    for _ in 0..APPENDS {
                        let copied = Copied { len: 1 + writer, records: 1 };
                        log.append(reserved.fetch_add(copied.len, Ordering::SeqCst), copied).unwrap();
                    }
                });
            }
        });
        assert_eq!(log.records.into_inner(), WRITERS * APPENDS);
        assert_eq!(log.wrote.into_inner(), reserved.into_inner());
    }
}
