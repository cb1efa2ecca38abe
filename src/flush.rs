//! Flushing: what is committed goes to stable storage, by ranged syncs of exactly what is asked for.
//!
//! Many threads share one sync ([`crate::turns`]). What is flushed without anybody waiting is in [`crate::background`].

use crate::checkpoint::Checkpoint;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::options::MOST_OFFSET;
use crate::os::EventFd;
use crate::queue::{Queue, Which, cut_off};
use std::os::fd::RawFd;

impl Queue {
    /// Returns when everything below `up_to` is on stable storage; `u64::MAX` stands for all that was reserved when the
    /// call began. The deadline bounds the waiting: for that to be committed and for the syncs of others, not this
    /// call's own.
    pub fn flush(&self, up_to: u64, deadline: Deadline) -> Result<()> {
        self.check_open()?;
        self.check_writable()?;
        let cuts = self.files.table.cuts(); // before the bound is
        self.flush_to(self.flush_bound(up_to, deadline)?, cuts, deadline)
    }

    /// What the policy asks for before an append returns whose record ends at `end`: the record is there, whatever this
    /// returns, unless a truncation has cut it off.
    #[inline]
    pub fn secure(&self, end: u64) -> Result<()> {
        if self.policy.is_every_append() { self.secure_now(end) } else { Ok(()) }
    }

    #[cold]
    fn secure_now(&self, end: u64) -> Result<()> {
        let deadline = Deadline::after_ms(self.sync_timeout_ms);
        let secured = || {
            let cuts = self.files.table.cuts();
            // It was given away, so where less is, it was cut off before this.
            if self.advance_wrote(end) < end && self.flush_bound(u64::MAX, deadline)? < end {
                return Err(cut_off(end));
            }
            self.flush_to(end, cuts, deadline)
        };
        secured().map_err(Error::not_durable)
    }

    /// A descriptor that becomes readable when `flushed` moves, back too, and when the queue is poisoned or closed. The same each
    /// time, and closed with the queue.
    pub fn event_fd(&self) -> Result<RawFd> {
        self.check_open()?;
        let mut slot = self.event_fd.lock();
        if slot.is_none() {
            let made = EventFd::new().map_err(|cause| Error::system("making an event descriptor", cause))?;
            if self.check_not_poisoned().is_err() {
                made.signal(); // it will not be poisoned again
            }
            *slot = Some(made);
        }
        Ok(slot.as_ref().expect("just made").number())
    }

    /// `up_to` as a host gives it, in bytes.
    pub(crate) fn flush_bound(&self, up_to: u64, deadline: Deadline) -> Result<u64> {
        match up_to {
            u64::MAX => {
                let _still = self.hold_still(|| deadline)?;
                Ok(self.reserved_while_still())
            }
            0..=MOST_OFFSET => Ok(up_to),
            _ => Err(Error::new(Status::Invalid, format!("up_to {up_to} is more than INT64_MAX"))),
        }
    }

    /// For the flush thread: `up_to` was complete. It waits for nothing that a truncation has taken away since, and
    /// that may never come again.
    pub(crate) fn flush_complete(&self, up_to: u64) -> Result<()> {
        self.commit_staged(up_to, Deadline::Never)?;
        self.sync_in_turn(up_to.min(self.committed(up_to)), Deadline::Never).map(drop)
    }

    /// `End` if it was cut off since `cuts` was read.
    fn flush_to(&self, up_to: u64, cuts: u64, deadline: Deadline) -> Result<()> {
        // While another one syncs there is no need to know when all of it is committed: 64 writers that wait for that
        // wake each other at every append.
        while !self.sync_in_turn(up_to, deadline)? {
            self.wait_unless_cut(cuts, Which::Committed, up_to, deadline)?;
        }
        Ok(())
    }

    /// Whether all below `up_to` is on stable storage now. If not, some of it is not committed yet, or cut off.
    fn sync_in_turn(&self, up_to: u64, deadline: Deadline) -> Result<bool> {
        let done = || {
            self.check_open()?;
            if self.positions.flushed() >= up_to {
                return Ok(true);
            }
            self.check_not_poisoned()?;
            Ok(false)
        };
        let Some(turn) = self.turns.enter(up_to, deadline, done)? else { return Ok(true) };
        let _poisons = PoisonsIfUnwound(self); // before the turn ends, and the next begins
        self.commit_staged(turn.wanted, deadline)?;
        let committed = turn.wanted.min(self.committed(turn.wanted));
        if committed > self.positions.flushed() {
            self.sync_to(committed)?;
            self.want_checkpoint(committed);
        }
        Ok(committed >= up_to)
    }

