//! Every bit flipped, every length cut: of the last 64 KiB of a queue, of its small files, of the last file. However it
//! was left, it is refused as damaged, or what it gives is exactly what was appended, as far as it goes: no panic, and
//! no record that is not right.
//!
//! The short form flips one bit of each byte of the data, and every bit of the headers and small files;
//! `MFQ_BIT_FLIPS=all` flips all of them, and tries every length.

#[path = "support/sim_disk.rs"]
mod sim_disk;
#[path = "support/engine.rs"]
mod support;

use mfq::os::{FaultyOs, native};
use mfq::{Error, Filler, Format, Options, Queue, Span, Status};
use sim_disk::{Image, SimDisk, write_image};
use std::env;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use support::{OnPanic, page, raw, record, scratch_in_memory};
use tempfile::TempDir;

/// What is appended to a queue that was opened in spite of its damage.
const GOES_ON: &[u8] = b"it goes on";
const FILE_BYTES: u64 = 64 << 10;
const FIRST_BOOT: [u8; 16] = *b"the first boot..";
const SECOND_BOOT: [u8; 16] = *b"the second boot.";

/// How the queue was left, and in which boot it is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Left {
    Closed,
    Killed,
    PowerCut,
}

/// A queue of one file as it was left, to be damaged and looked at.
struct Patient {
    root: TempDir,
    options: Options,
    left: Left,
    os: Arc<FaultyOs>,
    records: Vec<(Span, Vec<u8>)>,
    durable: u64,
    image: Image,
}

fn all_of_it() -> bool {
    env::var("MFQ_BIT_FLIPS").as_deref() == Ok("all")
}

impl Patient {
    /// Half of its records are durable, but for a queue that was closed: then all of them are.
    fn new(options: Options, left: Left) -> Patient {
        let root = scratch_in_memory();
        let disk = SimDisk::new(root.path(), FIRST_BOOT);
        let path = root.path().join("queue");
        let (mut records, mut durable) = (Vec::new(), 0);
        for half in 0..2u64 {
            let queue = Queue::open(disk.clone(), &path, &options).unwrap();
            while queue.offsets().unwrap().committed < (half + 1) * options.file_size * 15 / 32 {
                let len = [100, 1, 700, 2345, 24, 5000, 333, 64][records.len() % 8];
                let bytes = vec![records.len() as u8 % 255 + 1; len];
                records.push((queue.append(&bytes).unwrap(), bytes));
            }
            let image = if half == 1 && left != Left::Closed { Some(disk.kill()) } else { None };
            let end = queue.offsets().unwrap().committed;
            queue.begin_close();
            queue.finish_close().unwrap();
            if image.is_none() {
                durable = end;
            }
            if half == 1 {
                let image = image.unwrap_or_else(|| disk.kill());
                let boot = if left == Left::Killed { FIRST_BOOT } else { SECOND_BOOT };
                let os = FaultyOs::new(native());
                os.set_boot_id(boot);
                let patient = Patient { root: scratch_in_memory(), options, left, os, records, durable, image };
                write_image(&patient.image, patient.root.path());
                return patient;
            }
        }
        unreachable!("two halves")
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("queue")
    }

    fn open_part(&self, part: &str) -> File {
        OpenOptions::new().read(true).write(true).open(self.path().join(part)).unwrap()
    }

    fn original(&self, part: &str) -> &[u8] {
        self.image[&Path::new("queue").join(part)].as_deref().expect("a file")
    }

    /// Everything as it was, after an open that was allowed to write.
    fn heal(&self) {
        std::fs::remove_dir_all(self.path()).unwrap();
        write_image(&self.image, self.root.path());
    }

    /// What somebody who reads finds: the records up to the end, or to damage.
    fn examine(&self, read_only: bool) -> Finding {
        let options = Options { read_only, ..self.options.clone() };
        let queue = match Queue::open(self.os.clone(), &self.path(), &options) {
            Ok(queue) => queue,
            Err(error) => return Finding { refused: Some(error), ..Finding::default() },
        };
        let mut finding = Finding { end: queue.offsets().unwrap().committed, ..Finding::default() };
        let mut at = 0;
        loop {
            match queue.view(at) {
                Ok(view) => {
                    // SAFETY: the view holds its file, and nobody writes what is committed.
                    let bytes = unsafe { std::slice::from_raw_parts(view.ptr, view.len) };
                    match self.options.format {
                        Format::Record => self.check_record(&mut finding, view.offset, bytes),
                        Format::Raw => finding.bytes.extend_from_slice(bytes),
                    }
                    at = view.end;
                }
                Err(error) if error.status() == Status::End => break,
                Err(error) => {
                    assert_eq!(error.status(), Status::Corrupt, "{error}");
                    finding.damaged = true;
                    break;
                }
            }
        }
        if !read_only {
            let span = queue.append(GOES_ON).unwrap();
            assert!(span.offset >= finding.end);
        }
        finding
    }

