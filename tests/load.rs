//! What makes a directory a queue: names, lengths, gaps, left-overs; where a queue begins; which file holds an offset.

#[path = "support/engine.rs"]
mod support;

use mfq::os::{Call, Fault};
use mfq::{Error, Filler, Format, Options, Status};
use std::path::{Path, PathBuf};
use std::{fs, os};
use support::*;

fn name(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{start:020}"))
}

/// A queue of so many full files and one begun, closed.
fn closed_queue(options: &Options, full: usize) -> tempfile::TempDir {
    let dir = scratch();
    let queue = open(dir.path(), options);
    let overhead = if options.format == Format::Raw { 8 } else { 16 };
    let payload = vec![b'p'; page() as usize - overhead];
    for _ in 0..full {
        queue.append(&payload).unwrap();
    }
    queue.append(b"the last one").unwrap();
    queue.close().unwrap();
    dir
}

/// The open is refused, says so about this file, and has changed nothing.
fn is_refused(dir: &Path, options: &Options, status: Status, names: &[&Path]) -> Error {
    let before = snapshot(dir);
    let error = refused(dir, options);
    assert_eq!(error.status(), status, "{error}");
    for name in names {
        assert!(error.message().contains(name.to_str().unwrap()), "{error}");
    }
    assert_eq!(snapshot(dir), before, "{error}");
    let read_only = refused(dir, &Options { read_only: true, ..options.clone() });
    assert_eq!(read_only.status(), status, "{read_only}");
    assert_eq!(snapshot(dir), before, "{read_only}");
    error
}

#[test]
fn files_are_named_by_their_offset_in_twenty_digits() {
    let _alone = alone();
    let dir = closed_queue(&record(), 2);
    assert_eq!(file_starts(dir.path()), [0, page(), 2 * page()]);
    for start in file_starts(dir.path()) {
        assert_eq!(fs::metadata(name(dir.path(), start)).unwrap().len(), page());
    }
}

#[test]
fn directories_are_passed_over() {
    let _alone = alone();
    for options in [record(), raw(Filler::RocketMq)] {
        let dir = closed_queue(&options, 1);
        for directory in ["lost+found", "00000000000000999424", "\u{fc}"] {
            fs::create_dir(dir.path().join(directory)).unwrap();
        }
        let queue = open(dir.path(), &options);
        let offsets = queue.offsets().unwrap();
        queue.append(b"y").unwrap();
        assert!(read(&queue, offsets.committed).unwrap().0.starts_with(b"y"));
        queue.close().unwrap();
        assert!(dir.path().join("lost+found").is_dir());
    }
}

#[test]
fn a_zero_length_last_file_is_removed() {
    let _alone = alone();
    for options in [record(), raw(Filler::RocketMq)] {
        let dir = closed_queue(&options, 1);
        let empty = name(dir.path(), 2 * page());
        fs::write(&empty, b"").unwrap();
        // Reading changes nothing, not even this.
        open(dir.path(), &Options { read_only: true, ..options.clone() }).close().unwrap();
        assert!(empty.exists());
        let queue = open(dir.path(), &options);
        assert!(!empty.exists());
        queue.close().unwrap();
    }
}

#[test]
fn a_zero_length_file_that_held_data_is_corrupt() {
    let _alone = alone();
    for options in [record(), raw(Filler::Zero)] {
        let dir = closed_queue(&options, 1);
        fs::OpenOptions::new().write(true).open(name(dir.path(), page())).unwrap().set_len(0).unwrap();
        is_refused(dir.path(), &options, Status::Corrupt, &[dir.path()]);
        let dir = closed_queue(&options, 2);
        fs::OpenOptions::new().write(true).open(name(dir.path(), page())).unwrap().set_len(0).unwrap();
        is_refused(dir.path(), &options, Status::Corrupt, &[&name(dir.path(), page())]);
    }
}

