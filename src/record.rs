//! The bytes of one record. Pure: no file, no clock, no lock.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | commit word: the frame's length with its header; 0 until placed, top bit set while claimed, plain when whole |
//! | 4 | 4 | CRC32C over seed, offset, frame length, header bytes 8..16, payload (of padding: the header only) |
//! | 8 | 6 | milliseconds since 1970 |
//! | 14 | 1 | kind |
//! | 15 | 1 | flags, 0 |
//!
//! Little-endian, and 8-byte aligned: up to 7 zero bytes follow the payload. The seed is the queue's own and the offset
//! is absolute, so bytes left by another log, or by this one at another place, never check.

use crc_fast::{CrcAlgorithm, Digest};
use std::cell::Cell;

pub(crate) const HEADER_BYTES: u64 = 16;
pub(crate) const ALIGNMENT: u64 = 8;
/// In a commit word: placed, and its record not complete.
pub(crate) const CLAIMED: u32 = 1 << 31;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    Data = 1,
    Padding = 2,
}

/// A header without its commit word, which is stored apart and last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub crc: u32,
    pub time_ms: u64,
    pub kind: Option<Kind>,
    pub flags: u8,
}

impl Header {
    /// From bytes 4..16 of a frame.
    pub fn decode(bytes: &[u8; 12]) -> Header {
        let mut time = [0u8; 8];
        time[..6].copy_from_slice(&bytes[4..10]);
        let kind = match bytes[10] {
            1 => Some(Kind::Data),
            2 => Some(Kind::Padding),
            _ => None,
        };
        let crc = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Header { crc, time_ms: u64::from_le_bytes(time), kind, flags: bytes[11] }
    }
}

/// Bytes 4..16 of a frame under construction.
#[inline]
pub(crate) fn encode_header(crc: u32, described: [u8; 8]) -> [u8; 12] {
    let mut bytes = [0u8; 12];
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes[4..].copy_from_slice(&described);
    bytes
}

/// Bytes 8..16 of a frame: the part of the header that the checksum reads from there.
#[inline]
pub(crate) fn describe(time_ms: u64, kind: Kind) -> [u8; 8] {
    let mut bytes = time_ms.to_le_bytes();
    bytes[6] = kind as u8;
    bytes[7] = 0;
    bytes
}

thread_local! {
    /// A digest carries the parameters of its algorithm, some 250 bytes: to set one up costs more than a small
    /// checksum.
    static SPARE: Cell<Option<Box<Digest>>> = const { Cell::new(None) };
}

/// The checksum of one frame; the payload is added piece by piece.
pub(crate) struct Checksum(Box<Digest>);

impl Checksum {
    #[inline]
    pub fn new(seed: u64, offset: u64, frame_bytes: u32, described: [u8; 8]) -> Checksum {
        let mut prefix = [0u8; 28];
        prefix[..8].copy_from_slice(&seed.to_le_bytes());
        prefix[8..16].copy_from_slice(&offset.to_le_bytes());
        prefix[16..20].copy_from_slice(&frame_bytes.to_le_bytes());
        prefix[20..].copy_from_slice(&described);
        // A thread that is ending has none any more.
        let spare = SPARE.try_with(Cell::take).ok().flatten();
        let mut digest = spare.unwrap_or_else(|| Box::new(Digest::new(CrcAlgorithm::Crc32Iscsi)));
        digest.reset();
        digest.update(&prefix);
        Checksum(digest)
    }

    #[inline]
    pub fn add(&mut self, payload: &[u8]) {
        self.0.update(payload);
    }

    #[inline]
    pub fn finish(self) -> u32 {
        let crc = self.0.finalize() as u32;
        let _ = SPARE.try_with(|spare| spare.set(Some(self.0)));
        crc
    }
}

/// How many bytes `checks_in_copy` needs before a frame: of the 28 that its checksum covers before the payload, the
/// last 8 stand before the payload in the frame too, the others take the place of these and of its first 8.
pub(crate) const BEFORE_FRAME: usize = 12;

