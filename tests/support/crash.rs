//! A process that appends and flushes until it is killed or its disk loses its power, and what it said meanwhile: for
//! the tests that do either.
//!
//! The process is the test's own binary, run for a test of the name [`VICTIM`] that calls [`die`]. It notes each call
//! that returned in memory that it shares with its parent, which is the oracle.
#![allow(dead_code)] // each test uses a part of it

use super::engine::within;
use super::records::{Found, LEAST_BYTES, Label};
use mfq::{Deadline, Error, Filler, FlushPolicy, Format, Mode, Options, Queue, Span, Status, Which, os};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};
use std::{env, fs, io, ptr, thread};

const MOST_THREADS: usize = 9;
/// Each thread of a child appends at most so often: it bounds what has to be read back.
const MOST_OPS: usize = 160;
/// The thread that is stopped in the middle.
const STOPPED: u32 = 0;
/// As `offset` of an append, or of a cut, that was none.
const REFUSED: u64 = u64::MAX;
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
    /// The same while others append.
    TruncatesBeside,
    StagedTruncates,
    StagedTruncatesBeside,
}

pub const HABITS: [Habit; 7] = [
    Habit::Plain,
    Habit::Staged,
    Habit::EveryAppend,
    Habit::Truncates,
    Habit::TruncatesBeside,
    Habit::StagedTruncates,
    Habit::StagedTruncatesBeside,
];

impl Habit {
    pub fn is_staged(self) -> bool {
        matches!(self, Habit::Staged | Habit::StagedTruncates | Habit::StagedTruncatesBeside)
    }

    fn truncates(self) -> bool {
        matches!(self, Habit::Truncates | Habit::StagedTruncates) || self.cuts_beside()
    }

    pub fn cuts_beside(self) -> bool {
        matches!(self, Habit::TruncatesBeside | Habit::StagedTruncatesBeside)
    }
}

