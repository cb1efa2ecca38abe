//! One file of the queue: its mapping, how far its space is given away, who holds it.
//!
//! A file is held by whoever has an `Arc` of it, and unmapped when the last one lets go, never before. What is
//! written, committed and flushed of it is the queue's position cut to the file's range ([`crate::positions`]): kept
//! once, so that file and queue cannot disagree.
//!
//! No Rust reference is ever made to mapped bytes: another process may write them. Access is through raw pointers and
//! atomics, and bytes are copied out before anything judges them.

use crate::os::{Advice, MmapRaw, Os, Watched};
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// A writer goes on where it was: behind a copy of at least so many bytes (the start of the range) as many more are
/// fetched into the cache, at most so many (its end). An append's atomic steps wait until all stores before them are done, so without it each append waits for
/// its own cache misses: 1 KiB in RAW took 130 ns, and takes 60. For shorter copies the hardware keeps up by itself.
const FETCHED_AHEAD: Range<usize> = 512..1024;

/// Asks for the cache lines from `at` on, to be written soon. Wherever that is: it is a hint and never faults.
#[inline]
#[cfg_attr(not(target_arch = "x86_64"), allow(unused))]
fn fetch_for_writing(at: *const u8, len: usize) {
    const LINE_BYTES: usize = 64;
    #[cfg(target_arch = "x86_64")]
    for line in (0..len).step_by(LINE_BYTES) {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: PREFETCHW reads no memory and raises no exception (AMD64 manual, volume 3).
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(at.wrapping_add(line).cast()) }
    }
}

/// On a cache line of its own: every append writes it, every reader reads its neighbours.
#[repr(align(64))]
struct Reserved(AtomicU64);

pub struct MappedFile {
    start: u64,
    /// Before the map, so that it ends before it.
    watched: Watched,
    map: MmapRaw,
    os: Arc<dyn Os>,
    entry_durable: AtomicBool,
    reserved: Reserved,
}

impl MappedFile {
    /// `map` covers the whole file, whose first byte has the queue offset `start`.
    pub(crate) fn new(os: Arc<dyn Os>, start: u64, map: MmapRaw) -> MappedFile {
        let reserved = Reserved(AtomicU64::new(0));
        MappedFile { start, watched: Watched::new(&map), map, os, entry_durable: AtomicBool::new(false), reserved }
    }

    /// Offset of the first byte in the queue; also the file's name.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Offset just behind the last byte.
    pub fn end(&self) -> u64 {
        self.start + self.size()
    }

    pub fn size(&self) -> u64 {
        self.map.len() as u64
    }

    pub fn contains(&self, offset: u64) -> bool {
        (self.start..self.end()).contains(&offset)
    }

    pub fn base(&self) -> *const u8 {
        self.map.as_ptr()
    }

    /// RECORD: where the search for the end of the log begins; may be stale, never past the end. RAW: bytes given
    /// away, past the size once the file is full.
    pub(crate) fn reserved(&self) -> &AtomicU64 {
        &self.reserved.0
    }

    /// Whether `[at, at + len)` is still the file itself. Asked after bytes were used: where the guard against SIGBUS has
    /// put other pages, what was stored reaches no disk and what was loaded is no data.
    #[inline]
    pub(crate) fn is_intact(&self, at: u64, len: u64) -> bool {
        self.watched.is_intact(at, len)
    }

    /// Whether the file's blocks and its directory entry have been synced.
    pub(crate) fn entry_durable(&self) -> bool {
        self.entry_durable.load(Ordering::Acquire)
    }

    pub(crate) fn set_entry_durable(&self) {
        self.entry_durable.store(true, Ordering::Release);
    }

