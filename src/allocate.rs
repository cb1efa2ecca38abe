//! The allocation service: files are ready before the writer needs them.
//!
//! A table of requests that says what each queue is waiting for or will want next, a priority queue over it, and one
//! worker. A roll takes the file after the last one and asks for those after that ([`crate::look_ahead`]); only the
//! first is ever waited for.
//! A request that is there already is joined, not repeated. An error belongs to its request: whoever waits for it gets
//! it at once, the next one who asks starts a new attempt, and the worker tries again by itself with growing pauses.
//!
//! When no file is to be made, the worker readies pages ahead of the writers, in small steps between which any request
//! goes first. It never syncs: what waits for a disk is done by the flush thread of that disk.

use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::log::{self, Level};
use crate::mapped_file::MappedFile;
use crate::options::MOST_OFFSET;
use crate::pool::{Buffer, none_free};
use crate::prefault::Step;
use crate::queue_files::QueueFiles;
use crate::stats::count;
use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Mutex, MutexGuard};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A creation slower than this is logged and counted; RocketMQ's own threshold.
const SLOW_CREATION: Duration = Duration::from_millis(10);
/// A waiter whose request is still queued after this makes the file itself.
const HELP_YOURSELF_AFTER: Duration = Duration::from_millis(10);
const FIRST_BACK_OFF: Duration = Duration::from_millis(10);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);

/// Requests of all queues dropped because nobody wanted them any more when the worker came to them.
static EXPIRED: AtomicU64 = AtomicU64::new(0);
static SUPERSEDED: AtomicU64 = AtomicU64::new(0);

/// Which file: of which queue, at which offset.
type Key = (u64, u64);
/// Distinguishes a request from an earlier one for the same file.
type Ticket = u64;

/// Awaited ones first, then larger files, then lower offsets, then the older request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Rank {
    unawaited: bool,
    larger_first: Reverse<u64>,
    start: u64,
    ticket: Ticket,
}

struct Request {
    ticket: Ticket,
    /// STAGED: what the file is going to store into; held from the request on, so that requests count.
    buffer: Option<Buffer>,
    files: Arc<QueueFiles>,
    state: State,
    /// Attempts that failed so far.
    failures: u32,
    /// When it was asked for, or asked for again after a failure.
    since: Instant,
}

enum State {
    Queued(Rank),
    /// The worker, or a waiter, is making it.
    InWork,
    Ready(Arc<MappedFile>),
    Failed {
        error: Error,
        retry_at: Instant,
    },
}

#[derive(Default)]
struct Table {
    requests: HashMap<Key, Request>,
    queued: BTreeMap<Rank, Key>,
    next_ticket: Ticket,
    /// Creations under way, by queue.
    in_work: HashMap<u64, usize>,
    /// Files that were made after their request had been withdrawn, by queue.
    withdrawn: Vec<(u64, Arc<MappedFile>)>,
    /// Queues whose writer has come closer to the end of what is ready.
    attention: VecDeque<Arc<QueueFiles>>,
    /// Requests dropped and not logged yet: how, and for which file.
    dropped: Vec<(&'static str, u64)>,
    stopping: bool,
}

/// How a waiter came by its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// Another thread has put it into the queue.
    InQueue,
    Ready,
    Waited,
}

pub(crate) struct AllocationService {
    table: Mutex<Table>,
    wake: Sender<()>,
    woken: Receiver<()>,
}

pub(crate) fn expired_requests() -> u64 {
    EXPIRED.load(Ordering::Relaxed)
}

pub(crate) fn superseded_requests() -> u64 {
    SUPERSEDED.load(Ordering::Relaxed)
}

impl AllocationService {
    pub fn new() -> AllocationService {
        let (wake, woken) = crossbeam_channel::bounded(1);
        AllocationService { table: Mutex::default(), wake, woken }
    }

    /// Tells the worker to look at the table. Wakes that come before it has looked are one.
    pub fn wake(&self) {
        let _ = self.wake.try_send(()); // full: it has not looked yet
    }

