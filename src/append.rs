//! Appending: space is given away, filled by many threads at once, and published.
//!
//! RECORD: see [`crate::place`]; a record is published by one store of its commit word.
//!
//! RAW: see [`crate::reserve`]; a record is committed when those before it are.
//!
//! What both go through is inlined by force: out of line, its results go through memory, and an append of 64 bytes in RAW
//! takes 398 instructions instead of 282 (callgrind).

use crate::commit_order::{CommitOrder, Copied};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::event::Event;
use crate::frame::Frame;
use crate::options::{Filler, Format};
use crate::place::{Log, place};
use crate::positions::Positions;
use crate::queue::{Queue, Span};
use crate::raw;
use crate::record::{HEADER_BYTES, frame_bytes, step};
use crate::reserve::{RawLog, commit_in_turn, reserve};
use crate::sync::atomic::AtomicU64;
use crate::words::Words;
use parking_lot::RwLockReadGuard;
use std::cell::Cell;
use std::sync::atomic::Ordering;

impl Queue {
    /// Appends one record. [`Queue::secure`] makes it as durable as the flush policy says.
    #[inline]
    pub fn append(&self, data: &[u8]) -> Result<Span> {
        self.append_pieces(data.len(), std::iter::once(data))
    }

    /// Appends one record made of several parts.
    pub fn append_parts<'a>(&self, parts: impl Iterator<Item = &'a [u8]> + Clone) -> Result<Span> {
        let len = total(parts.clone().map(<[u8]>::len)).ok_or_else(|| self.too_large(usize::MAX))?;
        self.append_pieces(len, parts)
    }

    /// Appends records next to each other in one file: readers see all of them or none. `each` is told where they are,
    /// once they are there. Returns the end of the last.
    pub fn append_batch<'a>(
        &self,
        records: impl Iterator<Item = &'a [u8]> + Clone,
        mut each: impl FnMut(usize, Span),
    ) -> Result<u64> {
        self.check_writable()?;
        match self.meta.format {
            Format::Record => self.append_framed_batch(records, &mut each),
            Format::Raw => {
                if records.clone().any(<[u8]>::is_empty) {
                    return Err(empty_raw_record());
                }
                let len = total(records.clone().map(<[u8]>::len)).ok_or_else(|| self.too_large(usize::MAX))?;
                let count = records.clone().count();
                let mut offset = self.append_raw(len, count as u64, records.clone())?.offset;
                for (index, record) in records.enumerate() {
                    let end = offset + record.len() as u64;
                    each(index, Span { offset, end });
                    offset = end;
                }
                Ok(offset)
            }
        }
    }

    #[inline(always)]
    fn append_pieces<'a>(&self, len: usize, parts: impl Iterator<Item = &'a [u8]>) -> Result<Span> {
        self.check_writable()?;
        match self.meta.format {
            Format::Record => self.append_framed(len, parts),
            Format::Raw if len == 0 => Err(empty_raw_record()),
            Format::Raw => self.append_raw(len, 1, parts),
        }
    }

    #[inline(always)]
    fn append_framed<'a>(&self, len: usize, parts: impl Iterator<Item = &'a [u8]>) -> Result<Span> {
        let bytes = frame_bytes(len, self.meta.file_bytes).ok_or_else(|| self.too_large(len))?;
        let frame = self.place_frame(bytes)?;
        frame.fill(self.now_ms(), parts);
        self.check_intact(frame.file, frame.at, step(frame.bytes))?;
        frame.publish();
        self.published(frame.end());
        Ok(Span { offset: frame.offset(), end: frame.end() })
    }

    fn append_framed_batch<'a>(
        &self,
        records: impl Iterator<Item = &'a [u8]> + Clone,
        each: &mut impl FnMut(usize, Span),
    ) -> Result<u64> {
        let too_large = || Error::new(Status::TooLarge, "the batch does not fit in one file");
        let bytes_of = |record: &[u8]| frame_bytes(record.len(), self.meta.file_bytes);
        let whole = records.clone().map(bytes_of).try_fold(0u64, |sum, bytes| sum.checked_add(step(bytes?)));
        let whole = whole.filter(|&sum| sum <= self.meta.file_bytes).ok_or_else(too_large)?;
        if whole == 0 {
            return Err(Error::new(Status::Invalid, "the batch is empty"));
        }

        let placed = self.place_frame(whole as u32)?;
        let now_ms = self.now_ms();
        let frames = || {
            records.clone().scan(placed.at, |next, record| {
                let frame = Frame { at: *next, bytes: bytes_of(record)?, ..placed };
                *next += step(frame.bytes);
                Some((frame, record))
            })
        };
        for (frame, record) in frames() {
            frame.fill(now_ms, std::iter::once(record));
        }
        self.check_intact(placed.file, placed.at, whole)?;
        // The first word makes them all visible: until then the walk steps over the whole.
        frames().skip(1).for_each(|(frame, _)| frame.publish());
        frames().take(1).for_each(|(frame, _)| frame.publish());
        for (index, (frame, _)) in frames().enumerate() {
            each(index, Span { offset: frame.offset(), end: frame.end() });
        }
        self.published(placed.end());
        Ok(placed.end())
    }

    /// Gives out the next `bytes` of the log, claimed.
    #[inline(always)]
    pub(crate) fn place_frame(&self, bytes: u32) -> Result<Frame<'_>> {
        let appending = Appending::to(self);
        let (words, at) = place(&appending, bytes)?;
        if appending.deadline.get().is_some() {
            self.check_not_poisoned()?; // it has rolled, and the padding before it may be lost
        }
        Ok(words.frame(at, bytes))
    }

    pub(crate) fn too_large(&self, len: usize) -> Error {
        let most = match self.meta.format {
            Format::Record => self.meta.file_bytes - HEADER_BYTES,
            Format::Raw => raw::limit(&self.meta),
        };
        Error::new(Status::TooLarge, format!("{len} bytes are more than one file takes, which is {most}"))
    }

    #[inline(always)]
    fn append_raw<'a>(&self, len: usize, records: u64, parts: impl Iterator<Item = &'a [u8]>) -> Result<Span> {
        self.check_raw_len(len)?;
        let appending = Appending::to(self);
        let (Words { file, .. }, at) = reserve(&appending, len as u64)?;
        let mut to = at;
        for part in parts {
            // SAFETY: the range was given to this call alone, and is not committed.
            unsafe { file.write(to, part) };
            to += part.len() as u64;
        }
        self.check_intact(file, at, len as u64)?;
        let offset = file.start() + at;
        let end = offset + len as u64;
        commit_in_turn(&appending, offset, Copied { len: len as u64, records })?;
        self.published(end);
        Ok(Span { offset, end })
    }

    pub(crate) fn check_raw_len(&self, len: usize) -> Result<()> {
        if len as u64 <= raw::limit(&self.meta) { Ok(()) } else { Err(self.too_large(len)) }
    }
}

