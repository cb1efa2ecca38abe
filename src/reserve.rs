//! How writers in many threads share the end of the log, in RAW: a counter gives space away, turns commit it.
//!
//! Space in a file is given away by moving its counter. The one writer whose move crosses the end fills the rest and
//! rolls; those behind it find the counter past the end and go to the next file. Bytes become committed in the order
//! they were given away, so an append returns after the copies before its own.
//!
//! The algorithm knows counters and positions and nothing else, so that a model checker can run it over files of its
//! own.

use crate::commit_order::{CommitOrder, Copied, Turn};
use crate::error::{Error, Result, Status};
use crate::event::Event;
use crate::give_way::give_way;
use crate::place::Log;
use crate::positions::Positions;
use crate::raw;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{looks, spin_loop};

/// A log whose files are filled by counters. Positions in a file are bytes from its start.
pub(crate) trait RawLog: Log<Error = Error> {
    fn start(&self, file: Self::File) -> u64;
    fn size(&self, file: Self::File) -> u64;
    /// Records end at or before this position.
    fn limit(&self) -> u64;
    /// Bytes given away, past the limit once the file is full.
    fn counter<'f>(&'f self, file: &'f Self::File) -> &'f AtomicU64;
    /// Makes the last `rest` bytes of a file what stands at the end of a full one.
    fn fill(&self, file: Self::File, rest: u64) -> Result<()>;
    /// Moves `wrote` to `end`, and counts so many records of so many bytes. For the writer whose turn it is. Who fails
    /// poisons the log.
    fn commit(&self, end: u64, records: u64, bytes: u64) -> Result<()>;
    fn commit_order(&self) -> &CommitOrder;
    fn positions(&self) -> &Positions;
    fn moved(&self) -> &Event;
    fn check_not_poisoned(&self) -> Result<()>;
}

/// A range of `len` bytes in one file, rolling where it does not fit.
#[inline(always)]
pub(crate) fn reserve<L: RawLog>(log: &L, len: u64) -> Result<(L::File, u64)> {
    loop {
        if let Some(file) = file_with_room(log)? {
            let reserved = log.start(file) + raw::position(log.counter(&file).load(Ordering::Relaxed));
            if log.positions().wrote() != reserved {
                give_way(|| log.positions().wrote());
            }
            let at = add(log, file, len)?;
            if at + len <= log.limit() {
                return Ok((file, at));
            }
            fill(log, file, at)?;
        }
    }
}

/// The same, and everybody else is kept out until [`let_in`]. Nothing is given away meanwhile, and everything before
/// is committed when this returns.
pub(crate) fn reserve_alone<L: RawLog>(log: &L, len: u64) -> Result<(L::File, u64)> {
    loop {
        let Some(file) = file_with_room(log)? else { continue };
        let counter = raw::position(log.counter(&file).load(Ordering::Acquire));
        if counter + len > log.limit() {
            let at = add(log, file, len)?; // at or behind `counter`, so it does not fit there either
            fill(log, file, at)?;
            continue;
        }
        let excluding = counter | raw::EXCLUSIVE;
        if log.counter(&file).compare_exchange(counter, excluding, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            wait_turn(log, log.start(file) + counter, None)?; // for the appends that were given space before
            return Ok((file, counter));
        }
    }
}

/// Ends what [`reserve_alone`] began: the space up to `end` was used.
pub(crate) fn let_in(counter: &AtomicU64, end: u64) {
    counter.store(end, Ordering::Release);
}

/// The last file, unless nothing can be added to it any more: then there is a new last file, and the caller looks
/// again. The counter is looked at before it is added to, so that it never overflows, whoever tries how often.
#[inline(always)]
fn file_with_room<L: RawLog>(log: &L) -> Result<Option<L::File>> {
    if let Some(file) = log.last()
        && has_room(log, file)?
    {
        return Ok(Some(file));
    }
    // Looked at again, as a truncation that was under way made the last file look full, whether it is or not.
    let _still = log.hold_still()?;
    let last = log.last();
    if let Some(file) = last
        && has_room(log, file)?
    {
        return Ok(Some(file));
    }
    let next = log.next(last)?;
    log.advance(next);
    Ok(None)
}

