//! What a power cut leaves: another boot, so pages of different ages. A queue that was closed is all there; one that was
//! not ends at the first thing that is not whole, but never below what was flushed.
//!
//! A copy of the directory of an open queue is what a kill would have left; `FaultyOs` says that it is another boot.

#[path = "support/engine.rs"]
mod engine;

use engine::as_killed_now;
use mfq::os::FaultyOs;
use mfq::{Deadline, Filler, Format, Options, Queue, ReadOutcome, Status, os};
use std::fs;
use std::path::Path;

const FILE: u64 = 4096;
const RAW: [Filler; 2] = [Filler::Zero, Filler::RocketMq];

fn open(path: &Path, format: Format, filler: Filler) -> Queue {
    let options = Options { file_size: FILE, format, filler, ..Options::default() };
    Queue::open(os::native(), path, &options).unwrap()
}

fn open_after_reboot(path: &Path, format: Format, filler: Filler) -> Queue {
    let os = FaultyOs::new(os::native());
    os.set_boot_id(*b"another boot now");
    let options = Options { file_size: FILE, format, filler, ..Options::default() };
    Queue::open(os, path, &options).unwrap()
}

fn close(queue: Queue) {
    queue.begin_close();
    queue.finish_close().unwrap();
}

fn read(queue: &Queue, offset: u64) -> Result<Vec<u8>, Status> {
    let mut buf = vec![0; FILE as usize];
    // SAFETY: `buf` has so many bytes.
    match unsafe { queue.read(offset, buf.as_mut_ptr(), buf.len()) }.map_err(|error| error.status())? {
        ReadOutcome::Copied { len, .. } => Ok(buf[..len].to_vec()),
        ReadOutcome::TooSmall { .. } => unreachable!("a record is not longer than its file"),
    }
}

fn flush(queue: &Queue, up_to: u64) {
    queue.flush(up_to, Deadline::after_ms(60_000)).unwrap();
}

fn committed(queue: &Queue) -> u64 {
    queue.offsets().unwrap().committed
}

#[test]
fn a_queue_that_was_closed_is_all_there_after_a_reboot() {
    for (format, filler) in [(Format::Record, Filler::Zero), (Format::Raw, RAW[0]), (Format::Raw, RAW[1])] {
        let work = tempfile::tempdir().unwrap();
        let queue = open(work.path(), format, filler);
        // The last bytes are zeros, which after a power cut alone would not be taken for data.
        let records: Vec<Vec<u8>> = (0..50u8).map(|i| vec![i; 300]).chain([vec![0; 700]]).collect();
        let spans: Vec<_> = records.iter().map(|record| queue.append(record).unwrap()).collect();
        let end = committed(&queue);
        close(queue);
        let queue = open_after_reboot(work.path(), format, filler);
        assert_eq!((committed(&queue), queue.offsets().unwrap().flushed), (end, end));
        for (at, record) in spans.iter().zip(&records) {
            assert!(read(&queue, at.offset).unwrap().starts_with(record));
        }
    }
}

#[test]
fn record_is_cut_at_an_open_claim_after_a_reboot() {
    let lives = tempfile::tempdir().unwrap();
    let queue = open(lives.path(), Format::Record, Filler::Zero);
    let before: Vec<_> = (0..20u8).map(|i| (queue.append(&[i; 500]).unwrap(), i)).collect();
    let claim = queue.claim(100).unwrap();
    let behind: Vec<_> = (0..40u8).map(|i| (queue.append(&[i; 500]).unwrap(), i)).collect();
    let cut = as_killed_now(lives.path());

    let queue = open_after_reboot(cut.path(), Format::Record, Filler::Zero);
    assert_eq!(committed(&queue), claim.offset);
    before.iter().for_each(|(at, i)| assert_eq!(read(&queue, at.offset).unwrap(), [*i; 500]));
    behind.iter().for_each(|(at, _)| assert_eq!(read(&queue, at.offset), Err(Status::End)));
    // The log goes on at the cut, and nothing of what was behind comes back.
    let at = queue.append(b"after the power cut").unwrap();
    assert_eq!(at.offset, claim.offset);
    assert_eq!(committed(&queue), at.end);
    close(queue);
    let queue = open(cut.path(), Format::Record, Filler::Zero);
    assert_eq!(read(&queue, at.offset).unwrap(), b"after the power cut");
    assert_eq!(committed(&queue), at.end);
}

