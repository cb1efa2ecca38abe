//! Many threads, few syncs: syncs that are shared, flushes that are started, appends that return durable.

#[path = "support/engine.rs"]
mod support;

use mfq::os::{Call, Fault, FaultyOs, native};
use mfq::{Filler, FlushPolicy, Options, Status, Which};
use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Mutex;
use std::thread::{self, Scope, ScopedJoinHandle};
use support::*;

const ALL: u64 = u64::MAX;
const THREADS: usize = 16;

/// Files large enough that nothing rolls.
fn roomy(options: Options) -> Options {
    Options { file_size: 256 * page(), ..options }
}

fn both() -> [Options; 2] {
    [roomy(record()), roomy(raw(Filler::Zero))]
}

fn every_append(options: Options) -> Options {
    Options { flush_policy: FlushPolicy::EveryAppend, ..options }
}

/// What mfq_append does.
fn append_durably(queue: &Opened, data: &[u8]) -> mfq::Result<u64> {
    let end = queue.append(data)?.end;
    queue.secure(end).map(|()| end)
}

fn flushed(queue: &Opened) -> u64 {
    queue.offsets().unwrap().flushed
}

/// Threads that are to come to a halt inside the library.
#[derive(Default)]
struct Sleepers(Mutex<Vec<i32>>);

impl Sleepers {
    fn spawn<'s, T: Send + 's>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        body: impl FnOnce() -> T + Send + 's,
    ) -> ScopedJoinHandle<'s, T> {
        scope.spawn(|| {
            // SAFETY: takes nothing.
            self.0.lock().unwrap().push(unsafe { libc::gettid() });
            body()
        })
    }

    fn wait_asleep(&self, threads: usize) {
        eventually("all sleep", || {
            let known = self.0.lock().unwrap();
            known.len() == threads && known.iter().all(|thread| is_asleep(*thread))
        });
    }
}

fn is_asleep(thread: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|state| state.starts_with('S'))
}

fn flush_threads() -> usize {
    let comm = |entry: std::io::Result<fs::DirEntry>| fs::read_to_string(entry.ok()?.path().join("comm")).ok();
    fs::read_dir("/proc/self/task").unwrap().filter_map(comm).filter(|name| name.trim() == "mfq-flush").count()
}

#[test]
fn all_who_come_during_a_sync_share_the_next_one() {
    let _alone = alone();
    for options in both() {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        queue.append(b"the first").unwrap();
        let syncs = queue.os.count(Call::SyncRange);
        queue.os.fail_nth(Call::SyncRange, 1, Fault::Hang);
        let sleepers = Sleepers::default();
        thread::scope(|scope| {
            scope.spawn(|| queue.flush(ALL, within(GENEROUS_MS)).unwrap());
            queue.os.wait_hanging(1);
            for _ in 0..THREADS {
                sleepers.spawn(scope, || {
                    let end = queue.append(b"one of many").unwrap().end;
                    queue.flush(end, within(GENEROUS_MS)).unwrap();
                    assert!(flushed(&queue) >= end);
                });
            }
            sleepers.wait_asleep(THREADS);
            assert_eq!(flushed(&queue), 0);
            queue.os.heal();
        });
        assert_eq!(queue.os.count(Call::SyncRange), syncs + 2, "theirs, and the one that hung");
        assert_eq!(flushed(&queue), queue.offsets().unwrap().committed);
    }
}

#[test]
fn a_sync_that_fails_or_panics_brings_out_all_who_wait_and_none_of_them_tries_again() {
    let _alone = alone();
    for fault in [Fault::Errno(libc::EIO), Fault::Panic] {
        let dir = scratch();
        let queue = open(dir.path(), &roomy(record()));
        queue.append(b"the first").unwrap();
        let syncs = queue.os.count(Call::SyncRange);
        queue.os.fail_nth(Call::SyncRange, 1, Fault::Hang);
        queue.os.fail_nth(Call::SyncRange, 2, fault);
        let sleepers = Sleepers::default();
        thread::scope(|scope| {
            scope.spawn(|| queue.flush(ALL, within(GENEROUS_MS)).unwrap());
            queue.os.wait_hanging(1);
            let flushers: Vec<_> = (0..THREADS)
                .map(|_| {
                    sleepers.spawn(scope, || {
                        let end = queue.append(b"one of many").unwrap().end;
                        queue.flush(end, within(-1)).unwrap_err().status()
                    })
                })
                .collect();
            sleepers.wait_asleep(THREADS);
            queue.os.let_go();
            let ends: Vec<_> = flushers.into_iter().map(|flusher| flusher.join()).collect();
            let poisoned = ends.iter().filter(|end| matches!(end, Ok(Status::Poisoned))).count();
            assert_eq!(poisoned, THREADS - 1, "the leader is told what happened: {ends:?}");
        });
        assert_eq!(queue.os.count(Call::SyncRange), syncs + 2);
        assert!(flushed(&queue) < queue.offsets().unwrap().committed);
    }
}