    /// Asks for the files after the last one, unless they are there or asked for already. `wake` makes it start.
    pub fn look_ahead(&self, files: &Arc<QueueFiles>, count: u32) {
        let mut table = self.table.lock();
        let Some(from) = files.table.last().map(MappedFile::end).filter(|_| !files.end_moves()) else { return };
        let size = files.table.file_bytes();
        for start in (0..u64::from(count)).map(|i| from + i * size) {
            if start <= MOST_OFFSET - size && files.table.find_ref(start).is_none() && !files.is_closed() {
                // A buffer that comes back just now is not for a later file: the one before could not be had any more.
                if table.request(files, start, false).is_none() {
                    return;
                }
            }
        }
    }

    /// Pages ahead of the writer are to be readied. `wake` makes it start.
    pub fn prefault_ahead(&self, files: &Arc<QueueFiles>) {
        let mut table = self.table.lock();
        table.give_attention(files);
    }

    /// Moves the file at `start` into the queue's table of files, where every waiter for it finds it, and returns it, or
    /// a later one if it was full and removed before the caller came.
    /// It is made if need be and waited for until the deadline, which does not end the request: a later call joins it.
    /// `Busy`, and nothing asked for, if the queue's pool has no buffer for it.
    pub fn take<'a>(
        &self,
        files: &'a Arc<QueueFiles>,
        start: u64,
        deadline: Deadline,
    ) -> Result<(&'a MappedFile, Found)> {
        let key = (files.generation, start);
        if start > MOST_OFFSET - files.table.file_bytes() {
            return Err(Error::new(Status::NoSpace, "the queue has used all its offsets, which end at INT64_MAX"));
        }
        let may_wait = !matches!(deadline, Deadline::Now);
        let mut found = Found::Ready;
        let mut handed_out = false;
        let mut failures_before = None;
        let mut table = self.table.lock();
        loop {
            if let Some(file) = files.table.find_kept_ref(start) {
                // Of all who waited for it, the one who put it there rolled.
                return Ok((file, if handed_out { found } else { Found::InQueue }));
            }
            if files.is_closed() {
                return Err(Error::closed());
            }
            let Some(request) = table.request(files, start, true) else {
                return Err(none_free());
            };
            // Counted from the request and not from this call, so that a caller who comes often for a short time is
            // served.
            let help_yourself_at = request.since + HELP_YOURSELF_AFTER;
            let failures_seen = *failures_before.get_or_insert(request.failures);
            match &request.state {
                State::Ready(file) => {
                    files.table.push(file.clone());
                    table.requests.remove(&key);
                    files.changed.notify_all();
                    handed_out = true;
                    continue;
                }
                State::Failed { error, .. } if request.failures > failures_seen => return Err(error.clone()),
                State::Failed { error, .. } => {
                    let error = error.clone();
                    table.queue_again(key, true);
                    self.wake();
                    if deadline.has_passed() {
                        return Err(error); // who never waits would never hear of it
                    }
                }
                State::Queued(_) if may_wait && Instant::now() >= help_yourself_at => {
                    found = Found::Waited;
                    count(&files.counters.self_served_creations);
                    let ticket = table.begin(key);
                    table = self.make(table, key, ticket, files);
                    self.wake(); // for what follows a creation
                    continue;
                }
                State::Queued(_) => self.wake(),
                State::InWork => {}
            }
            found = Found::Waited;
            let until = match table.requests[&key].state {
                State::Queued(_) => deadline.or_earlier(help_yourself_at),
                _ => deadline,
            };
            if deadline.has_passed() {
                let message = format!("{}: not ready within the timeout", files.directory.name(start));
                return Err(Error::new(Status::Timeout, message));
            }
            match until.instant() {
                Some(at) => drop(files.changed.wait_until(&mut table, at)),
                None => files.changed.wait(&mut table),
            }
        }
    }

    /// No file is handed out to this queue any more; who waits for one is told so.
    pub fn refuse(&self, files: &QueueFiles) {
        let _table = self.table.lock(); // a waiter between its last look and its sleep holds this
        files.set_closed();
        files.changed.notify_all();
    }

    /// Ends all requests of a refused queue, waits for those in work, and returns the files that nobody claimed.
    pub fn withdraw(&self, files: &QueueFiles) -> Vec<Arc<MappedFile>> {
        let mut table = self.table.lock();
        let mut unclaimed = table.withdraw(files);
        table.attention.retain(|queue| queue.generation != files.generation);
        files.changed.notify_all();
        while table.in_work.contains_key(&files.generation) {
            files.changed.wait(&mut table);
        }
        unclaimed.extend(table.take_withdrawn(files));
        unclaimed
    }

    /// The end of the queue will move back to `end`: no file is made ahead until `files.end_moved`, those that were
    /// made and not handed out are returned, the last one first, and nothing is done any more to those behind.
    pub fn withdraw_ahead(&self, files: &QueueFiles, end: u64) -> Vec<Arc<MappedFile>> {
        let mut table = self.table.lock();
        files.begin_to_move_end();
        let mut ready = table.withdraw(files);
        while table.in_work.contains_key(&files.generation) {
            files.changed.wait(&mut table);
        }
        ready.extend(table.take_withdrawn(files));
        drop(table);
        files.forget_new(|file| file.end() > end);
        ready.sort_unstable_by_key(|file| Reverse(file.start()));
        ready
    }

    pub fn stop(&self) {
        self.table.lock().stopping = true;
        self.wake();
    }

    /// The worker's life.
    pub fn run(&self) {
        loop {
            let mut table = self.table.lock();
            if table.stopping {
                return;
            }
            if let Some((key, ticket, files)) = table.pop() {
                drop(self.make(table, key, ticket, &files));
            } else if !table.dropped.is_empty() {
                let dropped = std::mem::take(&mut table.dropped);
                drop(table); // the host's log callback may take its time
                for (how, start) in dropped {
                    log::write(Level::Warn, format_args!("request for the file at {start} {how}: dropped"));
                }
            } else if let Some((files, step)) = table.prefault_step() {
                drop(table);
                survive("readying pages", || {
                    let readied = files.prefault.take(&step, &files.table);
                    readied.map_err(|cause| Error::system(files.directory.name(step.file.start()), cause))
                });
            } else {
                let retry_at = table.retry_failed(Instant::now());
                drop(table);
                // An error means "nothing came by then" (the sender lives as long as `self`).
                let _ = match retry_at {
                    Some(at) => self.woken.recv_deadline(at).is_ok(),
                    None => self.woken.recv().is_ok(),
                };
            }
        }
    }

    /// Makes a file that `begin` has marked as in work, without the lock, and delivers what came of it.
    fn make<'a>(
        &'a self,
        table: MutexGuard<'a, Table>,
        key: Key,
        ticket: Ticket,
        files: &Arc<QueueFiles>,
    ) -> MutexGuard<'a, Table> {
        let still_wanted = |table: &Table| table.requests.get(&key).is_some_and(|request| request.ticket == ticket);
        let queued = table.queued.len();
        drop(table);
        log::write(Level::Debug, format_args!("creating {}, {queued} queued", files.directory.name(key.1)));
        let began = Instant::now();
        let wanted = || still_wanted(&self.table.lock());
        let outcome = catch_unwind(AssertUnwindSafe(|| files.create(key.1, wanted))).unwrap_or_else(|_| {
            let message = format!("{}: a panic while creating it", files.directory.name(key.1));
            Err(Error::new(Status::Panic, message))
        });
        let took = began.elapsed();
        report(files, key.1, took, queued, &outcome);

        let mut table = self.table.lock();
        if still_wanted(&table) {
            let is_new = outcome.is_ok();
            if let Ok(file) = &outcome {
                files.remember_new(file.clone()); // before anybody can fill and remove it
            }
            table.deliver(key, files, outcome);
            files.changed.notify_all(); // who waits for it is not to wait for a thread to start
            if is_new {
                MutexGuard::unlocked(&mut table, || files.ask_for_syncs());
            }
        } else if let Ok(file) = outcome {
            // Withdrawn after its last look. It is removed with the others, from the last one back, so that no gap is
            // left where one of them cannot be: `withdraw` waits for `in_work`.
            table.withdrawn.push((files.generation, file));
        }
        table.end_work(files.generation);
        files.changed.notify_all();
        table
    }
}

