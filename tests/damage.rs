//! Damage that could be taken for something else. A commit word whose top bit was flipped on disk looks like a claim
//! that nobody finished: it must not be passed over where there can be no such claim. An older checkpoint tells of a
//! queue that was closed, and was not when the newer one was lost.

#[path = "support/engine.rs"]
mod support;

use mfq::{Options, Status};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use support::*;

/// Flips the top bit of the little-endian word at `offset`, in the first file.
fn flip(path: &Path, offset: u64) {
    let name = path.join(format!("{:020}", 0));
    let file = fs::OpenOptions::new().read(true).write(true).open(name).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset + 3).unwrap();
    file.write_all_at(&[byte[0] ^ 0x80], offset + 3).unwrap();
}

#[test]
fn a_committed_record_that_looks_claimed_is_corrupt_and_not_passed_over() {
    let work = scratch();
    let queue = open(work.path(), &record());
    let spans: Vec<_> = (0..3u8).map(|i| queue.append(&[i; 100]).unwrap()).collect();
    assert_eq!(queue.offsets().unwrap().committed, spans[2].end);
    flip(work.path(), spans[1].offset);
    assert_eq!(queue.view(spans[0].offset).unwrap().end, spans[0].end);
    let seen = queue.view(spans[1].offset).map(|view| view.offset).map_err(|error| error.status());
    assert_eq!(seen, Err(Status::Corrupt));
}

#[test]
fn bytes_in_a_record_that_look_like_a_claim_are_no_way_to_the_next_one() {
    let work = scratch();
    let queue = open(work.path(), &record());
    // 16 bytes claimed, right before the next record.
    let at = queue.append(&[[0x10, 0, 0, 0x80].as_slice(), &[0; 12]].concat()).unwrap();
    queue.append(b"the next one").unwrap();
    let seen = queue.view(at.offset + 16).map(|view| view.offset).map_err(|error| error.status());
    assert_eq!(seen, Err(Status::Corrupt));
}

#[test]
fn a_durable_record_that_looks_claimed_is_corrupt_when_the_queue_is_recovered() {
    let work = scratch();
    let queue = open(work.path(), &record());
    let spans: Vec<_> = (0..3u8).map(|i| queue.append(&[i; 100]).unwrap()).collect();
    drop(queue);
    // Open again, and not closed: the lock goes with the process only, so what a kill leaves is looked at in a copy.
    let queue = open(work.path(), &record());
    queue.append(b"not durable").unwrap();
    let killed = as_killed_now(work.path());
    flip(killed.path(), spans[1].offset);
    assert_eq!(refused(killed.path(), &record()).status(), Status::Corrupt);
}

#[test]
fn a_durable_record_that_looks_claimed_is_corrupt_for_who_only_reads() {
    let work = scratch();
    let queue = open(work.path(), &record());
    let spans: Vec<_> = (0..3u8).map(|i| queue.append(&[i; 100]).unwrap()).collect();
    queue.close().unwrap();
    flip(work.path(), spans[1].offset);
    let queue = open(work.path(), &Options { read_only: true, ..record() });
    assert_eq!(queue.view(spans[0].offset).unwrap().end, spans[0].end);
    assert_eq!(queue.view(spans[1].offset).map(|view| view.offset).unwrap_err().status(), Status::Corrupt);
}

#[test]
fn a_damaged_checkpoint_does_not_bring_an_older_clean_mark_back() {
    for slot in [0, 4096] {
        let work = scratch();
        open(work.path(), &record()).append(b"before").unwrap(); // closed when it is dropped
        let queue = open(work.path(), &record());
        let end = queue.append(b"flushed").unwrap().end;
        queue.flush(end, within(GENEROUS_MS)).unwrap();
        let killed = as_killed_now(work.path());
        let checkpoint = fs::OpenOptions::new().write(true).open(killed.path().join(".mfq/checkpoint")).unwrap();
        checkpoint.write_all_at(b"damaged!", slot).unwrap();
        assert_eq!(read_all(&open(killed.path(), &record())), [b"before".to_vec(), b"flushed".to_vec()]);
    }
}

#[test]
fn a_record_behind_the_end_of_a_closed_queue_is_none_at_the_beginning_of_a_page_either() {
    let work = scratch();
    open(work.path(), &record()).append(b"behind the end").unwrap(); // closed when it is dropped
    write_checkpoint(work.path(), [1000, 0, 0, 1]);
    let queue = open(work.path(), &record());
    assert_eq!(queue.offsets().unwrap().committed, 0);
    assert_eq!(queue.append(b"the first").unwrap().offset, 0);
}

#[test]
fn bytes_behind_the_end_of_a_closed_queue_do_not_hide_what_is_flushed_later() {
    let work = scratch();
    let end = open(work.path(), &record()).append(b"before").unwrap().end; // closed when it is dropped
    let file = fs::OpenOptions::new().write(true).open(work.path().join(format!("{:020}", 0))).unwrap();
    file.write_all_at(&[1], end).unwrap(); // a bit of the commit word that comes next
    let queue = open(work.path(), &record());
    let at = queue.append(b"flushed").unwrap();
    queue.flush(at.end, within(GENEROUS_MS)).unwrap();
    let killed = as_killed_now(work.path());
    assert_eq!(read_all(&open(killed.path(), &record())), [b"before".to_vec(), b"flushed".to_vec()]);
}

#[test]
fn a_record_that_ends_behind_the_end_of_a_closed_queue_is_none_for_who_only_reads_either() {
    let work = scratch();
    open(work.path(), &record()).append(&[7; 100]).unwrap(); // closed when it is dropped
    write_checkpoint(work.path(), [1000, 56, 0, 1]);
    for read_only in [true, false] {
        let queue = open(work.path(), &Options { read_only, ..record() });
        assert_eq!(queue.offsets().unwrap().committed, 56);
        let seen = queue.view(0).map(|view| view.end).map_err(|error| error.status());
        assert_eq!(seen, Err(Status::Corrupt), "read only: {read_only}");
    }
}

/// A checkpoint as the library writes it, with numbers that it would never write.
fn write_checkpoint(path: &Path, words: [u64; 4]) {
    let mut bytes = b"mfq-chkp".to_vec();
    words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes);
    bytes.extend(crc.to_le_bytes());
    let file = fs::OpenOptions::new().write(true).open(path.join(".mfq/checkpoint")).unwrap();
    file.write_all_at(&bytes, words[0] % 2 * 4096).unwrap();
}

#[test]
fn a_checkpoint_whose_numbers_cannot_be_is_corrupt() {
    let huge = 0xB1B1_B1B1_B1B1_B1B1;
    // Epoch, durable, first, clean.
    for words in [
        [9, u64::MAX, huge, 0],
        [9, page(), 5, 0],
        [9, 0, page(), 0],
        [9, u64::MAX, 0, 0],
        [9, 12, 0, 1],
        [u64::MAX, 0, 0, 0],
    ] {
        let work = scratch();
        let queue = open(work.path(), &record());
        queue.append(&[7; 100]).unwrap();
        queue.close().unwrap();
        write_checkpoint(work.path(), words);
        let error = refused(work.path(), &record());
        assert_eq!(error.status(), Status::Corrupt, "{error}");
    }
    let work = scratch();
    open(work.path(), &record()).close().unwrap();
    write_checkpoint(work.path(), [9, 0, 0, 0]);
    assert!(try_open(work.path(), &record()).is_ok(), "one that can be is taken");
}