#[inline(always)]
fn has_room<L: RawLog>(log: &L, file: L::File) -> Result<bool> {
    match log.counter(&file).load(Ordering::Acquire) {
        counter if counter & raw::EXCLUSIVE != 0 => Err(busy()),
        counter => Ok(counter <= log.limit()),
    }
}

/// The position this thread was given, which may be too far for `len` bytes to fit. A position at or below the
/// limit from which they do not fit is given to one thread only: it fills the file.
#[inline(always)]
fn add<L: RawLog>(log: &L, file: L::File, len: u64) -> Result<u64> {
    // Not a plain addition: beside an open claim it would push the counter over space that nobody fills, and
    // whoever looks at it meanwhile (`reserved`, a claim that begins) would take that for given away.
    let add = |counter: u64| (counter & raw::EXCLUSIVE == 0).then_some(counter + len);
    log.counter(&file).fetch_update(Ordering::AcqRel, Ordering::Acquire, add).map_err(|_| busy())
}

/// Fills a file from the position from which its crossing writer did not fit; does nothing for those behind it.
fn fill<L: RawLog>(log: &L, file: L::File, at: u64) -> Result<()> {
    if at > log.limit() {
        return Ok(());
    }
    let rest = log.size(file) - at;
    if rest == 0 {
        return Ok(()); // this turn is the next file's first writer's: `wrote` need not stand still until it is seen here
    }
    log.fill(file, rest)?;
    commit_in_turn(log, log.start(file) + at, Copied { len: rest, records: 0 })?;
    log.moved().notify();
    Ok(())
}

/// Commits what was copied to `offset`, once everything before it is committed.
#[inline(always)]
pub(crate) fn commit_in_turn<L: RawLog>(log: &L, offset: u64, copied: Copied) -> Result<()> {
    match log.positions().wrote() == offset || wait_turn(log, offset, Some(copied))? == Turn::Mine {
        true => commit(log, offset + copied.len, copied.records, copied.bytes()),
        false => Ok(()),
    }
}

/// For the writer whose turn it is; ends the turn.
#[inline(always)]
pub(crate) fn commit<L: RawLog>(log: &L, end: u64, records: u64, bytes: u64) -> Result<()> {
    log.commit(end, records, bytes)?;
    let committed = || log.positions().wrote();
    log.commit_order().reached(end, committed, |end, records, bytes| log.commit(end, records, bytes));
    Ok(())
}

/// Returns when `wrote` is exactly `offset`, all copies before it are done: or another writer has taken the turn and
/// committed what was `copied`. In a poisoned queue a copy may never be done, and then none behind it is committed.
#[cold]
fn wait_turn<L: RawLog>(log: &L, offset: u64, copied: Option<Copied>) -> Result<Turn> {
    // The writers before this one are copying: a copy takes some ten to some hundred nanoseconds, a sleep and a
    // wake several thousand. So a sleep is for those that lost their processor, or wait for the disk in a page
    // fault.
    for _ in 1..looks(200) {
        spin_loop();
        if log.positions().wrote() == offset {
            return Ok(Turn::Mine);
        }
    }
    log.commit_order().wait(offset, copied, || match log.positions().wrote() == offset {
        true => Ok(true),
        false => log.check_not_poisoned().map(|()| false),
    })
}

#[cold]
pub(crate) fn busy() -> Error {
    Error::new(Status::Busy, "a claim is open, and in RAW it excludes other appends and claims")
}

#[cfg(all(test, mfq_loom))]
mod models {
    use super::*;
    use crate::deadline::Deadline;
    use crate::sync::atomic::{AtomicBool, AtomicUsize};
    use crate::sync::{explore, explore_up_to, thread};
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use std::ops::Range;

    const FILE_BYTES: u64 = 4;
    const FILES: usize = 3;
    const FILLER: u32 = u32::MAX;

    /// With what each byte carries: loom reports a race if it is read while it may still be written.
    struct ModelLog {
        counters: [AtomicU64; FILES],
        bytes: [UnsafeCell<u32>; FILES * FILE_BYTES as usize],
        /// As with RocketMQ's filler, which needs some room.
        limit: u64,
        last: AtomicUsize,
        positions: Positions,
        moved: Event,
        order: CommitOrder,
        poisoned: AtomicBool,
    }

