//! Counters of one queue.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

pub const CREATION_BUCKETS: usize = 24;

/// A moment's counters. All but `prefaulted_to`, `pool_free` and the claims count from the open.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Records, and their payload bytes, below `committed`.
    pub appends: u64,
    pub bytes: u64,
    /// Rolls that found the next file ready / waited for it; waits for a file that ended at their deadline.
    pub rolls_ready: u64,
    pub rolls_waited: u64,
    pub rolls_timed_out: u64,
    pub files_created: u64,
    /// Slower than 10 ms.
    pub slow_creations: u64,
    pub failed_creations: u64,
    /// Of all queues of the process since its first open: a withdrawn request is seen after its queue is gone.
    pub expired_requests: u64,
    pub superseded_requests: u64,
    /// Files that a waiter made itself because the allocation thread was busy elsewhere.
    pub self_served_creations: u64,
    pub open_claims: u64,
    /// 0 while no claim is open.
    pub oldest_claim_offset: u64,
    pub oldest_claim_age_ms: u64,
    /// Pages below this offset were made ready for the writer, or left to it.
    pub prefaulted_to: u64,
    /// `[i]` counts creations that took less than 2^i us and not less than half of that; the last one also all that
    /// took longer.
    pub creation_us: [u64; CREATION_BUCKETS],
    /// STAGED: times an append or a get-last found no buffer free / gave up for that reason, at once or at its
    /// deadline; buffers that are free now.
    pub pool_waits: u64,
    pub pool_refusals: u64,
    pub pool_free: u64,
}

/// The counters as they are kept; all relaxed, as nothing is ordered by them.
#[derive(Default)]
pub(crate) struct Counters {
    pub appends: AtomicU64,
    pub bytes: AtomicU64,
    pub rolls_ready: AtomicU64,
    pub rolls_waited: AtomicU64,
    pub rolls_timed_out: AtomicU64,
    pub files_created: AtomicU64,
    pub slow_creations: AtomicU64,
    pub failed_creations: AtomicU64,
    pub self_served_creations: AtomicU64,
    pub pool_waits: AtomicU64,
    pub pool_refusals: AtomicU64,
    creation_us: [AtomicU64; CREATION_BUCKETS],
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Counters {
    pub fn created(&self, took: Duration) {
        count(&self.files_created);
        let us = took.as_micros() as u64;
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        count(&self.creation_us[bucket.min(CREATION_BUCKETS - 1)]);
    }

    pub fn snapshot(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        Stats {
            appends: read(&self.appends),
            bytes: read(&self.bytes),
            rolls_ready: read(&self.rolls_ready),
            rolls_waited: read(&self.rolls_waited),
            rolls_timed_out: read(&self.rolls_timed_out),
            files_created: read(&self.files_created),
            slow_creations: read(&self.slow_creations),
            failed_creations: read(&self.failed_creations),
            self_served_creations: read(&self.self_served_creations),
            creation_us: self.creation_us.each_ref().map(read),
            pool_waits: read(&self.pool_waits),
            pool_refusals: read(&self.pool_refusals),
            ..Stats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creation_times_fall_into_powers_of_two() {
        let counters = Counters::default();
        for us in [0, 1, 2, 3, 4, 1_000_000_000] {
            counters.created(Duration::from_micros(us));
        }
        let stats = counters.snapshot();
        assert_eq!(stats.creation_us[..4], [1, 1, 2, 1]);
        assert_eq!(stats.creation_us[CREATION_BUCKETS - 1], 1);
        assert_eq!(stats.files_created, 6);
    }
}
