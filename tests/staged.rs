//! STAGED: what is readable when, what reaches the files and how, what the pool gives and takes back.

mod support;

use mfq::os::{Call, Fault, FaultyOs, native};
use mfq::{Filler, Format, Mode, Options, Queue, Reader, Status, View, Which};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::{fs, thread};
use support::engine::*;

/// Nothing is committed unless somebody asks.
fn staged(format: Format) -> Options {
    let base = if format == Format::Raw { raw(Filler::Zero) } else { record() };
    Options { mode: Mode::Staged, commit_interval_ms: u32::MAX, ..base }
}

const FORMATS: [Format; 2] = [Format::Record, Format::Raw];

fn commit(queue: &Queue) {
    let wrote = queue.offsets().unwrap().wrote;
    queue.wait(Which::Committed, wrote, within(GENEROUS_MS)).unwrap();
}

fn next(reader: &mut Reader, queue: &Queue, ms: i32) -> mfq::Result<View> {
    reader.next(queue, within(ms), &AtomicBool::new(false))
}

fn bytes(view: &View) -> Vec<u8> {
    // SAFETY: the view holds its file, and nobody writes what is committed.
    unsafe { std::slice::from_raw_parts(view.ptr, view.len) }.to_vec()
}

fn file_bytes(path: &Path, start: u64) -> Vec<u8> {
    fs::read(path.join(format!("{start:020}"))).unwrap()
}

#[test]
fn a_record_can_be_read_once_it_is_committed() {
    let _alone = alone();
    for format in FORMATS {
        let dir = scratch();
        let queue = open(dir.path(), &staged(format));
        let span = queue.append(b"a record").unwrap();
        let offsets = queue.offsets().unwrap();
        assert_eq!((offsets.wrote, offsets.committed), (span.end, 0));
        assert_eq!(read(&queue, 0).unwrap_err().status(), Status::End);
        let mut reader = Reader::open(&queue, 0).unwrap();
        assert_eq!(next(&mut reader, &queue, 0).err().unwrap().status(), Status::End);
        assert!(file_bytes(dir.path(), 0).iter().all(|&byte| byte == 0), "it reached the file");

        commit(&queue);
        assert_eq!(queue.offsets().unwrap().committed, span.end);
        assert_eq!(read(&queue, 0).unwrap().0, b"a record");
        assert!(file_bytes(dir.path(), 0).windows(8).any(|bytes| bytes == b"a record"));
        let info = queue.positions().within(&queue.find(0).unwrap());
        assert_eq!((info.wrote, info.committed, info.flushed), (span.end, span.end, 0));
    }
}

#[test]
fn whoever_waits_for_a_record_has_it_committed() {
    let _alone = alone();
    for format in FORMATS {
        let dir = scratch();
        let queue = open(dir.path(), &staged(format));
        let mut reader = Reader::open(&queue, 0).unwrap();
        queue.append(b"one").unwrap();
        assert_eq!(bytes(&next(&mut reader, &queue, GENEROUS_MS).unwrap()), b"one");
        let two = queue.append(b"two").unwrap();
        queue.wait(Which::Committed, two.end, within(0)).unwrap();
        let three = queue.append(b"three").unwrap();
        queue.flush(three.end, within(GENEROUS_MS)).unwrap();
        let offsets = queue.offsets().unwrap();
        assert_eq!((offsets.committed, offsets.flushed), (three.end, three.end));
        assert!(queue.os.count(Call::SyncData) > 0);
        assert_eq!(queue.os.count(Call::SyncRange), 0, "no sync of a mapping");

        // One that waits already.
        thread::scope(|scope| {
            let waiting = scope.spawn(|| bytes(&next(&mut reader, &queue, GENEROUS_MS).unwrap()));
            queue.append(b"four").unwrap();
            assert!(waiting.join().unwrap().starts_with(b"two"));
        });
    }
}

#[test]
fn a_reader_that_waits_behind_padding_is_woken_by_the_record_after_it() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &staged(Format::Record));
    let first = queue.append(b"leaves a rest").unwrap();
    let claim = queue.claim(page() as usize - 16).unwrap();
    commit(&queue); // the padding too
    assert_eq!(queue.offsets().unwrap().committed, page());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut reader = Reader::open(&queue, first.end).unwrap();
            next(&mut reader, &queue, GENEROUS_MS).unwrap().offset
        });
        queue.commit(claim.id, 1).unwrap();
        assert_eq!(waiting.join().unwrap(), page());
    });
}

