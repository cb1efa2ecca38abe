//! A process that appends and flushes until it is killed or its disk loses its power, and what it said meanwhile: for
//! the tests that do either.
//!
//! The process is the test's own binary, run for a test of the name [`VICTIM`] that calls [`die`]. It notes each call
//! that returned in memory that it shares with its parent, which is the oracle.
#![allow(dead_code)] // each test uses a part of it

use super::engine::within;
use super::records::{Found, LEAST_BYTES, Label};
use mfq::{Error, Filler, FlushPolicy, Format, Mode, Options, Queue, Span, Status, Which, os};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, ptr, thread};

const MOST_THREADS: usize = 9;
/// Each thread of a child appends at most so often: it bounds what has to be read back.
const MOST_OPS: usize = 160;
/// The thread that is stopped in the middle.
const STOPPED: u32 = 0;
/// As `offset` of an append that failed.
const REFUSED: u64 = u64::MAX;
/// As `offset` of an append that a truncation took back.
const CUT: u64 = u64::MAX - 1;
/// The child's first argument is its test's name; everything else is in here.
const PLAN: &str = "MFQ_VICTIM";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
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

pub const STOPS: [Stop; 5] = [Stop::Nowhere, Stop::Claim, Stop::Copy, Stop::CopyAtEnd, Stop::CopyBehindSeam];

impl Stop {
    pub fn is_at_seam(self) -> bool {
        matches!(self, Stop::CopyAtEnd | Stop::CopyBehindSeam)
    }
}

/// What a child is to do, as numbers in one environment variable.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub format: Format,
    pub filler: Filler,
    pub file_bytes: u64,
    pub cycle: u32,
    pub threads: u32,
    pub stop: Stop,
    /// The child closes once so many calls have returned.
    pub close_after: u32,
    pub habit: Habit,
}

/// How the child uses the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Habit {
    Plain,
    Staged,
    /// Each append returns when it is durable.
    EveryAppend,
    /// It moves the beginning on and, with nobody else inside, the end back.
    Truncates,
}

pub const HABITS: [Habit; 4] = [Habit::Plain, Habit::Staged, Habit::EveryAppend, Habit::Truncates];

impl Plan {
    pub fn options(&self) -> Options {
        let &Plan { format, filler, file_bytes, habit, .. } = self;
        let (mode, flush_policy) = match habit {
            Habit::Plain | Habit::Truncates => (Mode::Mmap, FlushPolicy::None),
            Habit::Staged => (Mode::Staged, FlushPolicy::None),
            Habit::EveryAppend => (Mode::Mmap, FlushPolicy::EveryAppend),
        };
        let (file_size, append_timeout_ms, commit_interval_ms) = (file_bytes, 30_000, 2);
        let default = Options::default();
        Options { file_size, format, filler, append_timeout_ms, mode, flush_policy, commit_interval_ms, ..default }
    }

    fn encode(&self) -> String {
        let Plan { format, filler, file_bytes, cycle, threads, stop, close_after, habit } = *self;
        let (format, filler, stop, habit) = (format as u32, filler as u32, stop as u32, habit as u32);
        format!("{format} {filler} {file_bytes} {cycle} {threads} {stop} {close_after} {habit}")
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
            habit: HABITS[next() as usize],
        }
    }

    fn file_start(&self, offset: u64) -> u64 {
        offset - offset % self.file_bytes
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
    /// Of everything, or up to the end of what the thread appended before.
    Flush {
        everything: bool,
    },
    /// As far, with nobody waiting for it.
    FlushStart,
    /// Until that can be read.
    Wait,
    TruncateBefore,
    /// Where one of the thread's own appends begins.
    TruncateAfter,
}

