//! Claims: memory of the queue for the host to write into, its offset known before its bytes are.
//!
//! RECORD: a frame placed as claimed, in the mapping itself. RAW: a private buffer copied at commit; such a claim
//! reserves nothing and keeps everybody else out, as its offset could not be known otherwise.
//!
//! Commit, abort and close each take the claim out of the table of open ones: whoever gets it decides.

use crate::append::{Appending, empty_raw_record};
use crate::error::{Error, Result, Status};
use crate::frame::Frame;
use crate::mapped_file::MappedFile;
use crate::options::Format;
use crate::queue::{Queue, Span};
use crate::record::{HEADER_BYTES, frame_bytes, step};
use crate::reserve::{commit, let_in, reserve_alone};
use crate::stats::Stats;
use crate::words::Words;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Memory for the caller to fill, until it commits or aborts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    pub ptr: *mut u8,
    pub len: usize,
    pub offset: u64,
    /// Never 0, and never used again in this process.
    pub id: u64,
}

/// A claim's place: `at` in `file` its frame (RECORD) or its bytes (RAW).
struct Open {
    /// The generation of the queue it belongs to.
    queue: u64,
    file: Arc<MappedFile>,
    at: u64,
    len: usize,
    /// RAW: what the host writes into.
    buffer: Option<Box<[u8]>>,
    since: Instant,
    end: End,
}

/// What has happened to a claim that is still in the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// Its queue was closed, and the host may still write into its memory.
    Orphaned,
    /// The host is done with its memory, and the close that is under way will find it.
    LetGo,
}

/// Of all queues of the process, the oldest first: the memory of a claim outlives its queue.
static CLAIMS: Mutex<BTreeMap<u64, Open>> = Mutex::new(BTreeMap::new());

/// Lets the memory of a claim go whose queue was closed under it, or is being closed.
pub fn release_orphan(claim: u64) {
    let mut claims = CLAIMS.lock();
    match claims.get_mut(&claim) {
        Some(open) if open.end == End::Open => open.end = End::LetGo,
        Some(open) if open.end == End::Orphaned => drop(claims.remove(&claim)),
        _ => {} // let go before: the close has still to make padding of it
    }
}

fn insert(open: Open) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut claims = CLAIMS.lock(); // before the number is drawn, so that numbers go by age
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    claims.insert(id, open);
    id
}

impl Queue {
    /// Gives out `len` bytes at the end of the log.
    pub fn claim(&self, len: usize) -> Result<Claim> {
        self.check_writable()?;
        match self.meta.format {
            Format::Record => self.claim_frame(len),
            Format::Raw => self.claim_raw(len),
        }
    }

    /// Makes the first `len` bytes of a claim a record. A `len` that cannot be leaves the claim open.
    pub fn commit(&self, claim: u64, len: usize) -> Result<Span> {
        let open = self.take_claim(claim, |open| self.check_commit(open, len))?;
        match self.meta.format {
            Format::Record => self.commit_frame(&open, len),
            Format::Raw => self.commit_raw_claim(&open, len),
        }
    }

    /// Gives a claim up: its place becomes padding (RECORD), or is as if it had never been (RAW).
    pub fn abort(&self, claim: u64) -> Result<()> {
        let open = self.take_claim(claim, |_| Ok(()))?;
        self.undo(&open.file, open.at, open.len);
        Ok(())
    }

    /// Close: what is open becomes padding. Its memory stays until the host says commit or abort, and is told CLOSED.
    pub(crate) fn end_claims(&self) {
        let mut ended = Vec::new();
        CLAIMS.lock().retain(|_, open| {
            if open.queue != self.files.generation || open.end == End::Orphaned {
                return true;
            }
            ended.push((open.file.clone(), open.at, open.len));
            std::mem::replace(&mut open.end, End::Orphaned) == End::Open
        });
        for (file, at, len) in ended {
            self.undo(&file, at, len);
        }
    }

    pub(crate) fn has_open_claims(&self) -> bool {
        CLAIMS.lock().values().any(|open| open.queue == self.files.generation && open.end == End::Open)
    }

    pub(crate) fn describe_claims(&self, stats: &mut Stats) {
        let claims = CLAIMS.lock();
        let mut ours = claims.values().filter(|open| open.queue == self.files.generation);
        if let Some(oldest) = ours.next() {
            stats.open_claims = 1 + ours.count() as u64;
            stats.oldest_claim_offset = oldest.file.start() + oldest.at;
            stats.oldest_claim_age_ms = oldest.since.elapsed().as_millis() as u64;
        }
    }

