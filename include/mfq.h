/*
 * mfq.h: libmfq, a queue of memory-mapped files.
 *
 * A queue is a directory of files of one size. A host appends records at its end, from as many threads as it likes,
 * and reads them anywhere, in place or as a copy. The next file is usually prepared ahead of the writer, by a thread
 * of the library, so that an append is a copy into memory and seldom anything else.
 *
 *     mfq_queue_t *q;
 *     mfq_span_t at;
 *     if (mfq_open("/var/lib/orders", NULL, &q) < 0) return 1;
 *     mfq_append(q, msg, len, &at);
 *     mfq_flush(q, at.end, 1000);
 *     mfq_close(q);
 *
 * An OFFSET is a byte position in the whole queue; it never changes, and is used again only behind mfq_truncate_after.
 * Four of them tell how far the queue is (see mfq_offsets): reserved (given to writers), wrote (complete, without a
 * hole), committed (readable) and flushed (on stable storage).
 *
 * WHAT A RETURN PROMISES
 *
 *   An append that returned MFQ_OK survives the death of the process, kill -9 included: it is there when the queue is
 *   opened again on the same boot through the same mount. (In MFQ_STAGED that holds once it is committed: see there.)
 *   It survives a power cut once `flushed` has reached its end (see mfq_flush and flush_policy), or mfq_close has
 *   returned MFQ_OK. An append that returned anything else, but for MFQ_E_NOT_DURABLE, did not happen.
 *
 * CAVEATS
 *
 *   Threads. Every function can be called from any thread at any time unless its comment says otherwise. The library
 *   runs one thread of its own, from the first mfq_open to the last mfq_close, one for each device that it flushes by
 *   itself, and one for each queue that is open in MFQ_STAGED; asynchronous signals are blocked in them.
 *
 *   Fork. Once a process has called mfq_open, every function that takes a handle, opens one or changes a setting
 *   answers MFQ_E_FORKED in its forked children, at once and without a lock; the parent goes on. The child's copies of
 *   the descriptors are closed in it, so that a queue's lock ends with its owner (not in a child made by clone(2)
 *   itself, which the C library does not hear of). Views and files held at the fork can be read in the child. Fork and
 *   exec is fine.
 *
 *   Blocking. A function with a timeout_ms waits at most so long. An append waits for a file at most append_timeout_ms
 *   of the options. What a call does itself comes on top, and takes as long as the disk takes: mfq_open, mfq_close, a
 *   truncation, the sync of mfq_flush, the writing that a waiting call does in MFQ_STAGED, and a file that a waiting
 *   append or mfq_get_last makes because the library's thread is busy. While mfq_truncate_after is at work other calls
 *   wait for it (see there). And any access to a mapping, an append or the reading of a view, may fault a page and wait
 *   for the disk.
 *
 *   Signals. The library installs no handler and changes no disposition but in mfq_install_sigbus_guard. No function is
 *   async-signal-safe, and none may be left by longjmp.
 *
 *   Process exit. Nothing runs at exit. A queue that is still open is found as after a kill: nothing appended is lost
 *   (in MFQ_STAGED nothing committed), but the next mfq_open has to look for the end.
 *
 *   Full disks. The blocks of a file are reserved before it is used, so a full disk is MFQ_E_NO_SPACE from the append
 *   that needs a new file, and not a signal; so is a file size limit (RLIMIT_FSIZE). Where a reserved block still needs
 *   space to be written (copy-on-write file systems such as btrfs), and when a device fails under a mapping, the kernel
 *   raises SIGBUS in the host; mfq_install_sigbus_guard makes an error of it.
 *
 *   Other hands. While a queue is open its files must not be changed or shortened by anybody else: touching a page that
 *   is gone raises SIGBUS (see mfq_install_sigbus_guard). A record's checksum is verified when it is read, but the
 *   bytes of a view lie in the file.
 *
 *   File systems. A mapping is not coherent between machines: a network file system is MFQ_E_UNSUPPORTED from mfq_open,
 *   unless MFQ_OPEN_NETWORK allows it. Where blocks cannot be reserved, new files are filled with zeros, which takes
 *   longer. A file system that copies on write (btrfs, ZFS, bcachefs, XFS with shared blocks) may need space for a page
 *   that was reserved: mfq_open logs a warning where it can tell, and on btrfs has new files written in place (no-COW,
 *   which goes without btrfs's own checksums; a snapshot brings the need for space back).
 *
 *   Unloading. libmfq.so stays loaded for the life of the process, dlclose or not. A plug-in that links the static
 *   library, and could be unloaded itself, must be linked with -z nodelete.
 *
 * CONVENTIONS
 *
 *   Status. A function that can fail returns mfq_status_t: MFQ_OK, which is 0, or a negative MFQ_E_.... Running out of
 *   time and reaching the end are failures too. Each may also give MFQ_E_REENTRANT if it is called from inside a
 *   callback, MFQ_E_FORKED, MFQ_E_POISONED and MFQ_E_PANIC, whether its comment says so or not.
 *
 *   Errors. mfq_last_error gives a sentence about this thread's last failure, which names the argument, file or offset;
 *   mfq_last_errno gives the system's number for it. A call that succeeds leaves both as they are.
 *
 *   Arguments. Every pointer is checked for NULL, and structures for alignment. A pointer must not be NULL unless its
 *   comment says that it may.
 *
 *   Outputs come last. They are written on success only, with three exceptions: the place of a record that is appended
 *   but MFQ_E_NOT_DURABLE, and two that mfq_read names: the length needed when a buffer is too small, and what is left
 *   in the buffer by a damaged record.
 *
 *   Timeouts are int32_t timeout_ms: 0 do not wait, > 0 wait at most so many milliseconds, < 0 wait for ever.
 *
 *   Structures that may grow begin with struct_size, which the host sets to its own sizeof. Less than the library
 *   knows: the rest of an input is default, the rest of an output is left out. More: the unknown part of an input must
 *   be zero and that of an output is zeroed. Less than sizeof(size_t) or more than 4096 is MFQ_E_INVALID.
 *
 *   Handles (mfq_queue_t *, mfq_file_t *, mfq_reader_t *, and the tokens in views and claims) look like pointers but
 *   are numbers: never dereference them. Using one after its end is safe: it answers MFQ_E_CLOSED, for ever, from any
 *   thread, at any moment. A value that never was a handle of that kind is MFQ_E_INVALID.
 */

