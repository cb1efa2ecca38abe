//! The power goes at any moment: everything flushed is there when the queue is opened again, and what else is there is
//! a prefix of what was appended.
//!
//! The disk is an ext4 of the test's own ([`support::disk`]), and a shutdown that flushes nothing is the power cut:
//! what was not synced is really lost. A child process appends and flushes from several threads ([`support::crash`])
//! and notes what it was promised outside of that disk. The boot is the same one afterwards, but the mount is another,
//! so the rules of a power cut apply. `MFQ_POWER_CYCLES` says how often; 20 is the default. `MFQ_POWER_SEED` repeats
//! what was chosen at random, but for the moment that the child has reached.
//!
//! All of it needs root, loop devices and mkfs.ext4. Under CI=true they must be there; elsewhere it is told that
//! nothing was tested.

mod support;

use mfq::{Filler, Format, Offsets, Options, Queue, Status};
use std::hash::{BuildHasher, RandomState};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, io};
use support::crash::*;
use support::disk::Disk;
use support::engine::{Watchdog, file_starts, open, page, read, record, try_open, within};
use support::records::{Found, Label, read_all};

#[test]
#[ignore = "the other process of the power cut test"]
fn victim() {
    die();
}

/// What is known of one queue over all of its power cuts.
#[derive(Default)]
struct Known {
    records: Vec<Found>,
    /// Everything below is on the disk: it was flushed, or closed.
    durable: u64,
    /// Where it begins.
    first: u64,
}

#[derive(Default)]
struct Tally {
    cycles: u32,
    returned: u64,
    /// Of those of RECORD: what was not flushed, and is gone.
    gone: u64,
    flushes: u32,
    durable_bytes: u64,
    while_opening: u32,
    after_opening: u32,
    closed: u32,
    staged: u32,
    every_append: u32,
    truncations: u32,
    in_truncation: u32,
    events: u32,
}

/// Opens the queue after the power is back, compares, and returns how many appends that had returned are gone, in
/// RECORD. Closes it, or leaves it as it is for the next child to recover.
fn look(plan: &Plan, directory: &Path, oracle: &Oracle, known: &mut Known, leave: bool) -> u32 {
    let options = Options { read_only: leave, existing: leave, ..plan.options() };
    let queue = match try_open(directory, &options) {
        // There was none yet that would last.
        Err(error) if error.status() == Status::NotFound => {
            assert_eq!((known.first, known.durable), (0, 0), "{error}");
            known.records.clear();
            return 0;
        }
        opened => opened.unwrap(),
    };
    let Offsets { min: first, committed: end, .. } = queue.offsets().unwrap();
    oracle.check_first(known.first, first);
    known.first = first;
    assert!(end >= known.durable, "the log ends at {end}, but {} was flushed", known.durable);
    let survives = Survives::Below { flushed: known.durable, end };
    let mut gone = 0;
    match plan.format {
        Format::Record => {
            let found = read_all(&queue, plan.format, plan.filler);
            gone = oracle.appends(plan, first) - check(plan, oracle, &known.records, &found, first, survives);
            known.records = found;
        }
        // Behind what was flushed nothing is promised of RAW.
        Format::Raw => {
            known.records.extend(returned_below(plan, oracle, known.durable));
            known.records.retain(|record| record.offset >= first && record.end <= known.durable);
            known.records.iter().for_each(|record| assert_is_there(&queue, record));
        }
    }
    if leave {
        return gone;
    }
    // It goes on, and what recovery kept is durable once it is flushed again.
    let cycle = u32::MAX;
    let last = Label::single(cycle, 0, known.records.len() as u32).record(100);
    let span = queue.append(&last).unwrap();
    queue.flush(span.end, within(30_000)).unwrap();
    queue.close().unwrap();
    known.durable = span.end;
    let (label, len) = Label::read(&last).unwrap();
    known.records.push(Found { offset: span.offset, end: span.end, label, len });
    gone
}

fn assert_is_there(queue: &Queue, record: &Found) {
    let view = queue.view(record.offset).unwrap();
    // SAFETY: the view holds its file, and nobody writes what is committed.
    let bytes = unsafe { std::slice::from_raw_parts(view.ptr, view.len) };
    assert_eq!(Label::read(bytes), Some((record.label, record.len)), "what was flushed is not there: {record:?}");
}