#[test]
fn a_close_commits_and_keeps_the_memory_of_claims() {
    let _alone = alone();
    for format in FORMATS {
        let dir = scratch();
        let queue = open(dir.path(), &staged(format));
        queue.append(b"not waited for").unwrap();
        let claim = queue.claim(100).unwrap();
        if format == Format::Record {
            queue.append(b"behind it").unwrap();
        }
        queue.begin_close();
        queue.finish_close().unwrap();
        // SAFETY: the memory is the taker's until its commit or abort, whatever became of the queue.
        unsafe { claim.ptr.write_bytes(b'x', 100) };
        mfq::release_orphan(claim.id);
        drop(queue);
        let queue = open(dir.path(), &staged(format));
        let behind: &[u8] = if format == Format::Record { b"behind it" } else { b"" };
        assert_eq!(read_all(&queue).concat(), [b"not waited for", behind].concat());
    }
}

#[test]
fn records_are_committed_at_the_interval() {
    let _alone = alone();
    for format in FORMATS {
        let dir = scratch();
        let queue = open(dir.path(), &Options { commit_interval_ms: 1, ..staged(format) });
        for _ in 0..3 {
            let span = queue.append(b"not waited for").unwrap();
            eventually("the commit", || queue.offsets().unwrap().committed == span.end);
        }
    }
}

#[test]
fn writes_that_stop_half_way_go_on() {
    let _alone = alone();
    for format in FORMATS {
        for fault in [Fault::Half, Fault::Errno(libc::EINTR)] {
            let dir = scratch();
            let queue = open(dir.path(), &staged(format));
            let data = vec![b'd'; 1000];
            let span = queue.append(&data).unwrap();
            match fault {
                Fault::Half => queue.os.fail_all(Call::WriteAt, fault),
                _ => {
                    for nth in [2, 4, 6] {
                        queue.os.fail_nth(Call::WriteAt, nth, fault);
                    }
                }
            }
            let before = queue.os.count(Call::WriteAt);
            commit(&queue);
            if fault == Fault::Half {
                assert!(queue.os.count(Call::WriteAt) > before + 9, "1000 bytes are halved ten times");
            }
            queue.os.heal();
            let image = as_killed_now(dir.path());
            let again = open(image.path(), &staged(format));
            assert_eq!(again.offsets().unwrap().committed, span.end);
            assert_eq!(read(&again, 0).unwrap().0, data);
        }
    }
}

/// And with a record to be flushed, up to this.
fn without_descriptors(path: &Path, format: Format) -> (Opened, u64) {
    let queue = open(path, &staged(format));
    let end = queue.append(b"a record").unwrap().end;
    eventually("the look-ahead is done", || queue.stats().unwrap().files_created == 3);
    queue.os.fail_all(Call::Open, Fault::Errno(libc::EMFILE));
    (queue, end)
}

#[test]
fn a_flush_without_a_descriptor_to_spare_loses_nothing_and_can_be_tried_again() {
    let _alone = alone();
    for format in FORMATS {
        let dir = scratch();
        let (queue, end) = without_descriptors(dir.path(), format);
        let refused = queue.flush(end, within(GENEROUS_MS)).unwrap_err();
        assert_eq!((refused.status(), refused.errno()), (Status::Io, libc::EMFILE));
        assert_eq!(queue.offsets().unwrap().flushed, 0);
        queue.os.heal();
        queue.flush(end, within(GENEROUS_MS)).unwrap();
        assert_eq!(queue.offsets().unwrap().flushed, end);
    }
}

#[test]
fn a_flush_in_the_background_without_a_descriptor_to_spare_comes_once_there_is_one() {
    let _alone = alone();
    for format in FORMATS {
        let dir = scratch();
        let (queue, end) = without_descriptors(dir.path(), format);
        let opens = queue.os.count(Call::Open);
        queue.flush_start(end).unwrap();
        eventually("it was tried", || queue.os.count(Call::Open) > opens);
        queue.os.heal();
        queue.wait(Which::Flushed, end, within(GENEROUS_MS)).unwrap();
    }
}

