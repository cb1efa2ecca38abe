//! RECORD: where the log ends, and whether something whole lies behind.
//!
//! A walk over frames, from the one that the checkpoint's file begins with. It ends at the first that is neither whole
//! nor, where that can be, an unfinished claim. Below the durable offset that is damage; above it, a torn tail.

use crate::directory::Directory;
use crate::error::{Error, Result, Status};
use crate::frame::Frame;
use crate::log::{self, Level};
use crate::mapped_file::MappedFile;
use crate::os::Advice;
use crate::record::{ALIGNMENT, BEFORE_FRAME, CLAIMED, HEADER_BYTES, Kind, checks_in_copy, step};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What was found out about a queue's end, before anything is changed.
pub(crate) struct End {
    pub offset: u64,
    /// Claimed frames below it that nobody finished.
    pub unfinished: Vec<Stretch>,
    /// Damaged bytes below it, between frames that are whole.
    pub lost: Vec<Stretch>,
    /// Bytes may lie behind it.
    pub dirty: bool,
}

impl End {
    pub fn at(offset: u64, dirty: bool) -> End {
        End { offset, unfinished: Vec::new(), lost: Vec::new(), dirty }
    }
}

/// What is to become one frame of padding: `bytes` at position `at` of the file that begins at `start`.
#[derive(Clone, Copy)]
pub(crate) struct Stretch {
    pub start: u64,
    pub at: u64,
    pub bytes: u32,
}

impl Stretch {
    pub fn offset(&self) -> u64 {
        self.start + self.at
    }
}

pub(crate) struct Scan<'s> {
    pub directory: &'s Directory,
    pub seed: u64,
    pub files: &'s VecDeque<Arc<MappedFile>>,
    /// Where a file begins.
    pub from: u64,
    /// What is durable was whole: there is no unfinished claim below.
    pub durable: u64,
    /// Anything below that does not check is damage.
    pub solid: u64,
    pub same_page_cache: bool,
    /// Damage is passed over, up to the next whole frame.
    pub salvage: bool,
}

/// Payloads can be made to look like headers, each of which costs a checksum: a search for frames ends after so many
/// bytes of checksums that were wrong, about a second's work.
const MOST_WRONG_BYTES: u64 = 4 << 30;

impl Scan<'_> {
    pub fn find_end(&self) -> Result<End> {
        let mut end = End::at(self.from, true);
        let mut damaged = Vec::new(); // with nothing whole behind it so far
        let mut wrong_bytes = 0;
        for file in self.files.iter().filter(|file| file.start() >= self.from) {
            let mut window = Window::new(file, self.seed);
            let mut at = 0;
            while file.size() - at >= HEADER_BYTES {
                let offset = file.start() + at;
                if let Some(word) = self.passable(file, at, &mut window) {
                    end.lost.append(&mut damaged);
                    if word & CLAIMED != 0 {
                        end.unfinished.push(Stretch { start: file.start(), at, bytes: word & !CLAIMED });
                    }
                    at += step(word);
                    continue;
                }
                if offset >= self.solid {
                    end.offset = damaged.first().map_or(offset, Stretch::offset);
                    return Ok(end);
                }
                if !self.salvage {
                    let (name, durable) = (self.directory.name(file.start()), self.durable);
                    let message = format!("{name}: damaged at offset {offset}, below the durable offset {durable}");
                    return Err(Error::new(Status::Corrupt, message));
                }
                // A frame is no shorter than its header, so the next one begins no sooner.
                let any = |_: Kind| true;
                let next = self.next_whole(file, at + HEADER_BYTES, file.size(), any, &mut wrong_bytes);
                let next = next.unwrap_or(file.size());
                damaged.push(Stretch { start: file.start(), at, bytes: (next - at) as u32 });
                at = next;
            }
            end.offset = file.end();
        }
        end.offset = damaged.first().map_or(end.offset, Stretch::offset);
        Ok(end)
    }

    /// The offset of the first whole record behind the end, which the files up to `used` (see `used_until`) may hold.
    pub fn record_beyond(&self, end: u64, used: impl Fn(&MappedFile) -> u64) -> Option<u64> {
        let mut wrong_bytes = 0;
        self.files.iter().filter(|file| file.end() > end).find_map(|file| {
            let at = end.saturating_sub(file.start()).next_multiple_of(ALIGNMENT);
            let data = |kind| kind == Kind::Data;
            let found = self.next_whole(file, at, used(file), data, &mut wrong_bytes);
            found.map(|at| file.start() + at)
        })
    }

    /// The commit word at `at`, if the walk may go on behind its frame.
    fn passable(&self, file: &MappedFile, at: u64, window: &mut Window<'_>) -> Option<u32> {
        let word = u32::from_le(file.word(at).load(Ordering::Acquire));
        let bytes = word & !CLAIMED;
        if u64::from(bytes) < HEADER_BYTES || u64::from(bytes) > file.size() - at {
            return None;
        }
        let passes = if word & CLAIMED != 0 {
            self.same_page_cache && file.start() + at >= self.durable
        } else {
            window.checks(at, bytes)
        };
        passes.then_some(word)
    }

    /// Position of the first frame from `at` on that begins below `until`, checks, and is of a kind that is wanted.
    fn next_whole(
        &self,
        file: &MappedFile,
        mut at: u64,
        until: u64,
        wanted: impl Fn(Kind) -> bool,
        wrong_bytes: &mut u64,
    ) -> Option<u64> {
        const PIECE_BYTES: u64 = 4096;
        const ZEROS: [u8; (PIECE_BYTES + ALIGNMENT) as usize] = [0; _];
        let mut piece = ZEROS;
        while at < until && file.size() - at >= HEADER_BYTES {
            // With the second half of the last header.
            let bytes = (file.size() - at).min(ZEROS.len() as u64) as usize;
            file.read(at, &mut piece[..bytes]);
            if piece[..bytes] != ZEROS[..bytes] {
                for (index, header) in piece[..bytes].windows(HEADER_BYTES as usize).step_by(8).enumerate() {
                    let at = at + 8 * index as u64;
                    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
                    let may_be = (HEADER_BYTES..=file.size() - at).contains(&u64::from(length))
                        && matches!(header[14..16], [1 | 2, 0])
                        && at < until;
                    if !may_be {
                        continue;
                    }
                    let frame = Frame { file, seed: self.seed, at, bytes: length };
                    if frame.check().and_then(|header| header.kind).is_some_and(&wanted) {
                        return Some(at);
                    }
                    *wrong_bytes += u64::from(length);
                    if *wrong_bytes > MOST_WRONG_BYTES {
                        let (name, offset) = (self.directory.name(file.start()), frame.offset());
                        let what = "too much looks like a record and is none; the search for one ends";
                        log::write(Level::Warn, format_args!("{name}: {what} at offset {offset}"));
                        return None;
                    }
                }
            }
            at += PIECE_BYTES;
        }
        None
    }
}

