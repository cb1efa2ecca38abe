//! What a power cut leaves: another boot, so pages of different ages. A queue that was not closed ends at the first
//! thing that is not whole, but never below what was flushed.
//!
//! A copy of the directory of an open queue is what a kill would have left; `FaultyOs` says that it is another boot.

#[path = "support/engine.rs"]
mod support;

use mfq::{Filler, Options, Queue, Status};
use std::fs;
use support::{GENEROUS_MS, as_killed_now, open, open_after_reboot, page, raw, record, scratch, within};

const RAW: [Filler; 2] = [Filler::Zero, Filler::RocketMq];

fn read(queue: &Queue, offset: u64) -> Result<Vec<u8>, Status> {
    support::read(queue, offset).map(|(bytes, _)| bytes).map_err(|error| error.status())
}

fn flush(queue: &Queue, up_to: u64) {
    queue.flush(up_to, within(GENEROUS_MS)).unwrap();
}

fn committed(queue: &Queue) -> u64 {
    queue.offsets().unwrap().committed
}

#[test]
fn record_is_cut_at_an_open_claim_after_a_reboot() {
    let lives = scratch();
    let queue = open(lives.path(), &record());
    let before: Vec<_> = (0..20u8).map(|i| (queue.append(&[i; 500]).unwrap(), i)).collect();
    let claim = queue.claim(100).unwrap();
    let behind: Vec<_> = (0..40u8).map(|i| (queue.append(&[i; 500]).unwrap(), i)).collect();
    let cut = as_killed_now(lives.path());

    let queue = open_after_reboot(cut.path(), &record());
    assert_eq!(committed(&queue), claim.offset);
    before.iter().for_each(|(at, i)| assert_eq!(read(&queue, at.offset).unwrap(), [*i; 500]));
    behind.iter().for_each(|(at, _)| assert_eq!(read(&queue, at.offset), Err(Status::End)));
    // The log goes on at the cut, and nothing of what was behind comes back.
    let at = queue.append(b"after the power cut").unwrap();
    assert_eq!(at.offset, claim.offset);
    assert_eq!(committed(&queue), at.end);
    queue.close().unwrap();
    let queue = open(cut.path(), &record());
    assert_eq!(read(&queue, at.offset).unwrap(), b"after the power cut");
    assert_eq!(committed(&queue), at.end);
}

#[test]
fn record_passes_over_an_open_claim_in_the_same_boot() {
    let lives = scratch();
    let queue = open(lives.path(), &record());
    queue.append(b"before").unwrap();
    let claim = queue.claim(100).unwrap();
    let behind: Vec<_> = (0..40u8).map(|i| (queue.append(&[i; 500]).unwrap(), i)).collect();
    let killed = as_killed_now(lives.path());

    let options = Options { read_only: true, ..Options::default() };
    let queue = open(killed.path(), &options);
    behind.iter().for_each(|(at, i)| assert_eq!(read(&queue, at.offset).unwrap(), [*i; 500]));
    assert_eq!(read(&queue, claim.offset).unwrap(), [0; 500], "a claim is no record");
    drop(queue);
    let queue = open(killed.path(), &record());
    behind.iter().for_each(|(at, i)| assert_eq!(read(&queue, at.offset).unwrap(), [*i; 500]));
    flush(&queue, u64::MAX);

    // The claim is padding on disk by now, so that a power cut does not cut there any more.
    let cut = as_killed_now(killed.path());
    let queue = open_after_reboot(cut.path(), &record());
    behind.iter().for_each(|(at, i)| assert_eq!(read(&queue, at.offset).unwrap(), [*i; 500]));
}

#[test]
fn record_keeps_what_was_flushed_after_a_reboot() {
    let lives = scratch();
    let queue = open(lives.path(), &record());
    let flushed: Vec<_> = (0..30u8).map(|i| (queue.append(&[i; 700]).unwrap(), i)).collect();
    flush(&queue, flushed.last().unwrap().0.end);
    queue.claim(100).unwrap();
    let cut = as_killed_now(lives.path());
    let queue = open_after_reboot(cut.path(), &record());
    flushed.iter().for_each(|(at, i)| assert_eq!(read(&queue, at.offset).unwrap(), [*i; 700]));
    assert_eq!(committed(&queue), flushed.last().unwrap().0.end);
}