fn report(files: &QueueFiles, start: u64, took: Duration, queued: usize, outcome: &Result<Arc<MappedFile>>) {
    match outcome {
        Ok(_) => files.counters.created(took),
        Err(error) if error.status() == Status::Closed => return,
        Err(error) => {
            count(&files.counters.failed_creations);
            log::write(Level::Info, format_args!("{error}")); // who waits for the file is told in any case
        }
    }
    if took > SLOW_CREATION {
        count(&files.counters.slow_creations);
        let (name, ms) = (files.directory.name(start), took.as_millis());
        log::write(Level::Warn, format_args!("{name}: creating it took {ms} ms, {queued} requests queued"));
    }
}

/// Work that nobody waits for: what goes wrong is logged, and the worker goes on.
fn survive(what: &str, work: impl FnOnce() -> Result<()>) {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::write(Level::Warn, format_args!("{what}: {error}")),
        Err(_) => log::write(Level::Error, format_args!("{what}: a panic, survived")),
    }
}

impl Table {
    /// The request for a file, made if there is none; an awaited one moves up. `None` if it would need a buffer, and
    /// none is free.
    fn request(&mut self, files: &Arc<QueueFiles>, start: u64, awaited: bool) -> Option<&Request> {
        let key = (files.generation, start);
        match self.requests.get(&key).map(|request| &request.state) {
            None => {
                let buffer = match &files.pool {
                    Some(pool) => Some(pool.take()?),
                    None => None,
                };
                self.next_ticket += 1;
                let ticket = self.next_ticket;
                let rank = rank(files, start, awaited, ticket);
                self.queued.insert(rank, key);
                let (state, since) = (State::Queued(rank), Instant::now());
                let request = Request { ticket, buffer, files: files.clone(), state, failures: 0, since };
                self.requests.insert(key, request);
            }
            Some(State::Queued(rank)) if awaited && rank.unawaited => self.queue_again(key, true),
            Some(_) => {}
        }
        self.requests.get(&key)
    }

