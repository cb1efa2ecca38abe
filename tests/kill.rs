//! `kill -9` at any moment: every append that returned is there when the queue is opened again, and nothing else is but
//! what was being appended.
//!
//! A child process (this program, run for [`child`]) appends from several threads, and notes each append that returned in
//! memory that it shares with the parent. The parent kills it, opens the queue, and compares. `MFQ_KILL_CYCLES` says how
//! often; 200 is the default.

mod support;

use mfq::{Error, Filler, Format, Options, Queue, Span, Status, os};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, ptr, thread};
use support::engine::{GENEROUS_MS, Watchdog, try_open, within};
use support::records::{Found, LEAST_BYTES, Label, read_all};
use tempfile::TempDir;

const MOST_THREADS: usize = 9;
/// Each thread of a child appends at most so often: it bounds what has to be read back.
const MOST_OPS: usize = 160;
/// The thread that is stopped in the middle.
const STOPPED: u32 = 0;
/// As `offset` of an append that failed.
const REFUSED: u64 = u64::MAX;
/// The child's first argument is its test's name; everything else is in here.
const PLAN: &str = "MFQ_KILL_CHILD";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    Nowhere,
    /// A claim that is never committed.
    Claim,
    /// An append whose source cannot be read on, in the middle of the copy.
    Copy,
    /// The same, with a record that ends exactly where its file ends.
    CopyAtEnd,
    /// The same, with one that did not fit in the file before.
    CopyBehindSeam,
}

const STOPS: [Stop; 5] = [Stop::Nowhere, Stop::Claim, Stop::Copy, Stop::CopyAtEnd, Stop::CopyBehindSeam];

impl Stop {
    fn is_at_seam(self) -> bool {
        matches!(self, Stop::CopyAtEnd | Stop::CopyBehindSeam)
    }
}

/// What a child is to do, as numbers in one environment variable.
#[derive(Clone, Copy, Debug)]
struct Plan {
    format: Format,
    filler: Filler,
    file_bytes: u64,
    cycle: u32,
    threads: u32,
    stop: Stop,
    /// The child closes once so many appends have returned.
    close_after: u32,
}

impl Plan {
    fn options(&self) -> Options {
        let &Plan { format, filler, file_bytes, .. } = self;
        Options { file_size: file_bytes, format, filler, append_timeout_ms: 30_000, ..Options::default() }
    }

    fn encode(&self) -> String {
        let Plan { format, filler, file_bytes, cycle, threads, stop, close_after } = *self;
        let (format, filler, stop) = (format as u32, filler as u32, stop as u32);
        format!("{format} {filler} {file_bytes} {cycle} {threads} {stop} {close_after}")
    }

    fn decode(text: &str) -> Plan {
        let mut numbers = text.split(' ').map(|word| word.parse::<u32>().unwrap());
        let mut next = || numbers.next().unwrap();
        Plan {
            format: [Format::Record, Format::Raw][next() as usize],
            filler: [Filler::Zero, Filler::RocketMq][next() as usize],
            file_bytes: u64::from(next()),
            cycle: next(),
            threads: next(),
            stop: STOPS[next() as usize],
            close_after: next(),
        }
    }
}

/// One append of a child, and how it is made.
#[derive(Clone, Debug)]
enum Op {
    Whole(usize),
    Parts(usize),
    Batch(Vec<usize>),
    /// The record's length, and how much more is claimed.
    Claim(usize, usize),
    Abort(usize),
}

/// Follows from its place alone, so that the parent knows it too.
fn op(plan: &Plan, thread: u32, seq: u32) -> Op {
    let mut random = Random(u64::from(plan.cycle) << 40 ^ u64::from(thread) << 32 ^ u64::from(seq) ^ 0x5EED);
    let most = if random.below(8) == 0 { plan.file_bytes - 64 } else { 600 };
    let mut len = |most: u64| LEAST_BYTES + random.below(most - LEAST_BYTES as u64) as usize;
    let (first, second) = (len(most), len(400));
    match random.below(16) {
        0..9 => Op::Whole(first),
        9..11 => Op::Parts(first),
        11..14 => Op::Batch((0..2 + second % 6).map(|i| LEAST_BYTES + (second * (i + 1)) % 300).collect()),
        14 => Op::Claim(first.min(600), [0, 32][second % 2]),
        _ => Op::Abort(second),
    }
}

