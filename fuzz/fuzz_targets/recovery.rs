//! Opening an arbitrary directory: no panic, no record that was never appended, and the same queue the second time.
//!
//! The input describes a queue directory: small files whose checksums are right and whose words are anything, data
//! files of whole, claimed, torn and senseless frames, and bytes changed anywhere afterwards.

#![no_main]

use arbitrary::Arbitrary;
use crc_fast::{CrcAlgorithm, checksum};
use libfuzzer_sys::fuzz_target;
use mfq::{Deadline, Filler, Format, OpenQueue, Options, Queue, Reader, Status, os};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::AtomicBool;

#[derive(Arbitrary, Debug)]
struct Directory {
    seed: u64,
    format: u8,
    pages: u8,
    /// Instead of what fits the files.
    meta: Option<[u64; 6]>,
    checkpoint: [Slot; 2],
    tail: Tail,
    files: Vec<DataFile>,
    changes: Vec<Change>,
    look_first: bool,
    appends: Vec<u16>,
}

#[derive(Arbitrary, Debug)]
enum Slot {
    Nothing,
    /// `durable` and `first` in bytes where they are small, else as they are.
    Whole {
        epoch: u8,
        durable: u32,
        first_file: u8,
        clean: bool,
    },
    Words([u64; 4]),
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum Tail {
    Missing,
    /// Of this boot and mount: the process died.
    Here(u32),
    /// Of another: the power was cut.
    Elsewhere(u64),
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct DataFile {
    /// A gap before it.
    skipped: bool,
    /// Instead of the file size.
    len: Option<u16>,
    frames: Vec<Frame>,
}

#[derive(Arbitrary, Debug)]
enum Frame {
    Whole { payload_bytes: u16, fill: u8 },
    Claimed { payload_bytes: u16 },
    Padding { to_the_end: bool, payload_bytes: u8 },
    Torn { payload_bytes: u16, fill: u8 },
    Word(u32),
    Raw { len: u16, fill: u8 },
    Blank,
    Gap(u8),
}

#[derive(Arbitrary, Debug)]
struct Change {
    file: u8,
    at: u16,
    byte: u8,
}

fn seal(magic: &[u8; 8], words: &[u64]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, &bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// Kinds of a frame, as on disk.
const DATA: u8 = 1;
const PADDING: u8 = 2;
const CLAIMED: u32 = 1 << 31;

/// Writes a frame at `at`, with its checksum, if there is room.
fn put(file: &mut [u8], at: usize, start: u64, seed: u64, kind: u8, payload: &[u8]) -> usize {
    let len = 16 + payload.len();
    let Some(frame) = file.get_mut(at..at + len) else { return len };
    let described = [1, 2, 3, 4, 5, 0, kind, 0];
    let offset = start + at as u64;
    let mut covered = [seed.to_le_bytes(), offset.to_le_bytes()].concat();
    covered.extend((len as u32).to_le_bytes());
    covered.extend(described);
    if kind == DATA {
        covered.extend(payload);
    }
    frame[..4].copy_from_slice(&(len as u32).to_le_bytes());
    frame[4..8].copy_from_slice(&(checksum(CrcAlgorithm::Crc32Iscsi, &covered) as u32).to_le_bytes());
    frame[8..16].copy_from_slice(&described);
    frame[16..].copy_from_slice(payload);
    len
}

/// The whole records put into a file, by their offsets.
type Records = BTreeMap<u64, Vec<u8>>;

impl DataFile {
    fn bytes(&self, start: u64, file_bytes: usize, seed: u64, records: &mut Records) -> Vec<u8> {
        let mut file = vec![0u8; file_bytes];
        let mut at = 0;
        for frame in self.frames.iter().take(64) {
            let rest = file_bytes.saturating_sub(at);
            let len = match *frame {
                Frame::Whole { payload_bytes, fill } => {
                    let payload = vec![fill; usize::from(payload_bytes) % 600];
                    if 16 + payload.len() <= rest {
                        records.insert(start + at as u64, payload.clone());
                    }
                    put(&mut file, at, start, seed, DATA, &payload)
                }
                Frame::Torn { payload_bytes, fill } => {
                    let payload = vec![fill; 1 + usize::from(payload_bytes) % 600];
                    let len = put(&mut file, at, start, seed, DATA, &payload);
                    if let Some(last) = file.get_mut(at + len - 1) {
                        *last ^= 1;
                    }
                    len
                }
                Frame::Claimed { payload_bytes } => {
                    let len = 16 + usize::from(payload_bytes) % 600;
                    if let Some(word) = file.get_mut(at..at + 4) {
                        word.copy_from_slice(&(len as u32 | CLAIMED).to_le_bytes());
                    }
                    len
                }
                Frame::Padding { to_the_end, payload_bytes } => {
                    let len = if to_the_end { rest.saturating_sub(16) } else { usize::from(payload_bytes) };
                    put(&mut file, at, start, seed, PADDING, &vec![0; len])
                }
                Frame::Word(word) => {
                    if let Some(at) = file.get_mut(at..at + 4) {
                        at.copy_from_slice(&word.to_le_bytes());
                    }
                    16
                }
                Frame::Raw { len, fill } => {
                    let len = rest.min(usize::from(len) % 3000);
                    file[at..at + len].fill(fill);
                    len
                }
                Frame::Blank => {
                    if let Some(blank) = file.get_mut(at..at + 8) {
                        blank[..4].copy_from_slice(&(rest as u32).to_be_bytes());
                        blank[4..].copy_from_slice(&0xCBD4_3194u32.to_be_bytes());
                    }
                    rest
                }
                Frame::Gap(len) => usize::from(len),
            };
            at = (at + len).next_multiple_of(8).min(file_bytes);
        }
        file.resize(self.len.map_or(file_bytes, usize::from), 0);
        file
    }
}

impl Directory {
    fn format(&self) -> (Format, Filler) {
        match self.format % 4 {
            0 | 1 => (Format::Record, Filler::Zero),
            2 => (Format::Raw, Filler::Zero),
            _ => (Format::Raw, Filler::RocketMq),
        }
    }

    fn file_bytes(&self) -> usize {
        4096 * (1 + usize::from(self.pages % 2))
    }

    fn options(&self) -> Options {
        let (format, filler) = self.format();
        Options { format, filler, existing: true, append_timeout_ms: -1, ..Options::default() }
    }

    /// Makes the directory; the records that may be found in it.
    fn make(&self, path: &Path) -> Records {
        let private = path.join(".mfq");
        fs::create_dir_all(&private).unwrap();
        let (format, filler) = self.format();
        let file_bytes = self.file_bytes();
        let meta = self.meta.unwrap_or([1, format as u64, filler as u64, file_bytes as u64, self.seed, 1]);
        let mut all = vec![(private.join("meta"), seal(b"mfq-meta", &meta)), (private.join("lock"), vec![])];
        let mut checkpoint = vec![0u8; 8192];
        for (slot, half) in self.checkpoint.iter().zip(checkpoint.chunks_mut(4096)) {
            let first = |file: u8| u64::from(file % 4) * file_bytes as u64;
            let bytes = match slot {
                Slot::Nothing => vec![],
                Slot::Whole { epoch, durable, first_file, clean } => {
                    let words = [u64::from(*epoch), u64::from(durable % 40_000), first(*first_file), u64::from(*clean)];
                    seal(b"mfq-chkp", &words)
                }
                Slot::Words(words) => seal(b"mfq-chkp", words),
                Slot::Bytes(bytes) => bytes.iter().copied().take(4096).collect(),
            };
            half[..bytes.len()].copy_from_slice(&bytes);
        }
        all.push((private.join("checkpoint"), checkpoint));
        let here = |committed: u64, here: bool| {
            let os = os::native();
            let boot = os.boot_id().unwrap();
            let half = |at: usize| u64::from_le_bytes(boot[at..at + 8].try_into().unwrap());
            let mount = os.mount_id(File::open(path).unwrap().as_fd()).unwrap();
            let mut page = seal(b"mfq-tail", &[half(0), half(8), mount ^ u64::from(!here)]);
            page.resize(64, 0);
            page.extend(committed.to_le_bytes());
            page.resize(4096, 0);
            page
        };
        match &self.tail {
            Tail::Missing => {}
            Tail::Here(committed) => all.push((private.join("tail"), here(u64::from(committed % 40_000), true))),
            Tail::Elsewhere(committed) => all.push((private.join("tail"), here(*committed, false))),
            Tail::Bytes(bytes) => all.push((private.join("tail"), bytes.clone())),
        }
        let (mut start, mut records) = (0, Records::new());
        for file in self.files.iter().take(4) {
            start += u64::from(file.skipped) * file_bytes as u64;
            let bytes = file.bytes(start, file_bytes, self.seed, &mut records);
            all.push((path.join(format!("{start:020}")), bytes));
            start += file_bytes as u64;
        }
        let files = all.len();
        for change in self.changes.iter().take(16) {
            let bytes = &mut all[usize::from(change.file) % files].1;
            if !bytes.is_empty() {
                let at = usize::from(change.at) % bytes.len();
                bytes[at] = change.byte;
            }
        }
        all.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        records
    }
}

/// Everything that can be read, by offset; up to where a record does not check.
fn read(queue: &Queue) -> Records {
    let min = queue.offsets().unwrap().min;
    let mut reader = Reader::open(queue, min).unwrap();
    let mut records = Records::new();
    loop {
        match reader.next(queue, Deadline::after_ms(0), &AtomicBool::new(false)) {
            Ok(view) => {
                // SAFETY: the view holds its file, and nobody else writes it.
                let bytes = unsafe { std::slice::from_raw_parts(view.ptr, view.len) };
                records.insert(view.offset, bytes.to_vec());
            }
            Err(error) => {
                assert!(matches!(error.status(), Status::End | Status::Corrupt), "{error}");
                return records;
            }
        }
    }
}

fn open(path: &Path, options: &Options) -> Option<OpenQueue> {
    match Queue::open(os::native(), path, options) {
        Ok(queue) => Some(queue),
        Err(error) => {
            let refusals = [Status::Corrupt, Status::Version, Status::Invalid, Status::NotFound, Status::NoSpace];
            assert!(refusals.contains(&error.status()) && !error.message().is_empty(), "{error}");
            None
        }
    }
}

fuzz_target!(|directory: Directory| {
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    let (path, options) = (scratch.path(), directory.options());
    let put = directory.make(path);
    let is_record = options.format == Format::Record;

    let looked = directory.look_first.then(|| {
        let queue = open(path, &Options { read_only: true, ..options.clone() });
        queue.map(|queue| (read(&queue), queue.offsets().unwrap().committed))
    });
    let Some(queue) = open(path, &options) else {
        assert!(!matches!(looked, Some(Some(_))), "it was opened for reading, but not for writing");
        return;
    };
    let found = read(&queue);
    let committed = queue.offsets().unwrap().committed;
    if let Some(looked) = looked {
        assert_eq!(looked, Some((found.clone(), committed)), "another queue than a look at it showed");
    }
    if is_record {
        for (offset, bytes) in &found {
            assert_eq!(put.get(offset), Some(bytes), "the record at {offset} was never appended");
        }
    }
    let mut appended = Records::new();
    for len in directory.appends.iter().take(8) {
        let bytes = vec![0xA5; 1 + usize::from(*len) % 4000];
        match queue.append(&bytes) {
            Ok(span) => {
                assert!(span.offset >= committed);
                appended.insert(span.offset, bytes);
            }
            Err(error) => {
                let status = error.status();
                let refusals = [Status::TooLarge, Status::NoSpace, Status::NoMemory, Status::Corrupt];
                assert!(refusals.contains(&status), "{error}");
            }
        }
    }
    // What could not be read hides what follows it.
    let all = read(&queue);
    let before: Records = all.range(..committed).map(|(offset, bytes)| (*offset, bytes.clone())).collect();
    if is_record {
        assert_eq!(before, found);
        for (offset, bytes) in all.range(committed..) {
            assert_eq!(appended.get(offset), Some(bytes));
        }
    }
    let end = queue.offsets().unwrap().committed;
    queue.begin_close();
    queue.finish_close().unwrap();
    drop(queue);

    let queue = open(path, &options).expect("it was opened and closed");
    assert_eq!((read(&queue), queue.offsets().unwrap().committed), (all, end), "another queue than it was");
});
