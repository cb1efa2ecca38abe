//! One queue's files as the allocation service sees them: where they are made, which there are, which are durable.

use crate::directory::Directory;
use crate::error::{Error, Result, Status};
use crate::file_table::FileTable;
use crate::flush_service::FlushService;
use crate::log::{self, Level};
use crate::mapped_file::MappedFile;
use crate::pool::{Pool, none_free};
use crate::prefault::Prefault;
use crate::stats::Counters;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Of so many new files it is remembered that they want a sync, where a writer outruns the disk.
const MOST_UNSYNCED: usize = 64;

pub(crate) struct QueueFiles {
    /// Different for each open: requests of a queue closed and opened again are not mistaken for one another.
    pub generation: u64,
    pub directory: Directory,
    pub table: FileTable,
    /// STAGED: where appends store.
    pub pool: Option<Arc<Pool>>,
    pub counters: Counters,
    pub prefault: Prefault,
    /// The queue is closing: no file is handed out any more.
    closed: AtomicBool,
    /// Of its device; none where nothing is written.
    pub flush_service: Option<Arc<FlushService>>,
    /// Its end is moved back at this moment: no file is made ahead of it.
    end_moves: AtomicBool,
    /// New files that nothing has made durable yet, in order.
    unsynced: Mutex<VecDeque<Arc<MappedFile>>>,
    /// Held from a sync by descriptor until its failure is told: another descriptor, opened meanwhile, would not be.
    by_descriptor: Mutex<()>,
    /// Something about this queue's requests changed; goes with the service's table.
    pub changed: Condvar,
}