/// The records an append makes, in order.
fn records(plan: &Plan, thread: u32, seq: u32) -> Vec<(Label, usize)> {
    let single = |len| vec![(Label::single(plan.cycle, thread, seq), len)];
    match op(plan, thread, seq) {
        Op::Whole(len) | Op::Parts(len) | Op::Claim(len, _) => single(len),
        Op::Abort(_) => vec![],
        Op::Batch(lens) => {
            let parts = lens.len() as u16;
            let label = |part| Label { part, parts, ..Label::single(plan.cycle, thread, seq) };
            lens.into_iter().zip(0..).map(|(len, part)| (label(part), len)).collect()
        }
    }
}

// ---- What parent and child share ------------------------------------------------------------------

#[repr(C)]
struct Oracle {
    phase: AtomicU32,
    threads: [Progress; MOST_THREADS],
}

impl Oracle {
    fn returned(&self) -> u32 {
        self.threads.iter().map(|thread| thread.returned.load(Ordering::Relaxed)).sum()
    }
}

#[repr(C)]
struct Progress {
    begun: AtomicU32,
    returned: AtomicU32,
    /// Of the first record of each append that returned.
    offsets: [AtomicU64; MOST_OPS],
}

const OPENING: u32 = 1;
const APPENDING: u32 = 2;
const CLOSING: u32 = 3;
const CLOSED: u32 = 4;

/// A mapping of the oracle's file; the page cache keeps it when the child is gone.
struct Shared(memmap2::MmapRaw);

impl Shared {
    fn open(path: &Path) -> Shared {
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        file.set_len(size_of::<Oracle>() as u64).unwrap();
        Shared(memmap2::MmapRaw::map_raw(&file).unwrap())
    }

    fn oracle(&self) -> &Oracle {
        // SAFETY: the mapping is as long as an Oracle, which is atomics only, for which all zeros is a value.
        unsafe { &*self.0.as_ptr().cast::<Oracle>() }
    }
}

// ---- The child ------------------------------------------------------------------------------------

static HELD_UP: AtomicBool = AtomicBool::new(false);

/// Where the stopped thread touches its source: it stays here until the process is killed.
extern "C" fn hold_up(_signal: i32) {
    HELD_UP.store(true, Ordering::Release);
    loop {
        // SAFETY: always allowed, in a signal handler too.
        unsafe { libc::pause() };
    }
}

#[test]
#[ignore = "the other process of the kill test"]
fn child() {
    let Ok(plan) = env::var(PLAN) else { return };
    let (plan, words) = plan.split_once('|').expect("a plan, a directory, an oracle");
    let (directory, oracle) = words.split_once('|').expect("a directory, an oracle");
    let (plan, shared) = (Plan::decode(plan), Shared::open(Path::new(oracle)));
    let oracle = shared.oracle();

    // A thread that fails ends the process, and not by SIGKILL: that is what the parent looks at.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |failure| {
        report(failure);
        std::process::abort();
    }));
    oracle.phase.store(OPENING, Ordering::Release);
    let queue = Queue::open(os::native(), Path::new(directory), &plan.options()).unwrap();
    oracle.phase.store(APPENDING, Ordering::Release);
    thread::scope(|scope| {
        if plan.stop != Stop::Nowhere {
            scope.spawn(|| stop_in_the_middle(&queue, &plan, oracle));
            // At a seam it is the first, so that it knows where the file ends, and all others come behind it.
            while plan.stop.is_at_seam() && !HELD_UP.load(Ordering::Acquire) {
                thread::yield_now();
            }
        }
        let appending: Vec<_> = (1..plan.threads)
            .map(|id| {
                scope.spawn({
                    let queue = &queue;
                    move || append_all(queue, &plan, id, &oracle.threads[id as usize])
                })
            })
            .collect();
        while oracle.returned() < plan.close_after && !appending.iter().all(|thread| thread.is_finished()) {
            thread::yield_now();
        }
        oracle.phase.store(CLOSING, Ordering::Release);
        queue.begin_close();
        appending.into_iter().for_each(|thread| thread.join().unwrap());
        if !matches!(plan.stop, Stop::Nowhere | Stop::Claim) {
            hold_up(0); // a close would wait for the stopped call
        }
        queue.finish_close().unwrap();
        oracle.phase.store(CLOSED, Ordering::Release);
    });
}