#[test]
fn a_failed_write_poisons_and_nothing_behind_it_is_readable() {
    let _alone = alone();
    for format in FORMATS {
        let dir = scratch();
        let queue = open(dir.path(), &staged(format));
        let safe = queue.append(b"safe").unwrap();
        queue.flush(safe.end, within(GENEROUS_MS)).unwrap();
        let lost = queue.append(b"lost").unwrap();
        queue.os.fail_nth(Call::WriteAt, 1, Fault::Errno(libc::EIO));
        let failed = queue.wait(Which::Committed, lost.end, within(GENEROUS_MS)).unwrap_err();
        assert_eq!((failed.status(), failed.errno()), (Status::Io, libc::EIO));

        assert_eq!(queue.append(b"later").unwrap_err().status(), Status::Poisoned);
        assert_eq!(queue.flush(lost.end, within(0)).unwrap_err().status(), Status::Poisoned);
        let waited = queue.wait(Which::Committed, lost.end, within(GENEROUS_MS));
        assert_eq!(waited.unwrap_err().status(), Status::Poisoned, "no second try");
        assert_eq!(queue.offsets().unwrap().committed, safe.end);
        assert!(read(&queue, 0).unwrap().0.starts_with(b"safe"));
        let path = queue.path.clone();
        assert_eq!(queue.close().unwrap_err().status(), Status::Poisoned);

        let queue = open(&path, &staged(format));
        assert_eq!(read(&queue, 0).unwrap().0, b"safe");
        assert_eq!(queue.append(b"again").unwrap().offset, safe.end);
    }
}

#[test]
fn appends_wait_for_a_buffer_and_ask_for_the_commit_that_frees_one() {
    let _alone = alone();
    for format in FORMATS {
        let dir = scratch();
        let queue = open(dir.path(), &Options { pool_buffers: 2, ..staged(format) });
        let filling = if format == Format::Raw { vec![b'r'; page() as usize] } else { filling() };
        for _ in 0..50 {
            queue.append(&filling).unwrap();
        }
        let stats = queue.stats().unwrap();
        assert!(stats.pool_waits > 0 && stats.pool_refusals == 0, "{stats:?}");
        commit(&queue);
        assert_eq!(queue.stats().unwrap().appends, 50);
        let mut at = 0;
        for _ in 0..50 {
            let (bytes, end) = read(&queue, at).unwrap();
            assert_eq!(bytes, filling);
            at = end;
        }
    }
}

#[test]
fn an_empty_pool_is_a_timeout_or_busy_and_is_counted() {
    let _alone = alone();
    for (fail_fast, status) in [(false, Status::Timeout), (true, Status::Busy)] {
        let dir = scratch();
        let base =
            Options { pool_buffers: 2, append_timeout_ms: 20, pool_fail_fast: fail_fast, ..staged(Format::Record) };
        let queue = open(dir.path(), &base);
        queue.os.fail_all(Call::WriteAt, Fault::Hang);
        fill_files(&queue, 2);
        let refused = queue.append(&filling()).unwrap_err();
        assert_eq!(refused.status(), status, "{refused}");
        let stats = queue.stats().unwrap();
        assert_eq!((stats.pool_waits, stats.pool_refusals, stats.pool_free), (1, 1, 0));
        assert_eq!(stats.files_created, 2, "no file without a buffer");

        queue.os.wait_hanging(1); // the commit that the append asked for
        queue.os.heal();
        eventually("a buffer", || queue.append(&filling()).is_ok());
    }
}

#[test]
fn a_close_and_a_poisoning_end_the_wait_for_a_buffer() {
    let _alone = alone();
    let dir = scratch();
    let options = Options { pool_buffers: 2, append_timeout_ms: -1, ..staged(Format::Record) };
    let queue = open(dir.path(), &options);
    queue.os.fail_all(Call::WriteAt, Fault::Hang);
    fill_files(&queue, 2);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| queue.append(&filling()).unwrap_err().status());
        eventually("the wait", || queue.stats().unwrap().pool_waits == 1);
        queue.begin_close();
        assert_eq!(waiting.join().unwrap(), Status::Closed);
    });
    queue.os.heal();
    queue.finish_close().unwrap();

    let queue = open(dir.path(), &options);
    queue.os.fail_all(Call::WriteAt, Fault::Errno(libc::EIO));
    let waited = (0..5).find_map(|_| queue.append(&filling()).err()).unwrap();
    assert_eq!(waited.status(), Status::Poisoned);
}