#ifndef MFQ_H
#define MFQ_H

#include <stddef.h>
#include <stdint.h>

// The version of this header; mfq_version() answers the library's.
#define MFQ_VERSION "0.1.0"
#define MFQ_VERSION_MAJOR 0
#define MFQ_VERSION_MINOR 1
#define MFQ_VERSION_PATCH 0

// Grows when a host has to be compiled again; mfq_abi_version() answers the library's.
#define MFQ_ABI_VERSION 1

// ---- STATUS ----------------------------------------------------------------------------------------
//
// Done; every output is written.
#define MFQ_OK 0

// An argument makes no sense; mfq_last_error names it.
#define MFQ_E_INVALID -1

// The time given was not enough. Nothing was done, and nothing is broken: the call can be made again.
#define MFQ_E_TIMEOUT -2

// There is no record at this offset yet: it is the end of the queue or lies beyond it. Or what was waited for was cut
// off by mfq_truncate_after.
#define MFQ_E_END -3

// What was asked for is not there: no such queue, or an offset before the first one kept.
#define MFQ_E_NOT_FOUND -4

// It does not fit: a record into a file, a batch into one file, a record into the buffer given.
#define MFQ_E_TOO_LARGE -5

// No space on the device, or a quota or file size limit is reached. Once there is space again, the next call succeeds.
#define MFQ_E_NO_SPACE -6

// No memory, no address space, or too many handles.
#define MFQ_E_NO_MEMORY -7

// A system call failed; mfq_last_errno tells how.
#define MFQ_E_IO -8

// The bytes on disk are not what was written, or the offset is not the start of a record; mfq_last_error names the
// place.
#define MFQ_E_CORRUPT -9

// The queue is open already, here or in another process.
#define MFQ_E_LOCKED -10

// The handle was closed or released, or it was while this call ran.
#define MFQ_E_CLOSED -11

// Somebody else is using it in a way that excludes this call; try again when they are done.
#define MFQ_E_BUSY -12

// The queue was opened with MFQ_OPEN_READ_ONLY.
#define MFQ_E_READ_ONLY -13

// The queue on disk was written by a newer library.
#define MFQ_E_VERSION -14

// A known option or call that this mode, kernel or file system cannot serve.
#define MFQ_E_UNSUPPORTED -15

// Appended, but not known to be on stable storage. A host that blindly appends again writes twice.
#define MFQ_E_NOT_DURABLE -16

// An earlier failure made the queue's state on disk uncertain. Close it and open it again.
#define MFQ_E_POISONED -17

// A fault inside the library, caught before it reached the host. The queue of the call is poisoned: what can be read
// still can, and who waits for more comes out with MFQ_E_POISONED. Please report it with the text of mfq_last_error.
#define MFQ_E_PANIC -18

// The call was made in a forked child of the process that opened queues. Nothing was done, and the parent is not
// disturbed.
#define MFQ_E_FORKED -19

// The call was made from inside a callback.
#define MFQ_E_REENTRANT -20

// ---- OPTIONS OF mfq_open ---------------------------------------------------------------------------
//
// format: framed records, each with its length, checksum and time. Found again after a crash by themselves.
#define MFQ_RECORD 0

// format: the host's bytes and nothing else.
#define MFQ_RAW 1

// filler (RAW): the rest of a full file is zeros.
#define MFQ_FILLER_ZERO 0

// filler (RAW): the rest of a full file begins with RocketMQ's blank message: its length in 4 big-endian bytes, then
// 0xCBD43194. A message then fits into a file only if its length + 8 is not more than what remains.
#define MFQ_FILLER_ROCKETMQ 1

// mode: appends store into the shared mapping of the file.
#define MFQ_MMAP 0

// mode: appends store into private memory, a buffer of a file's size out of a pool, and what is complete is written to
// the file every commit_interval_ms, or at once when somebody waits for it: mfq_wait for MFQ_COMMITTED,
// mfq_reader_next with a timeout_ms, mfq_flush, mfq_close. A record can be read once it is committed. No store goes
// through a mapping of a file, so a failing device is an error and no signal on append: the first write that fails
// poisons the queue.
//
// What is not committed is lost when the process dies: at most the appends of one interval, and of the time a write
// takes. Everything committed survives the process as in MFQ_MMAP. A queue can be opened in one mode today, in the
// other tomorrow.
#define MFQ_STAGED 1

// flush_policy: only mfq_flush, mfq_flush_start and mfq_close bring data to stable storage (the kernel does so too, in
// its own time, but nobody is told).
#define MFQ_FLUSH_NONE 0

// flush_policy: a thread of the library flushes each flush_interval_ms, if flush_least_pages pages wait; whatever
// waits, it flushes 10 seconds after the first byte of it.
#define MFQ_FLUSH_INTERVAL 1

// flush_policy: a thread of the library flushes as soon as flush_least_pages pages wait. Fewer wait until more come.
#define MFQ_FLUSH_LEAST_PAGES 2

// flush_policy: an append and a commit return after their record is on stable storage. Threads that append at once
// share their syncs.
#define MFQ_FLUSH_EVERY_APPEND 3

// flags: do not create; MFQ_E_NOT_FOUND if there is no queue.
#define MFQ_OPEN_EXISTING 1

// flags: write nothing, not even a lock file. Shares the queue with other read-only opens, but not with a writer.
#define MFQ_OPEN_READ_ONLY 2

// flags: an append that finds no file ready answers MFQ_E_TIMEOUT at once, or why the file could not be created;
// append_timeout_ms is not used for it.
#define MFQ_OPEN_NO_WAIT 4

// flags (MFQ_RAW, with a file_size): a directory of data files without `.mfq`, such as a RocketMQ commit log, becomes
// a queue. Its files have to be as a queue's are: named by their offsets, adjacent, each of file_size bytes; a last
// one without a byte is removed. It ends where `walk` says, walked from the last two files with data on (MFQ_E_CORRUPT
// if no unit is there), or without `walk` behind the last byte that is not zero, unverified. What follows is zeroed,
// files behind it are removed, and the blocks of the last one are reserved; all else stays as it is, and RocketMQ can
// go back to it. A queue with `.mfq` opens as without this flag.
#define MFQ_OPEN_ADOPT 8

