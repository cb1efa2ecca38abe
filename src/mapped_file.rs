//! One file of the queue: its mapping, how far its space is given away, who holds it.
//!
//! A file is held by whoever has an `Arc` of it, and unmapped when the last one lets go, never before. What is
//! written, committed and flushed of it is the queue's position cut to the file's range ([`crate::positions`]): kept
//! once, so that file and queue cannot disagree.
//!
//! In STAGED a file that is written to is private memory, and reaches the disk by `write_back`. Once it is full and
//! written, `release` puts the file itself in the memory's place, at the same addresses: whoever reads there, or holds
//! a view, sees the same bytes before and after. Nobody stores there any more: who was given space is done when all of
//! it is complete, and space is given away by a counter, not by a word in the memory (see [`crate::words`]).
//!
//! No Rust reference is ever made to mapped bytes: another process may write them. Access is through raw pointers and
//! atomics, and bytes are copied out before anything judges them.

use crate::os::{Advice, Kept, MmapRaw, Os, Watched, read_all, write_all};
use crate::pool::Buffer;
use crate::sync;
use parking_lot::RwLock;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// A writer goes on where it was: behind a copy of at least so many bytes (the start of the range) as many more are
/// fetched into the cache, at most so many (its end). An append's atomic steps wait until all stores before them are
/// done, so without it each append waits for its own cache misses: 1 KiB in RAW took 130 ns, and takes 60. For shorter
/// copies the hardware keeps up by itself.
const FETCHED_AHEAD: Range<usize> = 512..1024;

/// Memory is given back in steps, as each holds the address-space lock.
const RELEASE_STEP_BYTES: usize = 2 << 20;

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
struct Reserved(sync::atomic::AtomicU64);

pub struct MappedFile {
    start: u64,
    /// Before the map, so that it ends before it.
    watched: Watched,
    map: MmapRaw,
    os: Arc<dyn Os>,
    entry_durable: AtomicBool,
    /// STAGED. Shared by who readies or writes pages, exclusive for the release: it waits for them.
    staged: Option<RwLock<Option<Staged>>>,
    reserved: Reserved,
}

/// What a file has while its stores go to private memory.
struct Staged {
    fd: Kept,
    /// Before it the memory is the file's own, for reading only.
    writable_from: u64,
    /// None in recovery, where the memory is copies of single pages.
    _buffer: Option<Buffer>,
}

impl MappedFile {
    /// `map` covers the whole file, whose first byte has the queue offset `start`.
    pub(crate) fn new(os: Arc<dyn Os>, start: u64, map: MmapRaw) -> MappedFile {
        let reserved = Reserved(sync::atomic::AtomicU64::new(0));
        let watched = Watched::new(&map);
        MappedFile { start, watched, map, os, entry_durable: AtomicBool::new(false), staged: None, reserved }
    }

    /// `map` is private memory that stands for the file `fd`.
    pub(crate) fn staged(os: Arc<dyn Os>, start: u64, map: MmapRaw, fd: OwnedFd) -> MappedFile {
        let staged = Some(RwLock::new(Some(Staged { fd: fd.into(), writable_from: 0, _buffer: None })));
        MappedFile { staged, ..MappedFile::new(os, start, map) }
    }

    /// The same, with the first `used` bytes of the file in it: whole pages of them are the file's own, for reading only.
    pub(crate) fn staged_over(
        os: Arc<dyn Os>,
        start: u64,
        map: MmapRaw,
        fd: OwnedFd,
        used: u64,
    ) -> io::Result<MappedFile> {
        let whole_pages = used - used % os.page_size() as u64;
        if whole_pages > 0 {
            os.map_over(&map, fd.as_fd(), 0, whole_pages as usize)?;
        }
        let mut bytes = vec![0; (used - whole_pages) as usize];
        read_all(&*os, fd.as_fd(), &mut bytes, whole_pages)?;
        let mut file = MappedFile::staged(os, start, map, fd);
        if let Some(Some(staged)) = file.staged.as_mut().map(RwLock::get_mut) {
            staged.writable_from = whole_pages;
        }
        // SAFETY: nobody else has this memory yet.
        unsafe { file.write(whole_pages, &bytes) };
        Ok(file)
    }

    /// STAGED: holds `buffer`, the right to its memory, until the release.
    pub(crate) fn hold_buffer(&self, buffer: Option<Buffer>) {
        if let Some(staged) = &self.staged
            && let Some(staged) = &mut *staged.write()
        {
            staged._buffer = buffer;
        }
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
    pub(crate) fn reserved(&self) -> &sync::atomic::AtomicU64 {
        &self.reserved.0
    }

    /// Whether `[at, at + len)` is still the file itself. Asked after bytes were used: where the guard against SIGBUS
    /// has put other pages, what was stored reaches no disk and what was loaded is no data.
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
        self.used_within(floor..self.size())
    }

