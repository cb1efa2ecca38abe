//! A directory of data files that this library did not make becomes a queue, or stays as it was.

#[path = "support/rocketmq.rs"]
mod rocketmq;
#[path = "support/engine.rs"]
mod support;

use mfq::os::{Call, Fault, FaultyOs, native};
use mfq::{Ended, Filler, Options, Status, Walk};
use rocketmq::message;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use support::*;
use tempfile::TempDir;

fn adopting(walk: bool) -> Options {
    Options { adopt: true, walk: walk.then(rocketmq::walk), ..raw(Filler::RocketMq) }
}

/// What a broker leaves: messages, blanks, a sparse last file, one ahead, a directory, an empty last file; and the end.
fn commit_log() -> (TempDir, u64) {
    let made = scratch();
    let queue = open(made.path(), &Options { start_offset: 5 * page(), ..raw(Filler::RocketMq) });
    let end = (1..30).map(|i| queue.append(&message(&[i; 300])).unwrap().end).max().unwrap();
    queue.close().unwrap();
    fs::remove_dir_all(made.path().join(".mfq")).unwrap();
    let last = made.path().join(format!("{:020}", end - end % page()));
    let bytes = fs::read(&last).unwrap();
    fs::remove_file(&last).unwrap();
    fs::write(&last, &bytes[..(end % page()) as usize]).unwrap();
    fs::OpenOptions::new().write(true).open(&last).unwrap().set_len(page()).unwrap();
    for (files, len) in [(1, page()), (2, 0)] {
        let ahead = made.path().join(format!("{:020}", end - end % page() + files * page()));
        fs::File::create(ahead).unwrap().set_len(len).unwrap();
    }
    fs::create_dir(made.path().join("a directory")).unwrap();
    (made, end)
}

fn data(path: &Path, until: u64) -> Vec<u8> {
    let files = file_starts(path).into_iter().filter(|start| *start < until);
    files.flat_map(|start| fs::read(path.join(format!("{start:020}"))).unwrap()).collect()
}

#[test]
fn a_commit_log_is_adopted_as_it_is() {
    for walk in [true, false] {
        let (dir, end) = commit_log();
        let before = data(dir.path(), end);
        assert_eq!(refused(dir.path(), &raw(Filler::RocketMq)).status(), Status::Corrupt);
        let queue = open(dir.path(), &adopting(walk));
        // The last message ends with zeros, which only a walker can tell from free space.
        let ends = if walk { end } else { end - 3 };
        let found = queue.recovery().unwrap();
        assert_eq!((found.ended, found.cut_at), (Ended::Adopted, ends));
        assert_eq!(found.verified_to, if walk { end } else { 5 * page() });
        assert!(data(dir.path(), end) == before, "the data is as it was");
        let offsets = queue.offsets().unwrap();
        assert_eq!((offsets.min, offsets.committed, offsets.flushed), (5 * page(), ends, 5 * page()));
        let last = fs::metadata(queue.file(end - end % page())).unwrap();
        assert!(last.blocks() * 512 >= page(), "the blocks of the last file are reserved");

        let at = queue.append(&message(b"goes on")).unwrap();
        assert_eq!(at.offset, ends);
        queue.close().unwrap();
        // An ordinary queue from now on, with the flag or without.
        for options in [raw(Filler::RocketMq), adopting(walk)] {
            let queue = open(dir.path(), &options);
            assert_eq!(queue.recovery().unwrap().ended, Ended::Clean);
            assert_eq!(queue.offsets().unwrap().committed, at.end);
            queue.close().unwrap();
        }
    }
}

#[test]
fn a_torn_message_at_the_end_is_cut() {
    let (dir, end) = commit_log();
    let last = dir.path().join(format!("{:020}", end - end % page()));
    let mut bytes = fs::read(&last).unwrap();
    bytes[(end % page()) as usize - 10] ^= 1;
    fs::write(&last, bytes).unwrap();
    let queue = open(dir.path(), &adopting(true));
    let size = message(&[0; 300]).len() as u64;
    assert_eq!(queue.offsets().unwrap().committed, end - size);
}