    /// Flushes everything and marks the queue as closed cleanly. For the end of a close, when nobody is inside.
    pub(crate) fn mark_clean(&self) -> Result<()> {
        self.check_not_poisoned()?;
        if let Some(staging) = &self.staging {
            staging.finish()?;
        }
        let end = self.advance_wrote(u64::MAX);
        if end > self.positions.flushed() {
            self.sync_to(end)?;
        }
        self.write_checkpoint(end, true, &mut self.checkpoint.lock())
    }

    /// One thread at a time: the one whose turn it is.
    fn sync_to(&self, up_to: u64) -> Result<()> {
        // What the pages held may be gone after a failed sync, while they look clean: no second one can be trusted.
        let poison = |cause: &Error| {
            if !cause.is_want_of_descriptors() {
                self.poison();
            }
        };
        self.sync_range(self.positions.flushed(), up_to).inspect_err(poison)?;
        // STAGED: the flush thread may have been told of a failure that this sync was then not told of.
        self.check_not_poisoned()?;
        if self.policy.checkpoint_in_flush {
            self.write_checkpoint(up_to, false, &mut self.checkpoint.lock()).inspect_err(poison)?;
        }
        self.positions.advance_flushed(up_to);
        self.moved.notify();
        self.signal();
        Ok(())
    }

    fn sync_range(&self, from: u64, up_to: u64) -> Result<()> {
        let mut new_names = Vec::new();
        let mut at = from;
        while at < up_to {
            let file = self.files.table.find(at).expect("a file below committed");
            let end = up_to.min(file.end());
            self.files.sync(&file, at - file.start(), end - at)?;
            self.check_intact(&file, at - file.start(), end - at)?;
            if !file.entry_durable() {
                new_names.push(file);
            }
            at = end;
        }
        // The flush thread has done this already, unless the flush came sooner.
        if !new_names.is_empty() {
            self.files.directory.sync()?;
            new_names.iter().for_each(|file| file.set_entry_durable());
        }
        Ok(())
    }

    pub(crate) fn write_checkpoint(&self, durable: u64, clean: bool, last: &mut Checkpoint) -> Result<()> {
        self.replace_checkpoint(Checkpoint { durable, clean, ..*last }, last)
    }

    /// Writes `next` under the next epoch.
    pub(crate) fn replace_checkpoint(&self, next: Checkpoint, last: &mut Checkpoint) -> Result<()> {
        let next = Checkpoint { epoch: last.epoch + 1, ..next };
        // What failed may be on the disk all the same, and a cut below it has to write it over.
        let failed = |_: &_| last.durable = last.durable.max(next.durable);
        self.files.directory.write_checkpoint(&next).inspect_err(failed)?;
        *last = next;
        Ok(())
    }

    /// Makes the event descriptor readable, if a host has asked for it.
    pub(crate) fn signal(&self) {
        if let Some(fd) = &*self.event_fd.lock() {
            fd.signal();
        }
    }
}

/// A panic in the middle of a sync leaves nobody to tell what it has reached.
struct PoisonsIfUnwound<'q>(&'q Queue);

impl Drop for PoisonsIfUnwound<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison_by_panic();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::os;
    use std::time::Duration;

    #[test]
    fn a_flush_overtaken_by_a_truncation_ends() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { file_size: 64 << 10, ..Options::default() };
        let queue = Queue::open(os::native(), dir.path(), &options).unwrap();
        let kept = queue.append(b"kept").unwrap();
        let cut = queue.append(b"cut").unwrap();
        let cuts = queue.files.table.cuts();
        queue.truncate_after(kept.end).unwrap();
        // As if it had begun before.
        let flushed = queue.flush_to(cut.end, cuts, Deadline::after_ms(60_000));
        assert_eq!(flushed.unwrap_err().status(), Status::End);
        assert_eq!(queue.positions.flushed(), kept.end);
    }

    #[test]
    fn the_flush_thread_does_not_wait_for_what_a_truncation_has_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { file_size: 64 << 10, ..Options::default() };
        let queue = Queue::open(os::native(), dir.path(), &options).unwrap();
        let kept = queue.append(b"kept").unwrap();
        let cut = queue.append(b"cut").unwrap();
        queue.truncate_after(kept.end).unwrap();
        let (done, is_done) = crossbeam_channel::bounded(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if is_done.recv_timeout(Duration::from_secs(60)).is_err() {
                    queue.begin_close(); // who waits in vain comes out, and fails
                }
            });
            let flushed = queue.flush_complete(cut.end); // as if it had looked at the end before
            done.send(()).unwrap();
            flushed.unwrap();
        });
        assert_eq!(queue.offsets().unwrap().flushed, kept.end);
    }
}