// flags: MFQ_E_CORRUPT, and nothing changed on disk, if there is a whole record behind the place where the log ends
// (see mfq_recovery_t.record_beyond): a part of the log that was not durable is lost, but not its end. MFQ_RAW has no
// such records.
#define MFQ_OPEN_STRICT 16

// flags: open a damaged queue with what can be kept, and say in mfq_recovery what could not. MFQ_RECORD: everything is
// read from the first file on, damaged stretches become padding up to the next whole record, a checkpoint that is
// damaged or missing is made anew, and where durable records are missing at the end the queue ends earlier. MFQ_RAW:
// the checkpoint is, and the end may come earlier; nothing else can be verified. A file missing before others stays
// MFQ_E_CORRUPT. Not with MFQ_OPEN_STRICT or MFQ_OPEN_READ_ONLY.
#define MFQ_OPEN_SALVAGE 32

// flags (MFQ_STAGED): the buffers are locked into memory; MFQ_E_NO_MEMORY from mfq_open if all of them together cannot
// be (RLIMIT_MEMLOCK). In MFQ_MMAP it is MFQ_E_INVALID.
#define MFQ_OPEN_LOCK_POOL 64

// flags (MFQ_STAGED): an append that needs a new file and finds no buffer free for it answers MFQ_E_BUSY at once, and
// asks for a commit, which frees those of full files. Otherwise it asks and waits, at most append_timeout_ms. In
// MFQ_MMAP it is MFQ_E_INVALID.
#define MFQ_OPEN_POOL_FAIL_FAST 128

// flags: allow a network file system, which is MFQ_E_UNSUPPORTED without it: a mapping does not see what another
// machine writes, a lock may not keep it out, and a server that is gone raises SIGBUS.
#define MFQ_OPEN_NETWORK 256

// ---- OTHER NUMBERS ---------------------------------------------------------------------------------
//
// mfq_wait: until the records below the offset can be read.
#define MFQ_COMMITTED 0

// mfq_wait: until the records below the offset are on stable storage.
#define MFQ_FLUSHED 1

// mfq_recovery: the queue was created.
#define MFQ_ENDED_CREATED 0

// mfq_recovery: it had been closed.
#define MFQ_ENDED_CLEAN 1

// mfq_recovery: its process had ended without closing it; what that had stored was still there.
#define MFQ_ENDED_PROCESS_DEATH 2

// mfq_recovery: the machine had stopped, or the file system was mounted anew: what was not flushed may be lost.
#define MFQ_ENDED_POWER_CUT 3

// mfq_recovery: not known, it was adopted (MFQ_OPEN_ADOPT).
#define MFQ_ENDED_ADOPTED 4

// mfq_set_log: something failed, and the host should know.
#define MFQ_LOG_ERROR 1

// mfq_set_log: something is slow or strange.
#define MFQ_LOG_WARN 2

// mfq_set_log: recovered; an attempt to create a file that failed.
#define MFQ_LOG_INFO 3

// mfq_set_log: each file.
#define MFQ_LOG_DEBUG 4

// How many buckets mfq_stats_t.creation_us has.
#define MFQ_CREATION_BUCKETS 24

// One file of a queue, held: it stays mapped and readable until mfq_file_release, even if the queue is closed before.
// Share it between threads freely.
typedef struct mfq_file_t mfq_file_t;

// An open queue. Share it between threads freely; one open is enough for all of them. From mfq_open to mfq_close.
typedef struct mfq_queue_t mfq_queue_t;

// A forward reader, with a position of its own. Use it from one thread at a time (mfq_reader_close excepted): a second
// one is told MFQ_E_BUSY. From mfq_reader_open to mfq_reader_close.
typedef struct mfq_reader_t mfq_reader_t;

// Tells the size of the unit that begins at `bytes`, of which `available` bytes (to the end of the file) can be read:
// its size if > 0; 0 there is none, the data ends here; < 0 it is damaged, which ends the data too. More than
// `available` counts as damaged. Called by mfq_open, in its thread; it must not call the library (MFQ_E_REENTRANT), nor
// write.
typedef int64_t (*mfq_walk_fn_t)(void *context, const uint8_t *bytes, size_t available);

// What mfq_open can be told; fill it by mfq_options_init, then set what differs from the default. Zero always means
// the default. More fields may follow in later versions.
typedef struct {
  // sizeof(mfq_options_t) of the host; set by mfq_options_init.
  size_t struct_size;
  // Bytes of one file, from a page to 2 GiB less a page, a multiple of the page size. 0: 64 MiB for a new queue,
  // what it has for an old one. Another size than an old queue has is MFQ_E_INVALID.
  uint64_t file_size;
  // Of a new queue: where its first file begins, at most INT64_MAX; rounded down to a multiple of the file size. Not
  // used for an old one.
  uint64_t start_offset;
  // MFQ_RECORD or MFQ_RAW. An old queue must have been created with the same.
  uint32_t format;
  // In RAW, what fills the rest of a full file: MFQ_FILLER_ZERO or MFQ_FILLER_ROCKETMQ. An old queue must have been
  // created with the same.
  uint32_t filler;
  // MFQ_MMAP or MFQ_STAGED. Not a property of the queue: each open chooses.
  uint32_t mode;
  // MFQ_FLUSH_NONE, MFQ_FLUSH_INTERVAL, MFQ_FLUSH_LEAST_PAGES or MFQ_FLUSH_EVERY_APPEND. Files are of huge pages,
  // where the file system has them, under the first two only: a sync of one writes 2 MiB where 4 KiB would do.
  uint32_t flush_policy;
  // MFQ_FLUSH_INTERVAL: 0 means 500. Negative is MFQ_E_INVALID.
  int32_t flush_interval_ms;
  // MFQ_FLUSH_INTERVAL and MFQ_FLUSH_LEAST_PAGES: how many pages have to wait; 0 means 4.
  uint32_t flush_least_pages;
  // How long an append may wait for a file, and under MFQ_FLUSH_EVERY_APPEND then for its sync: 0 means 5000, < 0
  // for ever.
  int32_t append_timeout_ms;
  // How many files are kept ready ahead of the writer, at most 64; with MFQ_FILLER_ROCKETMQ at most 2. 0 means as
  // many as the writer fills in a second, at least 2 and at most 8; with that filler, and in MFQ_STAGED, 2.
  uint32_t files_ahead;
  // MFQ_STAGED: how many buffers there are, of a file's size each; 0 means 5, 1 is MFQ_E_INVALID. A file has one
  // from when it is asked for, ahead of the writer, until it is full and committed; an open claim keeps that of its
  // file and all behind it.
  uint32_t pool_buffers;
  // MFQ_STAGED: how long a record may wait for its commit; 0 means 200. Negative is MFQ_E_INVALID.
  int32_t commit_interval_ms;
  // Of files that are created, as in chmod, whatever the umask: 0 means 0600. The owner has to be able to read
  // and write (06xx), and there are no bits above 0777.
  uint32_t permissions;
  // MFQ_OPEN_..., added up. Unknown bits are MFQ_E_INVALID.
  uint32_t flags;
  // RAW: finds the end of the data after a power cut, from the last durable offset on that mfq_open knows, and that
  // of a directory that is adopted; mfq_walk_rocketmq is one. With MFQ_FILLER_ZERO the data goes on behind zeros
  // that fill a file if the next one begins with a unit. NULL: the data ends behind the last byte that is not zero.
  mfq_walk_fn_t walk;
  // Handed to `walk`.
  void *walk_context;
} mfq_options_t;

