//! How fast are appends, beside memcpy and memcpy + CRC32C into a mapping of the same kind?
//!
//! A loop of appends outruns any prefault, so both sides are measured in laps over pages that are ready: a lap appends
//! less than what the library has readied, and between laps, untimed, the library catches up. The kinds of lap take
//! turns.

use crate::FILE_BYTES;
use crate::floor::MappedFloor;
use crate::library::{Format, Queue};
use crate::machine::Scratch;
use crate::report::{Table, Target, heading, median, progress, verdict};
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

const SIZES: [usize; 4] = [64, 256, 1024, 4096];

/// A file is this many laps.
const LAPS_A_FILE: u64 = 4;
const LAP_BYTES: u64 = FILE_BYTES / LAPS_A_FILE;
/// Left out at both ends of a lap, untimed: there files end, and the library is told where the writer is.
const MARGIN_BYTES: u64 = 512 << 10;
const TIMED_BYTES: u64 = LAP_BYTES - 2 * MARGIN_BYTES;
/// Of laps that are one sample together: at memory speed a lap alone is below a millisecond.
const SAMPLE: Duration = Duration::from_millis(1);
/// The longer a lap, the likelier that somebody else wants the processor.
const LONGEST_LAP: Duration = Duration::from_millis(2);
/// A sample during which somebody else took a processor away is taken again, at most so often: a millisecond beside the
/// time of another process says nothing about either side. (The library's own thread rests during a lap.)
const MOST_RETRIES: u32 = 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Memcpy,
    MemcpyCrc,
    Append(Format),
    AppendStaged(Format),
}

const KINDS: [(Kind, u32); 9] = [
    (Kind::Memcpy, 1),
    (Kind::Append(Format::Raw), 1),
    (Kind::MemcpyCrc, 1),
    (Kind::Append(Format::Record), 1),
    (Kind::Memcpy, 2),
    (Kind::Append(Format::Raw), 2),
    (Kind::Append(Format::Record), 2),
    (Kind::AppendStaged(Format::Raw), 1),
    (Kind::AppendStaged(Format::Record), 1),
];

/// Their places in `KINDS`.
const MEMCPY: usize = 0;
const RAW: usize = 1;
const MEMCPY_CRC: usize = 2;
const RECORD: usize = 3;
const MEMCPY_TWO: usize = 4;
const RAW_TWO: usize = 5;
const RECORD_TWO: usize = 6;
const RAW_STAGED: usize = 7;
const RECORD_STAGED: usize = 8;

/// Nanoseconds a record of all threads together, by kind and round.
struct Row {
    len: usize,
    samples: [Vec<f64>; KINDS.len()],
}

impl Row {
    fn time(&self, kind: usize) -> String {
        let ns = median(&self.samples[kind]);
        format!("{ns:.1} ns {:5.1} GB/s", self.len as f64 / ns)
    }

    /// Of two times: the median of their ratios within a round, as the machine's speed is not the same for long.
    fn ratio(&self, kind: usize, to: usize) -> f64 {
        let of_round = |(a, b): (&f64, &f64)| a / b;
        median(&self.samples[kind].iter().zip(&self.samples[to]).map(of_round).collect::<Vec<_>>())
    }
}

pub fn run(scratch: &Scratch, quick: bool) {
    let rounds = if quick { 8 } else { 32 };
    let mut retries = 0;
    let rows = SIZES.map(|len| measure(scratch, len, rounds, &mut retries));
    progress("");
    one_thread(&rows, rounds);
    two_threads(&rows);
    staged(&rows);
    let samples = SIZES.len() * KINDS.len() * rounds;
    println!(
        "\n  {retries} of {} samples were disturbed by other processes and taken again.",
        samples + retries as usize
    );
}

