//! The types of the C surface. The comments of this file are the header's.

use super::constants::MFQ_CREATION_BUCKETS;
use std::ffi::{c_char, c_void};

/// MFQ_OK or a negative MFQ_E_...: test for `< 0`.
pub type mfq_status_t = i32;

/// An open queue. Share it between threads freely; one open is enough for all of them. From mfq_open to mfq_close.
pub struct mfq_queue_t {
    _private: [u8; 0],
}

/// One file of a queue, held: it stays mapped and readable until mfq_file_release, even if the queue is closed before.
/// Share it between threads freely.
pub struct mfq_file_t {
    _private: [u8; 0],
}

/// A forward reader, with a position of its own. Use it from one thread at a time (mfq_reader_close excepted): a second
/// one is told MFQ_E_BUSY. From mfq_reader_open to mfq_reader_close.
pub struct mfq_reader_t {
    _private: [u8; 0],
}

/// Where a record lies: the bytes [offset, end) of the queue. In RECORD that includes its header and the gap to the
/// next multiple of 8, so `end` is where the next record can begin; in RAW it is the host's bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mfq_span_t {
    pub offset: u64,
    pub end: u64,
}

/// Some bytes. As an argument the host's, and `ptr` may be NULL if `len` is 0; from mfq_file_memory a file's.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mfq_slice_t {
    pub ptr: *const c_void,
    pub len: usize,
}

/// Memory to write a record into, given by mfq_claim. It stays writable until mfq_commit or mfq_abort, even if the
/// queue is closed before. May be copied and handed to another thread, but it is one claim: the first commit or abort
/// counts.
#[repr(C)]
pub struct mfq_claim_t {
    /// `len` bytes, not zeroed.
    pub ptr: *mut u8,
    pub len: usize,
    /// Where the record will be.
    pub offset: u64,
    /// The library's own; leave it as it is.
    pub token: [u64; 2],
}

/// A record (in RAW: a stretch of bytes) that is read in place, not copied.
#[repr(C)]
pub struct mfq_view_t {
    pub ptr: *const u8,
    pub len: usize,
    /// Where the record begins; not before the offset that was asked for.
    pub offset: u64,
    /// Where to read next.
    pub end: u64,
    /// When it was appended, in milliseconds since 1970; 0 in RAW.
    pub time_ms: i64,
    /// The library's own; leave it as it is.
    pub token: [u64; 2],
}

/// Receives one message of the library; see mfq_set_log. `message` ends with NUL and is valid during the call only.
pub type mfq_log_fn_t = Option<unsafe extern "C" fn(context: *mut c_void, level: i32, message: *const c_char)>;

/// Tells the size of the unit that begins at `bytes`, of which `available` bytes (to the end of the file) can be read:
/// its size if > 0; 0 there is none, the data ends here; < 0 it is damaged, which ends the data too. More than
/// `available` counts as damaged. Called by mfq_open, in its thread; it must not call the library (MFQ_E_REENTRANT), nor
/// write.
pub type mfq_walk_fn_t = Option<unsafe extern "C" fn(context: *mut c_void, bytes: *const u8, available: usize) -> i64>;

