//! Truncation: the end of the log moves back, or its beginning moves on, durably.
//!
//! **The end.** Writers take no lock, so nobody can tell when the last of them has stopped looking at the end; and
//! zeroing what is cut in its place would have one that looked before write behind the new end. So they are shut out of
//! the file instead: what is left of it is taken, all of it, which is what a writer that comes too late finds for ever.
//! A file that is cut in the middle is replaced by a copy of what stays. Whoever still reads the old one reads what was
//! there.
//!
//! On disk, each step leaves the old log, or the beginning of it up to the new end at least:
//! 1. a copy of the cut file's beginning under a temporary name, synced: an open removes it;
//! 2. the checkpoint, if it calls more durable than what stays; in RAW then the tail page, which is the cut itself for an
//!    open in the same boot;
//! 3. files that were made ahead, and those behind the cut, removed from the last one back: no gap;
//! 4. the copy takes the place of the cut file;
//! 5. the directory is synced.
//!
//! **The beginning.** The checkpoint names the new first file, then the files before it are removed: an open removes
//! those that are left.

use crate::append::busy;
use crate::checkpoint::Checkpoint;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::log::{self, Level};
use crate::mapped_file::MappedFile;
use crate::options::Format;
use crate::place::{place_rest, walk_whole};
use crate::queue::Queue;
use crate::raw;
use crate::record::step;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// What keeps writers out of the last file.
struct Fence<'q> {
    file: &'q MappedFile,
    /// Where they were when it went up. `None`: at the file's end, where there is nothing to take.
    at: Option<u64>,
}

impl Queue {
    /// Cuts the log: everything at and after `offset` is gone, durably, when this returns.
    pub fn truncate_after(&self, offset: u64) -> Result<()> {
        self.check_writable()?;
        if self.staging.is_some() {
            let message = "the queue is open in MFQ_STAGED: its end can be moved back in MFQ_MMAP only";
            return Err(Error::new(Status::Unsupported, message));
        }
        let _alone = self.end_moves.write();
        let Some(last) = self.files.table.last() else { return self.check_cut(offset, self.first_offset()) };
        let fence = self.shut_out(last)?;
        let _no_sync = self.turns.enter(0, Deadline::Never, || Ok(false));
        let mut checkpoint = self.checkpoint.lock();
        let prepared = self.wait_for_writers(&fence).and_then(|end| {
            self.check_writable()?; // a flush or a close may have come first
            self.check_cut(offset, end)?;
            let copy = if offset < end { self.copy_what_stays(offset)? } else { None };
            Ok((offset < end).then_some(copy))
        });
        let copy = match prepared {
            Ok(Some(copy)) => copy,
            nothing_to_do => {
                self.let_in(&fence);
                return nothing_to_do.map(drop);
            }
        };
        // From here on the disk says something else than memory: it is all done, or the queue is opened anew.
        self.remove_behind(offset, copy, &mut checkpoint).inspect_err(|_| self.poison())
    }

    /// Removes the files that end at or before `offset`, but never the last one.
    pub fn truncate_before(&self, offset: u64) -> Result<()> {
        self.check_writable()?;
        let _asked_again = WakesFlushes(self); // dropped behind the turn
        let _no_sync = self.turns.enter(0, Deadline::Never, || Ok(false));
        let mut checkpoint = self.checkpoint.lock();
        self.check_writable()?;
        let committed = self.committed(offset);
        if offset > committed {
            return Err(beyond(offset, committed));
        }
        let Some(last) = self.files.table.last().map(MappedFile::start) else { return Ok(()) };
        let first = (offset - offset % self.meta.file_bytes).min(last);
        if first <= self.first_offset() {
            return Ok(());
        }
        let next = Checkpoint { durable: checkpoint.durable.max(first), first, clean: false, ..*checkpoint };
        self.replace_checkpoint(next, &mut checkpoint)?;
        self.positions.advance_flushed(first); // there is nothing below any more
        self.first.store(first, Ordering::Release);
        self.moved.notify();
        self.signal();
        let gone = self.files.table.remove_before(first);
        // STAGED: their buffers go back now; the files themselves may be kept for long.
        gone.iter().for_each(|file| drop(file.release()));
        self.lease.as_ref().expect("only a writer truncates").allocation().forget_before(&self.files, first);
        gone.iter().try_for_each(|file| self.files.directory.remove(file.start()))
    }

    /// Unmaps the files that truncations have removed, unless a view or a call still holds them, if `is_unused` says
    /// that no other call which began before it was asked is inside the queue.
    ///
    /// # Safety
    /// What `is_unused` says is true, and the calling thread uses no reference that it got from the queue before.
    pub unsafe fn release_removed(&self, is_unused: impl FnOnce() -> bool) {
        // SAFETY: the caller's promise.
        unsafe { self.files.table.release_removed(is_unused) }
    }

    fn check_cut(&self, offset: u64, end: u64) -> Result<()> {
        let first = self.first_offset();
        if offset > end {
            return Err(beyond(offset, end));
        }
        if offset < first {
            return Err(Error::new(Status::Invalid, format!("offset {offset} is below the first one, {first}")));
        }
        let Some(file) = self.files.table.find_ref(offset) else { return Ok(()) };
        let at = offset - file.start();
        if self.meta.format == Format::Raw && at > raw::limit(&self.meta) {
            return Err(Error::new(Status::Invalid, format!("offset {offset} lies within the filler of its file")));
        }
        let mut begins = at == 0 || self.meta.format == Format::Raw;
        if !begins {
            walk_whole(&self.words(file), 0, |frame, word| begins |= frame + step(word) == at);
        }
        if begins { Ok(()) } else { Err(Error::new(Status::Invalid, format!("offset {offset} lies within a record"))) }
    }