    fn check_record(&self, finding: &mut Finding, offset: u64, bytes: &[u8]) {
        if bytes == GOES_ON {
            return; // an earlier look appended it
        }
        let which = self.records.iter().position(|(span, _)| span.offset == offset);
        let which = which.unwrap_or_else(|| panic!("no record was appended at {offset}"));
        assert!(self.records[which].1 == bytes, "the record at {offset} is a wrong one");
        finding.missing += which - finding.found - finding.missing;
        finding.found += 1;
    }

    /// What holds whatever was damaged.
    fn check(&self, finding: &Finding, harmless: bool) {
        if let Some(error) = &finding.refused {
            assert!(matches!(error.status(), Status::Corrupt | Status::Version), "{error}");
            assert!(!harmless, "{error}");
            assert!(error.message().contains(self.path().to_str().unwrap()), "{error}");
            return;
        }
        let all = self.records.len();
        let durable = self.records.iter().filter(|(span, _)| span.end <= self.durable).count();
        if self.options.format == Format::Record {
            assert!(finding.found + finding.missing >= durable || finding.damaged, "{} are left", finding.found);
            // Closed, nothing is judged before it is read.
            assert!(self.left != Left::Closed || finding.damaged || finding.found == all, "{} are left", finding.found);
            assert!(!harmless || (finding.found, finding.missing, finding.damaged) == (all, 0, false), "{finding:?}");
        } else {
            assert!(finding.end >= self.durable, "it ends at {}", finding.end);
            assert!(!harmless || finding.end == self.records[all - 1].0.end, "it ends at {}", finding.end);
            let found = &finding.bytes[..];
            assert!(self.original(&format!("{:020}", 0)).starts_with(found), "no longer its bytes");
        }
    }

    /// Flips each of these bits in turn, and back. How many.
    fn flip(&self, part: &str, bits: impl Iterator<Item = u64>, expect: impl Fn(u64) -> Expect) -> u64 {
        let (file, original) = (self.open_part(part), self.original(part));
        let mut flipped = 0;
        for bit in bits {
            let at = bit / 8;
            let byte = original[at as usize];
            file.write_all_at(&[byte ^ 1 << (bit % 8)], at).unwrap();
            let context =
                OnPanic(format!("{:?} {:?}: {part}, bit {} of byte {at}", self.options.format, self.left, bit % 8));
            let finding = self.examine(true);
            let expected = expect(bit);
            self.check(&finding, expected == Expect::Harmless);
            assert!(finding.missing == 0 || expected == Expect::PassedOver, "{} are missing", finding.missing);
            drop(context);
            file.write_all_at(&[byte], at).unwrap();
            flipped += 1;
        }
        flipped
    }

