//! Flushing, poisoning, the clean mark: what is called durable, and what the next open makes of it.

#[path = "support/engine.rs"]
mod support;

use mfq::os::{Call, Fault, FaultyOs, native};
use mfq::{Filler, Format, Options, Status, Which};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use support::*;

const ALL: u64 = u64::MAX;

fn flush(queue: &Opened, up_to: u64) -> mfq::Result<()> {
    queue.flush(up_to, within(GENEROUS_MS))
}

fn both() -> [Options; 2] {
    [record(), raw(Filler::Zero)]
}

/// Three of them, and not four, lie in one file.
fn third() -> Vec<u8> {
    vec![b't'; page() as usize / 3 - 24]
}

#[test]
fn a_flush_reaches_across_files_and_syncs_each_once() {
    let _alone = alone();
    for options in both() {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        let spans: Vec<_> = (0..9).map(|_| queue.append(&third()).unwrap()).collect();
        let syncs = queue.os.count(Call::SyncRange);
        assert_eq!(queue.offsets().unwrap().flushed, 0);
        flush(&queue, spans[7].end).unwrap();
        assert_eq!(queue.offsets().unwrap().flushed, spans[7].end, "as far as was asked for, and no further");
        let files = spans[7].end.div_ceil(page());
        assert_eq!(queue.os.count(Call::SyncRange), syncs + files);
        flush(&queue, spans[3].end).unwrap();
        assert_eq!(queue.os.count(Call::SyncRange), syncs + files, "it is durable already");
        flush(&queue, ALL).unwrap();
        assert_eq!(queue.os.count(Call::SyncRange), syncs + files + 1, "the range that was not, and nothing before it");
        assert_eq!(queue.offsets().unwrap().flushed, spans[8].end);
        let file = queue.find(0).unwrap();
        assert_eq!(queue.positions().within(&file).flushed, page());
    }
}

#[test]
fn a_flush_of_what_is_not_committed_ends_at_its_deadline() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    let end = queue.append(b"x").unwrap().end;
    let claim = queue.claim(10).unwrap();
    queue.append(b"y").unwrap();
    assert_eq!(queue.flush(ALL, within(10)).unwrap_err().status(), Status::Timeout);
    flush(&queue, end).unwrap();
    assert_eq!(queue.offsets().unwrap().flushed, end);
    queue.commit(claim.id, 10).unwrap();
    flush(&queue, ALL).unwrap();
    let beyond = queue.offsets().unwrap().reserved + 1;
    assert_eq!(queue.flush(beyond, within(10)).unwrap_err().status(), Status::Timeout);
    assert_eq!(queue.flush(1 << 63, within(10)).unwrap_err().status(), Status::Invalid);
}

#[test]
fn a_failed_sync_poisons_and_flushed_does_not_move() {
    let _alone = alone();
    for options in both() {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        let spans: Vec<_> = (0..6).map(|_| queue.append(&third()).unwrap()).collect();
        flush(&queue, spans[1].end).unwrap();
        queue.os.fail_nth(Call::SyncRange, 2, Fault::Errno(libc::EIO)); // of the second file
        let error = flush(&queue, ALL).unwrap_err();
        assert_eq!((error.status(), error.errno()), (Status::Io, libc::EIO));
        assert!(error.message().contains(queue.file(page()).to_str().unwrap()), "{error}");
        assert_eq!(queue.offsets().unwrap().flushed, spans[1].end);

        let syncs = queue.os.count(Call::SyncRange);
        assert_eq!(flush(&queue, ALL).unwrap_err().status(), Status::Poisoned, "a second sync would say it is fine");
        assert_eq!(queue.append(b"x").unwrap_err().status(), Status::Poisoned);
        assert_eq!(queue.claim(1).unwrap_err().status(), Status::Poisoned);
        assert_eq!(
            queue.wait(Which::Flushed, spans[5].end, within(GENEROUS_MS)).unwrap_err().status(),
            Status::Poisoned
        );
        queue.wait(Which::Flushed, spans[1].end, within(0)).unwrap();
        assert_eq!(read(&queue, 0).unwrap().0[..3], third()[..3], "what is there can be read");
        queue.begin_close();
        assert_eq!(queue.finish_close().unwrap_err().status(), Status::Poisoned);
        assert_eq!(queue.os.count(Call::SyncRange), syncs, "no sync was tried again");
        drop(queue);

        // It was not marked clean: the next open looks for the end, and calls durable what was.
        let queue = open(dir.path(), &options);
        let offsets = queue.offsets().unwrap();
        assert_eq!(offsets.committed, spans[5].end);
        assert!(offsets.flushed <= spans[1].end, "{offsets:?}");
        queue.append(b"x").unwrap();
    }
}

