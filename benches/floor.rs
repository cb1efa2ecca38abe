//! Memory of the same kind without the library: what nobody can be faster than with the same copy.

use crate::FILE_BYTES;
use crate::machine::Scratch;
use memmap2::{Advice, MmapMut, MmapOptions, MmapRaw};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

/// Files as the library prepares them, walked through as it does: reserved, mapped shared, huge pages asked for,
/// populated while the walk is still in the file before.
pub struct MappedFloor {
    directory: PathBuf,
    current: MmapMut,
    next: MmapMut,
    at: usize,
}

impl MappedFloor {
    pub fn new(scratch: &Scratch) -> MappedFloor {
        let directory = scratch.fresh("floor");
        std::fs::create_dir(&directory).expect("a directory in the scratch directory");
        let (current, next) = (prepared(&directory, true), prepared(&directory, true));
        MappedFloor { directory, current, next, at: 0 }
    }

    /// The next `bytes` of the walk, in one file.
    pub fn advance(&mut self, bytes: usize) -> *mut u8 {
        if self.at + bytes > self.current.len() {
            self.current = std::mem::replace(&mut self.next, prepared(&self.directory, true));
            self.at = 0;
        }
        let begin = self.at;
        self.at += bytes;
        self.current[begin..].as_mut_ptr()
    }
}

impl Drop for MappedFloor {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.directory);
    }
}

fn prepared(directory: &std::path::Path, huge_pages: bool) -> MmapMut {
    let file = tempfile::tempfile_in(directory).expect("a file in the scratch directory");
    // SAFETY: takes integers only.
    let reserved = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, FILE_BYTES as libc::off_t) };
    assert_eq!(reserved, 0, "fallocate: {}", std::io::Error::last_os_error());
    // SAFETY: the file has no name, so nobody else can change it.
    let map = unsafe { MmapOptions::new().len(FILE_BYTES as usize).map_mut(&file) }.expect("a mapping of 64 MiB");
    if huge_pages {
        let _ = map.advise(Advice::HugePage); // as the library: where there are none nothing changes
    }
    map.advise(Advice::PopulateWrite).expect("MADV_POPULATE_WRITE, which Linux has since 5.14");
    map
}

/// One such file, each store in it followed by its sync.
pub struct SyncedFloor {
    map: MmapMut,
    at: usize,
}

impl SyncedFloor {
    pub fn new(scratch: &Scratch, huge_pages: bool) -> SyncedFloor {
        let directory = scratch.fresh("synced-floor");
        std::fs::create_dir(&directory).expect("a directory in the scratch directory");
        SyncedFloor { map: prepared(&directory, huge_pages), at: 0 }
    }

    pub fn store_and_sync(&mut self, data: &[u8]) {
        let end = self.at + data.len();
        self.map[self.at..end].copy_from_slice(data);
        self.map.flush_range(self.at, data.len()).expect("a sync");
        self.at = end;
    }
}

/// One such file for several threads. Each stores a record and sleeps, but for the last of them: it syncs for all, and
/// wakes them. A group commit by a mutex, a condition and one msync, which knows how many will come.
pub struct PlainGroup {
    map: MmapRaw,
    stored: AtomicUsize,
    group: Mutex<Group>,
    synced: Condvar,
}

#[derive(Default)]
struct Group {
    came: usize,
    number: usize,
    synced_to: usize,
}

impl PlainGroup {
    pub fn new(scratch: &Scratch) -> PlainGroup {
        let directory = scratch.fresh("plain-group");
        std::fs::create_dir(&directory).expect("a directory in the scratch directory");
        let (stored, group, synced) = Default::default();
        PlainGroup { map: MmapRaw::from(prepared(&directory, false)), stored, group, synced }
    }

    /// Of `threads` that do this at once, as often.
    pub fn store_and_sync(&self, data: &[u8], threads: usize) {
        let slots = self.map.len() / data.len();
        let slot = self.stored.fetch_add(1, Ordering::AcqRel) % slots;
        // SAFETY: in bounds, and the slot is this thread's until it comes round again, after its sync.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), self.map.as_mut_ptr().add(slot * data.len()), data.len()) }
        let mut group = self.group.lock().unwrap();
        group.came += 1;
        if group.came < threads {
            let mine = group.number;
            drop(self.synced.wait_while(group, |group| group.number == mine).unwrap());
            return;
        }
        let stored = self.stored.load(Ordering::Acquire);
        let (from, to) = (group.synced_to % slots * data.len(), stored % slots * data.len());
        let (from, len) = if from < to { (from, to - from) } else { (0, self.map.len()) };
        self.map.flush_range(from, len).expect("a sync");
        *group = Group { came: 0, number: group.number + 1, synced_to: stored };
        self.synced.notify_all();
    }
}

/// Plain private memory, touched before: the noise of the machine and of the loop itself.
pub struct PlainMemory(MmapMut);

impl PlainMemory {
    pub fn new(bytes: u64) -> PlainMemory {
        let mut map = MmapMut::map_anon(bytes as usize).expect("some memory");
        let _ = map.advise(Advice::HugePage);
        map.fill(1);
        PlainMemory(map)
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