/// Several cycles on one directory, then a new one.
fn cut_again_and_again(disk: &Disk, cycles: u32, seed: u64) -> Tally {
    let mut random = Random(seed | 1);
    let mut tally = Tally::default();
    while tally.cycles < cycles {
        // A new name: that the last one was removed may be lost, too.
        let directory = disk.path().join(format!("queue-{}", tally.cycles));
        let (format, filler) = match random.below(4) {
            0..2 => (Format::Record, Filler::Zero),
            2 => (Format::Raw, Filler::Zero),
            _ => (Format::Raw, Filler::RocketMq),
        };
        let file_bytes = 4096 * (1 + random.below(3));
        let mut known = Known::default();
        for _ in 0..1 + random.below(8) {
            tally.cycles += 1;
            let cycle = tally.cycles;
            let stop = if format == Format::Record && random.below(8) == 0 { Stop::Claim } else { Stop::Nowhere };
            let (phase, within_us, close_after) = match random.below(8) {
                0 => (OPENING, 4_000, u32::MAX),
                1 => (APPENDING, 1, u32::MAX), // right after recovery
                2 => (CLOSING, 4_000, random.below(100) as u32),
                3 => (CLOSED, 1, random.below(100) as u32),
                _ => (APPENDING, 30_000, u32::MAX),
            };
            let habit =
                if stop == Stop::Nowhere { HABITS[random.below(HABITS.len() as u64) as usize] } else { Habit::Plain };
            let plan = Plan { format, filler, file_bytes, cycle, threads: 5, stop, close_after, habit };
            let told = disk.beside().join("oracle");
            let _ = fs::remove_file(&told);
            let shared = Shared::open(&told);
            let oracle = shared.oracle();
            let mut child = spawn(&plan, &directory, &told);
            wait_for(&mut child, oracle, phase, Duration::from_micros(random.below(within_us)));
            // Before the cut: ext4 answers some syncs that it overtakes with success.
            let mut durable = oracle.flushed_from_now();
            let closed = oracle.phase() == CLOSED;
            if closed {
                durable = oracle.appended();
            }
            oracle.set_power_off();
            disk.cut_power();
            child.kill().unwrap();
            let status = child.wait().unwrap();
            // A store to a page that the disk is to give raises SIGBUS: the host dies, as it would without power.
            let ended = status.success() || matches!(status.signal(), Some(libc::SIGKILL | libc::SIGBUS));
            assert!(ended, "the child failed: {status}");
            disk.restart();
            known.durable = known.durable.max(durable.min(oracle.least_cut()));

            let gone = look(&plan, &directory, oracle, &mut known, random.below(2) == 0);
            tally.gone += u64::from(gone);
            tally.returned += u64::from(oracle.returned());
            tally.flushes += oracle.flushes();
            tally.events += oracle.events();
            tally.truncations += oracle.truncations();
            tally.in_truncation += u32::from(oracle.is_cutting(&plan));
            tally.staged += u32::from(habit.is_staged());
            tally.every_append += u32::from(habit == Habit::EveryAppend);
            match oracle.phase() {
                OPENING => tally.while_opening += 1,
                APPENDING if within_us == 1 => tally.after_opening += 1,
                _ => {}
            }
            tally.closed += u32::from(closed);
        }
        tally.durable_bytes += known.durable;
        let _ = fs::remove_dir_all(directory);
    }
    tally
}

#[test]
fn a_power_cut_loses_nothing_that_was_flushed() {
    let cycles = env::var("MFQ_POWER_CYCLES").map_or(20, |cycles| cycles.parse::<u32>().unwrap());
    let seed = env::var("MFQ_POWER_SEED").map_or_else(|_| RandomState::new().hash_one(0), |seed| seed.parse().unwrap());
    eprintln!("MFQ_POWER_SEED={seed}");
    let _watchdog = Watchdog::new("the power cut loop", 600 + u64::from(cycles));
    let Some(disk) = Disk::new(64) else { return };
    let tally = cut_again_and_again(&disk, cycles, seed);
    eprintln!(
        "power cuts: {} cycles, {} flushes returned with {} KiB durable, 0 lost; {} calls returned, {} appends that were \
         not flushed are gone; {} cut while opening, {} right after it, {} after a close; {} staged; {} with every \
         append durable; {} truncations returned, {} cut in one; {} moves of flushed told by the descriptor",
        tally.cycles,
        tally.flushes,
        tally.durable_bytes >> 10,
        tally.returned,
        tally.gone,
        tally.while_opening,
        tally.after_opening,
        tally.closed,
        tally.staged,
        tally.every_append,
        tally.truncations,
        tally.in_truncation,
        tally.events,
    );
    assert!(tally.flushes > 0 && tally.durable_bytes > 0, "nothing was flushed");
    let seldom = [tally.staged, tally.every_append, tally.truncations, tally.events];
    assert!(cycles < 100 || seldom.iter().all(|&count| count > 0), "{seldom:?}");
    assert!(tally.gone > 0 || cycles < 100, "the power was never cut: nothing is lost");
}