#[test]
fn full_files_give_their_buffers_back_and_failed_creations_keep_none() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &staged(Format::Record)); // 5 buffers, 2 files ahead
    assert_eq!(queue.stats().unwrap().pool_free, 5);
    let free_is = |free| eventually("the buffers", || queue.stats().unwrap().pool_free == free);
    fill_files(&queue, 1);
    eventually("the files ahead", || queue.stats().unwrap().files_created == 3);
    free_is(2);
    queue.os.fail_all(Call::Allocate, Fault::Errno(libc::ENOSPC));
    fill_files(&queue, 2);
    let full = queue.append(&filling()).unwrap_err();
    assert_eq!(full.status(), Status::NoSpace);
    queue.os.heal();
    fill_files(&queue, 20);
    commit(&queue);
    // The last file is full and has none; the two after it have theirs.
    free_is(3);
    assert_eq!(queue.stats().unwrap().pool_refusals, 0);
}

#[test]
fn an_open_claim_keeps_its_memory_while_files_fill_behind_it() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &staged(Format::Record));
    let claim = queue.claim(100).unwrap();
    fill_files(&queue, 3);
    let wait = queue.wait(Which::Committed, 4 * page(), within(0));
    assert_eq!(wait.unwrap_err().status(), Status::Timeout);
    // SAFETY: the claim is open.
    unsafe { claim.ptr.write_bytes(b'c', 100) };
    queue.commit(claim.id, 100).unwrap();
    commit(&queue);
    let records = read_all(&queue);
    assert_eq!((records.len(), &records[0]), (4, &vec![b'c'; 100]));
}

#[test]
fn views_stay_as_they_are_when_the_buffer_goes_back() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &staged(Format::Record));
    fill_files(&queue, 1);
    let before = queue.stats().unwrap().pool_free;
    queue.append(b"in the second file").unwrap();
    queue.wait(Which::Committed, 8, within(GENEROUS_MS)).unwrap();
    let view = queue.view(0).unwrap();
    fill_files(&queue, 6);
    commit(&queue);
    assert!(before < 5);
    assert_eq!(bytes(&view), filling());
    assert_eq!(queue.view(0).unwrap().ptr, view.ptr, "at the same address");
}

#[test]
fn no_file_is_mapped_for_writing() {
    let _alone = alone();
    for format in FORMATS {
        let dir = scratch();
        let queue = open(dir.path(), &staged(format));
        for round in 0..2 {
            fill_files(&queue, 4);
            queue.append(b"begins another").unwrap();
            commit(&queue);
            let maps = fs::read_to_string("/proc/self/maps").unwrap();
            let ours: Vec<&str> = maps.lines().filter(|line| line.contains(dir.path().to_str().unwrap())).collect();
            assert!(!ours.is_empty(), "full files are mapped, for reading");
            for line in ours {
                assert_eq!(line.split_whitespace().nth(1), Some("r--s"), "round {round}: {line}");
            }
        }
    }
}

#[test]
fn memory_that_may_not_be_locked_is_an_error_of_open() {
    let _alone = alone();
    let dir = scratch();
    let options = Options { lock_pool: true, ..staged(Format::Record) };
    let os = FaultyOs::new(native());
    os.fail_all(Call::LockMemory, Fault::Errno(libc::ENOMEM));
    for _ in 0..2 {
        let refused = try_open_on(os.clone(), dir.path(), &options).err().unwrap();
        assert_eq!((refused.status(), refused.errno()), (Status::NoMemory, libc::ENOMEM), "{refused}");
        assert!(refused.message().contains("RLIMIT_MEMLOCK"), "{refused}");
        assert_eq!(file_starts(dir.path()), []);
    }
    os.heal();
    let queue = try_open_on(os, dir.path(), &options).unwrap();
    queue.append(b"locked").unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let locked = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
    assert_ne!(locked.split_whitespace().nth(1), Some("0"), "{locked}");
    queue.os.fail_all(Call::LockMemory, Fault::Errno(libc::EPERM));
    let refused = (0..9).find_map(|_| queue.append(&filling()).err()).expect("a buffer that cannot be locked");
    assert_eq!((refused.status(), refused.errno()), (Status::NoMemory, libc::EPERM));
    queue.os.heal();
    fill_files(&queue, 3);
}

