//! The numbers of the C surface. The comments of this file are the header's.

/// Grows when a host has to be compiled again; mfq_abi_version() answers the library's.
pub const MFQ_ABI_VERSION: u32 = 1;

/// ---- STATUS ----------------------------------------------------------------------------------------
///
/// Done; every output is written.
pub const MFQ_OK: i32 = 0;
/// An argument makes no sense; mfq_last_error names it.
pub const MFQ_E_INVALID: i32 = -1;
/// The time given was not enough. Nothing was done, and nothing is broken: the call can be made again.
pub const MFQ_E_TIMEOUT: i32 = -2;
/// There is no record at this offset yet: it is the end of the queue or lies beyond it. Or what was waited for was cut
/// off by mfq_truncate_after.
pub const MFQ_E_END: i32 = -3;
/// What was asked for is not there: no such queue, or an offset before the first one kept.
pub const MFQ_E_NOT_FOUND: i32 = -4;
/// It does not fit: a record into a file, a batch into one file, a record into the buffer given.
pub const MFQ_E_TOO_LARGE: i32 = -5;
/// No space on the device, or a quota or file size limit is reached. Once there is space again, the next call succeeds.
pub const MFQ_E_NO_SPACE: i32 = -6;
/// No memory, no address space, or too many handles.
pub const MFQ_E_NO_MEMORY: i32 = -7;
/// A system call failed; mfq_last_errno tells how.
pub const MFQ_E_IO: i32 = -8;
/// The bytes on disk are not what was written, or the offset is not the start of a record; mfq_last_error names the
/// place.
pub const MFQ_E_CORRUPT: i32 = -9;
/// The queue is open already, here or in another process.
pub const MFQ_E_LOCKED: i32 = -10;
/// The handle was closed or released, or it was while this call ran.
pub const MFQ_E_CLOSED: i32 = -11;
/// Somebody else is using it in a way that excludes this call; try again when they are done.
pub const MFQ_E_BUSY: i32 = -12;
/// The queue was opened with MFQ_OPEN_READ_ONLY.
pub const MFQ_E_READ_ONLY: i32 = -13;
/// The queue on disk was written by a newer library.
pub const MFQ_E_VERSION: i32 = -14;
/// A known option or call that this mode, kernel or file system cannot serve.
pub const MFQ_E_UNSUPPORTED: i32 = -15;
/// Appended, but not known to be on stable storage. A host that blindly appends again writes twice.
pub const MFQ_E_NOT_DURABLE: i32 = -16;
/// An earlier failure made the queue's state on disk uncertain. Close it and open it again.
pub const MFQ_E_POISONED: i32 = -17;
/// A fault inside the library, caught before it reached the host. The queue of the call is poisoned: what can be read
/// still can, and who waits for more comes out with MFQ_E_POISONED. Please report it with the text of mfq_last_error.
pub const MFQ_E_PANIC: i32 = -18;
/// The call was made in a forked child of the process that opened queues. Nothing was done, and the parent is not
/// disturbed.
pub const MFQ_E_FORKED: i32 = -19;
/// The call was made from inside a callback.
pub const MFQ_E_REENTRANT: i32 = -20;

/// ---- OPTIONS OF mfq_open ---------------------------------------------------------------------------
///
/// format: framed records, each with its length, checksum and time. Found again after a crash by themselves.
pub const MFQ_RECORD: u32 = 0;
/// format: the host's bytes and nothing else.
pub const MFQ_RAW: u32 = 1;

/// filler (RAW): the rest of a full file is zeros.
pub const MFQ_FILLER_ZERO: u32 = 0;
/// filler (RAW): the rest of a full file begins with RocketMQ's blank message: its length in 4 big-endian bytes, then
/// 0xCBD43194. A message then fits into a file only if its length + 8 is not more than what remains.
pub const MFQ_FILLER_ROCKETMQ: u32 = 1;

/// mode: appends store into the shared mapping of the file.
pub const MFQ_MMAP: u32 = 0;
/// mode: appends store into private memory, a buffer of a file's size out of a pool, and what is complete is written to
/// the file every commit_interval_ms, or at once when somebody waits for it: mfq_wait for MFQ_COMMITTED,
/// mfq_reader_next with a timeout_ms, mfq_flush, mfq_close. A record can be read once it is committed. No store goes
/// through a mapping of a file, so a failing device is an error and no signal on append: the first write that fails
/// poisons the queue.
///
/// What is not committed is lost when the process dies: at most the appends of one interval, and of the time a write
/// takes. Everything committed survives the process as in MFQ_MMAP. A queue can be opened in one mode today, in the
/// other tomorrow.
pub const MFQ_STAGED: u32 = 1;

/// flush_policy: only mfq_flush, mfq_flush_start and mfq_close bring data to stable storage (the kernel does so too, in
/// its own time, but nobody is told).
pub const MFQ_FLUSH_NONE: u32 = 0;
/// flush_policy: a thread of the library flushes each flush_interval_ms, if flush_least_pages pages wait; whatever
/// waits, it flushes 10 seconds after the first byte of it.
pub const MFQ_FLUSH_INTERVAL: u32 = 1;
/// flush_policy: a thread of the library flushes as soon as flush_least_pages pages wait. Fewer wait until more come.
pub const MFQ_FLUSH_LEAST_PAGES: u32 = 2;
/// flush_policy: an append and a commit return after their record is on stable storage. Threads that append at once
/// share their syncs.
pub const MFQ_FLUSH_EVERY_APPEND: u32 = 3;

