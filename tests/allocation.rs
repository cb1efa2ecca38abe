//! The allocation service, behaviour by behaviour: who gets a file when, and what a failing or hanging disk does to
//! whom.

#[path = "support/engine.rs"]
mod support;

use mfq::os::{Call, Fault, FaultyOs, native};
use mfq::{Filler, FlushPolicy, Mode, Options, Status, Which};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};
use support::*;

const WITHOUT_WAITING: i32 = 0;

#[test]
fn a_request_already_there_is_joined_not_repeated() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    queue.os.fail_nth(Call::Allocate, 1, Fault::Hang);
    let waiters: Vec<_> = thread::scope(|scope| {
        let waiters: Vec<_> = (0..8).map(|_| scope.spawn(|| queue.get_last(within(GENEROUS_MS)).unwrap())).collect();
        queue.os.wait_hanging(1);
        assert_eq!(queue.get_last(within(1)).err().unwrap().status(), Status::Timeout);
        queue.os.heal();
        waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect()
    });
    let bases: HashSet<_> = waiters.iter().map(|file| file.base()).collect();
    assert_eq!(bases.len(), 1, "all waited for one file");
    eventually("the two files ahead", || queue.stats().unwrap().files_created == 3);
    let os = queue.os.clone();
    queue.close().unwrap();
    assert_eq!(os.count(Call::Allocate), 3, "each file was made once");
}

#[test]
fn a_roll_asks_for_next_and_next_next() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &Options { files_ahead: 2, ..record() }); // by default so fast a writer gets more
    for begun in 1..=5 {
        queue.append(&filling()).unwrap();
        let all: Vec<u64> = (0..begun + 2).map(|index| index * page()).collect();
        eventually("the last file and two ahead of it", || file_starts(dir.path()) == all);
    }
}

#[test]
fn files_ahead_is_the_hosts_choice() {
    let _alone = alone();
    for files_ahead in [1, 5] {
        let dir = scratch();
        let queue = open(dir.path(), &Options { files_ahead, ..record() });
        queue.append(b"x").unwrap();
        let all: Vec<u64> = (0..=u64::from(files_ahead)).map(|index| index * page()).collect();
        eventually("as many files ahead as asked for", || file_starts(dir.path()) == all);
        let created = queue.stats().unwrap().files_created;
        queue.append(b"x").unwrap();
        assert_eq!(queue.stats().unwrap().files_created, created);
    }
}

#[test]
fn a_fast_writer_gets_more_files_ahead() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    fill_files(&queue, 4);
    eventually("more than two files ahead", || file_starts(dir.path()).len() > 4 + 2);
}

#[test]
fn at_most_two_empty_files_are_ahead_with_rocketmqs_filler() {
    let _alone = alone();
    let (stuck, dir) = (scratch(), scratch());
    let stuck = hanging_queue(&stuck);
    let queue = open(dir.path(), &raw(Filler::RocketMq));
    let message = vec![b'm'; page() as usize - 8];
    for _ in 0..4 {
        queue.append(&message).unwrap();
    }
    assert_eq!(queue.stats().unwrap().rolls_waited, 3);
    stuck.os.heal();
    eventually("two files ahead", || file_starts(dir.path()).len() >= 4 + 2);
    queue.append(&message).unwrap();
    eventually("two files ahead of the next", || file_starts(dir.path()).len() >= 5 + 2);
    let os = queue.os.clone();
    assert_eq!(file_starts(dir.path()).len(), 5 + 2);
    queue.close().unwrap();
    assert_eq!(os.count(Call::Allocate), 5 + 2);
}

/// A broker begins its recovery in the third-last file: it must hold data, and a file handed out but not yet written to
/// holds none.
#[test]
fn a_file_handed_out_counts_as_empty_until_something_is_appended() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &raw(Filler::RocketMq));
    let message = vec![b'm'; page() as usize - 8];
    queue.append(&message).unwrap();
    queue.append(b"the second file").unwrap();
    let claim = queue.claim(message.len()).unwrap();
    assert_eq!(claim.offset, 2 * page());
    eventually("two files with data, two empty ones", || file_starts(dir.path()).len() >= 4);
    let os = queue.os.clone();
    queue.begin_close(); // ends what is asked for and not begun
    queue.finish_close().unwrap();
    assert_eq!(os.count(Call::Allocate), 4, "files 0 and 1 have data, 2 and 3 are empty");
}

