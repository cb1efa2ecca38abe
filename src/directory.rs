//! The queue's directory: its names, its lock, its small files.

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result, Status};
use crate::log::{self, Level};
use crate::mapped_file::MappedFile;
use crate::meta::Meta;
use crate::options::{MOST_OFFSET, Options};
use crate::os::{FileSystem, Kept, Kind, Lock, MmapRaw, Open, Os, read_all, write_all};
use crate::tail::{Place, Tail};
use parking_lot::Mutex;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

/// A directory, so that RocketMQ's loader passes over it.
const PRIVATE: &str = ".mfq";
const TEMPORARY_SUFFIX: &str = ".tmp";

pub(crate) struct Directory {
    pub os: Arc<dyn Os>,
    pub path: PathBuf,
    queue: Kept,
    private: Kept,
    file_permissions: u32,
    copies_on_write: bool,
    /// Released by the kernel with the process if not before.
    lock: Mutex<Option<Kept>>,
}

/// A data file as the directory lists it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Listed {
    pub start: u64,
    pub len: u64,
}

/// 20 digits, the start offset.
pub(crate) fn file_name(start: u64) -> String {
    format!("{start:020}")
}

fn parse_file_name(name: &OsStr) -> Option<u64> {
    let digits = name.to_str()?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then_some(())?;
    digits.parse().ok().filter(|&start| start <= MOST_OFFSET)
}