/// Follows from its place alone, so that the parent knows it too.
fn op(plan: &Plan, thread: u32, seq: u32) -> Op {
    let mut random = Random(u64::from(plan.cycle) << 40 ^ u64::from(thread) << 32 ^ u64::from(seq) ^ 0x5EED);
    let most = if random.below(8) == 0 { plan.file_bytes - 64 } else { 600 };
    let mut len = |most: u64| LEAST_BYTES + random.below(most - LEAST_BYTES as u64) as usize;
    let (first, second) = (len(most), len(400));
    match random.below(16) {
        0 => Op::Flush { everything: second % 2 == 0 },
        1 => match (plan.habit, second % 2) {
            (Habit::Staged, 0) => Op::Wait,
            (Habit::Truncates, 0) => Op::TruncateBefore,
            (Habit::Truncates, _) => Op::TruncateAfter,
            _ => Op::FlushStart,
        },
        2..9 => Op::Whole(first),
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
        Op::Batch(lens) => {
            let parts = lens.len() as u16;
            let label = |part| Label { part, parts, ..Label::single(plan.cycle, thread, seq) };
            lens.into_iter().zip(0..).map(|(len, part)| (label(part), len)).collect()
        }
        _ => vec![],
    }
}

// ---- What parent and child share ------------------------------------------------------------------

#[repr(C)]
pub struct Oracle {
    phase: AtomicU32,
    /// Set before the power goes: from then on calls may fail.
    power_is_off: AtomicBool,
    /// Flushes that returned, and the highest end of what they were asked for.
    flushes: AtomicU32,
    flushed: AtomicU64,
    /// How often the event descriptor told that `flushed` had moved.
    events: AtomicU32,
    /// The highest end of what was seen as committed.
    committed: AtomicU64,
    /// The highest end of an append that returned.
    appended: AtomicU64,
    /// Truncations that returned.
    truncations: AtomicU32,
    /// While the end is moved back, one more than to where: all of that has happened, or none, or a part.
    cutting: AtomicU64,
    /// The least of all that the end was moved back to, or was about to be, since [`Oracle::flushed_from_now`].
    least_cut: AtomicU64,
    /// The first file that is kept is this one, or one behind it, and none behind `removing`.
    removed: AtomicU64,
    removing: AtomicU64,
    threads: [Progress; MOST_THREADS],
}

impl Oracle {
    pub fn returned(&self) -> u32 {
        self.threads.iter().map(|thread| thread.returned.load(Ordering::Relaxed)).sum()
    }

    /// Appends that returned and were not truncated, with the files before `first` or by moving the end back.
    pub fn appends(&self, plan: &Plan, first: u64) -> u32 {
        let of_thread = |(id, thread): (u32, &Progress)| {
            let starts = thread.starts(plan, id);
            starts.filter(|offset| *offset >= first).count() as u32
        };
        (0..).zip(&self.threads).map(of_thread).sum()
    }

    pub fn phase(&self) -> u32 {
        self.phase.load(Ordering::Acquire)
    }

    pub fn set_power_off(&self) {
        self.power_is_off.store(true, Ordering::SeqCst);
    }

    pub fn flushes(&self) -> u32 {
        self.flushes.load(Ordering::Acquire)
    }

    /// Everything below it is on stable storage, says the child.
    pub fn flushed(&self) -> u64 {
        self.flushed.load(Ordering::Acquire)
    }

    /// The same while the child goes on: [`Oracle::least_cut`] tells then what it has taken back since.
    pub fn flushed_from_now(&self) -> u64 {
        self.least_cut.store(u64::MAX, Ordering::SeqCst);
        self.flushed.load(Ordering::SeqCst)
    }

    pub fn least_cut(&self) -> u64 {
        self.least_cut.load(Ordering::SeqCst)
    }

    pub fn events(&self) -> u32 {
        self.events.load(Ordering::Acquire)
    }

    /// Everything below it was committed, says the child.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire).max(self.flushed())
    }

    /// The end of all that was appended and returned.
    pub fn appended(&self) -> u64 {
        self.appended.load(Ordering::Acquire)
    }

    pub fn truncations(&self) -> u32 {
        self.truncations.load(Ordering::Acquire)
    }

    /// Where the end is being moved back to.
    pub fn cutting(&self) -> Option<u64> {
        self.cutting.load(Ordering::Acquire).checked_sub(1)
    }

    /// What truncations removed stays removed, and what they kept is there: the log began at `before`.
    pub fn check_first(&self, before: u64, now: u64) {
        let least = before.max(self.removed.load(Ordering::Acquire));
        let most = before.max(self.removing.load(Ordering::Acquire));
        assert!((least..=most).contains(&now), "the log begins at {now}, and not between {least} and {most}");
    }

    /// What fails once the power is off is no failure of the library's, if it says so.
    fn may_fail(&self, error: &Error) -> bool {
        let says_so = matches!(error.status(), Status::Io | Status::Poisoned | Status::NotDurable);
        self.is_power_off() && says_so
    }

    fn is_power_off(&self) -> bool {
        self.power_is_off.load(Ordering::SeqCst)
    }

    /// What returns from now on may not be true: ext4 answers some syncs that the cut overtakes with success.
    fn hold_up_if_power_is_off(&self) {
        if self.is_power_off() {
            hold_up(0);
        }
    }
}

