//! An open queue: its files in order, its positions, the step from one file to the next.
//!
//! What can be done with it has files of its own: [`crate::append`], [`crate::claim`], [`crate::reader`],
//! [`crate::flush`], [`crate::background`], [`crate::truncate`], [`crate::recovery`].

use crate::allocate::{self, Found};
use crate::checkpoint::Checkpoint;
use crate::commit_order::CommitOrder;
use crate::deadline::Deadline;
use crate::directory::Directory;
use crate::error::{Error, Result, Status};
use crate::event::Event;
use crate::file_table::FileTable;
use crate::frame::Frame;
use crate::log::{self, Level};
use crate::look_ahead::LookAhead;
use crate::mapped_file::MappedFile;
use crate::meta::Meta;
use crate::options::{Filler, FlushPolicy, Format, MOST_OFFSET, Options};
use crate::os::{self, EventFd};
use crate::place;
use crate::policy::Policy;
use crate::pool::Pool;
use crate::positions::Positions;
use crate::prefault::{self, Prefault};
use crate::queue_files::QueueFiles;
use crate::raw;
use crate::record::HEADER_BYTES;
use crate::report::Recovery;
use crate::runtime::{self, Lease};
use crate::staging::Staging;
use crate::stats::{Stats, count};
use crate::tail::Tail;
use crate::turns::Turns;
use crate::words::{self, Words};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A record is `[offset, end)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    pub offset: u64,
    pub end: u64,
}

/// `reserved >= wrote >= committed >= flushed`; each only grows, but for `Queue::truncate_after`.
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
const ATTENTION_BYTES: u64 = prefault::AHEAD_BYTES / 4;
/// How exactly the allocation thread knows where the writer is.
const POSITION_BYTES: u64 = prefault::AHEAD_BYTES / 64;

/// Between tries to give back a buffer while an append waits for one.
const RELEASE_AGAIN_AFTER: Duration = Duration::from_millis(100);

pub struct Queue {
    pub(crate) files: Arc<QueueFiles>,
    pub(crate) meta: Meta,
    pub(crate) recovery: Recovery,
    /// Where the first file begins; moves under the checkpoint's lock.
    pub(crate) first: AtomicU64,
    /// Held by whoever moves the end back; shared by those who take the next file, and by those who ask where the end
    /// is.
    pub(crate) end_moves: RwLock<()>,
    pub(crate) positions: Arc<Positions>,
    /// A position moved, or the queue was closed.
    pub(crate) moved: Arc<Event>,
    /// RAW.
    pub(crate) commit_order: CommitOrder,
    /// Whose turn it is to sync.
    pub(crate) turns: Turns,
    pub(crate) policy: Policy,
    /// The last checkpoint written.
    pub(crate) checkpoint: Mutex<Checkpoint>,
    pub(crate) event_fd: Mutex<Option<EventFd>>,
    pub(crate) append_timeout_ms: i32,
    pub(crate) sync_timeout_ms: i32,
    /// RAW: knows `committed` after the death of the process.
    pub(crate) tail: Option<Tail>,
    /// STAGED: what the committing thread shares, and the thread.
    pub(crate) staging: Option<Arc<Staging>>,
    committer: Mutex<Option<JoinHandle<()>>>,
    state: AtomicU32,
    /// The least of those below: appends that reach it do more than appends.
    attention_at: AtomicU64,
    attention: Mutex<Attention>,
    pub(crate) look_ahead: LookAhead,
    pub(crate) lease: Option<Lease>,
}

/// Which ends of appends somebody waits for.
pub(crate) struct Attention {
    /// They ask the allocation service for what comes next.
    pub allocation_at: u64,
    /// They note where the writer is, for the allocation thread to see.
    position_at: u64,
    /// They wake the flush thread.
    flush_at: u64,
}

/// A queue as its owner has it: closed when it is dropped. What else holds the queue lets go of it at the close.
pub struct OpenQueue(Arc<Queue>);

impl Deref for OpenQueue {
    type Target = Queue;

    #[inline]
    fn deref(&self) -> &Queue {
        &self.0
    }
}

impl Drop for OpenQueue {
    /// A queue that was not closed is closed now; what fails is lost.
    fn drop(&mut self) {
        if self.check_open().is_ok() {
            self.begin_close();
            let _ = self.finish_close();
        }
    }
}

/// What recovery found, for [`Queue::assemble`].
pub(crate) struct Recovered {
    pub directory: Directory,
    /// In order; the log ends in the last one.
    pub files: VecDeque<Arc<MappedFile>>,
    pub meta: Meta,
    pub recovery: Recovery,
    pub checkpoint: Checkpoint,
    /// The tail page, if the queue is written to.
    pub tail: Option<OwnedFd>,
    /// STAGED.
    pub pool: Option<Arc<Pool>>,
}

impl Queue {
    pub(crate) fn assemble(recovered: Recovered, options: &Options) -> Result<OpenQueue> {
        let Recovered { directory, files, meta, recovery, checkpoint, tail, pool } = recovered;
        let end = recovery.cut_at;
        if let Some(last) = files.back() {
            last.reserved().store(end - last.start(), Ordering::Release);
        }
        let table = FileTable::new(meta.file_bytes, files);
        let (lease, flush_service) = match options.read_only {
            true => (None, None),
            false => (Some(Lease::take()?), Some(runtime::flush_service(directory.device()?))),
        };
        let page_bytes = directory.os.page_size() as u64;
        let checkpoint_in_flush = meta.format == Format::Raw && options.walk.is_none();
        let huge_pages = matches!(options.flush_policy, FlushPolicy::None | FlushPolicy::Interval);
        let prefault = Prefault::new(pool.is_none(), huge_pages, end);
        let files = Arc::new(QueueFiles::new(directory, table, pool.clone(), prefault, flush_service));
        if let Some(last) = files.table.last().filter(|_| lease.is_some()) {
            files.prefault.expect_writer(last, end - last.start());
        }
        let positions = Arc::new(Positions::new(end, checkpoint.durable, pool.is_some()));
        let moved = Arc::new(Event::default());
        let (tail, staged_tail) = match &pool {
            None => (tail.map(|fd| files.directory.map_tail(fd.as_fd())).transpose()?, None),
            Some(_) => (None, tail.filter(|_| meta.format == Format::Raw)),
        };
        let queue = Arc::new_cyclic(|queue: &Weak<Queue>| Queue {
            staging: pool.map(|pool| {
                let queue = queue.clone();
                let poison = move || drop(queue.upgrade().inspect(|queue| queue.poison()));
                let (files, positions, moved) = (files.clone(), positions.clone(), moved.clone());
                Arc::new(Staging::new(files, pool, meta, positions, moved, staged_tail, Box::new(poison)))
            }),
            files,
            meta,
            recovery,
            first: AtomicU64::new(checkpoint.first),
            end_moves: RwLock::new(()),
            positions,
            moved,
            commit_order: CommitOrder::default(),
            turns: Turns::default(),
            policy: Policy::new(options, page_bytes, checkpoint_in_flush, checkpoint.durable),
            checkpoint: Mutex::new(checkpoint),
            event_fd: Mutex::new(None),
            append_timeout_ms: options.append_timeout_ms(),
            sync_timeout_ms: options.sync_timeout_ms(),
            tail,
            committer: Mutex::new(None),
            state: AtomicU32::new(if options.read_only { READ_ONLY } else { 0 }),
            attention_at: AtomicU64::new(0),
            attention: Mutex::new(Attention { allocation_at: 0, position_at: 0, flush_at: u64::MAX }),
            look_ahead: LookAhead::new(options, meta.filler),
            lease,
        });
        let opened = OpenQueue(queue.clone());
        if let Some(staging) = &queue.staging {
            *queue.committer.lock() = Some(start_committing(staging, options.commit_interval())?);
        }
        if let Some(service) = &queue.files.flush_service {
            service.add(queue.files.generation, queue.clone());
            if queue.policy.follows_appends() {
                queue.ask_flush_thread()?; // for what was recovered, and to hear of what is appended
            }
        }
        Ok(opened)
    }

    /// The file that is appended to next, made if there is none yet or the last one is full. The caller holds it.
    pub fn get_last(&self, deadline: Deadline) -> Result<Arc<MappedFile>> {
        self.check_open()?;
        loop {
            let _still = self.hold_still(|| deadline)?;
            let last = self.files.table.last();
            if let Some(file) = last.filter(|file| self.is_read_only() || !self.is_full(file)) {
                match self.files.table.find(file.start()) {
                    Some(held) => return Ok(held),
                    None => continue, // filled and removed meanwhile
                }
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
            let status = if offset < self.first_offset() { Status::NotFound } else { Status::End };
            Error::new(status, format!("offset {offset} lies in no file of the queue"))
        })
    }

    pub(crate) fn first_offset(&self) -> u64 {
        self.first.load(Ordering::Acquire)
    }

    pub fn offsets(&self) -> Result<Offsets> {
        self.check_open()?;
        let _still = self.hold_still(|| Deadline::Never)?; // so that none of them goes back before the next is read
        let flushed = self.positions.flushed();
        let committed = self.committed(u64::MAX);
        let wrote = self.advance_wrote(u64::MAX);
        let reserved = self.reserved_while_still().max(wrote); // a claim in RAW is committed before its end is set
        Ok(Offsets { min: self.first_offset(), reserved, wrote, committed, flushed })
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
        stats.prefaulted_to = self.files.prefault.ready_to();
        stats.pool_free = self.files.pool.as_ref().map_or(0, |pool| u64::from(pool.free()));
        self.describe_claims(&mut stats);
        Ok(stats)
    }

    /// Returns once the position has reached `offset`.
    pub fn wait(&self, which: Which, offset: u64, deadline: Deadline) -> Result<()> {
        if offset > MOST_OFFSET {
            return Err(Error::new(Status::Invalid, format!("offset {offset} is more than INT64_MAX")));
        }
        self.wait_unless_cut(self.files.table.cuts(), which, offset, deadline)
    }

    /// The same, and `End` if the log was cut below `offset` since `cuts` was read: what would be waited for is gone.
    pub(crate) fn wait_unless_cut(&self, cuts: u64, which: Which, offset: u64, deadline: Deadline) -> Result<()> {
        self.moved.wait(deadline, || {
            self.check_open()?;
            let position = match which {
                Which::Committed => {
                    self.commit_staged(offset, deadline)?;
                    self.committed(offset)
                }
                Which::Flushed => self.positions.flushed(),
            };
            if position < offset {
                self.check_not_poisoned()?; // it would be waited for in vain
                // A cut behind it came when it was complete already.
                if self.files.table.cuts() != cuts && self.advance_wrote(offset) < offset {
                    return Err(cut_off(offset));
                }
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
        self.tell_all();
    }

    /// The second step, once no call is inside any more: open claims become padding, files nobody claimed are removed,
    /// everything is flushed, the clean mark is set, the lock is let go. All of that is tried whatever fails; the first
    /// failure is returned.
    pub fn finish_close(&self) -> Result<()> {
        let _unlock = Unlock(&self.files.directory);
        let Some(lease) = &self.lease else { return Ok(()) };
        if let Some(service) = &self.files.flush_service {
            service.withdraw(self.files.generation);
        }
        if let Some(committer) = self.committer.lock().take() {
            let _ = committer.join(); // it has caught its panics
        }
        self.end_claims();
        // From the last one back, and no further than the first failure: a process killed here leaves no gap.
        let mut unclaimed = lease.allocation().withdraw(&self.files);
        unclaimed.sort_unstable_by_key(|file| Reverse(file.start()));
        let removed = unclaimed.iter().try_for_each(|file| self.files.directory.remove(file.start()));
        self.mark_clean().and(removed)
    }

    /// A sync failed: what is in the page cache may be lost although it looks fine, so nothing can be called durable
    /// any more (fsync(2) reports such a loss once).
    pub(crate) fn poison(&self) {
        self.poison_by(0);
    }

    /// A call ended in a panic: what it had begun is never finished, and whoever waits for that waits in vain.
    pub fn poison_by_panic(&self) {
        self.poison_by(PANICKED);
    }

    /// Of a file's bytes that were just used. Where they are not the file's any more (see [`crate::os`]), the queue is
    /// poisoned: what was stored there never reaches the disk.
    #[inline(always)]
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
        self.tell_all();
    }

    /// Whoever waits for anything looks at the state again.
    fn tell_all(&self) {
        if let Some(pool) = &self.files.pool {
            pool.end();
        }
        self.moved.wake_all();
        self.commit_order.wake_all();
        self.turns.wake_all();
        self.signal();
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

    /// Keeps the end from moving back. A truncation that is under way is waited for until the deadline, which is not
    /// asked for without one.
    pub(crate) fn hold_still(&self, deadline: impl FnOnce() -> Deadline) -> Result<RwLockReadGuard<'_, ()>> {
        if let Some(still) = self.end_moves.try_read() {
            return Ok(still);
        }
        let still = match deadline() {
            Deadline::Now => None,
            Deadline::At(at) => self.end_moves.try_read_until(at),
            Deadline::Never => Some(self.end_moves.read()),
        };
        still.ok_or_else(|| Error::new(Status::Timeout, "a truncation was at work for all of the timeout"))
    }

    /// The file after `full`, or the first one, waited for until the deadline. It is in the table, and not yet the
    /// last, unless another thread has gone on meanwhile. The caller has the end hold still.
    pub(crate) fn next_file(&self, full: Option<&MappedFile>, deadline: Deadline) -> Result<&MappedFile> {
        let start = full.map_or(self.first_offset(), MappedFile::end);
        if let Some(file) = self.files.table.find_ref(start) {
            return Ok(file);
        }
        self.check_writable()?; // as a truncation that failed leaves it
        let lease = self.lease.as_ref().expect("only a writer rolls");
        let counters = &self.files.counters;
        self.look_ahead.full(start, Instant::now());
        let (file, found) = self.take_file(lease, start, deadline).inspect_err(|error| {
            if error.status() == Status::Timeout {
                count(&counters.rolls_timed_out);
            }
        })?;
        match found {
            _ if full.is_none() => {} // the first file is no roll
            Found::InQueue => {}
            Found::Ready => count(&counters.rolls_ready),
            Found::Waited => count(&counters.rolls_waited),
        }
        if found != Found::InQueue {
            self.look_ahead.rolled(start, Instant::now());
        }
        // The next files are asked for after the append that rolled is published: its wake costs more than the append.
        self.set_attention(|attention| attention.allocation_at = 0);
        Ok(file)
    }

    /// STAGED: waits for a buffer first, if the pool has none for it.
    fn take_file(&self, lease: &Lease, start: u64, deadline: Deadline) -> Result<(&MappedFile, Found)> {
        let counters = &self.files.counters;
        let mut waits = false;
        loop {
            let returns = self.files.pool.as_ref().map(|pool| pool.returns()); // before the look
            let taken = lease.allocation().take(&self.files, start, deadline);
            let (Some(pool), Some(returns), Err(Status::Busy)) =
                (&self.files.pool, returns, taken.as_ref().map_err(Error::status))
            else {
                return taken;
            };
            self.check_writable()?;
            if let Some(staging) = &self.staging {
                staging.release_again();
            }
            if pool.returns() != returns {
                continue;
            }
            if !std::mem::replace(&mut waits, true) {
                count(&counters.pool_waits);
            }
            // In turns, as what could not be given back once may be given back then, and perhaps nobody else tries.
            match pool.wait(returns, deadline.or_earlier(Instant::now() + RELEASE_AGAIN_AFTER)) {
                Err(error) if error.status() == Status::Timeout && !deadline.has_passed() => {}
                waited => waited.inspect_err(|_| count(&counters.pool_refusals))?,
            }
        }
    }

    /// What follows the publication of everything up to `end` by one append.
    #[inline(always)]
    pub(crate) fn published(&self, end: u64) {
        self.moved.notify();
        if end >= self.attention_at.load(Ordering::Relaxed) {
            self.attend(end);
        }
    }

    pub(crate) fn set_attention<T>(&self, change: impl FnOnce(&mut Attention) -> T) -> T {
        let mut attention = self.attention.lock();
        let result = change(&mut attention);
        let least = attention.allocation_at.min(attention.position_at).min(attention.flush_at);
        self.attention_at.store(least, Ordering::Relaxed);
        result
    }

    /// Appends that end at `offset` or behind it wake the flush thread.
    pub(crate) fn set_flush_at(&self, offset: u64) {
        self.set_attention(|attention| attention.flush_at = offset);
    }

    /// Tells those who wait for it that the writer has come so far.
    #[cold]
    fn attend(&self, end: u64) {
        let flushes = self.set_attention(|attention| {
            let flushes = end >= attention.flush_at;
            if flushes {
                attention.flush_at = u64::MAX; // until the thread has looked
            }
            flushes
        });
        // A truncation that cuts notes by itself where the writer is; after another the next append does.
        if let Some(_still) = self.end_moves.try_read()
            && let Some(last) = self.files.table.last()
        {
            let writer_at = end.min(self.reserved_while_still()); // the append may have been cut off since
            let allocates = self.set_attention(|attention| {
                attention.position_at = writer_at + POSITION_BYTES;
                writer_at >= attention.allocation_at
            });
            self.files.prefault.writer_came_to(writer_at);
            if allocates {
                self.ask_for_files(writer_at, last);
            }
        }
        if flushes && let Err(error) = self.ask_flush_thread() {
            log::write(Level::Warn, format_args!("{error}"));
        }
    }

    fn ask_for_files(&self, writer_at: u64, last: &MappedFile) {
        let Some(lease) = &self.lease else { return };
        let mut ahead = self.look_ahead.count();
        let mut again_at = writer_at + ATTENTION_BYTES;
        if self.meta.filler == Filler::RocketMq && writer_at <= last.start() {
            // The last file counts among the empty ones, of which there may be two, until something is in it.
            ahead -= 1;
            again_at = 0;
        }
        self.set_attention(|attention| attention.allocation_at = again_at);
        let allocation = lease.allocation();
        allocation.look_ahead(&self.files, ahead);
        allocation.prefault_ahead(&self.files);
        allocation.wake();
    }

    #[inline]
    pub(crate) fn words<'f>(&'f self, file: &'f MappedFile) -> Words<'f> {
        Words { files: &self.files, seed: self.meta.seed, file }
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

    /// RAW in MMAP: what the tail page says, for whoever alone moves the end.
    #[inline(always)]
    pub(crate) fn write_tail(&self, end: u64) -> Result<()> {
        if let Some(tail) = &self.tail {
            tail.set_committed(end);
            if !tail.file().is_intact(0, tail.file().size()) {
                return Err(self.lost_page("the queue's tail file"));
            }
        }
        Ok(())
    }

    /// How far the log can be read, as far as `until` needs to know.
    pub(crate) fn committed(&self, until: u64) -> u64 {
        match self.staging {
            None => self.advance_wrote(until),
            Some(_) => self.positions.committed(),
        }
    }

    /// STAGED: somebody waits for everything below `until`: what of it is complete is written to its file. The deadline
    /// bounds the wait for another thread that is doing so.
    pub(crate) fn commit_staged(&self, until: u64, deadline: Deadline) -> Result<()> {
        match &self.staging {
            Some(staging) if self.positions.committed() < until => staging.commit(deadline),
            _ => Ok(()),
        }
    }

    /// How far the log is whole, as far as `until` needs to know.
    pub(crate) fn advance_wrote(&self, until: u64) -> u64 {
        // What lies behind the end that a read-only open has found was judged to be no part of the log.
        if self.is_read_only() {
            return self.positions.wrote();
        }
        let wrote = words::advance_wrote(&self.files, &self.meta, &self.positions, until);
        if wrote < until
            && let Some(file) = self.files.table.find_ref(wrote)
        {
            // A lost page looks as if nothing were there yet.
            let _ = self.check_intact(file, wrote - file.start(), 4);
        }
        wrote
    }

    /// The end of what writers have been given.
    pub(crate) fn reserved(&self) -> u64 {
        let _still = self.end_moves.read(); // whoever moves it back takes what is left, for as long as that takes
        self.reserved_while_still()
    }

    pub(crate) fn reserved_while_still(&self) -> u64 {
        let Some(last) = self.files.table.last() else { return self.first_offset() };
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
            Format::Record => match place::walk_to_end(&self.words(last), hint) {
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
        file.end() - self.reserved_while_still().clamp(file.start(), file.end()) < least
    }
}

/// What was waited for.
#[cold]
pub(crate) fn cut_off(offset: u64) -> Error {
    let message = format!("offset {offset} is beyond the end of the log, which a truncation has moved back meanwhile");
    Error::new(Status::End, message)
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

/// The thread that commits at the interval, until the queue is closed.
fn start_committing(staging: &Arc<Staging>, interval: Duration) -> Result<JoinHandle<()>> {
    let staging = staging.clone();
    let thread = os::spawn("mfq-commit", move || staging.run(interval));
    thread.map_err(|cause| Error::system("starting the committing thread", cause))
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
