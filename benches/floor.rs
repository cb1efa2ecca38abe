//! Memory of the same kind without the library: what nobody can be faster than with the same copy.

use crate::FILE_BYTES;
use crate::machine::Scratch;
use memmap2::{Advice, MmapMut, MmapOptions};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// Files as the library prepares them, walked through as it does: reserved, mapped shared, huge pages asked for, populated
/// while the walk is still in the file before.
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
        let (current, next) = (prepared(&directory), prepared(&directory));
        MappedFloor { directory, current, next, at: 0 }
    }

    /// The next `bytes` of the walk, in one file.
    pub fn advance(&mut self, bytes: usize) -> *mut u8 {
        if self.at + bytes > self.current.len() {
            self.current = std::mem::replace(&mut self.next, prepared(&self.directory));
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

fn prepared(directory: &std::path::Path) -> MmapMut {
    let file = tempfile::tempfile_in(directory).expect("a file in the scratch directory");
    // SAFETY: takes integers only.
    let reserved = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, FILE_BYTES as libc::off_t) };
    assert_eq!(reserved, 0, "fallocate: {}", std::io::Error::last_os_error());
    // SAFETY: the file has no name, so nobody else can change it.
    let map = unsafe { MmapOptions::new().len(FILE_BYTES as usize).map_mut(&file) }.expect("a mapping of 64 MiB");
    let _ = map.advise(Advice::HugePage); // as the library: where there are none nothing changes
    map.advise(Advice::PopulateWrite).expect("MADV_POPULATE_WRITE, which Linux has since 5.14");
    map
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
