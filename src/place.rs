//! How writers in many threads share the end of the log, in RECORD: placing a frame *is* reserving it.
//!
//! One compare-and-swap of the commit word, from 0 to claimed-with-length, puts a frame at the end. A writer that finds
//! the word taken steps over its length and tries there. So everything before a placed frame is placed, whatever
//! happens to the writers in between; recovery can step over each of them, and no writer waits for another. (Reserving
//! by an addition and placing afterwards would let one writer stopped in between hide all that follow from recovery.)
//!
//! The algorithm knows commit words and nothing else, so that a model checker can run it over words of its own.

use crate::record::{CLAIMED, HEADER_BYTES, is_whole, step};

/// Writers of smaller frames get on faster one after the other, in turns; larger ones are better filled side by side.
const TAKING_TURNS_BYTES: u32 = 8192;

/// The commit words of one file. Positions are bytes from its start.
pub(crate) trait CommitWords {
    fn size(&self) -> u64;
    fn load(&self, at: u64) -> u32;
    /// 0 becomes `word`, or the word that is there already is returned.
    fn try_place(&self, at: u64, word: u32) -> Result<(), u32>;
    /// Makes the claimed frame at `at` whole padding of `frame_bytes`.
    fn finish_padding(&self, at: u64, frame_bytes: u32);
    /// A frame boundary not past the end of the log.
    fn hint(&self) -> u64;
    /// May be lost or arrive late: it is only a hint.
    fn set_hint(&self, at: u64);
    /// Another writer was faster; before the next try this one may stay away for a moment.
    fn give_way(&self);
}

/// The files of the log, as far as its end concerns.
pub(crate) trait Log {
    type File: Copy;
    type Error;
    type Still;

    fn last(&self) -> Option<Self::File>;
    /// While it is kept, the end does not move back. May wait.
    fn hold_still(&self) -> Result<Self::Still, Self::Error>;
    /// The file after `full`, or the first one. May wait.
    fn next(&self, full: Option<Self::File>) -> Result<Self::File, Self::Error>;
    /// `next` is the last file now, unless another thread has said so or gone further.
    fn advance(&self, next: Self::File);
}

/// Places a claimed frame at the end of the log, in the next file where it does not fit in the last.
#[inline(always)]
pub(crate) fn place<L: Log<File: CommitWords>>(log: &L, frame_bytes: u32) -> Result<(L::File, u64), L::Error> {
    loop {
        if let Some(file) = log.last()
            && let Some(at) = place_in(&file, frame_bytes)
        {
            return Ok((file, at));
        }
        // Tried again, as a truncation that was under way made the last file look full, whether it is or not.
        let _still = log.hold_still()?;
        let last = log.last();
        if let Some(file) = last
            && let Some(at) = place_in(&file, frame_bytes)
        {
            return Ok((file, at));
        }
        let next = log.next(last)?;
        // The padding comes before anybody can place in the next file: everything before a placed frame is placed.
        if let Some(full) = last {
            pad(&full);
        }
        log.advance(next);
    }
}

#[inline(always)]
fn place_in<F: CommitWords>(file: &F, frame_bytes: u32) -> Option<u64> {
    let mut at = file.hint();
    while u64::from(frame_bytes) <= file.size().saturating_sub(at) {
        match file.try_place(at, CLAIMED | frame_bytes) {
            Ok(()) => {
                file.set_hint(at + step(frame_bytes));
                return Some(at);
            }
            Err(taken) => {
                if frame_bytes < TAKING_TURNS_BYTES {
                    file.give_way();
                }
                // The hint again: the words that the other writer placed meanwhile are in the other processor's cache.
                at = walk_to_end(file, file.hint().max(at + step(taken)));
            }
        }
    }
    None // and it never will: the log's end in this file only moves up
}

/// Fills what is left of the file, so that recovery and readers walk to its end.
fn pad<F: CommitWords>(file: &F) {
    if let Some((at, rest)) = place_rest(file) {
        file.finish_padding(at, rest);
        file.set_hint(file.size());
    }
}