#[test]
fn record_passes_over_an_open_claim_in_the_same_boot() {
    let lives = tempfile::tempdir().unwrap();
    let queue = open(lives.path(), Format::Record, Filler::Zero);
    queue.append(b"before").unwrap();
    let claim = queue.claim(100).unwrap();
    let behind: Vec<_> = (0..40u8).map(|i| (queue.append(&[i; 500]).unwrap(), i)).collect();
    let killed = as_killed_now(lives.path());

    let options = Options { read_only: true, ..Options::default() };
    let queue = Queue::open(os::native(), killed.path(), &options).unwrap();
    behind.iter().for_each(|(at, i)| assert_eq!(read(&queue, at.offset).unwrap(), [*i; 500]));
    assert_eq!(read(&queue, claim.offset).unwrap(), [0; 500], "a claim is no record");
    drop(queue);
    let queue = open(killed.path(), Format::Record, Filler::Zero);
    behind.iter().for_each(|(at, i)| assert_eq!(read(&queue, at.offset).unwrap(), [*i; 500]));
    flush(&queue, u64::MAX);

    // The claim is padding on disk by now, so that a power cut does not cut there any more.
    let cut = as_killed_now(killed.path());
    let queue = open_after_reboot(cut.path(), Format::Record, Filler::Zero);
    behind.iter().for_each(|(at, i)| assert_eq!(read(&queue, at.offset).unwrap(), [*i; 500]));
}

#[test]
fn record_keeps_what_was_flushed_after_a_reboot() {
    let lives = tempfile::tempdir().unwrap();
    let queue = open(lives.path(), Format::Record, Filler::Zero);
    let flushed: Vec<_> = (0..30u8).map(|i| (queue.append(&[i; 700]).unwrap(), i)).collect();
    flush(&queue, flushed.last().unwrap().0.end);
    queue.claim(100).unwrap();
    let cut = as_killed_now(lives.path());
    let queue = open_after_reboot(cut.path(), Format::Record, Filler::Zero);
    flushed.iter().for_each(|(at, i)| assert_eq!(read(&queue, at.offset).unwrap(), [*i; 700]));
    assert_eq!(committed(&queue), flushed.last().unwrap().0.end);
}

#[test]
fn a_batch_whose_first_page_is_older_than_its_second_is_cut_after_a_reboot() {
    let work = tempfile::tempdir().unwrap();
    let options = Options { file_size: 2 * FILE, ..Options::default() };
    let queue = Queue::open(os::native(), work.path(), &options).unwrap();
    let first = queue.append(b"flushed").unwrap();
    flush(&queue, first.end);
    queue.append_batch([&[7; 3000][..], &[8; 3000]].into_iter(), |_, _| {}).unwrap();
    let cut = as_killed_now(work.path());
    // The page that the batch begins in as it was at the flush.
    let file = cut.path().join(format!("{:020}", 0));
    let mut bytes = fs::read(&file).unwrap();
    bytes[first.end as usize..FILE as usize].fill(0);
    fs::write(&file, bytes).unwrap();

    let os = FaultyOs::new(os::native());
    os.set_boot_id(*b"another boot now");
    let queue = Queue::open(os, cut.path(), &options).unwrap();
    assert_eq!(committed(&queue), first.end);
    let at = queue.append(&[9; 5000]).unwrap();
    assert_eq!(queue.view(at.offset).unwrap().end, at.end);
    assert_eq!(committed(&queue), at.end, "what was behind the cut does not come back behind a longer record");
}

#[test]
fn raw_ends_behind_its_last_byte_that_is_not_zero_after_a_reboot() {
    for filler in RAW {
        let lives = tempfile::tempdir().unwrap();
        let queue = open(lives.path(), Format::Raw, filler);
        for i in 0..30u8 {
            queue.append(&[i + 1; 500]).unwrap();
        }
        let zeros_at_its_end = queue.append(&[[9; 10], [0; 10]].concat()).unwrap();
        let cut = as_killed_now(lives.path());
        let queue = open_after_reboot(cut.path(), Format::Raw, filler);
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
            let lives = tempfile::tempdir().unwrap();
            let queue = open(lives.path(), Format::Raw, filler);
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
            let queue = open_after_reboot(cut.path(), Format::Raw, filler);
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
    let lives = tempfile::tempdir().unwrap();
    let queue = open(lives.path(), Format::Raw, Filler::RocketMq);
    queue.append(&[7; 3000]).unwrap();
    queue.append(&[0; 2000]).unwrap(); // does not fit, and leaves no trace in the second file
    let cut = as_killed_now(lives.path());
    let queue = open_after_reboot(cut.path(), Format::Raw, Filler::RocketMq);
    assert_eq!(committed(&queue), FILE);
    assert_eq!(queue.append(b"goes on").unwrap().offset, FILE);
}
