//! What a forked child keeps of its parent's queues: nothing. (That its calls are refused is tested in
//! `src/capi/tests.rs`.)

mod support;

use mfq::{Format, Mode, Options, Which};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use support::engine::*;
use support::handles::{Queue, RECORD};

/// Ends a child that must not outlive the test.
struct Child(libc::pid_t);

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: takes integers only.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }
}

impl Child {
    fn is_alive(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.0)).is_ok_and(|stat| !stat.contains(") Z"))
    }

    /// What its descriptors lead to in a directory.
    fn holds(&self, path: &Path) -> Vec<String> {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.0)).unwrap();
        let targets = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        targets.filter(|target| target.starts_with(path)).map(|target| target.display().to_string()).collect()
    }
}

/// A queue inside the other's directory.
const STAGED: &str = "staged";

#[test]
#[ignore = "a victim of the next test"]
fn owner_with_a_child() {
    let Some(path) = victims_directory() else { return };
    let queue = Queue::open(&path, &RECORD).unwrap();
    queue.append(b"before the fork").unwrap();
    let (format, mode) = (Format::Raw, Mode::Staged);
    let staged = open(&path.join(STAGED), &Options { format, mode, file_size: 64 << 10, ..Options::default() });
    let at = staged.append(b"x").unwrap();
    staged.wait(Which::Committed, at.end, within(GENEROUS_MS)).unwrap();
    // So that no thread has a descriptor of its own for the first file any more.
    eventually("the look-ahead is done", || staged.stats().unwrap().files_created == 3);
    staged.flush(at.end, within(GENEROUS_MS)).unwrap();
    // SAFETY: the child calls what is async-signal-safe only.
    let child = unsafe { libc::fork() };
    if child == 0 {
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    }
    queue.append(b"after the fork").unwrap();
    wait_to_be_killed(&child.to_string());
}

#[test]
fn a_lock_ends_with_its_owner_while_a_forked_child_lives_on() {
    let dir = scratch();
    let owner = victim("owner_with_a_child", dir.path());
    let child = Child(owner.said.parse().unwrap());
    // A file that was just being made may stay open in it: that keeps nothing but its space.
    let first = dir.path().join(STAGED).join(format!("{:020}", 0));
    let is_kept = |name: &String| {
        let name = Path::new(name);
        name == dir.path() || name == first || [".mfq", "lock", "tail"].iter().any(|last| name.ends_with(last))
    };
    eventually("the child has closed what it got", || !child.holds(dir.path()).iter().any(is_kept));
    assert_eq!(Queue::open(dir.path(), &RECORD).err(), Some(mfq::capi::MFQ_E_LOCKED));
    owner.kill();
    assert!(child.is_alive());
    let queue = Queue::open(dir.path(), &RECORD).unwrap();
    let (first, next) = queue.read(0, 100).unwrap();
    let (second, _) = queue.read(next, 100).unwrap();
    assert_eq!((first.as_slice(), second.as_slice()), (b"before the fork".as_slice(), b"after the fork".as_slice()));
    assert!(child.is_alive());
    queue.close().unwrap();
}

#[test]
fn a_program_that_a_host_starts_holds_nothing_of_a_queue() {
    let dir = scratch();
    let queue = Queue::open(dir.path(), &RECORD).unwrap();
    queue.append(b"x").unwrap();
    let mut process = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let child = Child(process.id() as libc::pid_t);
    eventually("another program runs", || {
        fs::read_link(format!("/proc/{}/exe", child.0)).is_ok_and(|exe| exe != std::env::current_exe().unwrap())
    });
    assert_eq!(child.holds(dir.path()), Vec::<String>::new());
    queue.close().unwrap();
    let queue = Queue::open(dir.path(), &RECORD).unwrap();
    queue.close().unwrap();
    drop(process.stdin.take());
    assert!(process.wait().unwrap().success());
}
