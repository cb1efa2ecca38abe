//! An open queue: its files in order, its positions, the step from one file to the next.
//!
//! What can be done with it has files of its own: [`crate::append`], [`crate::claim`], [`crate::reader`],
//! [`crate::flush`], [`crate::recovery`].

use crate::allocate::{self, Found, PREFAULT_AHEAD_BYTES};
use crate::checkpoint::Checkpoint;
use crate::deadline::Deadline;
use crate::directory::Directory;
use crate::error::{Error, Result, Status};
use crate::event::Event;
use crate::file_table::FileTable;
use crate::frame::Frame;
use crate::give_way::give_way;
use crate::mapped_file::MappedFile;
use crate::meta::Meta;
use crate::options::{Filler, Format, MOST_OFFSET, Options};
use crate::place;
use crate::positions::Positions;
use crate::queue_files::QueueFiles;
use crate::raw;
use crate::record::{HEADER_BYTES, Kind};
use crate::runtime::Lease;
use crate::stats::{Stats, count};
use crate::tail::Tail;
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A record is `[offset, end)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    pub offset: u64,
    pub end: u64,
}

/// `reserved >= wrote >= committed >= flushed`; each only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offsets {
    /// The first byte still there.
    pub min: u64,
    /// Given to writers.
    pub reserved: u64,
    /// Complete, without a hole.
    pub wrote: u64,
    /// Readable.
    pub committed: u64,
    /// On stable storage.
    pub flushed: u64,
}

/// A position to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    Committed,
    Flushed,
}

const CLOSED: u32 = 1;
const POISONED: u32 = 2;
const READ_ONLY: u32 = 4;
/// Beside POISONED, the reason where it is not a sync.
const PANICKED: u32 = 8;
const LOST_PAGE: u32 = 16;

/// The writer asks for more pages each time it has used this much of what was readied for it.
const ATTENTION_BYTES: u64 = PREFAULT_AHEAD_BYTES / 4;
/// A writer that has to wait for files gets more of them ahead, up to this.
const MOST_FILES_AHEAD: u32 = 8;

pub struct Queue {
    pub(crate) files: Arc<QueueFiles>,
    pub(crate) meta: Meta,
    /// Where the first file begins.
    pub(crate) first_offset: u64,
    pub(crate) positions: Arc<Positions>,
    /// A position moved, or the queue was closed.
    pub(crate) moved: Event,
    /// The last checkpoint written. Held by whoever syncs.
    pub(crate) checkpoint: Mutex<Checkpoint>,
    pub(crate) append_timeout_ms: i32,
    /// RAW: knows `committed` after the death of the process.
    tail: Option<Tail>,
    state: AtomicU32,
    /// Appends that reach this offset tell the allocation service where the writer is.
    attention_at: AtomicU64,
    files_ahead: AtomicU32,
    lease: Option<Lease>,
}

/// What recovery found, for [`Queue::assemble`].
pub(crate) struct Recovered {
    pub directory: Directory,
    /// In order; the log ends in the last one.
    pub files: VecDeque<Arc<MappedFile>>,
    pub meta: Meta,
    pub end: u64,
    pub checkpoint: Checkpoint,
    pub tail: Option<Tail>,
}

impl Queue {
    pub(crate) fn assemble(recovered: Recovered, options: &Options) -> Result<Queue> {
        let Recovered { directory, files, meta, end, checkpoint, tail } = recovered;
        if let Some(last) = files.back() {
            last.reserved().store(end - last.start(), Ordering::Release);
        }
        let table = FileTable::new(meta.file_bytes, files);
        Ok(Queue {
            files: Arc::new(QueueFiles::new(directory, table, end)),
            meta,
            first_offset: checkpoint.first,
            positions: Arc::new(Positions::new(end, checkpoint.durable)),
            moved: Event::default(),
            checkpoint: Mutex::new(checkpoint),
            append_timeout_ms: options.append_timeout_ms(),
            tail,
            state: AtomicU32::new(if options.read_only { READ_ONLY } else { 0 }),
            attention_at: AtomicU64::new(0),
            files_ahead: AtomicU32::new(options.files_ahead()),
            lease: if options.read_only { None } else { Some(Lease::take()?) },
        })
    }

    /// The file that is appended to next, made if there is none yet or the last one is full. The caller holds it.
    pub fn get_last(&self, deadline: Deadline) -> Result<Arc<MappedFile>> {
        self.check_open()?;
        loop {
            let last = self.files.table.last();
            if let Some(file) = last.filter(|file| self.is_read_only() || !self.is_full(file)) {
                return Ok(self.files.table.find(file.start()).expect("the last file is in the table"));
            }
            self.check_writable()?;
            let next = self.next_file(last, deadline)?;
            self.files.table.set_last(next);
            self.attend(next.start());
        }
    }

    /// The file that holds `offset`. The caller holds it.
    pub fn find(&self, offset: u64) -> Result<Arc<MappedFile>> {
        self.check_open()?;
        self.files.table.find(offset).ok_or_else(|| {
            let status = if offset < self.first_offset { Status::NotFound } else { Status::End };
            Error::new(status, format!("offset {offset} lies in no file of the queue"))
        })
    }

    pub fn offsets(&self) -> Result<Offsets> {
        self.check_open()?;
        let flushed = self.positions.flushed();
        let wrote = self.advance_wrote(u64::MAX);
        let reserved = self.reserved();
        Ok(Offsets { min: self.first_offset, reserved, wrote, committed: wrote, flushed })
    }

    pub fn positions(&self) -> Arc<Positions> {
        self.positions.clone()
    }

    pub fn stats(&self) -> Result<Stats> {
        self.check_open()?;
        self.advance_wrote(u64::MAX);
        let mut stats = self.files.counters.snapshot();
        stats.expired_requests = allocate::expired_requests();
        stats.superseded_requests = allocate::superseded_requests();
        stats.prefaulted_to = self.files.prefaulted_to.load(Ordering::Relaxed);
        self.describe_claims(&mut stats);
        Ok(stats)
    }

    /// Returns once the position has reached `offset`.
    pub fn wait(&self, which: Which, offset: u64, deadline: Deadline) -> Result<()> {
        if offset > MOST_OFFSET {
            return Err(Error::new(Status::Invalid, format!("offset {offset} is more than INT64_MAX")));
        }
        self.moved.wait(deadline, || {
            self.check_open()?;
            let position = match which {
                Which::Committed => self.advance_wrote(offset),
                Which::Flushed => self.positions.flushed(),
            };
            if position < offset {
                self.check_not_poisoned()?; // it would be waited for in vain
            }
            Ok((position >= offset).then_some(()))
        })
    }

    /// Makes every waiter look again.
    pub fn wake_waiters(&self) {
        self.moved.wake_all();
    }

    /// The first step of a close: new calls are refused and every waiter comes out, with `Closed`.
    pub fn begin_close(&self) {
        self.state.fetch_or(CLOSED, Ordering::SeqCst);
        if let Some(lease) = &self.lease {
            lease.allocation().refuse(&self.files);
        }
        self.moved.wake_all();
    }

    /// The second step, once no call is inside any more: open claims become padding, files nobody claimed are removed,
    /// everything is flushed, the clean mark is set, the lock is let go. All of that is tried whatever fails; the first
    /// failure is returned.
    pub fn finish_close(&self) -> Result<()> {
        let _unlock = Unlock(&self.files.directory);
        let Some(lease) = &self.lease else { return Ok(()) };
        self.end_claims();
        // From the last one back, and no further than the first failure: a process killed here leaves no gap.
        let mut unclaimed = lease.allocation().withdraw(&self.files);
        unclaimed.sort_unstable_by_key(|file| Reverse(file.start()));
        let removed = unclaimed.iter().try_for_each(|file| self.files.directory.remove(file.start()));
        self.mark_clean().and(removed)
    }

    /// A sync failed: what is in the page cache may be lost although it looks fine, so nothing can be called durable any
    /// more (fsync(2) reports such a loss once).
    pub(crate) fn poison(&self) {
        self.poison_by(0);
    }

    /// A call ended in a panic: what it had begun is never finished, and whoever waits for that waits in vain.
    pub fn poison_by_panic(&self) {
        self.poison_by(PANICKED);
    }

    /// Of a file's bytes that were just used. Where they are not the file's any more (see [`crate::os`]), the queue is
    /// poisoned: what was stored there never reaches the disk.
    #[inline]
    pub(crate) fn check_intact(&self, file: &MappedFile, at: u64, len: u64) -> Result<()> {
        if file.is_intact(at, len) { Ok(()) } else { Err(self.lost_page(&self.files.directory.name(file.start()))) }
    }

    #[cold]
    fn lost_page(&self, name: &str) -> Error {
        self.poison_by(LOST_PAGE);
        lost_page(name)
    }

    fn poison_by(&self, reason: u32) {
        self.state.fetch_or(POISONED | reason, Ordering::SeqCst);
        self.moved.wake_all();
    }

    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        match self.state.load(Ordering::Relaxed) {
            0 => Ok(()),
            state => Err(refusal(state)),
        }
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        match self.state.load(Ordering::Relaxed) & CLOSED {
            0 => Ok(()),
            _ => Err(Error::closed()),
        }
    }

    pub(crate) fn check_not_poisoned(&self) -> Result<()> {
        match self.state.load(Ordering::Relaxed) {
            state if state & POISONED == 0 => Ok(()),
            state => Err(refusal(state & !CLOSED)),
        }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.state.load(Ordering::Relaxed) & READ_ONLY != 0
    }

    #[inline]
    pub(crate) fn now_ms(&self) -> u64 {
        self.files.directory.os.now_ms()
    }

    /// The file after `full`, or the first one, waited for until the deadline. It is in the table, and not yet the last.
    pub(crate) fn next_file(&self, full: Option<&MappedFile>, deadline: Deadline) -> Result<&MappedFile> {
        let start = full.map_or(self.first_offset, MappedFile::end);
        if let Some(file) = self.files.table.find_ref(start) {
            return Ok(file);
        }
        let lease = self.lease.as_ref().expect("only a writer rolls");
        let counters = &self.files.counters;
        let (file, found) = lease.allocation().take(&self.files, start, deadline).inspect_err(|error| {
            if error.status() == Status::Timeout {
                count(&counters.rolls_timed_out);
            }
        })?;
        match found {
            _ if full.is_none() => {} // the first file is no roll
            Found::InQueue => {}
            Found::Ready => count(&counters.rolls_ready),
            Found::Waited => {
                count(&counters.rolls_waited);
                if self.meta.filler != Filler::RocketMq {
                    let ahead = self.files_ahead.load(Ordering::Relaxed);
                    self.files_ahead.store((ahead + 1).min(MOST_FILES_AHEAD.max(ahead)), Ordering::Relaxed);
                }
            }
        }
        // The next files are asked for after the append that rolled is published: its wake costs more than the append.
        self.attention_at.store(0, Ordering::Relaxed);
        Ok(file)
    }

    /// What follows the publication of everything up to `end` by one append.
    #[inline]
    pub(crate) fn published(&self, end: u64) {
        self.moved.notify();
        if end >= self.attention_at.load(Ordering::Relaxed) {
            self.attend(end);
        }
    }

    /// Tells the allocation service where the writer is.
    #[cold]
    fn attend(&self, writer_at: u64) {
        let (Some(lease), Some(last)) = (&self.lease, self.files.table.last()) else { return };
        let mut ahead = self.files_ahead.load(Ordering::Relaxed);
        let mut again_at = writer_at + ATTENTION_BYTES;
        if self.meta.filler == Filler::RocketMq && writer_at <= last.start() {
            // The last file counts among the empty ones, of which there may be two, until something is in it.
            ahead -= 1;
            again_at = 0;
        }
        self.attention_at.store(again_at, Ordering::Relaxed);
        let allocation = lease.allocation();
        allocation.look_ahead(&self.files, last.end(), ahead);
        allocation.prefault_ahead(&self.files, writer_at);
        allocation.wake();
    }

    #[inline]
    pub(crate) fn frame<'f>(&self, file: &'f MappedFile, at: u64, bytes: u32) -> Frame<'f> {
        Frame { file, seed: self.meta.seed, at, bytes }
    }

    /// Turns a claimed frame into whole padding.
    pub(crate) fn publish_padding(&self, frame: Frame<'_>) {
        frame.fill_padding(self.now_ms());
        frame.publish();
        // Nobody is told here; who appends behind it is.
        let _ = self.check_intact(frame.file, frame.at, HEADER_BYTES);
    }

    /// RAW: moves `committed` to `end`. Only the writer whose turn it is may call it.
    #[inline]
    pub(crate) fn commit_raw(&self, end: u64) -> Result<()> {
        // The page first: what a reader has seen as committed is committed after a kill, too.
        if let Some(tail) = &self.tail {
            tail.set_committed(end);
            if !tail.file().is_intact(0, tail.file().size()) {
                return Err(self.lost_page("the queue's tail file"));
            }
        }
        self.positions.set_wrote(end);
        Ok(())
    }

    /// Moves `wrote` over what has become whole since somebody last looked, as far as `until` needs, and returns it.
    ///
    /// RECORD's writers do not move it themselves, so that an append touches nothing that all of them share but the end
    /// of the log; whoever needs to know walks. Several may walk at once: one of them moves it.
    pub(crate) fn advance_wrote(&self, until: u64) -> u64 {
        loop {
            let from = self.positions.wrote();
            // What lies behind the end that a read-only open has found was judged to be no part of the log.
            if from >= until || self.meta.format == Format::Raw || self.is_read_only() {
                return from;
            }
            let (mut at, mut appends, mut bytes) = (from, 0, 0);
            while at < until
                && let Some(file) = self.files.table.find_ref(at)
            {
                let whole = place::walk_whole(&Words { queue: self, file }, at - file.start(), |frame, word| {
                    let frame = self.frame(file, frame, word);
                    if frame.header().kind == Some(Kind::Data) {
                        appends += 1;
                        bytes += frame.payload_bytes() as u64;
                    }
                });
                at = file.start() + whole;
                if whole < file.size() {
                    let _ = self.check_intact(file, whole, 4); // a lost page looks as if nothing were there yet
                    break;
                }
            }
            if at == from {
                return from;
            }
            if self.positions.try_advance_wrote(from, at) {
                self.files.counters.appends.fetch_add(appends, Ordering::Relaxed);
                self.files.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
                return at;
            }
        }
    }

    /// The end of what writers have been given.
    pub(crate) fn reserved(&self) -> u64 {
        let Some(last) = self.files.table.last() else { return self.first_offset };
        if self.is_read_only() {
            return self.positions.wrote();
        }
        let hint = last.reserved().load(Ordering::Acquire);
        let within = match self.meta.format {
            // Past the limit it tells who tried in vain, not how much was given: then all of it was, to the filler.
            Format::Raw => match raw::position(hint) {
                position if position > raw::limit(&self.meta) => last.size(),
                position => position,
            },
            // A tail too short for a header is padding by itself: `wrote` passes it, so this has to.
            Format::Record => match place::walk_to_end(&Words { queue: self, file: last }, hint) {
                within if last.size().saturating_sub(within) < HEADER_BYTES => last.size(),
                within => within,
            },
        };
        last.start() + within.min(last.size())
    }

    fn is_full(&self, file: &MappedFile) -> bool {
        let least = match self.meta.format {
            Format::Raw => 1,
            Format::Record => HEADER_BYTES,
        };
        file.end() - self.reserved().clamp(file.start(), file.end()) < least
    }
}

impl Drop for Queue {
    /// A queue that was not closed is closed now; what fails is lost.
    fn drop(&mut self) {
        if self.check_open().is_ok() {
            self.begin_close();
            let _ = self.finish_close();
        }
    }
}

/// The guard against SIGBUS has replaced a page.
#[cold]
pub(crate) fn lost_page(name: &str) -> Error {
    Error::new(Status::Io, format!("{name}: a page of it could not be had from the disk (SIGBUS)"))
}

/// The last step of a close, which a panic in the others must not keep from happening.
struct Unlock<'d>(&'d Directory);

impl Drop for Unlock<'_> {
    fn drop(&mut self) {
        self.0.unlock();
    }
}

#[cold]
fn refusal(state: u32) -> Error {
    if state & CLOSED != 0 {
        Error::closed()
    } else if state & POISONED != 0 {
        let what = match state & (PANICKED | LOST_PAGE) {
            0 => "an earlier sync failed; close the queue and open it again",
            LOST_PAGE => "a page of it was lost to a SIGBUS; close the queue and open it again",
            _ => "an earlier call ended in a panic; close the queue and open it again",
        };
        Error::new(Status::Poisoned, what)
    } else {
        Error::new(Status::ReadOnly, "the queue was opened read-only")
    }
}

/// The commit words of a mapped file.
#[derive(Clone, Copy)]
pub(crate) struct Words<'q> {
    pub queue: &'q Queue,
    pub file: &'q MappedFile,
}

impl<'q> Words<'q> {
    pub fn frame(&self, at: u64, bytes: u32) -> Frame<'q> {
        self.queue.frame(self.file, at, bytes)
    }
}

impl place::CommitWords for Words<'_> {
    #[inline]
    fn size(&self) -> u64 {
        self.file.size()
    }

    #[inline]
    fn load(&self, at: u64) -> u32 {
        u32::from_le(self.file.word(at).load(Ordering::Acquire))
    }

    #[inline]
    fn try_place(&self, at: u64, word: u32) -> std::result::Result<(), u32> {
        let placed = self.file.word(at).compare_exchange(0, word.to_le(), Ordering::AcqRel, Ordering::Acquire);
        placed.map(drop).map_err(u32::from_le)
    }

    fn finish_padding(&self, at: u64, frame_bytes: u32) {
        self.queue.publish_padding(self.frame(at, frame_bytes));
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