fn measure(scratch: &Scratch, len: usize, rounds: usize, retries: &mut u32) -> Row {
    let mut floor = MappedFloor::new(scratch);
    let mut raw = Queue::open(&scratch.fresh("raw"), Format::Raw, FILE_BYTES);
    let mut record = Queue::open(&scratch.fresh("record"), Format::Record, FILE_BYTES);
    let mut raw_staged = Queue::open_staged(&scratch.fresh("raw-staged"), Format::Raw, FILE_BYTES);
    let mut record_staged = Queue::open_staged(&scratch.fresh("record-staged"), Format::Record, FILE_BYTES);
    let data: Vec<u8> = (0..len).map(|i| (i * 131) as u8).collect();
    let mut samples: [Vec<f64>; KINDS.len()] = Default::default();
    for round in 0..rounds {
        progress(&format!("speed: {len} B, round {} of {rounds}", round + 1));
        for turn in 0..KINDS.len() {
            let kind = (turn + round) % KINDS.len(); // so that none always comes after the same one
            let lap = |(kind, threads)| match kind {
                Kind::Memcpy => floor_lap(&mut floor, &data, threads, false),
                Kind::MemcpyCrc => floor_lap(&mut floor, &data, threads, true),
                Kind::Append(Format::Raw) => append_lap(&mut raw, Format::Raw, &data, threads),
                Kind::Append(Format::Record) => append_lap(&mut record, Format::Record, &data, threads),
                Kind::AppendStaged(Format::Raw) => append_lap(&mut raw_staged, Format::Raw, &data, threads),
                Kind::AppendStaged(Format::Record) => append_lap(&mut record_staged, Format::Record, &data, threads),
            };
            samples[kind].push(sample(KINDS[kind], retries, lap));
        }
    }
    Row { len, samples }
}

/// Nanoseconds a record, over as many laps as a sample takes.
fn sample(what: (Kind, u32), retries: &mut u32, mut lap: impl FnMut((Kind, u32)) -> Lap) -> f64 {
    for attempt in 0.. {
        let mut sum = Lap { records: 0, took: Duration::ZERO, disturbed: false };
        while sum.took < SAMPLE && !sum.disturbed {
            let next = lap(what);
            sum.records += next.records;
            sum.took += next.took;
            sum.disturbed = next.disturbed;
        }
        if !sum.disturbed || attempt == MOST_RETRIES {
            return sum.took.as_nanos() as f64 / sum.records as f64;
        }
        *retries += 1;
    }
    unreachable!("the last attempt is as good as it gets")
}

struct Lap {
    records: u64,
    took: Duration,
    /// A thread lost its processor to another one.
    disturbed: bool,
}

fn append_lap(queue: &mut Queue, format: Format, data: &[u8], threads: u32) -> Lap {
    queue.empty_old_files();
    let begin = (queue.reserved() + LAP_BYTES / 2) / LAP_BYTES * LAP_BYTES;
    while queue.append(data).end < begin + MARGIN_BYTES {}
    queue.wait_ready(TIMED_BYTES + MARGIN_BYTES);
    let records = TIMED_BYTES / format.step(data.len());
    let queue = &*queue;
    race(threads, records, |go| {
        let append = queue.appender();
        append(data); // a thread's first call makes its record of pins
        go.run(|| {
            append(black_box(data));
        })
    })
}

fn floor_lap(floor: &mut MappedFloor, data: &[u8], threads: u32, checked: bool) -> Lap {
    let records = TIMED_BYTES / data.len() as u64;
    let share_bytes = (records / u64::from(threads)) as usize * data.len();
    let whole = floor.advance(LAP_BYTES as usize).expose_provenance();
    let nth = AtomicU32::new(0);
    race(threads, records, |go| {
        let share = nth.fetch_add(1, Ordering::Relaxed) as usize;
        let mut to = whole + MARGIN_BYTES as usize + share * share_bytes;
        let mut crcs = 0;
        let copy = |to: usize, data: &[u8]| {
            // SAFETY: the lap has LAP_BYTES of the mapping to itself and this thread its share of them, and takes as
            // many steps as fit in.
            unsafe {
                std::ptr::copy_nonoverlapping(data.as_ptr(), std::ptr::with_exposed_provenance_mut(to), data.len())
            }
        };
        let counts = if checked {
            go.run(|| {
                let data = black_box(data);
                let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
                digest.update(data);
                copy(to, data);
                crcs ^= digest.finalize();
                to += data.len();
            })
        } else {
            go.run(|| {
                let data = black_box(data);
                copy(to, data);
                to += data.len();
            })
        };
        black_box(crcs);
        counts
    })
}

