//! What the process has once: the allocation thread, from the first open to the last close, and again.

#[path = "support/engine.rs"]
mod support;

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::{fs, io, thread};
use support::*;

fn allocation_threads() -> usize {
    let comm = |entry: std::io::Result<fs::DirEntry>| fs::read_to_string(entry.ok()?.path().join("comm")).ok();
    fs::read_dir("/proc/self/task").unwrap().filter_map(comm).filter(|name| name.trim() == "mfq-alloc").count()
}

/// A thread that was joined may be listed for a moment more.
fn there_are(threads: usize) {
    eventually("so many allocation threads", || allocation_threads() == threads);
}

#[test]
fn the_runtime_starts_with_the_first_open_and_ends_with_the_last_close_and_starts_again() {
    let _alone = alone();
    for _ in 0..3 {
        there_are(0);
        let (first, second) = (scratch(), scratch());
        let one = open(first.path(), &record());
        there_are(1);
        let two = open(second.path(), &record());
        assert_eq!(allocation_threads(), 1, "one serves all");
        one.append(b"x").unwrap();
        one.close().unwrap();
        fill_files(&two, 3);
        assert_eq!(allocation_threads(), 1);
        drop(two); // closes as well
        there_are(0);
    }
}

#[test]
fn an_open_that_fails_and_one_that_only_reads_start_no_thread() {
    let _alone = alone();
    let dir = scratch();
    open(dir.path(), &record()).close().unwrap();
    there_are(0);
    refused(dir.path(), &mfq::Options { file_size: 2 * page(), ..record() });
    let _reader = open(dir.path(), &mfq::Options { read_only: true, ..record() });
    assert_eq!(allocation_threads(), 0);
}

#[test]
fn last_closes_race_with_first_opens() {
    let _alone = alone();
    let dirs: Vec<_> = (0..4).map(|_| scratch()).collect();
    thread::scope(|scope| {
        for dir in &dirs {
            scope.spawn(|| {
                for round in 0..100 {
                    let queue = open(dir.path(), &record());
                    // Only a living worker keeps files ahead of one that cannot wait ten milliseconds for itself.
                    queue.append(&filling()).unwrap();
                    assert_eq!(queue.offsets().unwrap().min, 0);
                    assert_eq!(queue.offsets().unwrap().reserved, (round + 1) * page());
                    queue.close().unwrap();
                }
            });
        }
    });
    there_are(0);
    for dir in &dirs {
        let queue = open(dir.path(), &record());
        assert_eq!(read_all(&queue).len(), 100);
    }
}

/// Until it execs, a forked process has copies of all descriptors: a host that starts a program in another thread just
/// then must not find the queue locked by it.
#[test]
fn a_close_lets_the_lock_go_while_a_forked_process_has_a_copy_of_it() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    let (mut forked, mut in_child) = io::pipe().unwrap();
    let (mut go_on, release) = io::pipe().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut command = Command::new("true");
            // SAFETY: a write and a read of pipes are all that is done between fork and exec.
            unsafe {
                command.pre_exec(move || {
                    in_child.write_all(b"f")?;
                    go_on.read_exact(&mut [0])
                });
            }
            assert!(command.status().unwrap().success());
        });
        forked.read_exact(&mut [0]).unwrap();
        queue.close().unwrap();
        let reopened = try_open(dir.path(), &record()).map(drop);
        (&release).write_all(b"g").unwrap();
        reopened.unwrap();
    });
}

#[test]
fn asynchronous_signals_are_blocked_in_the_librarys_threads_and_faults_are_not() {
    let _alone = alone();
    let dir = scratch();
    let _queue = open(dir.path(), &record());
    there_are(1);
    let read = |task: &Path, what: &str| fs::read_to_string(task.join(what)).unwrap_or_default();
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path());
    let ours: Vec<_> = tasks.filter(|task| read(task, "comm").starts_with("mfq-")).collect();
    assert!(!ours.is_empty());
    for task in ours {
        let (name, status) = (read(&task, "comm"), read(&task, "status"));
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        let blocked = u64::from_str_radix(blocked.trim(), 16).unwrap();
        let is_blocked = |signal: i32| blocked & 1 << (signal - 1) != 0;
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGCHLD, libc::SIGALRM, libc::SIGUSR1, libc::SIGPROF] {
            assert!(is_blocked(signal), "{signal} in {name}");
        }
        for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT] {
            assert!(!is_blocked(fault), "{fault} in {name}");
        }
    }
}