    /// The 32-bit word at a position that is a multiple of 4.
    #[inline]
    pub(crate) fn word(&self, at: u64) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.size());
        // SAFETY: in bounds and aligned (asserted; a mapping begins on a page), valid as long as `self` keeps the map.
        // Everyone in this process and others touches commit words as atomics only.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().add(at as usize).cast()) }
    }

    /// The 64-bit word at a position that is a multiple of 8.
    #[inline]
    pub(crate) fn long_word(&self, at: u64) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.size());
        // SAFETY: as for `word`.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(at as usize).cast()) }
    }

    /// Where a writer may put `len` bytes.
    pub(crate) fn at_mut(&self, at: u64, len: usize) -> *mut u8 {
        assert!(at <= self.size() && len as u64 <= self.size() - at);
        // SAFETY: in bounds (asserted).
        unsafe { self.map.as_mut_ptr().add(at as usize) }
    }

    /// Copies `data` to `at`.
    ///
    /// # Safety
    /// `[at, at + data.len())` was reserved by the caller and is not published: nobody else writes it, and no reader
    /// looks at it yet. The mapping is writable.
    #[inline]
    pub(crate) unsafe fn write(&self, at: u64, data: &[u8]) {
        let to = self.at_mut(at, data.len());
        // SAFETY: `to` has room for the data (checked by `at_mut`), the caller owns the range, and host memory cannot
        // overlap a range that was never handed out.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) }
        if data.len() >= FETCHED_AHEAD.start {
            fetch_for_writing(to.wrapping_add(data.len()), data.len().min(FETCHED_AHEAD.end));
        }
    }

    /// Fills `[at, at + len)` with zeros, under the same conditions as [`MappedFile::write`].
    ///
    /// # Safety
    /// As for [`MappedFile::write`].
    pub(crate) unsafe fn zero(&self, at: u64, len: usize) {
        // SAFETY: in bounds (checked by `at_mut`), and owned by the caller.
        unsafe { std::ptr::write_bytes(self.at_mut(at, len), 0, len) }
    }

    /// Copies bytes out.
    #[inline]
    pub(crate) fn read(&self, at: u64, buf: &mut [u8]) {
        // SAFETY: `buf` is as long as itself.
        unsafe { self.read_to(at, buf.as_mut_ptr(), buf.len()) }
    }

    /// Copies `len` bytes out to `to`.
    ///
    /// # Safety
    /// `to` is valid for writes of `len` bytes and lies outside the mapping.
    pub(crate) unsafe fn read_to(&self, at: u64, to: *mut u8, len: usize) {
        let from = self.at_mut(at, len).cast_const();
        // SAFETY: both ranges are in bounds and apart. The bytes may change while they are copied only if they are not
        // published, or by a foreign writer: the copy is then mixed, which the checksum finds out.
        unsafe { std::ptr::copy_nonoverlapping(from, to, len) }
    }

    /// Shows `[at, at + len)` to `look` in pieces that are copies of the mapped bytes.
    pub(crate) fn read_pieces(&self, mut at: u64, mut len: usize, mut look: impl FnMut(&[u8])) {
        let mut piece = [MaybeUninit::<u8>::uninit(); 4096]; // zeroing it would cost more than a small record
        while len > 0 {
            let n = len.min(piece.len());
            let to = piece.as_mut_ptr().cast::<u8>();
            // SAFETY: `piece` has room for `n` bytes, and all of them are written before they are looked at.
            look(unsafe {
                self.read_to(at, to, n);
                std::slice::from_raw_parts(to, n)
            });
            at += n as u64;
            len -= n;
        }
    }

    /// Position just behind the last byte that is not zero, looking no further back than `floor`.
    pub(crate) fn used_until(&self, floor: u64) -> u64 {
        let mut piece = [0u8; 4096];
        let mut end = self.size();
        while end > floor {
            let n = (end - floor).min(piece.len() as u64);
            let begin = end - n;
            self.read(begin, &mut piece[..n as usize]);
            if let Some(last) = piece[..n as usize].iter().rposition(|&byte| byte != 0) {
                return begin + last as u64 + 1;
            }
            end = begin;
        }
        floor
    }

    /// Makes the pages that `[at, at + len)` touches present and writable, without changing a byte, so that the writer
    /// takes no fault there.
    pub(crate) fn populate(&self, at: u64, len: u64) -> io::Result<()> {
        match self.os.advise(&self.map, Advice::PopulateWrite, at as usize, len as usize) {
            // Before Linux 5.14 the advice is unknown (madvise(2)).
            Err(cause) if cause.raw_os_error() == Some(libc::EINVAL) => {
                for page in (at..at + len).step_by(self.os.page_size()) {
                    self.word(page & !3).fetch_or(0, Ordering::Relaxed);
                }
                Ok(())
            }
            answer => answer,
        }
    }

    /// Asks for huge pages: they make the populating several times faster, but a sync then writes 2 MiB where a page
    /// would do. Where the file system has none nothing changes.
    pub(crate) fn prefer_huge_pages(&self) {
        let _ = self.os.advise(&self.map, Advice::HugePage, 0, self.map.len());
    }

    /// Puts `[at, at + len)` on stable storage.
    pub(crate) fn sync(&self, at: u64, len: u64) -> io::Result<()> {
        self.os.sync_range(&self.map, at as usize, len as usize)
    }
}