/// What one thread did in a race.
struct Finish {
    steps: u64,
    began: Instant,
    ended: Instant,
    disturbed: bool,
}

/// A start together and a common finish.
struct Race {
    threads: u32,
    arrived: AtomicU32,
    over: AtomicBool,
    share: u64,
}

impl Race {
    /// Takes steps until this thread or another one has taken its share: what one does after the other has come to its
    /// end would not be work side by side.
    #[inline(always)]
    fn run(&self, mut step: impl FnMut()) -> Finish {
        const BETWEEN_LOOKS: u64 = 8;
        const BETWEEN_CLOCKS: u64 = 256 * BETWEEN_LOOKS; // looking at it must not be seen in the result
        let switches = involuntary_switches();
        self.arrived.fetch_add(1, Ordering::AcqRel);
        while self.arrived.load(Ordering::Acquire) < self.threads {
            spin_loop();
        }
        let began = Instant::now();
        let mut steps = 0;
        while steps < self.share && !self.over.load(Ordering::Relaxed) {
            let more = BETWEEN_LOOKS.min(self.share - steps);
            for _ in 0..more {
                step();
            }
            steps += more;
            if steps % BETWEEN_CLOCKS == 0 && began.elapsed() > LONGEST_LAP {
                break;
            }
        }
        self.over.store(true, Ordering::Relaxed);
        let ended = Instant::now();
        Finish { steps, began, ended, disturbed: involuntary_switches() != switches }
    }
}

fn race(threads: u32, records: u64, racer: impl Fn(&Race) -> Finish + Sync) -> Lap {
    let race =
        Race { threads, arrived: AtomicU32::new(0), over: AtomicBool::new(false), share: records / u64::from(threads) };
    if threads == 1 {
        let Finish { steps, began, ended, disturbed } = racer(&race);
        return Lap { records: steps, took: ended - began, disturbed };
    }
    let processors = Processors::allowed();
    let (mine, others) = processors.split();
    let results = std::thread::scope(|scope| {
        mine.bind();
        let starts = (1..threads).map(|_| {
            scope.spawn(|| {
                others.bind();
                racer(&race)
            })
        });
        let started: Vec<_> = starts.collect();
        let mut results = vec![racer(&race)];
        results.extend(started.into_iter().map(|other| other.join().expect("a thread of the race")));
        results
    });
    processors.bind();
    let began = results.iter().map(|result| result.began).min().expect("at least one");
    // From then on there was one thread less; a step that the others were in adds to the records, by some in thousands.
    let ended = results.iter().map(|result| result.ended).min().expect("at least one");
    Lap {
        records: results.iter().map(|result| result.steps).sum(),
        took: ended - began,
        disturbed: results.iter().any(|result| result.disturbed),
    }
}

/// Where threads may run. Two that race must not begin on the same processor, where the system likes to put a new one.
#[derive(Clone, Copy)]
struct Processors(libc::cpu_set_t);

impl Processors {
    fn allowed() -> Processors {
        // SAFETY: all zeros is a valid set, it is ours and has the size that is said.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            let answer = libc::sched_getaffinity(0, size_of_val(&set), &mut set);
            assert_eq!(answer, 0, "sched_getaffinity: {}", std::io::Error::last_os_error());
            Processors(set)
        }
    }

    /// The one that this thread is on, and the others (or it again, if there is none).
    fn split(&self) -> (Processors, Processors) {
        // SAFETY: the sets are ours, and the number is that of a processor.
        unsafe {
            let here = libc::sched_getcpu() as usize;
            let (mut mine, mut others): (libc::cpu_set_t, _) = (std::mem::zeroed(), self.0);
            libc::CPU_SET(here, &mut mine);
            libc::CPU_CLR(here, &mut others);
            (Processors(mine), if libc::CPU_COUNT(&others) > 0 { Processors(others) } else { Processors(mine) })
        }
    }

    /// Keeps the calling thread there.
    fn bind(&self) {
        // SAFETY: the set is ours and has the size that is said.
        let answer = unsafe { libc::sched_setaffinity(0, size_of_val(&self.0), &self.0) };
        assert_eq!(answer, 0, "sched_setaffinity: {}", std::io::Error::last_os_error());
    }
}