    /// Ends all requests of a queue, and returns the files that nobody claimed.
    fn withdraw(&mut self, files: &QueueFiles) -> Vec<Arc<MappedFile>> {
        let mut unclaimed = Vec::new();
        self.requests.retain(|key, request| {
            let other = key.0 != files.generation;
            if let (false, State::Ready(file)) = (other, &request.state) {
                unclaimed.push(file.clone());
            }
            other
        });
        unclaimed
    }

    fn take_withdrawn(&mut self, files: &QueueFiles) -> impl Iterator<Item = Arc<MappedFile>> {
        self.withdrawn.extract_if(.., |(generation, _)| *generation == files.generation).map(|(_, file)| file)
    }

    fn queue_again(&mut self, key: Key, awaited: bool) {
        let request = self.requests.get_mut(&key).expect("a request to queue again");
        match request.state {
            State::Queued(before) => drop(self.queued.remove(&before)),
            _ => request.since = Instant::now(),
        }
        let rank = rank(&request.files, key.1, awaited, request.ticket);
        request.state = State::Queued(rank);
        self.queued.insert(rank, key);
    }

    /// Marks a queued request as in work.
    fn begin(&mut self, key: Key) -> Ticket {
        let request = self.requests.get_mut(&key).expect("a request to begin");
        if let State::Queued(rank) = request.state {
            self.queued.remove(&rank);
        }
        request.state = State::InWork;
        *self.in_work.entry(key.0).or_default() += 1;
        request.ticket
    }