#[test]
fn a_waiter_is_served_before_look_ahead_then_larger_files_then_lower_offsets() {
    let _alone = alone();
    collect_log();
    let dirs: Vec<_> = (0..5).map(|_| scratch()).collect();
    let stuck = hanging_queue(&dirs[0]);
    // Their first files they make themselves; two look-ahead requests each stay queued.
    let small = open(dirs[1].path(), &record());
    small.append(&filling()).unwrap();
    let large = open(dirs[2].path(), &Options { file_size: 2 * page(), ..record() });
    large.append(b"x").unwrap();
    // Awaited ones, the last queued first to be served.
    let awaited = |queue: &Opened| assert_eq!(queue.get_last(within(0)).err().unwrap().status(), Status::Timeout);
    awaited(&small);
    let fresh = open(dirs[3].path(), &record());
    awaited(&fresh);
    let fresh_large = open(dirs[4].path(), &Options { file_size: 2 * page(), ..record() });
    awaited(&fresh_large);
    stuck.os.heal();

    let expected = [
        fresh_large.file(0),
        fresh.file(0),
        small.file(page()),
        large.file(2 * page()),
        large.file(4 * page()),
        small.file(2 * page()),
    ];
    eventually("all six are made", || expected.iter().all(|file| file.exists()));
    let mut seen: Vec<(usize, usize)> = Vec::new();
    let lines = logged(std::env::temp_dir().as_path());
    for (index, file) in expected.iter().enumerate() {
        let creating = format!("creating {},", file.display());
        seen.push((lines.iter().position(|line| line.starts_with(&creating)).expect("made by the worker"), index));
    }
    seen.sort_unstable();
    let order: Vec<usize> = seen.into_iter().map(|(_, index)| index).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_deadline_does_not_expire_a_request() {
    let _alone = alone();
    let dir = scratch();
    let queue = hanging_queue(&dir);
    let expired = queue.stats().unwrap().expired_requests;
    assert_eq!(queue.get_last(within(20)).err().unwrap().status(), Status::Timeout);
    queue.os.heal();
    eventually("the file is made although nobody waits", || queue.stats().unwrap().files_created == 1);
    assert_eq!(queue.get_last(within(WITHOUT_WAITING)).unwrap().start(), 0);
    assert_eq!(queue.stats().unwrap().expired_requests, expired);
}

#[test]
fn a_negative_timeout_waits_without_limit() {
    let _alone = alone();
    let dir = scratch();
    let queue = hanging_queue(&dir);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| queue.get_last(within(-1)).map(|file| file.start()));
        assert_eq!(queue.get_last(within(50)).err().unwrap().status(), Status::Timeout);
        assert!(!waiter.is_finished());
        queue.os.heal();
        assert_eq!(waiter.join().unwrap().unwrap(), 0);
    });
}

#[test]
fn timeout_is_distinct_from_failure() {
    let _alone = alone();
    let dir = scratch();
    let queue = hanging_queue(&dir);
    let timeout = queue.get_last(within(5)).err().unwrap();
    assert_eq!((timeout.status(), timeout.errno()), (Status::Timeout, 0));
    assert!(timeout.message().contains(queue.file(0).to_str().unwrap()), "{timeout}");
    queue.os.heal();
    assert_eq!(queue.append(&filling()).unwrap().offset, 0);

    let dir = scratch();
    let queue = open(dir.path(), &Options { no_wait: true, ..record() });
    queue.os.fail_nth(Call::Allocate, 1, Fault::Hang);
    assert_eq!(queue.append(b"x").unwrap_err().status(), Status::Timeout);
    assert_eq!(queue.stats().unwrap().rolls_timed_out, 1);
    assert_eq!(queue.offsets().unwrap().reserved, 0);
    queue.os.heal();
    eventually("the file is ready", || queue.append(b"x").is_ok());
}

#[test]
fn an_append_waits_no_longer_than_its_option_says() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &Options { append_timeout_ms: 50, ..record() });
    queue.os.fail_nth(Call::Allocate, 1, Fault::Hang);
    let began = Instant::now();
    assert_eq!(queue.append(b"x").unwrap_err().status(), Status::Timeout);
    assert!(began.elapsed() >= Duration::from_millis(50));
}

#[test]
fn a_file_is_handed_out_exactly_once() {
    let _alone = alone();
    for options in [record(), raw(Filler::Zero)] {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        let payload = vec![b'p'; page() as usize / 3];
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..100).for_each(|_| assert!(queue.append(&payload).is_ok())));
            }
        });
        let stats = queue.stats().unwrap();
        let begun = queue.offsets().unwrap().reserved.div_ceil(page());
        assert_eq!(
            stats.rolls_ready + stats.rolls_waited,
            begun - 1,
            "each roll took one file, and one thread took it"
        );
        assert_eq!(stats.appends, 800);
        let os = queue.os.clone();
        queue.close().unwrap();
        assert_eq!(file_starts(dir.path()).len() as u64, begun);
        assert!(os.count(Call::Allocate) >= begun);
    }
}