/// The next file's name is not durable, as the flush thread hangs, so a flush makes it durable itself.
#[test]
fn whatever_call_of_a_flush_fails_nothing_is_called_durable() {
    let _alone = alone();
    for options in both() {
        // The checkpoint, which a RAW flush writes too: nothing else could tell where its bytes end.
        let checkpoint = [Call::WriteAt, Call::SyncData].into_iter().filter(|_| options.format == Format::Raw);
        for call in [Call::SyncRange, Call::SyncDirectory].into_iter().chain(checkpoint) {
            let (stuck, dir) = (scratch(), scratch());
            let stuck = open(stuck.path(), &options);
            stuck.os.fail_nth(Call::SyncData, 1, Fault::Hang);
            stuck.append(b"x").unwrap();
            stuck.os.wait_hanging(1);
            let queue = open(dir.path(), &options);
            queue.append(b"x").unwrap();
            queue.os.fail_all(call, Fault::Errno(libc::EIO));
            let error = flush(&queue, ALL).unwrap_err();
            assert_eq!((error.status(), error.errno()), (Status::Io, libc::EIO), "{call:?}: {error}");
            assert_eq!(queue.offsets().unwrap().flushed, 0);
            queue.os.heal();
            assert_eq!(flush(&queue, ALL).unwrap_err().status(), Status::Poisoned, "{call:?}");
            assert_eq!(queue.offsets().unwrap().flushed, 0);
            stuck.os.heal();
        }
    }
}

/// The kernel may report a failed write-back to whoever syncs first: here to the flush thread.
#[test]
fn a_sync_that_failed_in_the_background_poisons_the_queue_at_once() {
    let _alone = alone();
    for options in both() {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        queue.os.fail_all(Call::SyncData, Fault::Hang);
        queue.os.fail_all(Call::SyncData, Fault::Errno(libc::EIO));
        let end = queue.append(b"precious").unwrap().end;
        queue.os.let_go();
        let waited = queue.wait(Which::Flushed, end, within(GENEROUS_MS));
        assert_eq!(waited.unwrap_err().status(), Status::Poisoned, "nobody has to flush to be told");
        queue.os.heal();
        assert_eq!(flush(&queue, ALL).unwrap_err().status(), Status::Poisoned);
        assert_eq!(queue.offsets().unwrap().flushed, 0);
        assert_eq!(queue.append(b"x").unwrap_err().status(), Status::Poisoned);
        assert_eq!(queue.close().unwrap_err().status(), Status::Poisoned);
        assert!(read(&open(dir.path(), &options), 0).unwrap().0.starts_with(b"precious"));
    }
}

/// After a failed sync the kernel takes the pages for clean, so another sync would write nothing: they have to be dirty
/// again before the queue that is opened next can call them durable.
#[test]
fn what_a_poisoned_queue_could_not_write_is_made_dirty_again_by_the_next_open() {
    let _alone = alone();
    for options in both() {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        let end = fill_files(&queue, 2)[1].end;
        queue.os.fail_all(Call::SyncRange, Fault::Errno(libc::EIO));
        assert_eq!(flush(&queue, ALL).unwrap_err().status(), Status::Io);
        assert_eq!(queue.close().unwrap_err().status(), Status::Poisoned);
        // There are no files ahead of the writer to be readied; the rest of the last one may be.
        let os = FaultyOs::new(native());
        os.fail_all(Call::Allocate, Fault::Errno(libc::ENOSPC));
        let queue = try_open_on(os, dir.path(), &options).unwrap();
        assert!(queue.os.count(Call::Populate) >= 2, "both files are populated for writing");
        flush(&queue, end).unwrap();
        assert_eq!(queue.offsets().unwrap().flushed, end);
    }
}

