//! `.mfq/tail`: where the queue was last open for writing and, in RAW, how far it got.

use crate::mapped_file::MappedFile;
use crate::os::{Os, write_all};
use crate::sealed::{seal, unseal};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

/// Tells whether the page cache that held the last writes is still the same one: same boot, same mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub boot_id: [u8; 16],
    pub mount_id: u64,
}

/// The mapped page that knows how far a RAW queue got. It is as good as the page cache: right after the death of the
/// process, worth nothing after a power cut.
pub(crate) struct Tail(MappedFile);

impl Tail {
    const MAGIC: &[u8; 8] = b"mfq-tail";
    const COMMITTED_AT: u64 = 64;
    pub const FILE_BYTES: usize = 4096;

    pub fn encode(place: Place, committed: u64) -> Vec<u8> {
        let (high, low) = place.boot_id.split_at(8);
        let word = |half: &[u8]| u64::from_le_bytes(half.try_into().unwrap());
        let mut page = seal(Self::MAGIC, [word(high), word(low), place.mount_id]);
        page.resize(Self::COMMITTED_AT as usize, 0);
        page.extend(committed.to_le_bytes());
        page.resize(Self::FILE_BYTES, 0);
        page
    }

    /// Where and how far, as the last writer left it.
    pub fn decode(page: &[u8]) -> Option<(Place, u64)> {
        let [high, low, mount_id] = unseal(Self::MAGIC, page)?;
        let mut boot_id = [0; 16];
        boot_id[..8].copy_from_slice(&high.to_le_bytes());
        boot_id[8..].copy_from_slice(&low.to_le_bytes());
        let committed = page.get(Self::COMMITTED_AT as usize..)?.get(..8)?;
        Some((Place { boot_id, mount_id }, u64::from_le_bytes(committed.try_into().unwrap())))
    }

    /// `file` is the whole page, mapped.
    pub fn over(file: MappedFile) -> Tail {
        Tail(file)
    }

    #[inline]
    pub fn set_committed(&self, offset: u64) {
        self.0.long_word(Self::COMMITTED_AT).store(offset.to_le(), Ordering::Release);
    }

    /// The page, to ask whether it is still the file's.
    #[inline]
    pub fn file(&self) -> &MappedFile {
        &self.0
    }
}

/// STAGED: the same page as a file, as no store goes through a mapping there.
pub(crate) fn write_committed(os: &dyn Os, tail: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
    write_all(os, tail, &offset.to_le_bytes(), Tail::COMMITTED_AT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_round_trips() {
        let place = Place { boot_id: *b"0123456789abcdef", mount_id: 42 };
        assert_eq!(Tail::decode(&Tail::encode(place, 12_345)), Some((place, 12_345)));
        assert_eq!(Tail::decode(&[0; Tail::FILE_BYTES]), None);
    }
}