#[repr(C)]
struct Progress {
    begun: AtomicU32,
    returned: AtomicU32,
    /// Of the first record of each append that returned.
    offsets: [AtomicU64; MOST_OPS],
}

impl Progress {
    /// Where the appends begin that returned and are not cut.
    fn starts(&self, plan: &Plan, id: u32) -> impl Iterator<Item = u64> {
        let returned = (0..).zip(&self.offsets[..self.returned.load(Ordering::Acquire) as usize]);
        let appends = returned.filter(move |(seq, _)| !records(plan, id, *seq).is_empty());
        appends.map(|(_, offset)| offset.load(Ordering::Acquire)).filter(|offset| *offset < CUT)
    }
}

pub const OPENING: u32 = 1;
pub const APPENDING: u32 = 2;
pub const CLOSING: u32 = 3;
pub const CLOSED: u32 = 4;

/// A mapping of the oracle's file; the page cache keeps it when the child is gone.
pub struct Shared(memmap2::MmapRaw);

impl Shared {
    pub fn open(path: &Path) -> Shared {
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        file.set_len(size_of::<Oracle>() as u64).unwrap();
        Shared(memmap2::MmapRaw::map_raw(&file).unwrap())
    }

    pub fn oracle(&self) -> &Oracle {
        // SAFETY: the mapping is as long as an Oracle, which is atomics only, for which all zeros is a value.
        unsafe { &*self.0.as_ptr().cast::<Oracle>() }
    }
}

// ---- The child ------------------------------------------------------------------------------------

/// How often a process that waits for another looks.
pub const POLL: Duration = Duration::from_micros(100);

static HELD_UP: AtomicBool = AtomicBool::new(false);

/// Where the stopped thread touches its source: it stays here until the process is killed.
extern "C" fn hold_up(_signal: i32) {
    HELD_UP.store(true, Ordering::Release);
    loop {
        // SAFETY: always allowed, in a signal handler too.
        unsafe { libc::pause() };
    }
}

/// The name of the test that is to call [`die`], ignored by itself.
const VICTIM: &str = "victim";

/// Does what the parent planned, until the parent ends it.
pub fn die() {
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
    let queue = match Queue::open(os::native(), Path::new(directory), &plan.options()) {
        Err(error) if oracle.may_fail(&error) => return,
        opened => opened.unwrap(),
    };
    oracle.phase.store(APPENDING, Ordering::Release);
    let gate = RwLock::new(());
    thread::scope(|scope| {
        let told = scope.spawn(|| note_flushes(&queue, oracle, &gate));
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
                    let (queue, gate) = (&queue, &gate);
                    move || append_all(queue, &plan, id, oracle, gate)
                })
            })
            .collect();
        while oracle.returned() < plan.close_after && !appending.iter().all(|thread| thread.is_finished()) {
            thread::sleep(POLL);
        }
        oracle.phase.store(CLOSING, Ordering::Release);
        queue.begin_close();
        appending.into_iter().for_each(|thread| thread.join().unwrap());
        told.join().unwrap();
        if !matches!(plan.stop, Stop::Nowhere | Stop::Claim) {
            hold_up(0); // a close would wait for the stopped call
        }
        match queue.finish_close() {
            Err(error) if oracle.may_fail(&error) => {}
            closed => {
                closed.unwrap();
                oracle.phase.store(CLOSED, Ordering::Release);
            }
        }
    });
}

