//! The system-call boundary: every call the library makes to open, change, map and sync files is a method of [`Os`],
//! and so is what it asks about the machine: page size, date, boot, mount, random numbers.
//!
//! One trait from the first day, because fault injection, crash enumeration and simulation stand on it. What is not
//! behind it: the end of a mapping and of a descriptor (munmap and close, when a `MmapRaw` or an `OwnedFd` is dropped),
//! loads and stores in mapped memory, monotonic time and sleeps (std), locks (parking_lot, std), and the barrier, the
//! threads, the eventfd, the forks and the signal handler of this module.

mod barrier;
mod event_fd;
mod faults;
mod fork;
mod linux;
mod registry;
mod sigbus;
mod threads;
mod whole;

pub use barrier::{heavy_barrier, light_barrier, prepare_barriers};
pub(crate) use event_fd::EventFd;
pub use faults::{Call, Fault, FaultyOs};
pub(crate) use fork::{Kept, in_forked_child, prepare_for_forks};
pub use linux::native;
pub(crate) use sigbus::{Watched, install_sigbus_guard};
pub(crate) use threads::spawn;
pub(crate) use whole::{read_all, write_all};

pub use memmap2::{Advice, MmapRaw};
use std::ffi::OsString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// How a file is opened. Always close-on-exec, a symbolic link in the last component is never followed, and what is no
/// regular file is an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    Directory,
    Read,
    ReadWrite,
    /// Read and write; the file must not exist yet.
    CreateNew {
        permissions: u32,
    },
    /// Read and write; created if it is not there.
    Create {
        permissions: u32,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    pub kind: Kind,
    pub len: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lock {
    Shared,
    Exclusive,
    /// Lets go of it, for every copy of the descriptor in any process.
    Released,
}

/// A file system, as far as it matters to mappings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileSystem {
    Local,
    /// Other machines write its files too, and a mapping here does not see it.
    Network(&'static str),
    /// A page that is reserved, and even written, takes new space when it is written again.
    CopyOnWrite(&'static str),
}

/// Paths are relative to `dir`, or to the working directory where `dir` is `None`. Errors are the system's own.
pub trait Os: Send + Sync {
    fn open(&self, dir: Option<BorrowedFd<'_>>, path: &Path, how: Open) -> io::Result<OwnedFd>;
    fn make_directory(&self, dir: Option<BorrowedFd<'_>>, path: &Path, permissions: u32) -> io::Result<()>;
    /// The last component is not followed.
    fn stat(&self, dir: Option<BorrowedFd<'_>>, path: &Path) -> io::Result<Stat>;
    /// The names in a directory, without `.` and `..`, in no order.
    fn list(&self, dir: BorrowedFd<'_>) -> io::Result<Vec<OsString>>;
    /// Replaces `to` if it exists.
    fn rename(&self, from: (BorrowedFd<'_>, &Path), to: (BorrowedFd<'_>, &Path)) -> io::Result<()>;
    /// EEXIST if `to` exists.
    fn rename_new(&self, from: (BorrowedFd<'_>, &Path), to: (BorrowedFd<'_>, &Path)) -> io::Result<()>;
    fn unlink(&self, dir: BorrowedFd<'_>, path: &Path) -> io::Result<()>;
    fn file_system(&self, fd: BorrowedFd<'_>) -> io::Result<FileSystem>;
    /// Has an empty file written in place, on a file system that would copy its pages.
    fn write_in_place(&self, fd: BorrowedFd<'_>) -> io::Result<()>;
    /// An open-file-description lock (fcntl(2)): not waited for, EAGAIN if another description holds it, gone with
    /// the last copy of `fd`.
    fn lock(&self, fd: BorrowedFd<'_>, how: Lock) -> io::Result<()>;

    /// Reserves blocks for `[0, len)` and sets the length. The raw call: the C library's wrapper writes zeros where
    /// the file system cannot reserve, slowly and racing with other writers (posix_fallocate(3), BUGS).
    fn allocate(&self, fd: BorrowedFd<'_>, len: u64) -> io::Result<()>;
    fn read_at(&self, fd: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    fn write_at(&self, fd: BorrowedFd<'_>, buf: &[u8], offset: u64) -> io::Result<usize>;
    /// fsync: what was created, renamed and removed in it stays so.
    fn sync_directory(&self, dir: BorrowedFd<'_>) -> io::Result<()>;
    /// fdatasync: the bytes, the length and the blocks of a file.
    fn sync_data(&self, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// Maps `[0, len)` shared.
    fn map(&self, fd: BorrowedFd<'_>, len: usize, writable: bool) -> io::Result<MmapRaw>;
    /// Memory of this process alone. Without a file it holds zeros; with one, the file's bytes, each page until it is
    /// stored to: no store reaches the file.
    fn map_private(&self, file: Option<BorrowedFd<'_>>, len: usize) -> io::Result<MmapRaw>;
    /// Puts `[offset, offset + len)` of a file, mapped shared and for reading only, in the place of that part of `map`,
    /// in one step for whoever reads there.
    fn map_over(&self, map: &MmapRaw, file: BorrowedFd<'_>, offset: usize, len: usize) -> io::Result<()>;
    /// Keeps each page of a mapping in memory from its first touch on (mlock2(2), MLOCK_ONFAULT).
    fn lock_memory(&self, map: &MmapRaw) -> io::Result<()>;
    fn advise(&self, map: &MmapRaw, advice: Advice, offset: usize, len: usize) -> io::Result<()>;
    /// Synchronous msync of the pages that `[offset, offset + len)` touches.
    fn sync_range(&self, map: &MmapRaw, offset: usize, len: usize) -> io::Result<()>;

    fn page_size(&self) -> usize;
    /// Milliseconds since 1970, as fresh as the kernel's tick: the precise clock costs five times as much.
    fn now_ms(&self) -> u64;
    /// Different after each boot of the kernel.
    fn boot_id(&self) -> io::Result<[u8; 16]>;
    /// Different after each mount; see `linux.rs` for kernels that cannot promise this.
    fn mount_id(&self, fd: BorrowedFd<'_>) -> io::Result<u64>;
    /// The device that a file lies on.
    fn device(&self, fd: BorrowedFd<'_>) -> io::Result<u64>;
    fn random(&self) -> io::Result<u64>;
}