/// The data files, in order. Directories are passed over; whatever else a RocketMQ loader would stumble over is
/// refused, by name.
fn list_files(os: &dyn Os, path: &Path, queue: BorrowedFd<'_>) -> Result<Vec<Listed>> {
    let names = os.list(queue).map_err(|cause| Error::system(format_args!("{}: listing", path.display()), cause))?;
    let mut files = Vec::new();
    for name in names {
        let shown = path.join(&name);
        let stat = os.stat(Some(queue), Path::new(&name));
        let stat = stat.map_err(|cause| Error::system(shown.display(), cause))?;
        match (stat.kind, parse_file_name(&name)) {
            (Kind::Directory, _) => {}
            (Kind::File, Some(start)) => files.push(Listed { start, len: stat.len }),
            (Kind::File, None) => return Err(corrupt(&shown, "is not named by an offset of 20 digits")),
            _ => return Err(corrupt(&shown, "is not a regular file")),
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// RocketMQ's loader removes a last file without a byte, and so does recovery.
pub(crate) fn pop_empty_last(listed: &mut Vec<Listed>) -> Option<Listed> {
    listed.pop_if(|last| last.len == 0)
}

/// The files follow one another without a gap, and each has its full length.
pub(crate) fn check_adjacent(path: &Path, file_bytes: u64, listed: &[Listed]) -> Result<()> {
    let name = |file: &Listed| path.join(file_name(file.start));
    for file in listed {
        if file.start % file_bytes != 0 || file.start > MOST_OFFSET - file_bytes {
            return Err(corrupt(&name(file), &format!("its name is no multiple of the file size {file_bytes}")));
        }
        if file.len != file_bytes {
            return Err(corrupt(&name(file), &format!("is {} bytes long, not {file_bytes}", file.len)));
        }
    }
    for pair in listed.windows(2) {
        if pair[0].start + file_bytes != pair[1].start {
            let next = name(&pair[1]);
            return Err(corrupt(&name(&pair[0]), &format!("there is a gap between it and {}", next.display())));
        }
    }
    Ok(())
}

impl Directory {
    /// Opens the directory and takes its lock, before a byte in it is read. A directory that is not there, or is empty,
    /// is made into the beginning of a queue unless the options forbid it.
    pub fn open(os: Arc<dyn Os>, path: &Path, options: &Options) -> Result<Directory> {
        let path = without_trailing_slashes(path);
        let queue = match open_queue_directory(&*os, path) {
            Err(error) if error.status() == Status::NotFound && may_create(options) => {
                // Before anything is made there.
                let parent = open_parent(&*os, path)?;
                file_system(&*os, parent.as_fd(), path, options)?;
                os.make_directory(None, path, options.directory_permissions())
                    .map_err(|cause| Error::system(format_args!("{}: cannot be created", path.display()), cause))?;
                sync_parent(&*os, parent.as_fd(), path)?;
                open_queue_directory(&*os, path)?
            }
            opened => opened?,
        };
        let file_system = file_system(&*os, queue.as_fd(), path, options)?;
        let private_path = path.join(PRIVATE);
        let private = match os.open(Some(queue.as_fd()), Path::new(PRIVATE), Open::Directory) {
            Err(cause) if cause.raw_os_error() == Some(libc::ENOENT) => {
                if options.adopt {
                    let mut listed = list_files(&*os, path, queue.as_fd())?;
                    pop_empty_last(&mut listed);
                    check_adjacent(path, options.file_size, &listed)?;
                } else {
                    refuse_foreign_files(&*os, path, queue.as_fd())?;
                }
                if !may_create(options) {
                    return Err(Error::new(Status::NotFound, format!("{}: there is no queue in it", path.display())));
                }
                make_private(&*os, queue.as_fd(), &private_path, options.directory_permissions())?
            }
            Err(cause) if matches!(cause.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => {
                let message = format!("{}: is not a directory", private_path.display());
                return Err(Error::new(Status::Corrupt, message));
            }
            opened => {
                opened.map_err(|cause| Error::system(format_args!("{}: opening", private_path.display()), cause))?
            }
        };
        let lock = take_lock(&*os, private.as_fd(), &private_path.join("lock"), options)?;
        let copies_on_write = if let FileSystem::CopyOnWrite(name) = file_system {
            let path = path.display();
            log::write(
                Level::Warn,
                format_args!("{path}: on {name}, which copies on write: a full disk can raise SIGBUS"),
            );
            true
        } else {
            false
        };
        let (queue, private, lock) = (queue.into(), private.into(), Mutex::new(Some(lock)));
        Ok(Directory {
            os,
            path: path.into(),
            queue,
            private,
            file_permissions: options.file_permissions(),
            copies_on_write,
            lock,
        })
    }

    /// Lets another open of the queue succeed. Nothing in the directory is touched afterwards.
    pub fn unlock(&self) {
        if let Some(lock) = self.lock.lock().take() {
            // Closing is not enough: a process that the host forks has a copy until it execs, and the lock lives as
            // long as the last one.
            let _ = self.os.lock(lock.as_fd(), Lock::Released);
        }
    }

    /// A data file's path, for messages.
    pub fn name(&self, start: u64) -> String {
        self.path.join(file_name(start)).display().to_string()
    }

    fn private_name(&self, name: &str) -> String {
        self.path.join(PRIVATE).join(name).display().to_string()
    }

    /// The data files, in order.
    pub fn list(&self) -> Result<Vec<Listed>> {
        list_files(&*self.os, &self.path, self.queue.as_fd())
    }

    /// Removes what a crash left of files under construction.
    pub fn remove_temporaries(&self) -> Result<()> {
        let names = self.os.list(self.private.as_fd());
        let names = names.map_err(|cause| Error::system(self.private_name(""), cause))?;
        for name in names.iter().filter(|name| name.as_bytes().ends_with(TEMPORARY_SUFFIX.as_bytes())) {
            let removed = self.os.unlink(self.private.as_fd(), Path::new(name));
            removed.map_err(|cause| Error::system(self.private_name(&name.to_string_lossy()), cause))?;
        }
        Ok(())
    }

    /// A new file of `len` zero bytes, blocks reserved, under a temporary name.
    pub fn create_temporary(&self, start: u64, len: u64) -> Result<OwnedFd> {
        let name = temporary_name(start);
        let system = |cause| Error::system(format_args!("{}: reserving {len} bytes", self.name(start)), cause);
        let create = || {
            let how = Open::CreateNew { permissions: self.file_permissions };
            self.os.open(Some(self.private.as_fd()), Path::new(&name), how)
        };
        let fd = match create() {
            // Left by an earlier attempt whose cleaning up failed too.
            Err(cause) if cause.raw_os_error() == Some(libc::EEXIST) => {
                self.remove_temporary(start);
                create()
            }
            created => created,
        };
        let fd = fd.map_err(system)?;
        self.prefer_in_place(fd.as_fd());
        self.reserve_new(fd.as_fd(), len).map_err(|cause| {
            self.remove_temporary(start);
            system(cause)
        })?;
        Ok(fd)
    }

    /// Reserves the blocks of a data file that may have none; its bytes stay as they are.
    pub fn reserve(&self, start: u64, len: u64) -> Result<()> {
        let fd = self.open_file(start, true)?;
        let allocated = allocate(&*self.os, fd.as_fd(), len);
        allocated.map_err(|cause| Error::system(format_args!("{}: reserving {len} bytes", self.name(start)), cause))
    }

    /// Of an empty file. A file system that cannot does without.
    fn prefer_in_place(&self, fd: BorrowedFd<'_>) {
        if self.copies_on_write {
            let _ = self.os.write_in_place(fd);
        }
    }

    fn reserve_new(&self, fd: BorrowedFd<'_>, len: u64) -> io::Result<()> {
        match allocate(&*self.os, fd, len) {
            Err(cause) if matches!(cause.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                self.fill_with_zeros(fd, len)
            }
            outcome => outcome,
        }
    }

    /// What the file system cannot reserve, writing takes.
    fn fill_with_zeros(&self, fd: BorrowedFd<'_>, len: u64) -> io::Result<()> {
        const STEP_BYTES: usize = 1 << 20;
        let zeros = vec![0; len.min(STEP_BYTES as u64) as usize];
        for at in (0..len).step_by(STEP_BYTES) {
            let step = (len - at).min(STEP_BYTES as u64);
            write_all(&*self.os, fd, &zeros[..step as usize], at)?;
            thread::yield_now(); // to those who append: nobody may be waiting for this file yet
        }
        Ok(())
    }

    /// Nothing depends on its success: the next open removes what stays.
    pub fn remove_temporary(&self, start: u64) {
        let _ = self.os.unlink(self.private.as_fd(), Path::new(&temporary_name(start)));
    }

    /// Gives the temporary file its final name; fails if there is such a file.
    pub fn publish_temporary(&self, start: u64) -> Result<()> {
        let from = temporary_name(start);
        let to = file_name(start);
        let renamed =
            self.os.rename_new((self.private.as_fd(), Path::new(&from)), (self.queue.as_fd(), Path::new(&to)));
        renamed.map_err(|cause| {
            self.remove_temporary(start);
            Error::system(format_args!("{}: renaming into place", self.name(start)), cause)
        })
    }

    pub fn write_temporary(&self, fd: BorrowedFd<'_>, start: u64, bytes: &[u8], at: u64) -> Result<()> {
        let written = write_all(&*self.os, fd, bytes, at);
        written.map_err(|cause| Error::system(format_args!("{}: writing a copy", self.name(start)), cause))
    }

    pub fn sync_temporary(&self, fd: BorrowedFd<'_>, start: u64) -> Result<()> {
        let synced = self.os.sync_data(fd);
        synced.map_err(|cause| Error::system(format_args!("{}: syncing a copy", self.name(start)), cause))
    }

    /// Puts the temporary file in the place of the one that has its name.
    pub fn replace_by_temporary(&self, start: u64) -> Result<()> {
        let from = temporary_name(start);
        let to = file_name(start);
        let renamed = self.os.rename((self.private.as_fd(), Path::new(&from)), (self.queue.as_fd(), Path::new(&to)));
        renamed.map_err(|cause| Error::system(format_args!("{}: replacing", self.name(start)), cause))
    }

    pub fn remove(&self, start: u64) -> Result<()> {
        let removed = self.os.unlink(self.queue.as_fd(), Path::new(&file_name(start)));
        removed.map_err(|cause| Error::system(format_args!("{}: removing", self.name(start)), cause))
    }

    pub fn map(&self, fd: BorrowedFd<'_>, start: u64, len: u64, writable: bool) -> Result<MmapRaw> {
        let mapped = self.os.map(fd, len as usize, writable);
        mapped.map_err(|cause| {
            let limits = match cause.raw_os_error() {
                Some(libc::ENOMEM) => " (memory is short, or vm.max_map_count is reached)",
                _ => "",
            };
            Error::system(format_args!("{}: mapping{limits}", self.name(start)), cause)
        })
    }

    /// Maps copies of its pages: no store reaches the file.
    pub fn map_copy(&self, fd: BorrowedFd<'_>, start: u64, len: u64) -> Result<MmapRaw> {
        let mapped = self.os.map_private(Some(fd), len as usize);
        mapped.map_err(|cause| Error::system(format_args!("{}: mapping", self.name(start)), cause))
    }

    pub fn open_file(&self, start: u64, writable: bool) -> Result<OwnedFd> {
        let how = if writable { Open::ReadWrite } else { Open::Read };
        let opened = self.os.open(Some(self.queue.as_fd()), Path::new(&file_name(start)), how);
        opened.map_err(|cause| Error::system(format_args!("{}: opening", self.name(start)), cause))
    }

    /// Makes the names in it durable.
    pub fn sync(&self) -> Result<()> {
        let synced = self.os.sync_directory(self.queue.as_fd());
        synced.map_err(|cause| Error::system(format_args!("{}: syncing", self.path.display()), cause))
    }

    /// `None` if the queue's creation was not finished.
    pub fn read_meta(&self) -> Result<Option<Meta>> {
        let Some(bytes) = self.read_private("meta", Meta::BYTES)? else { return Ok(None) };
        let named = |e: Error| Error::new(e.status(), format!("{}: {}", self.private_name("meta"), e.message()));
        Meta::decode(&bytes).map(Some).map_err(named)
    }

    /// The last step of creating a queue: it exists once it has a `meta`.
    pub fn write_meta(&self, meta: &Meta) -> Result<()> {
        self.write_private("meta", &meta.encode())?;
        let synced = self.os.sync_directory(self.private.as_fd()).and_then(|()| {
            self.os.sync_directory(self.queue.as_fd()) // for the entry of `.mfq` itself
        });
        synced.map_err(|cause| Error::system(format_args!("{}: syncing", self.private_name("")), cause))
    }

    /// `None` if there is none that is whole.
    pub fn read_checkpoint(&self) -> Result<Option<Checkpoint>> {
        let bytes = self.read_private("checkpoint", Checkpoint::FILE_BYTES)?.unwrap_or_default();
        Ok(Checkpoint::decode(&bytes))
    }

    pub fn no_checkpoint(&self) -> Error {
        corrupt(Path::new(&self.private_name("checkpoint")), "no valid checkpoint in it")
    }

    pub fn create_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let mut file = vec![0; Checkpoint::FILE_BYTES];
        let bytes = checkpoint.encode();
        file[checkpoint.position() as usize..][..bytes.len()].copy_from_slice(&bytes);
        self.write_private("checkpoint", &file)
    }

    /// Durable when it returns.
    pub fn write_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let written =
            self.os.open(Some(self.private.as_fd()), Path::new("checkpoint"), Open::ReadWrite).and_then(|fd| {
                write_all(&*self.os, fd.as_fd(), &checkpoint.encode(), checkpoint.position())?;
                self.os.sync_data(fd.as_fd())
            });
        written.map_err(|cause| Error::system(format_args!("{}: writing", self.private_name("checkpoint")), cause))
    }

    /// Where and how far the last writer got, if that can be told.
    pub fn read_tail(&self) -> Result<Option<(Place, u64)>> {
        Ok(self.read_private("tail", Tail::FILE_BYTES)?.and_then(|page| Tail::decode(&page)))
    }

    /// Durable, so that its page has a block where a power cut leaves the queue on a full disk.
    pub fn create_tail(&self, place: Place, committed: u64) -> Result<()> {
        self.write_private("tail", &Tail::encode(place, committed))
    }

    /// A tail page that begins now. It is overwritten in place, which needs no space, and not synced: it only has to
    /// outlive the process.
    pub fn begin_tail(&self, place: Place, committed: u64) -> Result<OwnedFd> {
        let how = Open::Create { permissions: self.file_permissions };
        let begun = self.os.open(Some(self.private.as_fd()), Path::new("tail"), how).and_then(|fd| {
            write_all(&*self.os, fd.as_fd(), &Tail::encode(place, committed), 0)?;
            Ok(fd)
        });
        begun.map_err(|cause| Error::system(format_args!("{}: beginning", self.private_name("tail")), cause))
    }

    pub fn map_tail(&self, fd: BorrowedFd<'_>) -> Result<Tail> {
        let mapped = self.os.map(fd, Tail::FILE_BYTES, true);
        let mapped =
            mapped.map_err(|cause| Error::system(format_args!("{}: mapping", self.private_name("tail")), cause));
        Ok(Tail::over(MappedFile::new(self.os.clone(), 0, mapped?)))
    }

    /// Where this process sees the directory now.
    pub fn place(&self) -> Result<Place> {
        let place = self.os.boot_id().and_then(|boot_id| {
            let mount_id = self.os.mount_id(self.queue.as_fd())?;
            Ok(Place { boot_id, mount_id })
        });
        place.map_err(|cause| Error::system(format_args!("{}: boot and mount id", self.path.display()), cause))
    }

    /// What it lies on.
    pub fn device(&self) -> Result<u64> {
        let device = self.os.device(self.queue.as_fd());
        device.map_err(|cause| Error::system(format_args!("{}: its device", self.path.display()), cause))
    }

    fn read_private(&self, name: &str, len: usize) -> Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; len];
        let opened = self.os.open(Some(self.private.as_fd()), Path::new(name), Open::Read);
        match opened.and_then(|fd| read_all(&*self.os, fd.as_fd(), &mut bytes, 0)) {
            Ok(n) => {
                bytes.truncate(n);
                Ok(Some(bytes))
            }
            Err(cause) if cause.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(cause) => Err(Error::system(format_args!("{}: reading", self.private_name(name)), cause)),
        }
    }

    /// All or nothing: written aside, synced, renamed.
    fn write_private(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let aside = format!("{name}{TEMPORARY_SUFFIX}");
        let how = Open::Create { permissions: self.file_permissions };
        let written = self.os.open(Some(self.private.as_fd()), Path::new(&aside), how).and_then(|fd| {
            self.prefer_in_place(fd.as_fd());
            write_all(&*self.os, fd.as_fd(), bytes, 0)?;
            self.os.sync_data(fd.as_fd())?;
            self.os.rename((self.private.as_fd(), Path::new(&aside)), (self.private.as_fd(), Path::new(name)))
        });
        written.map_err(|cause| Error::system(format_args!("{}: writing", self.private_name(name)), cause))
    }
}