/// How often this thread lost its processor.
fn involuntary_switches() -> i64 {
    // SAFETY: all zeros is a valid rusage, and it is ours.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage.ru_nivcsw
    }
}

fn one_thread(rows: &[Row], rounds: usize) {
    heading(
        "One thread",
        &format!(
            "Time of a record and rate of its bytes; medians of {rounds} samples of 1 ms or more, in turns. Ratios are of\n\
             samples of one round, and their medians."
        ),
    );
    let mut table = Table::new(["", "memcpy", "memcpy + CRC32C", "RAW", "RECORD"]);
    for row in rows {
        let times = [MEMCPY, MEMCPY_CRC, RAW, RECORD].map(|kind| row.time(kind));
        let [memcpy, checked, raw, record] = times;
        table.row([format!("{} B", row.len), memcpy, checked, raw, record]);
    }
    table.print();
    println!();
    let mut table = Table::new([
        "",
        "RAW speed / memcpy's",
        "RECORD time / memcpy's",
        "RECORD speed / memcpy's",
        "/ memcpy + CRC32C's",
    ]);
    for row in rows {
        let (raw_target, time_target, speed_target) = match row.len {
            64 => (Target::None, Target::AtMost(12.0), Target::None),
            1024 => (Target::AtLeast(0.75), Target::None, Target::AtLeast(0.6)),
            4096 => (Target::None, Target::None, Target::AtLeast(0.8)),
            _ => (Target::None, Target::None, Target::None),
        };
        table.row([
            format!("{} B", row.len),
            verdict(row.ratio(MEMCPY, RAW), raw_target),
            verdict(row.ratio(RECORD, MEMCPY), time_target),
            verdict(row.ratio(MEMCPY, RECORD), speed_target),
            format!("{:.2}", row.ratio(MEMCPY_CRC, RECORD)),
        ]);
    }
    table.print();
}

fn two_threads(rows: &[Row]) {
    heading(
        "Two threads on one queue",
        "Both together while both append: time from one record to the next of either, and rate beside one thread's.",
    );
    let mut table = Table::new(["", "memcpy", "RAW", "RECORD", "memcpy / one", "RAW / one", "RECORD / one"]);
    for row in rows {
        table.row([
            format!("{} B", row.len),
            row.time(MEMCPY_TWO),
            row.time(RAW_TWO),
            row.time(RECORD_TWO),
            format!("{:.2}", row.ratio(MEMCPY, MEMCPY_TWO)),
            verdict(row.ratio(RAW, RAW_TWO), Target::AtLeast(1.0)),
            verdict(row.ratio(RECORD, RECORD_TWO), Target::AtLeast(1.0)),
        ]);
    }
    table.print();
}

fn staged(rows: &[Row]) {
    heading(
        "STAGED beside MMAP, one thread",
        "Into private memory, not into the file's mapping; what commits do later, in another thread, is left out.",
    );
    let mut table = Table::new(["", "RAW", "RECORD", "RAW time / MMAP's", "RECORD time / MMAP's"]);
    for row in rows {
        // No slower; some hundredths are what two runs of the same differ by.
        let target = || if row.len == 1024 { Target::AtMost(1.05) } else { Target::None };
        table.row([
            format!("{} B", row.len),
            row.time(RAW_STAGED),
            row.time(RECORD_STAGED),
            verdict(row.ratio(RAW_STAGED, RAW), target()),
            verdict(row.ratio(RECORD_STAGED, RECORD), target()),
        ]);
    }
    table.print();
}
