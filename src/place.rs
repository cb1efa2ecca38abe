//! How writers in many threads share the end of the log, in RECORD: placing a frame *is* reserving it.
//!
//! One compare-and-swap of the commit word, from 0 to claimed-with-length, puts a frame at the end. A writer that finds
//! the word taken steps over its length and tries there. So everything before a placed frame is placed, whatever
//! happens to the writers in between; recovery can step over each of them, and no writer waits for another. (Reserving by
//! an addition and placing afterwards would let one writer stopped in between hide all that follow from recovery.)
//!
//! The algorithm knows commit words and nothing else, so that a model checker can run it over words of its own.

use crate::record::{CLAIMED, HEADER_BYTES, is_whole, step};

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
}

/// The files of the log, as far as its end concerns.
pub(crate) trait Log {
    type File: CommitWords + Copy;
    type Error;

    fn last(&self) -> Option<Self::File>;
    /// The file after `full`, or the first one. May wait.
    fn next(&self, full: Option<Self::File>) -> Result<Self::File, Self::Error>;
    /// `next` is the last file now, unless another thread has said so or gone further.
    fn advance(&self, next: Self::File);
}

/// Places a claimed frame at the end of the log, in the next file where it does not fit in the last.
#[inline]
pub(crate) fn place<L: Log>(log: &L, frame_bytes: u32) -> Result<(L::File, u64), L::Error> {
    loop {
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

#[inline]
fn place_in<F: CommitWords>(file: &F, frame_bytes: u32) -> Option<u64> {
    let mut at = file.hint();
    while u64::from(frame_bytes) <= file.size().saturating_sub(at) {
        match file.try_place(at, CLAIMED | frame_bytes) {
            Ok(()) => {
                file.set_hint(at + step(frame_bytes));
                return Some(at);
            }
            Err(taken) => at = walk_to_end(file, at + step(taken)),
        }
    }
    None // and it never will: the log's end in this file only moves up
}

/// Fills what is left of the file, so that recovery and readers walk to its end.
fn pad<F: CommitWords>(file: &F) {
    let mut at = walk_to_end(file, file.hint());
    while file.size().saturating_sub(at) >= HEADER_BYTES {
        let rest = (file.size() - at) as u32;
        match file.try_place(at, CLAIMED | rest) {
            Ok(()) => {
                file.finish_padding(at, rest);
                file.set_hint(file.size());
                return;
            }
            Err(taken) => at = walk_to_end(file, at + step(taken)),
        }
    }
    // Fewer bytes than a header are padding by themselves.
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