/// flags: do not create; MFQ_E_NOT_FOUND if there is no queue.
pub const MFQ_OPEN_EXISTING: u32 = 1;
/// flags: write nothing, not even a lock file. Shares the queue with other read-only opens, but not with a writer.
pub const MFQ_OPEN_READ_ONLY: u32 = 2;
/// flags: an append that finds no file ready answers MFQ_E_TIMEOUT at once, or why the file could not be created;
/// append_timeout_ms is not used for it.
pub const MFQ_OPEN_NO_WAIT: u32 = 4;
/// flags (MFQ_RAW, with a file_size): a directory of data files without `.mfq`, such as a RocketMQ commit log, becomes
/// a queue. Its files have to be as a queue's are: named by their offsets, adjacent, each of file_size bytes; a last
/// one without a byte is removed. It ends where `walk` says, walked from the last two files with data on (MFQ_E_CORRUPT
/// if no unit is there), or without `walk` behind the last byte that is not zero, unverified. What follows is zeroed,
/// files behind it are removed, and the blocks of the last one are reserved; all else stays as it is, and RocketMQ can
/// go back to it. A queue with `.mfq` opens as without this flag.
pub const MFQ_OPEN_ADOPT: u32 = 8;
/// flags: MFQ_E_CORRUPT, and nothing changed on disk, if there is a whole record behind the place where the log ends
/// (see mfq_recovery_t.record_beyond): a part of the log that was not durable is lost, but not its end. MFQ_RAW has no
/// such records.
pub const MFQ_OPEN_STRICT: u32 = 16;
/// flags: open a damaged queue with what can be kept, and say in mfq_recovery what could not. MFQ_RECORD: everything is
/// read from the first file on, damaged stretches become padding up to the next whole record, a checkpoint that is
/// damaged or missing is made anew, and where durable records are missing at the end the queue ends earlier. MFQ_RAW:
/// the checkpoint is, and the end may come earlier; nothing else can be verified. A file missing before others stays
/// MFQ_E_CORRUPT. Not with MFQ_OPEN_STRICT or MFQ_OPEN_READ_ONLY.
pub const MFQ_OPEN_SALVAGE: u32 = 32;
/// flags (MFQ_STAGED): the buffers are locked into memory; MFQ_E_NO_MEMORY from mfq_open if all of them together cannot
/// be (RLIMIT_MEMLOCK). In MFQ_MMAP it is MFQ_E_INVALID.
pub const MFQ_OPEN_LOCK_POOL: u32 = 64;
/// flags (MFQ_STAGED): an append that needs a new file and finds no buffer free for it answers MFQ_E_BUSY at once, and
/// asks for a commit, which frees those of full files. Otherwise it asks and waits, at most append_timeout_ms. In
/// MFQ_MMAP it is MFQ_E_INVALID.
pub const MFQ_OPEN_POOL_FAIL_FAST: u32 = 128;
/// flags: allow a network file system, which is MFQ_E_UNSUPPORTED without it: a mapping does not see what another
/// machine writes, a lock may not keep it out, and a server that is gone raises SIGBUS.
pub const MFQ_OPEN_NETWORK: u32 = 256;

/// ---- OTHER NUMBERS ---------------------------------------------------------------------------------
///
/// mfq_wait: until the records below the offset can be read.
pub const MFQ_COMMITTED: i32 = 0;
/// mfq_wait: until the records below the offset are on stable storage.
pub const MFQ_FLUSHED: i32 = 1;

/// mfq_recovery: the queue was created.
pub const MFQ_ENDED_CREATED: u32 = 0;
/// mfq_recovery: it had been closed.
pub const MFQ_ENDED_CLEAN: u32 = 1;
/// mfq_recovery: its process had ended without closing it; what that had stored was still there.
pub const MFQ_ENDED_PROCESS_DEATH: u32 = 2;
/// mfq_recovery: the machine had stopped, or the file system was mounted anew: what was not flushed may be lost.
pub const MFQ_ENDED_POWER_CUT: u32 = 3;
/// mfq_recovery: not known, it was adopted (MFQ_OPEN_ADOPT).
pub const MFQ_ENDED_ADOPTED: u32 = 4;

/// mfq_set_log: something failed, and the host should know.
pub const MFQ_LOG_ERROR: i32 = 1;
/// mfq_set_log: something is slow or strange.
pub const MFQ_LOG_WARN: i32 = 2;
/// mfq_set_log: recovered; an attempt to create a file that failed.
pub const MFQ_LOG_INFO: i32 = 3;
/// mfq_set_log: each file.
pub const MFQ_LOG_DEBUG: i32 = 4;

/// How many buckets mfq_stats_t.creation_us has.
pub const MFQ_CREATION_BUCKETS: usize = 24;
