//! Flushing: what is committed goes to stable storage, by ranged syncs of exactly what is asked for.

use crate::checkpoint::Checkpoint;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::options::{Format, MOST_OFFSET};
use crate::queue::{Queue, Which};
use std::sync::atomic::Ordering;

impl Queue {
    /// Returns when everything below `up_to` is on stable storage; `u64::MAX` stands for all that was reserved when the
    /// call began. It first waits for that to be committed. The deadline bounds the waiting, not the sync itself.
    pub fn flush(&self, up_to: u64, deadline: Deadline) -> Result<()> {
        self.check_open()?;
        if self.is_read_only() {
            return self.check_writable();
        }
        let up_to = match up_to {
            u64::MAX => self.reserved(),
            0..=MOST_OFFSET => up_to,
            _ => return Err(Error::new(Status::Invalid, format!("up_to {up_to} is more than INT64_MAX"))),
        };
        self.wait(Which::Committed, up_to, deadline)?;
        let mut last = match deadline {
            Deadline::Now => self.checkpoint.try_lock(),
            Deadline::At(at) => self.checkpoint.try_lock_until(at),
            Deadline::Never => Some(self.checkpoint.lock()),
        }
        .ok_or_else(|| Error::new(Status::Timeout, "another flush was at work for all of timeout_ms"))?;
        self.flush_to(up_to, &mut last)
    }

    /// Flushes everything and marks the queue as closed cleanly. For the end of a close, when nobody is inside.
    pub(crate) fn mark_clean(&self) -> Result<()> {
        let end = self.advance_wrote(u64::MAX);
        let mut last = self.checkpoint.lock();
        self.flush_to(end, &mut last)?;
        self.write_checkpoint(end, true, &mut last)
    }

    /// The caller holds the checkpoint's lock, so one thread syncs at a time.
    fn flush_to(&self, up_to: u64, last: &mut Checkpoint) -> Result<()> {
        if self.files.sync_failed.load(Ordering::Acquire) {
            self.poison();
        }
        self.check_not_poisoned()?;
        let from = self.positions.flushed();
        if from >= up_to {
            return Ok(());
        }
        // What the pages held may be gone after a failed sync, while they look clean: no second one can be trusted.
        self.sync_range(from, up_to).inspect_err(|_| self.poison())?;
        if self.meta.format == Format::Raw {
            // After a power cut nothing else could tell where RAW bytes end.
            self.write_checkpoint(up_to, false, last).inspect_err(|_| self.poison())?;
        }
        self.positions.advance_flushed(up_to);
        self.moved.notify();
        Ok(())
    }

    fn sync_range(&self, from: u64, up_to: u64) -> Result<()> {
        let mut new_names = Vec::new();
        let mut at = from;
        while at < up_to {
            let file = self.files.table.find(at).expect("a file below committed");
            let end = up_to.min(file.end());
            let synced = file.sync(at - file.start(), end - at);
            synced.map_err(|cause| {
                let name = self.files.directory.name(file.start());
                Error::system(format_args!("{name}: syncing"), cause).with_status(Status::Io)
            })?;
            self.check_intact(&file, at - file.start(), end - at)?;
            if !file.entry_durable() {
                new_names.push(file);
            }
            at = end;
        }
        // The allocation thread has done this already, unless the flush came sooner.
        if !new_names.is_empty() {
            self.files.directory.sync()?;
            new_names.iter().for_each(|file| file.set_entry_durable());
        }
        Ok(())
    }

    fn write_checkpoint(&self, durable: u64, clean: bool, last: &mut Checkpoint) -> Result<()> {
        let next = Checkpoint { epoch: last.epoch + 1, durable, first: self.first_offset, clean };
        self.files.directory.write_checkpoint(&next)?;
        *last = next;
        Ok(())
    }
}
