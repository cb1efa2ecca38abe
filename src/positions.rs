//! How far the queue is written, committed and flushed.

use crate::mapped_file::MappedFile;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Each only grows, but for a truncation. Kept apart from the queue, so that a held file still answers after the queue
/// is closed.
///
/// In MMAP what is written is committed: one number is both.
pub struct Positions {
    wrote: AtomicU64,
    /// STAGED.
    committed: Option<AtomicU64>,
    flushed: AtomicU64,
}

/// A file's positions, in bytes from its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FilePositions {
    pub wrote: u64,
    pub committed: u64,
    pub flushed: u64,
}

impl Positions {
    pub(crate) fn new(wrote: u64, flushed: u64, staged: bool) -> Positions {
        let committed = staged.then(|| AtomicU64::new(wrote));
        Positions { wrote: AtomicU64::new(wrote), committed, flushed: AtomicU64::new(flushed) }
    }

    /// Everything below is complete, without a hole.
    #[inline]
    pub fn wrote(&self) -> u64 {
        self.wrote.load(Ordering::Acquire)
    }

    /// Everything below can be read.
    #[inline]
    pub fn committed(&self) -> u64 {
        self.committed.as_ref().map_or_else(|| self.wrote(), |committed| committed.load(Ordering::Acquire))
    }

    /// Everything below is on stable storage.
    pub fn flushed(&self) -> u64 {
        self.flushed.load(Ordering::Acquire)
    }

    /// For the only thread that may move it at this moment (RAW: the one whose turn it is).
    #[inline]
    pub(crate) fn set_wrote(&self, to: u64) {
        self.wrote.store(to, Ordering::Release);
    }

    /// Moves it from `from`, unless somebody else already has.
    pub(crate) fn try_advance_wrote(&self, from: u64, to: u64) -> bool {
        self.wrote.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// STAGED, for the only thread that may move it at this moment.
    pub(crate) fn set_committed(&self, to: u64) {
        self.committed.as_ref().expect("only STAGED commits apart").store(to, Ordering::Release);
    }

    pub(crate) fn advance_flushed(&self, to: u64) {
        self.flushed.fetch_max(to, Ordering::AcqRel);
    }

    /// Nobody else moves them at this moment.
    pub(crate) fn cut(&self, end: u64) {
        self.flushed.fetch_min(end, Ordering::AcqRel);
        if let Some(committed) = &self.committed {
            committed.store(end, Ordering::Release);
        }
        self.wrote.store(end, Ordering::Release);
    }

    /// The same, cut to a file's range.
    pub fn within(&self, file: &MappedFile) -> FilePositions {
        let cut = |offset: u64| offset.clamp(file.start(), file.end()) - file.start();
        // Read in this order, a position that grows meanwhile is not seen past the one before it; after a cut it may be.
        let (flushed, committed, wrote) = (cut(self.flushed()), cut(self.committed()), cut(self.wrote()));
        let committed = committed.min(wrote);
        FilePositions { wrote, committed, flushed: flushed.min(committed) }
    }
}