#[test]
fn a_queue_is_opened_in_one_mode_today_and_in_the_other_tomorrow() {
    let _alone = alone();
    for format in FORMATS {
        let dir = scratch();
        let mut all: Vec<u8> = Vec::new();
        for round in 0..12u8 {
            let mode = if round % 2 == 0 { Mode::Staged } else { Mode::Mmap };
            // Several pages each, so that the last one is often the middle of a file.
            let options = Options { mode, file_size: 4 * page(), ..staged(format) };
            let queue =
                if round % 3 == 2 { open(dir.path(), &options) } else { open_after_reboot(dir.path(), &options) };
            for n in 0..5usize {
                let data = vec![b'a' + round; 900 + 37 * n];
                queue.append(&data).unwrap();
                all.extend(data);
            }
            commit(&queue);
            let seen = read_all(&queue).concat();
            let kept: Vec<u8> = seen.into_iter().filter(|&byte| byte != 0).collect(); // RAW's filler is zeros
            assert!(kept == all, "round {round} of {format:?}");
            if round % 4 == 3 {
                queue.close().unwrap();
            }
        }
    }
}

#[test]
fn a_batch_is_found_in_full_or_not_at_all() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &staged(Format::Record));
    queue.append(b"before").unwrap();
    commit(&queue);
    let batch = [&b"one"[..], b"two", b"three"];
    queue.append_batch(batch.into_iter(), |_, _| {}).unwrap();
    let mut found = Vec::new();
    thread::scope(|scope| {
        // Each call of the commit is the last one before a kill.
        for nth in 1..4 {
            queue.os.fail_nth(Call::WriteAt, nth, Fault::Hang);
        }
        let committing = scope.spawn(|| commit(&queue));
        queue.os.wait_hanging(1);
        let image = as_killed_now(dir.path());
        found.push(read_all(&open(image.path(), &staged(Format::Record))).len());
        queue.os.heal();
        committing.join().unwrap();
    });
    for nth in 2..4 {
        queue.append_batch(batch.into_iter(), |_, _| {}).unwrap();
        thread::scope(|scope| {
            queue.os.fail_nth(Call::WriteAt, nth, Fault::Hang);
            let committing = scope.spawn(|| commit(&queue));
            queue.os.wait_hanging(1);
            let image = as_killed_now(dir.path());
            let again = open(image.path(), &staged(Format::Record));
            found.push(read_all(&again).len());
            again.append(b"and on").unwrap();
            queue.os.heal();
            committing.join().unwrap();
        });
    }
    assert_eq!(found, [1, 4, 7]);
}

#[test]
fn writers_and_readers_in_many_threads_see_every_record_once() {
    let _alone = alone();
    const WRITERS: usize = 4;
    const RECORDS: u32 = 3_000;
    for pool_buffers in [2, 5] {
        let dir = scratch();
        let file_size = 8 * page();
        let options = Options { file_size, pool_buffers, append_timeout_ms: -1, ..staged(Format::Record) };
        let queue = Queue::open(native(), dir.path(), &options).unwrap();
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let queue = &queue;
                scope.spawn(move || {
                    for n in 0..RECORDS {
                        let mut data = vec![writer as u8; 8 + (n % 90) as usize * 4];
                        data[4..8].copy_from_slice(&n.to_le_bytes());
                        match n % 7 {
                            0 => {
                                let claim = queue.claim(data.len()).unwrap();
                                // SAFETY: the claim is open.
                                unsafe { claim.ptr.copy_from_nonoverlapping(data.as_ptr(), data.len()) };
                                queue.commit(claim.id, data.len()).unwrap();
                            }
                            _ => drop(queue.append(&data).unwrap()),
                        }
                    }
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut reader = Reader::open(&queue, 0).unwrap();
                    let mut expected = [0u32; WRITERS];
                    while expected != [RECORDS; WRITERS] {
                        let record = bytes(&next(&mut reader, &queue, GENEROUS_MS).unwrap());
                        let n = u32::from_le_bytes(record[4..8].try_into().unwrap());
                        let expects = &mut expected[record[0] as usize];
                        assert_eq!(n, *expects);
                        assert!(
                            record.len() == 8 + (n % 90) as usize * 4 && record[8..].iter().all(|&b| b == record[0])
                        );
                        *expects += 1;
                    }
                });
            }
        });
        assert_eq!(queue.stats().unwrap().appends, u64::from(RECORDS) * WRITERS as u64);
    }
}

#[test]
fn after_a_kill_everything_committed_is_there() {
    let _alone = alone();
    for (format, test) in FORMATS.into_iter().zip(["victim_with_records", "victim_with_bytes"]) {
        let dir = scratch();
        let said = victim(test, dir.path()).kill();
        let committed: u64 = said.parse().unwrap();
        let queue = open(dir.path(), &Options { file_size: 0, ..staged(format) });
        assert_eq!(queue.offsets().unwrap().committed, committed, "what was not committed is lost");
        let all = read_all(&queue).concat();
        assert_eq!(all, [&[b'v'; 300][..]; 40].concat());
        queue.append(b"and on").unwrap();
        queue.close().unwrap();
    }
}

