//! Which file holds an offset: found in O(1), however many there are.

use crate::mapped_file::MappedFile;
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// The files of one queue in order, without a gap.
///
/// A file put in stays as long as the table, among the removed ones at last: so the one that appends go to can be a
/// plain pointer, which costs them one load. Counting each append in and out of its file would cost each of them two
/// steps on a line that all share; so whoever removes files finds out by the pins of the calls when nobody is inside
/// any more.
pub(crate) struct FileTable {
    file_bytes: u64,
    files: RwLock<VecDeque<Arc<MappedFile>>>,
    last: AtomicPtr<MappedFile>,
    /// How often the end was moved back.
    cuts: AtomicU64,
    /// A call that began before they were removed may have a plain reference to one.
    removed: Mutex<Vec<Arc<MappedFile>>>,
    /// Threads of the library that are inside; they have no pins.
    guests: AtomicUsize,
}

/// While it lives, no file that was removed is let go.
pub(crate) struct Guest<'t>(&'t AtomicUsize);

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl FileTable {
    /// `files` are adjacent and of `file_bytes` each; the last of them is appended to.
    pub fn new(file_bytes: u64, files: VecDeque<Arc<MappedFile>>) -> FileTable {
        let last = files.back().map_or(ptr::null_mut(), |file| Arc::as_ptr(file).cast_mut());
        FileTable {
            file_bytes,
            files: RwLock::new(files),
            last: AtomicPtr::new(last),
            cuts: AtomicU64::new(0),
            removed: Mutex::default(),
            guests: AtomicUsize::new(0),
        }
    }

    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// For a thread of the library, before it takes plain references.
    pub fn enter(&self) -> Guest<'_> {
        self.guests.fetch_add(1, Ordering::AcqRel);
        Guest(&self.guests)
    }

    pub fn find(&self, offset: u64) -> Option<Arc<MappedFile>> {
        self.locate(|_| offset, Arc::clone)
    }

    /// The same without holding it: it stays as long as the table, or until `release_removed` if it is removed.
    pub fn find_ref(&self, offset: u64) -> Option<&MappedFile> {
        self.locate_ref(|_| offset)
    }

    /// The same, and the first file if the one that held `offset` was removed before it.
    pub fn find_kept_ref(&self, offset: u64) -> Option<&MappedFile> {
        self.locate_ref(|first| offset.max(first))
    }

    fn locate_ref(&self, offset_from: impl FnOnce(u64) -> u64) -> Option<&MappedFile> {
        let found = self.locate(offset_from, Arc::as_ptr)?;
        // SAFETY: its `Arc` lives as long as `self`, among the removed ones too, unless `release_removed` is called:
        // who does that knows that this call has ended, and a thread of the library has entered.
        Some(unsafe { &*found })
    }

    /// `offset_from` is told where the first file begins.
    fn locate<T>(&self, offset_from: impl FnOnce(u64) -> u64, take: impl FnOnce(&Arc<MappedFile>) -> T) -> Option<T> {
        let files = self.files.read();
        let first = files.front()?.start();
        let index = offset_from(first).checked_sub(first)? / self.file_bytes;
        files.get(index as usize).map(take)
    }

    pub fn first(&self) -> Option<u64> {
        self.files.read().front().map(|file| file.start())
    }

    /// The file that appends go to; `None` while there is no file at all.
    #[inline]
    pub fn last(&self) -> Option<&MappedFile> {
        // SAFETY: null, or an entry of the table; see `find_ref`.
        unsafe { self.last.load(Ordering::Acquire).as_ref() }
    }

    /// Puts a file behind the others. Appends go there once `set_last` says so.
    pub fn push(&self, file: Arc<MappedFile>) {
        let mut files = self.files.write();
        assert!(files.back().is_none_or(|before| before.end() == file.start()), "a file out of order");
        files.push_back(file);
    }

    /// Removes the files that end at or before `first`.
    pub fn remove_before(&self, first: u64) -> Vec<Arc<MappedFile>> {
        let mut files = self.files.write();
        let count = files.partition_point(|file| file.end() <= first);
        let gone: Vec<_> = files.drain(..count).collect();
        self.removed.lock().extend_from_slice(&gone);
        gone
    }

    /// The files that begin at or after `offset`, the last one first.
    pub fn behind(&self, offset: u64) -> Vec<Arc<MappedFile>> {
        let files = self.files.read();
        files.iter().rev().take_while(|file| file.start() >= offset).cloned().collect()
    }

    /// Removes all that lies at and behind `offset`; where that is in the middle of a file, `in_its_place` takes it.
    /// `also` is done in the same moment, as far as `unless_cut` is concerned. Nobody else moves the end meanwhile.
    pub fn cut(&self, offset: u64, in_its_place: Option<Arc<MappedFile>>, also: impl FnOnce()) -> Vec<Arc<MappedFile>> {
        let mut files = self.files.write();
        let kept = files.partition_point(|file| file.end() <= offset);
        let gone: Vec<_> = files.drain(kept..).collect();
        self.removed.lock().extend_from_slice(&gone);
        files.extend(in_its_place);
        let last = files.back().map_or(ptr::null_mut(), |file| Arc::as_ptr(file).cast_mut());
        self.last.store(last, Ordering::Release);
        also();
        self.cuts.fetch_add(1, Ordering::Release);
        gone
    }

    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }

    /// Does something while the end is not moved back, unless it has been since `cuts` was read.
    pub fn unless_cut(&self, cuts: u64, act: impl FnOnce() -> bool) -> bool {
        let _files = self.files.read();
        self.cuts() == cuts && act()
    }

    /// Lets go of the files that were removed before.
    ///
    /// # Safety
    /// No call that began before the last removal uses the table any more, the calling one excepted, which keeps no
    /// reference to a file.
    pub unsafe fn release_removed(&self, is_unused: impl FnOnce() -> bool) {
        // Held over the question: what is removed after it has been asked stays.
        let mut removed = self.removed.lock();
        // Written, not only read: a guest who comes later has seen what this thread did before, and finds no removed
        // file.
        let no_guest = || self.guests.fetch_add(0, Ordering::AcqRel) == 0;
        if !removed.is_empty() && no_guest() && is_unused() {
            removed.clear();
        }
    }

    /// Appends go to `file` from now on, unless they go to a later one already.
    pub fn set_last(&self, file: &MappedFile) {
        let target = ptr::from_ref(file).cast_mut();
        let _ = self.last.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| {
            // SAFETY: as in `last`.
            let behind = unsafe { last.as_ref() }.is_none_or(|last| last.start() < file.start());
            behind.then_some(target)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os;
    use std::os::fd::AsFd;

    #[test]
    fn an_offset_leads_to_its_file() {
        let os = os::native();
        let backing = tempfile::tempfile().unwrap();
        backing.set_len(4096).unwrap();
        let file = |start| {
            let map = os.map(backing.as_fd(), 4096, true).unwrap();
            Arc::new(MappedFile::new(os.clone(), start, map))
        };
        let table = FileTable::new(4096, VecDeque::from([file(8192), file(12288)]));
        assert_eq!(table.last().unwrap().start(), 12288);
        table.push(file(16384));
        assert_eq!(table.last().unwrap().start(), 12288);
        table.set_last(table.find_ref(16384).unwrap());
        table.set_last(table.find_ref(8192).unwrap());
        assert_eq!(table.last().unwrap().start(), 16384);
        for (offset, start) in [(8192, 8192), (12287, 8192), (12288, 12288), (20479, 16384)] {
            assert_eq!(table.find(offset).unwrap().start(), start);
        }
        for outside in [0, 8191, 20480, u64::MAX] {
            assert!(table.find(outside).is_none());
        }
    }
}