#[test]
fn an_error_reaches_its_waiter_at_once_typed_with_errno() {
    let _alone = alone();
    let cases = [
        (Call::Allocate, libc::ENOSPC, Status::NoSpace),
        (Call::Allocate, libc::EDQUOT, Status::NoSpace),
        (Call::Allocate, libc::EIO, Status::Io),
        (Call::Map, libc::ENOMEM, Status::NoMemory),
        (Call::Rename, libc::EROFS, Status::Io),
        (Call::Open, libc::EMFILE, Status::Io),
    ];
    for (call, errno, status) in cases {
        let dir = scratch();
        let queue = open(dir.path(), &Options { append_timeout_ms: -1, ..record() });
        queue.os.fail_nth(call, 1, Fault::Errno(errno)); // a second attempt would do: the waiter is told of the first
        let error = queue.append(b"x").unwrap_err();
        assert_eq!((error.status(), error.errno()), (status, errno), "{call:?}: {error}");
        assert!(error.message().contains(queue.file(0).to_str().unwrap()), "{error}");
        assert_eq!(queue.offsets().unwrap().reserved, 0);
        assert!(queue.stats().unwrap().failed_creations >= 1);
        queue.os.heal();
        queue.append(b"x").unwrap();
        let private: Vec<_> = fs::read_dir(dir.path().join(".mfq")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(!private.iter().any(|name| name.to_string_lossy().starts_with("00000000000000000000")), "{private:?}");
    }
}

/// The look-ahead of a queue that has its first file fails, as often as a test needs.
fn without_look_ahead(dir: &tempfile::TempDir, options: &Options) -> Opened {
    let queue = open(dir.path(), options);
    for nth in 2..10_000 {
        queue.os.fail_nth(Call::Allocate, nth, Fault::Errno(libc::ENOSPC));
    }
    queue.append(b"x").unwrap();
    queue
}

#[test]
fn a_failed_look_ahead_is_silent_until_the_file_is_needed() {
    let _alone = alone();
    let dir = scratch();
    let queue = without_look_ahead(&dir, &record());
    eventually("both look-aheads failed", || queue.stats().unwrap().failed_creations >= 2);
    queue.append(b"y").unwrap();
    let error = queue.append(&filling()).unwrap_err();
    assert_eq!((error.status(), error.errno()), (Status::NoSpace, libc::ENOSPC));
    queue.append(b"z").unwrap();
    assert_eq!(read_all(&queue), [b"x", b"y", b"z"]);
}

#[test]
fn no_error_sticks() {
    let _alone = alone();
    let dir = scratch();
    let queue = without_look_ahead(&dir, &record());
    assert_eq!(queue.append(&filling()).unwrap_err().status(), Status::NoSpace);
    let (elsewhere, other) = (scratch(), record());
    let other = open(elsewhere.path(), &other);
    fill_files(&other, 3); // one queue's full disk is no other queue's
    queue.os.heal();
    queue.append(&filling()).unwrap();
    assert_eq!(read_all(&queue), [b"x".to_vec(), filling()]);
}

/// A writer that does not wait would otherwise never learn why it gets no file.
#[test]
fn a_writer_that_does_not_wait_hears_of_the_failure_too() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &Options { no_wait: true, ..record() });
    queue.os.fail_all(Call::Allocate, Fault::Errno(libc::ENOSPC));
    eventually("NO_SPACE, not a timeout for ever", || {
        let error = queue.append(b"x").unwrap_err();
        error.status() == Status::NoSpace && error.errno() == libc::ENOSPC
    });
    queue.os.heal();
    eventually("it works again", || queue.append(b"x").is_ok());
}

#[test]
fn retries_back_off() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    queue.os.fail_all(Call::Allocate, Fault::Errno(libc::EIO));
    queue.append(b"x").unwrap_err();
    let began = Instant::now();
    eventually("six retries by the worker itself", || queue.stats().unwrap().failed_creations >= 7);
    // From the first failure on the pauses are 10, 20, 40, 80, 160, 320 ms; the first may have begun a little earlier.
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
}

