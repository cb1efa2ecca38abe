//! Appending: space is given away, filled by many threads at once, and published.
//!
//! RECORD: see [`crate::place`]; a record is published by one store of its commit word.
//!
//! RAW: space in a file is given away by moving its counter. The one writer whose move crosses the end fills the rest
//! and rolls; those behind it find the counter past the end and go to the next file. Bytes become committed in the
//! order they were given away, so an append returns after the copies before its own.
//!
//! What both go through is inlined by force: out of line, its results go through memory, and an append of 64 bytes in RAW
//! takes 398 instructions instead of 282 (callgrind).

use crate::commit_order::{Copied, Turn};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::frame::Frame;
use crate::give_way::give_way;
use crate::mapped_file::MappedFile;
use crate::options::{Filler, Format};
use crate::place::{Log, place};
use crate::queue::{Queue, Span};
use crate::raw;
use crate::record::{HEADER_BYTES, frame_bytes, step};
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
        let appending = Appending { queue: self, deadline: Cell::new(None) };
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
        let (file, at) = self.reserve_raw(len, &Cell::new(None))?;
        let mut to = at;
        for part in parts {
            // SAFETY: the range was given to this call alone, and is not committed.
            unsafe { file.write(to, part) };
            to += part.len() as u64;
        }
        self.check_intact(file, at, len as u64)?;
        let offset = file.start() + at;
        self.commit_in_turn(offset, Copied { len: len as u64, records })?;
        let end = offset + len as u64;
        self.published(end);
        Ok(Span { offset, end })
    }

    /// A range of `len` bytes in one file, rolling where it does not fit.
    #[inline(always)]
    fn reserve_raw(&self, len: usize, deadline: &Cell<Option<Deadline>>) -> Result<(&MappedFile, u64)> {
        self.check_raw_len(len)?;
        loop {
            if let Some(file) = self.raw_file_with_room(deadline)? {
                let reserved = file.start() + raw::position(file.reserved().load(Ordering::Relaxed));
                if self.positions.wrote() != reserved {
                    give_way(|| self.positions.wrote());
                }
                let at = self.add_raw(file, len)?;
                if at + len as u64 <= raw::limit(&self.meta) {
                    return Ok((file, at));
                }
                self.fill_raw(file, at)?;
            }
        }
    }

    pub(crate) fn check_raw_len(&self, len: usize) -> Result<()> {
        if len as u64 <= raw::limit(&self.meta) { Ok(()) } else { Err(self.too_large(len)) }
    }

    /// The last file, unless nothing can be added to it any more: then there is a new last file, and the caller looks
    /// again. The counter is looked at before it is added to, so that it never overflows, whoever tries how often.
    #[inline(always)]
    pub(crate) fn raw_file_with_room(&self, deadline: &Cell<Option<Deadline>>) -> Result<Option<&MappedFile>> {
        if let Some(file) = self.files.table.last()
            && self.has_room(file)?
        {
            return Ok(Some(file));
        }
        // Looked at again, as a truncation that was under way made the last file look full, whether it is or not.
        let _still = self.hold_still(|| deadline_of(self, deadline))?;
        let last = self.files.table.last();
        if let Some(file) = last
            && self.has_room(file)?
        {
            return Ok(Some(file));
        }
        let next = self.next_file(last, deadline_of(self, deadline))?;
        self.files.table.set_last(next);
        Ok(None)
    }

    #[inline]
    fn has_room(&self, file: &MappedFile) -> Result<bool> {
        match file.reserved().load(Ordering::Acquire) {
            counter if counter & raw::EXCLUSIVE != 0 => Err(busy()),
            counter => Ok(counter <= raw::limit(&self.meta)),
        }
    }

    /// The position this thread was given, which may be too far for `len` bytes to fit. A position at or below the
    /// limit from which they do not fit is given to one thread only: it fills the file.
    #[inline(always)]
    pub(crate) fn add_raw(&self, file: &MappedFile, len: usize) -> Result<u64> {
        // Not a plain addition: beside an open claim it would push the counter over space that nobody fills, and
        // whoever looks at it meanwhile (`reserved`, a claim that begins) would take that for given away.
        let add = |counter: u64| (counter & raw::EXCLUSIVE == 0).then_some(counter + len as u64);
        file.reserved().fetch_update(Ordering::AcqRel, Ordering::Acquire, add).map_err(|_| busy())
    }

    /// Fills a file from the position from which its crossing writer did not fit; does nothing for those behind it.
    pub(crate) fn fill_raw(&self, file: &MappedFile, at: u64) -> Result<()> {
        if at > raw::limit(&self.meta) {
            return Ok(());
        }
        let rest = file.size() - at;
        if rest == 0 {
            return Ok(()); // this turn is the next file's first writer's: `wrote` need not stand still until it is seen here
        }
        if self.meta.filler == Filler::RocketMq {
            // SAFETY: the range was given to this thread when it crossed the limit, and is not committed.
            unsafe { file.write(at, &raw::blank(rest)) };
            self.check_intact(file, at, rest)?;
        }
        // Zeros are there already.
        self.commit_in_turn(file.start() + at, Copied { len: rest, records: 0 })?;
        self.moved.notify();
        Ok(())
    }

    /// Commits what was copied to `offset`, once everything before it is committed.
    #[inline(always)]
    fn commit_in_turn(&self, offset: u64, copied: Copied) -> Result<()> {
        match self.positions.wrote() == offset || self.wait_turn(offset, Some(copied))? == Turn::Mine {
            true => self.commit_raw_records(offset + copied.len, copied.records, copied.bytes()),
            false => Ok(()),
        }
    }

    /// For the writer whose turn it is; ends the turn.
    #[inline(always)]
    pub(crate) fn commit_raw_records(&self, end: u64, records: u64, bytes: u64) -> Result<()> {
        let commit = |end, records, bytes| {
            // Plain additions: turns come one after the other.
            let counters = &self.files.counters;
            counters.appends.store(counters.appends.load(Ordering::Relaxed) + records, Ordering::Relaxed);
            counters.bytes.store(counters.bytes.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
            self.commit_raw(end)
        };
        commit(end, records, bytes)?;
        self.commit_order.reached(end, commit);
        Ok(())
    }

    /// Returns when `committed` is exactly `offset`, all copies before it are done: or another writer has taken the turn
    /// and committed what was `copied`. In a poisoned queue a copy may never be done, and then none behind it is
    /// committed.
    #[cold]
    pub(crate) fn wait_turn(&self, offset: u64, copied: Option<Copied>) -> Result<Turn> {
        // The writers before this one are copying: a copy takes some ten to some hundred nanoseconds, a sleep and a
        // wake several thousand. So a sleep is for those that lost their processor, or wait for the disk in a page
        // fault.
        for _ in 0..200 {
            if self.positions.wrote() == offset {
                return Ok(Turn::Mine);
            }
            std::hint::spin_loop();
        }
        self.commit_order.wait(offset, copied, || match self.positions.wrote() == offset {
            true => Ok(true),
            false => self.check_not_poisoned().map(|()| false),
        })
    }
}