impl QueueFiles {
    pub fn new(
        directory: Directory,
        table: FileTable,
        pool: Option<Arc<Pool>>,
        prefault: Prefault,
        flush_service: Option<Arc<FlushService>>,
    ) -> QueueFiles {
        static GENERATION: AtomicU64 = AtomicU64::new(1);
        QueueFiles {
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
            directory,
            table,
            pool,
            counters: Counters::default(),
            prefault,
            closed: AtomicBool::new(false),
            flush_service,
            end_moves: AtomicBool::new(false),
            unsynced: Mutex::default(),
            by_descriptor: Mutex::new(()),
            changed: Condvar::new(),
        }
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub fn set_closed(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub fn end_moves(&self) -> bool {
        self.end_moves.load(Ordering::Acquire)
    }

    pub fn begin_to_move_end(&self) {
        self.end_moves.store(true, Ordering::Release);
    }

    /// The writer is at `end` now, with nothing made ahead of it.
    pub fn end_moved(&self, end: u64) {
        self.prefault.end_moved(end);
        self.end_moves.store(false, Ordering::Release);
    }

    /// A file like `old` up to position `len`, and zeros behind, durable under a temporary name. It is written through
    /// its descriptor: on a full disk that is an error. `Busy` if it is to store into a buffer and none is free.
    pub fn copy_beginning(&self, old: &MappedFile, len: u64) -> Result<Arc<MappedFile>> {
        let start = old.start();
        let buffer = self.pool.as_ref().map(|pool| pool.take().ok_or_else(none_free)).transpose()?;
        let fd = self.directory.create_temporary(start, old.size())?;
        let mut at = 0;
        let mut copied = Ok(());
        old.read_pieces(0, len as usize, |piece| {
            if copied.is_ok() {
                copied = self.directory.write_temporary(fd.as_fd(), start, piece, at);
                at += piece.len() as u64;
            }
        });
        let mapped = copied.and_then(|()| {
            self.directory.sync_temporary(fd.as_fd(), start)?;
            match &self.pool {
                None => {
                    let map = self.directory.map(fd.as_fd(), start, old.size(), true)?;
                    Ok(MappedFile::new(self.directory.os.clone(), start, map))
                }
                Some(pool) => stage(&self.directory, pool, start, old.size(), fd, len),
            }
        });
        let file = Arc::new(mapped.inspect_err(|_| self.directory.remove_temporary(start))?);
        self.prefault.expect_writer(&file, len);
        file.hold_buffer(buffer);
        Ok(file)
    }

    /// Makes the file at `start`: under a temporary name, blocks reserved, mapped, renamed. Nothing can fail once it
    /// has its name, and `wanted` is asked right before, so that a file withdrawn meanwhile never gets one.
    pub fn create(&self, start: u64, wanted: impl Fn() -> bool) -> Result<Arc<MappedFile>> {
        let len = self.table.file_bytes();
        let fd = self.directory.create_temporary(start, len)?;
        let map = match &self.pool {
            None => self.directory.map(fd.as_fd(), start, len, true),
            Some(pool) => pool.memory(&*self.directory.os, &self.directory.name(start), len),
        };
        let map = map.inspect_err(|_| self.directory.remove_temporary(start))?;
        if !wanted() {
            self.directory.remove_temporary(start);
            return Err(Error::closed());
        }
        let os = self.directory.os.clone();
        let file = Arc::new(match self.pool {
            None => MappedFile::new(os, start, map),
            Some(_) => MappedFile::staged(os, start, map, fd),
        });
        self.prefault.expect_writer(&file, 0);
        self.directory.publish_temporary(start)?;
        Ok(file)
    }

    /// Puts `[at, at + len)` of a file on stable storage; in STAGED, everything that was written to it.
    pub fn sync(&self, file: &MappedFile, at: u64, len: u64) -> Result<()> {
        let synced = match self.pool {
            None => file.sync(at, len),
            // Opened again, as a descriptor per file that is not flushed might be too many. An error that nobody was
            // told of yet is told to whoever opens the file next (fsync(2)); the other one who may be is
            // `make_next_durable`.
            Some(_) => {
                let _after = self.by_descriptor.lock();
                let fd = self.directory.open_file(file.start(), true)?;
                self.directory.os.sync_data(fd.as_fd())
            }
        };
        synced.map_err(|cause| self.sync_failed(file, cause))
    }

    fn sync_failed(&self, file: &MappedFile, cause: io::Error) -> Error {
        let name = self.directory.name(file.start());
        Error::system(format_args!("{name}: syncing"), cause).with_status(Status::Io)
    }

    /// A new file is to be made durable: `ask_for_syncs` has the flush thread do it.
    pub fn remember_new(&self, file: Arc<MappedFile>) {
        let mut unsynced = self.unsynced.lock();
        unsynced.push_back(file);
        if unsynced.len() > MOST_UNSYNCED {
            unsynced.pop_front(); // a flush makes up for it
        }
    }

    pub fn ask_for_syncs(&self) {
        let service = self.flush_service.as_ref().expect("only a writer makes files");
        if let Err(error) = service.ask(self.generation) {
            log::write(Level::Warn, format_args!("making new files durable: {error}"));
        }
    }

    /// Nothing is done any more to the new files that are `gone`.
    pub fn forget_new(&self, gone: impl Fn(&MappedFile) -> bool) {
        self.unsynced.lock().retain(|file| !gone(file));
        drop(self.by_descriptor.lock()); // it may be one of them that is synced just now
    }

    /// Makes the blocks and the name of the next new file durable; false if there is none. A failed sync is told to
    /// `failed` before another descriptor of the file is opened, which would not be told.
    pub fn make_next_durable(&self, failed: impl FnOnce()) -> Result<bool> {
        let _until_told = self.by_descriptor.lock();
        let Some(file) = self.unsynced.lock().pop_front() else { return Ok(false) };
        if file.entry_durable() {
            return Ok(true);
        }
        // Opened again: the kernel tells a failed write-back once to each open description (fsync(2)), and that of the
        // mapping is to hear of it at its own sync.
        let fd = self.directory.open_file(file.start(), true)?;
        let synced = catch_unwind(AssertUnwindSafe(|| {
            self.directory.os.sync_data(fd.as_fd()).map_err(|cause| self.sync_failed(&file, cause))?;
            self.directory.sync()
        }));
        if !matches!(synced, Ok(Ok(()))) {
            failed();
        }
        synced.unwrap_or_else(|panic| resume_unwind(panic))?;
        file.set_entry_durable();
        Ok(true)
    }
}

/// STAGED: a buffer for the file `fd` of `len` bytes, with the first `used` of them in it.
pub(crate) fn stage(
    directory: &Directory,
    pool: &Pool,
    start: u64,
    len: u64,
    fd: OwnedFd,
    used: u64,
) -> Result<MappedFile> {
    let map = pool.memory(&*directory.os, &directory.name(start), len)?;
    let staged = MappedFile::staged_over(directory.os.clone(), start, map, fd, used);
    staged.map_err(|cause| Error::system(format_args!("{}: reading its last page", directory.name(start)), cause))
}
