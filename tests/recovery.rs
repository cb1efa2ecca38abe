//! What an open finds and says: how the queue had been left, where it was cut, what lay behind, what was lost.

#[path = "support/engine.rs"]
mod support;

use mfq::{Ended, Format, Options, Recovery, Result, Span, Status};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use support::*;
use tempfile::TempDir;

fn file_at(path: &Path, offset: u64) -> PathBuf {
    path.join(format!("{:020}", offset - offset % page()))
}

/// Flips a bit of the byte at `offset` of the queue.
fn flip(path: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(file_at(path, offset)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset % page()).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset % page()).unwrap();
}

fn after_reboot(path: &Path, options: &Options) -> Result<Opened> {
    let os = mfq::os::FaultyOs::new(mfq::os::native());
    os.set_boot_id(*b"after the reboot");
    try_open_on(os, path, options)
}

fn payload(i: usize) -> Vec<u8> {
    vec![i as u8 + 1; 300]
}

/// Forty records in a few files, none of them flushed, as a kill leaves them.
fn unflushed() -> (TempDir, Vec<Span>) {
    let lives = scratch();
    let queue = open(lives.path(), &record());
    let spans = (0..40).map(|i| queue.append(&payload(i)).unwrap()).collect();
    (as_killed_now(lives.path()), spans)
}

/// The same, all of them durable, and a few behind that are not.
fn durable() -> (TempDir, Vec<Span>) {
    let lives = scratch();
    let queue = open(lives.path(), &record());
    let spans = (0..40).map(|i| queue.append(&payload(i)).unwrap()).collect();
    queue.close().unwrap();
    let queue = open(lives.path(), &record());
    queue.append(b"not durable").unwrap();
    (as_killed_now(lives.path()), spans)
}

fn salvage() -> Options {
    Options { salvage: true, ..record() }
}

fn report(queue: &Opened) -> Recovery {
    queue.recovery().unwrap()
}

#[test]
fn an_open_says_how_the_queue_had_been_left() {
    for options in [record(), raw(mfq::Filler::Zero)] {
        let dir = scratch();
        let queue = open(dir.path(), &options);
        assert_eq!(report(&queue).ended, Ended::Created);
        let at = queue.append(b"a record").unwrap();
        let killed = as_killed_now(dir.path());
        let cut = as_killed_now(dir.path());
        queue.close().unwrap();
        let queue = open(dir.path(), &options);
        let clean = report(&queue);
        assert_eq!((clean.ended, clean.cut_at, clean.verified_to, clean.cut_bytes), (Ended::Clean, at.end, at.end, 0));
        let died = report(&open(killed.path(), &options));
        assert_eq!((died.ended, died.cut_at, died.verified_to), (Ended::ProcessDeath, at.end, at.end));
        let cut = report(&open_after_reboot(cut.path(), &options));
        let verified = if options.format == Format::Raw { 0 } else { at.end };
        assert_eq!((cut.ended, cut.cut_at, cut.verified_to), (Ended::PowerCut, at.end, verified));
        assert_eq!(cut.unverified_bytes(), at.end - verified);
    }
}

#[test]
fn a_whole_record_beyond_the_cut_is_reported_and_refused_under_strict() {
    // In the middle of a file, and the last of a file: what is whole lies in the next one then.
    let (_, spans) = unflushed();
    let last_of_file = spans.windows(2).position(|pair| pair[0].offset / page() != pair[1].offset / page()).unwrap();
    for damaged in [5, last_of_file, 38] {
        for rebooted in [false, true] {
            let (killed, spans) = unflushed();
            flip(killed.path(), spans[damaged].offset + 100);
            let (cut_at, beyond) = (spans[damaged].offset, spans[damaged + 1].offset);
            let before = snapshot(killed.path());
            let strict = Options { strict: true, ..record() };
            let open = |options: &Options| {
                if rebooted { after_reboot(killed.path(), options) } else { try_open(killed.path(), options) }
            };
            let error = open(&strict).err().expect("a refusal");
            assert_eq!(error.status(), Status::Corrupt);
            let name = file_at(killed.path(), beyond).display().to_string();
            assert!(error.message().contains(&name) && error.message().contains(&beyond.to_string()), "{error}");
            assert!(snapshot(killed.path()) == before, "a refused open changes nothing");

            let found = report(&open(&record()).unwrap());
            assert_eq!((found.cut_at, found.record_beyond), (cut_at, Some(beyond)));
            assert!(found.cut_bytes > 300 * (39 - damaged as u64));
            // It was cut: the next open finds nothing.
            let found = report(&open(&strict).unwrap());
            assert_eq!((found.cut_at, found.record_beyond, found.cut_bytes), (cut_at, None, 0));
        }
    }
}