fn total(mut lens: impl Iterator<Item = usize>) -> Option<usize> {
    lens.try_fold(0usize, usize::checked_add)
}

#[cold]
pub(crate) fn empty_raw_record() -> Error {
    Error::new(Status::Invalid, "len is 0, and a RAW queue has no empty records")
}

#[cold]
pub(crate) fn busy() -> Error {
    Error::new(Status::Busy, "a claim is open, and in RAW it excludes other appends and claims")
}

/// When the append that began now has to give up; the clock is read at the first wait only.
fn deadline_of(queue: &Queue, deadline: &Cell<Option<Deadline>>) -> Deadline {
    let at = deadline.get().unwrap_or_else(|| Deadline::after_ms(queue.append_timeout_ms));
    deadline.set(Some(at));
    at
}

/// One append's view of the log.
struct Appending<'q> {
    queue: &'q Queue,
    deadline: Cell<Option<Deadline>>,
}

impl<'q> Log for Appending<'q> {
    type File = Words<'q>;
    type Error = Error;
    type Still = RwLockReadGuard<'q, ()>;

    fn hold_still(&self) -> Result<RwLockReadGuard<'q, ()>> {
        self.queue.hold_still(|| deadline_of(self.queue, &self.deadline))
    }

    #[inline]
    fn last(&self) -> Option<Words<'q>> {
        self.queue.files.table.last().map(|file| self.queue.words(file))
    }

    fn next(&self, full: Option<Words<'q>>) -> Result<Words<'q>> {
        let file = self.queue.next_file(full.map(|words| words.file), deadline_of(self.queue, &self.deadline))?;
        Ok(self.queue.words(file))
    }

    fn advance(&self, next: Words<'q>) {
        self.queue.files.table.set_last(next.file);
    }
}
