//! The bytes and numbers of RAW. Pure: no file, no clock, no lock.
//!
//! A file's counter tells how many of its bytes were given away. It goes past the limit once a record did not fit, and
//! stays there.

use crate::meta::Meta;
use crate::options::Filler;

/// In the counter: a claim is open, and everybody else is to keep out.
pub(crate) const EXCLUSIVE: u64 = 1 << 63;

/// RocketMQ's blank: a length and a magic number of four bytes each, big-endian, at the beginning of what is left.
pub(crate) const BLANK_BYTES: u64 = 8;
pub(crate) const BLANK_MAGIC: u32 = 0xCBD4_3194;

/// The counter without the mark of a claim.
#[inline]
pub(crate) fn position(counter: u64) -> u64 {
    counter & !EXCLUSIVE
}

/// Records end at or before this position.
#[inline]
pub(crate) fn limit(meta: &Meta) -> u64 {
    match meta.filler {
        Filler::Zero => meta.file_bytes,
        Filler::RocketMq => meta.file_bytes - BLANK_BYTES,
    }
}

/// The beginning of RocketMQ's filler for the last `rest` bytes of a file.
pub(crate) fn blank(rest: u64) -> [u8; BLANK_BYTES as usize] {
    let mut blank = [0; BLANK_BYTES as usize];
    blank[..4].copy_from_slice(&(rest as u32).to_be_bytes());
    blank[4..].copy_from_slice(&BLANK_MAGIC.to_be_bytes());
    blank
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blank_is_rocketmqs() {
        assert_eq!(blank(0x0102_0304), [1, 2, 3, 4, 0xCB, 0xD4, 0x31, 0x94]);
    }
}
