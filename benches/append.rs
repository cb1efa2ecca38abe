//! `cargo bench`: what an append costs, beside the machine's own limits, measured in the same run.
//!
//! | file | question it answers |
//! |---|---|
//! | `speed` | how fast are appends, beside memcpy and memcpy + CRC32C? |
//! | `rate` | how late are appends at a fixed rate, beside the same loop into plain memory? |
//! | `durable` | what does a durable append cost, beside the same store and msync, and how many share one? |
//! | `footprint` | how much memory does the library keep, what does an idle queue cost, how far ahead does it prefault? |
//! | `open` | how long does an open take, after a crash and after a close, beside a checksum of the same bytes? |
//! | `library` | libmfq.so as a host sees it: dlopen and C functions |
//! | `floor` | memory of the same kind without the library |
//! | `machine` `report` | where this ran; tables, medians, verdicts |
//!
//! `cargo bench -- --quick` takes less of everything; names of parts (`speed`, `rate`, `durable`, `footprint`, `open`)
//! run these only. The files go to a temporary directory below the target directory, or below `MFQ_BENCH_DIR`.

mod durable;
mod floor;
mod footprint;
mod library;
mod machine;
mod open;
mod rate;
mod report;
mod speed;

use std::time::Instant;

/// Every queue of the benchmark, and the floor beside it, has files of this size unless it says otherwise.
pub const FILE_BYTES: u64 = 64 << 20;

/// Measures and prints; quickly if the flag is set.
type Part = fn(&machine::Scratch, bool);
const PARTS: [(&str, Part); 5] = [
    ("speed", speed::run),
    ("rate", rate::run),
    ("durable", durable::run),
    ("footprint", footprint::run),
    ("open", open::run),
];

fn main() {
    let (mut quick, mut wanted) = (false, Vec::new());
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--bench" => {} // cargo says so to every benchmark
            "--quick" => quick = true,
            name if PARTS.iter().any(|(part, _)| *part == name) => wanted.push(argument),
            other => {
                eprintln!(
                    "{other:?} is not known. Known are --quick, and the parts speed, rate, durable, footprint and open."
                );
                std::process::exit(2);
            }
        }
    }
    let began = Instant::now();
    let scratch = machine::Scratch::new();
    machine::introduce(&scratch);
    for (name, part) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|want| want == name) {
            part(&scratch, quick);
        }
    }
    println!("\n{} s in all.", began.elapsed().as_secs());
}
