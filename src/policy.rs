//! What is flushed without a caller who waits for it, and when: started flushes, the flush policy, the checkpoint.
//!
//! The flush thread does it ([`crate::flush_service`]), and nothing here polls: an append that crosses the offset that a
//! queue waits for wakes it ([`Queue::published`]), and it names a moment to come again only while something waits.

use crate::error::{Error, Result, Status};
use crate::flush_service::Served;
use crate::log::{self, Level};
use crate::options::{FlushPolicy, Options};
use crate::os::heavy_barrier;
use crate::queue::Queue;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Under INTERVAL everything goes out after this long, however little it is; RocketMQ's own figure.
const EVERYTHING_AFTER: Duration = Duration::from_secs(10);
/// Between a flush and its checkpoint.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(1);

// How soon a checkpoint is wanted.
const NOT_WANTED: u8 = 0;
const SOON: u8 = 1;
const NOW: u8 = 2;

pub(crate) struct Policy {
    kind: FlushPolicy,
    interval: Duration,
    least_pages: u64,
    page_bytes: u64,
    /// RAW without a walker: after a power cut nothing but the checkpoint tells where bytes end, so each flush writes it.
    pub checkpoint_in_flush: bool,
    /// What started flushes want.
    started: AtomicU64,
    checkpoint: AtomicU8,
    /// What the last checkpoint calls durable.
    checkpointed: AtomicU64,
    schedule: Mutex<Schedule>,
}

/// The flush thread's alone.
#[derive(Default)]
struct Schedule {
    /// INTERVAL, while something waits: when to look at it next, and when it goes out however little it is.
    interval: Option<(Instant, Instant)>,
    checkpoint_at: Option<Instant>,
}

impl Policy {
    pub fn new(options: &Options, page_bytes: u64, checkpoint_in_flush: bool, checkpointed: u64) -> Policy {
        Policy {
            kind: options.flush_policy,
            interval: options.flush_interval(),
            least_pages: options.flush_least_pages(),
            page_bytes,
            checkpoint_in_flush,
            started: AtomicU64::new(0),
            checkpoint: AtomicU8::new(NOT_WANTED),
            checkpointed: AtomicU64::new(checkpointed),
            schedule: Mutex::default(),
        }
    }

    /// The log ends at `end` now.
    pub fn cut(&self, end: u64) {
        self.started.fetch_min(end, Ordering::SeqCst);
        self.checkpointed.fetch_min(end, Ordering::Relaxed);
    }

    #[inline]
    pub fn is_every_append(&self) -> bool {
        self.kind == FlushPolicy::EveryAppend
    }

    /// Whether the flush thread has to know of what is appended.
    pub fn follows_appends(&self) -> bool {
        matches!(self.kind, FlushPolicy::Interval | FlushPolicy::LeastPages)
    }

    /// The least end of data that makes enough pages wait.
    fn enough_at(&self, flushed: u64) -> u64 {
        (flushed / self.page_bytes + self.least_pages - 1).saturating_mul(self.page_bytes) + 1
    }

    /// How far the policy wants to flush now.
    fn wants(&self, schedule: &mut Schedule, flushed: u64, committed: u64, now: Instant) -> u64 {
        let enough = committed >= self.enough_at(flushed);
        match self.kind {
            FlushPolicy::LeastPages if enough => committed,
            FlushPolicy::Interval if committed > flushed => {
                let (look_at, everything_at) =
                    *schedule.interval.get_or_insert((now + self.interval, now + EVERYTHING_AFTER));
                if now >= everything_at || (now >= look_at && enough) {
                    schedule.interval = None; // what comes next begins anew
                    return committed;
                }
                if now >= look_at {
                    schedule.interval = Some((now + self.interval, everything_at));
                }
                0
            }
            _ => {
                schedule.interval = None;
                0
            }
        }
    }

    /// The end of an append that is to wake the flush thread. `reserved` may be ahead of `committed`, which then moves
    /// when an append ends that lies below.
    fn wake_at(&self, schedule: &Schedule, flushed: u64, committed: u64, reserved: u64) -> u64 {
        let enough_at = self.enough_at(flushed);
        let next = match self.kind {
            _ if self.started.load(Ordering::SeqCst) > committed => true,
            FlushPolicy::Interval => schedule.interval.is_none(),
            FlushPolicy::LeastPages => reserved >= enough_at,
            _ => false,
        };
        match self.kind {
            _ if next => committed + 1,
            FlushPolicy::LeastPages => enough_at,
            _ => u64::MAX,
        }
    }
}

