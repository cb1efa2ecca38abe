//! Reading: one record copied out, a view that holds its file, a reader that walks forward and can wait.
//!
//! Only what is committed is read, and in RECORD only what checks.

use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::frame::Frame;
use crate::mapped_file::MappedFile;
use crate::options::Format;
use crate::place::CommitWords;
use crate::queue::Queue;
use crate::record::{ALIGNMENT, CLAIMED, HEADER_BYTES, Kind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes in the mapping itself; they stay readable until this is dropped, whatever happens to the queue.
pub struct View {
    pub file: Arc<MappedFile>,
    pub ptr: *const u8,
    pub len: usize,
    pub offset: u64,
    pub end: u64,
    /// 0 in RAW.
    pub time_ms: i64,
}

/// What [`Queue::read`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadOutcome {
    Copied { len: usize, next: u64 },
    TooSmall { len: usize },
}

/// A data frame that is published, not yet checked.
struct Found {
    file: Arc<MappedFile>,
    at: u64,
    bytes: u32,
}

impl Queue {
    /// Copies the first record at or after `offset` (RAW: the bytes from there, as many as there are in its file) to
    /// `buf`.
    ///
    /// # Safety
    /// `buf` is valid for writes of `cap` bytes.
    pub unsafe fn read(&self, offset: u64, buf: *mut u8, cap: usize) -> Result<ReadOutcome> {
        self.check_open()?;
        if self.meta.format == Format::Raw {
            if cap == 0 {
                return Err(Error::new(Status::Invalid, "cap is 0, and a RAW queue has no empty records"));
            }
            let view = self.raw_view(None, offset)?;
            let len = view.len.min(cap);
            // SAFETY: the caller vouches for `cap` bytes, and its memory is not the mapping.
            unsafe { view.file.read_to(offset - view.file.start(), buf, len) };
            self.check_intact(&view.file, offset - view.file.start(), len as u64)?;
            return Ok(ReadOutcome::Copied { len, next: offset + len as u64 });
        }
        let found = self.find_record(None, offset)?;
        let frame = self.frame(&found.file, found.at, found.bytes);
        let len = frame.payload_bytes();
        if len > cap {
            return frame.check().map(|_| ReadOutcome::TooSmall { len }).ok_or_else(|| self.no_record(&frame));
        }
        // What is checked is the copy: the mapping may change between a check and a copy.
        let checked = frame.check_with(|checksum| {
            if len > 0 {
                // SAFETY: the caller vouches for `cap >= len` bytes that are not the mapping.
                unsafe {
                    frame.file.read_to(frame.payload_at(), buf, len);
                    checksum.add(std::slice::from_raw_parts(buf, len));
                }
            }
        });
        checked.map(|_| ReadOutcome::Copied { len, next: frame.end() }).ok_or_else(|| self.no_record(&frame))
    }

    /// The first record at or after `offset` (RAW: the bytes from there to the end of what is committed in its file),
    /// where it lies.
    pub fn view(&self, offset: u64) -> Result<View> {
        self.check_open()?;
        self.view_from(None, offset)
    }

    /// `likely` saves looking the file up, if it holds the offset.
    fn view_from(&self, likely: Option<&Arc<MappedFile>>, offset: u64) -> Result<View> {
        if self.meta.format == Format::Raw {
            return self.raw_view(likely, offset);
        }
        let found = self.find_record(likely, offset)?;
        let frame = self.frame(&found.file, found.at, found.bytes);
        let time_ms = frame.check().ok_or_else(|| self.no_record(&frame))?.time_ms as i64;
        let (offset, end, len) = (frame.offset(), frame.end(), frame.payload_bytes());
        let ptr = frame.file.at_mut(frame.payload_at(), len).cast_const();
        Ok(View { ptr, len, offset, end, time_ms, file: found.file })
    }

    fn raw_view(&self, likely: Option<&Arc<MappedFile>>, offset: u64) -> Result<View> {
        self.check_readable(offset)?;
        let file = self.file_at(likely, offset)?;
        let end = self.positions.committed().min(file.end());
        let len = end.checked_sub(offset).filter(|&len| len > 0).ok_or_else(nothing_yet)? as usize; // cut meanwhile
        let ptr = file.at_mut(offset - file.start(), len).cast_const();
        Ok(View { ptr, len, offset, end, time_ms: 0, file })
    }

    fn file_at(&self, likely: Option<&Arc<MappedFile>>, offset: u64) -> Result<Arc<MappedFile>> {
        match likely {
            Some(file) if file.contains(offset) => Ok(file.clone()),
            _ => self.find(offset),
        }
    }

    /// What is committed ends there. Below the first offset nothing is left, at or past that end nothing is there yet.
    fn check_readable(&self, offset: u64) -> Result<u64> {
        let first = self.first_offset();
        if offset < first {
            let message = format!("offset {offset} is below the first one, {first}");
            return Err(Error::new(Status::NotFound, message));
        }
        let committed = self.committed(offset.saturating_add(1));
        if offset >= committed { Err(nothing_yet()) } else { Ok(committed) }
    }