fn append_all(queue: &Queue, plan: &Plan, thread: u32, progress: &Progress) {
    for seq in 0..MOST_OPS as u32 {
        progress.begun.store(seq + 1, Ordering::Release);
        let done = loop {
            match append(queue, plan, thread, seq) {
                // RAW: another thread's claim is open.
                Err(error) if error.status() == Status::Busy => thread::yield_now(),
                done => break done,
            }
        };
        let offset = match done {
            Ok(offset) => offset,
            Err(error) if error.status() == Status::Closed => REFUSED,
            Err(error) => panic!("append {seq} of thread {thread}: {error}"),
        };
        progress.offsets[seq as usize].store(offset, Ordering::Release);
        progress.returned.store(seq + 1, Ordering::Release);
    }
}

fn append(queue: &Queue, plan: &Plan, thread: u32, seq: u32) -> Result<u64, Error> {
    let records: Vec<Vec<u8>> = records(plan, thread, seq).iter().map(|(label, len)| label.record(*len)).collect();
    let claim = |claimed: usize, bytes: &[u8]| {
        let claim = queue.claim(claimed)?;
        // SAFETY: the claim is this thread's, and as long as `claimed`.
        unsafe { claim.ptr.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok::<_, Error>(claim)
    };
    match op(plan, thread, seq) {
        Op::Whole(_) => queue.append(&records[0]).map(|span| span.offset),
        Op::Parts(len) => {
            let (head, tail) = records[0].split_at(len / 3);
            queue.append_parts([head, &[], tail].into_iter()).map(|span| span.offset)
        }
        Op::Batch(_) => {
            let mut first = None;
            let each = |index, span: Span| {
                if index == 0 {
                    first = Some(span.offset);
                }
            };
            queue.append_batch(records.iter().map(Vec::as_slice), each)?;
            Ok(first.expect("a batch has a first record"))
        }
        Op::Claim(len, more) => {
            let claim = claim(len + more, &records[0])?;
            queue.commit(claim.id, len).map(|span| span.offset)
        }
        Op::Abort(len) => {
            let claim = claim(len, &[])?;
            queue.abort(claim.id).map(|()| claim.offset)
        }
    }
}

/// Places a record that is never finished, and stays there.
fn stop_in_the_middle(queue: &Queue, plan: &Plan, oracle: &Oracle) {
    while !plan.stop.is_at_seam() && oracle.returned() < 20 {
        thread::yield_now();
    }
    oracle.threads[STOPPED as usize].begun.store(1, Ordering::Release);
    let (header, behind) = match (plan.format, plan.filler) {
        (Format::Record, _) => (16, 0),
        (Format::Raw, Filler::Zero) => (0, 0),
        (Format::Raw, Filler::RocketMq) => (0, 8),
    };
    let file = plan.file_bytes;
    let Some(offsets) = unless_closed(queue.offsets()) else { return };
    let rest = file - offsets.reserved % file;
    let len = match plan.stop {
        // At the end, unless there is no room for two parts: then of the next file.
        Stop::CopyAtEnd if rest > header + behind + 1 => rest - header - behind,
        Stop::CopyAtEnd => file - header - behind,
        Stop::CopyBehindSeam => (rest + 1).min(file - header - behind),
        _ => 300,
    } as usize;
    if plan.stop == Stop::Claim {
        let _stays_open = unless_closed(queue.claim(len));
        return;
    }
    // SAFETY: the handler takes no more than a thread that will not go on; the mapping is new memory of its own, and of
    // its second half nothing is read, as the first touch never returns.
    let (head, tail) = unsafe {
        libc::signal(libc::SIGSEGV, hold_up as *const () as libc::sighandler_t);
        let half = file as usize;
        let (access, how) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let source = libc::mmap(ptr::null_mut(), 2 * half, access, how, -1, 0);
        assert_ne!(source, libc::MAP_FAILED);
        assert_eq!(libc::mprotect(source.byte_add(half), half, libc::PROT_NONE), 0);
        let begin = half - len / 2;
        let slice = |at: usize, len| std::slice::from_raw_parts(source.byte_add(at).cast::<u8>(), len);
        (slice(begin, len / 2), slice(half, len - len / 2))
    };
    let done = loop {
        match queue.append_parts([head, tail].into_iter()) {
            Err(error) if error.status() == Status::Busy => std::thread::yield_now(), // a RAW claim of another writer
            answer => break unless_closed(answer),
        }
    };
    assert_eq!(done, None, "a record without a source was appended");
}

fn unless_closed<T>(answer: Result<T, Error>) -> Option<T> {
    match answer {
        Err(error) if error.status() == Status::Closed => None,
        answer => Some(answer.unwrap()),
    }
}

// ---- The parent -----------------------------------------------------------------------------------

/// Xorshift: which case comes next need not be hard to guess.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % most
    }
}

