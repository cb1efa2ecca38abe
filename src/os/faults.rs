//! The boundary's test side: passes every call on, but makes chosen ones fail, panic or hang.

use super::{Advice, FileSystem, Lock, MmapRaw, Open, Os, Stat};
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, ThreadId};

/// A kind of call, as faults are aimed at it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Call {
    Open,
    MakeDirectory,
    Stat,
    List,
    Rename,
    Unlink,
    FileSystem,
    WriteInPlace,
    Lock,
    Allocate,
    ReadAt,
    WriteAt,
    SyncDirectory,
    SyncData,
    Map,
    MapPrivate,
    MapOver,
    LockMemory,
    Populate,
    /// A hint, as all other advice is: whether it fails is not looked at.
    Advise,
    SyncRange,
    BootId,
    MountId,
    Device,
    Random,
    /// Has no error to return: only a panic and a hang can be aimed at it.
    Clock,
}

impl Call {
    /// All that can fail.
    pub const ALL: [Call; 25] = [
        Call::Open,
        Call::MakeDirectory,
        Call::Stat,
        Call::List,
        Call::Rename,
        Call::Unlink,
        Call::FileSystem,
        Call::WriteInPlace,
        Call::Lock,
        Call::Allocate,
        Call::ReadAt,
        Call::WriteAt,
        Call::SyncDirectory,
        Call::SyncData,
        Call::Map,
        Call::MapPrivate,
        Call::MapOver,
        Call::LockMemory,
        Call::Populate,
        Call::Advise,
        Call::SyncRange,
        Call::BootId,
        Call::MountId,
        Call::Device,
        Call::Random,
    ];
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The call returns this errno.
    Errno(i32),
    /// A read or a write does half of what it was asked for, a byte at least. Any other call goes through.
    Half,
    /// The call panics, as a bug in the library would.
    Panic,
    /// The call blocks until `FaultyOs::heal` or `let_go`, then goes through, or to the next fault aimed at it.
    Hang,
}

#[derive(Default)]
struct Plan {
    made: HashMap<Call, u64>,
    /// Ordinals from 1; the last ordinal of the range is not included.
    faults: Vec<(Call, std::ops::Range<u64>, Fault)>,
    hanging: usize,
    synced: Vec<(usize, usize)>,
    populated: Vec<(usize, ThreadId)>,
}

/// Wraps another `Os`. Clones of the `Arc` it sits in see one plan.
pub struct FaultyOs {
    inner: Arc<dyn Os>,
    plan: Mutex<Plan>,
    changed: Condvar,
    boot_id: Mutex<Option<[u8; 16]>>,
    device: Mutex<Option<u64>>,
    file_system: Mutex<Option<FileSystem>>,
}

impl FaultyOs {
    pub fn new(inner: Arc<dyn Os>) -> Arc<FaultyOs> {
        let (plan, changed) = (Mutex::default(), Condvar::new());
        let (boot_id, device, file_system) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(FaultyOs { inner, plan, changed, boot_id, device, file_system })
    }

    /// The `nth` call of this kind from now on fails (1 is the next), and no other. Returns what `count` says once it
    /// was made: threads of the library may make calls at any moment.
    pub fn fail_nth(&self, call: Call, nth: u64, fault: Fault) -> u64 {
        let mut plan = self.plan.lock();
        let at = plan.made.get(&call).copied().unwrap_or(0) + nth;
        plan.faults.push((call, at..at + 1, fault));
        at
    }

    /// Every call of this kind from now on fails, until `heal`.
    pub fn fail_all(&self, call: Call, fault: Fault) {
        self.fail_from(call, 1, fault);
    }

    /// The `nth` call of this kind from now on fails, and every one after it, until `heal`.
    pub fn fail_from(&self, call: Call, nth: u64, fault: Fault) {
        let mut plan = self.plan.lock();
        let at = plan.made.get(&call).copied().unwrap_or(0) + nth;
        plan.faults.push((call, at..u64::MAX, fault));
    }