#[test]
fn a_panic_in_the_worker_is_reported_and_survived() {
    let _alone = alone();
    for call in [Call::Open, Call::Allocate, Call::Map, Call::Rename] {
        let dir = scratch();
        let queue = open(dir.path(), &Options { append_timeout_ms: -1, ..record() });
        queue.os.fail_all(call, Fault::Panic); // just one, and a retry may bring the file before the waiter has woken
        let error = queue.append(b"x").unwrap_err();
        assert_eq!(error.status(), Status::Panic, "{call:?}: {error}");
        assert!(error.message().contains(queue.file(0).to_str().unwrap()), "{error}");
        queue.os.heal();
        fill_files(&queue, 3);
        eventually("the worker goes on", || file_starts(dir.path()).len() >= 5);
        queue.close().unwrap();
    }
    // What it does after a file is ready, too.
    let dir = scratch();
    let queue = open(dir.path(), &record());
    let aimed_at = queue.os.fail_nth(Call::Populate, 1, Fault::Panic);
    queue.append(b"x").unwrap();
    eventually("the worker came to the call", || queue.os.count(Call::Populate) >= aimed_at);
    fill_files(&queue, 3);
    eventually("the worker goes on", || file_starts(dir.path()).len() >= 6);
    queue.close().unwrap();
}

/// Nobody can say what was synced, and whether a failure was told.
#[test]
fn a_panic_while_a_new_file_is_made_durable_poisons_the_queue() {
    let _alone = alone();
    for call in [Call::SyncData, Call::SyncDirectory] {
        let dir = scratch();
        let queue = open(dir.path(), &record());
        queue.os.fail_nth(call, 1, Fault::Hang);
        queue.os.fail_nth(call, 1, Fault::Panic);
        let end = queue.append(b"x").unwrap().end;
        queue.os.let_go();
        let waited = queue.wait(Which::Flushed, end, within(GENEROUS_MS));
        assert_eq!(waited.unwrap_err().status(), Status::Poisoned, "{call:?}");
        assert_eq!(queue.close().unwrap_err().status(), Status::Poisoned);
    }
}

#[test]
fn a_slow_creation_is_logged_with_the_queues_length_and_counted() {
    let _alone = alone();
    collect_log();
    let (stuck, other, dir) = (scratch(), scratch(), scratch());
    let stuck = hanging_queue(&stuck);
    let other = open(other.path(), &record());
    other.append(b"x").unwrap(); // the two files ahead of it stay queued
    let queue = open(dir.path(), &record());
    queue.os.fail_nth(Call::Allocate, 1, Fault::Hang);
    let began = Instant::now();
    assert_eq!(queue.get_last(within(WITHOUT_WAITING)).err().unwrap().status(), Status::Timeout);
    stuck.os.heal();
    queue.os.wait_hanging(1);
    let hanging = Instant::now();
    thread::sleep(Duration::from_millis(12)); // what is to be slow has to last
    let (at_least, at_most) = (hanging.elapsed(), || began.elapsed());
    queue.os.heal();
    eventually("the file is there", || queue.stats().unwrap().files_created == 1);
    let at_most = at_most();
    let stats = queue.stats().unwrap();
    assert_eq!(stats.slow_creations, 1);
    let bucket = stats.creation_us.iter().position(|&count| count == 1).unwrap();
    let us = |time: Duration| time.as_micros() as u64;
    assert!(
        us(at_least) < 1 << bucket && us(at_most) >= 1 << (bucket - 1),
        "bucket {bucket}: {at_least:?} {at_most:?}"
    );
    let told = |line: &String| {
        let rest = line.strip_prefix(&format!("{}: creating it took ", queue.file(0).display()));
        let (ms, rest) = rest?.split_once(" ms, ")?;
        let queued = rest.strip_suffix(" requests queued")?;
        Some((ms.parse::<u128>().unwrap(), queued.parse::<usize>().unwrap()))
    };
    let line = || logged(dir.path()).iter().find_map(told);
    eventually("it is logged", || line().is_some());
    let (ms, queued) = line().unwrap();
    assert!((at_least.as_millis()..=at_most.as_millis()).contains(&ms), "{at_least:?} {ms} ms {at_most:?}");
    assert!(queued >= 2, "{queued}: those of the other queue come after one that is awaited");
}

#[test]
fn a_hung_creation_of_one_queue_does_not_stop_anothers_roll() {
    let _alone = alone();
    for options in [record(), raw(Filler::Zero), raw(Filler::RocketMq)] {
        let (stuck, dir) = (scratch(), scratch());
        let stuck = hanging_queue(&stuck);
        let queue = open(dir.path(), &options);
        let payload = vec![b'p'; page() as usize - 16];
        for _ in 0..10 {
            queue.append(&payload).unwrap();
        }
        let stats = queue.stats().unwrap();
        assert_eq!(stats.self_served_creations, 10);
        assert_eq!((stats.rolls_waited, stats.rolls_timed_out), (9, 0));
        assert_eq!(stuck.stats().unwrap().files_created, 0);
        queue.flush(u64::MAX, within(GENEROUS_MS)).unwrap();
        queue.close().unwrap();
        assert_eq!(file_starts(dir.path()).len(), 10);
    }
}

