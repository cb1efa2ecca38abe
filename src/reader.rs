//! Reading: one record copied out, a view that holds its file, a reader that walks forward and can wait.
//!
//! Only what is committed is read, and in RECORD only what checks.

use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::mapped_file::MappedFile;
use crate::options::Format;
use crate::place::CommitWords;
use crate::queue::{Queue, Words, read_header};
use crate::record::{ALIGNMENT, CLAIMED, Checksum, HEADER_BYTES, Kind, step};
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

/// A whole record, not yet checked.
struct Found {
    file: Arc<MappedFile>,
    at: u64,
    frame: u32,
}

impl Found {
    fn payload_at(&self) -> u64 {
        self.at + HEADER_BYTES
    }

    fn payload_len(&self) -> usize {
        (u64::from(self.frame) - HEADER_BYTES) as usize
    }

    fn offset(&self) -> u64 {
        self.file.start() + self.at
    }

    fn end(&self) -> u64 {
        self.offset() + step(self.frame)
    }
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
            return Ok(ReadOutcome::Copied { len, next: offset + len as u64 });
        }
        let found = self.find_record(None, offset)?;
        let len = found.payload_len();
        if len > cap {
            self.check(&found, |checksum| found.file.read_pieces(found.payload_at(), len, |p| checksum.add(p)))?;
            return Ok(ReadOutcome::TooSmall { len });
        }
        // What is checked is the copy: the mapping may change between a check and a copy.
        self.check(&found, |checksum| {
            if len > 0 {
                // SAFETY: the caller vouches for `cap >= len` bytes that are not the mapping.
                unsafe {
                    found.file.read_to(found.payload_at(), buf, len);
                    checksum.add(std::slice::from_raw_parts(buf, len));
                }
            }
        })?;
        Ok(ReadOutcome::Copied { len, next: found.end() })
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
        let (at, len) = (found.payload_at(), found.payload_len());
        let time_ms = self.check(&found, |checksum| found.file.read_pieces(at, len, |piece| checksum.add(piece)))?;
        let (offset, end, ptr) = (found.offset(), found.end(), found.file.at_mut(at, len).cast_const());
        Ok(View { ptr, len, offset, end, time_ms, file: found.file })
    }

    fn raw_view(&self, likely: Option<&Arc<MappedFile>>, offset: u64) -> Result<View> {
        self.check_readable(offset)?;
        let file = self.file_at(likely, offset)?;
        let end = self.positions.committed().min(file.end());
        let len = (end - offset) as usize;
        let ptr = file.at_mut(offset - file.start(), len).cast_const();
        Ok(View { ptr, len, offset, end, time_ms: 0, file })
    }

    fn file_at(&self, likely: Option<&Arc<MappedFile>>, offset: u64) -> Result<Arc<MappedFile>> {
        match likely {
            Some(file) if file.contains(offset) => Ok(file.clone()),
            _ => self.find(offset),
        }
    }

    /// Below the first offset nothing is left, at or past `committed` nothing is there yet.
    fn check_readable(&self, offset: u64) -> Result<()> {
        if offset < self.first_offset {
            let message = format!("offset {offset} is below the first one, {}", self.first_offset);
            return Err(Error::new(Status::NotFound, message));
        }
        if offset >= self.advance_wrote(offset.saturating_add(1)) {
            return Err(Error::new(Status::End, "nothing is committed at this offset yet"));
        }
        Ok(())
    }

    /// The first data frame at or after `offset`, which must be a frame's start.
    fn find_record(&self, likely: Option<&Arc<MappedFile>>, mut offset: u64) -> Result<Found> {
        if !offset.is_multiple_of(ALIGNMENT) {
            let message = format!("offset {offset} is not a multiple of 8, so no record begins there");
            return Err(Error::new(Status::Invalid, message));
        }
        loop {
            self.check_readable(offset)?;
            let file = self.file_at(likely, offset)?;
            let at = offset - file.start();
            let rest = file.size() - at;
            if rest < HEADER_BYTES {
                offset = file.end(); // too little for a header is padding
                continue;
            }
            let word = Words { queue: self, file: &file }.load(at);
            let frame = word & !CLAIMED;
            if u64::from(frame) < HEADER_BYTES || u64::from(frame) > rest {
                return Err(no_record(offset));
            }
            // A claimed word below `committed` is an unfinished claim that a read-only open passed over. A writer has made
            // padding of it, so there it is damage, or the middle of a record.
            if word & CLAIMED != 0 && !self.is_read_only() {
                return Err(no_record(offset));
            }
            let skipped = word & CLAIMED != 0 || read_header(&file, at).kind != Some(Kind::Data);
            let found = Found { file, at, frame };
            if !skipped {
                return Ok(found);
            }
            if word & CLAIMED == 0 {
                self.check_padding(&found)?;
            }
            offset = found.end();
        }
    }

    fn check_padding(&self, found: &Found) -> Result<()> {
        if read_header(&found.file, found.at).kind != Some(Kind::Padding) {
            return Err(no_record(found.offset()));
        }
        self.check(found, |_| {}).map(drop)
    }

    /// Compares a frame's checksum; `add_payload` feeds what it covers besides the header. Returns the frame's time.
    fn check(&self, found: &Found, add_payload: impl FnOnce(&mut Checksum)) -> Result<i64> {
        let mut bytes = [0; 12];
        found.file.read(found.at + 4, &mut bytes);
        let header = crate::record::Header::decode(&bytes);
        let described = bytes[4..].try_into().expect("8 of 12 bytes");
        let mut checksum = Checksum::new(self.meta.seed, found.offset(), found.frame, described);
        add_payload(&mut checksum);
        if checksum.finish() == header.crc { Ok(header.time_ms as i64) } else { Err(no_record(found.offset())) }
    }
}

#[cold]
fn no_record(offset: u64) -> Error {
    let message = format!("no record checks at offset {offset}: it is damaged, or none begins there");
    Error::new(Status::Corrupt, message)
}

/// Reads forward, and keeps the file of its last record held.
pub struct Reader {
    offset: u64,
    file: Option<Arc<MappedFile>>,
}

impl Reader {
    /// The next record is the first at or after `offset`.
    pub fn open(queue: &Queue, offset: u64) -> Result<Reader> {
        let mut reader = Reader { offset, file: None };
        reader.seek(queue, offset)?;
        Ok(reader)
    }

    /// The next record, waited for until the deadline: `End` if there is no waiting, else `Timeout`. Its bytes stay as long as
    /// the view or, at least, until the next call.
    ///
    /// `cancelled`, once set and followed by [`Queue::wake_waiters`], ends the wait with `Closed`.
    pub fn next(&mut self, queue: &Queue, deadline: Deadline, cancelled: &AtomicBool) -> Result<View> {
        let (offset, likely) = (self.offset, self.file.as_ref());
        let look = || {
            queue.check_open()?;
            if cancelled.load(Ordering::Acquire) {
                return Err(Error::new(Status::Closed, "the reader is closed"));
            }
            match queue.view_from(likely, offset) {
                Ok(view) => Ok(Some(view)),
                Err(error) if error.status() == Status::End && !matches!(deadline, Deadline::Now) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let view = queue.moved.wait(deadline, look)?;
        self.offset = view.end;
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
            answer => answer?,
        }
        self.offset = offset;
        Ok(())
    }
}
