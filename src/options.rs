//! What a host chooses when it opens a queue.

use crate::error::{Error, Result, Status};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How bytes lie in the files. Chosen when the queue is created.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u32)]
pub enum Format {
    /// Framed, checked, self-recovering.
    #[default]
    Record = 0,
    /// The host's bytes and nothing else.
    Raw = 1,
}

/// What fills the rest of a RAW file that the next record does not fit in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u32)]
pub enum Filler {
    #[default]
    Zero = 0,
    /// RocketMQ's blank: big-endian length of the rest, then 0xCBD43194. A record fits only where 8 bytes for a blank
    /// would be left behind it.
    RocketMq = 1,
}

/// Where appends store their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Into the shared mapping of the file.
    #[default]
    Mmap,
    /// Into private buffers, written to the file by `pwrite` later: no store goes through a file mapping.
    Staged,
}

/// When data goes to stable storage without being asked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FlushPolicy {
    #[default]
    None,
    /// Every `flush_interval_ms` if `flush_least_pages` wait, and every 10 s whatever waits.
    Interval,
    /// As soon as `flush_least_pages` wait.
    LeastPages,
    /// Before an append returns.
    EveryAppend,
}

/// The host's walker over RAW: told where bytes begin and how many there are, it answers the size of the unit there, 0
/// at the end, less than 0 where the bytes are damaged.
#[derive(Clone)]
pub struct Walk(pub Arc<dyn Fn(*const u8, usize) -> i64 + Send + Sync>);

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Walk")
    }
}

/// Zero means the default everywhere, as in the C interface.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Bytes of each file: a multiple of the page size, at most 2 GiB less a page. 0: 64 MiB for a new queue, what it
    /// has for an old one.
    pub file_size: u64,
    /// Of a new queue; rounded down to a multiple of the file size.
    pub start_offset: u64,
    pub format: Format,
    pub filler: Filler,
    /// How long an append may wait for a file, and under `EveryAppend` then for its sync. 0: 5,000; < 0: for ever.
    pub append_timeout_ms: i32,
    /// Files kept ready ahead of the writer. 0: as many as it fills in a second, at least 2 and at most 8; in STAGED 2.
    pub files_ahead: u32,
    /// Of files, whatever the umask. 0: 0600.
    pub permissions: u32,
    /// Fail where there is no queue yet.
    pub existing: bool,
    pub read_only: bool,
    /// An append never waits for a file: `Timeout` at once.
    pub no_wait: bool,
    pub mode: Mode,
    pub flush_policy: FlushPolicy,
    /// 0: 500.
    pub flush_interval_ms: u32,
    /// 0: 4.
    pub flush_least_pages: u32,
    /// STAGED: private buffers of a file each, at least 2. 0: 5.
    pub pool_buffers: u32,
    /// STAGED: how long an appended record may wait for its commit. 0: 200.
    pub commit_interval_ms: u32,
    /// STAGED: the buffers are locked into memory.
    pub lock_pool: bool,
    /// STAGED: an append that finds no buffer free fails at once, with `Busy`.
    pub pool_fail_fast: bool,
    /// RAW: finds the end after a power cut, and of a directory that is adopted.
    pub walk: Option<Walk>,
    /// RAW: takes over a directory of files that has no `.mfq`.
    pub adopt: bool,
    /// Refuses a queue in which a whole record lies beyond the cut.
    pub strict: bool,
    /// Opens a damaged queue with what can be kept.
    pub salvage: bool,
    /// Allows a network file system.
    pub network: bool,
}

const DEFAULT_FILE_BYTES: u64 = 64 << 20;
pub(crate) const MOST_FILE_BYTES: u64 = 2 << 30; // less a page: a Java view is an `int` long
const MOST_FILES_AHEAD: u32 = 64;
/// Offsets end here, so that they fit a signed 64-bit number in every host.
pub(crate) const MOST_OFFSET: u64 = i64::MAX as u64;