#[test]
fn a_writer_that_waits_less_than_it_takes_to_help_oneself_does_so_in_a_later_call() {
    let _alone = alone();
    let (stuck, dir) = (scratch(), scratch());
    let stuck = hanging_queue(&stuck);
    let queue = open(dir.path(), &Options { append_timeout_ms: 2, ..record() });
    eventually("it made the file", || match queue.append(b"x") {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.status(), Status::Timeout, "{error}");
            false
        }
    });
    assert_eq!(queue.stats().unwrap().self_served_creations, 1);
    assert_eq!(stuck.stats().unwrap().files_created, 0);
}

/// New files wait for their sync, which the busy thread does not come to.
#[test]
fn descriptors_do_not_pile_up_while_a_writer_rolls_faster_than_new_files_are_synced() {
    let _alone = alone();
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let (stuck, dir) = (scratch(), scratch());
    let _stuck = hanging_queue(&stuck);
    let queue = open(dir.path(), &record());
    fill_files(&queue, 5);
    let before = descriptors();
    fill_files(&queue, 100);
    assert!(descriptors() < before + 50, "{before}, and now {}", descriptors());
}

/// The thread that helps itself is the host's own, and the signal's default is to end the process.
#[test]
fn a_file_larger_than_the_process_may_write_is_no_space_and_raises_no_signal() {
    let _alone = alone();
    let dir = scratch();
    in_a_process_of_its_own("appends_beyond_its_file_size_limit", dir.path());
}

#[test]
#[ignore = "started by a_file_larger_than_the_process_may_write_is_no_space_and_raises_no_signal"]
fn appends_beyond_its_file_size_limit() {
    let Some(dir) = victims_directory() else { return };
    let _alone = alone();
    // SAFETY: a limit that is valid; nobody else in this process handles signals.
    unsafe {
        assert_ne!(libc::signal(libc::SIGXFSZ, libc::SIG_DFL), libc::SIG_ERR);
        let limit = libc::rlimit { rlim_cur: 4 * page(), rlim_max: libc::RLIM_INFINITY };
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
    let large = Options { file_size: 16 * page(), ..record() };
    for helps_itself in [false, true] {
        let (stuck, path) = (scratch(), dir.join(helps_itself.to_string()));
        let _stuck = helps_itself.then(|| hanging_queue(&stuck));
        let queue = open(&path, &large);
        let error = queue.append(b"x").unwrap_err();
        assert_eq!((error.status(), error.errno()), (Status::NoSpace, libc::EFBIG), "{error}");
        assert_eq!(queue.stats().unwrap().self_served_creations > 0, helps_itself);
    }
    // The small files of a new queue are written on the host's own thread, too.
    // SAFETY: as above.
    unsafe {
        let limit = libc::rlimit { rlim_cur: 1, rlim_max: libc::RLIM_INFINITY };
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
    let error = try_open(&dir.join("new"), &record()).err().expect("a refusal");
    assert_eq!((error.status(), error.errno()), (Status::NoSpace, libc::EFBIG), "{error}");
}

#[test]
fn a_failure_of_a_waiter_that_helps_itself_is_its_own() {
    let _alone = alone();
    let (stuck, dir) = (scratch(), scratch());
    let _stuck = hanging_queue(&stuck);
    let queue = open(dir.path(), &Options { append_timeout_ms: -1, ..record() });
    queue.os.fail_nth(Call::Allocate, 1, Fault::Errno(libc::ENOSPC));
    queue.os.fail_nth(Call::Allocate, 2, Fault::Panic);
    assert_eq!(queue.append(b"x").unwrap_err().status(), Status::NoSpace);
    assert_eq!(queue.append(b"x").unwrap_err().status(), Status::Panic);
    queue.append(b"x").unwrap();
}

#[test]
fn expired_requests_are_dropped_and_counted() {
    let _alone = alone();
    collect_log();
    let (stuck, dir) = (scratch(), scratch());
    let stuck = hanging_queue(&stuck);
    let before = stuck.stats().unwrap().expired_requests;
    let queue = open(dir.path(), &record());
    queue.append(b"x").unwrap(); // two requests of its look-ahead stay queued
    queue.close().unwrap();
    assert_eq!(stuck.stats().unwrap().expired_requests, before, "nobody has looked yet");
    stuck.os.heal();
    eventually("both are dropped", || stuck.stats().unwrap().expired_requests == before + 2);
    assert_eq!(file_starts(dir.path()), [0]);
}

#[test]
fn ready_files_that_nobody_claimed_are_removed_at_close() {
    let _alone = alone();
    for options in [record(), raw(Filler::Zero), raw(Filler::RocketMq)] {
        let dir = scratch();
        let queue = open(dir.path(), &Options { files_ahead: 2, ..options });
        queue.append(b"x").unwrap();
        eventually("two files ahead", || file_starts(dir.path()).len() == 3);
        queue.close().unwrap();
        assert_eq!(file_starts(dir.path()), [0]);
    }
}

#[test]
fn a_close_waits_for_its_creation_in_flight_and_leaves_nothing_of_it() {
    let _alone = alone();
    let dir = scratch();
    let queue = hanging_queue(&dir);
    let let_go = AtomicBool::new(false);
    thread::scope(|scope| {
        let closing = scope.spawn(|| {
            queue.begin_close();
            let closed = queue.finish_close();
            (closed, let_go.load(Ordering::SeqCst))
        });
        eventually("the close has begun", || queue.stats().is_err());
        assert_eq!(refused(dir.path(), &record()).status(), Status::Locked, "the lock is let go last");
        let_go.store(true, Ordering::SeqCst);
        queue.os.heal();
        let (closed, after) = closing.join().unwrap();
        closed.unwrap();
        assert!(after, "it ended while the call hung");
    });
    assert_eq!(file_starts(dir.path()), [] as [u64; 0]);
    let temporary = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(".tmp");
    assert!(!fs::read_dir(dir.path().join(".mfq")).unwrap().any(|entry| temporary(&entry.unwrap().file_name())));
}

#[test]
fn a_waiter_comes_out_when_its_queue_is_closed() {
    let _alone = alone();
    let dir = scratch();
    let queue = hanging_queue(&dir);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| queue.get_last(within(-1)).map(drop));
        queue.begin_close();
        assert_eq!(waiter.join().unwrap().unwrap_err().status(), Status::Closed);
    });
}