// MFQ_OK or a negative MFQ_E_...: test for `< 0`.
typedef int32_t mfq_status_t;

// Receives one message of the library; see mfq_set_log. `message` ends with NUL and is valid during the call only.
typedef void (*mfq_log_fn_t)(void *context, int32_t level, const char *message);

// What mfq_file_info tells.
typedef struct {
  // sizeof(mfq_file_info_t), set by the host before the call.
  size_t struct_size;
  // The queue's offset of the file's first byte.
  uint64_t start;
  // Bytes of the file.
  uint64_t size;
  // How far the file is written without a hole: bytes from its start, 0 to `size`.
  uint64_t wrote;
  // How far it can be read: bytes from its start, not more than `wrote`.
  uint64_t committed;
  // How far it is on stable storage: bytes from its start, not more than `committed`.
  uint64_t flushed;
  // Where the file is mapped, for reading, until mfq_file_release.
  const uint8_t *base;
} mfq_file_info_t;

// Some bytes. As an argument the host's, and `ptr` may be NULL if `len` is 0; from mfq_file_memory a file's.
typedef struct {
  const void *ptr;
  size_t len;
} mfq_slice_t;

// What mfq_offsets tells: flushed <= committed <= wrote <= reserved, each the end of what it names; they only grow,
// but for mfq_truncate_after.
typedef struct {
  // sizeof(mfq_offsets_t), set by the host before the call.
  size_t struct_size;
  // The first offset kept.
  uint64_t min;
  // Given to writers.
  uint64_t reserved;
  // Complete, without a hole.
  uint64_t wrote;
  // Readable.
  uint64_t committed;
  // On stable storage.
  uint64_t flushed;
} mfq_offsets_t;

// What mfq_recovery tells: what mfq_open found. The lost is 0 without MFQ_OPEN_SALVAGE, as damage is MFQ_E_CORRUPT
// then.
typedef struct {
  // sizeof(mfq_recovery_t), set by the host before the call.
  size_t struct_size;
  // How the queue had been left: MFQ_ENDED_...
  uint32_t ended;
  // In how many stretches lost_bytes lie.
  uint32_t lost_stretches;
  // Where the log ended, and went on.
  uint64_t cut_at;
  // From there to the last byte that was not zero, in each file: bytes that were cut (under MFQ_OPEN_READ_ONLY: that
  // are passed over).
  uint64_t cut_bytes;
  // Everything below is as it was written: its checksums were right, the walker or the last process said so, or it
  // was durable. Less than cut_at only in RAW after a power cut, or if adopted, without `walk`.
  uint64_t verified_to;
  // cut_at - verified_to.
  uint64_t unverified_bytes;
  // Claims that nobody had committed or aborted when the process ended: they are padding now.
  uint64_t claims_passed_over;
  // RECORD: offset of the first whole record behind cut_at, which was cut too; UINT64_MAX if there was none. It had
  // not been flushed, and what had been appended before it is lost.
  uint64_t record_beyond;
  // MFQ_OPEN_SALVAGE: bytes below the durable offset that were damaged, and are padding now or behind the end.
  uint64_t lost_bytes;
  // Where the first of them lies; UINT64_MAX if there are none.
  uint64_t first_lost;
} mfq_recovery_t;

// What mfq_stats tells, counted since the queue was opened where nothing else is said.
typedef struct {
  // sizeof(mfq_stats_t), set by the host before the call.
  size_t struct_size;
  // Records appended and readable.
  uint64_t appends;
  // Their bytes, without headers and padding.
  uint64_t bytes;
  // Rolls into the next file that found it ready.
  uint64_t rolls_ready;
  // Rolls that had to wait for it.
  uint64_t rolls_waited;
  // Rolls that waited in vain: an append or a get-last answered MFQ_E_TIMEOUT.
  uint64_t rolls_timed_out;
  // Files created.
  uint64_t files_created;
  // Those that took longer than 10 ms.
  uint64_t slow_creations;
  // Attempts to create a file that failed.
  uint64_t failed_creations;
  // Requests for a file that were withdrawn before anybody worked on them; of all queues of the process, since its
  // first mfq_open.
  uint64_t expired_requests;
  // Requests for a file that were replaced by a newer one for the same file; of all queues of the process, since its
  // first mfq_open.
  uint64_t superseded_requests;
  // Files that a waiting writer created by itself, because the allocation thread was busy elsewhere.
  uint64_t self_served_creations;
  // Claims that are neither committed nor aborted now. Nothing beyond the oldest becomes readable.
  uint64_t open_claims;
  // Where the oldest one lies; 0 if there is none.
  uint64_t oldest_claim_offset;
  // How long it has been open, in milliseconds; 0 if there is none.
  uint64_t oldest_claim_age_ms;
  // The offset up to which pages are ready in memory ahead of the writer, but for what a fast one readies by itself.
  uint64_t prefaulted_to;
  // How long creations took: [i] counts those that took less than 2^i microseconds and not less than 2^(i-1), the
  // last one all that took longer.
  uint64_t creation_us[MFQ_CREATION_BUCKETS];
  // MFQ_STAGED: how often an append or a get-last found no buffer free for the next file.
  uint64_t pool_waits;
  // MFQ_STAGED: how often one failed for that reason: at once (MFQ_OPEN_POOL_FAIL_FAST), or because none came in
  // time.
  uint64_t pool_refusals;
  // MFQ_STAGED: buffers that are free now: neither held by a file nor promised to one that is asked for.
  uint64_t pool_free;
} mfq_stats_t;