    /// The same of a part of the file; its start where all of it is zero.
    pub(crate) fn used_within(&self, part: Range<u64>) -> u64 {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut piece = ZEROS;
        let Range { start: floor, mut end } = part;
        while end > floor {
            let n = (end - floor).min(piece.len() as u64);
            let begin = end - n;
            self.read(begin, &mut piece[..n as usize]);
            // Compared as a whole first, which is many times faster than byte by byte.
            if piece[..n as usize] != ZEROS[..n as usize]
                && let Some(last) = piece[..n as usize].iter().rposition(|&byte| byte != 0)
            {
                return begin + last as u64 + 1;
            }
            end = begin;
        }
        floor
    }

    #[inline]
    pub(crate) fn is_staged(&self) -> bool {
        self.staged.is_some()
    }

    /// STAGED: writes other bytes than the memory's to the file.
    pub(crate) fn write_to_file(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let Some(staged) = &self.staged else { return Ok(()) };
        match &*staged.read() {
            Some(Staged { fd, .. }) => write_all(&*self.os, fd.as_fd(), bytes, at),
            None => Ok(()),
        }
    }

    /// STAGED: writes `[at, at + len)` to the file. (In MMAP what is stored is in the page cache already.)
    ///
    /// The caller knows that it is published.
    pub(crate) fn write_back(&self, at: u64, len: u64) -> io::Result<()> {
        if !self.is_staged() {
            return Ok(());
        }
        let from = self.at_mut(at, len as usize).cast_const();
        // SAFETY: in bounds (checked by `at_mut`), private to this process, and published, so nobody stores there: but
        // for the host of a claim that was closed under it, and of such bytes only the kernel makes a copy.
        self.write_to_file(at, unsafe { std::slice::from_raw_parts(from, len as usize) })
    }

    /// STAGED: gives the memory back and maps the file itself in its place, for reading only. All of it is written.
    ///
    /// After a failure nothing is lost, and it can be tried again.
    pub(crate) fn release(&self) -> io::Result<()> {
        let Some(staged) = &self.staged else { return Ok(()) };
        let mut staged = staged.write();
        if let Some(Staged { fd, .. }) = &*staged {
            for at in (0..self.map.len()).step_by(RELEASE_STEP_BYTES) {
                let len = (self.map.len() - at).min(RELEASE_STEP_BYTES);
                self.os.map_over(&self.map, fd.as_fd(), at, len)?;
            }
        }
        *staged = None; // the descriptor, and then the right to a buffer
        Ok(())
    }

    /// Makes the pages that `[at, at + len)` touches present and writable, without changing a byte, so that the writer
    /// takes no fault there.
    pub(crate) fn populate(&self, at: u64, len: u64) -> io::Result<()> {
        let staged = self.staged.as_ref().map(RwLock::read);
        let writable_from = match staged.as_deref() {
            None => 0,
            Some(Some(staged)) => staged.writable_from,
            Some(None) => self.size(), // released by now
        };
        let (at, end) = (at.max(writable_from), at + len);
        if at >= end {
            return Ok(());
        }
        let len = end - at;
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

    /// Tells the kernel what `[at, at + len)` will be used for; a kernel that does not know the advice does without.
    pub(crate) fn advise(&self, advice: Advice, at: u64, len: u64) {
        let _ = self.os.advise(&self.map, advice, at as usize, len as usize);
    }

    /// Asks for huge pages: they make the populating several times faster, but a sync then writes 2 MiB where a page
    /// would do. Where the file system has none nothing changes.
    pub(crate) fn prefer_huge_pages(&self, at: u64, len: u64) {
        self.advise(Advice::HugePage, at, len);
    }

    /// Makes pages that look clean dirty, without changing a byte: the next sync writes them.
    pub(crate) fn dirty(&self, at: u64, len: u64) -> io::Result<()> {
        if self.is_staged() { self.write_back(at, len) } else { self.populate(at, len) }
    }

    /// Puts `[at, at + len)` on stable storage; in STAGED, what was written back, before the release.
    pub(crate) fn sync(&self, at: u64, len: u64) -> io::Result<()> {
        if let Some(staged) = &self.staged
            && let Some(Staged { fd, .. }) = &*staged.read()
        {
            return self.os.sync_data(fd.as_fd());
        }
        self.os.sync_range(&self.map, at as usize, len as usize)
    }
}