impl Plan {
    pub fn options(&self) -> Options {
        let &Plan { format, filler, file_bytes, habit, .. } = self;
        let mode = if habit.is_staged() { Mode::Staged } else { Mode::Mmap };
        let flush_policy = if habit == Habit::EveryAppend { FlushPolicy::EveryAppend } else { FlushPolicy::None };
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
        1 => match second % 3 {
            0 if plan.habit.is_staged() => Op::Wait,
            1 if plan.habit.truncates() => Op::TruncateBefore,
            2 if plan.habit.truncates() => Op::TruncateAfter,
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

/// An end that was moved back, or is about to be.
#[derive(Clone, Copy)]
struct Cut {
    offset: u64,
    began: u64,
    /// `u64::MAX` while it is under way.
    ended: u64,
}

impl Cut {
    fn is_under_way(&self) -> bool {
        self.ended == u64::MAX
    }
}

/// What cuts have done to an append that returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Stays,
    /// One was under way beside it, or is under way now.
    MayBeGone,
    Gone,
}

fn fate(cuts: &[Cut], append: &Made) -> Fate {
    let (offset, began, ended) = append.get();
    let taking = || cuts.iter().filter(|cut| cut.offset <= offset && cut.ended > began);
    if taking().any(|cut| cut.began > ended && !cut.is_under_way()) {
        Fate::Gone
    } else if taking().next().is_some() {
        Fate::MayBeGone
    } else {
        Fate::Stays
    }
}

#[repr(C)]
pub struct Oracle {
    /// Moments, counted.
    clock: AtomicU64,
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

    /// Appends that returned and cannot have been truncated, with the files before `first` or by moving the end back.
    pub fn appends(&self, plan: &Plan, first: u64) -> u32 {
        let cuts = self.cuts(plan);
        let of_thread = |(id, thread): (u32, &Progress)| {
            let starts = thread.starts(plan, id, &cuts);
            starts.filter(|offset| *offset >= first).count() as u32
        };
        (0..).zip(&self.threads).map(of_thread).sum()
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst) + 1 // 0: not yet
    }

    fn cuts(&self, plan: &Plan) -> Vec<Cut> {
        let of_thread = |(id, thread): (u32, &Progress)| {
            let begun = thread.begun.load(Ordering::Acquire);
            let cuts = (0..begun).filter(|seq| matches!(op(plan, id, *seq), Op::TruncateAfter));
            cuts.map(|seq| thread.calls[seq as usize].get()).collect::<Vec<_>>()
        };
        let cuts = (0..).zip(&self.threads).flat_map(of_thread);
        cuts.filter(|&(offset, began, _)| offset != REFUSED && began > 0)
            .map(|(offset, began, ended)| Cut { offset, began, ended: if ended > 0 { ended } else { u64::MAX } })
            .collect()
    }

    /// Everything below `end` is there, appended or committed or flushed, as was found out since then: but for what was
    /// cut meanwhile. Before that the end was never less.
    fn note(&self, what: &AtomicU64, end: u64, since: u64, cuts: &[Cut]) -> u64 {
        let cut = cuts.iter().filter(|cut| cut.ended > since).map(|cut| cut.offset);
        what.fetch_max(cut.fold(end, u64::min), Ordering::SeqCst)
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

    /// The end is being moved back: all of that has happened, or none, or a part.
    pub fn is_cutting(&self, plan: &Plan) -> bool {
        self.cuts(plan).iter().any(Cut::is_under_way)
    }

    /// How often the end was moved back.
    pub fn cuts_returned(&self, plan: &Plan) -> u32 {
        self.cuts(plan).iter().filter(|cut| !cut.is_under_way()).count() as u32
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
    calls: [Made; MOST_OPS],
}

#[repr(C)]
struct Made {
    /// Of an append's first record, or to where the end is moved back.
    offset: AtomicU64,
    began: AtomicU64,
    ended: AtomicU64,
}

impl Made {
    fn get(&self) -> (u64, u64, u64) {
        let began = self.began.load(Ordering::Acquire);
        (self.offset.load(Ordering::Acquire), began, self.ended.load(Ordering::Acquire))
    }
}

impl Progress {
    /// The appends that returned, and their numbers.
    fn appends(&self, plan: &Plan, id: u32) -> impl Iterator<Item = (u32, &Made)> {
        let returned = (0..).zip(&self.calls[..self.returned.load(Ordering::Acquire) as usize]);
        let appends = returned.filter(move |(seq, _)| !records(plan, id, *seq).is_empty());
        appends.filter(|(_, made)| made.offset.load(Ordering::Acquire) != REFUSED)
    }

    /// Where those begin that cannot have been cut.
    fn starts(&self, plan: &Plan, id: u32, cuts: &[Cut]) -> impl Iterator<Item = u64> {
        let stay = self.appends(plan, id).filter(|(_, made)| fate(cuts, made) == Fate::Stays);
        stay.map(|(_, made)| made.offset.load(Ordering::Acquire))
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

/// Says where it was (for `addr2line`) and what was mapped, and dies of the same signal.
extern "C" fn tell_where(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // Neither of these asks for memory, whose lock may be held: stderr has no buffer, and that of the copy
    // is on the stack.
    let mut stderr = io::stderr();
    // SAFETY: the kernel's own description of the signal.
    let _ = writeln!(stderr, "a fault at {:?}", unsafe { (*info).si_addr() });
    let mut frames = [ptr::null_mut(); 64];
    // SAFETY: `frames` has the length that is said.
    unsafe {
        let depth = libc::backtrace(frames.as_mut_ptr(), frames.len() as i32);
        libc::backtrace_symbols_fd(frames.as_ptr(), depth, libc::STDERR_FILENO);
    }
    let _ = fs::File::open("/proc/self/maps").and_then(|mut maps| io::copy(&mut maps, &mut stderr));
    // SAFETY: the signal comes again at the same place once its action is the default one.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

fn tell_of_faults() {
    // SAFETY: all zeros is an action, and the handler is of the kind that its flags say.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = tell_where as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO; // not on the small stack that is kept for overflows
        assert_eq!(libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut()), 0);
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
    tell_of_faults();

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
    let cuts = Cuts::default();
    thread::scope(|scope| {
        let told = scope.spawn(|| note_flushes(&queue, oracle, &cuts));
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
                    let (queue, cuts) = (&queue, &cuts);
                    move || append_all(queue, &plan, id, oracle, cuts)
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
fn note_flushes(queue: &Queue, oracle: &Oracle, cuts: &Cuts) {
    let Some(events) = unless_closed(oracle, queue.event_fd()) else { return };
    loop {
        let mut waits = libc::pollfd { fd: events, events: libc::POLLIN, revents: 0 };
        let mut count = 0u64;
        // SAFETY: both are this function's own, of the length that is said; the queue and its descriptor are open.
        unsafe {
            libc::poll(&mut waits, 1, -1);
            libc::read(events, (&raw mut count).cast(), 8);
        }
        let since = oracle.now();
        let Some(offsets) = unless_closed(oracle, queue.offsets()) else { return };
        if oracle.note(&oracle.flushed, offsets.flushed, since, &cuts.known()) < offsets.flushed {
            oracle.events.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Those of this process.
#[derive(Default)]
struct Cuts {
    one_at_a_time: Mutex<()>,
    /// Who keeps others from reading it keeps them from appending, too, unless they append beside cuts.
    known: RwLock<Vec<Cut>>,
}

impl Cuts {
    fn known(&self) -> RwLockReadGuard<'_, Vec<Cut>> {
        self.known.read().unwrap()
    }
}

fn append_all(queue: &Queue, plan: &Plan, thread: u32, oracle: &Oracle, cuts: &Cuts) {
    let progress = &oracle.threads[thread as usize];
    let mut end = 0;
    for seq in 0..MOST_OPS as u32 {
        progress.begun.store(seq + 1, Ordering::Release);
        let (op, made) = (op(plan, thread, seq), &progress.calls[seq as usize]);
        if matches!(op, Op::TruncateAfter) {
            match truncate_after(queue, plan, oracle, (thread, made), cuts) {
                Err(error) if error.status() == Status::Closed || oracle.may_fail(&error) => {}
                cut => cut.unwrap_or_else(|error| panic!("call {seq} of thread {thread}: {error}")),
            }
            progress.returned.store(seq + 1, Ordering::Release);
            continue;
        }
        let together = (!plan.habit.cuts_beside()).then(|| cuts.known());
        let since = oracle.now();
        let note = |what: &AtomicU64, end| match &together {
            Some(known) => oracle.note(what, end, since, known),
            None => oracle.note(what, end, since, &cuts.known()),
        };
        end = end.min(oracle.appended()); // another thread may have moved the end back
        let done = match op {
            Op::Flush { everything } => {
                let flushed = queue.flush(if everything { u64::MAX } else { end }, patience(plan));
                came(plan, flushed).map(|came| {
                    if came {
                        note(&oracle.flushed, end);
                        oracle.flushes.fetch_add(1, Ordering::SeqCst);
                    }
                })
            }
            Op::FlushStart => queue.flush_start(end),
            Op::Wait => came(plan, queue.wait(Which::Committed, end, patience(plan))).map(|came| {
                if came {
                    note(&oracle.committed, end);
                }
            }),
            Op::TruncateBefore => truncate_before(queue, plan, oracle, end),
            _ => append(queue, plan, thread, seq).and_then(|span| {
                made.began.store(since, Ordering::Release);
                made.ended.store(oracle.now(), Ordering::Release);
                made.offset.store(span.offset, Ordering::Release);
                end = span.end;
                note(&oracle.appended, end);
                match queue.secure(end) {
                    Err(error) if error.status() == Status::NotDurable && queue.offsets().is_err() => Ok(()), // closed
                    Ok(()) if plan.habit == Habit::EveryAppend => Ok(_ = note(&oracle.flushed, end)),
                    secured => secured,
                }
            }),
        };
        match done {
            Ok(()) => {}
            Err(error) if error.status() == Status::Closed => made.offset.store(REFUSED, Ordering::Release),
            Err(error) if oracle.may_fail(&error) => return,
            Err(error) => panic!("call {seq} of thread {thread}: {error}"),
        }
        progress.returned.store(seq + 1, Ordering::Release);
    }
}

fn patience(plan: &Plan) -> Deadline {
    within(match (plan.stop, plan.habit.cuts_beside()) {
        (Stop::Nowhere, false) => 30_000,
        (Stop::Nowhere, true) => 20,
        _ => 1,
    })
}

/// Whether what was waited for came. Behind an append that is stopped for ever nothing can, and what is cut off may not:
/// it is no failure that it takes too long.
fn came(plan: &Plan, waited: Result<(), Error>) -> Result<bool, Error> {
    let in_vain = |error: &Error| match error.status() {
        Status::Timeout => plan.stop != Stop::Nowhere || plan.habit.cuts_beside(),
        Status::End => plan.habit.cuts_beside(),
        _ => false,
    };
    match waited {
        Err(error) if in_vain(&error) => Ok(false),
        waited => waited.map(|()| true),
    }
}

/// Removes the files before the thread's last append, as far as that can be read.
fn truncate_before(queue: &Queue, plan: &Plan, oracle: &Oracle, end: u64) -> Result<(), Error> {
    let offset = end.min(queue.offsets()?.committed);
    oracle.removing.fetch_max(plan.file_start(offset), Ordering::SeqCst);
    match queue.truncate_before(offset) {
        Err(error) if error.status() == Status::Invalid && plan.habit.cuts_beside() => return Ok(()), // it was cut off
        truncated => truncated?,
    }
    oracle.hold_up_if_power_is_off();
    // The last file stays, though it ends there.
    oracle.removed.fetch_max(plan.file_start(offset.saturating_sub(1)), Ordering::SeqCst);
    oracle.truncations.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

/// Takes some of the thread's appends back, and what the others have appended since.
fn truncate_after(
    queue: &Queue,
    plan: &Plan,
    oracle: &Oracle,
    (thread, made): (u32, &Made),
    cuts: &Cuts,
) -> Result<(), Error> {
    let _one = cuts.one_at_a_time.lock().unwrap();
    loop {
        let mut known = cuts.known.write().unwrap();
        let starts: Vec<u64> = oracle.threads[thread as usize].starts(plan, thread, &known).collect();
        let begun = oracle.threads[thread as usize].begun.load(Ordering::Acquire) as usize;
        made.offset.store(REFUSED, Ordering::Release);
        let Some(start) = starts.get(starts.len().saturating_sub(1 + begun % 4)) else { return Ok(()) };
        let offset = queue.offsets()?.min.max(*start);
        let began = oracle.now();
        known.push(Cut { offset, began, ended: u64::MAX });
        made.offset.store(offset, Ordering::Release);
        made.began.store(began, Ordering::Release);
        oracle.appended.fetch_min(offset, Ordering::SeqCst);
        oracle.committed.fetch_min(offset, Ordering::SeqCst);
        oracle.flushed.fetch_min(offset, Ordering::SeqCst);
        oracle.least_cut.fetch_min(offset, Ordering::SeqCst);
        let outcome = if plan.habit.cuts_beside() {
            drop(known);
            let outcome = queue.truncate_after(offset);
            known = cuts.known.write().unwrap();
            outcome
        } else {
            queue.truncate_after(offset)
        };
        oracle.hold_up_if_power_is_off();
        match outcome {
            Ok(()) => {
                let ended = oracle.now();
                known.last_mut().expect("just put there").ended = ended;
                made.ended.store(ended, Ordering::Release);
                oracle.committed.fetch_max(offset, Ordering::SeqCst);
                oracle.truncations.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            Err(error) => {
                known.pop(); // it has not happened
                made.offset.store(REFUSED, Ordering::Release);
                match error.status() {
                    Status::Busy if plan.habit.cuts_beside() => {} // another thread's claim is open
                    Status::Invalid if plan.habit.cuts_beside() => return Ok(()), // its file was removed
                    _ => return Err(error),
                }
            }
        }
        drop(known);
        thread::yield_now();
    }
}

fn append(queue: &Queue, plan: &Plan, id: u32, seq: u32) -> Result<Span, Error> {
    let records: Vec<Vec<u8>> = records(plan, id, seq).iter().map(|(label, len)| label.record(*len)).collect();
    let claim = |claimed: usize, bytes: &[u8]| {
        let claim = queue.claim(claimed)?;
        // SAFETY: the claim is this thread's, and as long as `claimed`.
        unsafe { claim.ptr.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok::<_, Error>(claim)
    };
    let append = || match op(plan, id, seq) {
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
    };
    loop {
        match append() {
            // RAW: another thread's claim is open.
            Err(error) if error.status() == Status::Busy => thread::yield_now(),
            done => return done,
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
    /// After a kill in STAGED: the first ones, at least those below `least`. The log may end behind the last of them, as
    /// what was claimed there has become padding.
    Whole { least: u64 },
    /// After a power cut: the same of records, so that of a batch the first may be there without the others.
    Below { flushed: u64, end: u64 },
}

/// Compares the records that are there `now`, from `first` on, with those of `before` and with what the child said, and
/// returns how many appends of its had returned, cannot have been cut, and are there.
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
    let cuts = oracle.cuts(plan);
    let (under_way, done): (Vec<Cut>, Vec<Cut>) = cuts.iter().partition(|cut| cut.is_under_way());
    // Of what only one under way may take, and had returned before: where it begins, and whether it is there.
    let mut at_stake = Vec::new();
    let mut returned_in_all = 0;
    for (thread, progress) in (0..).zip(&oracle.threads) {
        let found = of_thread.remove(&thread).unwrap_or_default();
        let (returned, begun) = (progress.returned.load(Ordering::Acquire), progress.begun.load(Ordering::Acquire));
        let mut rest = found.as_slice();
        let mut lost = false;
        for (seq, made) in progress.appends(plan, thread) {
            let (mut offset, _, ended) = made.get();
            let (fate, records) = (fate(&cuts, made), records(plan, thread, seq));
            if fate == Fate::Gone || offset < first {
                continue;
            }
            if fate == Fate::MayBeGone {
                let is_there = rest.first().is_some_and(|(label, ..)| *label == records[0].0);
                if under_way.iter().all(|cut| cut.began > ended) && self::fate(&done, made) == Fate::Stays {
                    at_stake.push((offset, is_there));
                }
                if !is_there {
                    continue;
                }
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
            returned_in_all += u32::from(!lost && fate == Fate::Stays);
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
    at_stake.sort_unstable();
    assert!(at_stake.is_sorted_by_key(|(_, is_there)| !is_there), "a cut has left a hole: {at_stake:?}");
    returned_in_all
}

/// RAW: what was appended and returned, cannot have been cut, and lies below `until`, of this child's; in no order.
pub fn returned_below(plan: &Plan, oracle: &Oracle, until: u64) -> Vec<Found> {
    let (mut all, cuts) = (Vec::new(), oracle.cuts(plan));
    for (thread, progress) in (0..).zip(&oracle.threads) {
        for (seq, made) in progress.appends(plan, thread).filter(|(_, made)| fate(&cuts, made) == Fate::Stays) {
            let mut offset = made.offset.load(Ordering::Acquire);
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