    /// Forgets all faults and lets hanging calls go.
    pub fn heal(&self) {
        self.plan.lock().faults.clear();
        self.changed.notify_all();
    }

    /// Lets hanging calls go; other faults stay.
    pub fn let_go(&self) {
        self.plan.lock().faults.retain(|(_, _, fault)| *fault != Fault::Hang);
        self.changed.notify_all();
    }

    /// How many calls of this kind were made.
    pub fn count(&self, call: Call) -> u64 {
        self.plan.lock().made.get(&call).copied().unwrap_or(0)
    }

    /// Position and length of every range of a file that was to be synced.
    pub fn synced_ranges(&self) -> Vec<(usize, usize)> {
        self.plan.lock().synced.clone()
    }

    /// Length and thread of every range that was to be populated for writing.
    pub fn populated_ranges(&self) -> Vec<(usize, ThreadId)> {
        self.plan.lock().populated.clone()
    }

    /// Blocks until so many calls hang at once.
    pub fn wait_hanging(&self, calls: usize) {
        let mut plan = self.plan.lock();
        while plan.hanging < calls {
            self.changed.wait(&mut plan);
        }
    }

    /// What `boot_id` answers from now on: another one stands for a reboot.
    pub fn set_boot_id(&self, id: [u8; 16]) {
        *self.boot_id.lock() = Some(id);
    }

    /// What `device` answers from now on.
    pub fn set_device(&self, number: u64) {
        *self.device.lock() = Some(number);
    }

    /// What `file_system` answers from now on.
    pub fn set_file_system(&self, file_system: FileSystem) {
        *self.file_system.lock() = Some(file_system);
    }

    fn enter(&self, call: Call) -> io::Result<()> {
        self.enter_with(call, 0).map(drop)
    }

    /// For a call over so many bytes; how many it is to do.
    fn enter_with(&self, call: Call, len: usize) -> io::Result<usize> {
        let mut plan = self.plan.lock();
        let made = plan.made.entry(call).or_insert(0);
        *made += 1;
        let ordinal = *made;
        let aimed = |plan: &Plan| {
            plan.faults.iter().find(|(c, at, _)| *c == call && at.contains(&ordinal)).map(|(_, _, fault)| *fault)
        };
        if aimed(&plan) == Some(Fault::Hang) {
            plan.hanging += 1;
            self.changed.notify_all();
            while aimed(&plan) == Some(Fault::Hang) {
                self.changed.wait(&mut plan);
            }
            plan.hanging -= 1;
        }
        match aimed(&plan) {
            None | Some(Fault::Hang) => Ok(len),
            Some(Fault::Half) => Ok(len.div_ceil(2)),
            Some(Fault::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Panic) => {
                drop(plan);
                panic!("injected into {call:?} number {ordinal}")
            }
        }
    }
}

impl Os for FaultyOs {
    fn open(&self, dir: Option<BorrowedFd<'_>>, path: &Path, how: Open) -> io::Result<OwnedFd> {
        self.enter(Call::Open)?;
        self.inner.open(dir, path, how)
    }

    fn make_directory(&self, dir: Option<BorrowedFd<'_>>, path: &Path, permissions: u32) -> io::Result<()> {
        self.enter(Call::MakeDirectory)?;
        self.inner.make_directory(dir, path, permissions)
    }

    fn stat(&self, dir: Option<BorrowedFd<'_>>, path: &Path) -> io::Result<Stat> {
        self.enter(Call::Stat)?;
        self.inner.stat(dir, path)
    }

    fn list(&self, dir: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
        self.enter(Call::List)?;
        self.inner.list(dir)
    }

    fn rename(&self, from: (BorrowedFd<'_>, &Path), to: (BorrowedFd<'_>, &Path)) -> io::Result<()> {
        self.enter(Call::Rename)?;
        self.inner.rename(from, to)
    }

    fn rename_new(&self, from: (BorrowedFd<'_>, &Path), to: (BorrowedFd<'_>, &Path)) -> io::Result<()> {
        self.enter(Call::Rename)?;
        self.inner.rename_new(from, to)
    }