impl Drop for Directory {
    /// An open that fails lets the lock go, too.
    fn drop(&mut self) {
        self.unlock();
    }
}

fn temporary_name(start: u64) -> String {
    file_name(start) + TEMPORARY_SUFFIX
}

fn may_create(options: &Options) -> bool {
    !options.existing && !options.read_only
}

fn corrupt(path: &Path, what: &str) -> Error {
    Error::new(Status::Corrupt, format!("{}: {what}", path.display()))
}

/// `name/` would follow a symbolic link that `name` does not.
fn without_trailing_slashes(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    let kept = bytes.iter().rposition(|&b| b != b'/').map_or(bytes.len().min(1), |last| last + 1);
    Path::new(OsStr::from_bytes(&bytes[..kept]))
}

fn open_queue_directory(os: &dyn Os, path: &Path) -> Result<OwnedFd> {
    os.open(None, path, Open::Directory).map_err(|cause| {
        let what = match os.stat(None, path).map(|stat| stat.kind) {
            Ok(Kind::Symlink) => "is a symbolic link, which is not followed",
            Ok(Kind::File | Kind::Other) => "is not a directory",
            _ => return Error::system(path.display(), cause),
        };
        Error::new(Status::Invalid, format!("path {}: {what}", path.display()))
    })
}