    impl Log for &ModelLog {
        type File = usize;
        type Error = Error;
        type Still = ();

        fn hold_still(&self) -> Result<()> {
            Ok(())
        }
        fn last(&self) -> Option<usize> {
            Some(self.last.load(Ordering::Acquire))
        }
        fn next(&self, full: Option<usize>) -> Result<usize> {
            Ok(full.map_or(0, |file| file + 1))
        }
        fn advance(&self, next: usize) {
            let _ = self.last.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| (last < next).then_some(next));
        }
    }

    impl RawLog for &ModelLog {
        fn start(&self, file: usize) -> u64 {
            file as u64 * FILE_BYTES
        }
        fn size(&self, _: usize) -> u64 {
            FILE_BYTES
        }
        fn limit(&self) -> u64 {
            self.limit
        }
        fn counter<'f>(&'f self, file: &'f usize) -> &'f AtomicU64 {
            &self.counters[*file]
        }
        fn fill(&self, file: usize, rest: u64) -> Result<()> {
            let end = self.start(file) + FILE_BYTES;
            self.put(end - rest..end, FILLER);
            Ok(())
        }
        fn commit(&self, end: u64, _: u64, _: u64) -> Result<()> {
            self.positions.set_wrote(end);
            Ok(())
        }
        fn commit_order(&self) -> &CommitOrder {
            &self.order
        }
        fn positions(&self) -> &Positions {
            &self.positions
        }
        fn moved(&self) -> &Event {
            &self.moved
        }
        fn check_not_poisoned(&self) -> Result<()> {
            if self.poisoned.load(Ordering::Relaxed) {
                Err(Error::new(Status::Poisoned, "a writer failed"))
            } else {
                Ok(())
            }
        }
    }

    impl ModelLog {
        fn new(limit: u64) -> Arc<ModelLog> {
            Arc::new(ModelLog {
                counters: std::array::from_fn(|_| AtomicU64::new(0)),
                bytes: std::array::from_fn(|_| UnsafeCell::new(0)),
                limit,
                last: AtomicUsize::new(0),
                positions: Positions::new(0, 0, false),
                moved: Event::default(),
                order: CommitOrder::default(),
                poisoned: AtomicBool::new(false),
            })
        }

        fn put(&self, at: Range<u64>, value: u32) {
            for byte in &self.bytes[at.start as usize..at.end as usize] {
                // SAFETY: given to this thread and not committed; loom checks it.
                byte.with_mut(|byte| unsafe { *byte = value });
            }
        }

        /// Everything below `end`, which is committed.
        fn bytes(&self, end: u64) -> Vec<u32> {
            // SAFETY: committed, so nobody writes it any more; loom checks it.
            self.bytes[..end as usize].iter().map(|byte| byte.with(|byte| unsafe { *byte })).collect()
        }

        /// The records below `end`: each as often as it has bytes.
        fn records(&self, end: u64) -> Vec<u32> {
            self.bytes(end).into_iter().filter(|&byte| byte != FILLER).collect()
        }

        /// Appends `len` bytes, each of them `record`.
        fn append(&self, record: u32, len: u64) -> Result<()> {
            let (file, at) = reserve(&self, len)?;
            assert!(at + len <= self.limit);
            let offset = (&self).start(file) + at;
            self.put(offset..offset + len, record);
            commit_in_turn(&self, offset, Copied { len, records: 1 })?;
            self.moved.notify();
            Ok(())
        }

        /// Gives up between the reservation and its commit, as one does that met a lost page.
        fn fail(&self, len: u64) {
            reserve(&self, len).unwrap();
            self.poisoned.store(true, Ordering::SeqCst);
            self.moved.wake_all();
            self.order.wake_all();
        }

        /// `committed` bytes of the `len` that were claimed.
        fn claim(&self, record: u32, len: u64, committed: u64) -> Result<()> {
            let (file, at) = reserve_alone(&self, len)?;
            let offset = (&self).start(file) + at;
            assert_eq!(self.positions.wrote(), offset, "not everything before is committed");
            self.put(offset..offset + committed, record);
            if committed > 0 {
                commit(&self, offset + committed, 1, committed)?;
                self.moved.notify();
            }
            let_in(&self.counters[file], at + committed);
            Ok(())
        }
    }

    fn start<T: 'static>(
        log: &Arc<ModelLog>,
        act: impl FnOnce(&ModelLog) -> T + 'static,
    ) -> loom::thread::JoinHandle<T> {
        let log = log.clone();
        thread::spawn(move || act(&log))
    }

    /// Nothing is lost, mixed or torn: of the record `n` there are `lens[n - 1]` bytes in one run.
    fn check_all_there(log: &ModelLog, lens: &[u64]) {
        let records = log.records(log.positions.wrote());
        let mut runs: Vec<_> = records.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as u64)).collect();
        runs.sort_unstable();
        assert_eq!(runs, (1..).zip(lens.iter().copied()).collect::<Vec<_>>(), "{records:?}");
    }

    /// The first record is there already, two more are appended at once.
    fn append_at_once(limit: u64, lens: [u64; 3]) {
        explore_up_to(2, move || {
            let log = ModelLog::new(limit);
            log.append(1, lens[0]).unwrap();
            let other = start(&log, move |log| log.append(2, lens[1]).unwrap());
            log.append(3, lens[2]).unwrap();
            other.join().unwrap();
            check_all_there(&log, &lens);
        });
    }

    #[test]
    fn three_writers_share_a_file() {
        explore_up_to(1, || {
            let log = ModelLog::new(FILE_BYTES);
            let others = [1, 2].map(|n| start(&log, move |log| log.append(n, 1).unwrap()));
            log.append(3, 2).unwrap();
            others.into_iter().for_each(|other| other.join().unwrap());
            check_all_there(&log, &[1, 1, 2]);
        });
    }

    #[test]
    fn one_writer_fills_the_file_that_another_finds_full() {
        append_at_once(FILE_BYTES, [2, 3, 3]);
    }

    #[test]
    fn a_file_is_filled_though_nothing_fits_below_its_limit() {
        append_at_once(FILE_BYTES - 1, [3, 1, 1]);
    }

    #[test]
    fn records_that_end_with_their_file_need_no_filler() {
        append_at_once(FILE_BYTES, [2, 2, 2]);
    }

    #[test]
    fn what_is_committed_is_written_and_a_reader_hears_of_it() {
        explore_up_to(2, || {
            let log = ModelLog::new(FILE_BYTES);
            let writers = [1, 2].map(|n| start(&log, move |log| log.append(n, 2).unwrap()));
            for end in [2, 4] {
                let look = || Ok((log.positions.committed() >= end).then_some(()));
                log.moved.wait(Deadline::Never, look).unwrap();
                assert!(!log.bytes(end).contains(&0), "committed before it was written");
            }
            writers.into_iter().for_each(|writer| writer.join().unwrap());
        });
    }

    #[test]
    fn behind_a_writer_that_fails_nothing_is_committed_and_nobody_is_left_waiting() {
        for len in [2, 3] {
            explore(move || {
                let log = ModelLog::new(FILE_BYTES);
                let fails = start(&log, |log| log.fail(2));
                let appended = log.append(1, len);
                fails.join().unwrap();
                let records = log.records(log.positions.wrote());
                assert_eq!(appended.is_ok(), records.contains(&1), "{records:?}");
                assert!(!records.contains(&0), "a hole: {records:?}");
            });
        }
    }

    #[test]
    fn a_claim_keeps_others_out_and_takes_back_what_it_does_not_use() {
        // One has room for the claim behind it, one has not.
        for (len, committed) in [(1, 0), (1, 1), (3, 0), (3, 1)] {
            explore(move || {
                let log = ModelLog::new(FILE_BYTES);
                let other = start(&log, move |log| log.append(1, len));
                let claimed = log.claim(2, 2, committed);
                let appended = other.join().unwrap();
                assert!(claimed.is_ok(), "only claims keep claims out");
                assert!(appended.as_ref().is_err_and(|error| error.status() == Status::Busy) || appended.is_ok());
                log.append(3, 1).unwrap();
                let mut records = log.records(log.positions.wrote());
                records.sort_unstable();
                records.dedup();
                let expected = [(1, appended.is_ok()), (2, committed > 0), (3, true)];
                assert_eq!(
                    records,
                    expected.into_iter().filter_map(|(n, there)| there.then_some(n)).collect::<Vec<_>>()
                );
            });
        }
    }
}