/// A walk over one file's frames, as a private copy of what comes next: copied in large pieces, which the memory
/// delivers at its full speed, and from pages that are mapped in one call for many, at a fraction of one fault for
/// every few.
struct Window<'f> {
    file: &'f MappedFile,
    seed: u64,
    /// Behind `BEFORE_FRAME` bytes, those from position `from` to `until`.
    copy: Vec<u8>,
    from: u64,
    until: u64,
    populated_to: u64,
}

impl<'f> Window<'f> {
    const BYTES: u64 = 64 << 10;
    /// Longer ones would be copied twice too often.
    const LONGEST_FRAME: u64 = Self::BYTES / 4;
    const POPULATE_BYTES: u64 = 2 << 20;

    fn new(file: &'f MappedFile, seed: u64) -> Window<'f> {
        let copy = vec![0; BEFORE_FRAME + Self::BYTES as usize];
        Window { file, seed, copy, from: 0, until: 0, populated_to: 0 }
    }

    #[inline]
    fn checks(&mut self, at: u64, bytes: u32) -> bool {
        let len = u64::from(bytes);
        if len > Self::LONGEST_FRAME {
            self.populate(at, at + len);
            return Frame { file: self.file, seed: self.seed, at, bytes }.check().is_some();
        }
        if at < self.from || at + len > self.until {
            self.move_to(at);
        }
        let begin = (at - self.from) as usize;
        checks_in_copy(self.seed, self.file.start() + at, &mut self.copy[begin..][..BEFORE_FRAME + bytes as usize])
    }

    fn populate(&mut self, at: u64, until: u64) {
        self.populated_to = self.populated_to.max(at - at % Self::POPULATE_BYTES);
        while self.populated_to < until {
            let bytes = Self::POPULATE_BYTES.min(self.file.size() - self.populated_to);
            self.file.advise(Advice::PopulateRead, self.populated_to, bytes); // before Linux 5.14 each page faults
            self.populated_to += bytes;
        }
    }

    #[cold]
    fn move_to(&mut self, at: u64) {
        let until = self.file.size().min(at + Self::BYTES);
        self.populate(at, until);
        (self.from, self.until) = (at, until);
        self.file.read(at, &mut self.copy[BEFORE_FRAME..][..(until - at) as usize]);
    }
}