/// A directory without `.mfq` that holds files was not made by this library.
fn refuse_foreign_files(os: &dyn Os, path: &Path, queue: BorrowedFd<'_>) -> Result<()> {
    let names = os.list(queue).map_err(|cause| Error::system(path.display(), cause))?;
    for name in names {
        let stat = os.stat(Some(queue), Path::new(&name)).map_err(|cause| Error::system(path.display(), cause))?;
        if stat.kind != Kind::Directory {
            return Err(corrupt(&path.join(&name), "is in a directory that is not a queue (it has no .mfq)"));
        }
    }
    Ok(())
}

fn make_private(os: &dyn Os, queue: BorrowedFd<'_>, shown: &Path, permissions: u32) -> Result<OwnedFd> {
    match os.make_directory(Some(queue), Path::new(PRIVATE), permissions) {
        Err(cause) if cause.raw_os_error() != Some(libc::EEXIST) => {
            return Err(Error::system(format_args!("{}: cannot be created", shown.display()), cause));
        }
        _ => {}
    }
    let opened = os.open(Some(queue), Path::new(PRIVATE), Open::Directory);
    opened.map_err(|cause| Error::system(format_args!("{}: opening", shown.display()), cause))
}

/// Never waited for and never stolen: the kernel releases it when its owner dies.
fn take_lock(os: &dyn Os, private: BorrowedFd<'_>, shown: &Path, options: &Options) -> Result<Kept> {
    let name = Path::new("lock");
    let how = if options.read_only { Open::Read } else { Open::ReadWrite };
    let open = || match os.open(Some(private), name, how) {
        Err(cause) if cause.raw_os_error() == Some(libc::ENOENT) && may_create(options) => {
            os.open(Some(private), name, Open::Create { permissions: options.file_permissions() })
        }
        opened => opened,
    };
    let opened = Kept::unshared(open);
    let fd = opened.map_err(|cause| Error::system(format_args!("{}: opening", shown.display()), cause))?;
    let kind = if options.read_only { Lock::Shared } else { Lock::Exclusive };
    match os.lock(fd.as_fd(), kind) {
        Ok(()) => Ok(fd),
        Err(cause) if matches!(cause.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
            let message = format!("{}: the queue is open already, here or in another process", shown.display());
            Err(Error::new(Status::Locked, message))
        }
        Err(cause) => Err(Error::system(format_args!("{}: locking", shown.display()), cause)),
    }
}