#[test]
fn a_waiter_for_flushed_comes_out_when_it_moves() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    let end = queue.append(b"x").unwrap().end;
    assert_eq!(queue.wait(Which::Flushed, end, within(5)).unwrap_err().status(), Status::Timeout);
    queue.os.fail_nth(Call::SyncRange, 1, Fault::Hang);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| queue.wait(Which::Flushed, end, within(GENEROUS_MS)));
        let flusher = scope.spawn(|| flush(&queue, ALL));
        queue.os.wait_hanging(1);
        assert!(!waiter.is_finished());
        assert_eq!(queue.flush(ALL, within(5)).unwrap_err().status(), Status::Timeout, "another one syncs");
        queue.os.heal();
        flusher.join().unwrap().unwrap();
        waiter.join().unwrap().unwrap();
    });
}

#[test]
fn a_waiter_for_flushed_comes_out_when_the_queue_is_poisoned() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    let end = queue.append(b"x").unwrap().end;
    queue.os.fail_all(Call::SyncRange, Fault::Errno(libc::EIO));
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| queue.wait(Which::Flushed, end, within(-1)));
        assert_eq!(flush(&queue, ALL).unwrap_err().status(), Status::Io);
        assert_eq!(waiter.join().unwrap().unwrap_err().status(), Status::Poisoned);
    });
}

#[test]
fn a_queue_closed_cleanly_opens_after_a_reboot_and_reads_no_data() {
    let _alone = alone();
    for options in [record(), raw(Filler::Zero), raw(Filler::RocketMq)] {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        let spans: Vec<_> = (0..4).map(|_| queue.append(&third()).unwrap()).collect();
        queue.close().unwrap();
        // A scan would find this, and in RAW the last byte that is not zero.
        damage(dir.path(), &options, spans[3].offset);

        let queue = open_after_reboot(dir.path(), &options);
        let offsets = queue.offsets().unwrap();
        assert_eq!((offsets.committed, offsets.flushed), (spans[3].end, spans[3].end));
        assert_eq!(read(&queue, 0).unwrap().0[..3], third()[..3]);
        if options.format == Format::Record {
            assert_eq!(read(&queue, spans[3].offset).unwrap_err().status(), Status::Corrupt, "found when it is read");
        }
    }
}

/// Spoils the record at `offset`: its payload in RECORD, all of it in RAW.
fn damage(dir: &Path, options: &Options, offset: u64) {
    let start = offset - offset % page();
    let path = dir.join(format!("{start:020}"));
    let mut bytes = fs::read(&path).unwrap();
    let at = (offset - start) as usize;
    match options.format {
        Format::Record => bytes[at + 20] ^= 1,
        Format::Raw => bytes[at..].fill(0),
    }
    fs::write(&path, bytes).unwrap();
}

#[test]
fn the_clean_mark_is_taken_back_before_the_first_append() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    queue.append(b"before").unwrap();
    queue.close().unwrap();
    let queue = open(dir.path(), &record());
    // Nothing was appended yet, and still a kill now leaves a queue that is scanned: here it finds damage, which lies
    // below what was durable.
    let killed = as_killed_now(dir.path());
    damage(killed.path(), &record(), 0);
    let error = refused(killed.path(), &record());
    assert_eq!(error.status(), Status::Corrupt);
    assert!(error.message().contains(&format!("{:020}", 0)) && error.message().contains("offset 0"), "{error}");
    queue.append(b"after").unwrap();
    let killed = as_killed_now(dir.path());
    assert_eq!(read_all(&open(killed.path(), &record())), [b"before".to_vec(), b"after".to_vec()]);
}

#[test]
fn damage_above_what_was_durable_is_cut_off_and_zeroed() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    let spans: Vec<_> = (0..6).map(|_| queue.append(&third()).unwrap()).collect();
    let killed = as_killed_now(dir.path());
    damage(killed.path(), &record(), spans[4].offset);
    let reopened = open(killed.path(), &record());
    assert_eq!(reopened.offsets().unwrap().committed, spans[4].offset);
    assert_eq!(read_all(&reopened).len(), 4);
    let bytes = fs::read(reopened.file(page())).unwrap();
    assert!(bytes[(spans[4].offset - page()) as usize..].iter().all(|&byte| byte == 0), "nothing old can come back");
    assert_eq!(reopened.append(b"x").unwrap().offset, spans[4].offset);
}

