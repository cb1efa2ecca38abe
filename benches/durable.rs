//! What does a durable append cost, beside the same store and ranged msync into a file prepared the same way, and how
//! many writers share a sync?

use crate::FILE_BYTES;
use crate::floor::{PlainGroup, SyncedFloor};
use crate::library::{Format, Queue};
use crate::machine::{Scratch, field};
use crate::report::{Table, Target, heading, median, nanoseconds, progress, verdict};
use hdrhistogram::Histogram;
use mfq::capi::{MFQ_FLUSH_EVERY_APPEND, MFQ_FLUSH_LEAST_PAGES, MFQ_FLUSH_NONE, MFQ_STAGED};
use std::sync::Barrier;
use std::time::Instant;

const RECORD_BYTES: usize = 1024;
const WRITERS: usize = 64;

pub fn run(scratch: &Scratch, quick: bool) {
    let (rounds, appends) = if quick { (5, 300) } else { (15, 1000) };
    one_writer(scratch, rounds, appends);
    many_writers(scratch, rounds, appends);
}

type Step<'w> = Box<dyn FnMut(&[u8]) + 'w>;

/// A way to make a record durable, and what it took.
struct Way<'w> {
    name: &'static str,
    step: Step<'w>,
    /// Which other way it is measured by.
    floor: Option<usize>,
    rates: Vec<f64>,
    times: Histogram<u64>,
    written: u64,
}

impl<'w> Way<'w> {
    fn new(name: &'static str, floor: Option<usize>, step: impl FnMut(&[u8]) + 'w) -> Way<'w> {
        let times = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("sound bounds");
        Way { name, step: Box::new(step), floor, rates: Vec::new(), times, written: 0 }
    }

    fn round(&mut self, appends: u64, data: &[u8]) {
        let (began, written) = (Instant::now(), written_bytes());
        let mut before = began;
        for _ in 0..appends {
            (self.step)(data);
            let now = Instant::now();
            self.times.saturating_record((now - before).as_nanos() as u64);
            before = now;
        }
        self.rates.push(appends as f64 / (before - began).as_secs_f64());
        self.written += written_bytes() - written;
    }
}