/// Checks a frame in a private copy of the log, in one piece, which is several times as fast for short ones. `copy` is
/// the frame and `BEFORE_FRAME` bytes before it, which are overwritten, as is the frame's header.
#[inline]
pub(crate) fn checks_in_copy(seed: u64, offset: u64, copy: &mut [u8]) -> bool {
    let frame_bytes = (copy.len() - BEFORE_FRAME) as u32;
    let header = Header::decode(copy[BEFORE_FRAME + 4..][..12].try_into().expect("12 bytes"));
    copy[..8].copy_from_slice(&seed.to_le_bytes());
    copy[8..16].copy_from_slice(&offset.to_le_bytes());
    copy[16..20].copy_from_slice(&frame_bytes.to_le_bytes());
    let covered = match header.kind {
        Some(Kind::Data) => &copy[..],
        Some(Kind::Padding) => &copy[..BEFORE_FRAME + HEADER_BYTES as usize],
        None => return false,
    };
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, covered) as u32 == header.crc
}

/// Length of the frame around `payload_bytes`; `None` if it would not fit in a file of `file_bytes`.
#[inline]
pub(crate) fn frame_bytes(payload_bytes: usize, file_bytes: u64) -> Option<u32> {
    let frame = (payload_bytes as u64).checked_add(HEADER_BYTES)?;
    (frame <= file_bytes).then_some(frame as u32)
}

/// Distance from a frame to the next one, from its commit word (which is not 0). At least a header, whatever the word
/// says, so that a walk over damaged words ends.
#[inline]
pub(crate) fn step(word: u32) -> u64 {
    u64::from(word & !CLAIMED).next_multiple_of(ALIGNMENT).max(HEADER_BYTES)
}

#[inline]
pub(crate) fn is_whole(word: u32) -> bool {
    word != 0 && word & CLAIMED == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_survives_a_round_trip() {
        let header = Header::decode(&encode_header(0xdead_beef, describe(0x0000_ffff_1234_5678, Kind::Data)));
        assert_eq!(header, Header { crc: 0xdead_beef, time_ms: 0xffff_1234_5678, kind: Some(Kind::Data), flags: 0 });
    }

    #[test]
    fn checksum_is_crc32c_of_the_stated_bytes() {
        // CRC-32C check value, RFC 3720 B.4: 32 bytes of zeros give 0x8A9136AA. The prefix is 28 of them here.
        let mut sum = Checksum::new(0, 0, 0, [0; 8]);
        sum.add(&[0; 4]);
        assert_eq!(sum.finish(), 0x8A91_36AA);
    }

    #[test]
    fn checksum_depends_on_seed_offset_length_and_header() {
        let sum = |seed, offset, len, described| Checksum::new(seed, offset, len, described).finish();
        let base = sum(1, 2, 3, [4; 8]);
        for other in [sum(9, 2, 3, [4; 8]), sum(1, 9, 3, [4; 8]), sum(1, 2, 9, [4; 8]), sum(1, 2, 3, [9; 8])] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_frame_is_checked_in_a_copy_as_it_is_piece_by_piece() {
        for (kind, len) in [(Kind::Data, 0), (Kind::Data, 1), (Kind::Data, 1000), (Kind::Padding, 1000)] {
            let payload = vec![0x5A; len];
            let bytes = HEADER_BYTES as u32 + len as u32;
            let mut sum = Checksum::new(7, 4096, bytes, describe(1, kind));
            sum.add(if kind == Kind::Data { &payload } else { &[] });
            let header = encode_header(sum.finish(), describe(1, kind));
            let copy = [&[0xEE; BEFORE_FRAME][..], &bytes.to_le_bytes(), &header, &payload].concat();
            let checks = |seed, offset, copy: &[u8]| checks_in_copy(seed, offset, &mut copy.to_vec());
            assert!(checks(7, 4096, &copy));
            assert!(!checks(8, 4096, &copy) && !checks(7, 4104, &copy));
            for at in BEFORE_FRAME + 4..BEFORE_FRAME + 16 {
                let mut damaged = copy.clone();
                damaged[at] ^= 4;
                assert!(!checks(7, 4096, &damaged), "{kind:?} {len} {at}");
            }
        }
    }

    #[test]
    fn frames_are_aligned_and_bounded() {
        assert_eq!(frame_bytes(0, 4096), Some(16));
        assert_eq!(frame_bytes(4080, 4096), Some(4096));
        assert_eq!(frame_bytes(4081, 4096), None);
        assert_eq!(frame_bytes(usize::MAX, 4096), None);
        assert_eq!(step(17), 24);
        assert_eq!(step(17 | CLAIMED), 24);
        assert_eq!(step(CLAIMED), 16);
    }
}