fn open_parent(os: &dyn Os, path: &Path) -> Result<OwnedFd> {
    // Through the dot, as the parent itself may be a link, which `Open::Directory` does not follow.
    let opened = os.open(None, &parent(path).join("."), Open::Directory);
    opened.map_err(|cause| Error::system(format_args!("{}: the directory it is to be in", path.display()), cause))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The entry of a new directory is durable only after its parent is synced (open(2), NOTES of fsync(2)).
fn sync_parent(os: &dyn Os, fd: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let synced = os.sync_directory(fd);
    synced.map_err(|cause| Error::system(format_args!("{}: syncing", parent(path).display()), cause))
}

/// The one that the directory is on, if a queue may be.
fn file_system(os: &dyn Os, fd: BorrowedFd<'_>, path: &Path, options: &Options) -> Result<FileSystem> {
    let path = path.display();
    match os.file_system(fd).map_err(|cause| Error::system(format_args!("{path}: its file system"), cause))? {
        FileSystem::Network(name) if !options.network => {
            let message =
                format!("{path}: is on {name}, a network file system, and flags do not have MFQ_OPEN_NETWORK");
            Err(Error::new(Status::Unsupported, message))
        }
        file_system => Ok(file_system),
    }
}

fn allocate(os: &dyn Os, fd: BorrowedFd<'_>, len: u64) -> io::Result<()> {
    loop {
        match os.allocate(fd, len) {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_twenty_digits_up_to_the_last_offset() {
        assert_eq!(parse_file_name(OsStr::new(&file_name(4096))), Some(4096));
        assert_eq!(parse_file_name(OsStr::new("09223372036854775807")), Some(MOST_OFFSET));
        for strange in ["09223372036854775808", "99999999999999999999", "4096", "0000000000000000409x", "", ".mfq"] {
            assert_eq!(parse_file_name(OsStr::new(strange)), None);
        }
    }

    #[test]
    fn trailing_slashes_do_not_count() {
        for (given, kept) in [("/a/b//", "/a/b"), ("a", "a"), ("//", "/"), ("", "")] {
            assert_eq!(without_trailing_slashes(Path::new(given)), Path::new(kept));
        }
    }
}