/// What this process has dirtied so far: a page counts once for each sync that it is dirty for.
fn written_bytes() -> u64 {
    field("/proc/self/io", "write_bytes").and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn opened(scratch: &Scratch, format: Format, flush_policy: u32) -> Queue {
    let queue = Queue::open_flushing(&scratch.fresh("durable"), format, FILE_BYTES, flush_policy);
    queue.append(&[7; RECORD_BYTES]);
    queue.wait_ready(FILE_BYTES / 2);
    queue.flush(queue.reserved()); // the file's name, and what is done once
    queue
}

fn one_writer(scratch: &Scratch, rounds: u64, appends: u64) {
    heading(
        "One durable writer, 1 KiB records",
        "The floor stores a record and syncs its range by msync, in a file that was reserved, mapped and populated as the\n\
         library does. Ratios are of rates of one round, their median. Files are of huge pages under the policy NONE.",
    );
    let data = [7u8; RECORD_BYTES];
    // With as many bytes as a record takes in the queue, so that it crosses pages as often.
    let frame = vec![7u8; Format::Record.step(RECORD_BYTES) as usize];
    let (mut small, mut huge) = (SyncedFloor::new(scratch, false), SyncedFloor::new(scratch, true));
    small.store_and_sync(&frame);
    huge.store_and_sync(&frame);
    let every_append = opened(scratch, Format::Record, MFQ_FLUSH_EVERY_APPEND);
    let by_hand = opened(scratch, Format::Record, MFQ_FLUSH_LEAST_PAGES);
    let by_hand_huge = opened(scratch, Format::Record, MFQ_FLUSH_NONE);
    let mut ways = [
        Way::new("floor: store + msync", None, |_| small.store_and_sync(&frame)),
        Way::new("EVERY_APPEND", Some(0), |data| _ = every_append.append(data)),
        Way::new("append + mfq_flush", Some(0), |data| by_hand.flush(by_hand.append(data).end)),
        Way::new("floor, huge pages", None, |_| huge.store_and_sync(&frame)),
        Way::new("append + mfq_flush, NONE", Some(3), |data| by_hand_huge.flush(by_hand_huge.append(data).end)),
    ];
    for round in 0..rounds {
        for way in &mut ways {
            progress(&format!("durable: round {round} of {rounds}: {}", way.name));
            way.round(appends, &data);
        }
    }
    progress("");
    let mut table = Table::new(["", "a second", "p50", "p90", "p99", "p99.9", "max", "written each", "rate / floor's"]);
    for way in &ways {
        let at = |quantile| nanoseconds(way.times.value_at_quantile(quantile) as f64);
        let ratio = way.floor.map(|floor| {
            let pairs = way.rates.iter().zip(&ways[floor].rates);
            let ratio = median(&pairs.map(|(rate, floor)| rate / floor).collect::<Vec<_>>());
            verdict(ratio, Target::AtLeast(0.9))
        });
        table.row([
            way.name.into(),
            format!("{:.0}", median(&way.rates)),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            nanoseconds(way.times.max() as f64),
            format!("{:.1} KiB", way.written as f64 / 1024.0 / way.times.len() as f64),
            ratio.unwrap_or_default(),
        ]);
    }
    table.print();
}

fn many_writers(scratch: &Scratch, rounds: u64, appends: u64) {
    heading(
        "64 durable writers beside one, 1 KiB records, EVERY_APPEND",
        "Threads of the host that append to one queue; each waits until its record is durable. Rates of all together. The\n\
         plain way: each stores and sleeps, the last of the 64 syncs for all and wakes them, with a mutex and a condition.",
    );
    let (record, raw) =
        [Format::Record, Format::Raw].map(|format| opened(scratch, format, MFQ_FLUSH_EVERY_APPEND)).into();
    let staged = Queue::open_with(&scratch.fresh("durable"), Format::Record, FILE_BYTES, |options| {
        (options.mode, options.flush_policy) = (MFQ_STAGED, MFQ_FLUSH_EVERY_APPEND);
    });
    let plain = PlainGroup::new(scratch);
    let ways: [(&str, &Append); 4] = [
        ("plain", &|data, writers| plain.store_and_sync(data, writers)),
        ("RECORD", &|data, _| _ = record.append(data)),
        ("RECORD, STAGED", &|data, _| _ = staged.append(data)),
        ("RAW, checkpoint in each flush", &|data, _| _ = raw.append(data)),
    ];
    let mut results = ways.map(|_| Vec::new());
    for round in 0..rounds {
        for ((name, append), results) in ways.iter().zip(&mut results) {
            progress(&format!("durable: {name}, round {round} of {rounds}"));
            results.push((together(append, 1, appends), together(append, WRITERS, appends / 3)));
        }
    }
    progress("");
    let mut table = Table::new(["", "one", "p99", "64", "p50", "p99", "max", "64 / one", "64 / plain's 64"]);
    let rates =
        results.each_ref().map(|results| median(&results.iter().map(|(_, many)| many.rate).collect::<Vec<_>>()));
    for (index, ((name, _), results)) in ways.iter().zip(&results).enumerate() {
        let rate = |of: &dyn Fn(&(Together, Together)) -> f64| median(&results.iter().map(of).collect::<Vec<_>>());
        let sum = |of: &dyn Fn(&(Together, Together)) -> Histogram<u64>| {
            results.iter().map(of).reduce(|sum, times| sum + times).expect("at least one round")
        };
        let (one, many) = (sum(&|(one, _)| one.times.clone()), sum(&|(_, many)| many.times.clone()));
        table.row([
            name.to_string(),
            format!("{:.0} a second", rate(&|(one, _)| one.rate)),
            nanoseconds(one.value_at_quantile(0.99) as f64),
            format!("{:.0} a second", rates[index]),
            nanoseconds(many.value_at_quantile(0.5) as f64),
            nanoseconds(many.value_at_quantile(0.99) as f64),
            nanoseconds(many.max() as f64),
            verdict(
                rate(&|(one, many)| many.rate / one.rate),
                if index == 0 { Target::None } else { Target::AtLeast(15.0) },
            ),
            if index == 0 { String::new() } else { format!("{:.2}", rates[index] / rates[0]) },
        ]);
    }
    table.print();
}

/// One durable append of so many writers that do it at once.
type Append<'a> = dyn Fn(&[u8], usize) + Sync + 'a;

struct Together {
    rate: f64,
    times: Histogram<u64>,
}

/// So many threads that append so many records each.
fn together(append: &Append, writers: usize, appends: u64) -> Together {
    let start = Barrier::new(writers + 1);
    let data = [7u8; RECORD_BYTES];
    let (times, took) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|_| {
                scope.spawn(|| {
                    let mut times: Histogram<u64> =
                        Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("sound bounds");
                    start.wait();
                    let mut before = Instant::now();
                    for _ in 0..appends {
                        append(&data, writers);
                        let now = Instant::now();
                        times.saturating_record((now - before).as_nanos() as u64);
                        before = now;
                    }
                    times
                })
            })
            .collect();
        start.wait();
        let began = Instant::now();
        let times = threads.into_iter().map(|thread| thread.join().expect("a writer"));
        let times = times.reduce(|sum, times| sum + times).expect("at least one writer");
        (times, began.elapsed())
    });
    Together { rate: (writers as u64 * appends) as f64 / took.as_secs_f64(), times }
}