/// As a host does that completes what it has promised: whatever `flushed` says is durable.
fn note_flushes(queue: &Queue, oracle: &Oracle, gate: &RwLock<()>) {
    let Some(events) = unless_closed(oracle, queue.event_fd()) else { return };
    loop {
        let mut waits = libc::pollfd { fd: events, events: libc::POLLIN, revents: 0 };
        let mut count = 0u64;
        // SAFETY: both are this function's own, of the length that is said; the queue and its descriptor are open.
        unsafe {
            libc::poll(&mut waits, 1, -1);
            libc::read(events, (&raw mut count).cast(), 8);
        }
        let _together = gate.read().unwrap();
        let Some(offsets) = unless_closed(oracle, queue.offsets()) else { return };
        if oracle.flushed.fetch_max(offsets.flushed, Ordering::SeqCst) < offsets.flushed {
            oracle.events.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// The span of a call that appends nothing.
const NOTHING: Span = Span { offset: 0, end: 0 };

/// Who holds the gate alone may move the end back: what was appended before, and what after, is known then.
fn append_all(queue: &Queue, plan: &Plan, thread: u32, oracle: &Oracle, gate: &RwLock<()>) {
    let progress = &oracle.threads[thread as usize];
    let mut end = 0;
    for seq in 0..MOST_OPS as u32 {
        progress.begun.store(seq + 1, Ordering::Release);
        let op = op(plan, thread, seq);
        let (_alone, _together) = match op {
            Op::TruncateAfter => (gate.write().ok(), None),
            _ => (None, gate.read().ok()),
        };
        end = end.min(oracle.appended()); // another thread may have moved the end back
        let done = match op {
            Op::Flush { everything } => flush(queue, plan, oracle, everything, end),
            Op::FlushStart => queue.flush_start(end).map(|()| NOTHING),
            Op::Wait => queue.wait(Which::Committed, end, within(30_000)).map(|()| {
                oracle.committed.fetch_max(end, Ordering::SeqCst);
                NOTHING
            }),
            Op::TruncateBefore => truncate_before(queue, plan, oracle, end),
            Op::TruncateAfter => {
                end = 0;
                truncate_after(queue, plan, oracle, thread, seq)
            }
            _ => loop {
                match append(queue, plan, thread, seq) {
                    // RAW: another thread's claim is open.
                    Err(error) if error.status() == Status::Busy => thread::yield_now(),
                    done => break done,
                }
            },
        };
        let offset = match done {
            Ok(span) => {
                end = end.max(span.end);
                oracle.appended.fetch_max(end, Ordering::SeqCst);
                match queue.secure(span.end) {
                    Ok(()) if plan.habit == Habit::EveryAppend => _ = oracle.flushed.fetch_max(end, Ordering::SeqCst),
                    Ok(()) => {}
                    Err(error) if error.status() == Status::NotDurable && queue.offsets().is_err() => {} // closed
                    Err(error) if oracle.may_fail(&error) => return,
                    Err(error) => panic!("call {seq} of thread {thread}: {error}"),
                }
                span.offset
            }
            Err(error) if error.status() == Status::Closed => REFUSED,
            Err(error) if oracle.may_fail(&error) => return,
            Err(error) => panic!("call {seq} of thread {thread}: {error}"),
        };
        progress.offsets[seq as usize].store(offset, Ordering::Release);
        progress.returned.store(seq + 1, Ordering::Release);
    }
}

/// Below an append that is stopped for ever nothing can be flushed, and it is no failure that it takes too long.
fn flush(queue: &Queue, plan: &Plan, oracle: &Oracle, everything: bool, end: u64) -> Result<Span, Error> {
    let is_stopped = plan.stop != Stop::Nowhere;
    match queue.flush(if everything { u64::MAX } else { end }, within(if is_stopped { 1 } else { 30_000 })) {
        Err(error) if is_stopped && error.status() == Status::Timeout => {}
        flushed => {
            flushed?;
            oracle.flushed.fetch_max(end, Ordering::SeqCst);
            oracle.flushes.fetch_add(1, Ordering::SeqCst);
        }
    }
    Ok(NOTHING)
}

/// Removes the files before the thread's last append, as far as that can be read.
fn truncate_before(queue: &Queue, plan: &Plan, oracle: &Oracle, end: u64) -> Result<Span, Error> {
    let offset = end.min(queue.offsets()?.committed);
    oracle.removing.fetch_max(plan.file_start(offset), Ordering::SeqCst);
    queue.truncate_before(offset)?;
    oracle.hold_up_if_power_is_off();
    // The last file stays, though it ends there.
    oracle.removed.fetch_max(plan.file_start(offset.saturating_sub(1)), Ordering::SeqCst);
    oracle.truncations.fetch_add(1, Ordering::SeqCst);
    Ok(NOTHING)
}

/// Takes some of the thread's appends back, and what the others have appended since.
fn truncate_after(queue: &Queue, plan: &Plan, oracle: &Oracle, thread: u32, seq: u32) -> Result<Span, Error> {
    let starts: Vec<u64> = oracle.threads[thread as usize].starts(plan, thread).collect();
    let Some(start) = starts.get(starts.len().saturating_sub(1 + seq as usize % 4)) else { return Ok(NOTHING) };
    let offset = queue.offsets()?.min.max(*start);
    oracle.flushed.fetch_min(offset, Ordering::SeqCst);
    oracle.least_cut.fetch_min(offset, Ordering::SeqCst);
    oracle.cutting.store(offset + 1, Ordering::SeqCst);
    let cut = queue.truncate_after(offset);
    oracle.hold_up_if_power_is_off();
    if cut.is_ok() {
        for offset_of in oracle.threads.iter().flat_map(|thread| &thread.offsets) {
            if (offset..CUT).contains(&offset_of.load(Ordering::Acquire)) {
                offset_of.store(CUT, Ordering::SeqCst);
            }
        }
        oracle.appended.fetch_min(offset, Ordering::SeqCst);
        oracle.truncations.fetch_add(1, Ordering::SeqCst);
    }
    oracle.cutting.store(0, Ordering::SeqCst);
    cut.map(|()| NOTHING)
}

fn append(queue: &Queue, plan: &Plan, thread: u32, seq: u32) -> Result<Span, Error> {
    let records: Vec<Vec<u8>> = records(plan, thread, seq).iter().map(|(label, len)| label.record(*len)).collect();
    let claim = |claimed: usize, bytes: &[u8]| {
        let claim = queue.claim(claimed)?;
        // SAFETY: the claim is this thread's, and as long as `claimed`.
        unsafe { claim.ptr.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok::<_, Error>(claim)
    };
    match op(plan, thread, seq) {
        Op::Whole(_) => queue.append(&records[0]),
        Op::Parts(len) => {
            let (head, tail) = records[0].split_at(len / 3);
            queue.append_parts([head, &[], tail].into_iter())
        }
        Op::Batch(_) => {
            let mut whole = Span::default();
            let each = |index, span: Span| {
                if index == 0 {
                    whole.offset = span.offset;
                }
                whole.end = span.end;
            };
            queue.append_batch(records.iter().map(Vec::as_slice), each)?;
            Ok(whole)
        }
        Op::Claim(len, more) => {
            let claim = claim(len + more, &records[0])?;
            queue.commit(claim.id, len)
        }
        Op::Abort(len) => {
            let claim = claim(len, &[])?;
            queue.abort(claim.id).map(|()| Span { offset: claim.offset, end: claim.offset })
        }
        _ => unreachable!("a call that appends nothing"),
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
    let Some(offsets) = unless_closed(oracle, queue.offsets()) else { return };
    let rest = file - offsets.reserved % file;
    let len = match plan.stop {
        // At the end, unless there is no room for two parts: then of the next file.
        Stop::CopyAtEnd if rest > header + behind + 1 => rest - header - behind,
        Stop::CopyAtEnd => file - header - behind,
        Stop::CopyBehindSeam => (rest + 1).min(file - header - behind),
        _ => 300,
    } as usize;
    if plan.stop == Stop::Claim {
        let _stays_open = unless_closed(oracle, queue.claim(len));
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
            answer => break unless_closed(oracle, answer),
        }
    };
    assert_eq!(done, None, "a record without a source was appended");
}

fn unless_closed<T>(oracle: &Oracle, answer: Result<T, Error>) -> Option<T> {
    match answer {
        Err(error) if error.status() == Status::Closed || oracle.may_fail(&error) => None,
        answer => Some(answer.unwrap()),
    }
}

// ---- The parent -----------------------------------------------------------------------------------

/// Xorshift: which case comes next need not be hard to guess.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % most
    }
}

pub fn spawn(plan: &Plan, directory: &Path, oracle: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([VICTIM, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(PLAN, format!("{}|{}|{}", plan.encode(), directory.display(), oracle.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the child has come as far as `phase` and a little further.
pub fn wait_for(child: &mut Child, oracle: &Oracle, phase: u32, after: Duration) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while oracle.phase() < phase {
        assert!(Instant::now() < deadline, "the child does not get to phase {phase}");
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the child ended by itself: {status}");
        }
        thread::sleep(POLL);
    }
    thread::sleep(after); // only chooses the moment
}

/// What has to be there after the child's end, beside what was there before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survives {
    /// After a kill: every append that returned.
    Returned,
    /// After a kill in STAGED or in the middle of a truncation: the first ones, at least those below `least`. The log
    /// may end behind the last of them, as what was claimed there has become padding.
    Whole { least: u64 },
    /// After a power cut: the same of records, so that of a batch the first may be there without the others.
    Below { flushed: u64, end: u64 },
}

/// Compares the records that are there `now`, from `first` on, with those of `before` and with what the child said, and
/// returns how many appends of its had returned and are there.
pub fn check(plan: &Plan, oracle: &Oracle, before: &[Found], now: &[Found], first: u64, survives: Survives) -> u32 {
    let (least, log_end) = match survives {
        Survives::Returned => (0, u64::MAX),
        Survives::Whole { least } => (least, now.last().map_or(0, |found| found.end)),
        Survives::Below { flushed, end } => (flushed, end),
    };
    let is_lost = |offset: u64| {
        assert!(offset < log_end || offset >= least, "{offset} is gone, but everything below {least} was to stay");
        offset >= log_end
    };
    let before = &before[before.partition_point(|found| found.offset < first)..];
    let before = &before[..before.partition_point(|found| !is_lost(found.offset))];
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
        let mut lost = false;
        for seq in 0..returned {
            let mut offset = progress.offsets[seq as usize].load(Ordering::Acquire);
            let records = records(plan, thread, seq);
            if offset >= CUT || offset < first || records.is_empty() {
                continue;
            }
            for (label, len) in records {
                lost |= is_lost(offset);
                if !lost {
                    let expected = (label, len, offset);
                    assert_eq!(rest.first(), Some(&expected), "an append that returned is not there: {plan:?}");
                    rest = &rest[1..];
                }
                offset += match plan.format {
                    Format::Record => (len as u64 + 16).next_multiple_of(8),
                    Format::Raw => len as u64,
                };
            }
            returned_in_all += u32::from(!lost);
        }
        // One more may be there, whole, if it had begun; a batch in all its parts, of which a power cut leaves the
        // first.
        if let [(_, _, first), ..] = *rest {
            assert!(begun > returned && thread != STOPPED && !lost, "invented: {rest:?}");
            let whole = records(plan, thread, returned);
            let shown: Vec<_> = rest.iter().map(|(label, len, _)| (*label, *len)).collect();
            let is_whole = shown == whole || matches!(survives, Survives::Below { .. }) && whole.starts_with(&shown);
            assert!(is_whole, "{shown:?}: a part of what did not return, from {first} on");
        }
    }
    assert!(of_thread.is_empty(), "of threads that never were: {of_thread:?}");
    returned_in_all
}

/// RAW: what was appended and returned, and lies below `until`, of this child's; in no order.
pub fn returned_below(plan: &Plan, oracle: &Oracle, until: u64) -> Vec<Found> {
    let mut all = Vec::new();
    for (thread, progress) in (0..).zip(&oracle.threads) {
        for seq in 0..progress.returned.load(Ordering::Acquire) {
            let mut offset = progress.offsets[seq as usize].load(Ordering::Acquire);
            if offset >= CUT {
                continue;
            }
            for (label, len) in records(plan, thread, seq) {
                let end = offset + len as u64;
                all.push(Found { offset, end, label, len });
                offset = end;
            }
        }
    }
    all.retain(|found| found.end <= until);
    all
}
