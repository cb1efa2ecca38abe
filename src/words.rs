//! RECORD's commit words in a mapped file, and how far they are whole.
//!
//! In MMAP space is given away by the word itself (see [`crate::place`]). In STAGED it is by the file's counter, which
//! is exact there: a word that is not whole never reaches the disk, so recovery needs no trace of it; and a writer that
//! was stopped on its way finds the counter at the end, however long ago the memory was given back.

use crate::frame::Frame;
use crate::give_way::give_way;
use crate::mapped_file::MappedFile;
use crate::meta::Meta;
use crate::options::Format;
use crate::place::{CommitWords, walk_whole};
use crate::positions::Positions;
use crate::queue_files::QueueFiles;
use crate::record::{Kind, step};
use std::sync::atomic::Ordering;

#[derive(Clone, Copy)]
pub(crate) struct Words<'q> {
    pub files: &'q QueueFiles,
    pub seed: u64,
    pub file: &'q MappedFile,
}

impl<'q> Words<'q> {
    #[inline]
    pub fn frame(&self, at: u64, bytes: u32) -> Frame<'q> {
        Frame { file: self.file, seed: self.seed, at, bytes }
    }
}

impl CommitWords for Words<'_> {
    #[inline]
    fn size(&self) -> u64 {
        self.file.size()
    }

    #[inline]
    fn load(&self, at: u64) -> u32 {
        u32::from_le(self.file.word(at).load(Ordering::Acquire))
    }

    #[inline]
    fn try_place(&self, at: u64, word: u32) -> Result<(), u32> {
        let (acquired, otherwise) = (Ordering::AcqRel, Ordering::Acquire);
        if self.file.is_staged() {
            let placed = self.file.reserved().compare_exchange(at, at + step(word), acquired, otherwise);
            return placed.map(drop).map_err(|end| (end - at) as u32); // one stretch, taken by whoever
        }
        let placed = self.file.word(at).compare_exchange(0, word.to_le(), acquired, otherwise);
        placed.map(drop).map_err(u32::from_le)
    }

    fn finish_padding(&self, at: u64, frame_bytes: u32) {
        let frame = self.frame(at, frame_bytes);
        frame.fill_padding(self.files.directory.os.now_ms());
        frame.publish();
    }

    #[inline]
    fn hint(&self) -> u64 {
        self.file.reserved().load(Ordering::Acquire)
    }

    #[inline]
    fn set_hint(&self, at: u64) {
        // Not a maximum in one step: a hint lost or set back costs a longer walk once, the step would cost each append.
        if self.hint() < at {
            self.file.reserved().store(at, Ordering::Release);
        }
    }

    fn give_way(&self) {
        give_way(|| self.hint());
    }
}

/// Moves `wrote` over what has become whole since somebody last looked, as far as `until` needs, and returns it.
///
/// RECORD's writers do not move it themselves, so that an append touches nothing that all of them share but the end
/// of the log; whoever needs to know walks. Several may walk at once: one of them moves it.
pub(crate) fn advance_wrote(files: &QueueFiles, meta: &Meta, positions: &Positions, until: u64) -> u64 {
    loop {
        let cuts = files.table.cuts();
        let from = positions.wrote();
        if from >= until || meta.format == Format::Raw {
            return from;
        }
        let (mut at, mut appends, mut bytes) = (from, 0, 0);
        while at < until
            && let Some(file) = files.table.find_ref(at)
        {
            let words = Words { files, seed: meta.seed, file };
            let whole = walk_whole(&words, at - file.start(), |frame, word| {
                let frame = words.frame(frame, word);
                if frame.header().kind == Some(Kind::Data) {
                    appends += 1;
                    bytes += frame.payload_bytes() as u64;
                }
            });
            at = file.start() + whole;
            if whole < file.size() {
                break;
            }
        }
        if at == from {
            return from;
        }
        if files.table.unless_cut(cuts, || positions.try_advance_wrote(from, at)) {
            files.counters.appends.fetch_add(appends, Ordering::Relaxed);
            files.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
            return at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadline::Deadline;
    use crate::options::{Mode, Options};
    use crate::os;
    use crate::queue::{Queue, Which};
    use crate::record::CLAIMED;

    #[test]
    fn a_writer_that_comes_late_to_a_file_that_was_given_back_finds_it_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file_size = os::native().page_size() as u64;
        let staged = Options { mode: Mode::Staged, commit_interval_ms: u32::MAX, ..Options::default() };
        let queue = Queue::open(os::native(), dir.path(), &Options { file_size, ..staged }).unwrap();
        for _ in 0..2 {
            queue.append(&vec![b'f'; file_size as usize - 16]).unwrap();
        }
        queue.wait(Which::Committed, 2 * file_size, Deadline::Never).unwrap();
        // Its memory is a mapping for reading only by now: a store would be the end of the process.
        let words = queue.words(queue.files.table.find_ref(0).unwrap());
        assert_eq!(words.try_place(0, CLAIMED | 16), Err(file_size as u32));
        assert_eq!(words.load(0), file_size as u32);
        assert_eq!(words.hint(), file_size);
    }
}