// Where a record lies: the bytes [offset, end) of the queue. In RECORD that includes its header and the gap to the
// next multiple of 8, so `end` is where the next record can begin; in RAW it is the host's bytes.
typedef struct {
  uint64_t offset;
  uint64_t end;
} mfq_span_t;

// Memory to write a record into, given by mfq_claim. It stays writable until mfq_commit or mfq_abort, even if the
// queue is closed before. May be copied and handed to another thread, but it is one claim: the first commit or abort
// counts.
typedef struct {
  // `len` bytes, not zeroed.
  uint8_t *ptr;
  size_t len;
  // Where the record will be.
  uint64_t offset;
  // The library's own; leave it as it is.
  uint64_t token[2];
} mfq_claim_t;

// A record (in RAW: a stretch of bytes) that is read in place, not copied.
typedef struct {
  const uint8_t *ptr;
  size_t len;
  // Where the record begins; not before the offset that was asked for.
  uint64_t offset;
  // Where to read next.
  uint64_t end;
  // When it was appended, in milliseconds since 1970; 0 in RAW.
  int64_t time_ms;
  // The library's own; leave it as it is.
  uint64_t token[2];
} mfq_view_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// ---- THE LIBRARY -----------------------------------------------------------------------------------
//
// Sets every option to its default: fills `struct_size` bytes with zero and stores `struct_size`, the host's
// sizeof(mfq_options_t). Does nothing if `options` is NULL or `struct_size` is senseless.
void mfq_options_init(mfq_options_t *options, size_t struct_size);

// The version of the library, such as "0.1.0". Static.
const char *mfq_version(void);

// The MFQ_ABI_VERSION of the library: a host compiled with the same one can use it.
uint32_t mfq_abi_version(void);

// A sentence for a status, for a number that is none too. Static.
const char *mfq_strerror(mfq_status_t status);

// Copies the sentence about this thread's last failure to `buf`: at most `cap` bytes, NUL included, shortened if need
// be. Returns its full length without the NUL, at most 511; 0 if no call of this thread has failed. `buf` may be NULL
// and `cap` 0: that asks for the length. A call that succeeds does not change the sentence.
size_t mfq_last_error(char *buf, size_t cap);

// The system's error number (errno) of this thread's last failure; 0 if no system call was the reason.
int32_t mfq_last_errno(void);

// Has the library's messages of `level` and below (MFQ_LOG_ERROR is the lowest) handed to `log`, together with
// `context`; there is one for the whole process, and a new one replaces it. `log` NULL or `level` 0 removes it.
//
// It is called on any thread of the host that is inside a call, and on the library's own; several may call it at once.
// It must return soon: an append may be waiting for it. It must not call the library: functions that take a handle or
// open one answer MFQ_E_REENTRANT there. A call that has begun may still run when mfq_set_log replaces the function,
// so `context` should live as long as the process.
//
// Errors: INVALID (unknown level).
mfq_status_t mfq_set_log(mfq_log_fn_t log, void *context, int32_t level);

// Installs a handler for SIGBUS, which the kernel raises when a mapped file is touched where the device fails, or
// where somebody has cut the file off. In a mapping of the library it puts a page of zeros in the place of the one
// that is lost, so that the thread goes on; the call in which that happened, or mfq_view_release and mfq_commit of the
// memory in which it did, answer MFQ_E_IO, and the queue is poisoned: nothing is published or called durable that was
// stored there. What lies in other pages is still read, unless the process has no room for another mapping
// (vm.max_map_count): then the whole file is lost to it. Memory of a mfq_file_t is watched as well, but nobody tells.
//
// Every other SIGBUS goes to what was installed before, as if this were not there: a handler with its mask, or the
// death of the process. A handler that the host installs later has to pass on what it does not know, by what sigaction
// gave it.
//
// For the whole process and for ever; calling it again changes nothing. Works for queues that are open already.
//
// Errors: IO (sigaction failed).
mfq_status_t mfq_install_sigbus_guard(void);

// ---- A QUEUE AND ITS FILES -------------------------------------------------------------------------
//
// Opens the queue in the directory `path`, and creates it if it is not there and `options` do not say otherwise: the
// directory itself, not its parents. `path` is bytes, not text of some encoding. `options` may be NULL: all defaults.
// After a crash it looks for the end of what was appended, which reads the newest part of the queue; mfq_recovery
// tells what it found.
//
// Errors: INVALID (an argument or option; `path` is a file; its last component is a symbolic link; the queue has
// another file size, format or filler), NOT_FOUND (a parent, or the queue under MFQ_OPEN_EXISTING or
// MFQ_OPEN_READ_ONLY), LOCKED (open already, here or in another process), CORRUPT (a file in it does not belong there,
// is missing or damaged, or MFQ_OPEN_STRICT has found something), VERSION, UNSUPPORTED (a network file system without
// MFQ_OPEN_NETWORK), NO_SPACE, NO_MEMORY, IO. After NO_SPACE, NO_MEMORY and IO there may be the beginnings of a new
// queue, which the next open takes up, or a part of the recovery is done, which the next open repeats; after the
// others nothing on disk has been changed.
//
// Blocks: for the disk. It does not wait for a lock.
//
// Ownership: the host ends the queue with mfq_close.
mfq_status_t mfq_open(const char *path, const mfq_options_t *options, mfq_queue_t **queue);