#[test]
fn who_runs_out_of_time_goes_and_the_others_are_served() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &roomy(record()));
    queue.append(b"the first").unwrap();
    queue.os.fail_nth(Call::SyncRange, 1, Fault::Hang);
    let (patient, hasty) = (Sleepers::default(), Sleepers::default());
    thread::scope(|scope| {
        scope.spawn(|| queue.flush(ALL, within(GENEROUS_MS)).unwrap());
        queue.os.wait_hanging(1);
        let end = queue.append(b"more").unwrap().end;
        let queue = &queue;
        for _ in 0..THREADS {
            patient.spawn(scope, move || queue.flush(end, within(GENEROUS_MS)).unwrap());
        }
        patient.wait_asleep(THREADS);
        let late = hasty.spawn(scope, move || queue.flush(end, within(1)).unwrap_err().status());
        assert_eq!(late.join().unwrap(), Status::Timeout);
        assert_eq!(queue.flush(end, within(0)).unwrap_err().status(), Status::Timeout);
        queue.os.heal();
    });
}

#[test]
fn an_append_under_every_append_returns_durable_by_one_sync_of_its_own_bytes() {
    let _alone = alone();
    for options in both() {
        let dir = scratch();
        let queue = open(dir.path(), &every_append(options));
        append_durably(&queue, b"the first one makes the file's name durable").unwrap();
        let writes = queue.os.count(Call::WriteAt);
        for _ in 0..10 {
            let before = queue.offsets().unwrap().committed;
            let syncs = queue.os.synced_ranges().len();
            let end = append_durably(&queue, &[b'x'; 1000]).unwrap();
            assert_eq!(flushed(&queue), end);
            let ranges = queue.os.synced_ranges().split_off(syncs);
            assert_eq!(ranges, [(before as usize, (end - before) as usize)], "what was appended, and nothing ahead");
        }
        // In RAW without a walker nothing else tells after a power cut where the bytes end.
        let checkpoints = if options_are_raw(&queue) { 10 } else { 0 };
        assert_eq!(queue.os.count(Call::WriteAt), writes + checkpoints);
    }
}

fn options_are_raw(queue: &Opened) -> bool {
    queue.append(b"").is_err() // RAW has no empty records
}

#[test]
fn appends_of_many_threads_share_syncs() {
    let _alone = alone();
    for options in both() {
        let dir = scratch();
        let queue = open(dir.path(), &every_append(options));
        append_durably(&queue, b"the first").unwrap();
        let syncs = queue.os.count(Call::SyncRange);
        queue.os.fail_nth(Call::SyncRange, 1, Fault::Hang);
        let sleepers = Sleepers::default();
        thread::scope(|scope| {
            scope.spawn(|| append_durably(&queue, b"it hangs").unwrap());
            queue.os.wait_hanging(1);
            for _ in 0..THREADS {
                sleepers.spawn(scope, || assert!(append_durably(&queue, b"one of many").unwrap() <= flushed(&queue)));
            }
            sleepers.wait_asleep(THREADS);
            queue.os.heal();
        });
        assert_eq!(queue.os.count(Call::SyncRange), syncs + 2);
    }
}

#[test]
fn a_sync_that_does_not_come_in_time_is_not_durable_and_the_record_is_there() {
    let _alone = alone();
    let dir = scratch();
    let options = Options { append_timeout_ms: 10, ..every_append(roomy(record())) };
    let queue = open(dir.path(), &options);
    queue.get_last(within(GENEROUS_MS)).unwrap(); // which an append waits for no longer than for a sync
    append_durably(&queue, b"the first").unwrap();
    queue.os.fail_nth(Call::SyncRange, 1, Fault::Hang);
    thread::scope(|scope| {
        scope.spawn(|| append_durably(&queue, b"it leads, and may overrun").unwrap());
        queue.os.wait_hanging(1);
        let span = queue.append(b"placed").unwrap();
        assert_eq!(queue.secure(span.end).unwrap_err().status(), Status::NotDurable);
        assert_eq!(read(&queue, span.offset).unwrap().0, b"placed");
        assert!(flushed(&queue) < span.end);
        queue.os.heal();
        queue.flush(ALL, within(GENEROUS_MS)).unwrap();
        assert!(flushed(&queue) >= span.end, "it can become durable later");
    });
}