#[test]
fn creation_is_under_a_temporary_name_with_its_blocks_reserved_then_renamed() {
    use std::os::unix::fs::MetadataExt;
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    let temporary = dir.path().join(".mfq/00000000000000000000.tmp");
    queue.os.fail_nth(Call::Map, 1, Fault::Hang);
    assert_eq!(queue.get_last(within(WITHOUT_WAITING)).err().unwrap().status(), Status::Timeout);
    queue.os.wait_hanging(1);
    let about = fs::metadata(&temporary).unwrap();
    assert_eq!(about.len(), page());
    assert!(about.blocks() * 512 >= page(), "{} blocks", about.blocks());
    assert!(!queue.file(0).exists());
    queue.os.heal();
    assert_eq!(queue.get_last(within(GENEROUS_MS)).unwrap().start(), 0);
    assert!(queue.file(0).exists() && !temporary.exists());
    assert_eq!(fs::metadata(queue.file(0)).unwrap().ino(), about.ino());
}

#[test]
fn prefault_begins_after_a_file_is_ready_and_never_delays_a_waiter() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    queue.os.fail_all(Call::Populate, Fault::Hang);
    queue.append(&filling()).unwrap();
    queue.os.wait_hanging(1); // pages are being readied, and will be for ever
    fill_files(&queue, 5);
    assert_eq!(queue.stats().unwrap().rolls_timed_out, 0);
    queue.os.heal();
    eventually("the pages ahead are ready", || {
        queue.stats().unwrap().prefaulted_to == file_starts(dir.path()).last().unwrap() + page()
    });
}

