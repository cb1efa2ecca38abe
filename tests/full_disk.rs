//! A disk that is full, for real: a small tmpfs of the test's own.
//!
//! Mounting needs root. Under CI=true that is a must; elsewhere a refused mount is told, and the same is then tested
//! with an injected errno only.

#[path = "support/engine.rs"]
mod support;

use mfq::os::{Call, Fault};
use mfq::{Filler, Mode, Options, Status, Which};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::{env, fs, io};
use support::*;

const MIB: u64 = 1 << 20;

struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn of(size: &str) -> Option<Tmpfs> {
        let place = scratch();
        let path = CString::new(place.path().to_str().unwrap()).unwrap();
        let data = CString::new(format!("size={size}")).unwrap();
        // SAFETY: NUL-terminated strings that outlive the call.
        let mounted =
            unsafe { libc::mount(c"tmpfs".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), 0, data.as_ptr().cast()) };
        if mounted == 0 {
            return Some(Tmpfs(place));
        }
        let cause = io::Error::last_os_error();
        assert_ne!(env::var("CI").as_deref(), Ok("true"), "no tmpfs can be mounted: {cause}");
        println!("not tested: no tmpfs can be mounted here: {cause}");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let path = CString::new(self.path().to_str().unwrap()).unwrap();
        // SAFETY: a NUL-terminated string. Detached, so that a mapping a failed test holds cannot keep it.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

/// Both formats, in both modes.
fn formats() -> [Options; 4] {
    let record = Options { file_size: MIB, ..Options::default() };
    let raw = Options { format: mfq::Format::Raw, filler: Filler::RocketMq, ..record.clone() };
    let staged = |options: &Options| Options { mode: Mode::Staged, ..options.clone() };
    [staged(&record), staged(&raw), record, raw]
}

/// Takes what space there is. Freed when the file is removed.
fn fill(disk: &Path) -> PathBuf {
    let path = disk.join("ballast");
    let ballast = fs::File::create(&path).unwrap();
    let chunk = vec![1; 4096];
    let mut at = 0;
    while std::os::unix::fs::FileExt::write_all_at(&ballast, &chunk, at).is_ok() {
        at += chunk.len() as u64;
    }
    path
}

/// Appends numbered records until an append fails; the error.
fn append_until_refused(queue: &Opened, appended: &mut Vec<Vec<u8>>) -> mfq::Error {
    loop {
        let number = appended.len() as u32;
        let bytes = number.to_le_bytes().repeat(16_000);
        match queue.append(&bytes) {
            Ok(_) => appended.push(bytes),
            Err(error) => return error,
        }
    }
}

/// RECORD: the records; RAW: all bytes of them, without filler.
fn is_all_there(queue: &Opened, options: &Options, appended: &[Vec<u8>]) {
    queue.wait(Which::Committed, queue.offsets().unwrap().wrote, within(GENEROUS_MS)).unwrap();
    if options.format == mfq::Format::Record {
        assert!(read_all(queue) == appended, "what was appended is not what is read");
        return;
    }
    let mut at = 0;
    for bytes in appended {
        if bytes.len() as u64 + 8 > MIB - at % MIB {
            at = at.next_multiple_of(MIB);
        }
        let view = queue.view(at).unwrap();
        // SAFETY: a view's bytes stay readable as long as it is held, and nobody writes below committed.
        assert!(unsafe { std::slice::from_raw_parts(view.ptr, bytes.len()) } == bytes, "at {at}");
        at += bytes.len() as u64;
    }
}

