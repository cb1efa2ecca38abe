//! How long an open takes: of a queue that was not closed, whose end has to be found, and of one of many files that
//! was.

use crate::FILE_BYTES;
use crate::library::{Format, Queue};
use crate::machine::Scratch;
use crate::report::{Table, Target, heading, median, progress, verdict};
use memmap2::{Advice, MmapOptions};
use mfq::capi::MFQ_OPEN_READ_ONLY;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

const TAIL_BYTES: u64 = 1 << 30;
const FILES: u64 = 1_000;
const SMALL_FILE_BYTES: u64 = 64 << 10;

pub fn run(scratch: &Scratch, quick: bool) {
    heading(
        "Opening",
        "A tail of 1 GiB in the page cache that no checkpoint vouches for: `read-only` finds its end and changes nothing,\n\
         `writable` syncs what was cut, too. Beside it CRC32C over the same bytes, mapped the same way, in as many pieces.\n\
         Then a queue of 1,000 files that was closed. Medians.",
    );
    let rounds = if quick { 3 } else { 9 };
    let mut table = Table::new(["1 GiB dirty", "CRC32C alone", "read-only", "", "writable"]);
    for (name, len) in [("RECORD, 64 B", 64), ("RECORD, 1 KiB", 1024), ("RECORD, 64 KiB", 64 << 10)] {
        progress(&format!("open: {name}"));
        let (directory, private) = dirty_tail(scratch, len);
        let (mut plain, mut reading, mut writing) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            plain.push(checksummed(&directory, len));
            private.put_back(&directory);
            reading.push(opened(&directory, FILE_BYTES, MFQ_OPEN_READ_ONLY));
            writing.push(opened(&directory, FILE_BYTES, 0));
        }
        let speed = |seconds: &[f64]| TAIL_BYTES as f64 / 1e9 / median(seconds);
        table.row([
            name.into(),
            format!("{:.2} GB/s", speed(&plain)),
            format!("{:.2} GB/s", speed(&reading)),
            verdict(speed(&reading), Target::AtLeast(3.0)),
            format!("{:.2} GB/s", speed(&writing)),
        ]);
        fs::remove_dir_all(directory).expect("a directory of our own");
    }
    table.print();

    progress("open: 1,000 files");
    let directory = scratch.fresh("files");
    let queue = Queue::open(&directory, Format::Record, SMALL_FILE_BYTES);
    let record = vec![7; SMALL_FILE_BYTES as usize - 16];
    for _ in 0..FILES {
        queue.append(&record);
    }
    queue.close();
    let ms: Vec<f64> = (0..rounds).map(|_| 1e3 * opened(&directory, SMALL_FILE_BYTES, 0)).collect();
    let mut table = Table::new(["1,000 files, closed", "ms", ""]);
    table.row(["RECORD".into(), format!("{:.1}", median(&ms)), verdict(median(&ms), Target::AtMost(20.0))]);
    println!();
    table.print();
    fs::remove_dir_all(directory).expect("a directory of our own");
}

/// What a process that is killed leaves in `.mfq`.
struct Private(Vec<(PathBuf, Vec<u8>)>);

impl Private {
    fn of(directory: &Path) -> Private {
        let read = |name: &str| (PathBuf::from(name), fs::read(directory.join(name)).expect("a file of the queue"));
        Private([".mfq/checkpoint", ".mfq/tail"].map(read).to_vec())
    }

    fn put_back(&self, directory: &Path) {
        for (name, bytes) in &self.0 {
            fs::write(directory.join(name), bytes).expect("a file of the queue");
        }
    }
}

/// Closed, and then made to look as if it had not been.
fn dirty_tail(scratch: &Scratch, len: usize) -> (PathBuf, Private) {
    let directory = scratch.fresh("tail");
    let queue = Queue::open(&directory, Format::Record, FILE_BYTES);
    let record = vec![7; len];
    while queue.append(&record).end < TAIL_BYTES {}
    let private = Private::of(&directory);
    queue.close();
    (directory, private)
}

/// Seconds that an open takes; it is closed again.
fn opened(directory: &Path, file_bytes: u64, flags: u32) -> f64 {
    let began = Instant::now();
    let queue = Queue::open_with(directory, Format::Record, file_bytes, |options| options.flags = flags);
    let seconds = began.elapsed().as_secs_f64();
    queue.close();
    seconds
}

/// Seconds that a checksum takes for each `len` bytes of the tail.
fn checksummed(directory: &Path, len: usize) -> f64 {
    let began = Instant::now();
    for start in (0..TAIL_BYTES).step_by(FILE_BYTES as usize) {
        let file = fs::File::open(directory.join(format!("{start:020}"))).expect("a file of the queue");
        // SAFETY: nobody writes the file while it is mapped.
        let map = unsafe { MmapOptions::new().len(FILE_BYTES as usize).map(&file) }.expect("a mapping of 64 MiB");
        map.advise(Advice::PopulateRead).expect("MADV_POPULATE_READ, which Linux has since 5.14");
        for piece in map.chunks(len + 16) {
            black_box(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, piece));
        }
    }
    began.elapsed().as_secs_f64()
}