#[test]
fn a_sync_that_fails_is_not_durable_and_what_comes_after_it_is_refused() {
    let _alone = alone();
    for options in both() {
        let dir = scratch();
        let queue = open(dir.path(), &every_append(options));
        append_durably(&queue, b"the first").unwrap();
        let before = flushed(&queue);
        queue.os.fail_all(Call::SyncRange, Fault::Errno(libc::EIO));
        let span = queue.append(b"placed").unwrap();
        let error = queue.secure(span.end).unwrap_err();
        assert_eq!((error.status(), error.errno()), (Status::NotDurable, libc::EIO), "{error}");
        assert!(read(&queue, span.offset).unwrap().0.starts_with(b"placed"));
        assert_eq!(flushed(&queue), before);
        assert_eq!(queue.append(b"x").unwrap_err().status(), Status::Poisoned);
        assert_eq!(queue.flush_start(ALL).unwrap_err().status(), Status::Poisoned);
        assert_eq!(queue.close().unwrap_err().status(), Status::Poisoned);
    }
}

/// Whether a descriptor is readable within so long; poll(2) as a host calls it.
fn readable(fd: RawFd, timeout_ms: i32) -> bool {
    let mut polled = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure, ours.
    let ready = unsafe { libc::poll(&mut polled, 1, timeout_ms) };
    ready == 1 && polled.revents & libc::POLLIN != 0
}

/// A descriptor of the same event that the queue does not close.
fn dup(fd: RawFd) -> OwnedFd {
    // SAFETY: it is open as long as its queue.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().unwrap()
}

fn drain(fd: &OwnedFd) {
    let mut count = [0; 8];
    fs::File::from(fd.try_clone().unwrap()).read_exact(&mut count).unwrap();
    assert_ne!(count, [0; 8]);
}

#[test]
fn a_started_flush_returns_at_once_and_the_event_descriptor_tells_its_end() {
    let _alone = alone();
    for options in both() {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        let fd = queue.event_fd().unwrap();
        assert_eq!(queue.event_fd().unwrap(), fd, "one for all");
        // SAFETY: takes integers only.
        let flags = unsafe { (libc::fcntl(fd, libc::F_GETFL) & libc::O_NONBLOCK, libc::fcntl(fd, libc::F_GETFD)) };
        assert_eq!(flags, (libc::O_NONBLOCK, libc::FD_CLOEXEC));
        let ours = dup(fd);
        for round in 0..3 {
            let end = queue.append(b"x").unwrap().end;
            assert!(!readable(fd, 0), "an append is no event");
            queue.os.fail_nth(Call::SyncRange, 1, Fault::Hang);
            queue.flush_start(if round == 0 { ALL } else { end }).unwrap();
            queue.os.wait_hanging(1);
            assert!(!readable(fd, 0));
            queue.os.heal();
            assert!(readable(ours.as_raw_fd(), GENEROUS_MS));
            drain(&ours);
            assert_eq!(flushed(&queue), end);
            assert!(!readable(fd, 0), "until it moves again");
            queue.flush_start(end).unwrap(); // there is nothing to do
        }
        assert_eq!(queue.flush_start(1 << 63).unwrap_err().status(), Status::Invalid);
        queue.close().unwrap();
        assert!(readable(ours.as_raw_fd(), 0), "a close is an event");
        // SAFETY: takes integers only.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_GETFD) }, -1, "the queue's own is closed");
    }
}

#[test]
fn a_truncation_that_moves_flushed_back_is_an_event() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    queue.append(b"durable, and then cut off").unwrap();
    queue.flush(u64::MAX, within(GENEROUS_MS)).unwrap();
    let fd = dup(queue.event_fd().unwrap());
    assert!(!readable(fd.as_raw_fd(), 0));
    queue.truncate_after(0).unwrap();
    assert!(readable(fd.as_raw_fd(), 0));
    assert_eq!(flushed(&queue), 0);
}

