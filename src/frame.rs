//! One frame of RECORD in its file: how it is filled, published and checked. Nobody else writes or judges one.

use crate::mapped_file::MappedFile;
use crate::record::{Checksum, HEADER_BYTES, Header, Kind, describe, encode_header, step};
use std::sync::atomic::Ordering;

/// Checksum and copy take turns at this length, so that each works while the other waits. Every piece's checksum goes
/// on from the one before, and the end of its chain of carry-less multiplications has to be waited for: a 4 KiB record
/// took 480 ns in pieces of 384 bytes, takes 260 in these, and 420 in one.
const PIECE_BYTES: usize = 1024;

/// `bytes` of `file` from position `at` on, header included, in a queue with this seed.
///
/// Whoever fills a frame has it claimed: its bytes are that thread's alone until `publish`.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'f> {
    pub file: &'f MappedFile,
    pub seed: u64,
    pub at: u64,
    pub bytes: u32,
}

impl Frame<'_> {
    pub fn offset(&self) -> u64 {
        self.file.start() + self.at
    }

    /// Where the next frame begins.
    pub fn end(&self) -> u64 {
        self.offset() + step(self.bytes)
    }

    pub fn payload_at(&self) -> u64 {
        self.at + HEADER_BYTES
    }

    pub fn payload_bytes(&self) -> usize {
        (u64::from(self.bytes) - HEADER_BYTES) as usize
    }

    /// Copies a payload of exactly its length into it. The gap behind is zero already: nothing was ever written past
    /// the end of the log.
    #[inline]
    pub fn fill<'a>(&self, now_ms: u64, parts: impl Iterator<Item = &'a [u8]>) {
        let described = describe(now_ms, Kind::Data);
        let mut checksum = self.checksum(described);
        let mut to = self.payload_at();
        for part in parts {
            for piece in part.chunks(PIECE_BYTES) {
                checksum.add(piece);
                // SAFETY: the frame is claimed by the caller and not published.
                unsafe { self.file.write(to, piece) };
                to += piece.len() as u64;
            }
        }
        self.write_header(checksum, described);
    }

    /// The same for a payload that the host has written there, and more behind it perhaps.
    pub fn fill_in_place(&self, now_ms: u64) {
        let described = describe(now_ms, Kind::Data);
        let mut checksum = self.checksum(described);
        let gap = step(self.bytes) - u64::from(self.bytes);
        // SAFETY: the frame is claimed by the caller and not published.
        unsafe { self.file.zero(self.at + u64::from(self.bytes), gap as usize) };
        self.file.read_pieces(self.payload_at(), self.payload_bytes(), |piece| checksum.add(piece));
        self.write_header(checksum, described);
    }

    /// Makes padding of it, whatever its payload is.
    pub fn fill_padding(&self, now_ms: u64) {
        let described = describe(now_ms, Kind::Padding);
        self.write_header(self.checksum(described), described);
    }

    /// Makes a filled frame visible.
    #[inline]
    pub fn publish(&self) {
        self.file.word(self.at).store(self.bytes.to_le(), Ordering::Release);
    }

    pub fn header(&self) -> Header {
        self.read_header().0
    }

    /// The header of a published frame, if the checksum is right.
    pub fn check(&self) -> Option<Header> {
        let covered = if self.header().kind == Some(Kind::Data) { self.payload_bytes() } else { 0 };
        self.check_with(|checksum| self.file.read_pieces(self.payload_at(), covered, |piece| checksum.add(piece)))
    }

    /// The same with a payload that the caller feeds, from a copy it has made.
    pub fn check_with(&self, add_payload: impl FnOnce(&mut Checksum)) -> Option<Header> {
        let (header, described) = self.read_header();
        let mut checksum = self.checksum(described);
        add_payload(&mut checksum);
        (checksum.finish() == header.crc && header.kind.is_some()).then_some(header)
    }

    #[inline]
    fn checksum(&self, described: [u8; 8]) -> Checksum {
        Checksum::new(self.seed, self.offset(), self.bytes, described)
    }

    #[inline]
    fn write_header(&self, checksum: Checksum, described: [u8; 8]) {
        // SAFETY: the frame is claimed by the caller and not published.
        unsafe { self.file.write(self.at + 4, &encode_header(checksum.finish(), described)) };
    }

    fn read_header(&self) -> (Header, [u8; 8]) {
        let mut bytes = [0; 12];
        self.file.read(self.at + 4, &mut bytes);
        (Header::decode(&bytes), bytes[4..].try_into().expect("8 of 12 bytes"))
    }
}