    fn end_work(&mut self, generation: u64) {
        let count = self.in_work.get_mut(&generation).expect("work that began");
        *count -= 1;
        if *count == 0 {
            self.in_work.remove(&generation);
        }
    }

    /// The first request that is still wanted and may be served now, marked as in work.
    fn pop(&mut self) -> Option<(Key, Ticket, Arc<QueueFiles>)> {
        let mut after = None;
        loop {
            let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
            let (&rank, &key) = self.queued.range((behind, Bound::Unbounded)).next()?;
            match self.requests.get(&key) {
                None => {
                    self.queued.remove(&rank);
                    count(&EXPIRED);
                    self.dropped.push(("expired", key.1));
                }
                Some(request) if request.ticket != rank.ticket => {
                    self.queued.remove(&rank);
                    count(&SUPERSEDED);
                    self.dropped.push(("superseded", key.1));
                }
                Some(request) if self.lacks_predecessor(key, request) => after = Some(rank),
                Some(request) => {
                    let files = request.files.clone();
                    return Some((key, self.begin(key), files));
                }
            }
        }
    }

    /// Whether the file before this one is asked for and not there yet. A queue's files are made in order: a crash then
    /// leaves no gap, and the last space of a disk goes to the file that is needed first.
    fn lacks_predecessor(&self, key: Key, request: &Request) -> bool {
        let predecessor = key.1.checked_sub(request.files.table.file_bytes()).map(|start| (key.0, start));
        let before = predecessor.and_then(|key| self.requests.get(&key));
        before.is_some_and(|before| !matches!(before.state, State::Ready(_)))
    }

    fn deliver(&mut self, key: Key, files: &Arc<QueueFiles>, outcome: Result<Arc<MappedFile>>) {
        let request = self.requests.get_mut(&key).expect("a request to deliver to");
        match outcome {
            Ok(file) => {
                file.hold_buffer(request.buffer.take());
                request.state = State::Ready(file);
                self.give_attention(files);
            }
            Err(error) => {
                let pause = FIRST_BACK_OFF.saturating_mul(1 << request.failures.min(20)).min(LONGEST_BACK_OFF);
                request.failures += 1;
                request.state = State::Failed { error, retry_at: Instant::now() + pause };
            }
        }
    }

    /// Queues failed requests whose pause is over; when the next pause ends.
    fn retry_failed(&mut self, now: Instant) -> Option<Instant> {
        let retry_at = |request: &Request| match request.state {
            State::Failed { retry_at, .. } => Some(retry_at),
            _ => None,
        };
        let due = |request: &Request| retry_at(request).is_some_and(|at| at <= now);
        let keys: Vec<Key> = self.requests.iter().filter(|(_, r)| due(r)).map(|(key, _)| *key).collect();
        for key in &keys {
            self.queue_again(*key, false);
        }
        if keys.is_empty() { self.requests.values().filter_map(retry_at).min() } else { Some(now) }
    }

    fn give_attention(&mut self, files: &Arc<QueueFiles>) {
        if !self.attention.iter().any(|queue| queue.generation == files.generation) {
            self.attention.push_back(files.clone());
        }
    }

    /// The next pages to ready, for the queue that asked first and neither has run far enough ahead nor waits for a
    /// sync.
    fn prefault_step(&mut self) -> Option<(Arc<QueueFiles>, Step)> {
        let mut at = 0;
        while let Some(files) = self.attention.get(at) {
            match files.prefault.next_step(files.table.file_bytes(), |start| self.file_at(files, start)) {
                None => drop(self.attention.remove(at)),
                Some(step) if files.prefault.is_due(&step) => return Some((files.clone(), step)),
                Some(_) => at += 1,
            }
        }
        None
    }

    /// One that is in use, or ready to be.
    fn file_at(&self, files: &QueueFiles, start: u64) -> Option<Arc<MappedFile>> {
        files.table.find(start).or_else(|| match &self.requests.get(&(files.generation, start))?.state {
            State::Ready(file) => Some(file.clone()),
            _ => None,
        })
    }
}