// Closes the queue: new calls are refused and calls that wait in it come out, all with MFQ_E_CLOSED; claims that are
// still open become padding; everything is flushed; the lock is let go. Never fails because something is still held:
// files and views stay readable until they are released, the memory of claims stays until their commit or abort.
//
// Errors: INVALID (never was a queue), CLOSED (closed before, or being closed by another thread), IO, NO_SPACE,
// POISONED (the last flush failed: what was not flushed before may not survive a power cut). Whatever it returns, the
// queue is closed.
//
// Blocks: until calls in other threads have come out, until the library's thread is done with a flush of this queue,
// and for the disk.
mfq_status_t mfq_close(mfq_queue_t *queue);

// Gives the last file of the queue, the one that is written to, and holds it. If there is none yet or the last is
// full, gives the next one, and waits for it as mfq_append does; but a queue that is open for reading only gives the
// last file, full or not. A queue without files begins at start_offset, rounded down to the file size.
//
// Errors: INVALID, CLOSED, TIMEOUT (a later call goes on waiting for the same file), READ_ONLY (there is no file yet),
// BUSY (MFQ_OPEN_POOL_FAIL_FAST: no buffer is free), POISONED, NO_SPACE, NO_MEMORY, IO.
//
// Ownership: the host ends the hold with mfq_file_release, also after mfq_close.
mfq_status_t mfq_get_last(mfq_queue_t *queue, int32_t timeout_ms, mfq_file_t **file);

// Gives the file in which `offset` lies, and holds it. As fast with ten thousand files as with one.
//
// Errors: INVALID, CLOSED, NOT_FOUND (before the first file), END (beyond the last file), NO_MEMORY.
//
// Ownership: the host ends the hold with mfq_file_release, also after mfq_close.
mfq_status_t mfq_find(mfq_queue_t *queue, uint64_t offset, mfq_file_t **file);

// Tells where a file lies and how far it is. Works after mfq_close too, and then tells how far it was. The host sets
// info->struct_size. In RECORD it passes over each record that came since anybody asked how far the queue is, a
// millisecond for 64 MiB of 1 KiB each; mfq_file_memory does not.
//
// Errors: INVALID, CLOSED (released).
mfq_status_t mfq_file_info(mfq_file_t *file, mfq_file_info_t *info);

// Tells where a file is mapped, all of it, for reading. Below `committed` of mfq_file_info it is the log's and does not
// change; behind that it may change at any moment. A file that is held over an mfq_truncate_after keeps what it had.
// Looks at no record, and waits for nothing. Works after mfq_close too.
//
// Errors: INVALID, CLOSED (released).
//
// Ownership: the memory is good until mfq_file_release.
mfq_status_t mfq_file_memory(mfq_file_t *file, mfq_slice_t *memory);

// Ends the hold on a file. Its memory must not be read any more.
//
// Errors: INVALID, CLOSED (released before).
mfq_status_t mfq_file_release(mfq_file_t *file);

// ---- OFFSETS AND DURABILITY ------------------------------------------------------------------------
//
// Brings everything below the offset `up_to` to stable storage; UINT64_MAX means all that was appended or claimed
// when the call began. Waits until that is committed, so an open claim below ends in TIMEOUT.
//
// Threads: any number share their syncs. One of those that wait syncs, for all who have come by then, and may overrun
// its time by as long as that takes; who comes meanwhile is served by the next sync.
//
// Errors: INVALID, CLOSED, READ_ONLY, TIMEOUT, END (mfq_truncate_after has meanwhile cut off what lies below `up_to`, or
// some of it), IO or NO_SPACE (the sync failed, or in MFQ_STAGED the writing before it: the queue is poisoned from now
// on; only the call that did it is told so), IO with mfq_last_errno EMFILE or ENFILE (MFQ_STAGED, and RAW without a
// walker: no descriptor could be had; nothing is lost, and a later call can try again), POISONED. After TIMEOUT and END
// `flushed` may have moved: what could be flushed is.
//
// Blocks: for the disk, and at most timeout_ms for others.
mfq_status_t mfq_flush(mfq_queue_t *queue, uint64_t up_to, int32_t timeout_ms);

// Has everything below `up_to` brought to stable storage, as mfq_flush would, by a thread of the library, and returns
// at once. What is not committed yet follows when it is. Calls that come before the thread has begun share a sync. The
// host learns of the end by mfq_event_fd, mfq_wait or mfq_offsets, of a failure too: the queue is then poisoned. If no
// descriptor can be had the thread tries again until there is one. What mfq_truncate_after cuts off meanwhile is
// forgotten: `flushed` comes to the new end only.
//
// Errors: INVALID, CLOSED, READ_ONLY, POISONED, NO_MEMORY or IO (the thread could not be started).
mfq_status_t mfq_flush_start(mfq_queue_t *queue, uint64_t up_to);

// Gives a descriptor for poll, select or epoll: it becomes readable each time `flushed` moves, whoever flushed, when
// mfq_truncate_after moves it back, and when the queue is poisoned or closed. It is an eventfd(2), non-blocking and
// close-on-exec, made by the first call; every call gives the same one. Appends know nothing of it, and a queue that was
// never asked for it has none.
//
// How to use it: call mfq_flush_start, then look; and each time it is readable read 8 bytes from it, which makes it
// wait for the next event, then look. To look is to call mfq_offsets and to complete whatever lies below `flushed`;
// mfq_wait(queue, MFQ_FLUSHED, offset, 0) tells in addition whether what is missing still can come: POISONED and
// CLOSED say no. Reading first and looking second loses nothing. Events that come together are one, and one may come
// of which an earlier look has seen everything. Do not write to it.
//
// Errors: INVALID, CLOSED, IO (there are no more descriptors: mfq_last_errno).
//
// Ownership: it is the queue's, do not close it. mfq_close makes it readable and then closes it; its number may be
// given to another file from then on, so a host must be done with it before. A host that polls in one thread while
// another may close polls a dup(2) of it, which it closes itself: that one is readable after mfq_close, and calls with
// the queue then answer CLOSED.
mfq_status_t mfq_event_fd(mfq_queue_t *queue, int32_t *fd);

