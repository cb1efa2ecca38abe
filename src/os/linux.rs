//! The boundary's real side.

use super::{Advice, FileSystem, Kind, Lock, MmapRaw, Open, Os, Stat};
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// The system itself.
pub fn native() -> Arc<dyn Os> {
    Arc::new(Linux)
}

struct Linux;

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn raw(dir: Option<BorrowedFd<'_>>) -> RawFd {
    dir.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd())
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// What somebody planted in the place of a file: a FIFO can be locked, a device written to.
fn regular(fd: &OwnedFd) -> io::Result<()> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` has the size the call fills when it succeeds.
    let stat = unsafe {
        check(libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()))?;
        stat.assume_init()
    };
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => Ok(()),
        _ => Err(io::Error::other("is not a regular file")),
    }
}

/// Past RLIMIT_FSIZE the system raises SIGXFSZ in the calling thread, which may be the host's: an error comes first.
fn within_size_limit(end: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is ours.
    check(unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) })?;
    if end > limit.rlim_cur { Err(io::Error::from_raw_os_error(libc::EFBIG)) } else { Ok(()) }
}

fn rename_with(from: (BorrowedFd<'_>, &Path), to: (BorrowedFd<'_>, &Path), flags: libc::c_uint) -> io::Result<()> {
    let (old, new) = (c_path(from.1)?, c_path(to.1)?);
    // SAFETY: both are NUL-terminated strings that outlive the call.
    check(unsafe { libc::renameat2(from.0.as_raw_fd(), old.as_ptr(), to.0.as_raw_fd(), new.as_ptr(), flags) })?;
    Ok(())
}

impl Os for Linux {
    fn open(&self, dir: Option<BorrowedFd<'_>>, path: &Path, how: Open) -> io::Result<OwnedFd> {
        let (flags, permissions) = match how {
            Open::Directory => (libc::O_RDONLY | libc::O_DIRECTORY, None),
            Open::Read => (libc::O_RDONLY, None),
            Open::ReadWrite => (libc::O_RDWR, None),
            Open::CreateNew { permissions } => (libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, Some(permissions)),
            Open::Create { permissions } => (libc::O_RDWR | libc::O_CREAT, Some(permissions)),
        };
        // O_NONBLOCK so that a FIFO planted in the place of a file cannot hang the open; it means nothing for files.
        let flags = flags | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let name = c_path(path)?;
        // SAFETY: `name` is a NUL-terminated string that outlives the call; the result is a descriptor of our own.
        let fd = unsafe {
            let fd = check(libc::openat(raw(dir), name.as_ptr(), flags, permissions.unwrap_or(0)))?;
            OwnedFd::from_raw_fd(fd)
        };
        if how != Open::Directory {
            regular(&fd)?;
        }
        if let Some(mode) = permissions {
            // The umask has cut the mode given to open(2); the option says what it is to be.
            // SAFETY: takes integers only.
            check(unsafe { libc::fchmod(fd.as_raw_fd(), mode) })?;
        }
        Ok(fd)
    }

    fn make_directory(&self, dir: Option<BorrowedFd<'_>>, path: &Path, permissions: u32) -> io::Result<()> {
        let name = c_path(path)?;
        // SAFETY: `name` is a NUL-terminated string that outlives the call.
        check(unsafe { libc::mkdirat(raw(dir), name.as_ptr(), permissions) })?;
        // As for a file: whatever the umask.
        // SAFETY: as above.
        check(unsafe { libc::fchmodat(raw(dir), name.as_ptr(), permissions, 0) })?;
        Ok(())
    }

    fn stat(&self, dir: Option<BorrowedFd<'_>>, path: &Path) -> io::Result<Stat> {
        let name = c_path(path)?;
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: `name` is NUL-terminated, `stat` has the size the call fills when it succeeds.
        let stat = unsafe {
            check(libc::fstatat(raw(dir), name.as_ptr(), stat.as_mut_ptr(), libc::AT_SYMLINK_NOFOLLOW))?;
            stat.assume_init()
        };
        let kind = match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => Kind::File,
            libc::S_IFDIR => Kind::Directory,
            libc::S_IFLNK => Kind::Symlink,
            _ => Kind::Other,
        };
        Ok(Stat { kind, len: stat.st_size as u64 })
    }

    fn list(&self, dir: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
        // A directory stream owns its descriptor, and starts where the descriptor's position is: so a fresh one.
        let fresh = self.open(Some(dir), Path::new("."), Open::Directory)?;
        // SAFETY: fdopendir takes the descriptor over when it succeeds, so ownership is given up only then. The stream
        // is ours alone until closedir; each entry is read before the next readdir may overwrite it.
        unsafe {
            let stream = libc::fdopendir(fresh.as_raw_fd());
            if stream.is_null() {
                return Err(io::Error::last_os_error());
            }
            std::mem::forget(fresh);
            let mut names = Vec::new();
            let outcome = loop {
                *libc::__errno_location() = 0;
                let entry = libc::readdir64(stream);
                if entry.is_null() {
                    let cause = io::Error::last_os_error();
                    break if cause.raw_os_error() == Some(0) { Ok(names) } else { Err(cause) };
                }
                let name = std::ffi::CStr::from_ptr((*entry).d_name.as_ptr()).to_bytes();
                if name != b"." && name != b".." {
                    names.push(OsStr::from_bytes(name).to_owned());
                }
            };
            libc::closedir(stream);
            outcome
        }
    }

    fn rename(&self, from: (BorrowedFd<'_>, &Path), to: (BorrowedFd<'_>, &Path)) -> io::Result<()> {
        rename_with(from, to, 0)
    }

    fn rename_new(&self, from: (BorrowedFd<'_>, &Path), to: (BorrowedFd<'_>, &Path)) -> io::Result<()> {
        rename_with(from, to, libc::RENAME_NOREPLACE)
    }

    fn unlink(&self, dir: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        let name = c_path(path)?;
        // SAFETY: `name` is a NUL-terminated string that outlives the call.
        check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) })?;
        Ok(())
    }

    fn file_system(&self, fd: BorrowedFd<'_>) -> io::Result<FileSystem> {
        let mut about = MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: `about` has the size the call fills when it succeeds.
        let about = unsafe {
            check(libc::fstatfs(fd.as_raw_fd(), about.as_mut_ptr()))?;
            about.assume_init()
        };
        // statfs(2) and linux/magic.h; AFS, Ceph, Lustre, ZFS and bcachefs from their own sources. FUSE may be
        // anything, and XFS does not tell whether it shares blocks.
        Ok(match about.f_type as u32 {
            0x6969 => FileSystem::Network("NFS"),
            0x517B | 0xFF53_4D42 | 0xFE53_4D42 => FileSystem::Network("SMB"),
            0x0102_1997 => FileSystem::Network("9p"),
            0x5346_414F | 0x6B41_4653 => FileSystem::Network("AFS"),
            0x00C3_6400 => FileSystem::Network("Ceph"),
            0x0BD0_0BD0 => FileSystem::Network("Lustre"),
            0x7375_7245 => FileSystem::Network("Coda"),
            0x564C => FileSystem::Network("NCP"),
            0x9123_683E => FileSystem::CopyOnWrite("btrfs"),
            0x2FC1_2FC1 => FileSystem::CopyOnWrite("ZFS"),
            0xCA45_1A4E => FileSystem::CopyOnWrite("bcachefs"),
            _ => FileSystem::Local,
        })
    }

    fn write_in_place(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        const FS_NOCOW_FL: libc::c_int = 0x0080_0000;
        let mut flags: libc::c_int = 0;
        // SAFETY: both calls are given an int, which is what they take whatever their numbers say (ioctl_iflags(2)).
        unsafe {
            check(libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_GETFLAGS, &mut flags))?;
            flags |= FS_NOCOW_FL;
            check(libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_SETFLAGS, &flags))?;
        }
        Ok(())
    }

    fn lock(&self, fd: BorrowedFd<'_>, how: Lock) -> io::Result<()> {
        // SAFETY: all zero is a valid flock (l_pid must be 0 for this kind); the call reads it and keeps nothing.
        unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            lock.l_type = match how {
                Lock::Shared => libc::F_RDLCK,
                Lock::Exclusive => libc::F_WRLCK,
                Lock::Released => libc::F_UNLCK,
            } as libc::c_short;
            lock.l_whence = libc::SEEK_SET as libc::c_short;
            check(libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &lock))?;
        }
        Ok(())
    }

    fn allocate(&self, fd: BorrowedFd<'_>, len: u64) -> io::Result<()> {
        within_size_limit(len)?;
        // SAFETY: takes integers only.
        check(unsafe { libc::fallocate(fd.as_raw_fd(), 0, 0, len as libc::off_t) })?;
        Ok(())
    }

    fn read_at(&self, fd: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        // SAFETY: the buffer is exclusively ours for the call, with exactly this length.
        let n = unsafe { libc::pread(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), offset as libc::off_t) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    fn write_at(&self, fd: BorrowedFd<'_>, buf: &[u8], offset: u64) -> io::Result<usize> {
        within_size_limit(offset + buf.len() as u64)?;
        // SAFETY: the buffer is readable for the call, with exactly this length.
        let n = unsafe { libc::pwrite(fd.as_raw_fd(), buf.as_ptr().cast(), buf.len(), offset as libc::off_t) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    fn sync_directory(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: takes integers only.
        check(unsafe { libc::fsync(dir.as_raw_fd()) })?;
        Ok(())
    }

    fn sync_data(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: takes integers only.
        check(unsafe { libc::fdatasync(fd.as_raw_fd()) })?;
        Ok(())
    }

    fn map(&self, fd: BorrowedFd<'_>, len: usize, writable: bool) -> io::Result<MmapRaw> {
        let mut options = memmap2::MmapOptions::new();
        options.len(len);
        if writable { options.map_raw(fd.as_raw_fd()) } else { options.map_raw_read_only(fd.as_raw_fd()) }
    }

    fn map_private(&self, file: Option<BorrowedFd<'_>>, len: usize) -> io::Result<MmapRaw> {
        let mut options = memmap2::MmapOptions::new();
        options.len(len);
        match file {
            None => options.map_anon().map(MmapRaw::from),
            // SAFETY: it becomes a `MmapRaw` at once: nobody makes a reference to it.
            Some(file) => unsafe { options.map_copy(file.as_raw_fd()) }.map(MmapRaw::from),
        }
    }

    fn map_over(&self, map: &MmapRaw, file: BorrowedFd<'_>, offset: usize, len: usize) -> io::Result<()> {
        assert!(offset <= map.len() && len <= map.len() - offset);
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        let at = map.as_mut_ptr().wrapping_add(offset);
        // SAFETY: the range lies in `map` (asserted), which unmaps all of it when it is dropped, whatever is there
        // then.
        let mapped =
            unsafe { libc::mmap(at.cast(), len, libc::PROT_READ, flags, file.as_raw_fd(), offset as libc::off_t) };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn lock_memory(&self, map: &MmapRaw) -> io::Result<()> {
        // SAFETY: the range is that of a mapping; locking changes no byte of it.
        check(unsafe { libc::mlock2(map.as_ptr().cast(), map.len(), libc::MLOCK_ONFAULT) })?;
        Ok(())
    }

    fn advise(&self, map: &MmapRaw, advice: Advice, offset: usize, len: usize) -> io::Result<()> {
        map.advise_range(advice, offset, len)
    }

    fn sync_range(&self, map: &MmapRaw, offset: usize, len: usize) -> io::Result<()> {
        map.flush_range(offset, len)
    }

    fn page_size(&self) -> usize {
        // SAFETY: takes integers only; _SC_PAGESIZE is always known.
        unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
    }

    #[inline]
    fn now_ms(&self) -> u64 {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `now` is ours; the clock exists on every kernel since 2.6.32, and on failure `now` stays 0.
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &mut now) };
        now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
    }

    fn boot_id(&self) -> io::Result<[u8; 16]> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        u128::from_str_radix(&digits, 16).map(u128::to_be_bytes).map_err(io::Error::other)
    }

    /// The unique id (statx(2), Linux 6.8) is never used again within a boot. Before that the plain mount id (5.8)
    /// stands in, which a later mount may be given again; before that 0, and only the boot id is left to tell.
    fn mount_id(&self, fd: BorrowedFd<'_>) -> io::Result<u64> {
        const MNT_ID: libc::c_uint = 0x1000;
        const MNT_ID_UNIQUE: libc::c_uint = 0x4000;
        let mut stat = MaybeUninit::<libc::statx>::zeroed();
        // SAFETY: the path is an empty NUL-terminated string, `stat` has the size the call fills.
        let stat = unsafe {
            let mask = MNT_ID | MNT_ID_UNIQUE;
            check(libc::statx(fd.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, mask, stat.as_mut_ptr()))?;
            stat.assume_init()
        };
        let known = stat.stx_mask & (MNT_ID | MNT_ID_UNIQUE) != 0;
        Ok(if known { stat.stx_mnt_id } else { 0 })
    }

    fn device(&self, fd: BorrowedFd<'_>) -> io::Result<u64> {
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: `stat` has the size the call fills when it succeeds.
        let stat = unsafe {
            check(libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()))?;
            stat.assume_init()
        };
        Ok(stat.st_dev)
    }

    fn random(&self) -> io::Result<u64> {
        let mut bytes = [0u8; 8];
        // SAFETY: the buffer is ours and as long as the call is told; requests up to 256 bytes are never cut short.
        let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        if n == bytes.len() as isize { Ok(u64::from_ne_bytes(bytes)) } else { Err(io::Error::last_os_error()) }
    }
}
