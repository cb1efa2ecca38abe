//! What the library keeps, and what it costs while nothing happens.

use crate::FILE_BYTES;
use crate::library::{Format, Queue};
use crate::machine::{Scratch, field};
use crate::report::{Table, heading, mark, progress};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// The promise: so much in all, and so much more for each file.
const HEAP_BYTES: u64 = 1 << 20;
const HEAP_BYTES_A_FILE: u64 = 256;
/// The library says that it readies no more than this ahead of the writer.
const AHEAD_BYTES: u64 = 64 << 20;
const IDLE: Duration = Duration::from_secs(2);

pub fn run(scratch: &Scratch, quick: bool) {
    heading(
        "Memory and idleness",
        "The heap is what malloc has given out (mallinfo2, its cache for re-use included) beyond what it had before the\n\
         queue was opened; the library in libmfq.so takes all its memory there. The mappings of the files are not in it.",
    );
    let mut table = Table::new(["", "appended", "files", "heap", "bound", ""]);
    let gib: u64 = if quick { 1 } else { 4 };
    for (name, format, file_bytes, bytes, len) in [
        ("RECORD, 1 KiB", Format::Record, FILE_BYTES, gib << 30, 1024),
        ("RAW, 1 KiB", Format::Raw, FILE_BYTES, gib << 30, 1024),
        ("RECORD, files of one page", Format::Record, 4096, 1000 * 4096, 240),
    ] {
        progress(&format!("footprint: {name}"));
        let heap = heap_after(scratch, format, file_bytes, bytes, len);
        let files = bytes / file_bytes;
        let bound = HEAP_BYTES + HEAP_BYTES_A_FILE * files;
        table.row([
            name.into(),
            format!("{} MiB", bytes >> 20),
            files.to_string(),
            format!("{:.1} KiB", heap as f64 / 1024.0),
            format!("<= {} KiB", bound >> 10),
            mark(heap <= bound).into(),
        ]);
    }
    progress("footprint: idle");
    table.print();
    idle(scratch);
}

fn heap_bytes() -> u64 {
    // SAFETY: takes nothing, returns integers.
    let info = unsafe { libc::mallinfo2() };
    (info.uordblks + info.hblkhd) as u64
}

fn heap_after(scratch: &Scratch, format: Format, file_bytes: u64, bytes: u64, len: usize) -> u64 {
    let directory = scratch.fresh("footprint");
    let before = heap_bytes();
    let mut queue = Queue::open(&directory, format, file_bytes);
    let data = vec![7u8; len];
    let mut end = 0;
    while end < bytes {
        let before = end;
        end = queue.append(&data).end;
        if before / FILE_BYTES != end / FILE_BYTES {
            queue.empty_old_files();
        }
    }
    heap_bytes().saturating_sub(before)
}

fn idle(scratch: &Scratch) {
    let queue = Queue::open(&scratch.fresh("idle"), Format::Record, FILE_BYTES);
    queue.append(b"the last record for a while");
    settle();
    let ahead = queue.wait_ready(0);
    let before = threads_of_the_library();
    std::thread::sleep(IDLE);
    let after = threads_of_the_library();
    println!();
    let mut table = Table::new(["2 idle seconds", "CPU time", "switches", ""]);
    for (thread, cost) in &after {
        let then = before.iter().find(|(same, _)| same == thread).map_or(Cost::default(), |(_, cost)| *cost);
        let (ns, switches) = (cost.cpu_ns - then.cpu_ns, cost.switches - then.switches);
        let met = mark(ns == 0 && switches == 0);
        table.row([format!("thread {}", thread.1), format!("{ns} ns"), switches.to_string(), met.into()]);
    }
    assert!(!after.is_empty(), "an open queue has at least the allocation thread");
    table.print();
    println!(
        "\n  Readied ahead of the writer: {:.1} MiB, bound 64 MiB: {}",
        ahead as f64 / f64::from(1 << 20),
        mark(ahead <= AHEAD_BYTES)
    );
}

/// Waits until the library's threads have nothing left to do: a new file is still being synced when it is ready.
fn settle() {
    let mut last = threads_of_the_library();
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(100));
        let now = threads_of_the_library();
        if now == last {
            return;
        }
        last = now;
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Cost {
    cpu_ns: u64,
    switches: u64,
}

/// Number, name and cost so far of the threads whose name begins with the library's.
fn threads_of_the_library() -> Vec<((PathBuf, String), Cost)> {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc, which Linux has");
    let cost = |task: PathBuf| {
        let name = fs::read_to_string(task.join("comm")).ok()?.trim().to_owned();
        let schedstat = fs::read_to_string(task.join("schedstat")).ok()?;
        let count = |name| field(task.join("status"), name)?.parse::<u64>().ok();
        let switches = count("voluntary_ctxt_switches")? + count("nonvoluntary_ctxt_switches")?;
        let cost = Cost { cpu_ns: schedstat.split(' ').next()?.parse().ok()?, switches };
        name.starts_with("mfq-").then_some(((task, name), cost))
    };
    tasks.filter_map(|task| cost(task.ok()?.path())).collect()
}
