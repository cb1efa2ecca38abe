//! Memory that is short, for real: a memory cgroup, and a process that may not lock any.

#[path = "support/engine.rs"]
mod support;

use mfq::{Mode, Options, Status, Which};
use std::fs;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::{env, process};
use support::*;

const MIB: u64 = 1 << 20;
const LIMIT_BYTES: u64 = 64 * MIB;

/// A memory cgroup of the test's own, in that of this process (v1) or beside it (v2, where a group with processes has
/// no groups in it).
struct Group {
    path: PathBuf,
    limit: &'static str,
    /// Where it says how often the limit was met.
    met: &'static str,
}

impl Group {
    /// `None`, and says why, where none can be made; under CI=true it must.
    fn new() -> Option<Group> {
        let made = Group::try_new();
        if let Err(cause) = &made {
            assert_ne!(env::var("CI").as_deref(), Ok("true"), "no memory cgroup can be made: {cause}");
            println!("not tested: it takes root and a memory cgroup: {cause}");
        }
        made.ok()
    }

    fn try_new() -> Result<Group> {
        let ours = fs::read_to_string("/proc/self/cgroup")?;
        let line_of = |mark: &str| ours.lines().find_map(|line| Some(Path::new(line.split_once(mark)?.1)));
        let name = format!("mfq-{}", process::id());
        let group = match (line_of(":memory:/"), line_of("::/").unwrap_or(Path::new(""))) {
            (Some(v1), _) => Group {
                path: Path::new("/sys/fs/cgroup/memory").join(v1).join(name),
                limit: "memory.limit_in_bytes",
                met: "memory.failcnt",
            },
            (None, v2) => Group {
                path: Path::new("/sys/fs/cgroup").join(v2.parent().unwrap_or(v2)).join(name),
                limit: "memory.max",
                met: "memory.events",
            },
        };
        fs::create_dir(&group.path)?;
        fs::write(group.path.join(group.limit), LIMIT_BYTES.to_string())?;
        Ok(group)
    }

    fn was_met(&self) -> bool {
        let told = fs::read_to_string(self.path.join(self.met)).unwrap();
        let times = told.lines().find_map(|line| line.strip_prefix("max ")).unwrap_or(&told);
        times.trim() != "0"
    }
}

impl Drop for Group {
    /// Once the process in it is gone, which the kernel may take a moment to see.
    fn drop(&mut self) {
        eventually("the group is removed", || fs::remove_dir(&self.path).is_ok() || !self.path.exists());
    }
}

/// KiB of this process that cannot leave the memory.
fn locked_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    locked.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[test]
fn many_times_the_memory_there_is_can_be_appended_and_nothing_is_locked() {
    let Some(group) = Group::new() else { return };
    // On a disk: files in memory could not make room for each other.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(dir.path().join("group"), group.path.to_str().unwrap()).unwrap();
    in_a_process_of_its_own("appends_many_times_the_memory_there_is", dir.path());
    assert!(group.was_met());
}

#[test]
#[ignore = "started by many_times_the_memory_there_is_can_be_appended_and_nothing_is_locked"]
fn appends_many_times_the_memory_there_is() {
    let Some(dir) = victims_directory() else { return };
    let _alone = alone();
    let group = PathBuf::from(fs::read_to_string(dir.join("group")).unwrap());
    fs::write(group.join("cgroup.procs"), process::id().to_string()).unwrap();
    for mode in [Mode::Mmap, Mode::Staged] {
        let path = dir.join(format!("{mode:?}"));
        let queue = open(&path, &Options { file_size: 4 * MIB, mode, append_timeout_ms: -1, ..Options::default() });
        let record = vec![b'r'; MIB as usize - 100];
        for _ in 0..4 * LIMIT_BYTES / MIB {
            queue.append(&record).unwrap();
            assert_eq!(locked_kib(), 0);
        }
        let offsets = queue.offsets().unwrap();
        queue.wait(Which::Committed, offsets.wrote, within(GENEROUS_MS)).unwrap();
        assert_eq!(read(&queue, 0).unwrap().0, record, "from the disk");
        queue.close().unwrap();
    }
}

#[test]
fn memory_that_may_not_be_locked_is_told_at_open_and_the_queue_works_without() {
    let dir = scratch();
    in_a_process_of_its_own("locks_what_it_may_not", dir.path());
}

#[test]
#[ignore = "started by memory_that_may_not_be_locked_is_told_at_open_and_the_queue_works_without"]
fn locks_what_it_may_not() {
    let Some(dir) = victims_directory() else { return };
    let _alone = alone();
    give_up_the_right_to_lock();
    let unlocked = Options { file_size: 16 * page(), pool_buffers: 4, mode: Mode::Staged, ..Options::default() };
    let locked = Options { lock_pool: true, ..unlocked.clone() };
    let all = 4 * locked.file_size;
    // mlock(2): with nothing allowed it is not permitted, with too little allowed it is too much.
    for (allowed, errno) in [(0, libc::EPERM), (all - page(), libc::ENOMEM)] {
        allow(allowed);
        let error = refused(&dir, &locked);
        assert_eq!((error.status(), error.errno()), (Status::NoMemory, errno), "{error}");
        assert!(error.message().contains("RLIMIT_MEMLOCK"), "{error}");
        let queue = open(&dir, &unlocked);
        (0..9).for_each(|_| assert!(queue.append(&[b'x'; 40_000]).is_ok()));
        assert_eq!(locked_kib(), 0);
        queue.close().unwrap();
    }
    allow(all);
    let queue = open(&dir, &locked);
    (0..9).for_each(|_| assert!(queue.append(&[b'x'; 40_000]).is_ok()));
    assert!((1..=all >> 10).contains(&locked_kib()));
    queue.close().unwrap();
    assert_eq!(locked_kib(), 0);
}

fn allow(bytes: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is ours.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit), 0);
        limit.rlim_cur = bytes;
        assert_eq!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit), 0);
    }
}

/// Whoever has CAP_IPC_LOCK has no limit.
fn give_up_the_right_to_lock() {
    const VERSION_3: u32 = 0x2008_0522; // linux/capability.h
    const CAP_IPC_LOCK: u32 = 14;
    let header = [VERSION_3, 0];
    let mut sets = [[0u32; 3]; 2]; // effective, permitted, inheritable; two words of each
    // SAFETY: capget(2) fills what it is given, and capset(2) reads it; both are as large as version 3 says.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, &header, &mut sets), 0);
        sets[0][0] &= !(1 << CAP_IPC_LOCK);
        assert_eq!(libc::syscall(libc::SYS_capset, &header, &sets), 0);
    }
}
