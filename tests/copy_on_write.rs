//! Full disks that copy on write, for real: btrfs and XFS, each on a loop device of the test's own.
//!
//! A block that somebody else has too, by a snapshot or by a copy that shares blocks, is not written in place: the next
//! write takes a new one, reserved or not. Needs root, btrfs-progs and xfsprogs. What may raise SIGBUS does so in a
//! process of its own.

mod support;

use mfq::capi::{MFQ_OK, mfq_install_sigbus_guard};
use mfq::os::{FileSystem, Open, native};
use mfq::{Filler, Format, Mode, Options, Status};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::disk::Disk;
use support::engine::*;

const ALL: u64 = u64::MAX;
const FILE_BYTES: u64 = 1 << 20;
/// More than two pages: each append goes on in a page that others began, and has one to itself.
const RECORD_BYTES: usize = 9_000;

/// Runs a test on a btrfs and on an XFS, in a process of its own.
fn on_each_disk(test: &str) {
    // mkfs.xfs makes none that is smaller.
    for (file_system, mib) in [("btrfs", 256), ("xfs", 300)] {
        let Some(disk) = Disk::of(file_system, mib) else { return };
        in_a_process_of_its_own(test, &disk.path());
    }
}

/// Both formats. In STAGED nothing is committed until somebody asks.
fn formats(mode: Mode) -> [Options; 2] {
    let record = Options { file_size: FILE_BYTES, mode, commit_interval_ms: 3_600_000, ..Options::default() };
    [Options { format: Format::Raw, filler: Filler::RocketMq, ..record.clone() }, record]
}

fn numbered(number: usize) -> Vec<u8> {
    (number as u32).to_le_bytes().repeat(RECORD_BYTES / 4)
}

/// A queue with some records that are flushed, how many, and with all the files that it gets for now.
fn with_some_flushed(path: &Path, options: &Options) -> (Opened, usize) {
    let queue = open(path, options);
    (0..10).for_each(|number| assert!(queue.append(&numbered(number)).is_ok()));
    eventually("the look-ahead is done", || queue.stats().unwrap().prefaulted_to == 3 * options.file_size);
    queue.flush(ALL, within(GENEROUS_MS)).unwrap();
    (queue, 10)
}

/// What was flushed is there, and nothing that was not appended behind it.
fn has(queue: &Opened, flushed: usize) {
    let all = read_all(queue).concat();
    assert!(all.len() >= flushed * RECORD_BYTES);
    assert!((0..).flat_map(numbered).take(all.len()).eq(all));
}

fn is_btrfs(disk: &Path) -> bool {
    let fd = native().open(None, disk, Open::Directory).unwrap();
    native().file_system(fd.as_fd()).unwrap() == FileSystem::CopyOnWrite("btrfs")
}

/// All blocks that the queue has now are somebody else's too.
fn share(queue: &Path) {
    let (disk, other) = (queue.parent().unwrap(), queue.with_extension("shared"));
    let mut command = Command::new(if is_btrfs(disk) { "btrfs" } else { "cp" });
    match is_btrfs(disk) {
        true => command.args(["subvolume", "snapshot"]).arg(disk),
        false => command.args(["-r", "--reflink=always"]).arg(queue),
    };
    support::run(command.arg(other));
}

/// Takes what space there is.
fn fill(disk: &Path) -> PathBuf {
    let path = disk.join("ballast");
    let ballast = File::create(&path).unwrap();
    let (mut at, mut step) = (0, 16 << 20);
    while step >= 4096 {
        // SAFETY: takes integers only.
        match unsafe { libc::fallocate(ballast.as_raw_fd(), 0, at, step) } {
            0 => at += step,
            _ => step /= 2,
        }
    }
    // XFS has some blocks left then that a write can have.
    while ballast.write_all_at(&[1; 4096], at as u64).is_ok() {
        at += 4096;
    }
    path
}

/// Gives the space back, which the file systems would do when they come to it.
fn empty(ballast: &Path) {
    let file = File::options().write(true).open(ballast).unwrap();
    file.set_len(0).unwrap();
    // SAFETY: takes an integer.
    assert_eq!(unsafe { libc::syncfs(file.as_raw_fd()) }, 0);
}

/// The queue was poisoned on a full disk. Nothing that was flushed is lost: with no byte free, and later.
fn is_poisoned_and_recovers(queue: Opened, options: &Options, flushed: usize, ballast: &Path) {
    let path = queue.path.clone();
    let before = queue.offsets().unwrap().flushed;
    assert_eq!(queue.append(b"x").unwrap_err().status(), Status::Poisoned);
    assert_eq!(queue.flush(ALL, within(0)).unwrap_err().status(), Status::Poisoned);
    assert_eq!(queue.offsets().unwrap().flushed, before);
    assert_eq!(queue.close().unwrap_err().status(), Status::Poisoned);

    let reader = open(&path, &Options { read_only: true, ..options.clone() });
    has(&reader, flushed);
    reader.close().unwrap();

    empty(ballast);
    let queue = open(&path, options);
    has(&queue, flushed);
    queue.append(b"and on").unwrap();
    queue.flush(ALL, within(GENEROUS_MS)).unwrap();
    queue.close().unwrap();
}