#[test]
fn a_batch_whose_first_page_is_older_than_its_second_is_cut_after_a_reboot() {
    let work = scratch();
    let options = Options { file_size: 2 * page(), ..Options::default() };
    let queue = open(work.path(), &options);
    let first = queue.append(b"flushed").unwrap();
    flush(&queue, first.end);
    queue.append_batch([&[7; 3000][..], &[8; 3000]].into_iter(), |_, _| {}).unwrap();
    let cut = as_killed_now(work.path());
    // The page that the batch begins in as it was at the flush.
    let file = cut.path().join(format!("{:020}", 0));
    let mut bytes = fs::read(&file).unwrap();
    bytes[first.end as usize..page() as usize].fill(0);
    fs::write(&file, bytes).unwrap();

    let queue = open_after_reboot(cut.path(), &options);
    assert_eq!(committed(&queue), first.end);
    let at = queue.append(&[9; 5000]).unwrap();
    assert_eq!(queue.view(at.offset).unwrap().end, at.end);
    assert_eq!(committed(&queue), at.end, "what was behind the cut does not come back behind a longer record");
}

#[test]
fn raw_ends_behind_its_last_byte_that_is_not_zero_after_a_reboot() {
    for filler in RAW {
        let lives = scratch();
        let queue = open(lives.path(), &raw(filler));
        for i in 0..30u8 {
            queue.append(&[i + 1; 500]).unwrap();
        }
        let zeros_at_its_end = queue.append(&[[9; 10], [0; 10]].concat()).unwrap();
        let cut = as_killed_now(lives.path());
        let queue = open_after_reboot(cut.path(), &raw(filler));
        assert_eq!(committed(&queue), zeros_at_its_end.offset + 10);
        let at = queue.append(b"goes on").unwrap();
        assert_eq!(at.offset, zeros_at_its_end.offset + 10);
        assert_eq!(read(&queue, zeros_at_its_end.offset).unwrap(), [&[9; 10][..], b"goes on"].concat());
    }
}

#[test]
fn raw_does_not_end_below_what_was_flushed_after_a_reboot() {
    for filler in RAW {
        for flushed_files in [0, 3] {
            let lives = scratch();
            let queue = open(lives.path(), &raw(filler));
            for i in 0..7 * flushed_files {
                queue.append(&[i + 1; 500]).unwrap();
            }
            let zeros = queue.append(&[0; 100]).unwrap();
            flush(&queue, zeros.end);
            // More zeros, in files behind: nothing shows that they were appended, and they were not flushed.
            for _ in 0..20 {
                queue.append(&[0; 500]).unwrap();
            }
            let cut = as_killed_now(lives.path());
            let queue = open_after_reboot(cut.path(), &raw(filler));
            let end = committed(&queue);
            match filler {
                Filler::Zero => assert_eq!(end, zeros.end),
                // The blanks between the files show.
                Filler::RocketMq => assert!(end > zeros.end),
            }
            assert_eq!(read(&queue, zeros.offset).unwrap()[..100], [0; 100]);
        }
    }
}

/// In mid-file a blank would hide from a broker what is appended behind it.
#[test]
fn raw_goes_on_behind_the_file_that_a_blank_ends_after_a_reboot() {
    let lives = scratch();
    let queue = open(lives.path(), &raw(Filler::RocketMq));
    queue.append(&[7; 3000]).unwrap();
    queue.append(&[0; 2000]).unwrap(); // does not fit, and leaves no trace in the second file
    let cut = as_killed_now(lives.path());
    let queue = open_after_reboot(cut.path(), &raw(Filler::RocketMq));
    assert_eq!(committed(&queue), page());
    assert_eq!(queue.append(b"goes on").unwrap().offset, page());
}
