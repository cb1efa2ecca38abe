//! What reaches stable storage by itself: the interval and the least-pages policy, the checkpoint behind flushes.

#[path = "support/engine.rs"]
mod support;

use mfq::os::{Call, Fault, FaultyOs, native};
use mfq::{Filler, FlushPolicy, Format, Options, Status, Which};
use std::fs;
use std::time::Duration;
use support::*;

const ALL: u64 = u64::MAX;

fn with_policy(flush_policy: FlushPolicy) -> Options {
    Options { flush_policy, file_size: 256 * page(), ..record() }
}

fn interval(flush_interval_ms: u32) -> Options {
    Options { flush_interval_ms, ..with_policy(FlushPolicy::Interval) }
}

fn least_pages(flush_least_pages: u32) -> Options {
    Options { flush_least_pages, ..with_policy(FlushPolicy::LeastPages) }
}

fn in_raw(options: Options) -> Options {
    Options { format: Format::Raw, ..options }
}

fn flushed(queue: &Opened) -> u64 {
    queue.offsets().unwrap().flushed
}

/// Appends records of a page each, their header included.
fn append_pages(queue: &Opened, options: &Options, pages: u64) -> u64 {
    let filling = if options.format == Format::Raw { vec![b'f'; page() as usize] } else { filling() };
    (0..pages).map(|_| queue.append(&filling).unwrap().end).fold(0, u64::max)
}

fn wait_flushed(queue: &Opened, offset: u64) {
    queue.wait(Which::Flushed, offset, within(GENEROUS_MS)).unwrap();
}

/// Each thread of the library's that flushes, and how often it has gone to sleep so far.
fn sleeps_of_flush_threads() -> Vec<u64> {
    let task = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path();
        let name = fs::read_to_string(path.join("comm")).ok()?;
        let status = fs::read_to_string(path.join("status")).ok()?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        (name.trim() == "mfq-flush").then(|| count.trim().parse().unwrap())
    };
    fs::read_dir("/proc/self/task").unwrap().filter_map(task).collect()
}

/// What the checkpoint calls durable: what a power cut now would leave for certain.
fn checkpointed(queue: &Opened, options: &Options) -> u64 {
    let killed = as_killed_now(&queue.path);
    let policy_less = Options { flush_policy: FlushPolicy::None, ..options.clone() };
    flushed(&open_after_reboot(killed.path(), &policy_less))
}

#[test]
fn interval_flushes_what_waits_without_being_asked() {
    let _alone = alone();
    for options in [interval(5), in_raw(interval(5))] {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        for _ in 0..3 {
            let end = append_pages(&queue, &options, 8);
            wait_flushed(&queue, end);
        }
    }
}

#[test]
fn interval_leaves_a_few_pages_for_ten_seconds() {
    let _alone = alone();
    let (little_dir, much_dir) = (scratch(), scratch());
    let (little, much) = (open(little_dir.path(), &interval(5)), open(much_dir.path(), &interval(5)));
    let end = append_pages(&little, &record(), 2);
    for _ in 0..5 {
        // The same thread looks at both each 5 ms, and at the one that was dirty first first.
        let end = append_pages(&much, &record(), 4);
        wait_flushed(&much, end);
    }
    assert_eq!(flushed(&little), 0, "fewer than four pages wait");
    assert_eq!(little.os.count(Call::SyncRange), 0);
    wait_flushed(&little, end);
}

#[test]
fn least_pages_flushes_as_soon_as_so_many_wait() {
    let _alone = alone();
    for options in [least_pages(3), in_raw(least_pages(3))] {
        let (dir, other_dir) = (scratch(), scratch());
        let (queue, other) = (open(dir.path(), &options), open(other_dir.path(), &least_pages(1)));
        for round in 0..3 {
            let before = flushed(&queue);
            append_pages(&queue, &options, 2);
            // Whatever the thread was to do for the first queue it has done before it serves the second.
            let seen = other.append(b"x").unwrap().end;
            wait_flushed(&other, seen);
            assert_eq!(flushed(&queue), before, "round {round}: two pages are fewer than three");
            let end = append_pages(&queue, &options, 1);
            wait_flushed(&queue, end);
        }
    }
}

#[test]
fn least_pages_follows_a_claim_that_held_them_up() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &least_pages(2));
    let claim = queue.claim(100).unwrap();
    let end = append_pages(&queue, &record(), 4);
    assert_eq!(queue.wait(Which::Flushed, 1, within(5)).unwrap_err().status(), Status::Timeout);
    queue.commit(claim.id, 100).unwrap();
    wait_flushed(&queue, end);
}

#[test]
fn a_policy_flushes_what_was_recovered() {
    let _alone = alone();
    for policy in [interval(5), least_pages(2)] {
        let dir = scratch();
        let queue = open(dir.path(), &with_policy(FlushPolicy::None));
        let end = append_pages(&queue, &record(), 8);
        let killed = as_killed_now(dir.path());
        wait_flushed(&open(killed.path(), &policy), end);
    }
}

#[test]
fn what_is_appended_behind_a_truncation_is_flushed_as_before() {
    let _alone = alone();
    for options in [interval(1), least_pages(1)] {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        wait_flushed(&queue, append_pages(&queue, &options, 60));
        queue.truncate_after(0).unwrap();
        wait_flushed(&queue, append_pages(&queue, &options, 20));
    }
}