    /// The frame whose bytes these are, its commit word being the first four.
    fn frame_at(&self, at: u64) -> Option<u64> {
        self.records.iter().map(|(span, _)| span).find(|span| (span.offset..span.end).contains(&at)).map(|s| s.offset)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    Damage,
    /// Nobody needs this bit.
    Harmless,
    /// The commit word looks like that of a claim that nobody finished.
    PassedOver,
}

#[derive(Default, Debug)]
struct Finding {
    refused: Option<Error>,
    end: u64,
    found: usize,
    /// Records passed over between those found.
    missing: usize,
    damaged: bool,
    bytes: Vec<u8>,
}

fn small() -> Options {
    Options { file_size: FILE_BYTES, ..record() }
}

const EVERY: [Left; 3] = [Left::Closed, Left::Killed, Left::PowerCut];

/// Every bit of the bytes below `least`, and one of each `step` bytes behind them, another one each time; or all.
fn bits_of(bytes: u64, least: u64, step: usize) -> Vec<u64> {
    if all_of_it() {
        return (0..8 * bytes).collect();
    }
    (0..8 * least).chain((least..bytes).step_by(step).map(|at| 8 * at + at / step as u64 % 8)).collect()
}

const SMALL_FILES: [&str; 3] = [".mfq/meta", ".mfq/checkpoint", ".mfq/tail"];

#[test]
fn no_flipped_bit_of_the_small_files_makes_a_wrong_record() {
    let began = Instant::now();
    let mut flips = 0;
    let formats = [small(), Options { file_size: FILE_BYTES, ..raw(Filler::Zero) }];
    for (options, left) in formats.iter().flat_map(|options| EVERY.map(|left| (options, left))) {
        let patient = Patient::new(options.clone(), left);
        for part in SMALL_FILES {
            // What they hold lies in their first 128 bytes; the checkpoint has two slots of half a file.
            let bytes = patient.original(part).len() as u64;
            let slots = if part == ".mfq/checkpoint" { 2 } else { 1 };
            let bits = bits_of(bytes / slots, 128.min(bytes), 16);
            let bits = (0..slots).flat_map(|slot| bits.iter().map(move |bit| slot * 8 * bytes / slots + bit));
            flips += patient.flip(part, bits, |_| match part {
                ".mfq/meta" => Expect::Damage,
                // RAW knows its end after a kill from a word that is stored with each append, so it has no checksum.
                ".mfq/tail" if left == Left::Killed => Expect::Damage,
                // The checkpoint has two slots; elsewhere nobody asks the tail.
                _ => Expect::Harmless,
            });
        }
    }
    println!("small files: {flips} flips, {} s", began.elapsed().as_secs());
}

#[test]
fn no_flipped_bit_of_the_data_makes_a_wrong_record() {
    let began = Instant::now();
    let mut flips = 0;
    for left in EVERY {
        let patient = Patient::new(small(), left);
        let file = format!("{:020}", 0);
        // Which bits no record owns: behind the end, and where a record's end was rounded up.
        let owner = |bit: u64| {
            let at = bit / 8;
            let record = patient.records.iter().find(|(span, _)| (span.offset..span.end).contains(&at));
            record.filter(|(span, bytes)| at < span.offset + 16 + bytes.len() as u64)
        };
        let step = if left == Left::Killed { 64 } else { 1 }; // a killed process leaves no damaged bytes
        flips += patient.flip(&file, bits_of(FILE_BYTES, 0, step).into_iter(), |bit| {
            let claim = left == Left::Killed && patient.frame_at(bit / 8).is_some_and(|at| bit == 8 * at + 31);
            match owner(bit) {
                None => Expect::Harmless,
                Some(_) if claim => Expect::PassedOver,
                Some(_) => Expect::Damage,
            }
        });
        // Headers: all of it, whatever the form.
        let headers = patient.records.iter().flat_map(|(span, _)| 8 * span.offset..8 * (span.offset + 16));
        flips += patient.flip(&file, headers, |bit| {
            let claim = left == Left::Killed && patient.frame_at(bit / 8).is_some_and(|at| bit == 8 * at + 31);
            if claim { Expect::PassedOver } else { Expect::Damage }
        });
    }
    println!("data: {flips} flips, {} s", began.elapsed().as_secs());
}

/// As above, but the open may write: it cuts what is damaged off, and the log goes on there.
#[test]
fn a_queue_with_a_flipped_bit_goes_on_behind_what_is_left() {
    let began = Instant::now();
    let mut flips = 0;
    for left in EVERY {
        let patient = Patient::new(small(), left);
        let file = format!("{:020}", 0);
        let headers = patient.records.iter().flat_map(|(span, _)| span.offset..span.offset + 16);
        // Behind the end of a queue closed cleanly only the rest of its page is looked at.
        let end = patient.records.last().map_or(0, |(span, _)| span.end.next_multiple_of(page()));
        let until = if left == Left::Closed { end } else { FILE_BYTES };
        let step = if all_of_it() { 1 } else { 64 };
        let bytes = headers.map(|at| (file.as_str(), at)).chain((0..until).step_by(step).map(|at| (file.as_str(), at)));
        let small = SMALL_FILES.iter().flat_map(|part| (0..64).map(move |at| (*part, at)));
        for (part, at) in bytes.chain(small) {
            let bit = at % 8;
            let byte = patient.original(part)[at as usize];
            patient.open_part(part).write_all_at(&[byte ^ 1 << bit], at).unwrap();
            let context = OnPanic(format!("{left:?}: {part}, bit {bit} of byte {at}"));
            let finding = patient.examine(false);
            patient.check(&finding, false);
            // Once it is open what it had stays; where it was refused nothing was changed.
            match finding.refused {
                None => assert!(patient.examine(false).found >= finding.found || finding.damaged),
                Some(_) => {
                    patient.open_part(part).write_all_at(&[byte], at).unwrap();
                    patient.check(&patient.examine(true), true);
                }
            }
            drop(context);
            patient.heal();
            flips += 1;
        }
    }
    println!("with an open that writes: {flips} flips, {} s", began.elapsed().as_secs());
}

#[test]
fn a_last_file_of_any_other_length_is_refused_and_an_empty_one_is_none() {
    const LAST_BYTES: u64 = 1 << 20;
    let began = Instant::now();
    let mut lengths = 0;
    for left in EVERY {
        let patient = Patient::new(Options { file_size: LAST_BYTES, ..record() }, left);
        let file = patient.open_part(&format!("{:020}", 0));
        let near = |len: u64, unit: u64, within: u64| len % unit <= within || len % unit >= unit - within;
        let chosen =
            |len: u64| all_of_it() || len < 4096 || near(len, 512, 1) || near(len, 4096, 4) || len.is_multiple_of(251);
        // From the longest to the shortest, so that what is left is what it was.
        for len in (0..=LAST_BYTES).rev().filter(|&len| chosen(len)) {
            file.set_len(len).unwrap();
            let context = OnPanic(format!("{left:?}: the last file is {len} bytes long"));
            let finding = patient.examine(true);
            patient.check(&finding, len == LAST_BYTES);
            assert!(finding.refused.is_some() || len == LAST_BYTES, "{finding:?}");
            drop(context);
            lengths += 1;
        }
    }
    println!("lengths of the last file: {lengths}, {} s", began.elapsed().as_secs());
}