#[test]
fn what_recovery_cut_off_is_synced_although_a_crash_came_between() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &Options { file_size: 16 * page(), ..record() });
    let spans: Vec<_> = (0..6).map(|_| queue.append(&third()).unwrap()).collect();
    let cut = as_killed_now(dir.path());
    let mut bytes = fs::read(cut.path().join(format!("{:020}", 0))).unwrap();
    bytes[spans[1].offset as usize..][..16].fill(0); // this page was lost, and those behind were not
    fs::write(cut.path().join(format!("{:020}", 0)), bytes).unwrap();
    let os = FaultyOs::new(native());
    os.set_boot_id(*b"after the reboot");
    os.fail_all(Call::SyncRange, Fault::Panic); // right behind the zeroing
    catch_unwind(AssertUnwindSafe(|| try_open_on(os.clone(), cut.path(), &Options::default()))).map(drop).unwrap_err();
    os.heal();
    let syncs = os.count(Call::SyncRange);
    let queue = try_open_on(os, cut.path(), &Options::default()).unwrap();
    assert_eq!(queue.offsets().unwrap().committed, spans[1].offset);
    assert!(queue.os.count(Call::SyncRange) > syncs, "only the page cache has the zeros");
}

/// The records that a queue holds, or, in RAW, its bytes.
fn content(queue: &Opened) -> Vec<u8> {
    read_all(queue).concat()
}

#[test]
fn a_recovery_that_ends_at_any_of_its_calls_can_be_repeated() {
    let _alone = alone();
    for options in [record(), raw(Filler::Zero), raw(Filler::RocketMq)] {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        for index in 0..14u8 {
            queue.append(&vec![index + 1; 700 + usize::from(index) * 8]).unwrap();
        }
        let claim = (options.format == Format::Record).then(|| queue.claim(100).unwrap());
        if claim.is_some() {
            queue.append(b"behind an open claim").unwrap();
        }
        let killed = as_killed_now(dir.path());
        let expected = content(&open(as_killed_now(dir.path()).path(), &options));
        let mut failed = 0;
        for call in Call::ALL {
            for fault in [Fault::Panic, Fault::Errno(libc::EIO)] {
                for nth in 1.. {
                    let again = as_killed_now(killed.path());
                    let os = FaultyOs::new(native());
                    os.fail_nth(call, nth, fault);
                    let opened = catch_unwind(AssertUnwindSafe(|| try_open_on(os.clone(), again.path(), &options)));
                    let hit = os.count(call) >= nth;
                    drop(opened);
                    if !hit {
                        break;
                    }
                    failed += 1;
                    let queue = open(again.path(), &options);
                    assert_eq!(content(&queue), expected, "{call:?} {nth} {fault:?}");
                    queue.append(b"more").unwrap();
                }
            }
        }
        assert!(failed > 30, "{failed} calls of a recovery failed");
    }
}

#[test]
fn a_torn_checkpoint_spares_the_one_before() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    queue.append(b"x").unwrap();
    queue.close().unwrap();
    let path = dir.path().join(".mfq/checkpoint");
    let whole = fs::read(&path).unwrap();
    for slot in [0, 4096] {
        let mut torn = whole.clone();
        torn[slot + 8] ^= 0xff;
        fs::write(&path, &torn).unwrap();
        let queue = open(dir.path(), &record());
        assert_eq!(read_all(&queue), [b"x"]);
        drop(queue); // closes, and writes both slots in turn
    }
}

#[test]
fn a_close_that_cannot_sync_says_so_and_lets_the_lock_go() {
    let _alone = alone();
    for call in [Call::SyncRange, Call::WriteAt] {
        for options in both() {
            let dir = scratch();
            let queue = open(dir.path(), &options);
            queue.append(b"x").unwrap();
            eventually("the look-ahead is done", || queue.stats().unwrap().files_created == 3);
            queue.os.fail_all(call, Fault::Errno(libc::EIO));
            queue.begin_close();
            let error = queue.finish_close().unwrap_err();
            assert_eq!((error.status(), error.errno()), (Status::Io, libc::EIO), "{call:?}");
            let reopened = open(dir.path(), &options);
            assert!(read(&reopened, 0).unwrap().0.starts_with(b"x"));
            drop(queue);
        }
    }
}