/// Places a claimed frame over all that is left of the file. Fewer bytes than a header are padding by themselves.
pub(crate) fn place_rest<F: CommitWords>(file: &F) -> Option<(u64, u32)> {
    let mut at = walk_to_end(file, file.hint());
    while file.size().saturating_sub(at) >= HEADER_BYTES {
        let rest = (file.size() - at) as u32;
        match file.try_place(at, CLAIMED | rest) {
            Ok(()) => return Some((at, rest)),
            Err(taken) => at = walk_to_end(file, at + step(taken)),
        }
    }
    None
}

/// Position of the first free word at or after `at`, a frame boundary; the file's size (or a little less than a header
/// before it) where there is none.
pub(crate) fn walk_to_end<F: CommitWords>(file: &F, mut at: u64) -> u64 {
    while file.size().saturating_sub(at) >= HEADER_BYTES {
        match file.load(at) {
            0 => break,
            word => at += step(word),
        }
    }
    at
}

/// Walks over whole frames from `at`, shows each to `visit`, and returns where the first that is not whole stands. In
/// the tail that is too short for a header this is the file's size.
pub(crate) fn walk_whole<F: CommitWords>(file: &F, mut at: u64, mut visit: impl FnMut(u64, u32)) -> u64 {
    while file.size().saturating_sub(at) >= HEADER_BYTES {
        let word = file.load(at);
        if !is_whole(word) {
            return at;
        }
        visit(at, word);
        at += step(word);
    }
    file.size()
}

