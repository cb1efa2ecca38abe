//! STAGED: what was appended goes from private memory to the files, by `pwrite`, at an interval or when somebody asks.
//!
//! The committing thread sleeps while everything is committed; the first append after that wakes it, and it commits an
//! interval later. Whoever waits for a record commits by itself. Commits come one after the other.

use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::event::Event;
use crate::log::{self, Level};
use crate::mapped_file::MappedFile;
use crate::meta::Meta;
use crate::options::Format;
use crate::os::Kept;
use crate::pool::Pool;
use crate::positions::Positions;
use crate::queue_files::QueueFiles;
use crate::record::{CLAIMED, HEADER_BYTES};
use crate::tail::write_committed;
use crate::words::advance_wrote;
use parking_lot::{Mutex, MutexGuard};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct Staging {
    files: Arc<QueueFiles>,
    pool: Arc<Pool>,
    meta: Meta,
    positions: Arc<Positions>,
    moved: Arc<Event>,
    /// RAW: knows `committed` after the death of the process.
    tail: Option<Kept>,
    poison: Box<dyn Fn() + Send + Sync>,
    turn: Mutex<Turn>,
}

/// Held by whoever commits.
struct Turn {
    /// Files below this offset have given their memory back.
    released_to: u64,
    /// A write failed: what the file holds there is not known any more, and nothing is written behind it.
    failed: bool,
}

/// While it lives nobody commits.
pub(crate) struct Held<'s> {
    staging: &'s Staging,
    turn: MutexGuard<'s, Turn>,
}

impl Held<'_> {
    /// RAW: what the tail page says.
    pub fn write_tail(&self, end: u64) -> Result<()> {
        let written = self.staging.write_tail(end);
        written.map_err(|cause| Error::system("the queue's tail file: writing", cause))
    }

    /// The log ends at `end` now, in memory of its own or where a file does.
    pub fn cut(&mut self, end: u64) {
        self.turn.released_to = self.turn.released_to.min(end - end % self.staging.meta.file_bytes);
    }
}

impl Staging {
    /// `poison` is what the first failed write does to the queue.
    pub fn new(
        files: Arc<QueueFiles>,
        pool: Arc<Pool>,
        meta: Meta,
        positions: Arc<Positions>,
        moved: Arc<Event>,
        tail: Option<OwnedFd>,
        poison: Box<dyn Fn() + Send + Sync>,
    ) -> Staging {
        let end = positions.committed();
        let turn = Mutex::new(Turn { released_to: end - end % meta.file_bytes, failed: false });
        Staging { files, pool, meta, positions, moved, tail: tail.map(Kept::from), poison, turn }
    }

    /// Writes everything that is complete to the files. The deadline bounds the wait for another thread's commit, not
    /// the writing: the caller looks at `committed` afterwards. The first failure poisons the queue.
    pub fn commit(&self, deadline: Deadline) -> Result<()> {
        if self.positions.committed() >= self.wrote() {
            return Ok(());
        }
        let turn = match deadline {
            Deadline::Now => self.turn.try_lock(),
            Deadline::At(at) => self.turn.try_lock_until(at),
            Deadline::Never => Some(self.turn.lock()),
        };
        let Some(mut turn) = turn else { return Ok(()) };
        self.write(&mut turn)?;
        self.release(&mut turn);
        Ok(())
    }

    /// For whoever moves the end back: everything is written to the files, so that all but the last one give their
    /// memory back.
    pub fn commit_and_hold(&self) -> Result<Held<'_>> {
        let mut turn = self.turn.lock();
        self.write(&mut turn)?;
        self.release(&mut turn);
        Ok(Held { staging: self, turn })
    }

    /// The same at the end of a close. The memory stays: the host may still write into that of a claim.
    pub fn finish(&self) -> Result<()> {
        self.write(&mut self.turn.lock())
    }

    /// The committing thread's life.
    pub fn run(&self, interval: Duration) {
        let guest = || self.files.table.enter();
        let look = || match self.files.is_closed() {
            true => Err(Error::closed()),
            false => {
                let _guest = guest();
                Ok((self.positions.committed() < self.wrote()).then_some(()))
            }
        };
        while self.moved.wait(Deadline::Never, look).is_ok() {
            self.pool.pause(interval);
            let commit = AssertUnwindSafe(|| {
                let _guest = guest();
                self.commit(Deadline::Never)
            });
            match catch_unwind(commit) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return log::write(Level::Error, format_args!("committing: {error}")),
                Err(_) => {
                    (self.poison)();
                    return log::write(Level::Error, format_args!("committing: a panic, survived"));
                }
            }
        }
    }

    fn wrote(&self) -> u64 {
        advance_wrote(&self.files, &self.meta, &self.positions, u64::MAX)
    }

    /// For the thread whose turn it is.
    fn write(&self, turn: &mut Turn) -> Result<()> {
        let until = self.wrote();
        loop {
            let from = self.positions.committed();
            if from >= until {
                return Ok(());
            }
            if turn.failed {
                return Err(Error::new(Status::Poisoned, "an earlier write to a file failed"));
            }
            let file = self.files.table.find(from).expect("a file below `wrote`");
            let end = until.min(file.end());
            let (at, len) = (from - file.start(), end - from);
            let written = match self.meta.format {
                Format::Record => write_frames(&file, at, len),
                // Before a reader sees it: what was seen as committed is committed after a kill, too.
                Format::Raw => file.write_back(at, len).and_then(|()| self.write_tail(end)),
            };
            written.map_err(|cause| {
                turn.failed = true;
                (self.poison)();
                Error::system(format_args!("{}: writing", self.files.directory.name(file.start())), cause)
            })?;
            self.positions.set_committed(end);
            self.moved.notify();
        }
    }

    /// What a commit could not do at its end, tried again by somebody who needs a buffer. Another one's commit does it,
    /// too.
    pub fn release_again(&self) {
        if let Some(mut turn) = self.turn.try_lock() {
            self.release(&mut turn);
        }
    }

    fn write_tail(&self, end: u64) -> io::Result<()> {
        let tail = self.tail.as_ref().expect("a RAW queue that is written to has a tail page");
        write_committed(&*self.files.directory.os, tail.as_fd(), end)
    }

    /// Files that are full and written give their memory back, in order.
    fn release(&self, turn: &mut Turn) {
        let committed = self.positions.committed();
        // Those that a truncation has removed are gone, memory and all.
        turn.released_to = turn.released_to.max(self.files.table.first().unwrap_or(0));
        while let Some(file) = self.files.table.find_ref(turn.released_to)
            && file.end() <= committed
        {
            if let Err(cause) = file.release() {
                let name = self.files.directory.name(file.start());
                log::write(Level::Warn, format_args!("{name}: mapping it in the place of its buffer: {cause}"));
                return; // the next commit tries again, or who waits for a buffer
            }
            turn.released_to = file.end();
        }
    }
}

/// Writes whole frames so that a kill in between leaves none of them, as a batch is to be found in full or not at all:
/// until its first word is written the stretch looks like one frame that was claimed and never finished.
fn write_frames(file: &MappedFile, at: u64, len: u64) -> io::Result<()> {
    if len < HEADER_BYTES {
        return file.write_back(at, len); // at a file's end, zeros
    }
    const WORD_BYTES: u64 = size_of::<u32>() as u64;
    file.write_to_file(at, &(CLAIMED | len as u32).to_le_bytes())?;
    file.write_back(at + WORD_BYTES, len - WORD_BYTES)?;
    file.write_back(at, WORD_BYTES)
}
