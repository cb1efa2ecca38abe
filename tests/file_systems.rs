//! What file systems cannot do, and where a queue must not be.

#[path = "support/engine.rs"]
mod support;

use mfq::os::{Call, Fault, FaultyOs, FileSystem, native};
use mfq::{Filler, Options, Status};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use support::*;

fn on(file_system: FileSystem) -> Arc<FaultyOs> {
    let os = FaultyOs::new(native());
    os.set_file_system(file_system);
    os
}

#[test]
fn where_blocks_cannot_be_reserved_zeros_take_them() {
    let _alone = alone();
    for (options, errno) in [(record(), libc::EOPNOTSUPP), (raw(Filler::RocketMq), libc::ENOSYS)] {
        let options = Options { file_size: 3 << 19, ..options }; // a step and a half
        let dir = scratch();
        let queue = open(dir.path(), &options);
        queue.os.fail_all(Call::Allocate, Fault::Errno(errno));
        let part = vec![b'p'; 1 << 20];
        for _ in 0..3 {
            queue.append(&part).unwrap();
        }
        for start in [0, 3 << 19, 2 * (3 << 19)] {
            let about = fs::metadata(queue.file(start)).unwrap();
            assert_eq!(about.len(), options.file_size);
            assert!(about.blocks() * 512 >= options.file_size, "{} blocks", about.blocks());
        }
        queue.close().unwrap();
        assert_eq!(open(dir.path(), &options).stats().unwrap().files_created, 0);
    }
}

#[test]
fn a_disk_that_fills_up_under_the_zeros_is_no_space_and_leaves_nothing() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    queue.os.fail_all(Call::Allocate, Fault::Errno(libc::EOPNOTSUPP));
    queue.os.fail_all(Call::WriteAt, Fault::Errno(libc::ENOSPC));
    let error = queue.append(b"x").unwrap_err();
    assert_eq!((error.status(), error.errno()), (Status::NoSpace, libc::ENOSPC), "{error}");
    assert!(error.message().contains(queue.file(0).to_str().unwrap()), "{error}");
    let temporary = dir.path().join(".mfq").join("00000000000000000000.tmp");
    assert!(!temporary.exists() && !queue.file(0).exists());
    queue.os.heal();
    queue.append(b"x").unwrap();
}

#[test]
fn a_network_file_system_is_refused_unless_the_host_asks_for_it() {
    let _alone = alone();
    let dir = scratch();
    let path = dir.path().join("queue");
    let refusal = |options: &Options| try_open_on(on(FileSystem::Network("NFS")), &path, options).err().unwrap();
    let error = refusal(&record());
    assert_eq!(error.status(), Status::Unsupported, "{error}");
    for word in ["NFS", "MFQ_OPEN_NETWORK", path.to_str().unwrap()] {
        assert!(error.message().contains(word), "{error}");
    }
    assert!(!path.exists(), "nothing is made there");

    let options = Options { network: true, ..record() };
    let queue = try_open_on(on(FileSystem::Network("NFS")), &path, &options).unwrap();
    queue.append(b"x").unwrap();
    queue.close().unwrap();
    let before = snapshot(&path);
    for options in [record(), Options { read_only: true, ..record() }] {
        assert_eq!(refusal(&options).status(), Status::Unsupported);
    }
    assert_eq!(snapshot(&path), before);
}

#[test]
fn copying_on_write_is_told_and_switched_off_for_new_files() {
    let _alone = alone();
    collect_log();
    for (file_system, copies) in [(FileSystem::CopyOnWrite("btrfs"), true), (FileSystem::Local, false)] {
        let dir = scratch();
        // The flag is refused where the test runs, most likely, and nothing depends on it.
        let queue = try_open_on(on(file_system), dir.path(), &record()).unwrap();
        fill_files(&queue, 3);
        let warned = logged(dir.path()).iter().filter(|line| line.contains("btrfs")).count();
        assert_eq!(warned, usize::from(copies));
        assert_eq!(queue.os.count(Call::WriteInPlace) >= 6, copies, "three small files and three large ones");
    }
}

#[test]
fn no_room_for_a_mapping_names_the_limit_and_heals() {
    let _alone = alone();
    let dir = scratch();
    let queue = open(dir.path(), &record());
    queue.os.fail_all(Call::Map, Fault::Errno(libc::ENOMEM));
    let error = queue.append(b"x").unwrap_err();
    assert_eq!((error.status(), error.errno()), (Status::NoMemory, libc::ENOMEM), "{error}");
    assert!(error.message().contains("vm.max_map_count"), "{error}");
    queue.os.heal();
    queue.append(b"x").unwrap();
    queue.close().unwrap();
    let os = FaultyOs::new(native());
    os.fail_all(Call::Map, Fault::Errno(libc::ENOMEM));
    assert_eq!(try_open_on(os, dir.path(), &record()).err().unwrap().status(), Status::NoMemory);
    assert_eq!(read_all(&open(dir.path(), &record())), [b"x"]);
}

#[test]
fn ten_thousand_files_are_appended_to_and_opened_again() {
    let _alone = alone();
    // In memory: on a disk it is the disk that takes its time.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| scratch());
    let queue = open(dir.path(), &record());
    let spans = fill_files(&queue, 10_000);
    queue.close().unwrap();
    let queue = open(dir.path(), &record());
    assert_eq!(queue.offsets().unwrap().committed, 10_000 * page());
    for span in [spans[0], spans[5_000], spans[9_999]] {
        assert_eq!(read(&queue, span.offset).unwrap(), (filling(), span.end));
    }
    assert_eq!(queue.find(spans[7_777].offset).unwrap().start(), spans[7_777].offset);
}