#[test]
fn a_torn_tail_with_nothing_whole_behind_it_is_no_reason_to_refuse() {
    let (killed, spans) = unflushed();
    flip(killed.path(), spans[39].offset + 100);
    let queue = try_open(killed.path(), &Options { strict: true, ..record() }).unwrap();
    let found = report(&queue);
    assert_eq!((found.cut_at, found.record_beyond), (spans[39].offset, None));
    assert_eq!(found.cut_bytes, spans[39].end - spans[39].offset - 4, "16 + 300 bytes, and a gap of zeros");
}

#[test]
fn bytes_that_only_look_like_a_record_are_not_taken_for_one() {
    let lives = scratch();
    let queue = open(lives.path(), &record());
    let first = queue.append(b"a whole one").unwrap();
    let copied = &fs::read(queue.file(0)).unwrap()[..(first.end - first.offset) as usize];
    // In the payload of the torn one, aligned as a record would be.
    let torn = queue.append(&copied.repeat(20)).unwrap();
    let killed = as_killed_now(lives.path());
    flip(killed.path(), torn.offset + 8);
    let found = report(&open(killed.path(), &record()));
    assert_eq!((found.cut_at, found.record_beyond), (torn.offset, None));
}

#[test]
fn claims_that_nobody_finished_are_counted() {
    let lives = scratch();
    let queue = open(lives.path(), &record());
    for _ in 0..3 {
        queue.claim(100).unwrap();
        queue.append(b"behind a claim").unwrap();
    }
    let killed = as_killed_now(lives.path());
    let found = report(&open(killed.path(), &record()));
    assert_eq!((found.claims_passed_over, found.ended), (3, Ended::ProcessDeath));
}

#[test]
fn a_read_only_open_reports_what_it_left_alone() {
    let (killed, spans) = unflushed();
    flip(killed.path(), spans[5].offset + 100);
    let before = snapshot(killed.path());
    let found = report(&open(killed.path(), &Options { read_only: true, ..record() }));
    assert_eq!((found.cut_at, found.record_beyond), (spans[5].offset, Some(spans[6].offset)));
    assert!(found.cut_bytes > 0 && snapshot(killed.path()) == before);
}

#[test]
fn damage_below_the_durable_offset_is_corrupt_and_salvage_keeps_the_rest() {
    let (killed, spans) = durable();
    // One alone, two next to each other, the first and the last of all.
    let damaged = [0, 7, 8, 20, 39];
    damaged.iter().for_each(|&i| flip(killed.path(), spans[i].offset + 100));
    let error = refused(killed.path(), &record());
    assert_eq!(error.status(), Status::Corrupt);
    // What lies in the files before the one that the checkpoint names is noticed when it is read.
    let last = spans[39].offset;
    let name = file_at(killed.path(), last).display().to_string();
    assert!(error.message().contains(&name) && error.message().contains(&last.to_string()), "{error}");

    let kept = || (0..40).filter(|i| !damaged.contains(i)).map(payload).chain([b"not durable".to_vec()]);
    let queue = open(killed.path(), &salvage());
    let found = report(&queue);
    assert_eq!((found.lost_stretches, found.first_lost), (4, Some(0)));
    assert_eq!(found.lost_bytes, damaged.iter().map(|&i| spans[i].end - spans[i].offset).sum::<u64>());
    assert_eq!(read_all(&queue), kept().collect::<Vec<_>>());
    queue.append(b"goes on").unwrap();
    // It is an ordinary queue now, after a power cut too.
    queue.flush(u64::MAX, within(GENEROUS_MS)).unwrap();
    let cut = as_killed_now(killed.path());
    let queue = open_after_reboot(cut.path(), &record());
    assert_eq!(read_all(&queue), kept().chain([b"goes on".to_vec()]).collect::<Vec<_>>());
}