#[test]
fn another_length_is_corrupt_and_names_the_file() {
    let _alone = alone();
    for options in [record(), raw(Filler::Zero)] {
        for (start, len) in [(0, page() - 1), (page(), 1), (2 * page(), page() + 1), (2 * page(), 2 * page())] {
            let dir = closed_queue(&options, 2);
            let file = name(dir.path(), start);
            fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(len).unwrap();
            is_refused(dir.path(), &options, Status::Corrupt, &[&file]);
        }
    }
}

#[test]
fn a_name_that_is_no_offset_is_corrupt_and_named() {
    let _alone = alone();
    let strange = [
        "readme",
        "0",
        "000000000000000040960",
        "0000000000000000409x",
        "-0000000000000004096",
        "99999999999999999999",
        "09223372036854775808",
        "00000000000000000000.bak",
    ];
    for strange in strange {
        let dir = closed_queue(&record(), 1);
        let file = dir.path().join(strange);
        fs::write(&file, b"").unwrap();
        is_refused(dir.path(), &record(), Status::Corrupt, &[&file]);
    }
    let dir = closed_queue(&record(), 1);
    let odd = name(dir.path(), 2 * page() + 8);
    fs::write(&odd, vec![0; page() as usize]).unwrap();
    is_refused(dir.path(), &record(), Status::Corrupt, &[&odd]);
}

#[test]
fn what_is_neither_file_nor_directory_is_corrupt_and_not_followed() {
    let _alone = alone();
    let dir = closed_queue(&record(), 1);
    let elsewhere = scratch();
    let target = elsewhere.path().join("target");
    fs::write(&target, vec![0; page() as usize]).unwrap();
    let link = name(dir.path(), 2 * page());
    os::unix::fs::symlink(&target, &link).unwrap();
    is_refused(dir.path(), &record(), Status::Corrupt, &[&link]);
    fs::remove_file(&link).unwrap();
    let fifo = std::ffi::CString::new(link.to_str().unwrap()).unwrap();
    // SAFETY: a NUL-terminated string.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    is_refused(dir.path(), &record(), Status::Corrupt, &[&link]);
}

#[test]
fn a_private_file_that_is_something_else_is_refused_and_not_followed() {
    let _alone = alone();
    let elsewhere = scratch();
    for private in ["meta", "checkpoint", "tail", "lock"] {
        for kind in ["link", "fifo", "directory"] {
            let dir = closed_queue(&record(), 1);
            let path = dir.path().join(".mfq").join(private);
            let target = elsewhere.path().join(format!("{private} {kind}"));
            fs::rename(&path, &target).unwrap();
            let before = fs::read(&target).unwrap();
            let at = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
            match kind {
                "link" => os::unix::fs::symlink(&target, &path).unwrap(),
                // SAFETY: a NUL-terminated string.
                "fifo" => assert_eq!(unsafe { libc::mkfifo(at.as_ptr(), 0o600) }, 0),
                _ => fs::create_dir(&path).unwrap(),
            }
            let error = refused(dir.path(), &record());
            assert!(error.message().contains(path.to_str().unwrap()), "{private} is a {kind}: {error}");
            assert_eq!(fs::read(&target).unwrap(), before, "{private} is a {kind}");
        }
    }
}

#[test]
fn a_gap_names_the_files_on_both_sides() {
    let _alone = alone();
    for options in [record(), raw(Filler::Zero)] {
        let dir = closed_queue(&options, 3);
        fs::remove_file(name(dir.path(), page())).unwrap();
        is_refused(dir.path(), &options, Status::Corrupt, &[&name(dir.path(), 0), &name(dir.path(), 2 * page())]);
    }
}

