//! When data is flushed without being asked for, as the host chose, and how far that has come: for the flush thread,
//! which does it ([`crate::background`]).

use crate::options::{FlushPolicy, Options};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Under INTERVAL everything goes out after this long, however little it is; RocketMQ's own figure.
const EVERYTHING_AFTER: Duration = Duration::from_secs(10);
/// Between a flush for which no descriptor could be had, and the next.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Between a flush and its checkpoint.
pub(crate) const CHECKPOINT_AFTER: Duration = Duration::from_secs(1);

// How soon a checkpoint is wanted.
pub(crate) const NOT_WANTED: u8 = 0;
pub(crate) const SOON: u8 = 1;
pub(crate) const NOW: u8 = 2;

pub(crate) struct Policy {
    kind: FlushPolicy,
    interval: Duration,
    least_pages: u64,
    page_bytes: u64,
    /// RAW without a walker: after a power cut nothing but the checkpoint tells where bytes end, so each flush writes
    /// it.
    pub checkpoint_in_flush: bool,
    /// What started flushes want.
    pub started: AtomicU64,
    pub checkpoint: AtomicU8,
    /// What the last checkpoint calls durable.
    pub checkpointed: AtomicU64,
    pub schedule: Mutex<Schedule>,
}

/// The flush thread's alone.
#[derive(Default)]
pub(crate) struct Schedule {
    /// INTERVAL, while something waits: when to look at it next, and when it goes out however little it is.
    pub interval: Option<(Instant, Instant)>,
    pub checkpoint_at: Option<Instant>,
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

    /// Whether there may be anything to flush, or a checkpoint to write.
    pub fn has_work(&self, flushed: u64) -> bool {
        let started = self.started.load(Ordering::SeqCst) > flushed;
        self.follows_appends() || started || self.checkpoint.load(Ordering::Acquire) != NOT_WANTED
    }

    /// The least end of data that makes enough pages wait.
    fn enough_at(&self, flushed: u64) -> u64 {
        (flushed / self.page_bytes + self.least_pages - 1).saturating_mul(self.page_bytes) + 1
    }

    /// How far the policy wants to flush now.
    pub fn wants(&self, schedule: &mut Schedule, flushed: u64, committed: u64, now: Instant) -> u64 {
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
    pub fn wake_at(&self, schedule: &Schedule, flushed: u64, committed: u64, reserved: u64) -> u64 {
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