/// What mfq_open can be told; fill it by mfq_options_init, then set what differs from the default. Zero always means
/// the default. More fields may follow in later versions.
#[repr(C)]
pub struct mfq_options_t {
    /// sizeof(mfq_options_t) of the host; set by mfq_options_init.
    pub struct_size: usize,
    /// Bytes of one file, from a page to 2 GiB less a page, a multiple of the page size. 0: 64 MiB for a new queue,
    /// what it has for an old one. Another size than an old queue has is MFQ_E_INVALID.
    pub file_size: u64,
    /// Of a new queue: where its first file begins, at most INT64_MAX; rounded down to a multiple of the file size. Not
    /// used for an old one.
    pub start_offset: u64,
    /// MFQ_RECORD or MFQ_RAW. An old queue must have been created with the same.
    pub format: u32,
    /// In RAW, what fills the rest of a full file: MFQ_FILLER_ZERO or MFQ_FILLER_ROCKETMQ. An old queue must have been
    /// created with the same.
    pub filler: u32,
    /// MFQ_MMAP or MFQ_STAGED. Not a property of the queue: each open chooses.
    pub mode: u32,
    /// MFQ_FLUSH_NONE, MFQ_FLUSH_INTERVAL, MFQ_FLUSH_LEAST_PAGES or MFQ_FLUSH_EVERY_APPEND. Files are of huge pages,
    /// where the file system has them, under the first two only: a sync of one writes 2 MiB where 4 KiB would do.
    pub flush_policy: u32,
    /// MFQ_FLUSH_INTERVAL: 0 means 500. Negative is MFQ_E_INVALID.
    pub flush_interval_ms: i32,
    /// MFQ_FLUSH_INTERVAL and MFQ_FLUSH_LEAST_PAGES: how many pages have to wait; 0 means 4.
    pub flush_least_pages: u32,
    /// How long an append may wait for a file, and under MFQ_FLUSH_EVERY_APPEND then for its sync: 0 means 5000, < 0
    /// for ever.
    pub append_timeout_ms: i32,
    /// How many files are kept ready ahead of the writer, at most 64; with MFQ_FILLER_ROCKETMQ at most 2. 0 means as
    /// many as the writer fills in a second, at least 2 and at most 8; with that filler, and in MFQ_STAGED, 2.
    pub files_ahead: u32,
    /// MFQ_STAGED: how many buffers there are, of a file's size each; 0 means 5, 1 is MFQ_E_INVALID. A file has one
    /// from when it is asked for, ahead of the writer, until it is full and committed; an open claim keeps that of its
    /// file and all behind it.
    pub pool_buffers: u32,
    /// MFQ_STAGED: how long a record may wait for its commit; 0 means 200. Negative is MFQ_E_INVALID.
    pub commit_interval_ms: i32,
    /// Of files that are created, as in chmod, whatever the umask: 0 means 0600. The owner has to be able to read
    /// and write (06xx), and there are no bits above 0777.
    pub permissions: u32,
    /// MFQ_OPEN_..., added up. Unknown bits are MFQ_E_INVALID.
    pub flags: u32,
    /// RAW: finds the end of the data after a power cut, from the last durable offset on that mfq_open knows, and that
    /// of a directory that is adopted; mfq_walk_rocketmq is one. With MFQ_FILLER_ZERO the data goes on behind zeros
    /// that fill a file if the next one begins with a unit. NULL: the data ends behind the last byte that is not zero.
    pub walk: mfq_walk_fn_t,
    /// Handed to `walk`.
    pub walk_context: *mut c_void,
}

/// What mfq_file_info tells.
#[repr(C)]
pub struct mfq_file_info_t {
    /// sizeof(mfq_file_info_t), set by the host before the call.
    pub struct_size: usize,
    /// The queue's offset of the file's first byte.
    pub start: u64,
    /// Bytes of the file.
    pub size: u64,
    /// How far the file is written without a hole: bytes from its start, 0 to `size`.
    pub wrote: u64,
    /// How far it can be read: bytes from its start, not more than `wrote`.
    pub committed: u64,
    /// How far it is on stable storage: bytes from its start, not more than `committed`.
    pub flushed: u64,
    /// Where the file is mapped, for reading, until mfq_file_release.
    pub base: *const u8,
}

/// What mfq_offsets tells: flushed <= committed <= wrote <= reserved, each the end of what it names; they only grow,
/// but for mfq_truncate_after.
#[repr(C)]
pub struct mfq_offsets_t {
    /// sizeof(mfq_offsets_t), set by the host before the call.
    pub struct_size: usize,
    /// The first offset kept.
    pub min: u64,
    /// Given to writers.
    pub reserved: u64,
    /// Complete, without a hole.
    pub wrote: u64,
    /// Readable.
    pub committed: u64,
    /// On stable storage.
    pub flushed: u64,
}