// Waits until everything below `offset` is readable (`which` MFQ_COMMITTED) or on stable storage (MFQ_FLUSHED). It
// only waits and does not flush; but in MFQ_STAGED who waits for MFQ_COMMITTED commits.
//
// Errors: INVALID (unknown `which` too), CLOSED, TIMEOUT, END (while it waited, mfq_truncate_after has moved the end of
// the log to before `offset`), POISONED, IO or NO_SPACE (that commit failed: the queue is poisoned from now on).
mfq_status_t mfq_wait(mfq_queue_t *queue, int32_t which, uint64_t offset, int32_t timeout_ms);

// Tells how far the queue is. The host sets offsets->struct_size.
//
// Errors: INVALID, CLOSED.
mfq_status_t mfq_offsets(mfq_queue_t *queue, mfq_offsets_t *offsets);

// Tells what mfq_open found: how the queue had been left, where it ended, what was cut. The host sets
// report->struct_size.
//
// Errors: INVALID, CLOSED.
mfq_status_t mfq_recovery(mfq_queue_t *queue, mfq_recovery_t *report);

// A walker over RocketMQ's messages (stores 4.x and 5.x), for mfq_options_t.walk; `context` is not used. A message is
// whole if its magic is known, its lengths add up to its size, and the CRC of its body is right; a blank reaches to
// the end of the file. May be called from anywhere, and answers -1 if `bytes` is NULL.
int64_t mfq_walk_rocketmq(void *context, const uint8_t *bytes, size_t available);

// Cuts the log at `offset`, durably: everything there and behind is gone when this returns, and the next append goes
// there. In MFQ_RECORD a record has to begin or end at `offset`; in MFQ_RAW it is any byte. All offsets that
// mfq_offsets tells may move back. Files and views that are held stay as they are; a reader behind the new end finds
// nothing, or what is appended later, and should be set to an offset of a record by mfq_reader_seek.
//
// Appends, mfq_get_last and an mfq_flush of UINT64_MAX that come meanwhile wait for it as long as they may wait at all;
// mfq_offsets and an mfq_flush_start of UINT64_MAX wait whatever their time. mfq_wait and mfq_flush for what is cut off
// end with MFQ_E_END. In MFQ_STAGED everything is committed first.
//
// A crash at any moment leaves the log as it was, or a beginning of it that reaches to `offset` at least. The file that
// is cut is copied up to `offset`, which takes space for one file more until this returns.
//
// Errors: INVALID (`offset` lies within a record, below the first offset, or beyond the end), CLOSED, BUSY (a claim is
// open, or no buffer of MFQ_STAGED is free), READ_ONLY, POISONED; nothing has happened then. NO_SPACE, NO_MEMORY, IO:
// nothing has happened, or the queue is poisoned from now on, and opening it anew shows how far it came.
//
// Blocks: for the disk, and for appends that are under way.
mfq_status_t mfq_truncate_after(mfq_queue_t *queue, uint64_t offset);

// Removes the files that end at or before `offset`, durably, but never the last one: what lies below is NOT_FOUND from
// then on, and mfq_offsets_t.min moves to the beginning of the file in which `offset` lies. Files and views that are
// held stay readable; a file's space comes back once nothing holds it any more, and no call that was inside the queue
// when it was removed still is (with a later truncation, if such a call takes its time).
//
// Appends go on meanwhile. A crash at any moment leaves all of it or none; files that are left over are removed by the
// next mfq_open.
//
// Errors: INVALID (`offset` is beyond what is committed), CLOSED, READ_ONLY, POISONED; nothing has happened then. IO,
// NO_SPACE: nothing has happened, or the files are gone from the queue and some stay on disk until the next mfq_open.
//
// Blocks: for the disk, and for a flush that is at work.
mfq_status_t mfq_truncate_before(mfq_queue_t *queue, uint64_t offset);

// Counts what the queue did since it was opened. The host sets stats->struct_size.
//
// Errors: INVALID, CLOSED.
mfq_status_t mfq_stats(mfq_queue_t *queue, mfq_stats_t *stats);

// ---- APPENDING -------------------------------------------------------------------------------------
//
// Appends one record: `len` bytes at `data`. `data` may be NULL if `len` is 0: an empty record, which RECORD allows
// and RAW does not. `at` may be NULL. The bytes are copied; `data` can be changed once the call has returned.
//
// The record never crosses the end of a file: what is left there becomes padding and the record begins the next file.
// The largest one is the file size less 16 in RECORD, the file size in RAW, that less 8 with MFQ_FILLER_ROCKETMQ.
//
// Errors: INVALID, CLOSED, TOO_LARGE, TIMEOUT (no file within append_timeout_ms, or at once under MFQ_OPEN_NO_WAIT;
// mfq_truncate_after was at work as long),
// NO_SPACE, NO_MEMORY, IO (the next file could not be created; or, under mfq_install_sigbus_guard, a page was lost),
// BUSY (RAW: a claim is open; MFQ_OPEN_POOL_FAIL_FAST: no buffer is free), READ_ONLY, POISONED. After any of them
// nothing was appended. Under MFQ_FLUSH_EVERY_APPEND also NOT_DURABLE: the record is appended and `at` is written, but
// its sync failed (the queue is poisoned), or was not done within append_timeout_ms (it may still come: mfq_wait
// tells), or no descriptor could be had for it (MFQ_STAGED, RAW; mfq_flush can try again), or the queue was closed
// meanwhile, or mfq_truncate_after has cut the record off again.
//
// Threads: any number at once; in RECORD none waits for another one's copy.
//
// Blocks: at most append_timeout_ms for the next file; when one is ready, as almost always, not at all. If the
// library's thread has not begun with the file 10 ms after it was first asked for, by this call or an earlier one, the
// call makes the file itself and may overrun its time by as long as that takes; under MFQ_OPEN_NO_WAIT it never does.
// In RAW it also waits, without a limit, for the copies of the appends that were given space before it. Under
// MFQ_FLUSH_EVERY_APPEND it waits for the disk, as mfq_flush does with append_timeout_ms, which begins anew with that
// wait, and holds for it under MFQ_OPEN_NO_WAIT too. A record behind an open claim cannot become durable before that
// ends.
mfq_status_t mfq_append(mfq_queue_t *queue, const void *data, size_t len, mfq_span_t *at);

// Appends one record made of `count` parts, one after the other; as mfq_append otherwise. `count` 0 is INVALID; parts
// may be empty. `parts` must not be changed during the call.
//
// Errors: as mfq_append.
mfq_status_t mfq_appendv(mfq_queue_t *queue, const mfq_slice_t *parts, size_t count, mfq_span_t *at);

