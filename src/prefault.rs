//! Pages that are ready before the writer comes to them: how far they are, which are next, and what the kernel is told
//! of those that the writer finds unready.

use crate::file_table::FileTable;
use crate::mapped_file::MappedFile;
use crate::os::Advice;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// Pages are readied at most this far ahead of the writer, whatever the file size: it bounds what prefaulting dirties.
pub(crate) const AHEAD_BYTES: u64 = 64 << 20;
/// At most this much in one call, which holds the address-space lock meanwhile; one huge page.
const STEP_BYTES: u64 = HUGE_PAGE_BYTES;
/// Below this size a file has no huge page to gain.
const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// Pages so close before the writer are readied at once; those further ahead once their file is durable, as its sync
/// would write them.
const AT_ONCE_BYTES: u64 = AHEAD_BYTES / 2;
/// A fast writer that comes so close at least is overtaken, and readies by itself the pages that are left out, so many
/// at least: it would wait for each step, for all the pages in it, where one takes microseconds.
const TOO_CLOSE_BYTES: u64 = 2 * STEP_BYTES;
const LEFT_OUT_BYTES: u64 = 4 * STEP_BYTES;
/// What follows is still readied at once: nothing waits for a sync that may not come.
const MOST_LEFT_OUT_BYTES: u64 = AT_ONCE_BYTES - 2 * STEP_BYTES;

pub(crate) struct Prefault {
    /// Appends store into mapped files; in STAGED into private memory, of which nothing is read ahead.
    maps_files: bool,
    /// Files are asked to be of huge pages, which make every sync of a page write 2 MiB.
    huge_pages: bool,
    progress: Mutex<Progress>,
}

#[derive(Clone, Copy)]
struct Progress {
    /// Where the writer was when it last said so.
    writer_at: u64,
    /// Where the allocation thread saw it last.
    writer_seen_at: u64,
    /// The most that it came on during a step; a tenth is forgotten at each.
    moved_in_slow_step: u64,
    ready_to: u64,
    /// Grows with each `end_moved`: a step that was chosen before is not taken after it.
    cuts: u64,
}

/// Pages of one file that are to be readied in one call.
pub(crate) struct Step {
    pub file: Arc<MappedFile>,
    from: u64,
    len: u64,
    cuts: u64,
}

impl Prefault {
    pub fn new(maps_files: bool, huge_pages: bool, writer_at: u64) -> Prefault {
        Prefault { maps_files, huge_pages, progress: Mutex::new(Progress::at(writer_at, 0)) }
    }

    pub fn ready_to(&self) -> u64 {
        self.progress.lock().ready_to
    }

    pub fn writer_came_to(&self, offset: u64) {
        let mut progress = self.progress.lock();
        progress.writer_at = progress.writer_at.max(offset);
    }

    /// The writer is at `end` now, with nothing made ahead of it.
    pub fn end_moved(&self, end: u64) {
        let mut progress = self.progress.lock();
        *progress = Progress::at(end, progress.cuts + 1);
    }

    /// No reading ahead from here on, until pages are readied or left behind: a writer that comes to a page that is not
    /// ready would have the kernel read up to `read_ahead_kb` ahead of it (`do_sync_mmap_readahead`), which took 20 ms
    /// where a page takes microseconds.
    pub fn expect_writer(&self, file: &MappedFile, at: u64) {
        if self.maps_files {
            file.advise(Advice::Random, at, file.size() - at);
        }
    }

    /// The next pages to ready. `file_at` finds the file that begins at an offset, if there is one yet.
    pub fn next_step(&self, file_bytes: u64, file_at: impl Fn(u64) -> Option<Arc<MappedFile>>) -> Option<Step> {
        let Progress { writer_at, writer_seen_at, moved_in_slow_step: mut moved, ready_to, cuts } =
            *self.progress.lock();
        let step_from = |from: u64| {
            let until = writer_at.saturating_add(AHEAD_BYTES);
            if from >= until {
                return None;
            }
            let start = from - from % file_bytes;
            let file = file_at(start)?;
            // Whole steps, so that a huge page is not asked for in two halves.
            let within = from - start;
            let end = (within + 1).next_multiple_of(STEP_BYTES).min(file.size()).min(until - start);
            Some(Step { file, from: within, len: end - within, cuts })
        };
        // Files may have been made since the last step; before the first one nobody knows how fast it is.
        if ready_to != writer_seen_at && ready_to < writer_at {
            moved = moved.max(writer_at - writer_seen_at);
        }
        // The next step may be as slow, and the one behind what is left out as well: as much again for that one.
        let is_fast = moved >= STEP_BYTES / 2;
        let left_out = LEFT_OUT_BYTES.max(4 * moved).min(MOST_LEFT_OUT_BYTES);
        let too_close = TOO_CLOSE_BYTES.max(2 * moved + STEP_BYTES).min(left_out);
        let is_too_close = is_fast && ready_to < writer_at + too_close;
        is_too_close
            .then(|| (writer_at + left_out).next_multiple_of(STEP_BYTES))
            .and_then(step_from)
            .or_else(|| step_from(ready_to.max(writer_at)))
    }