fn append_and_be_killed(format: Format) {
    let Some(path) = victims_directory() else { return };
    let options = Options { file_size: 16 * page(), ..staged(format) };
    let queue = Queue::open(native(), &path, &options).unwrap();
    for _ in 0..40 {
        queue.append(&[b'v'; 300]).unwrap();
    }
    commit(&queue);
    let committed = queue.offsets().unwrap().committed;
    queue.append(b"not committed").unwrap();
    queue.claim(8).unwrap();
    wait_to_be_killed(&committed.to_string());
}

#[test]
#[ignore = "run by after_a_kill_everything_committed_is_there"]
fn victim_with_records() {
    append_and_be_killed(Format::Record);
}

#[test]
#[ignore = "run by after_a_kill_everything_committed_is_there"]
fn victim_with_bytes() {
    append_and_be_killed(Format::Raw);
}

/// Kills at any moment: what was seen as committed is there, and what is there is a prefix.
#[test]
fn whenever_it_is_killed_what_was_committed_is_there() {
    let _alone = alone();
    for (format, test) in
        FORMATS.into_iter().zip(["victim_that_goes_on_with_records", "victim_that_goes_on_with_bytes"])
    {
        for cycle in 0..10 {
            let dir = scratch();
            let path = dir.path().join("queue");
            let victim = victim(test, dir.path());
            thread::sleep(std::time::Duration::from_millis(cycle * 3)); // whenever
            victim.kill();
            let seen = fs::read(dir.path().join("committed")).unwrap();
            let seen = u64::from_le_bytes(seen.try_into().unwrap());
            let queue = open(&path, &Options { file_size: 0, ..staged(format) });
            let committed = queue.offsets().unwrap().committed;
            assert!(committed >= seen, "{committed} of {seen}");
            let all = read_all(&queue).concat();
            let numbers = all.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
            let expected = (1..).flat_map(|n: u64| [n; 20]);
            let kept = numbers.filter(|&n| n != 0); // RAW's filler is zeros
            assert!(kept.clone().eq(expected.take(kept.count())), "not a prefix");
            assert!(!all.is_empty() || seen == 0);
        }
    }
}

fn append_until_killed(format: Format) {
    let Some(path) = victims_directory() else { return };
    let options = Options { file_size: 2 * page(), commit_interval_ms: 1, append_timeout_ms: -1, ..staged(format) };
    let queue = Queue::open(native(), &path.join("queue"), &options).unwrap();
    let noted = fs::File::create(path.join("committed")).unwrap();
    let note = |offset: u64| std::os::unix::fs::FileExt::write_all_at(&noted, &offset.to_le_bytes(), 0).unwrap();
    note(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1u64.. {
                queue.append(&[n.to_le_bytes(); 20].concat()).unwrap();
            }
        });
        scope.spawn(|| {
            loop {
                note(queue.offsets().unwrap().committed);
            }
        });
        wait_to_be_killed("");
    });
}

#[test]
#[ignore = "run by whenever_it_is_killed_what_was_committed_is_there"]
fn victim_that_goes_on_with_records() {
    append_until_killed(Format::Record);
}

#[test]
#[ignore = "run by whenever_it_is_killed_what_was_committed_is_there"]
fn victim_that_goes_on_with_bytes() {
    append_until_killed(Format::Raw);
}

/// Nothing is left to commit that would try it again.
#[test]
fn a_buffer_that_could_not_be_given_back_is_given_back_when_one_is_needed() {
    let _alone = alone();
    for fail_fast in [false, true] {
        let dir = scratch();
        let options = Options { pool_buffers: 2, pool_fail_fast: fail_fast, ..staged(Format::Record) };
        let queue = open(dir.path(), &options);
        for nth in [1, 2] {
            queue.os.fail_nth(Call::MapOver, nth, Fault::Errno(libc::ENOMEM));
        }
        for _file in 0..2 {
            queue.append(&filling()).unwrap();
            commit(&queue);
        }
        assert_eq!(queue.stats().unwrap().pool_free, 0);
        queue.append(&filling()).unwrap();
        assert_eq!(queue.os.count(Call::MapOver), 4);
    }
}