/// The algorithm under a model checker: every interleaving, and every reordering the memory model allows, of a few
/// threads over words that loom watches.
#[cfg(test)]
mod tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::*};
    use loom::thread;
    use std::convert::Infallible;

    /// Explores everything, in both ways of placing, up to so many preemptions; `LOOM_MAX_PREEMPTIONS` says otherwise.
    /// (Three threads without a bound take hours; nearly every known bug shows with two: loom's documentation, "Large
    /// models".)
    fn explore(model: impl Fn(bool) + Sync + Send + Clone + 'static) {
        for counted in [false, true] {
            let model = model.clone();
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound = builder.preemption_bound.or(Some(3));
            builder.check(move || model(counted));
        }
    }

    const UNIT: u64 = 8;
    const FILE_BYTES: u64 = 48;
    const UNITS: usize = (FILE_BYTES / UNIT) as usize;

    /// With what a frame at each position carries: loom reports a race if it is read while it may still be written.
    struct ModelFile {
        words: [AtomicU32; UNITS],
        payloads: [UnsafeCell<u32>; UNITS],
        hint: AtomicU64,
    }

    struct ModelLog {
        files: Vec<ModelFile>,
        /// As in STAGED: the hint is exact, and space is given away by it (see [`crate::words`]).
        counted: bool,
        last: AtomicUsize,
    }

    #[derive(Clone, Copy)]
    struct Handle<'l> {
        log: &'l ModelLog,
        index: usize,
    }

    impl Handle<'_> {
        fn file(&self) -> &ModelFile {
            &self.log.files[self.index]
        }

        fn set_payload(&self, at: u64, value: u32) {
            // SAFETY: the frame is claimed by this thread; loom checks it.
            self.file().payloads[(at / UNIT) as usize].with_mut(|payload| unsafe { *payload = value });
        }

        fn payload(&self, at: u64) -> u32 {
            // SAFETY: the frame is whole, so nobody writes it any more; loom checks it.
            self.file().payloads[(at / UNIT) as usize].with(|payload| unsafe { *payload })
        }

        fn publish(&self, at: u64, word: u32) {
            self.file().words[(at / UNIT) as usize].store(word, Release);
        }
    }

    impl CommitWords for Handle<'_> {
        fn size(&self) -> u64 {
            FILE_BYTES
        }
        fn load(&self, at: u64) -> u32 {
            self.file().words[(at / UNIT) as usize].load(Acquire)
        }
        fn try_place(&self, at: u64, word: u32) -> Result<(), u32> {
            if self.log.counted {
                let placed = self.file().hint.compare_exchange(at, at + step(word), AcqRel, Acquire);
                return placed.map(drop).map_err(|end| (end - at) as u32);
            }
            self.file().words[(at / UNIT) as usize].compare_exchange(0, word, AcqRel, Acquire).map(drop)
        }
        fn finish_padding(&self, at: u64, frame_bytes: u32) {
            self.set_payload(at, PADDING);
            self.publish(at, frame_bytes);
        }
        fn hint(&self) -> u64 {
            self.file().hint.load(Acquire)
        }
        fn set_hint(&self, at: u64) {
            if self.hint() < at {
                self.file().hint.store(at, Release);
            }
        }
        fn give_way(&self) {}
    }

    const PADDING: u32 = u32::MAX;

    impl<'l> Log for &'l ModelLog {
        type File = Handle<'l>;
        type Error = Infallible;
        type Still = ();

        fn hold_still(&self) -> Result<(), Infallible> {
            Ok(())
        }
        fn last(&self) -> Option<Handle<'l>> {
            let index = self.last.load(Acquire);
            Some(Handle { log: self, index })
        }
        fn next(&self, full: Option<Handle<'l>>) -> Result<Handle<'l>, Infallible> {
            Ok(Handle { log: self, index: full.map_or(0, |file| file.index + 1) })
        }
        fn advance(&self, next: Handle<'l>) {
            let _ = self.last.fetch_update(AcqRel, Acquire, |last| (last < next.index).then_some(next.index));
        }
    }

    fn log(files: usize, counted: bool) -> Arc<ModelLog> {
        let file = || ModelFile {
            words: std::array::from_fn(|_| AtomicU32::new(0)),
            payloads: std::array::from_fn(|_| UnsafeCell::new(0)),
            hint: AtomicU64::new(0),
        };
        Arc::new(ModelLog { files: (0..files).map(|_| file()).collect(), counted, last: AtomicUsize::new(0) })
    }

    /// Places a frame, checks what recovery stands on, publishes it.
    fn append(log: &ModelLog, frame_bytes: u32, payload: u32) {
        let Ok((file, at)) = place(&log, frame_bytes);
        for index in (0..file.index).filter(|_| !log.counted) {
            assert!(placed_to_the_end(Handle { log, index }), "a frame is placed behind a file that is not full");
        }
        file.set_payload(at, payload);
        file.publish(at, frame_bytes);
    }

    fn placed_to_the_end(file: Handle<'_>) -> bool {
        FILE_BYTES - walk_to_end(&file, 0) < HEADER_BYTES
    }

    /// What a reader sees: the payloads of whole frames from the beginning, up to the first that is not.
    fn readable(log: &ModelLog) -> Vec<u32> {
        let mut seen = Vec::new();
        for index in 0..log.files.len() {
            let file = Handle { log, index };
            if walk_whole(&file, 0, |at, _| seen.push(file.payload(at))) < FILE_BYTES {
                break;
            }
        }
        seen.retain(|&payload| payload != PADDING);
        seen
    }

    fn check_all_there(log: &ModelLog, mut expected: Vec<u32>) {
        let mut seen = readable(log);
        seen.sort_unstable();
        expected.sort_unstable();
        assert_eq!(seen, expected);
    }

    #[test]
    fn three_writers_share_the_end_of_a_file() {
        explore(|counted| {
            let log = log(2, counted);
            let writers: Vec<_> = (1..3)
                .map(|n| {
                    let log = log.clone();
                    thread::spawn(move || append(&log, 16, n))
                })
                .collect();
            append(&log, 16, 3);
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            check_all_there(&log, vec![1, 2, 3]);
        });
    }

    /// Two do not fit together in the first file, so that one pads and rolls while the other may place or roll too.
    #[test]
    fn writers_that_cross_the_end_of_a_file_leave_no_hole() {
        explore(|counted| {
            let log = log(3, counted);
            let first = {
                let log = log.clone();
                thread::spawn(move || append(&log, 32, 1))
            };
            let second = {
                let log = log.clone();
                thread::spawn(move || append(&log, 16, 2))
            };
            append(&log, 40, 3);
            first.join().unwrap();
            second.join().unwrap();
            check_all_there(&log, vec![1, 2, 3]);
        });
    }

    #[test]
    fn a_reader_sees_whole_records_only() {
        explore(|counted| {
            let log = log(3, counted);
            let writer = {
                let log = log.clone();
                thread::spawn(move || {
                    append(&log, 24, 1);
                    append(&log, 32, 2);
                })
            };
            let seen = readable(&log);
            assert!([&[][..], &[1], &[1, 2]].contains(&&seen[..]), "not a prefix: {seen:?}");
            writer.join().unwrap();
            check_all_there(&log, vec![1, 2]);
        });
    }
}
