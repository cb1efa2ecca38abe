//! Small fixed files with a checksum: magic word, little-endian 64-bit words, CRC32C.

use crate::os::Os;
use std::io;
use std::os::fd::BorrowedFd;

pub(crate) fn seal<const WORDS: usize>(magic: &[u8; 8], words: [u64; WORDS]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

pub(crate) const fn sealed_bytes(words: usize) -> usize {
    8 + 8 * words + 8
}

/// The words, if magic and CRC are right.
pub(crate) fn unseal<const WORDS: usize>(magic: &[u8; 8], bytes: &[u8]) -> Option<[u64; WORDS]> {
    let sealed = bytes.get(..sealed_bytes(WORDS))?;
    let word = |i: usize| u64::from_le_bytes(sealed[8 * i..8 * i + 8].try_into().unwrap());
    let words = std::array::from_fn(|i| word(1 + i));
    (sealed == seal(magic, words)).then_some(words)
}

pub(crate) fn read_all(os: &dyn Os, fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match os.read_at(fd, &mut buf[filled..], filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(filled)
}

pub(crate) fn write_all(os: &dyn Os, fd: BorrowedFd<'_>, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match os.write_at(fd, buf, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => (buf, offset) = (&buf[n..], offset + n as u64),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(())
}
