//! RocketMQ's messages: the size of the one that begins here. Pure: no file, no lock.
//!
//! Big-endian, as `CommitLog` of its store 4.x and 5.x writes and checks it:
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | size of all of it |
//! | 4 | 4 | magic: a message, one with a long topic, or a blank up to the end of the file |
//! | 8 | 4 | CRC32 of the body, top bit cleared |
//! | 36 | 4 | flags; 16: the born host has 20 bytes and not 8, 32: the store host has |
//! | 48 | | born host, 8 bytes, store host, 12 bytes |
//! | then | 4 | length of the body, which follows |
//! | then | 1 (long: 2) | length of the topic, which follows |
//! | then | 2 | length of the properties, which follow |

use crate::raw::{BLANK_BYTES, BLANK_MAGIC};
use crc_fast::{CrcAlgorithm, Digest};

const MESSAGE_MAGIC: u32 = 0xDAA3_20A7;
const LONG_TOPIC_MAGIC: u32 = 0xDAA3_20AB;
const BORN_HOST_V6: u32 = 16;
const STORE_HOST_V6: u32 = 32;

/// Size of the message, or the blank, at the beginning of `available` bytes that `read` copies out: 0 at the end of the
/// messages, -1 where there is none that is whole.
pub(crate) fn unit_bytes(available: u64, read: impl Fn(u64, &mut [u8])) -> i64 {
    if available < BLANK_BYTES {
        return 0;
    }
    let (size, magic) = (number(&read, 0, 4), number(&read, 4, 4));
    match magic as u32 {
        0 if size == 0 => 0,
        // Written where the rest of the file begins, and only there.
        BLANK_MAGIC if size == available => size as i64,
        MESSAGE_MAGIC if is_whole(size, 1, available, &read) => size as i64,
        LONG_TOPIC_MAGIC if is_whole(size, 2, available, &read) => size as i64,
        _ => -1,
    }
}

fn is_whole(size: u64, topic_length_bytes: u64, available: u64, read: &impl Fn(u64, &mut [u8])) -> bool {
    const SHORTEST_HEAD: u64 = 88;
    if !(SHORTEST_HEAD..=available).contains(&size) {
        return false;
    }
    let flags = number(read, 36, 4) as u32;
    let host = |v6| if flags & v6 == 0 { 8 } else { 20 };
    let body_length_at = 48 + host(BORN_HOST_V6) + 8 + host(STORE_HOST_V6) + 12;
    // Each length is looked at only where it lies within the message.
    let length = |at: u64, bytes: u64| (at + bytes <= size).then(|| number(read, at, bytes));
    let ends = || {
        let body_at = body_length_at + 4;
        let body_end = body_at + length(body_length_at, 4)?;
        let topic_end = body_end + topic_length_bytes + length(body_end, topic_length_bytes)?;
        let properties_end = topic_end + 2 + length(topic_end, 2)?;
        Some((body_at, body_end, properties_end))
    };
    match ends() {
        Some((body_at, body_end, end)) if end == size => {
            body_at == body_end || u64::from(crc(body_at, body_end, read)) == number(read, 8, 4)
        }
        _ => false,
    }
}

/// As its `UtilAll.crc32` answers it: a Java `int` that is never negative.
fn crc(from: u64, until: u64, read: &impl Fn(u64, &mut [u8])) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32IsoHdlc);
    let mut piece = [0; 4096];
    for at in (from..until).step_by(piece.len()) {
        let piece = &mut piece[..(until - at).min(4096) as usize];
        read(at, piece);
        digest.update(piece);
    }
    digest.finalize() as u32 & 0x7FFF_FFFF
}

fn number(read: &impl Fn(u64, &mut [u8]), at: u64, bytes: u64) -> u64 {
    let mut big_endian = [0; 8];
    read(at, &mut big_endian[8 - bytes as usize..]);
    u64::from_be_bytes(big_endian)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of(bytes: &[u8]) -> i64 {
        unit_bytes(bytes.len() as u64, |at, to| to.copy_from_slice(&bytes[at as usize..][..to.len()]))
    }

    /// A message as RocketMQ lays it out.
    fn message(magic: u32, flags: u32, body: &[u8]) -> Vec<u8> {
        let long = magic == LONG_TOPIC_MAGIC;
        let hosts = [BORN_HOST_V6, STORE_HOST_V6].map(|v6| if flags & v6 == 0 { 8 } else { 20 });
        let crc = crc_fast::checksum(CrcAlgorithm::Crc32IsoHdlc, body) as u32 & 0x7FFF_FFFF;
        let mut bytes = [[0; 4], magic.to_be_bytes(), crc.to_be_bytes()].concat();
        bytes.extend([7; 24]); // queue id, flag, queue offset, physical offset
        bytes.extend(flags.to_be_bytes());
        bytes.extend(vec![9; 8 + hosts[0] + 8 + hosts[1] + 12]);
        bytes.extend((body.len() as u32).to_be_bytes());
        bytes.extend(body);
        bytes.extend(if long { vec![0, 5] } else { vec![5] });
        bytes.extend(b"topic\0\x03abc");
        let size = bytes.len() as u32;
        bytes[..4].copy_from_slice(&size.to_be_bytes());
        bytes
    }

    #[test]
    fn messages_of_every_shape_are_walked_over() {
        for magic in [MESSAGE_MAGIC, LONG_TOPIC_MAGIC] {
            for flags in [0, BORN_HOST_V6, STORE_HOST_V6, BORN_HOST_V6 | STORE_HOST_V6] {
                for body in [&b""[..], b"hello", &[0x5A; 10_000]] {
                    let mut bytes = message(magic, flags, body);
                    let size = bytes.len();
                    assert_eq!(size_of(&bytes), size as i64);
                    bytes.extend([0; 100]);
                    assert_eq!(size_of(&bytes), size as i64);
                    for cut in [8, 40, 87, size - 1] {
                        assert_eq!(size_of(&bytes[..cut]), -1);
                    }
                }
            }
        }
    }

    #[test]
    fn a_damaged_length_magic_or_body_is_noticed() {
        let whole = message(MESSAGE_MAGIC, 0, b"a body");
        let lengths_and_body = (0..12).chain(84..94);
        for bit in lengths_and_body.flat_map(|byte| 8 * byte..8 * byte + 8) {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(size_of(&damaged), -1, "bit {bit}");
        }
    }

    #[test]
    fn a_blank_ends_the_file_and_zeros_end_the_messages() {
        let mut blank = vec![0; 300];
        blank[..8].copy_from_slice(&crate::raw::blank(300));
        assert_eq!(size_of(&blank), 300);
        assert_eq!(size_of(&blank[..299]), -1);
        for zeros in [0, 7, 8, 300] {
            assert_eq!(size_of(&vec![0; zeros]), 0);
        }
    }
}