fn spawn(plan: &Plan, directory: &Path, oracle: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(PLAN, format!("{}|{}|{}", plan.encode(), directory.display(), oracle.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets the child come as far as `phase` and a little further, and kills it.
fn kill_in(child: &mut Child, oracle: &Oracle, phase: u32, after: Duration) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while oracle.phase.load(Ordering::Acquire) < phase {
        assert!(Instant::now() < deadline, "the child does not get to phase {phase}");
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the child ended by itself: {status}");
        }
        thread::yield_now();
    }
    thread::sleep(after); // only chooses the moment
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.signal() == Some(libc::SIGKILL) || status.success(), "the child failed: {status}");
}

/// Compares what is there with what was there before this cycle and what the child said.
fn check(plan: &Plan, oracle: &Oracle, before: &[Found], now: &[Found]) -> u32 {
    let kept = now.get(..before.len());
    if kept != Some(before) {
        let first = before.iter().zip(now).find(|(a, b)| a != b);
        panic!("{} records of earlier cycles became {}; first other one: {first:?}", before.len(), now.len());
    }
    let mut of_thread: BTreeMap<u32, Vec<(Label, usize, u64)>> = BTreeMap::new();
    for found in &now[before.len()..] {
        assert_eq!(found.label.cycle, plan.cycle, "invented: {found:?}");
        of_thread.entry(found.label.thread).or_default().push((found.label, found.len, found.offset));
    }
    let mut returned_in_all = 0;
    for (thread, progress) in (0..).zip(&oracle.threads) {
        let found = of_thread.remove(&thread).unwrap_or_default();
        let (returned, begun) = (progress.returned.load(Ordering::Acquire), progress.begun.load(Ordering::Acquire));
        let mut rest = found.as_slice();
        for seq in 0..returned {
            let mut offset = progress.offsets[seq as usize].load(Ordering::Acquire);
            if offset == REFUSED {
                continue;
            }
            returned_in_all += 1;
            for (label, len) in records(plan, thread, seq) {
                let expected = (label, len, offset);
                assert_eq!(rest.first(), Some(&expected), "an append that returned is not there");
                rest = &rest[1..];
                offset += match plan.format {
                    Format::Record => (len as u64 + 16).next_multiple_of(8),
                    Format::Raw => len as u64,
                };
            }
        }
        // One more may be there, whole, if it had begun; a batch in all its parts.
        if let [(_, _, first), ..] = *rest {
            assert!(begun > returned && thread != STOPPED, "invented: {rest:?}");
            let whole = records(plan, thread, returned);
            let shown: Vec<_> = rest.iter().map(|(label, len, _)| (*label, *len)).collect();
            assert_eq!(shown, whole, "a part of what did not return, from {first} on");
        }
    }
    assert!(of_thread.is_empty(), "of threads that never were: {of_thread:?}");
    returned_in_all
}

