//! Queues opened for reading only: several at once, none beside a writer, and nothing written whatever state they are
//! in.

#[path = "support/engine.rs"]
mod support;

use mfq::os::{Call, FaultyOs, native};
use mfq::{Filler, Options, Status, Which};
use std::fs;
use support::*;

fn reading(options: &Options) -> Options {
    Options { read_only: true, ..options.clone() }
}

fn records() -> Vec<Vec<u8>> {
    (0..10u8).map(|index| vec![index; page() as usize / 3]).collect()
}

#[test]
fn several_read_at_once_and_nobody_beside_a_writer() {
    let _alone = alone();
    for options in [record(), raw(Filler::RocketMq)] {
        let dir = scratch();
        let writer = open(dir.path(), &options);
        writer.append(b"x").unwrap();
        assert_eq!(refused(dir.path(), &reading(&options)).status(), Status::Locked);
        writer.close().unwrap();
        let readers: Vec<_> = (0..3).map(|_| open(dir.path(), &reading(&options))).collect();
        for reader in &readers {
            assert!(read(reader, 0).unwrap().0.starts_with(b"x"));
        }
        let error = refused(dir.path(), &options);
        assert_eq!(error.status(), Status::Locked);
        assert!(error.message().contains(dir.path().to_str().unwrap()), "{error}");
        drop(readers);
        open(dir.path(), &options).append(b"y").unwrap();
    }
}

#[test]
fn what_would_write_answers_read_only() {
    let _alone = alone();
    let dir = scratch();
    let writer = open(dir.path(), &record());
    let end = fill_files(&writer, 2)[1].end;
    writer.close().unwrap();
    let before = snapshot(dir.path());
    let queue = open(dir.path(), &reading(&record()));
    let refused = |error: mfq::Error| assert_eq!(error.status(), Status::ReadOnly, "{error}");
    refused(queue.append(b"x").unwrap_err());
    refused(queue.append_parts([b"x".as_slice()].into_iter()).unwrap_err());
    refused(queue.append_batch([b"x".as_slice()].into_iter(), |_, _| ()).unwrap_err());
    refused(queue.claim(1).unwrap_err());
    refused(queue.flush(u64::MAX, within(0)).unwrap_err());
    assert_eq!(queue.get_last(within(0)).unwrap().start(), page());
    queue.wait(Which::Flushed, end, within(0)).unwrap();
    assert_eq!(read_all(&queue).len(), 2);
    queue.close().unwrap();
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn nothing_is_written_by_any_kind_of_call() {
    let _alone = alone();
    for options in [record(), raw(Filler::Zero)] {
        let dir = scratch();
        let writer = open(dir.path(), &options);
        let end = records().iter().map(|bytes| writer.append(bytes).unwrap().end).max().unwrap();
        eventually("files are ready ahead", || file_starts(dir.path()).last() >= Some(&end));
        let killed = as_killed_now(dir.path());
        let before = snapshot(killed.path());
        let os = FaultyOs::new(native());
        let queue = try_open_on(os.clone(), killed.path(), &reading(&options)).unwrap();
        let offsets = queue.offsets().unwrap();
        assert_eq!((offsets.committed, offsets.reserved), (end, end));
        drop(read_all(&queue));
        assert_eq!(queue.get_last(within(0)).unwrap().start(), end - end % page());
        queue.close().unwrap();
        assert_eq!(snapshot(killed.path()), before);
        let writes = [
            Call::WriteAt,
            Call::Rename,
            Call::Unlink,
            Call::Allocate,
            Call::MakeDirectory,
            Call::SyncRange,
            Call::SyncData,
            Call::SyncDirectory,
        ];
        assert_eq!(writes.map(|call| os.count(call)), [0; 8]);
    }
}

#[test]
fn a_queue_whose_writer_was_killed_with_a_claim_open_is_read_past_it() {
    let _alone = alone();
    let dir = scratch();
    let path = dir.path().join("queue");
    let end: u64 = victim("dies_with_a_claim", dir.path()).kill().parse().unwrap();
    let before = snapshot(&path);
    let first = open(&path, &reading(&record()));
    let second = open(&path, &reading(&record()));
    for queue in [&first, &second] {
        assert_eq!(read_all(queue), [b"before".to_vec(), b"after".to_vec()]);
        let offsets = queue.offsets().unwrap();
        assert_eq!((offsets.committed, offsets.reserved), (end, end));
    }
    drop((first, second));
    assert_eq!(snapshot(&path), before);
    // A writer turns it into padding, and reads the same.
    let writer = open(&path, &record());
    assert_eq!(read_all(&writer), [b"before".to_vec(), b"after".to_vec()]);
    assert_eq!(writer.append(b"next").unwrap().offset, end);
}

#[test]
#[ignore = "started, and killed, by a_queue_whose_writer_was_killed_with_a_claim_open_is_read_past_it"]
fn dies_with_a_claim() {
    let Some(dir) = victims_directory() else { return };
    let queue = open(&dir.join("queue"), &record());
    queue.append(b"before").unwrap();
    queue.claim(100).unwrap();
    let end = queue.append(b"after").unwrap().end;
    eventually("files are ready ahead", || queue.stats().unwrap().files_created == 3);
    wait_to_be_killed(&end.to_string());
}

#[test]
fn what_lies_behind_the_end_is_not_seen() {
    let _alone = alone();
    let dir = scratch();
    let writer = open(dir.path(), &record());
    let spans: Vec<_> = records().iter().map(|bytes| writer.append(bytes).unwrap()).collect();
    let killed = as_killed_now(dir.path());
    // As after a power cut that spared a record's first page and lost the rest.
    let torn = spans[7];
    let file = killed.path().join(format!("{:020}", torn.offset - torn.offset % page()));
    let mut bytes = fs::read(&file).unwrap();
    bytes[(torn.offset % page()) as usize + 30] ^= 0xff;
    fs::write(&file, bytes).unwrap();

    let queue = open(killed.path(), &reading(&record()));
    let see = |queue: &Opened| {
        let offsets = queue.offsets().unwrap();
        let (status, records) = (read(queue, torn.offset).unwrap_err().status(), read_all(queue));
        assert_eq!((offsets.committed, offsets.reserved), (torn.offset, torn.offset));
        assert_eq!(status, Status::End);
        assert_eq!(records, records[..7]);
    };
    see(&queue);
    assert_eq!(queue.wait(Which::Committed, torn.end, within(0)).unwrap_err().status(), Status::Timeout);
    queue.close().unwrap();
    see(&open(killed.path(), &record()));
}

#[test]
fn an_empty_queue_has_no_last_file() {
    let _alone = alone();
    let dir = scratch();
    open(dir.path(), &record()).close().unwrap();
    let queue = open(dir.path(), &reading(&record()));
    assert_eq!(queue.get_last(within(0)).err().unwrap().status(), Status::ReadOnly);
    assert_eq!(read(&queue, 0).unwrap_err().status(), Status::End);
}