fn rank(files: &QueueFiles, start: u64, awaited: bool, ticket: Ticket) -> Rank {
    Rank { unawaited: !awaited, larger_first: Reverse(files.table.file_bytes()), start, ticket }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Mode, Options};
    use crate::os;
    use crate::queue::{OpenQueue, Queue};
    use std::path::Path;

    /// Nothing is asked of it: the service at test has these files to itself.
    fn idle_queue(path: &Path) -> OpenQueue {
        let options = Options { file_size: os::native().page_size() as u64, ..Options::default() };
        Queue::open(os::native(), path, &options).unwrap()
    }

    #[test]
    fn a_superseded_request_is_dropped_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let queue = idle_queue(dir.path());
        let service = AllocationService::new();
        let before = superseded_requests();
        let mut table = service.table.lock();
        let key = (queue.files.generation, 0);
        let older = table.request(&queue.files, 0, false).unwrap().ticket;
        table.requests.remove(&key); // withdrawn, and asked for again before the worker has looked
        let newer = table.request(&queue.files, 0, true).unwrap().ticket;
        assert_ne!(older, newer);
        assert_eq!(table.pop().map(|(key, ticket, _)| (key, ticket)), Some((key, newer)));
        assert!(table.pop().is_none(), "the older one is not made");
        assert_eq!(superseded_requests(), before + 1);
    }

    #[test]
    fn a_request_withdrawn_while_it_is_made_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let queue = idle_queue(dir.path());
        let service = AllocationService::new();
        for withdrawn_first in [true, false] {
            let mut table = service.table.lock();
            table.request(&queue.files, 0, true);
            let (key, ticket, files) = table.pop().unwrap();
            if withdrawn_first {
                table.requests.remove(&key);
            }
            drop(service.make(table, key, ticket, &files));
            assert_eq!(dir.path().join(format!("{:020}", 0)).exists(), !withdrawn_first);
            assert!(service.table.lock().in_work.is_empty());
        }
        assert_eq!(service.withdraw(&queue.files).len(), 1, "the one that was made and not handed out");
    }

    #[test]
    fn a_buffer_is_promised_to_a_request_and_comes_back_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let file_size = os::native().page_size() as u64;
        let options = Options { file_size, mode: Mode::Staged, pool_buffers: 2, ..Options::default() };
        let queue = Queue::open(os::native(), dir.path(), &options).unwrap();
        let pool = queue.files.pool.as_ref().unwrap();
        let service = AllocationService::new();
        for index in 0..3 {
            service.table.lock().request(&queue.files, index * file_size, false);
        }
        assert_eq!(pool.free(), 0, "requests count before anything is made");
        let third = service.take(&queue.files, 2 * file_size, Deadline::Now).err().unwrap();
        assert_eq!(third.status(), Status::Busy);

        // One made, one queued; both are withdrawn.
        let mut table = service.table.lock();
        let (key, ticket, files) = table.pop().unwrap();
        drop(service.make(table, key, ticket, &files));
        assert_eq!(pool.free(), 0);
        drop(service.withdraw(&queue.files));
        queue.files.forget_new(|_| true);
        assert_eq!(pool.free(), 2);
        assert!(service.table.lock().requests.is_empty());
        queue.files.directory.remove(0).unwrap(); // as a close does
    }

    #[test]
    fn a_request_moves_up_when_somebody_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let queue = idle_queue(dir.path());
        let service = AllocationService::new();
        let mut table = service.table.lock();
        let size = queue.files.table.file_bytes();
        for start in [4 * size, 2 * size, 6 * size] {
            table.request(&queue.files, start, false);
        }
        table.request(&queue.files, 6 * size, true);
        table.request(&queue.files, 6 * size, false); // a look-ahead that joins does not move it down
        let order: Vec<u64> = std::iter::from_fn(|| table.pop()).map(|((_, start), ..)| start / size).collect();
        assert_eq!(order, [6, 2, 4]);
        assert!(table.queued.is_empty());
    }
}
