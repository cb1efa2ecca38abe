//! How late are appends at a fixed rate? Each is timed from the moment it was meant to begin, so that a stall counts
//! for all that it held up.

use crate::FILE_BYTES;
use crate::floor::PlainMemory;
use crate::library::{Format, Queue};
use crate::machine::{Scratch, memory_mib};
use crate::report::{Table, heading, mark, nanoseconds, progress};
use hdrhistogram::Histogram;
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const RECORD_BYTES: usize = 1024;
const BYTES_A_SECOND: u64 = 500_000_000;
const INTERVAL: Duration = Duration::from_nanos(RECORD_BYTES as u64 * 1_000_000_000 / BYTES_A_SECOND);

pub fn run(scratch: &Scratch, quick: bool) {
    let rolls: u64 = if quick { 12 } else { 52 };
    let records = rolls * FILE_BYTES / Format::Record.step(RECORD_BYTES);
    heading(
        "500 MB/s of 1 KiB records, one thread",
        "Each append timed from its intended moment. The floor is the same loop into plain private memory, one half before\n\
         and one half after. Rolls are the appends that went to the next file.",
    );
    let mut memory = PlainMemory::new(FILE_BYTES);
    let mut half = || {
        progress("rate: the floor");
        plain(&mut memory, records / 2)
    };
    let mut before = half();
    for format in [Format::Raw, Format::Record] {
        let name = if format == Format::Raw { "RAW" } else { "RECORD" };
        progress(&format!("rate: {name}"));
        let appended = appends(scratch, format, records);
        let after = half();
        before.add(&after).expect("histograms of the same bounds");
        progress("");
        print(name, &appended, &before);
        before = after;
    }
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("sound bounds")
}

/// Calls `step` at its intended moments, and `late_ns` with how long after each it was done.
#[inline(always)]
fn paced<T>(records: u64, mut step: impl FnMut() -> T, mut late_ns: impl FnMut(T, u64)) {
    let mut intended = Instant::now() + INTERVAL;
    for _ in 0..records {
        while Instant::now() < intended {
            spin_loop();
        }
        let result = step();
        late_ns(result, (Instant::now() - intended).as_nanos() as u64);
        intended += INTERVAL;
    }
}

fn plain(memory: &mut PlainMemory, records: u64) -> Histogram<u64> {
    let mut late = new_histogram();
    let (memory, data) = (memory.as_mut_slice(), [7u8; RECORD_BYTES]);
    let mut at = 0;
    let step = || {
        memory[at..at + RECORD_BYTES].copy_from_slice(black_box(&data));
        at = if at + 2 * RECORD_BYTES > memory.len() { 0 } else { at + RECORD_BYTES };
    };
    paced(records, step, |(), ns| late.saturating_record(ns));
    late
}

struct Appended {
    rest: Histogram<u64>,
    rolls: Histogram<u64>,
    ready: u64,
    waited: u64,
    files_slow: u64,
    least_ahead: u64,
    most_dirty_mib: u64,
    most_writeback_mib: u64,
}

fn appends(scratch: &Scratch, format: Format, records: u64) -> Appended {
    let queue = Queue::open(&scratch.fresh("rate"), format, FILE_BYTES);
    let data = [7u8; RECORD_BYTES];
    queue.append(&data);
    queue.wait_ready(FILE_BYTES / 2);
    let append = queue.appender();
    let (mut rest, mut rolls) = (new_histogram(), new_histogram());
    let mut file = 0;
    let (over, least_ahead) = (AtomicBool::new(false), AtomicU64::new(u64::MAX));
    let (most_dirty_mib, most_writeback_mib) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut dirty, mut writeback) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                dirty = memory_mib("Dirty").max(dirty);
                writeback = memory_mib("Writeback").max(writeback);
                // Not the end of the queue and then the pages: in between the writer would have come closer.
                let end = queue.reserved();
                least_ahead.fetch_min(queue.stats().prefaulted_to.saturating_sub(end), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(100));
            }
            (dirty, writeback)
        });
        paced(
            records,
            || append(&data),
            |span, ns| {
                let in_file = span.offset / FILE_BYTES;
                let late = if in_file == file { &mut rest } else { &mut rolls };
                late.saturating_record(ns);
                file = in_file;
            },
        );
        over.store(true, Ordering::Relaxed);
        watcher.join().expect("the watcher")
    });
    let stats = queue.stats();
    Appended {
        rest,
        rolls,
        ready: stats.rolls_ready,
        waited: stats.rolls_waited + stats.rolls_timed_out,
        files_slow: stats.slow_creations,
        least_ahead: least_ahead.into_inner(),
        most_dirty_mib,
        most_writeback_mib,
    }
}

fn print(name: &str, appended: &Appended, floor: &Histogram<u64>) {
    let mut all = appended.rest.clone();
    all.add(&appended.rolls).expect("histograms of the same bounds");
    let mut table = Table::new([name, "count", "p50", "p90", "p99", "p99.9", "p99.99", "max"]);
    for (what, times) in
        [("floor", floor), ("all appends", &all), ("without rolls", &appended.rest), ("rolls", &appended.rolls)]
    {
        let at = |quantile| nanoseconds(times.value_at_quantile(quantile) as f64);
        table.row([
            what.into(),
            times.len().to_string(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            at(0.9999),
            nanoseconds(times.max() as f64),
        ]);
    }
    table.print();
    let ratio = all.value_at_quantile(0.9999) as f64 / floor.value_at_quantile(0.9999) as f64;
    println!("  p99.99 / floor's    {ratio:.2}");
    println!(
        "  rolls               {} found their file ready, {} waited: {} 0 that wait",
        appended.ready,
        appended.waited,
        mark(appended.waited == 0)
    );
    println!(
        "  meanwhile           {} creations slower than 10 ms; at least {} MiB ready ahead (10 looks a second);\n\
         {:22}at most {} MiB dirty, {} MiB in write-back, on the whole machine\n",
        appended.files_slow,
        appended.least_ahead >> 20,
        "",
        appended.most_dirty_mib,
        appended.most_writeback_mib
    );
}