    fn unlink(&self, dir: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        self.enter(Call::Unlink)?;
        self.inner.unlink(dir, path)
    }

    fn file_system(&self, fd: BorrowedFd<'_>) -> io::Result<FileSystem> {
        self.enter(Call::FileSystem)?;
        match *self.file_system.lock() {
            Some(file_system) => Ok(file_system),
            None => self.inner.file_system(fd),
        }
    }

    fn write_in_place(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.enter(Call::WriteInPlace)?;
        self.inner.write_in_place(fd)
    }

    fn lock(&self, fd: BorrowedFd<'_>, how: Lock) -> io::Result<()> {
        self.enter(Call::Lock)?;
        self.inner.lock(fd, how)
    }

    fn allocate(&self, fd: BorrowedFd<'_>, len: u64) -> io::Result<()> {
        self.enter(Call::Allocate)?;
        self.inner.allocate(fd, len)
    }

    fn read_at(&self, fd: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let len = self.enter_with(Call::ReadAt, buf.len())?;
        self.inner.read_at(fd, &mut buf[..len], offset)
    }

    fn write_at(&self, fd: BorrowedFd<'_>, buf: &[u8], offset: u64) -> io::Result<usize> {
        let len = self.enter_with(Call::WriteAt, buf.len())?;
        self.inner.write_at(fd, &buf[..len], offset)
    }

    fn sync_directory(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        self.enter(Call::SyncDirectory)?;
        self.inner.sync_directory(dir)
    }

    fn sync_data(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.enter(Call::SyncData)?;
        self.inner.sync_data(fd)
    }

    fn map(&self, fd: BorrowedFd<'_>, len: usize, writable: bool) -> io::Result<MmapRaw> {
        self.enter(Call::Map)?;
        self.inner.map(fd, len, writable)
    }

    fn map_private(&self, file: Option<BorrowedFd<'_>>, len: usize) -> io::Result<MmapRaw> {
        self.enter(Call::MapPrivate)?;
        self.inner.map_private(file, len)
    }

    fn map_over(&self, map: &MmapRaw, file: BorrowedFd<'_>, offset: usize, len: usize) -> io::Result<()> {
        self.enter(Call::MapOver)?;
        self.inner.map_over(map, file, offset, len)
    }

    fn lock_memory(&self, map: &MmapRaw) -> io::Result<()> {
        self.enter(Call::LockMemory)?;
        self.inner.lock_memory(map)
    }

    fn advise(&self, map: &MmapRaw, advice: Advice, offset: usize, len: usize) -> io::Result<()> {
        let populates = advice == Advice::PopulateWrite;
        if populates {
            self.plan.lock().populated.push((len, thread::current().id()));
        }
        self.enter(if populates { Call::Populate } else { Call::Advise })?;
        self.inner.advise(map, advice, offset, len)
    }

    fn sync_range(&self, map: &MmapRaw, offset: usize, len: usize) -> io::Result<()> {
        self.plan.lock().synced.push((offset, len));
        self.enter(Call::SyncRange)?;
        self.inner.sync_range(map, offset, len)
    }

    fn page_size(&self) -> usize {
        self.inner.page_size()
    }

    fn now_ms(&self) -> u64 {
        let _ = self.enter(Call::Clock);
        self.inner.now_ms()
    }

    fn boot_id(&self) -> io::Result<[u8; 16]> {
        self.enter(Call::BootId)?;
        match *self.boot_id.lock() {
            Some(id) => Ok(id),
            None => self.inner.boot_id(),
        }
    }

    fn mount_id(&self, fd: BorrowedFd<'_>) -> io::Result<u64> {
        self.enter(Call::MountId)?;
        self.inner.mount_id(fd)
    }

    fn device(&self, fd: BorrowedFd<'_>) -> io::Result<u64> {
        self.enter(Call::Device)?;
        match *self.device.lock() {
            Some(number) => Ok(number),
            None => self.inner.device(fd),
        }
    }

    fn random(&self) -> io::Result<u64> {
        self.enter(Call::Random)?;
        self.inner.random()
    }
}