impl Options {
    /// Refuses what makes no sense whatever the directory holds.
    pub(crate) fn check(&self, page_bytes: u64) -> Result<()> {
        let invalid = |message: String| Err(Error::new(Status::Invalid, message));
        if !self.file_size.is_multiple_of(page_bytes) {
            return invalid(format!("file_size {} is not a multiple of the page size {page_bytes}", self.file_size));
        }
        if self.file_size > MOST_FILE_BYTES - page_bytes {
            let most = MOST_FILE_BYTES - page_bytes;
            return invalid(format!("file_size {} is more than {most} (2 GiB less a page)", self.file_size));
        }
        if self.start_offset > MOST_OFFSET {
            return invalid(format!("start_offset {} is more than {MOST_OFFSET}", self.start_offset));
        }
        if self.filler != Filler::Zero && self.format != Format::Raw {
            return invalid("filler is set but format is RECORD, which has no filler".into());
        }
        if self.walk.is_some() && self.format != Format::Raw {
            return invalid("walk is set but format is RECORD, which needs no walker".into());
        }
        if self.adopt && (self.format != Format::Raw || self.file_size == 0) {
            return invalid("flags has MFQ_OPEN_ADOPT, which needs format MFQ_RAW and a file_size".into());
        }
        if self.salvage && (self.strict || self.read_only) {
            let what =
                "flags has MFQ_OPEN_SALVAGE, which goes neither with MFQ_OPEN_STRICT nor with MFQ_OPEN_READ_ONLY";
            return invalid(what.into());
        }
        if self.files_ahead > MOST_FILES_AHEAD {
            return invalid(format!("files_ahead {} is more than {MOST_FILES_AHEAD}", self.files_ahead));
        }
        // A RocketMQ broker recovers from the third-last file on: more empty ones would hide the last with data.
        if self.filler == Filler::RocketMq && self.files_ahead > 2 {
            return invalid(format!(
                "files_ahead {} is more than 2, which RocketMQ's recovery allows",
                self.files_ahead
            ));
        }
        // A roll takes the next file's buffer before it fills the last one.
        if self.is_staged() && self.pool_buffers == 1 {
            return invalid(
                "pool_buffers is 1, and a queue in MFQ_STAGED needs 2 to go from one file to the next".into(),
            );
        }
        for (asked, flag) in [(self.lock_pool, "LOCK_POOL"), (self.pool_fail_fast, "POOL_FAIL_FAST")] {
            if asked && self.mode != Mode::Staged {
                return invalid(format!("flags: MFQ_OPEN_{flag} is for MFQ_STAGED, and mode is MFQ_MMAP"));
            }
        }
        if self.permissions & !0o777 != 0 || (self.permissions != 0 && self.permissions & 0o600 != 0o600) {
            return invalid(format!("permissions {:04o} are not 06xx: the owner reads and writes", self.permissions));
        }
        Ok(())
    }

    /// A queue that is only read has no buffers.
    pub(crate) fn is_staged(&self) -> bool {
        self.mode == Mode::Staged && !self.read_only
    }

    pub(crate) fn pool_buffers(&self) -> u32 {
        if self.pool_buffers == 0 { 5 } else { self.pool_buffers }
    }

    pub(crate) fn commit_interval(&self) -> Duration {
        Duration::from_millis(if self.commit_interval_ms == 0 { 200 } else { self.commit_interval_ms.into() })
    }

    pub(crate) fn new_file_bytes(&self) -> u64 {
        if self.file_size == 0 { DEFAULT_FILE_BYTES } else { self.file_size }
    }

    pub(crate) fn file_permissions(&self) -> u32 {
        if self.permissions == 0 { 0o600 } else { self.permissions }
    }

    /// Whoever may read a file may also enter its directory.
    pub(crate) fn directory_permissions(&self) -> u32 {
        let files = self.file_permissions();
        files | (files & 0o444) >> 2
    }

    /// In `timeout_ms` form.
    pub(crate) fn append_timeout_ms(&self) -> i32 {
        match self {
            Options { no_wait: true, .. } => 0,
            Options { append_timeout_ms: 0, .. } => 5_000, // RocketMQ's limit
            Options { append_timeout_ms, .. } => *append_timeout_ms,
        }
    }

    /// How long an append under `EveryAppend` may wait for its sync, in `timeout_ms` form.
    pub(crate) fn sync_timeout_ms(&self) -> i32 {
        Options { no_wait: false, ..self.clone() }.append_timeout_ms()
    }

    pub(crate) fn flush_interval(&self) -> Duration {
        Duration::from_millis(if self.flush_interval_ms == 0 { 500 } else { self.flush_interval_ms.into() })
    }

    pub(crate) fn flush_least_pages(&self) -> u64 {
        if self.flush_least_pages == 0 { 4 } else { self.flush_least_pages.into() }
    }
}