#[test]
fn what_cannot_be_a_commit_log_is_refused_and_left_as_it_is() {
    let name = |offset: u64| format!("{offset:020}");
    let refuses = |spoil: &dyn Fn(&Path), word: &str| {
        let (dir, _) = commit_log();
        spoil(dir.path());
        let before = snapshot(dir.path());
        let error = refused(dir.path(), &adopting(true));
        assert_eq!(error.status(), Status::Corrupt, "{error}");
        assert!(error.message().contains(word), "{error} names {word}");
        assert!(snapshot(dir.path()) == before, "nothing was changed");
    };
    refuses(&|path| fs::remove_file(path.join(name(6 * page()))).unwrap(), "gap");
    refuses(&|path| fs::write(path.join("notes.txt"), "").unwrap(), "notes.txt");
    refuses(&|path| fs::write(path.join(name(6 * page())), "short").unwrap(), "5 bytes");
}

/// Another encoding, or damage that no torn tail explains: to cut there would remove what somebody else can read.
#[test]
fn a_walk_that_does_not_reach_the_last_file_with_data_is_refused() {
    let (dir, end) = commit_log();
    let before = data(dir.path(), u64::MAX);
    let nothing = Options { walk: Some(Walk(Arc::new(|_, _| -1))), ..adopting(true) };
    let error = refused(dir.path(), &nothing);
    assert_eq!(error.status(), Status::Corrupt);
    assert!(error.message().contains("walk") && data(dir.path(), u64::MAX) == before, "{error}");
    assert_eq!(open(dir.path(), &adopting(true)).offsets().unwrap().committed, end);
}

#[test]
fn adoption_needs_raw_and_a_file_size() {
    for options in [Options { file_size: 0, ..adopting(true) }, Options { adopt: true, ..record() }] {
        let (dir, _) = commit_log();
        let before = snapshot(dir.path());
        let error = refused(dir.path(), &options);
        assert_eq!(error.status(), Status::Invalid);
        assert!(error.message().contains("MFQ_OPEN_ADOPT") && snapshot(dir.path()) == before, "{error}");
    }
}

#[test]
fn an_empty_directory_becomes_a_new_queue() {
    let dir = scratch();
    let queue = open(dir.path(), &adopting(true));
    assert_eq!(queue.recovery().unwrap().ended, Ended::Created);
    assert_eq!(queue.append(b"the first").unwrap().offset, 0);
}

#[test]
fn an_adoption_that_fails_at_any_call_can_be_made_again() {
    const CALLS: [Call; 10] = [
        Call::Open,
        Call::MakeDirectory,
        Call::List,
        Call::Rename,
        Call::Unlink,
        Call::Allocate,
        Call::WriteAt,
        Call::SyncDirectory,
        Call::SyncData,
        Call::SyncRange,
    ];
    let mut cases = 0;
    for call in CALLS {
        for nth in 1.. {
            let (dir, end) = commit_log();
            let before = data(dir.path(), end);
            let os = FaultyOs::new(native());
            os.fail_nth(call, nth, Fault::Errno(libc::EIO));
            let opened = try_open_on(os.clone(), dir.path(), &adopting(true));
            if os.count(call) < nth {
                break;
            }
            if let Err(error) = &opened {
                assert_eq!(error.status(), Status::Io, "{error}");
            }
            os.heal();
            drop(opened);
            let queue = open(dir.path(), &adopting(true));
            assert_eq!(queue.offsets().unwrap().committed, end, "{call:?} {nth}");
            assert!(data(dir.path(), end) == before, "{call:?} {nth}");
            cases += 1;
        }
    }
    assert!(cases > 20, "{cases}");
}