#[test]
fn a_full_disk_is_no_space_from_the_append_that_needs_the_file_and_heals() {
    let _alone = alone();
    for options in formats() {
        let Some(disk) = Tmpfs::of("8m") else { return };
        let path = disk.path().join("queue");
        let mut appended = Vec::new();
        let queue = open(&path, &options);
        let mut refusals = 0;
        // Full, freed, full again, filled from the side, freed.
        let error = append_until_refused(&queue, &mut appended);
        refusals += 1;
        assert_eq!((error.status(), error.errno()), (Status::NoSpace, libc::ENOSPC), "{error}");
        assert!(error.message().contains(path.to_str().unwrap()), "{error}");
        let files = file_starts(&path).len() as u64;
        assert_eq!(files, 7, "8 MiB less what the small files take");
        assert!(appended.len() as u64 >= files * (MIB / 64_100), "every file was filled before");
        is_all_there(&queue, &options, &appended);
        assert_eq!(append_until_refused(&queue, &mut appended).status(), Status::NoSpace, "it stays so");
        queue.flush(u64::MAX, within(GENEROUS_MS)).unwrap();

        for size in ["10m", "12m"] {
            remount(disk.path(), size);
            let before = appended.len();
            assert_eq!(append_until_refused(&queue, &mut appended).status(), Status::NoSpace);
            refusals += 1;
            let more = appended.len() - before;
            assert!(more as u64 >= 2 * (MIB / 64_100), "with space the next append succeeds: {more} at {size}");
        }
        assert!(queue.stats().unwrap().failed_creations >= refusals);
        is_all_there(&queue, &options, &appended);
        queue.close().unwrap();

        // It opens and reads with no byte free.
        fill(disk.path());
        let read_only = open(&path, &Options { read_only: true, ..options.clone() });
        is_all_there(&read_only, &options, &appended);
    }
}

fn remount(disk: &Path, size: &str) {
    let path = CString::new(disk.to_str().unwrap()).unwrap();
    let data = CString::new(format!("size={size}")).unwrap();
    // SAFETY: NUL-terminated strings that outlive the call.
    let outcome = unsafe {
        libc::mount(c"tmpfs".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), libc::MS_REMOUNT, data.as_ptr().cast())
    };
    assert_eq!(outcome, 0, "{}", io::Error::last_os_error());
}

#[test]
fn a_queue_opens_and_reads_with_no_byte_free() {
    let _alone = alone();
    for options in formats() {
        let Some(disk) = Tmpfs::of("8m") else { return };
        let path = disk.path().join("queue");
        let queue = open(&path, &options);
        let appended = vec![b"first".to_vec(), b"second".to_vec()];
        appended.iter().for_each(|bytes| assert!(queue.append(bytes).is_ok()));
        queue.close().unwrap();
        let ballast = fill(disk.path());
        let queue = open(&path, &options);
        is_all_there(&queue, &options, &appended);
        queue.append(b"into the file that is there").unwrap();
        queue.close().unwrap();
        fs::remove_file(ballast).unwrap();
    }
}

#[test]
fn a_new_queue_on_a_full_disk_is_no_space_and_works_later() {
    let _alone = alone();
    let Some(disk) = Tmpfs::of("2m") else { return };
    let ballast = fill(disk.path());
    let path = disk.path().join("queue");
    let error = refused(&path, &formats()[0]);
    assert_eq!((error.status(), error.errno()), (Status::NoSpace, libc::ENOSPC), "{error}");
    fs::remove_file(ballast).unwrap();
    open(&path, &formats()[0]).append(b"x").unwrap();
}

#[test]
fn an_injected_full_disk_loses_nothing() {
    let _alone = alone();
    for (options, errno) in formats().into_iter().zip([libc::ENOSPC, libc::EDQUOT].repeat(2)) {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        let mut appended = Vec::new();
        for _ in 0..5 {
            let before = appended.len();
            queue.os.fail_all(Call::Allocate, Fault::Errno(errno));
            let error = append_until_refused(&queue, &mut appended);
            assert_eq!((error.status(), error.errno()), (Status::NoSpace, errno));
            queue.os.heal();
            let bytes = (appended.len() as u32).to_le_bytes().repeat(16_000);
            queue.append(&bytes).unwrap();
            appended.push(bytes);
            assert!(appended.len() > before);
        }
        is_all_there(&queue, &options, &appended);
        queue.close().unwrap();
        is_all_there(&open(dir.path(), &options), &options, &appended);
    }
}