fn total(mut lens: impl Iterator<Item = usize>) -> Option<usize> {
    lens.try_fold(0usize, usize::checked_add)
}

#[cold]
pub(crate) fn empty_raw_record() -> Error {
    Error::new(Status::Invalid, "len is 0, and a RAW queue has no empty records")
}

/// One append's view of the log.
pub(crate) struct Appending<'q> {
    queue: &'q Queue,
    /// The clock is read at the first wait only.
    deadline: Cell<Option<Deadline>>,
}

impl<'q> Appending<'q> {
    #[inline(always)]
    pub fn to(queue: &'q Queue) -> Appending<'q> {
        Appending { queue, deadline: Cell::new(None) }
    }

    /// When the append that began now has to give up.
    fn deadline(&self) -> Deadline {
        let at = self.deadline.get().unwrap_or_else(|| Deadline::after_ms(self.queue.append_timeout_ms));
        self.deadline.set(Some(at));
        at
    }
}

impl<'q> Log for Appending<'q> {
    type File = Words<'q>;
    type Error = Error;
    type Still = RwLockReadGuard<'q, ()>;

    fn hold_still(&self) -> Result<RwLockReadGuard<'q, ()>> {
        self.queue.hold_still(|| self.deadline())
    }

    #[inline]
    fn last(&self) -> Option<Words<'q>> {
        self.queue.files.table.last().map(|file| self.queue.words(file))
    }

    fn next(&self, full: Option<Words<'q>>) -> Result<Words<'q>> {
        let file = self.queue.next_file(full.map(|words| words.file), self.deadline())?;
        Ok(self.queue.words(file))
    }

    fn advance(&self, next: Words<'q>) {
        self.queue.files.table.set_last(next.file);
    }
}

impl<'q> RawLog for Appending<'q> {
    #[inline]
    fn start(&self, words: Words<'q>) -> u64 {
        words.file.start()
    }

    #[inline]
    fn size(&self, words: Words<'q>) -> u64 {
        words.file.size()
    }

    #[inline]
    fn limit(&self) -> u64 {
        raw::limit(&self.queue.meta)
    }

    #[inline]
    fn counter<'f>(&'f self, words: &'f Words<'q>) -> &'f AtomicU64 {
        words.file.reserved()
    }

    fn fill(&self, Words { file, .. }: Words<'q>, rest: u64) -> Result<()> {
        if self.queue.meta.filler == Filler::Zero {
            return Ok(()); // zeros are there already
        }
        let at = file.size() - rest;
        // SAFETY: the range was given to this thread when it crossed the limit, and is not committed.
        unsafe { file.write(at, &raw::blank(rest)) };
        self.queue.check_intact(file, at, rest)
    }

    #[inline(always)]
    fn commit(&self, end: u64, records: u64, bytes: u64) -> Result<()> {
        // Plain additions: turns come one after the other.
        let counters = &self.queue.files.counters;
        counters.appends.store(counters.appends.load(Ordering::Relaxed) + records, Ordering::Relaxed);
        counters.bytes.store(counters.bytes.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
        // The page first: what a reader has seen as committed is committed after a kill, too.
        self.queue.write_tail(end)?;
        self.queue.positions.set_wrote(end);
        Ok(())
    }

    #[inline]
    fn commit_order(&self) -> &CommitOrder {
        &self.queue.commit_order
    }

    #[inline]
    fn positions(&self) -> &Positions {
        &self.queue.positions
    }

    #[inline]
    fn moved(&self) -> &Event {
        &self.queue.moved
    }

    fn check_not_poisoned(&self) -> Result<()> {
        self.queue.check_not_poisoned()
    }
}