#[test]
fn salvage_ends_the_queue_where_durable_records_are_missing_at_its_end() {
    let (killed, spans) = durable();
    let last_files = file_starts(killed.path()).into_iter().filter(|start| *start >= 2 * page());
    last_files.for_each(|start| fs::remove_file(file_at(killed.path(), start)).unwrap());
    assert_eq!(refused(killed.path(), &record()).status(), Status::Corrupt);
    let queue = open(killed.path(), &salvage());
    let found = report(&queue);
    assert_eq!((found.cut_at, found.lost_stretches, found.first_lost), (2 * page(), 1, Some(2 * page())));
    assert_eq!(found.lost_bytes, spans[39].end - 2 * page());
    let at = queue.append(b"goes on").unwrap();
    assert_eq!((at.offset, queue.offsets().unwrap().flushed), (2 * page(), 2 * page()));
    queue.close().unwrap();
    assert_eq!(read_all(&open(killed.path(), &record())).last().unwrap(), b"goes on");
}

#[test]
fn salvage_steps_over_a_file_of_which_nothing_is_left() {
    let (killed, spans) = durable();
    fs::write(file_at(killed.path(), page()), vec![0; page() as usize]).unwrap();
    let queue = open(killed.path(), &salvage());
    let found = report(&queue);
    assert_eq!((found.lost_bytes, found.lost_stretches, found.first_lost), (page(), 1, Some(page())));
    let kept = (0..40).filter(|&i| spans[i].offset / page() != 1).map(payload);
    assert_eq!(read_all(&queue), kept.chain([b"not durable".to_vec()]).collect::<Vec<_>>());
}

#[test]
fn a_missing_file_in_the_middle_is_corrupt_under_salvage_too() {
    let (killed, _) = durable();
    fs::remove_file(file_at(killed.path(), page())).unwrap();
    assert_eq!(refused(killed.path(), &salvage()).status(), Status::Corrupt);
}

#[test]
fn a_checkpoint_that_is_damaged_or_missing_is_made_anew_under_salvage() {
    for missing in [false, true] {
        let (killed, spans) = durable();
        flip(killed.path(), spans[3].offset + 100);
        let checkpoint = killed.path().join(".mfq/checkpoint");
        if missing {
            fs::remove_file(checkpoint).unwrap()
        } else {
            fs::write(checkpoint, [7; 8192]).unwrap()
        }
        assert_eq!(refused(killed.path(), &record()).status(), Status::Corrupt);
        let kept = (0..40).filter(|&i| i != 3).map(payload).chain([b"not durable".to_vec()]).collect::<Vec<_>>();
        let queue = open(killed.path(), &salvage());
        assert_eq!(read_all(&queue), kept);
        assert_eq!((report(&queue).lost_stretches, queue.offsets().unwrap().flushed), (1, 0));
        queue.close().unwrap();
        assert_eq!(read_all(&open(killed.path(), &record())), kept);
    }
}

#[test]
fn raw_without_a_checkpoint_is_kept_under_salvage() {
    let lives = scratch();
    let options = raw(mfq::Filler::Zero);
    let queue = open(lives.path(), &options);
    for i in 0..30 {
        queue.append(&payload(i)).unwrap();
    }
    let killed = as_killed_now(lives.path());
    fs::remove_file(killed.path().join(".mfq/checkpoint")).unwrap();
    assert_eq!(refused(killed.path(), &options).status(), Status::Corrupt);
    let salvaged = open(killed.path(), &Options { salvage: true, ..options });
    assert_eq!(salvaged.offsets().unwrap().committed, queue.offsets().unwrap().committed);
}
