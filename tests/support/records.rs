//! Records that say who wrote them, so that a queue can be read back without knowing what was appended.

use mfq::{Deadline, Filler, Format, Queue, Reader, Status};
use std::sync::atomic::AtomicBool;

/// Who wrote a record. A batch is one `seq` with several parts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Label {
    pub cycle: u32,
    pub thread: u32,
    pub seq: u32,
    pub part: u16,
    pub parts: u16,
}

/// The shortest record that has room for its label.
pub const LEAST_BYTES: usize = 24;
const MAGIC: [u8; 4] = *b"<rec";

impl Label {
    pub fn single(cycle: u32, thread: u32, seq: u32) -> Label {
        Label { cycle, thread, seq, part: 0, parts: 1 }
    }

    /// The record: the label, its length, and bytes that follow from both. None of them is 0, so that a RAW queue's end
    /// shows.
    pub fn record(&self, len: usize) -> Vec<u8> {
        assert!(len >= LEAST_BYTES);
        let mut bytes = Vec::with_capacity(len);
        bytes.extend(MAGIC);
        bytes.extend((len as u32).to_le_bytes());
        bytes.extend(self.cycle.to_le_bytes());
        bytes.extend(self.thread.to_le_bytes());
        bytes.extend(self.seq.to_le_bytes());
        bytes.extend(self.part.to_le_bytes());
        bytes.extend(self.parts.to_le_bytes());
        let mut mixed = u64::from(self.seq) << 32 ^ u64::from(self.thread) << 16 ^ u64::from(self.cycle);
        while bytes.len() < len {
            mixed = (mixed ^ u64::from(self.part)).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ mixed >> 29;
            bytes.push((mixed >> 56) as u8 | 1);
        }
        bytes
    }

    /// The label and the length of the record that `bytes` begins with, if it is one, whole.
    pub fn read(bytes: &[u8]) -> Option<(Label, usize)> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().unwrap()));
        let half = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().unwrap()));
        if bytes.get(..4)? != MAGIC {
            return None;
        }
        let len = word(4)? as usize;
        let label = Label { cycle: word(8)?, thread: word(12)?, seq: word(16)?, part: half(20)?, parts: half(22)? };
        let whole = len >= LEAST_BYTES && bytes.get(..len)? == label.record(len);
        whole.then_some((label, len))
    }
}

/// A record found in a queue. `end` is where the next one could begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    pub offset: u64,
    pub end: u64,
    pub label: Label,
    pub len: usize,
}

/// Every record of the queue, in order. Panics over anything between them that is not padding.
pub fn read_all(queue: &Queue, format: Format, filler: Filler) -> Vec<Found> {
    let offsets = queue.offsets().unwrap();
    let mut reader = Reader::open(queue, offsets.min).unwrap();
    let mut found = Vec::new();
    loop {
        let view = match reader.next(queue, Deadline::after_ms(0), &AtomicBool::new(false)) {
            Ok(view) => view,
            Err(error) if error.status() == Status::End => break,
            Err(error) => panic!("reading on after {:?}: {error}", found.last()),
        };
        // SAFETY: the view holds its file, and nobody writes what is committed.
        let bytes = unsafe { std::slice::from_raw_parts(view.ptr, view.len) };
        match format {
            Format::Record => match Label::read(bytes) {
                Some((label, len)) if len == bytes.len() => {
                    found.push(Found { offset: view.offset, end: view.end, label, len });
                }
                _ => panic!("the record at {} is none that was appended", view.offset),
            },
            Format::Raw => {
                assert_eq!(view.offset, view.file.start(), "a reader in RAW goes from file to file");
                let is_last = view.end == offsets.committed;
                read_raw_file(view.offset, bytes, view.file.size(), is_last, filler, &mut found);
            }
        }
    }
    found
}

fn read_raw_file(start: u64, bytes: &[u8], file_bytes: u64, is_last: bool, filler: Filler, found: &mut Vec<Found>) {
    let mut at = 0;
    while let Some((label, len)) = Label::read(&bytes[at..]) {
        let offset = start + at as u64;
        found.push(Found { offset, end: offset + len as u64, label, len });
        at += len;
    }
    let rest = &bytes[at..];
    if rest.is_empty() && (is_last || filler == Filler::Zero) {
        return;
    }
    let offset = start + at as u64;
    assert_eq!(bytes.len() as u64, file_bytes, "what begins at {offset} is no record, and filler ends a file only");
    let mut expected = vec![0; rest.len()];
    if filler == Filler::RocketMq {
        expected[..4].copy_from_slice(&(rest.len() as u32).to_be_bytes());
        expected[4..8].copy_from_slice(&0xCBD4_3194u32.to_be_bytes());
    }
    assert_eq!(rest, expected, "what begins at {offset} is neither record nor filler");
}