    /// Takes a claim out of the table, if `check` finds nothing wrong with what is to be done to it.
    fn take_claim(&self, id: u64, check: impl FnOnce(&Open) -> Result<()>) -> Result<Open> {
        let mut claims = CLAIMS.lock();
        match claims.get(&id) {
            Some(open) if open.queue == self.files.generation && open.end == End::Open => check(open)?,
            _ => return Err(Error::new(Status::Closed, "the claim was committed, aborted or closed already")),
        }
        Ok(claims.remove(&id).expect("it was there"))
    }

    fn undo(&self, file: &MappedFile, at: u64, len: usize) {
        match self.meta.format {
            Format::Record => {
                let frame = self.frame(file, at, frame_of(len));
                self.publish_padding(frame);
                self.published(frame.end());
            }
            Format::Raw => let_in(file.reserved(), at),
        }
    }

    fn check_commit(&self, open: &Open, len: usize) -> Result<()> {
        let invalid = |message: String| Err(Error::new(Status::Invalid, message));
        if len > open.len {
            return invalid(format!("len {len} is more than the {} bytes claimed", open.len));
        }
        match self.meta.format {
            Format::Raw if len == 0 => invalid("len is 0, and a RAW queue has no empty records: abort instead".into()),
            Format::Raw => self.check_writable(),
            Format::Record => match step(frame_of(open.len)) - step(frame_of(len)) {
                1..HEADER_BYTES => invalid(format!(
                    "len {len} of {} leaves fewer than 16 bytes, too few for the padding that would have to follow",
                    open.len
                )),
                _ => Ok(()),
            },
        }
    }

    fn claim_frame(&self, len: usize) -> Result<Claim> {
        let frame = frame_bytes(len, self.meta.file_bytes).ok_or_else(|| self.too_large(len))?;
        let frame = self.place_frame(frame)?;
        let (offset, at) = (frame.offset(), frame.at);
        let ptr = frame.file.at_mut(frame.payload_at(), len);
        let file = self.files.table.find(offset).expect("a placed frame's file");
        let queue = self.files.generation;
        let id = insert(Open { queue, file, at, len, buffer: None, since: Instant::now(), end: End::Open });
        self.published(offset); // nothing is readable yet, but a roll may have to be followed up
        Ok(Claim { ptr, len, offset, id })
    }

    fn commit_frame(&self, open: &Open, len: usize) -> Result<Span> {
        let claimed = self.frame(&open.file, open.at, frame_of(open.len));
        let frame = Frame { bytes: frame_of(len), ..claimed };
        let rest = claimed.end() - frame.end();
        if rest > 0 {
            self.publish_padding(Frame { at: frame.at + step(frame.bytes), bytes: rest as u32, ..claimed });
        }
        frame.fill_in_place(self.now_ms());
        self.check_intact(&open.file, open.at, claimed.end() - claimed.offset())?;
        frame.publish();
        self.published(frame.end());
        Ok(Span { offset: frame.offset(), end: frame.end() })
    }

    fn claim_raw(&self, len: usize) -> Result<Claim> {
        if len == 0 {
            return Err(empty_raw_record());
        }
        self.check_raw_len(len)?;
        let buffer = zeroed(len)?;
        let (Words { file, .. }, at) = reserve_alone(&Appending::to(self), len as u64)?;
        let offset = file.start() + at;
        let mut open = Open {
            queue: self.files.generation,
            file: self.files.table.find(offset).expect("the last file is in the table"),
            at,
            len,
            buffer: Some(buffer),
            since: Instant::now(),
            end: End::Open,
        };
        let ptr = open.buffer.as_mut().expect("just set").as_mut_ptr();
        let id = insert(open);
        Ok(Claim { ptr, len, offset, id })
    }

    fn commit_raw_claim(&self, open: &Open, len: usize) -> Result<Span> {
        let buffer = open.buffer.as_ref().expect("a RAW claim has a buffer");
        let end = open.at + len as u64;
        // SAFETY: the claim excludes every other writer until the counter is set below, and nothing from `at` on is
        // committed.
        unsafe { open.file.write(open.at, &buffer[..len]) };
        self.check_intact(&open.file, open.at, len as u64)?;
        let span = Span { offset: open.file.start() + open.at, end: open.file.start() + end };
        commit(&Appending::to(self), span.end, 1, len as u64)?;
        let_in(open.file.reserved(), end);
        self.published(span.end);
        Ok(span)
    }
}

/// Of a payload that was claimed, so it is known to fit.
fn frame_of(len: usize) -> u32 {
    len as u32 + HEADER_BYTES as u32
}

fn zeroed(len: usize) -> Result<Box<[u8]>> {
    let mut buffer = Vec::new();
    let reserved = buffer.try_reserve_exact(len);
    reserved.map_err(|_| Error::new(Status::NoMemory, format!("no memory for a claim of {len} bytes")))?;
    buffer.resize(len, 0);
    Ok(buffer.into_boxed_slice())
}