#[test]
fn blocks_that_are_reserved_and_nobody_elses_are_there_on_a_full_disk() {
    on_each_disk("fills_what_is_reserved");
}

#[test]
#[ignore = "started by blocks_that_are_reserved_and_nobody_elses_are_there_on_a_full_disk"]
fn fills_what_is_reserved() {
    const IN_PLACE: libc::c_int = 0x0080_0000; // FS_NOCOW_FL, linux/fs.h
    let Some(disk) = victims_directory() else { return };
    let _alone = alone();
    collect_log();
    // Not through a mapping of btrfs: a store that touches two pages may never end there. Each of its faults has all
    // dirty pages written back to make room, the other one too, which then faults again (seen on Linux 6.18).
    let mapped = if is_btrfs(&disk) { vec![] } else { formats(Mode::Mmap).into() };
    for (index, options) in formats(Mode::Staged).into_iter().chain(mapped).enumerate() {
        let options = Options { file_size: 4 * page(), ..options };
        let path = disk.join(index.to_string());
        let queue = open(&path, &options);
        queue.append(b"x").unwrap();
        eventually("the look-ahead is done", || queue.stats().unwrap().prefaulted_to == 3 * options.file_size);
        let private = ["meta", "tail", "checkpoint"].map(|name| path.join(".mfq").join(name));
        for file in (0..3).map(|index| queue.file(index * options.file_size)).chain(private) {
            let mut flags: libc::c_int = 0;
            let open = File::open(&file).unwrap();
            // SAFETY: the call fills an int (ioctl_iflags(2)).
            assert_eq!(unsafe { libc::ioctl(open.as_raw_fd(), libc::FS_IOC_GETFLAGS, &mut flags) }, 0);
            assert_eq!(flags & IN_PLACE != 0, is_btrfs(&disk), "{}", file.display());
        }

        let ballast = fill(&disk);
        let error = (0..).find_map(|number| queue.append(&numbered(number)[..3000]).err()).unwrap();
        assert_eq!((error.status(), error.errno()), (Status::NoSpace, libc::ENOSPC), "{error}");
        assert!(queue.offsets().unwrap().wrote > 3 * options.file_size - 3000, "all three files are full");
        queue.flush(ALL, within(GENEROUS_MS)).unwrap();
        empty(&ballast);
        eventually("there is space again", || queue.append(b"and on").is_ok());
        queue.close().unwrap();
        let warned = logged(&path).iter().filter(|line| line.contains("btrfs")).count();
        assert_eq!(warned, usize::from(is_btrfs(&disk)), "once for an open");
    }
}

#[test]
fn a_block_that_cannot_be_had_for_a_commit_is_no_space_and_nothing_flushed_is_lost() {
    on_each_disk("commits_to_shared_blocks");
}

#[test]
#[ignore = "started by a_block_that_cannot_be_had_for_a_commit_is_no_space_and_nothing_flushed_is_lost"]
fn commits_to_shared_blocks() {
    let Some(disk) = victims_directory() else { return };
    let _alone = alone();
    for (index, options) in formats(Mode::Staged).into_iter().enumerate() {
        let path = disk.join(index.to_string());
        let (queue, mut flushed) = with_some_flushed(&path, &options);
        share(&path);
        let ballast = fill(&disk);
        let error = loop {
            queue.append(&numbered(flushed)).unwrap();
            match queue.flush(ALL, within(GENEROUS_MS)) {
                Ok(()) => flushed += 1, // the disk was not that full
                Err(error) => break error,
            }
        };
        assert_eq!((error.status(), error.errno()), (Status::NoSpace, libc::ENOSPC), "{error}");
        assert!(error.message().contains(queue.file(0).to_str().unwrap()), "{error}");
        is_poisoned_and_recovers(queue, &options, flushed, &ballast);
    }
}

#[test]
fn under_the_guard_a_block_that_cannot_be_had_for_an_append_is_an_error() {
    on_each_disk("appends_to_shared_blocks");
}

#[test]
#[ignore = "started by under_the_guard_a_block_that_cannot_be_had_for_an_append_is_an_error"]
fn appends_to_shared_blocks() {
    let Some(disk) = victims_directory() else { return };
    let _alone = alone();
    // SAFETY: nobody else in this process handles signals.
    assert_eq!(unsafe { mfq_install_sigbus_guard() }, MFQ_OK);
    for (index, options) in formats(Mode::Mmap).into_iter().enumerate() {
        let path = disk.join(index.to_string());
        let (queue, flushed) = with_some_flushed(&path, &options);
        share(&path);
        let ballast = fill(&disk);
        let error = (flushed..).find_map(|number| queue.append(&numbered(number)).err()).unwrap();
        assert_eq!(error.status(), Status::Io, "{error}");
        assert!(
            error.message().contains("SIGBUS") && error.message().contains(queue.file(0).to_str().unwrap()),
            "{error}"
        );
        is_poisoned_and_recovers(queue, &options, flushed, &ballast);
    }
}