// Appends `count` records, all or none: readers, and an mfq_open after the death of the process, see all of them or
// none; after a power cut a prefix. They lie in one file; more than fits into one is TOO_LARGE. `at` may be NULL, else
// it is `count` spans. `count` 0 is INVALID. `records` must not be changed during the call.
//
// Errors: as mfq_append.
mfq_status_t mfq_append_batch(mfq_queue_t *queue, const mfq_slice_t *records, size_t count, mfq_span_t *at);

// Gives `len` bytes of memory in which the host writes a record by itself, and tells where the record will be before
// it is written. End it with mfq_commit or mfq_abort: until then nothing behind it becomes readable (mfq_stats tells
// the oldest one's age).
//
// RECORD: the memory is the file itself (MFQ_STAGED: its buffer); any number of claims may be open, from any threads.
// RAW: it is a buffer that is copied at commit, and while it is open other appends and claims answer BUSY; `len` 0 is
// INVALID.
//
// Errors: as mfq_append, with the largest `len` that it tells, but never NOT_DURABLE.
//
// Blocks: as mfq_append.
mfq_status_t mfq_claim(mfq_queue_t *queue, size_t len, mfq_claim_t *claim);

// Makes the first `len` bytes of a claim a record. Fewer than were claimed are fine in RAW; in RECORD, if what is left
// is 0 or at least 16 once both lengths are rounded up to a multiple of 8 (it becomes padding). `at` may be NULL. From
// any thread. Under MFQ_FLUSH_EVERY_APPEND it returns after the record is durable, as mfq_append does.
//
// Errors: INVALID (`len` more than claimed, or a rest that cannot be padding: the claim is still open), CLOSED (it was
// committed or aborted before, or the queue is closed: it is no record), IO (under mfq_install_sigbus_guard: a page of
// it was lost: it is no record), NOT_DURABLE (it is a record; as mfq_append), and in RAW as mfq_append. The memory
// must not be touched any more after MFQ_OK, CLOSED, IO and NOT_DURABLE.
mfq_status_t mfq_commit(mfq_claim_t *claim, size_t len, mfq_span_t *at);

// Gives a claim up: its place becomes padding in RECORD, in RAW nothing. The memory must not be touched any more. From
// any thread.
//
// Errors: INVALID, CLOSED (it was committed or aborted before, or the queue is closed: it is no record either way).
mfq_status_t mfq_abort(mfq_claim_t *claim);

// ---- READING ---------------------------------------------------------------------------------------
//
// Copies one record to `buf`, which has room for `cap` bytes. `len` tells its length, `next` where to read next.
//
// RECORD: the first record at or after `offset`; padding is skipped. Its checksum is verified. A record longer than
// `cap` is TOO_LARGE: then `*len` is written all the same and tells the length needed, nothing else is; `buf` may be
// NULL if `cap` is 0. RAW: what is committed from `offset` on, at most `cap` bytes and not beyond the end of the file;
// filler is bytes like others, `*next` is offset + *len, and `cap` 0 is INVALID.
//
// Errors: INVALID (RECORD: `offset` is not a multiple of 8), CLOSED, END (`offset` is at or beyond committed),
// NOT_FOUND (before the first offset kept), CORRUPT (damaged, or `offset` is not the start of a record), TOO_LARGE, IO
// (under mfq_install_sigbus_guard). After CORRUPT and IO the bytes of `buf` are undefined.
mfq_status_t mfq_read(mfq_queue_t *queue, uint64_t offset, void *buf, size_t cap, size_t *len, uint64_t *next);

// Gives a record in place, as mfq_read would copy it, and holds its file. RAW: everything from `offset` to the end of
// what is committed in this file. The bytes stay readable until mfq_view_release, also after mfq_close. They must not
// be written.
//
// Errors: as mfq_read, and NO_MEMORY (about a million views are held).
//
// Ownership: the host ends it with mfq_view_release.
mfq_status_t mfq_view(mfq_queue_t *queue, uint64_t offset, mfq_view_t *view);

// Ends a view that mfq_view gave; its bytes must not be read any more. From any thread.
//
// Errors: INVALID (a view of mfq_reader_next, which is not released, too), CLOSED (released before), IO (under
// mfq_install_sigbus_guard: a page of it was lost, and some of its bytes may have been read as zeros; it is released).
mfq_status_t mfq_view_release(mfq_view_t *view);

// Opens a reader whose first record is the first one at or after `offset`. `offset` may be the end of the queue or lie
// beyond it: mfq_reader_next then waits for what is appended there.
//
// Errors: INVALID (RECORD: `offset` is not a multiple of 8), CLOSED, NOT_FOUND (before the first offset kept),
// NO_MEMORY.
//
// Ownership: the host ends it with mfq_reader_close, also after mfq_close.
mfq_status_t mfq_reader_open(mfq_queue_t *queue, uint64_t offset, mfq_reader_t **reader);

// Gives the next record in place and moves on. If there is none yet, waits for it. RAW: everything from the reader's
// position to the end of what is committed in this file. The bytes are valid until the next call on this reader, its
// close included; the view is not released.
//
// Errors: INVALID, CLOSED (the reader or its queue is or was closed), END (none yet, and timeout_ms is 0), TIMEOUT
// (none yet after timeout_ms), BUSY (another thread is inside a call on this reader), NOT_FOUND, CORRUPT, POISONED
// (none yet, and none may ever come), IO (under mfq_install_sigbus_guard: this record or the one before lies in a page
// that is lost). The position is then as before.
mfq_status_t mfq_reader_next(mfq_reader_t *reader, int32_t timeout_ms, mfq_view_t *view);

// Moves a reader: its next record is the first one at or after `offset`.
//
// Errors: as mfq_reader_open, and BUSY (another thread is inside a call on this reader).
mfq_status_t mfq_reader_seek(mfq_reader_t *reader, uint64_t offset);

// Ends a reader. A call on it that waits in another thread comes out with CLOSED. Works after mfq_close too.
//
// Errors: INVALID, CLOSED (closed before).
mfq_status_t mfq_reader_close(mfq_reader_t *reader);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MFQ_H */