#[test]
fn a_missing_first_file_is_corrupt() {
    let _alone = alone();
    for options in [record(), raw(Filler::Zero)] {
        let dir = closed_queue(&options, 2);
        fs::remove_file(name(dir.path(), 0)).unwrap();
        is_refused(dir.path(), &options, Status::Corrupt, &[&name(dir.path(), page())]);
        fs::remove_file(name(dir.path(), page())).unwrap();
        fs::remove_file(name(dir.path(), 2 * page())).unwrap();
        is_refused(dir.path(), &options, Status::Corrupt, &[&name(dir.path(), 0)]);
    }
}

#[test]
fn a_missing_last_file_is_corrupt_if_it_held_data() {
    let _alone = alone();
    for options in [record(), raw(Filler::Zero)] {
        let dir = closed_queue(&options, 2);
        fs::remove_file(name(dir.path(), 2 * page())).unwrap();
        is_refused(dir.path(), &options, Status::Corrupt, &[dir.path()]);
    }
}

#[test]
fn damaged_private_files_are_named() {
    let _alone = alone();
    for (file, damage) in [("meta", 9), ("meta", 0), ("checkpoint", 9)] {
        let dir = closed_queue(&record(), 1);
        let path = dir.path().join(".mfq").join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[damage] ^= 1;
        if let Some(second_slot) = bytes.get_mut(4096 + damage) {
            *second_slot ^= 1;
        }
        fs::write(&path, bytes).unwrap();
        is_refused(dir.path(), &record(), Status::Corrupt, &[&path]);
    }
    let dir = closed_queue(&record(), 1);
    fs::remove_file(dir.path().join(".mfq/meta")).unwrap();
    is_refused(dir.path(), &record(), Status::Corrupt, &[&name(dir.path(), 0)]);
    let dir = closed_queue(&record(), 1);
    fs::remove_file(dir.path().join(".mfq/checkpoint")).unwrap();
    is_refused(dir.path(), &record(), Status::Corrupt, &[&dir.path().join(".mfq/checkpoint")]);
}

/// A meta whose checksum is right can still say what no queue has.
#[test]
fn a_meta_with_an_impossible_file_size_is_corrupt_and_named() {
    let _alone = alone();
    const FILE_BYTES_AT: usize = 32;
    for file_bytes in [0, u64::MAX] {
        let dir = closed_queue(&record(), 1);
        let path = dir.path().join(".mfq/meta");
        let mut bytes = fs::read(&path).unwrap();
        assert_eq!(bytes[FILE_BYTES_AT..][..8], page().to_le_bytes());
        bytes[FILE_BYTES_AT..][..8].copy_from_slice(&u64::to_le_bytes(file_bytes));
        let sealed = bytes.len() - 8;
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[..sealed]);
        bytes[sealed..].copy_from_slice(&crc.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        is_refused(dir.path(), &Options::default(), Status::Corrupt, &[&path]);
    }
}

#[test]
fn files_without_mfq_are_somebody_elses() {
    let _alone = alone();
    let dir = scratch();
    fs::write(name(dir.path(), 0), vec![1; page() as usize]).unwrap();
    is_refused(dir.path(), &raw(Filler::Zero), Status::Corrupt, &[&name(dir.path(), 0)]);
}

#[test]
fn a_queue_begins_at_start_offset_rounded_down_to_a_file() {
    let _alone = alone();
    for options in [record(), raw(Filler::RocketMq)] {
        let dir = scratch();
        let options = Options { start_offset: 7 * page() + page() / 2, ..options };
        let queue = open(dir.path(), &options);
        let offsets = queue.offsets().unwrap();
        assert_eq!((offsets.min, offsets.reserved, offsets.committed, offsets.flushed), {
            let first = 7 * page();
            (first, first, first, first)
        });
        assert_eq!(queue.get_last(within(GENEROUS_MS)).unwrap().start(), 7 * page());
        assert_eq!(queue.append(b"x").unwrap().offset, 7 * page());
        assert_eq!(read(&queue, 0).unwrap_err().status(), Status::NotFound);
        assert_eq!(queue.find(7 * page() - 1).err().unwrap().status(), Status::NotFound);
        queue.close().unwrap();
        assert_eq!(file_starts(dir.path()), [7 * page()]);
        // Of an old queue it is not used.
        let queue = open(dir.path(), &Options { start_offset: 0, ..options });
        assert_eq!(queue.offsets().unwrap().min, 7 * page());
    }
}