#[test]
fn pages_are_readied_in_small_steps_and_never_by_who_appends() {
    let _alone = alone();
    let (file_size, flush_policy) = (8 << 20, FlushPolicy::LeastPages); // no huge pages, which are other advice
    for mode in [Mode::Mmap, Mode::Staged] {
        let dir = scratch();
        let queue =
            open(dir.path(), &Options { file_size, flush_policy, flush_least_pages: u32::MAX, mode, ..record() });
        queue.os.fail_from(Call::Populate, 3, Fault::Hang);
        queue.append(b"x").unwrap();
        queue.os.wait_hanging(1); // in the first file, or in one ahead of it
        let writers: Vec<_> = thread::scope(|scope| {
            let append = || {
                let part = vec![b'p'; 1 << 20];
                (0..6).for_each(|_| assert!(queue.append(&part).is_ok()));
                thread::current().id()
            };
            let writers: Vec<_> = (0..4).map(|_| scope.spawn(append)).collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        let wrote = queue.offsets().unwrap().wrote;
        assert!(wrote > 24 << 20 && queue.stats().unwrap().prefaulted_to < wrote, "they have overtaken it");
        queue.os.heal();
        eventually("it has overtaken them", || queue.stats().unwrap().prefaulted_to > wrote + file_size);
        for (len, thread) in queue.os.populated_ranges() {
            assert!(len <= 2 << 20, "{len} bytes at once");
            assert!(!writers.contains(&thread) && thread != thread::current().id());
        }
        assert!(queue.os.populated_ranges().len() > 2);
    }
}

#[test]
fn a_new_files_name_is_made_durable_after_it_is_handed_out() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    let synced = queue.os.count(Call::SyncDirectory);
    queue.os.fail_all(Call::SyncData, Fault::Hang);
    queue.append(b"x").unwrap(); // did not wait for it
    queue.os.wait_hanging(1);
    assert_eq!(queue.os.count(Call::SyncDirectory), synced);
    // A flush does what the worker has not come to.
    queue.flush(u64::MAX, within(GENEROUS_MS)).unwrap();
    assert_eq!(queue.os.count(Call::SyncDirectory), synced + 1);
}

#[test]
fn a_sync_that_hangs_holds_up_no_pages_and_no_files() {
    let _alone = alone();
    let (hung, other) = (scratch(), scratch());
    let options = Options { file_size: 64 << 20, ..record() };
    let queue = open(hung.path(), &options);
    queue.os.fail_all(Call::SyncData, Fault::Hang);
    queue.append(b"x").unwrap();
    queue.os.wait_hanging(1);
    eventually("pages ahead", || queue.stats().unwrap().prefaulted_to >= 32 << 20);

    let os = FaultyOs::new(native());
    os.set_device(1);
    let busy = try_open_on(os, other.path(), &record()).unwrap();
    fill_files(&busy, 20);
    eventually("files ahead, which no writer makes by itself", || file_starts(other.path()).len() >= 22);
}

/// A writer that comes to a page that is not ready waits for that page alone; a reader whose page is gone from memory
/// wants the next ones too.
#[test]
fn nothing_is_read_ahead_of_the_writer_and_everything_of_readers() {
    let _alone = alone();
    let dir = scratch();
    let no_huge_pages = Options { flush_policy: FlushPolicy::LeastPages, flush_least_pages: u32::MAX, ..record() };
    let options = Options { file_size: 96 << 20, ..no_huge_pages.clone() };
    let megabytes = |queue: &Opened, count: usize| {
        for _ in 0..count {
            queue.append(&[1; 1 << 20]).unwrap();
        }
    };
    let ready_to = |queue: &Opened, mib: u64| {
        eventually("pages are ready", || queue.stats().unwrap().prefaulted_to >= mib << 20);
    };
    let becomes = |queue: &Opened, wanted: &[bool]| {
        eventually("the advice is", || mapped_with("rr", &queue.file(0)) == wanted);
    };
    let queue = open(dir.path(), &options);
    queue.append(b"x").unwrap();
    ready_to(&queue, 64);
    megabytes(&queue, 10);
    becomes(&queue, &[false, true]);
    queue.close().unwrap();
    let os = FaultyOs::new(native());
    os.fail_all(Call::Populate, Fault::Hang);
    let queue = try_open_on(os, dir.path(), &options).unwrap();
    assert_eq!(mapped_with("rr", &queue.file(0)), [false, true]);
    queue.os.heal();
    queue.append(b"x").unwrap();
    ready_to(&queue, 74);
    megabytes(&queue, 40);
    becomes(&queue, &[false]);

    // Where the writer has been faster, too.
    let dir = scratch();
    let queue = open(dir.path(), &Options { file_size: 4 << 20, ..no_huge_pages });
    queue.os.fail_all(Call::Populate, Fault::Hang);
    megabytes(&queue, 40);
    queue.os.wait_hanging(1);
    queue.os.heal();
    let full = queue.offsets().unwrap().committed / (4 << 20);
    let files = (0..full).map(|index| queue.file(index * (4 << 20)));
    files.for_each(|file| eventually("all of it is behind", || mapped_with("rr", &file) == [false]));
}

/// Which pages of a file the page cache holds.
fn resident(path: &std::path::Path) -> Vec<bool> {
    let file = fs::File::open(path).unwrap();
    let len = file.metadata().unwrap().len() as usize;
    let map = memmap2::MmapOptions::new().map_raw_read_only(&file).unwrap();
    let mut pages = vec![0u8; len / page() as usize];
    // SAFETY: the mapping has `len` bytes, and `pages` one byte for each of its pages.
    assert_eq!(unsafe { libc::mincore(map.as_mut_ptr().cast(), len, pages.as_mut_ptr()) }, 0);
    pages.iter().map(|page| page & 1 == 1).collect()
}

#[test]
fn pages_ahead_are_ready_before_the_writer_comes() {
    let _alone = alone();
    let dir = scratch();
    let options = Options { file_size: 64 * page(), ..record() };
    let queue = open(dir.path(), &options);
    queue.append(b"x").unwrap();
    eventually("all three files are prefaulted", || queue.stats().unwrap().prefaulted_to == 3 * options.file_size);
    eventually("the pages are there", || {
        (0..3).all(|index| resident(&queue.file(index * options.file_size)).iter().all(|&is| is))
    });
}

/// It would wait for each step, for all the pages in it.
#[test]
fn a_writer_that_comes_close_is_overtaken_and_what_is_left_out_is_its_own() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &Options { file_size: 64 << 20, ..record() });
    queue.os.fail_nth(Call::Populate, 1, Fault::Hang);
    queue.append(b"x").unwrap();
    queue.os.wait_hanging(1);
    for _ in 0..5 {
        queue.append(&[1; 1 << 20]).unwrap();
    }
    queue.os.heal();
    let pages = |mib: u64| (mib << 20) as usize / page() as usize;
    let ready = |from: u64, to: u64| resident(&queue.file(0))[pages(from)..pages(to)].iter().filter(|&&is| is).count();
    // It came 5 MiB far during a step: four times as much is its own.
    eventually("what lies behind is ready", || ready(28, 64) == pages(64 - 28));
    assert!(ready(8, 24) < pages(1), "{} pages", ready(8, 24));
    for _ in 0..55 {
        queue.append(&[1; 1 << 20]).unwrap();
    }
    assert_eq!(read_all(&queue).len(), 61);
}