#[test]
fn a_disk_that_is_gone_poisons_the_queue_and_the_queue_recovers_elsewhere() {
    let Some(disk) = Disk::new(64) else { return };
    let path = disk.path().join("queue");
    let queue = open(&path, &record());
    let durable = queue.append(b"durable").unwrap();
    queue.flush(durable.end, within(30_000)).unwrap();
    let lost = queue.append(b"only in memory").unwrap();
    disk.cut_power();
    let error = queue.flush(lost.end, within(30_000)).unwrap_err();
    match error.status() {
        Status::Poisoned => {} // a checkpoint came first
        status => assert_eq!((status, error.errno()), (Status::Io, libc::EIO), "{error}"),
    }
    for refused in [queue.flush(lost.end, within(0)), queue.append(b"x").map(drop)] {
        assert_eq!(refused.unwrap_err().status(), Status::Poisoned);
    }
    assert_eq!(queue.offsets().unwrap().flushed, durable.end);
    assert_eq!(read(&queue, lost.offset).unwrap().0, b"only in memory", "what is in memory can be read");
    assert_eq!(queue.close().unwrap_err().status(), Status::Poisoned);
    disk.restart();
    let queue = open(&path, &record());
    assert_eq!(read(&queue, durable.offset).unwrap().0, b"durable");
    assert_eq!(queue.append(b"it goes on").unwrap().offset, lost.offset);
    queue.close().unwrap();
}

/// Takes what space there is, root's share included. Freed when the file is removed.
fn fill(disk: &Disk) -> PathBuf {
    let path = disk.path().join("ballast");
    let mut ballast = fs::File::create(&path).unwrap();
    let full = io::copy(&mut io::repeat(1), &mut ballast).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    path
}

#[test]
fn a_queue_recovers_and_reads_on_a_disk_without_a_free_byte() {
    let Some(disk) = Disk::new(64) else { return };
    for format in [Format::Record, Format::Raw] {
        let path = disk.path().join(format!("{format:?}"));
        let options = Options { format, ..record() };
        let queue = open(&path, &options);
        let span = queue.append(b"durable").unwrap();
        queue.flush(span.end, within(30_000)).unwrap();
        disk.cut_power();
        queue.close().unwrap_err();
        disk.restart();
        let ballast = fill(&disk);
        let queue = open(&path, &options);
        let view = queue.view(0).unwrap();
        // SAFETY: the view holds its file, and nobody writes what is committed.
        assert_eq!(unsafe { std::slice::from_raw_parts(view.ptr, view.len) }, b"durable");
        drop(view);
        let span = queue.append(b"into the file that is there").unwrap();
        queue.flush(span.end, within(30_000)).unwrap();
        queue.close().unwrap();
        fs::remove_file(ballast).unwrap();
        fs::File::open(disk.path()).unwrap().sync_all().unwrap(); // ext4 gives its blocks out again after a commit
    }
}

#[test]
fn a_full_disk_refuses_the_append_that_needs_a_file_and_takes_it_once_there_is_space() {
    let Some(disk) = Disk::new(64) else { return };
    let path = disk.path().join("queue");
    let options = Options { file_size: 256 * page(), ..record() };
    let queue = open(&path, &options);
    queue.append(b"x").unwrap();
    let ballast = fill(&disk);
    let record = vec![b'r'; 200 * page() as usize];
    let mut appended = 0;
    let refused = loop {
        match queue.append(&record) {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((refused.status(), refused.errno()), (Status::NoSpace, libc::ENOSPC), "{refused}");
    assert_eq!(appended, file_starts(&path).len(), "one in each file, those made ahead included");
    fs::remove_file(ballast).unwrap();
    let span = queue.append(&record).unwrap();
    queue.flush(span.end, within(30_000)).unwrap();
    assert_eq!(read(&queue, span.offset).unwrap().0, record);
    queue.close().unwrap();
}