    pub fn is_due(&self, step: &Step) -> bool {
        let writer_at = self.progress.lock().writer_at;
        step.file.entry_durable() || step.file.start() + step.from < writer_at + AT_ONCE_BYTES
    }

    pub fn take(&self, step: &Step, table: &FileTable) -> io::Result<()> {
        let Some((seen_at, writer_at)) = self.begin(step) else { return Ok(()) };
        self.expect_readers_behind(seen_at, writer_at, table);
        let populated = self.populate(&step.file, step.from, step.len);
        self.expect_readers(&step.file, step.from, step.len);
        self.progress.lock().step_taken(step.cuts, writer_at);
        populated
    }

    /// Where the writer was when it was seen last, and where it is now; none if the end was moved back since.
    fn begin(&self, step: &Step) -> Option<(u64, u64)> {
        let mut progress = self.progress.lock();
        if progress.cuts != step.cuts {
            return None;
        }
        // Past it in any case: pages that cannot be readied are left to the writer.
        progress.ready_to = step.file.start() + step.from + step.len;
        let writer_at = progress.writer_at;
        Some((std::mem::replace(&mut progress.writer_seen_at, writer_at), writer_at))
    }

    /// Readies pages of a file. Huge ones are asked for right before and not for the whole file: where a writer comes
    /// first, one page takes microseconds, and a huge one a quarter of a millisecond.
    fn populate(&self, file: &MappedFile, at: u64, len: u64) -> io::Result<()> {
        let from = at - at % HUGE_PAGE_BYTES;
        self.prefer_huge_pages(file, from, at + len - from);
        file.populate(at, len)
    }

    /// Where the writer has been since it was seen last: some of it was left to it.
    fn expect_readers_behind(&self, seen_at: u64, writer_at: u64, table: &FileTable) {
        let mut at = seen_at.max(table.first().unwrap_or(writer_at));
        while let Some(file) = table.find(at).filter(|_| at < writer_at) {
            let end = file.end().min(writer_at);
            self.expect_readers(&file, at - file.start(), end - at);
            self.prefer_huge_pages(&file, at - file.start(), end - at); // as its neighbours: one map area for all
            at = end;
        }
    }

    /// Pages may be gone from memory when they come.
    fn expect_readers(&self, file: &MappedFile, at: u64, len: u64) {
        if self.maps_files {
            file.advise(Advice::Normal, at, len);
        }
    }

    fn prefer_huge_pages(&self, file: &MappedFile, at: u64, len: u64) {
        if self.huge_pages && file.size() >= HUGE_PAGE_BYTES {
            file.prefer_huge_pages(at, len);
        }
    }
}

impl Progress {
    fn at(end: u64, cuts: u64) -> Progress {
        Progress { writer_at: end, writer_seen_at: end, moved_in_slow_step: 0, ready_to: end, cuts }
    }

