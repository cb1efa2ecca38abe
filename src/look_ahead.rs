//! How many files are kept ready ahead of the writer.

use crate::options::{Filler, Options};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A disk may take so long to make a file: one read of a block bitmap in fallocate(2) took 665 ms on a disk whose writes
/// were rationed.
const LONGEST_CREATION: Duration = Duration::from_secs(1);
/// As RocketMQ: the next one, and the one after it.
const LEAST: u32 = 2;
/// Bounds the space taken ahead: 512 MiB in files of 64 MiB.
const MOST: u32 = 8;

pub(crate) struct LookAhead {
    count: AtomicU32,
    /// The host said how many.
    is_fixed: bool,
    pace: Mutex<Pace>,
}

#[derive(Default)]
struct Pace {
    /// Where the writer's file begins, and since when it has it; none until it has taken one since the open.
    had: Option<(u64, Instant)>,
    /// When it came to the end of that file first.
    full_at: Option<Instant>,
}

impl LookAhead {
    pub fn new(options: &Options, filler: Filler) -> LookAhead {
        let is_chosen = options.files_ahead != 0;
        let count = if is_chosen { options.files_ahead } else { LEAST };
        // A RocketMQ broker recovers from the third-last file on: more empty ones would hide the last with data. In
        // STAGED each one ahead takes a buffer from those that are full and not yet written.
        let is_fixed = is_chosen || filler == Filler::RocketMq || options.is_staged();
        LookAhead { count: AtomicU32::new(count), is_fixed, pace: Mutex::default() }
    }

    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// A writer came to the end of its file and asks for the one that begins at `next`. The time from the first such
    /// call until it has that file is not its own slowness, even if it is refused in between.
    pub fn full(&self, next: u64, now: Instant) {
        if self.is_fixed {
            return;
        }
        let mut pace = self.pace.lock();
        if pace.had.is_none_or(|(start, _)| start < next) {
            pace.full_at.get_or_insert(now);
        }
    }

    /// The file that the writer is in was full in part before it came there.
    pub fn end_moved(&self) {
        *self.pace.lock() = Pace::default();
    }

    /// The writer has the file that begins at `next`: where it fills files faster than the disk may make them, there are
    /// to be as many as it fills meanwhile.
    pub fn rolled(&self, next: u64, now: Instant) {
        if self.is_fixed {
            return;
        }
        let mut pace = self.pace.lock();
        if pace.had.is_some_and(|(start, _)| start >= next) {
            return; // others have gone on already
        }
        let before = std::mem::replace(&mut *pace, Pace { had: Some((next, now)), full_at: None });
        let (Some((_, since)), Some(full_at)) = (before.had, before.full_at) else { return };
        let filled_in = full_at.saturating_duration_since(since);
        let wanted = LONGEST_CREATION.as_nanos().div_ceil(filled_in.as_nanos().max(1)) as u32;
        self.count.store(wanted.clamp(LEAST, MOST), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Mode;

    /// Fills one file and has the next.
    fn roll(look_ahead: &LookAhead, next: u64, full_at: Instant, rolled_at: Instant) {
        look_ahead.full(next, full_at);
        look_ahead.rolled(next, rolled_at);
    }

    fn count_after(options: &Options, filled_in: Duration, waited: Duration) -> u32 {
        let look_ahead = LookAhead::new(options, options.filler);
        let first_at = Instant::now();
        roll(&look_ahead, 0, first_at, first_at);
        assert_eq!(look_ahead.count(), if options.files_ahead == 0 { 2 } else { options.files_ahead });
        roll(&look_ahead, 1, first_at + filled_in, first_at + filled_in + waited);
        look_ahead.count()
    }

    #[test]
    fn a_fast_writer_has_as_many_files_ahead_as_it_fills_in_a_second() {
        let default = Options::default();
        let ms = Duration::from_millis;
        for (filled_in_ms, ahead) in [(0, 8), (100, 8), (160, 7), (300, 4), (500, 2), (501, 2), (10_000, 2)] {
            assert_eq!(count_after(&default, ms(filled_in_ms), ms(0)), ahead, "full in {filled_in_ms} ms");
            assert_eq!(count_after(&default, ms(filled_in_ms), ms(5_000)), ahead, "a wait is not the writer's");
        }
    }

    #[test]
    fn what_the_host_chose_and_what_rocketmq_and_the_pool_allow_stays() {
        let chosen = Options { files_ahead: 3, ..Options::default() };
        assert_eq!(count_after(&chosen, Duration::ZERO, Duration::ZERO), 3);
        let rocketmq = Options { filler: Filler::RocketMq, ..Options::default() };
        assert_eq!(count_after(&rocketmq, Duration::ZERO, Duration::ZERO), 2);
        let staged = Options { mode: Mode::Staged, ..Options::default() };
        assert_eq!(count_after(&staged, Duration::ZERO, Duration::ZERO), 2);
    }

    #[test]
    fn a_file_that_was_cut_and_filled_again_says_nothing() {
        let look_ahead = LookAhead::new(&Options::default(), Filler::Zero);
        let now = Instant::now();
        roll(&look_ahead, 1, now, now);
        look_ahead.end_moved();
        roll(&look_ahead, 2, now, now);
        assert_eq!(look_ahead.count(), 2);
    }

    #[test]
    fn a_writer_that_slows_down_has_fewer_and_one_that_waits_is_not_slow() {
        let look_ahead = LookAhead::new(&Options::default(), Filler::Zero);
        let (began_at, second) = (Instant::now(), Duration::from_secs(1));
        roll(&look_ahead, 0, began_at, began_at);
        look_ahead.full(1, began_at); // and could not have it
        roll(&look_ahead, 1, began_at + 2 * second, began_at + 4 * second);
        assert_eq!(look_ahead.count(), 8);
        roll(&look_ahead, 2, began_at + 6 * second, began_at + 6 * second);
        assert_eq!(look_ahead.count(), 2);
    }

    #[test]
    fn of_several_writers_the_first_at_the_end_counts_and_none_that_comes_after_the_roll() {
        let look_ahead = LookAhead::new(&Options::default(), Filler::Zero);
        let (began_at, second) = (Instant::now(), Duration::from_secs(1));
        roll(&look_ahead, 0, began_at, began_at);
        look_ahead.full(1, began_at);
        look_ahead.full(1, began_at + second);
        look_ahead.rolled(1, began_at + second);
        assert_eq!(look_ahead.count(), 8);
        look_ahead.full(1, began_at + second); // it finds the file in the queue
        look_ahead.rolled(0, began_at + 3 * second); // told late
        roll(&look_ahead, 2, began_at + 3 * second, began_at + 3 * second);
        assert_eq!(look_ahead.count(), 2);
    }
}