#[test]
fn an_older_kernels_fall_back_populates_without_changing_content() {
    let _alone = alone();
    let dir = scratch();
    let options = Options { file_size: 64 * page(), ..record() };
    let os = FaultyOs::new(native());
    os.fail_all(Call::Populate, Fault::Errno(libc::EINVAL)); // MADV_POPULATE_WRITE is unknown before Linux 5.14
    let queue = try_open_on(os, dir.path(), &options).unwrap();
    let payloads: Vec<Vec<u8>> = (0..1000).map(|index| vec![index as u8; 700]).collect();
    for payload in &payloads {
        queue.append(payload).unwrap(); // beside the fall-back
    }
    let last = queue.offsets().unwrap().committed.next_multiple_of(options.file_size);
    eventually("two files ahead", || queue.file(last + options.file_size).exists());
    eventually("pages ahead are there", || resident(&queue.file(last)).iter().all(|&is| is));
    assert!(fs::read(queue.file(last)).unwrap().iter().all(|&byte| byte == 0));
    assert_eq!(read_all(&queue), payloads);
}

#[test]
fn what_is_prefaulted_ahead_is_bounded() {
    let _alone = alone();
    let dir = scratch();
    let bound = 64 << 20;
    let queue = open(dir.path(), &Options { file_size: 48 << 20, ..record() });
    let end = queue.append(b"x").unwrap().end;
    eventually("it has come far", || queue.stats().unwrap().prefaulted_to >= bound);
    eventually("the worker has nothing to do", || {
        let advised = queue.os.count(Call::Populate);
        thread::sleep(Duration::from_millis(20));
        queue.os.count(Call::Populate) == advised && file_starts(dir.path()).len() == 3
    });
    assert!(queue.stats().unwrap().prefaulted_to <= end + bound);
}

#[test]
fn a_crash_after_a_failed_creation_leaves_a_queue_that_opens() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    queue.os.fail_nth(Call::Allocate, 2, Fault::Errno(libc::EIO)); // the next file, once
    queue.os.fail_nth(Call::Allocate, 4, Fault::Hang); // the next attempt after the one for next-next
    queue.append(b"x").unwrap();
    queue.os.wait_hanging(1);
    let killed = as_killed_now(dir.path());
    let reopened = open(killed.path(), &record());
    assert_eq!(read_all(&reopened), [b"x"]);
    fill_files(&reopened, 3);
}

#[test]
fn a_close_that_fails_to_remove_unclaimed_files_leaves_a_queue_that_opens() {
    let _alone = alone();
    for first in [1, 2, 4, 8] {
        let dir = scratch();
        let queue = open(dir.path(), &Options { files_ahead: 8, ..record() });
        queue.append(b"x").unwrap();
        eventually("eight files ahead", || file_starts(dir.path()).len() == 9);
        for nth in first..=8 {
            queue.os.fail_nth(Call::Unlink, nth, Fault::Errno(libc::EIO));
        }
        assert_eq!(queue.close().unwrap_err().status(), Status::Io);
        let reopened = open(dir.path(), &record());
        assert_eq!(read_all(&reopened), [b"x"]);
        eventually("the left-overs are gone or used", || file_starts(dir.path()).len() <= 3);
    }
}