/// What mfq_recovery tells: what mfq_open found. The lost is 0 without MFQ_OPEN_SALVAGE, as damage is MFQ_E_CORRUPT
/// then.
#[repr(C)]
pub struct mfq_recovery_t {
    /// sizeof(mfq_recovery_t), set by the host before the call.
    pub struct_size: usize,
    /// How the queue had been left: MFQ_ENDED_...
    pub ended: u32,
    /// In how many stretches lost_bytes lie.
    pub lost_stretches: u32,
    /// Where the log ended, and went on.
    pub cut_at: u64,
    /// From there to the last byte that was not zero, in each file: bytes that were cut (under MFQ_OPEN_READ_ONLY: that
    /// are passed over).
    pub cut_bytes: u64,
    /// Everything below is as it was written: its checksums were right, the walker or the last process said so, or it
    /// was durable. Less than cut_at only in RAW after a power cut, or if adopted, without `walk`.
    pub verified_to: u64,
    /// cut_at - verified_to.
    pub unverified_bytes: u64,
    /// Claims that nobody had committed or aborted when the process ended: they are padding now.
    pub claims_passed_over: u64,
    /// RECORD: offset of the first whole record behind cut_at, which was cut too; UINT64_MAX if there was none. It had
    /// not been flushed, and what had been appended before it is lost.
    pub record_beyond: u64,
    /// MFQ_OPEN_SALVAGE: bytes below the durable offset that were damaged, and are padding now or behind the end.
    pub lost_bytes: u64,
    /// Where the first of them lies; UINT64_MAX if there are none.
    pub first_lost: u64,
}

/// What mfq_stats tells, counted since the queue was opened where nothing else is said.
#[repr(C)]
pub struct mfq_stats_t {
    /// sizeof(mfq_stats_t), set by the host before the call.
    pub struct_size: usize,
    /// Records appended and readable.
    pub appends: u64,
    /// Their bytes, without headers and padding.
    pub bytes: u64,
    /// Rolls into the next file that found it ready.
    pub rolls_ready: u64,
    /// Rolls that had to wait for it.
    pub rolls_waited: u64,
    /// Rolls that waited in vain: an append or a get-last answered MFQ_E_TIMEOUT.
    pub rolls_timed_out: u64,
    /// Files created.
    pub files_created: u64,
    /// Those that took longer than 10 ms.
    pub slow_creations: u64,
    /// Attempts to create a file that failed.
    pub failed_creations: u64,
    /// Requests for a file that were withdrawn before anybody worked on them; of all queues of the process, since its
    /// first mfq_open.
    pub expired_requests: u64,
    /// Requests for a file that were replaced by a newer one for the same file; of all queues of the process, since its
    /// first mfq_open.
    pub superseded_requests: u64,
    /// Files that a waiting writer created by itself, because the allocation thread was busy elsewhere.
    pub self_served_creations: u64,
    /// Claims that are neither committed nor aborted now. Nothing beyond the oldest becomes readable.
    pub open_claims: u64,
    /// Where the oldest one lies; 0 if there is none.
    pub oldest_claim_offset: u64,
    /// How long it has been open, in milliseconds; 0 if there is none.
    pub oldest_claim_age_ms: u64,
    /// The offset up to which pages are ready in memory ahead of the writer, but for what a fast one readies by itself.
    pub prefaulted_to: u64,
    /// How long creations took: [i] counts those that took less than 2^i microseconds and not less than 2^(i-1), the
    /// last one all that took longer.
    pub creation_us: [u64; MFQ_CREATION_BUCKETS],
    /// MFQ_STAGED: how often an append or a get-last found no buffer free for the next file.
    pub pool_waits: u64,
    /// MFQ_STAGED: how often one failed for that reason: at once (MFQ_OPEN_POOL_FAIL_FAST), or because none came in
    /// time.
    pub pool_refusals: u64,
    /// MFQ_STAGED: buffers that are free now: neither held by a file nor promised to one that is asked for.
    pub pool_free: u64,
}
