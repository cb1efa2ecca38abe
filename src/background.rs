//! What is flushed without a caller who waits for it: started flushes, what the policy wants ([`crate::policy`]), the
//! checkpoint, and then new files.
//!
//! The flush thread does it ([`crate::flush_service`]), and nothing here polls: an append that crosses the offset that
//! a queue waits for wakes it ([`Queue::published`]), and it names a moment to come again only while something waits.

use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::flush_service::Served;
use crate::log::{self, Level};
use crate::os::heavy_barrier;
use crate::policy::{CHECKPOINT_AFTER, NOT_WANTED, NOW, RETRY_AFTER, SOON, Schedule};
use crate::queue::Queue;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Queue {
    /// Has everything below `up_to` brought to stable storage, as [`Queue::flush`] does, and does not wait for it.
    pub fn flush_start(&self, up_to: u64) -> Result<()> {
        self.check_writable()?;
        let up_to = self.flush_bound(up_to, Deadline::Never)?;
        if up_to > self.positions.flushed() {
            self.policy.started.fetch_max(up_to, Ordering::SeqCst);
            self.ask_flush_thread()?;
        }
        Ok(())
    }

    pub(crate) fn ask_flush_thread(&self) -> Result<()> {
        let service = self.files.flush_service.as_ref().expect("only a writer flushes");
        service.ask(self.files.generation)
    }

    /// After a flush: the checkpoint is to follow, at once where the log has gone on to another file.
    pub(crate) fn want_checkpoint(&self, flushed: u64) {
        let policy = &self.policy;
        if policy.checkpoint_in_flush {
            return;
        }
        let file_of = |offset: u64| offset / self.meta.file_bytes;
        let rolled = file_of(flushed) > file_of(policy.checkpointed.load(Ordering::Relaxed));
        let wanted = if rolled { NOW } else { SOON };
        if policy.checkpoint.load(Ordering::Relaxed) < wanted
            && policy.checkpoint.fetch_max(wanted, Ordering::AcqRel) < wanted
            && let Err(error) = self.ask_flush_thread()
        {
            policy.checkpoint.store(NOT_WANTED, Ordering::Release); // the next flush tries again
            log::write(Level::Warn, format_args!("no checkpoint: {error}"));
        }
    }

    fn write_checkpoint_if_due(&self, schedule: &mut Schedule, now: Instant) -> Result<()> {
        let due = match self.policy.checkpoint.load(Ordering::Acquire) {
            NOT_WANTED => false,
            SOON => *schedule.checkpoint_at.get_or_insert(now + CHECKPOINT_AFTER) <= now,
            _ => true,
        };
        if !due {
            return Ok(());
        }
        schedule.checkpoint_at = None;
        self.policy.checkpoint.store(NOT_WANTED, Ordering::SeqCst); // before `flushed` is read, which may go on
        let mut last = self.checkpoint.lock();
        // Under the lock: a truncation takes `flushed` back, and poisons where the disk says something else by then.
        self.check_not_poisoned()?;
        let durable = self.positions.flushed();
        let written = self.write_checkpoint(durable, false, &mut last);
        drop(last);
        match written {
            Ok(()) => self.policy.checkpointed.store(durable, Ordering::Relaxed),
            Err(error) if is_a_shortage(&error) => {
                log::write(Level::Warn, format_args!("{error}"));
                self.policy.checkpoint.fetch_max(SOON, Ordering::AcqRel);
                schedule.checkpoint_at = Some(now + CHECKPOINT_AFTER);
            }
            Err(error) => {
                self.poison();
                return Err(error);
            }
        }
        Ok(())
    }

    fn flush_what_is_due(&self) -> Result<Option<Instant>> {
        if !self.policy.has_work(self.positions.flushed()) {
            return Ok(None); // asked for a new file
        }
        let (policy, schedule) = (&self.policy, &mut *self.policy.schedule.lock());
        self.check_writable()?;
        let now = Instant::now();
        let committed = self.advance_wrote(u64::MAX);
        let started = policy.started.load(Ordering::SeqCst).min(committed);
        let wanted = policy.wants(schedule, self.positions.flushed(), committed, now).max(started);
        match self.flush_complete(wanted) {
            Err(error) if error.is_want_of_descriptors() => {
                log::write(Level::Warn, format_args!("flushing in the background, tried again: {error}"));
                return Ok(Some(now + RETRY_AFTER));
            }
            flushed => flushed?,
        }
        self.write_checkpoint_if_due(schedule, now)?;

        let flushed = self.positions.flushed();
        let wake_at = || policy.wake_at(schedule, flushed, committed, self.reserved());
        let at = wake_at();
        self.set_flush_at(at);
        // Either the look below sees what an append has published, or the append sees where it wakes this thread.
        heavy_barrier();
        if self.advance_wrote(at) >= at || wake_at() != at {
            return Ok(Some(now)); // others first
        }
        let look_at = schedule.interval.map(|(look_at, _)| look_at);
        Ok([look_at, schedule.checkpoint_at].into_iter().flatten().min())
    }

    /// When to come again for the other new files: one at a time, as what somebody asks for meanwhile goes first. That
    /// waits for one sync at most, which may write all dirty pages of a file that is appended to.
    fn make_new_file_durable(&self) -> Option<Instant> {
        self.check_writable().ok()?; // else closed or poisoned
        match self.files.make_next_durable(|| self.poison()) {
            Ok(false) => None,
            Ok(true) => {
                self.lease.as_ref().expect("only a writer makes files").allocation().wake(); // its pages may be readied
                Some(Instant::now())
            }
            Err(error) => {
                log::write(Level::Warn, format_args!("making a new file durable: {error}")); // a flush makes up for it
                Some(Instant::now() + RETRY_AFTER)
            }
        }
    }
}

impl Served for Queue {
    fn serve(&self) -> Option<Instant> {
        let guest = self.files.table.enter();
        let flush_at = self.flush_what_is_due().unwrap_or_else(|error| {
            if error.status() != Status::Closed && error.status() != Status::Poisoned {
                log::write(Level::Error, format_args!("flushing in the background: {error}"));
            }
            None
        });
        drop(guest); // files that truncations remove are let go while others are synced
        [flush_at, self.make_new_file_durable()].into_iter().flatten().min()
    }

    fn poison_by_panic(&self) {
        Queue::poison_by_panic(self);
    }
}

/// Of descriptors, memory or space: nothing was lost, and it may pass.
fn is_a_shortage(error: &Error) -> bool {
    matches!(error.status(), Status::NoSpace | Status::NoMemory) || error.is_want_of_descriptors()
}