#[test]
fn a_queue_ends_where_offsets_end() {
    let _alone = alone();
    for options in [record(), raw(Filler::Zero)] {
        let dir = scratch();
        let last = i64::MAX as u64 / page() * page() - page();
        let queue = open(dir.path(), &Options { start_offset: last, ..options.clone() });
        assert_eq!(queue.append(&vec![b'x'; page() as usize - 16]).unwrap().offset, last);
        let error = queue.append(&[b'x'; 64]).unwrap_err();
        assert_eq!(error.status(), Status::NoSpace, "{error}");
        queue.close().unwrap();
        let queue = open(dir.path(), &options);
        assert_eq!(queue.offsets().unwrap().min, last);
        assert!(read(&queue, last).unwrap().0.starts_with(b"xxx"));
    }
}

#[test]
fn get_last_creates_then_returns_then_rolls() {
    let _alone = alone();
    for (options, filling) in [(record(), page() - 16), (raw(Filler::Zero), page())] {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        let last = || queue.get_last(within(GENEROUS_MS)).unwrap().start();
        assert_eq!((last(), last()), (0, 0));
        queue.append(b"x").unwrap();
        assert_eq!(last(), 0);
        queue.append(&vec![b'f'; filling as usize]).unwrap();
        assert_eq!((last(), last()), (2 * page(), 2 * page()), "the second file is full");
        assert_eq!(queue.append(b"y").unwrap().offset, 2 * page());
    }
}

#[test]
fn an_offset_leads_to_its_file() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &Options { start_offset: 3 * page(), ..record() });
    fill_files(&queue, 20);
    for index in 3..23 {
        for within in [0, 1, page() / 2, page() - 1] {
            assert_eq!(queue.find(index * page() + within).unwrap().start(), index * page());
        }
    }
    for (outside, status) in
        [(0, Status::NotFound), (3 * page() - 1, Status::NotFound), (23 * page(), Status::End), (u64::MAX, Status::End)]
    {
        assert_eq!(queue.find(outside).err().unwrap().status(), status);
    }
}

#[test]
fn the_lock_is_taken_before_a_byte_is_read() {
    let _alone = alone();
    let dir = closed_queue(&record(), 1);
    let _owner = open(dir.path(), &record());
    let second = mfq::os::FaultyOs::new(mfq::os::native());
    let error = try_open_on(second.clone(), dir.path(), &record()).err().unwrap();
    assert_eq!(error.status(), Status::Locked);
    assert!(error.message().contains(dir.path().to_str().unwrap()), "{error}");
    let made = [Call::List, Call::ReadAt, Call::Map, Call::WriteAt, Call::Rename, Call::Unlink, Call::Allocate];
    assert_eq!(made.map(|call| second.count(call)), [0; 7]);
}

#[test]
fn left_overs_of_a_crash_are_recognised_at_open() {
    let _alone = alone();
    for format in ["record", "raw"] {
        let dir = scratch();
        fs::write(dir.path().join("format"), format).unwrap();
        let killed = victim("dies_with_left_overs", dir.path()).kill();
        let queue = dir.path().join("queue");
        let temporary = queue.join(".mfq").join(format!("{:020}.tmp", 3 * page()));
        assert!(temporary.exists(), "a file under construction");
        assert_eq!(file_starts(&queue), [0, page(), 2 * page()], "one in use and two ready");
        let options = options_of(format);
        let reopened = open(&queue, &options);
        assert!(!temporary.exists());
        assert_eq!(file_starts(&queue), [0], "what nobody claimed is gone");
        assert_eq!(reopened.offsets().unwrap().committed.to_string(), killed);
        assert!(read(&reopened, 0).unwrap().0.starts_with(b"returned"));
        fill_files(&reopened, 3);
        reopened.close().unwrap();
        open(&queue, &options).close().unwrap();
    }
}