    /// The writer was at `writer_at` when the step began.
    ///
    /// Steps of one size take from half a millisecond to twenty, as the system has memory ready: the next one may be as
    /// slow as the slowest of the last. If only the last one counted, appends of 2 GiB as fast as they go would wait 2 to
    /// 50 ms for steps; so they wait 0 to 8 ms.
    fn step_taken(&mut self, cuts: u64, writer_at: u64) {
        if self.cuts == cuts {
            let kept = self.moved_in_slow_step - self.moved_in_slow_step / 10;
            self.moved_in_slow_step = kept.max(self.writer_at - writer_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os;
    use std::collections::VecDeque;
    use std::os::fd::AsFd;

    const MIB: u64 = 1 << 20;
    const FILE_BYTES: u64 = 256 * MIB;

    fn file() -> Arc<MappedFile> {
        let (native, file) = (os::native(), tempfile::tempfile().unwrap());
        file.set_len(FILE_BYTES).unwrap();
        let map = native.map(file.as_fd(), FILE_BYTES as usize, true).unwrap();
        Arc::new(MappedFile::new(native, 0, map))
    }

    /// Where the next step begins, in MiB, once `ready` are and the writer at `writer` came `moved` far during a slow
    /// step.
    fn next_after(file: &Arc<MappedFile>, writer: u64, ready: u64, moved: u64) -> Option<u64> {
        let prefault = Prefault::new(true, false, writer * MIB);
        prefault.progress.lock().ready_to = ready * MIB;
        prefault.progress.lock().moved_in_slow_step = moved * MIB;
        let step = prefault.next_step(FILE_BYTES, |_| Some(file.clone()))?;
        assert!(step.len > 0 && step.from + step.len <= (writer + 64) * MIB, "within the bound");
        Some(step.from / MIB)
    }

    #[test]
    fn steps_follow_one_another_while_the_writer_is_far_or_slow() {
        let file = file();
        assert_eq!(next_after(&file, 0, 0, 0), Some(0));
        assert_eq!(next_after(&file, 7, 10, 0), Some(10), "a slow one, however close");
        assert_eq!(next_after(&file, 10, 50, 8), Some(50), "a fast one that is far");
        assert_eq!(next_after(&file, 20, 10, 0), Some(20), "nothing behind it");
        assert_eq!(next_after(&file, 10, 74, 1), None, "as far ahead as it goes");
    }

    #[test]
    fn a_fast_writer_that_comes_close_is_left_as_much_as_it_needs() {
        let file = file();
        assert_eq!(next_after(&file, 10, 13, 1), Some(18), "8 MiB at least");
        assert_eq!(next_after(&file, 10, 20, 5), Some(30), "four times as far as it came");
        assert_eq!(next_after(&file, 10, 10, 60), Some(38), "and not so far that it would wait for a sync");
    }

    #[test]
    fn a_writer_that_passed_what_is_ready_while_files_were_made_is_fast() {
        let file = file();
        let prefault = Prefault::new(true, false, 0);
        prefault.progress.lock().ready_to = 4 * MIB;
        prefault.writer_came_to(10 * MIB);
        let step = prefault.next_step(FILE_BYTES, |_| Some(file.clone())).unwrap();
        assert_eq!(step.from, 38 * MIB);
        assert!(prefault.is_due(&step), "though the file is not durable");
    }

    #[test]
    fn what_is_ready_is_not_readied_again() {
        let file = file();
        for moved in 0..70 {
            for ready in 10..74 {
                let from = next_after(&file, 10, ready, moved).unwrap();
                assert!(from >= ready, "{from} MiB where {ready} are ready, moved {moved}");
            }
        }
    }

    #[test]
    fn a_writer_that_was_moved_back_is_not_fast() {
        let file = file();
        let prefault = Prefault::new(true, false, 100 * MIB);
        prefault.progress.lock().moved_in_slow_step = 10 * MIB;
        prefault.end_moved(50 * MIB);
        assert_eq!(prefault.next_step(FILE_BYTES, |_| Some(file.clone())).unwrap().from, 50 * MIB);
    }

    #[test]
    fn a_step_from_before_the_end_was_moved_back_is_not_taken() {
        let file = file();
        let prefault = Prefault::new(true, false, 100 * MIB);
        let stale = prefault.next_step(FILE_BYTES, |_| Some(file.clone())).unwrap();
        prefault.end_moved(50 * MIB);
        prefault.take(&stale, &FileTable::new(FILE_BYTES, VecDeque::from([file.clone()]))).unwrap();
        assert_eq!(prefault.next_step(FILE_BYTES, |_| Some(file.clone())).unwrap().from, 50 * MIB);
    }

    #[test]
    fn a_writer_is_fast_for_some_steps_after_a_slow_one_and_not_for_ever() {
        let file = file();
        let prefault = Prefault::new(true, false, 0);
        let next = || prefault.next_step(FILE_BYTES, |_| Some(file.clone())).unwrap();
        prefault.writer_came_to(10 * MIB);
        prefault.progress.lock().step_taken(0, 0);
        prefault.progress.lock().ready_to = 12 * MIB;
        prefault.progress.lock().step_taken(0, 10 * MIB);
        assert!(next().from > 30 * MIB, "so soon after a slow step it is left some to do");
        for _ in 0..30 {
            prefault.progress.lock().step_taken(0, 10 * MIB);
        }
        assert_eq!(next().from, 12 * MIB, "it has been slow since");
    }

    #[test]
    fn a_step_beside_a_truncation_says_nothing_of_the_writer() {
        let mut progress = Progress::at(50 * MIB, 1);
        progress.step_taken(0, 100 * MIB); // which began before the end was moved back
        assert_eq!((progress.moved_in_slow_step, progress.ready_to), (0, 50 * MIB));
    }
}