#[test]
fn a_sync_that_fails_in_the_background_poisons() {
    let _alone = alone();
    for options in [interval(1), least_pages(1)] {
        let dir = scratch();
        let os = FaultyOs::new(native());
        let queue = try_open_on(os, dir.path(), &options).unwrap();
        queue.os.fail_all(Call::SyncRange, Fault::Errno(libc::EIO));
        let end = append_pages(&queue, &record(), 1);
        let refused = (0..8).filter_map(|_| queue.append(&filling()).err()); // as soon as the flush thread has tried
        refused.for_each(|error| assert_eq!(error.status(), Status::Poisoned));
        let error = queue.wait(Which::Flushed, end, within(GENEROUS_MS)).unwrap_err();
        assert_eq!(error.status(), Status::Poisoned);
        assert_eq!(flushed(&queue), 0);
        assert_eq!(queue.append(b"x").unwrap_err().status(), Status::Poisoned);
    }
}

#[test]
fn a_checkpoint_follows_a_flush_and_is_none_of_its_work() {
    let _alone = alone();
    for options in [with_policy(FlushPolicy::None), with_policy(FlushPolicy::EveryAppend), least_pages(1)] {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        let writes = queue.os.count(Call::WriteAt);
        let end = queue.append(b"x").unwrap().end;
        queue.flush(ALL, within(GENEROUS_MS)).unwrap();
        assert_eq!(queue.os.count(Call::WriteAt), writes, "a second may pass");
        eventually("the checkpoint", || checkpointed(&queue, &options) == end);
    }
}

#[test]
fn a_checkpoint_follows_the_log_into_its_next_file() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    for file in 1..=20 {
        append_pages(&queue, &record(), 1);
        let writes = queue.os.count(Call::WriteAt);
        queue.flush(ALL, within(GENEROUS_MS)).unwrap();
        eventually("a checkpoint at each roll", || queue.os.count(Call::WriteAt) > writes);
        assert_eq!(checkpointed(&queue, &record()), file * page());
    }
}

#[test]
fn raw_without_a_walker_has_its_checkpoint_when_a_flush_returns() {
    let _alone = alone();
    let dir = scratch();
    let options = raw(Filler::Zero);
    let queue = open(dir.path(), &options);
    for _ in 0..5 {
        let end = queue.append(b"x").unwrap().end;
        queue.flush(ALL, within(GENEROUS_MS)).unwrap();
        assert_eq!(checkpointed(&queue, &options), end);
    }
}

#[test]
fn a_checkpoint_that_cannot_be_written_for_want_of_descriptors_is_tried_again() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    queue.append(b"x").unwrap();
    eventually("the look-ahead is done", || queue.stats().unwrap().files_created == 3);
    queue.os.fail_nth(Call::WriteAt, 1, Fault::Errno(libc::EMFILE));
    let end = queue.append(b"y").unwrap().end;
    queue.flush(ALL, within(GENEROUS_MS)).unwrap();
    eventually("the checkpoint", || checkpointed(&queue, &record()) == end);
    queue.append(b"z").unwrap();
    queue.os.fail_all(Call::WriteAt, Fault::Errno(libc::EIO));
    queue.flush(ALL, within(GENEROUS_MS)).unwrap();
    eventually("what the disk refuses poisons", || {
        queue.append(b"?").is_err_and(|error| error.status() == Status::Poisoned)
    });
}

#[test]
fn a_queue_at_rest_costs_no_time_of_the_flush_thread() {
    let _alone = alone();
    for options in [interval(1), least_pages(1), with_policy(FlushPolicy::EveryAppend)] {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        let end = append_pages(&queue, &record(), 8);
        queue.flush_start(ALL).unwrap();
        wait_flushed(&queue, end);
        eventually("the checkpoint", || checkpointed(&queue, &options) == end);
        eventually("rest", || {
            let before = sleeps_of_flush_threads();
            std::thread::sleep(Duration::from_millis(100)); // a timer of 1 ms would show
            assert_eq!(before.len(), 1);
            sleeps_of_flush_threads() == before
        });
    }
}

/// A sync of a huge page writes 2 MiB where 4 KiB would do.
#[test]
fn files_are_asked_to_be_of_huge_pages_only_where_syncs_are_rare() {
    let _alone = alone();
    let cases = [
        (FlushPolicy::None, true),
        (FlushPolicy::Interval, true),
        (FlushPolicy::LeastPages, false),
        (FlushPolicy::EveryAppend, false),
    ];
    for (policy, wanted) in cases {
        let dir = scratch();
        let queue = open(dir.path(), &Options { file_size: 4 << 20, ..with_policy(policy) });
        queue.append(b"x").unwrap();
        eventually("the first half is ready", || queue.stats().unwrap().prefaulted_to >= 4 << 20);
        assert_eq!(mapped_with("hg", &queue.file(0))[0], wanted, "{policy:?}");
    }
}

/// Its fault would read far ahead.
#[test]
fn a_writer_that_comes_to_pages_that_are_not_ready_gets_small_ones() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &Options { file_size: 4 << 20, ..with_policy(FlushPolicy::None) });
    queue.os.fail_nth(Call::Populate, 1, Fault::Hang); // of the first 2 MiB
    queue.append(b"x").unwrap();
    queue.os.wait_hanging(1);
    assert_eq!(mapped_with("hg", &queue.file(0)), [true, false]);
    queue.os.heal();
    eventually("the other half follows", || mapped_with("hg", &queue.file(0)) == [true]);
}