fn options_of(format: &str) -> Options {
    if format == "raw" { raw(Filler::Zero) } else { record() }
}

#[test]
#[ignore = "started, and killed, by left_overs_of_a_crash_are_recognised_at_open"]
fn dies_with_left_overs() {
    let Some(dir) = victims_directory() else { return };
    let path = dir.join("queue");
    let options = options_of(&fs::read_to_string(dir.join("format")).unwrap());
    let queue = open(&path, &Options { files_ahead: 3, ..options });
    queue.os.fail_nth(Call::Map, 4, Fault::Hang); // the last of the three ahead
    let end = queue.append(b"returned").unwrap().end;
    queue.os.wait_hanging(1);
    wait_to_be_killed(&end.to_string());
}

#[test]
fn a_creation_of_a_queue_that_was_cut_short_begins_again() {
    let _alone = alone();
    // Every call on the way to a new queue fails once.
    let calls =
        [Call::MakeDirectory, Call::Open, Call::WriteAt, Call::SyncData, Call::Rename, Call::SyncDirectory, Call::Map];
    for call in calls {
        for nth in 1.. {
            let dir = scratch();
            let path = dir.path().join("queue");
            let os = mfq::os::FaultyOs::new(mfq::os::native());
            os.fail_nth(call, nth, Fault::Errno(libc::EIO));
            match try_open_on(os.clone(), &path, &record()) {
                Err(error) => assert_eq!((error.status(), error.errno()), (Status::Io, libc::EIO), "{call:?} {nth}"),
                Ok(queue) => {
                    assert!(os.count(call) < nth, "{call:?} {nth} failed in silence");
                    os.heal();
                    queue.close().unwrap();
                    assert!(nth > 1, "{call:?} was never made");
                    break;
                }
            }
            let queue = open(&path, &record());
            queue.append(b"x").unwrap();
            queue.close().unwrap();
        }
    }
}

#[test]
fn permissions_are_what_the_host_chose_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let _alone = alone();
    for (permissions, files) in [(0, 0o600), (0o600, 0o600), (0o640, 0o640), (0o666, 0o666)] {
        for umask in [0, 0o077, 0o177, 0o777] {
            let dir = scratch();
            let path = dir.path().join("queue");
            // SAFETY: takes and gives integers. The other tests of this process wait for this one.
            let umask = unsafe { libc::umask(umask) };
            let queue = open(&path, &Options { permissions, ..record() });
            fill_files(&queue, 2);
            queue.close().unwrap();
            // SAFETY: as above.
            unsafe { libc::umask(umask) };
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            for file in ["meta", "checkpoint", "tail", "lock"] {
                assert_eq!(mode(&path.join(".mfq").join(file)), files, "{file} with {permissions:o}");
            }
            assert_eq!(mode(&name(&path, page())), files, "{permissions:o}");
            for directory in [&path, &path.join(".mfq")] {
                assert_eq!(mode(directory) & 0o700, 0o700, "its owner can enter {}", directory.display());
            }
        }
    }
}

#[test]
fn a_held_file_outlives_its_queue() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    queue.append(b"held").unwrap();
    let (file, view) = (queue.find(0).unwrap(), queue.view(0).unwrap());
    queue.close().unwrap();
    fs::remove_dir_all(dir.path()).unwrap();
    assert_eq!(file.size(), page());
    // SAFETY: both are held, and nobody writes any more.
    let (record, all) = unsafe {
        (std::slice::from_raw_parts(view.ptr, view.len), std::slice::from_raw_parts(file.base(), page() as usize))
    };
    assert_eq!((record, &all[16..20]), (b"held".as_slice(), b"held".as_slice()));
}