impl Queue {
    /// Has everything below `up_to` brought to stable storage, as [`Queue::flush`] does, and does not wait for it.
    pub fn flush_start(&self, up_to: u64) -> Result<()> {
        self.check_writable()?;
        let up_to = self.flush_bound(up_to)?;
        if up_to > self.positions.flushed() {
            self.policy.started.fetch_max(up_to, Ordering::SeqCst);
            self.ask_flush_thread()?;
        }
        Ok(())
    }

    pub(crate) fn ask_flush_thread(&self) -> Result<()> {
        let service = self.files.flush_service.as_ref().expect("only a writer flushes");
        service.ask(self.files.generation)
    }

    /// After a flush: the checkpoint is to follow, at once where the log has gone on to another file.
    pub(crate) fn want_checkpoint(&self, flushed: u64) {
        let policy = &self.policy;
        if policy.checkpoint_in_flush {
            return;
        }
        let file_of = |offset: u64| offset / self.meta.file_bytes;
        let rolled = file_of(flushed) > file_of(policy.checkpointed.load(Ordering::Relaxed));
        let wanted = if rolled { NOW } else { SOON };
        if policy.checkpoint.load(Ordering::Relaxed) < wanted
            && policy.checkpoint.fetch_max(wanted, Ordering::AcqRel) < wanted
            && let Err(error) = self.ask_flush_thread()
        {
            policy.checkpoint.store(NOT_WANTED, Ordering::Release); // the next flush tries again
            log::write(Level::Warn, format_args!("no checkpoint: {error}"));
        }
    }

    fn write_checkpoint_if_due(&self, schedule: &mut Schedule, now: Instant) -> Result<()> {
        let due = match self.policy.checkpoint.load(Ordering::Acquire) {
            NOT_WANTED => false,
            SOON => *schedule.checkpoint_at.get_or_insert(now + CHECKPOINT_AFTER) <= now,
            _ => true,
        };
        if !due {
            return Ok(());
        }
        schedule.checkpoint_at = None;
        self.policy.checkpoint.store(NOT_WANTED, Ordering::SeqCst); // before `flushed` is read, which may go on
        let mut last = self.checkpoint.lock();
        // Under the lock: a truncation takes `flushed` back, and poisons where the disk says something else by then.
        self.check_not_poisoned()?;
        let durable = self.positions.flushed();
        let written = self.write_checkpoint(durable, false, &mut last);
        drop(last);
        match written {
            Ok(()) => self.policy.checkpointed.store(durable, Ordering::Relaxed),
            Err(error) if is_a_shortage(&error) => {
                log::write(Level::Warn, format_args!("{error}"));
                self.policy.checkpoint.fetch_max(SOON, Ordering::AcqRel);
                schedule.checkpoint_at = Some(now + CHECKPOINT_AFTER);
            }
            Err(error) => {
                self.poison();
                return Err(error);
            }
        }
        Ok(())
    }

    fn serve_until_idle(&self) -> Result<Option<Instant>> {
        let (policy, schedule) = (&self.policy, &mut *self.policy.schedule.lock());
        loop {
            self.check_writable()?;
            let now = Instant::now();
            let committed = self.advance_wrote(u64::MAX);
            let started = policy.started.load(Ordering::SeqCst).min(committed);
            let wanted = policy.wants(schedule, self.positions.flushed(), committed, now).max(started);
            self.flush_committed(wanted)?;
            self.write_checkpoint_if_due(schedule, now)?;

            let flushed = self.positions.flushed();
            let wake_at = || policy.wake_at(schedule, flushed, committed, self.reserved());
            let at = wake_at();
            self.set_flush_at(at);
            // Either the look below sees what an append has published, or the append sees where it wakes this thread.
            heavy_barrier();
            if self.advance_wrote(at) < at && wake_at() == at {
                let look_at = schedule.interval.map(|(look_at, _)| look_at);
                return Ok([look_at, schedule.checkpoint_at].into_iter().flatten().min());
            }
        }
    }
}

impl Served for Queue {
    fn serve(&self) -> Option<Instant> {
        let _guest = self.files.table.enter();
        self.serve_until_idle().unwrap_or_else(|error| {
            if error.status() != Status::Closed && error.status() != Status::Poisoned {
                log::write(Level::Error, format_args!("flushing in the background: {error}"));
            }
            None
        })
    }

    fn poison(&self) {
        Queue::poison(self);
    }

    fn poison_by_panic(&self) {
        Queue::poison_by_panic(self);
    }
}

/// Of descriptors, memory or space: nothing was lost, and it may pass.
fn is_a_shortage(error: &Error) -> bool {
    matches!(error.status(), Status::NoSpace | Status::NoMemory) || matches!(error.errno(), libc::EMFILE | libc::ENFILE)
}
