//! A queue has one owner, and keeps it for as long as that lives: working, or stopped. (That a child it has forked does
//! not count is tested in `fork.rs`.)

mod support;

use mfq::capi::MFQ_E_LOCKED;
use mfq::{Options, Status};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process;
use support::engine::*;
use support::handles::{How, Queue, RECORD};

const LARGE: How = How { file_size: 1 << 20, ..RECORD };

#[test]
#[ignore = "a victim of the next test"]
fn appends_until_it_is_killed() {
    let Some(path) = victims_directory() else { return };
    let queue = Queue::open(&path.join("queue"), &LARGE).unwrap();
    let noted = File::create(path.join("appended")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0u64.. {
                queue.append(&number.to_le_bytes()).unwrap();
                noted.write_all_at(&(number + 1).to_le_bytes(), 0).unwrap();
            }
        });
        wait_to_be_killed(&process::id().to_string());
    });
}

#[test]
fn a_stopped_owner_keeps_its_queue_and_goes_on_when_it_may() {
    let _alone = alone();
    let dir = scratch();
    let path = dir.path().join("queue");
    let owner = victim("appends_until_it_is_killed", dir.path());
    let appended = || {
        let noted = fs::read(dir.path().join("appended")).unwrap_or_default();
        noted.try_into().map_or(0, u64::from_le_bytes)
    };
    let send = |signal| {
        let id = owner.said.parse().unwrap();
        // SAFETY: takes integers only.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0);
    };
    let stop = || {
        send(libc::SIGSTOP);
        let stat = || fs::read_to_string(format!("/proc/{}/stat", owner.said)).unwrap();
        eventually("the owner is stopped", || stat().contains(") T "));
    };
    for _ in 0..20 {
        let before = appended();
        eventually("the owner appends", || appended() > before);
        stop();
        let before = appended();
        assert_eq!(Queue::open(&path, &LARGE).err(), Some(MFQ_E_LOCKED));
        let reading = Options { read_only: true, ..Options::default() };
        let error = refused(&path, &reading);
        assert_eq!(error.status(), Status::Locked);
        assert!(error.message().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(appended(), before);
        send(libc::SIGCONT);
    }
    stop();
    let appended = appended();
    owner.kill();
    let queue = open(&path, &Options::default());
    let numbers: Vec<_> =
        read_all(&queue).iter().map(|bytes| u64::from_le_bytes(bytes[..].try_into().unwrap())).collect();
    assert!(numbers.len() as u64 >= appended && numbers.iter().copied().eq(0..numbers.len() as u64));
}
