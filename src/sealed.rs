//! Small fixed files with a checksum: magic word, little-endian 64-bit words, CRC32C.

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