#[test]
fn a_started_flush_that_fails_is_an_event() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &roomy(record()));
    let end = queue.append(b"x").unwrap().end;
    let fd = queue.event_fd().unwrap();
    queue.os.fail_all(Call::SyncRange, Fault::Errno(libc::EIO));
    queue.flush_start(ALL).unwrap();
    assert!(readable(fd, GENEROUS_MS));
    assert_eq!(queue.wait(Which::Flushed, end, within(0)).unwrap_err().status(), Status::Poisoned);
    assert_eq!(flushed(&queue), 0);

    let dir = scratch();
    let poisoned_before = open(dir.path(), &roomy(record()));
    poisoned_before.append(b"x").unwrap();
    poisoned_before.os.fail_all(Call::SyncRange, Fault::Errno(libc::EIO));
    poisoned_before.flush(ALL, within(GENEROUS_MS)).unwrap_err();
    assert!(readable(poisoned_before.event_fd().unwrap(), 0), "who asks late is told too");
}

#[test]
fn a_started_flush_follows_what_is_not_committed_yet() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &roomy(record()));
    let before = queue.append(b"before").unwrap().end;
    let claim = queue.claim(10).unwrap();
    let end = queue.append(b"behind").unwrap().end;
    queue.flush_start(ALL).unwrap();
    queue.wait(Which::Flushed, before, within(GENEROUS_MS)).unwrap();
    assert_eq!(flushed(&queue), before);
    queue.commit(claim.id, 10).unwrap();
    queue.wait(Which::Flushed, end, within(GENEROUS_MS)).unwrap();
}

#[test]
fn a_device_that_hangs_holds_up_its_own_queues_only() {
    let _alone = alone();
    let dirs = [scratch(), scratch(), scratch()];
    let on_device = |index: usize, device| {
        let os = FaultyOs::new(native());
        os.set_device(device);
        let queue = try_open_on(os, dirs[index].path(), &roomy(record())).unwrap();
        queue.append(b"x").unwrap();
        queue
    };
    let idle = scratch();
    let idle = open(idle.path(), &record());
    assert_eq!(flush_threads(), 0, "nobody has needed one");
    idle.close().unwrap();
    let (hanging, beside, elsewhere) = (on_device(0, 1), on_device(1, 1), on_device(2, 2));
    hanging.os.fail_nth(Call::SyncRange, 1, Fault::Hang);
    hanging.flush_start(ALL).unwrap();
    hanging.os.wait_hanging(1);
    for queue in [&beside, &elsewhere] {
        queue.flush_start(ALL).unwrap();
    }
    elsewhere.wait(Which::Flushed, 1, within(GENEROUS_MS)).unwrap();
    assert_eq!(flushed(&beside), 0);
    assert_eq!(flush_threads(), 2, "one for each device");
    hanging.os.heal();
    for queue in [&hanging, &beside] {
        queue.wait(Which::Flushed, 1, within(GENEROUS_MS)).unwrap();
    }
    hanging.close().unwrap();
    elsewhere.close().unwrap();
    eventually("the last queue of a device takes its thread along", || flush_threads() == 1);
    beside.close().unwrap();
    eventually("the last one", || flush_threads() == 0);
}

#[test]
fn a_panic_of_the_flush_thread_poisons_its_queue_and_no_other() {
    let _alone = alone();
    let (first, second) = (scratch(), scratch());
    let (broken, sound) = (open(first.path(), &roomy(record())), open(second.path(), &roomy(record())));
    for queue in [&broken, &sound] {
        queue.append(b"x").unwrap();
    }
    broken.os.fail_all(Call::SyncRange, Fault::Panic);
    broken.flush_start(ALL).unwrap();
    assert_eq!(broken.wait(Which::Flushed, 1, within(GENEROUS_MS)).unwrap_err().status(), Status::Poisoned);
    sound.flush_start(ALL).unwrap();
    sound.wait(Which::Flushed, 1, within(GENEROUS_MS)).unwrap();
    assert_eq!(broken.close().unwrap_err().status(), Status::Poisoned);
}

#[test]
fn a_close_waits_for_the_flush_threads_work_on_its_queue() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &roomy(record()));
    queue.append(b"x").unwrap();
    queue.os.fail_nth(Call::SyncRange, 1, Fault::Hang);
    queue.flush_start(ALL).unwrap();
    queue.os.wait_hanging(1);
    let closer = Sleepers::default();
    thread::scope(|scope| {
        let closed = closer.spawn(scope, || {
            queue.begin_close();
            queue.finish_close()
        });
        closer.wait_asleep(1);
        assert_eq!(refused(dir.path(), &roomy(record())).status(), Status::Locked);
        queue.os.heal();
        closed.join().unwrap().unwrap();
    });
    assert_eq!(queue.os.synced_ranges().len(), 1, "what it has synced the close need not");
}
