//! Truncation: the end of the log moves back, or its beginning moves on, durably.
//!
//! **The end.** Writers take no lock, so nobody can tell when the last of them has stopped looking at the end; and
//! zeroing what is cut in its place would have one that looked before write behind the new end. So they are shut out of
//! the file instead: what is left of it is taken, all of it, which is what a writer that comes too late finds for ever.
//! A file that is cut in the middle is replaced by a copy of what stays. Whoever still reads the old one reads what was
//! there.
//!
//! On disk, each step leaves the old log, or the beginning of it up to the new end at least:
//! 1. in STAGED, everything is committed;
//! 2. files that were made ahead are removed, from the last one back: no gap. In STAGED there is a buffer for the copy
//!    then, as only the last file still has one;
//! 3. a copy of the cut file's beginning under a temporary name, synced: an open removes it;
//! 4. the checkpoint, if it calls more durable than what stays; in RAW then the tail page, which is the cut itself for an
//!    open in the same boot;
//! 5. the files behind the cut are removed, from the last one back;
//! 6. the copy takes the place of the cut file;
//! 7. the directory is synced.
//!
//! **The beginning.** The checkpoint names the new first file, then the files before it are removed: an open removes
//! those that are left.

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
use crate::reserve::busy;
use crate::staging::Held;
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

/// What a cut needs before the log is changed.
struct Prepared<'q> {
    /// STAGED: nobody commits meanwhile.
    held: Option<Held<'q>>,
    /// What stays of the file that is cut; `None` where a file begins.
    copy: Option<Arc<MappedFile>>,
}

impl Queue {
    /// Cuts the log: everything at and after `offset` is gone, durably, when this returns.
    pub fn truncate_after(&self, offset: u64) -> Result<()> {
        self.check_writable()?;
        // Before the lock, as one who has it may wait for a buffer that a claim keeps.
        if self.has_open_claims() {
            return Err(busy_with_claims());
        }
        let _alone = self.end_moves.write();
        let Some(last) = self.files.table.last() else { return self.check_cut(offset, self.first_offset()) };
        let fence = self.shut_out(last)?;
        let _no_sync = self.turns.enter(0, Deadline::Never, || Ok(false));
        let mut checkpoint = self.checkpoint.lock();
        let prepared = self.wait_for_writers(&fence).and_then(|end| {
            self.check_writable()?; // a flush or a close may have come first
            self.check_cut(offset, end)?;
            (offset < end).then(|| self.prepare_cut(offset, end)).transpose()
        });
        let prepared = match prepared {
            Ok(Some(prepared)) => prepared,
            not_cut => {
                self.let_in(&fence);
                return not_cut.map(drop);
            }
        };
        // From here on the disk says something else than memory: it is all done, or the queue is opened anew.
        self.remove_behind(offset, prepared, &mut checkpoint).inspect_err(|_| self.poison())
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
            return Err(beyond(offset, "what is committed", committed));
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
        give_buffers_back(&gone);
        self.files.forget_new(|file| file.end() <= first);
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
            return Err(beyond(offset, "the end", end));
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
            Format::Record if !fence.file.is_staged() => fence.file.word(at).store(0, Ordering::Release),
            _ => fence.file.reserved().store(at, Ordering::Release),
        }
    }

    /// Returns the end of the log once the appends that were under way are done.
    fn wait_for_writers(&self, fence: &Fence<'_>) -> Result<u64> {
        let end = fence.at.map_or(fence.file.end(), |at| fence.file.start() + at);
        while self.advance_wrote(end) < end {
            self.check_open()?; // claims that are let go meanwhile end with the close, which waits for this call
            self.check_not_poisoned()?; // a writer that met a lost page, or ended in a panic, is never done
            if self.has_open_claims() {
                return Err(busy_with_claims());
            }
            thread::sleep(Duration::from_micros(50)); // they are copying
        }
        Ok(end)
    }

    fn prepare_cut(&self, offset: u64, end: u64) -> Result<Prepared<'_>> {
        let held = self.staging.as_ref().map(|staging| staging.commit_and_hold()).transpose()?;
        let allocation = self.lease.as_ref().expect("only a writer truncates").allocation();
        let ahead = allocation.withdraw_ahead(&self.files, offset);
        give_buffers_back(&ahead);
        // Nobody would make again what cannot be removed.
        self.remove(&ahead).inspect_err(|_| self.poison())?;
        drop(ahead); // with their blocks, which the copy may need
        let copy = self.copy_what_stays(offset).inspect_err(|_| self.end_moved(end))?;
        Ok(Prepared { held, copy })
    }

    /// From the last one back, as they are.
    fn remove(&self, files: &[Arc<MappedFile>]) -> Result<()> {
        files.iter().try_for_each(|file| self.files.directory.remove(file.start()))
    }

    /// Files are made ahead again, from here.
    fn end_moved(&self, end: u64) {
        self.look_ahead.end_moved();
        self.files.end_moved(end);
        self.set_attention(|attention| attention.allocation_at = 0);
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

    fn remove_behind(&self, offset: u64, prepared: Prepared<'_>, checkpoint: &mut Checkpoint) -> Result<()> {
        let files = &self.files;
        let Prepared { mut held, copy } = prepared;
        if checkpoint.durable > offset {
            self.write_checkpoint(offset, false, checkpoint)?;
        }
        if self.meta.format == Format::Raw {
            match &held {
                None => self.write_tail(offset)?,
                Some(held) => held.write_tail(offset)?,
            }
        }
        self.remove(&files.table.behind(offset))?;
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
        let gone = files.table.cut(offset, copy, || self.positions.cut(offset));
        give_buffers_back(&gone);
        if let Some(held) = &mut held {
            held.cut(offset);
        }
        self.end_moved(offset);
        self.policy.cut(offset);
        self.moved.notify();
        self.signal();
        if self.policy.follows_appends()
            && let Err(error) = self.ask_flush_thread()
        {
            log::write(Level::Warn, format_args!("{error}")); // it waits for an end that is far off now
        }
        Ok(())
    }
}

/// STAGED: now; the files themselves may be kept for long.
fn give_buffers_back(files: &[Arc<MappedFile>]) {
    files.iter().for_each(|file| drop(file.release()));
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

fn beyond(offset: u64, what: &str, end: u64) -> Error {
    Error::new(Status::Invalid, format!("offset {offset} is beyond {what}, {end}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::os;
    use std::time::{Duration, Instant};

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

    #[test]
    fn an_append_that_was_cut_off_does_not_keep_pages_from_being_readied() {
        const MIB: u64 = 1 << 20;
        let dir = tempfile::tempdir().unwrap();
        let options = Options { file_size: 128 * MIB, ..Options::default() };
        let queue = Queue::open(os::native(), dir.path(), &options).unwrap();
        let append = |mib| (0..mib).fold(0, |_, _| queue.append(&[1; MIB as usize]).unwrap().end);
        let stays = append(1);
        let cut_off = append(100);
        queue.truncate_after(stays).unwrap();
        queue.published(cut_off); // as its writer does that was held up before
        let end = append(40);
        // What lies 64 MiB ahead, to a quarter of that.
        let wanted = end + 47 * MIB..=end + 64 * MIB;
        let deadline = Instant::now() + Duration::from_secs(60);
        while !wanted.contains(&queue.stats().unwrap().prefaulted_to) {
            assert!(Instant::now() < deadline, "ready to {}", queue.stats().unwrap().prefaulted_to);
            std::thread::yield_now();
        }
    }
}