    /// The first data frame at or after `offset`, which must be a frame's start.
    fn find_record(&self, likely: Option<&Arc<MappedFile>>, mut offset: u64) -> Result<Found> {
        if !offset.is_multiple_of(ALIGNMENT) {
            let message = format!("offset {offset} is not a multiple of 8, so no record begins there");
            return Err(Error::new(Status::Invalid, message));
        }
        loop {
            let cuts = self.files.table.cuts();
            let committed = self.check_readable(offset)?;
            let file = self.file_at(likely, offset)?;
            let at = offset - file.start();
            let rest = file.size() - at;
            if rest < HEADER_BYTES {
                offset = file.end(); // too little for a header is padding
                continue;
            }
            let word = self.words(&file).load(at);
            let bytes = word & !CLAIMED;
            let frame = self.frame(&file, at, bytes);
            // One that begins below `committed` ends there, too: unless the log was damaged, or its end is a lie.
            if u64::from(bytes) < HEADER_BYTES || u64::from(bytes) > rest.min(committed - offset) {
                if self.files.table.cuts() != cuts {
                    continue; // it was there when it was found readable, and was cut
                }
                return Err(self.no_record(&frame));
            }
            // A claimed word below `committed` is an unfinished claim that a read-only open passed over; what is
            // durable was whole, though. A writer has made padding of it, so there it is damage, or the middle of a
            // record.
            let may_be_claimed = self.is_read_only() && offset >= self.positions.flushed();
            let passed_over = word & CLAIMED != 0 && may_be_claimed;
            match frame.header().kind {
                _ if passed_over => {}
                _ if word & CLAIMED != 0 => return Err(self.no_record(&frame)),
                Some(Kind::Data) => return Ok(Found { file, at, bytes }),
                Some(Kind::Padding) if frame.check().is_some() => {}
                _ => return Err(self.no_record(&frame)),
            }
            offset = frame.end();
        }
    }

    #[cold]
    fn no_record(&self, frame: &Frame<'_>) -> Error {
        // What does not check may be a page that was lost: zeros, and so no length either.
        let bytes = u64::from(frame.bytes).clamp(HEADER_BYTES, frame.file.size() - frame.at);
        if let Err(lost) = self.check_intact(frame.file, frame.at, bytes) {
            return lost;
        }
        let message = format!("no record checks at offset {}: it is damaged, or none begins there", frame.offset());
        Error::new(Status::Corrupt, message)
    }
}

#[cold]
fn nothing_yet() -> Error {
    Error::new(Status::End, "nothing is committed at this offset yet")
}

/// Reads forward, and keeps the file of its last record held.
pub struct Reader {
    offset: u64,
    /// Where its last record began.
    shown: u64,
    /// The file of that record.
    file: Option<Arc<MappedFile>>,
    /// How often the queue's end had moved back when the file was found: another may be in its place.
    cuts: u64,
}

impl Reader {
    /// The next record is the first at or after `offset`.
    pub fn open(queue: &Queue, offset: u64) -> Result<Reader> {
        let mut reader = Reader { offset, shown: offset, file: None, cuts: 0 };
        reader.seek(queue, offset)?;
        Ok(reader)
    }

    /// The next record, waited for until the deadline: `End` if there is no waiting, else `Timeout`. Its bytes stay as
    /// long as the view or, at least, until the next call.
    ///
    /// `cancelled`, once set and followed by [`Queue::wake_waiters`], ends the wait with `Closed`.
    pub fn next(&mut self, queue: &Queue, deadline: Deadline, cancelled: &AtomicBool) -> Result<View> {
        let offset = self.offset;
        if let Some(file) = &self.file {
            queue.check_intact(file, self.shown - file.start(), offset - self.shown)?; // the bytes shown last
        }
        let look = || {
            queue.check_open()?;
            if cancelled.load(Ordering::Acquire) {
                return Err(Error::new(Status::Closed, "the reader is closed"));
            }
            let cuts = queue.files.table.cuts();
            let likely = self.file.as_ref().filter(|_| self.cuts == cuts);
            let not_yet = |view: &Result<View>| view.as_ref().is_err_and(|error| error.status() == Status::End);
            let waits = !matches!(deadline, Deadline::Now);
            let mut view = queue.view_from(likely, offset);
            if not_yet(&view) && waits {
                // A failure is for those who write: what is committed can be read on.
                let _ = queue.commit_staged(u64::MAX, deadline);
                view = queue.view_from(likely, offset);
            }
            match view {
                view if not_yet(&view) && waits => queue.check_not_poisoned().map(|()| None),
                view => view.map(|view| Some((view, cuts))),
            }
        };
        let (view, cuts) = queue.moved.wait(deadline, look)?;
        self.cuts = cuts;
        (self.shown, self.offset) = (view.offset, view.end);
        self.file = Some(view.file.clone());
        Ok(view)
    }

    pub fn seek(&mut self, queue: &Queue, offset: u64) -> Result<()> {
        queue.check_open()?;
        if queue.meta.format == Format::Record && !offset.is_multiple_of(ALIGNMENT) {
            let message = format!("offset {offset} is not a multiple of 8, so no record begins there");
            return Err(Error::new(Status::Invalid, message));
        }
        match queue.check_readable(offset) {
            // At the end, or beyond it behind an open claim, is where a reader of what is to come begins.
            Err(error) if error.status() == Status::End => {}
            answer => _ = answer?,
        }
        *self = Reader { offset, shown: offset, file: None, cuts: 0 };
        Ok(())
    }
}
