//! Which file holds an offset: found in O(1), however many there are.

use crate::mapped_file::MappedFile;
use parking_lot::RwLock;
use std::collections::VecDeque;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The files of one queue in order, without a gap.
///
/// A file put in stays as long as the table: so the one that appends go to can be a plain pointer, which costs them one
/// load. (Whoever removes files from a living table has to wait first until no call is inside it.)
pub(crate) struct FileTable {
    file_bytes: u64,
    files: RwLock<VecDeque<Arc<MappedFile>>>,
    last: AtomicPtr<MappedFile>,
}

impl FileTable {
    /// `files` are adjacent and of `file_bytes` each; the last of them is appended to.
    pub fn new(file_bytes: u64, files: VecDeque<Arc<MappedFile>>) -> FileTable {
        let last = files.back().map_or(ptr::null_mut(), |file| Arc::as_ptr(file).cast_mut());
        FileTable { file_bytes, files: RwLock::new(files), last: AtomicPtr::new(last) }
    }

    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    pub fn find(&self, offset: u64) -> Option<Arc<MappedFile>> {
        self.locate(offset, Arc::clone)
    }

    /// The same without holding it: it stays as long as the table.
    pub fn find_ref(&self, offset: u64) -> Option<&MappedFile> {
        let found = self.locate(offset, Arc::as_ptr)?;
        // SAFETY: an entry is never removed and its `Arc` lives as long as `self`.
        Some(unsafe { &*found })
    }

    fn locate<T>(&self, offset: u64, take: impl FnOnce(&Arc<MappedFile>) -> T) -> Option<T> {
        let files = self.files.read();
        let first = files.front()?.start();
        let index = offset.checked_sub(first)? / self.file_bytes;
        files.get(index as usize).map(take)
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