    /// Takes what is left of the last file, so that no more appends begin in it. Those that roll wait for the lock.
    fn shut_out<'q>(&'q self, file: &'q MappedFile) -> Result<Fence<'q>> {
        if self.has_open_claims() {
            return Err(busy_with_claims());
        }
        let at = match self.meta.format {
            Format::Record => place_rest(&self.words(file)).map(|(at, _)| at),
            Format::Raw => {
                let limit = raw::limit(&self.meta);
                let taken = file.reserved().fetch_update(Ordering::AcqRel, Ordering::Acquire, |counter| {
                    (counter <= limit).then_some(limit + 1) // a claim's mark is far beyond
                });
                match taken {
                    Err(counter) if counter & raw::EXCLUSIVE != 0 => return Err(busy()),
                    answer => answer.ok(),
                }
            }
        };
        Ok(Fence { file, at })
    }

    fn let_in(&self, fence: &Fence<'_>) {
        let Some(at) = fence.at else { return };
        match self.meta.format {
            Format::Record => fence.file.word(at).store(0, Ordering::Release),
            Format::Raw => fence.file.reserved().store(at, Ordering::Release),
        }
    }

    /// Returns the end of the log once the appends that were under way are done.
    fn wait_for_writers(&self, fence: &Fence<'_>) -> Result<u64> {
        let end = fence.at.map_or(fence.file.end(), |at| fence.file.start() + at);
        while self.advance_wrote(end) < end {
            self.check_not_poisoned()?; // a writer that met a lost page, or ended in a panic, is never done
            if self.has_open_claims() {
                return Err(busy_with_claims());
            }
            self.check_not_poisoned()?; // one that failed in the middle is never done
            thread::sleep(Duration::from_micros(50)); // they are copying
        }
        Ok(end)
    }

    /// `None` if `offset` is where a file begins.
    fn copy_what_stays(&self, offset: u64) -> Result<Option<Arc<MappedFile>>> {
        let stays = offset % self.meta.file_bytes;
        if stays == 0 {
            return Ok(None);
        }
        let cut = self.files.table.find(offset).expect("a file below the end");
        let copy = self.files.copy_beginning(&cut, stays)?;
        // The zeros of a lost page are not to take the place of the file's bytes.
        self.check_intact(&cut, 0, stays).inspect_err(|_| self.files.directory.remove_temporary(cut.start()))?;
        copy.reserved().store(stays, Ordering::Release);
        Ok(Some(copy))
    }

    fn remove_behind(&self, offset: u64, copy: Option<Arc<MappedFile>>, checkpoint: &mut Checkpoint) -> Result<()> {
        let files = &self.files;
        if checkpoint.durable > offset {
            self.write_checkpoint(offset, false, checkpoint)?;
        }
        if let (Format::Raw, Some(tail)) = (self.meta.format, &self.tail) {
            tail.set_committed(offset);
        }
        let allocation = self.lease.as_ref().expect("only a writer truncates").allocation();
        let ahead = allocation.withdraw_ahead(files, offset);
        let behind = files.table.behind(offset);
        ahead.iter().chain(&behind).try_for_each(|file| files.directory.remove(file.start()))?;
        if let Some(copy) = &copy {
            files.directory.replace_by_temporary(copy.start())?;
        }
        files.directory.sync()?;

        if let Some(copy) = &copy {
            copy.set_entry_durable();
        }
        if let Some(full) = offset.checked_sub(1).filter(|_| copy.is_none()).and_then(|at| files.table.find(at)) {
            // It was the last one long ago, or never since the queue was opened.
            full.reserved().store(full.size(), Ordering::Release);
        }
        files.table.cut(offset, copy, || self.positions.cut(offset));
        files.end_moved(offset);
        self.policy.cut(offset);
        self.set_attention(|attention| attention.allocation_at = 0);
        self.moved.notify();
        if self.policy.follows_appends()
            && let Err(error) = self.ask_flush_thread()
        {
            log::write(Level::Warn, format_args!("{error}")); // it waits for an end that is far off now
        }
        Ok(())
    }
}

/// Who is woken to lead may find itself served by what a truncation did to `flushed`, and lead nobody.
struct WakesFlushes<'q>(&'q Queue);

impl Drop for WakesFlushes<'_> {
    fn drop(&mut self) {
        self.0.turns.wake_all();
    }
}

fn busy_with_claims() -> Error {
    Error::new(Status::Busy, "a claim is open, and its record would be cut off under it")
}

fn beyond(offset: u64, end: u64) -> Error {
    Error::new(Status::Invalid, format!("offset {offset} is beyond what is committed, {end}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::os;

    #[test]
    fn a_file_that_was_removed_is_not_made_again_for_a_writer_that_was_held_up() {
        let dir = tempfile::tempdir().unwrap();
        let page = os::native().page_size() as u64;
        let options = Options { file_size: page, ..Options::default() };
        let queue = Queue::open(os::native(), dir.path(), &options).unwrap();
        let fill = || queue.append(&vec![b'f'; page as usize - 16]).unwrap();
        fill();
        let full = queue.files.table.find(0).unwrap(); // as the writer finds it
        let last = [fill(), fill()][1];
        queue.truncate_before(last.end).unwrap();
        let next = queue.next_file(Some(&full), Deadline::after_ms(30_000)).unwrap();
        assert_eq!(next.start(), last.offset);
        assert!(!dir.path().join(format!("{page:020}")).exists());
        queue.begin_close();
        queue.finish_close().unwrap();
    }
}
