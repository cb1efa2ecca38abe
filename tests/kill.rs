//! `kill -9` at any moment: every append that returned is there when the queue is opened again, and nothing else is but
//! what was being appended. In STAGED that holds of what was committed; a truncation that returned stays, and one under
//! way has happened, or not, or leaves a beginning of the log that reaches as far at least.
//!
//! A child process appends and flushes from several threads ([`support::crash`]). The parent kills it, opens the queue,
//! and compares. `MFQ_KILL_CYCLES` says how often; 200 is the default. `MFQ_KILL_SEED` repeats what was chosen at
//! random, but for the moment that the child has reached.

mod support;

use mfq::{Filler, Format, Options, Status};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;
use std::{env, thread};
use support::crash::*;
use support::engine::{GENEROUS_MS, Watchdog, try_open, within};
use support::records::{Found, read_all};
use tempfile::TempDir;

#[test]
#[ignore = "the other process of the kill test"]
fn victim() {
    die();
}

/// What is there now, and from where to where. Opened for reading only it is left as the child left it, and the next
/// child recovers it.
fn read_back(plan: &Plan, directory: &Path, read_only: bool) -> (Vec<Found>, Range<u64>) {
    let options = Options { read_only, existing: read_only, ..plan.options() };
    let queue = match try_open(directory, &options) {
        // Killed before there was a queue.
        Err(error) if read_only && error.status() == Status::NotFound => return (vec![], 0..0),
        opened => opened.unwrap(),
    };
    let offsets = queue.offsets().unwrap();
    let found = read_all(&queue, plan.format, plan.filler);
    if !read_only {
        queue.flush(u64::MAX, within(GENEROUS_MS)).unwrap();
        queue.close().unwrap();
    }
    (found, offsets.min..offsets.committed)
}

/// In memory seven times out of eight: what a kill leaves is the page cache in either case, and a disk makes each cycle
/// wait for its syncs.
fn scratch(random: &mut Random) -> TempDir {
    match random.below(8) {
        0 => tempfile::tempdir(),
        _ => tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()),
    }
    .unwrap()
}

#[derive(Default)]
struct Tally {
    cycles: u32,
    returned: u32,
    behind_a_stopped_writer: u32,
    flushes: u32,
    while_opening: u32,
    closed: u32,
    staged: u32,
    /// Of those: appends that were not committed, and are gone.
    gone: u32,
    every_append: u32,
    truncations: u32,
    in_truncation: u32,
    /// The end was moved back while others appended; and in STAGED.
    cuts_beside: u32,
    staged_cuts: u32,
    events: u32,
}