/// What is there now. Opened for reading only it is left as the child left it, and the next child recovers it.
fn read_back(plan: &Plan, directory: &Path, read_only: bool) -> Vec<Found> {
    let options = Options { read_only, existing: read_only, ..plan.options() };
    let queue = match try_open(directory, &options) {
        // Killed before there was a queue.
        Err(error) if read_only && error.status() == Status::NotFound => return vec![],
        opened => opened.unwrap(),
    };
    let found = read_all(&queue, plan.format, plan.filler);
    if !read_only {
        queue.flush(u64::MAX, within(GENEROUS_MS)).unwrap();
        queue.close().unwrap();
    }
    found
}

/// In memory three times out of four: what a kill leaves is the page cache in either case, and a disk makes each cycle wait
/// for its syncs.
fn scratch(random: &mut Random) -> TempDir {
    match random.below(4) {
        0 => tempfile::tempdir(),
        _ => tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()),
    }
    .unwrap()
}

/// Several cycles on one directory, then a new one.
fn kill_again_and_again(format: Format, filler: Filler, cycles: u32) {
    let seed = env::var("MFQ_KILL_SEED").map_or_else(|_| RandomState::new().hash_one(0), |seed| seed.parse().unwrap());
    eprintln!("{format:?} {filler:?}: MFQ_KILL_SEED={seed}");
    let mut random = Random(seed | 1);
    let (mut cycle, mut returned, mut returned_behind_a_stopped_writer) = (0, 0, 0);
    while cycle < cycles {
        let work = scratch(&mut random);
        let directory = work.path().join("queue");
        let file_bytes = 4096 * (1 + random.below(3));
        let mut known = Vec::new();
        for _ in 0..1 + random.below(8) {
            cycle += 1;
            // In RAW an open claim turns everybody else away, so there is nothing to see behind one.
            let stop = match (random.below(8), format) {
                (n @ 1..5, Format::Record) | (n @ 2..5, Format::Raw) => STOPS[n as usize],
                _ => Stop::Nowhere,
            };
            let (phase, within_us, close_after) = match random.below(8) {
                0 => (OPENING, 4_000, u32::MAX),
                1..3 => (CLOSING, 3_000, random.below(200) as u32),
                _ => (APPENDING, 25_000, u32::MAX),
            };
            // Threads behind a stopped one do not end in RAW, so the child would not come to its close.
            let phase = if format == Format::Raw && stop != Stop::Nowhere { phase.min(APPENDING) } else { phase };
            let threads = 5 + random.below(4) as u32;
            let plan = Plan { format, filler, file_bytes, cycle, threads, stop, close_after };
            let told = work.path().join("oracle");
            let _ = std::fs::remove_file(&told);
            let shared = Shared::open(&told);
            let mut child = spawn(&plan, &directory, &told);
            kill_in(&mut child, shared.oracle(), phase, Duration::from_micros(random.below(within_us)));
            let found = read_back(&plan, &directory, random.below(2) == 0);
            let checked = check(&plan, shared.oracle(), &known, &found);
            returned += checked;
            if stop.is_at_seam() {
                returned_behind_a_stopped_writer += checked;
            }
            known = found;
        }
    }
    eprintln!(
        "{cycle} cycles, {returned} appends returned, {returned_behind_a_stopped_writer} behind a stopped writer"
    );
    assert!(returned > cycle, "the children were killed before they did anything");
    if format == Format::Record {
        assert!(returned_behind_a_stopped_writer > 0, "a stopped writer held up everybody");
    }
}

fn cycles(share: u32) -> u32 {
    env::var("MFQ_KILL_CYCLES").map_or(200, |cycles| cycles.parse::<u32>().unwrap()).div_ceil(share)
}

#[test]
fn kill_9_loses_no_append_that_returned() {
    let _watchdog = Watchdog::new("the kill loop", 600 + u64::from(cycles(1)));
    kill_again_and_again(Format::Record, Filler::Zero, cycles(2));
    kill_again_and_again(Format::Raw, Filler::Zero, cycles(4));
    kill_again_and_again(Format::Raw, Filler::RocketMq, cycles(4));
}