/// Several cycles on one directory, then a new one.
fn kill_again_and_again(format: Format, filler: Filler, cycles: u32, seed: u64) -> Tally {
    let mut random = Random(seed | 1);
    let mut tally = Tally::default();
    while tally.cycles < cycles {
        let work = scratch(&mut random);
        let directory = work.path().join("queue");
        let file_bytes = 4096 * (1 + random.below(3));
        let (mut known, mut log) = (Vec::new(), 0..0);
        for _ in 0..1 + random.below(8) {
            tally.cycles += 1;
            let cycle = tally.cycles;
            // In RAW an open claim turns everybody else away, so there is nothing to see behind one.
            let stop = match (random.below(8), format) {
                (n @ 1..5, Format::Record) | (n @ 2..5, Format::Raw) => STOPS[n as usize],
                _ => Stop::Nowhere,
            };
            let (phase, within_us, close_after) = match random.below(8) {
                0 => (OPENING, 2_000, u32::MAX),
                1..3 => (CLOSING, 1_500, random.below(200) as u32),
                _ => (APPENDING, 10_000, u32::MAX),
            };
            // Threads behind a stopped one do not end in RAW, so the child would not come to its close.
            let phase = if format == Format::Raw && stop != Stop::Nowhere { phase.min(APPENDING) } else { phase };
            let threads = 5 + random.below(4) as u32;
            // Nothing that waits for what is stopped would end.
            let habit =
                if stop == Stop::Nowhere { HABITS[random.below(HABITS.len() as u64) as usize] } else { Habit::Plain };
            let plan = Plan { format, filler, file_bytes, cycle, threads, stop, close_after, habit };
            let told = work.path().join("oracle");
            let _ = std::fs::remove_file(&told);
            let shared = Shared::open(&told);
            let oracle = shared.oracle();
            let mut child = spawn(&plan, &directory, &told);
            wait_for(&mut child, oracle, phase, Duration::from_micros(random.below(within_us)));
            child.kill().unwrap();
            let status = child.wait().unwrap();
            assert!(status.signal() == Some(libc::SIGKILL) || status.success(), "the child failed: {status}");
            let (found, now) = read_back(&plan, &directory, random.below(2) == 0);
            oracle.check_first(log.start, now.start);
            let least = match oracle.phase() {
                CLOSED => oracle.appended(),
                _ => oracle.committed(),
            };
            let least = least.max(log.end);
            assert!(now.end >= least, "the log ends at {}, but everything below {least} was to stay", now.end);
            let survives = if habit.is_staged() { Survives::Whole { least } } else { Survives::Returned };
            let checked = check(&plan, oracle, &known, &found, now.start, survives);
            tally.returned += checked;
            tally.flushes += oracle.flushes();
            tally.events += oracle.events();
            tally.truncations += oracle.truncations();
            tally.in_truncation += u32::from(oracle.is_cutting(&plan));
            if habit.cuts_beside() {
                tally.cuts_beside += oracle.cuts_returned(&plan);
            }
            if habit.is_staged() {
                tally.staged += 1;
                tally.gone += oracle.appends(&plan, now.start) - checked;
                tally.staged_cuts += oracle.cuts_returned(&plan);
            }
            tally.every_append += u32::from(habit == Habit::EveryAppend);
            match oracle.phase() {
                OPENING => tally.while_opening += 1,
                CLOSED => tally.closed += 1,
                _ if stop.is_at_seam() => tally.behind_a_stopped_writer += checked,
                _ => {}
            }
            (known, log) = (found, now);
        }
    }
    assert!(tally.returned > tally.cycles, "the children were killed before they did anything");
    if format == Format::Record {
        assert!(tally.behind_a_stopped_writer > 0, "a stopped writer held up everybody");
    }
    tally
}

#[test]
fn kill_9_loses_no_append_that_returned() {
    let cycles = env::var("MFQ_KILL_CYCLES").map_or(200, |cycles| cycles.parse::<u32>().unwrap());
    let _watchdog = Watchdog::new("the kill loop", 600 + u64::from(cycles));
    let seed = env::var("MFQ_KILL_SEED").map_or_else(|_| RandomState::new().hash_one(0), |seed| seed.parse().unwrap());
    eprintln!("MFQ_KILL_SEED={seed}");
    let (record, raw, rocketmq) =
        ((Format::Record, Filler::Zero), (Format::Raw, Filler::Zero), (Format::Raw, Filler::RocketMq));
    // Side by side: a cycle waits for its child most of the time.
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let one = |((format, filler), n)| {
            scope.spawn(move || kill_again_and_again(format, filler, cycles.div_ceil(4), seed.wrapping_add(n << 32)))
        };
        let loops: Vec<_> = [record, record, raw, rocketmq].into_iter().zip(0u64..).map(one).collect();
        loops.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let sum = |of: fn(&Tally) -> u32| tallies.iter().map(of).sum::<u32>();
    eprintln!(
        "kill -9: {} cycles, {} appends returned, 0 lost; {} of them behind a stopped writer; {} flushes returned; \
         {} killed while opening, {} after a close; {} staged, {} appends that were not committed are gone; {} with \
         every append durable; {} truncations returned, {} of them cuts beside appends, {} cuts in STAGED, {} killed in \
         one; {} moves of flushed told by the descriptor",
        sum(|one| one.cycles),
        sum(|one| one.returned),
        sum(|one| one.behind_a_stopped_writer),
        sum(|one| one.flushes),
        sum(|one| one.while_opening),
        sum(|one| one.closed),
        sum(|one| one.staged),
        sum(|one| one.gone),
        sum(|one| one.every_append),
        sum(|one| one.truncations),
        sum(|one| one.cuts_beside),
        sum(|one| one.staged_cuts),
        sum(|one| one.in_truncation),
        sum(|one| one.events),
    );
    let seldom = [
        sum(|one| one.staged),
        sum(|one| one.every_append),
        sum(|one| one.cuts_beside),
        sum(|one| one.staged_cuts),
        sum(|one| one.events),
    ];
    assert!(cycles < 200 || seldom.iter().all(|&count| count > 0), "{seldom:?}");
}
