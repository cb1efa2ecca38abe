//! Appending: whole records, records in parts, batches, claims.

use super::handles::{self, QUEUES};
use super::types::*;
use super::{decode, encode, guard};
use crate::claim;
use crate::error::{Error, Status};

/// ---- APPENDING -------------------------------------------------------------------------------------
///
/// Appends one record: `len` bytes at `data`. `data` may be NULL if `len` is 0: an empty record, which RECORD allows
/// and RAW does not. `at` may be NULL. The bytes are copied; `data` can be changed once the call has returned.
///
/// The record never crosses the end of a file: what is left there becomes padding and the record begins the next file.
/// The largest one is the file size less 16 in RECORD, the file size in RAW, that less 8 with MFQ_FILLER_ROCKETMQ.
///
/// Errors: INVALID, CLOSED, TOO_LARGE, TIMEOUT (no file within append_timeout_ms, or at once under MFQ_OPEN_NO_WAIT;
/// mfq_truncate_after was at work as long),
/// NO_SPACE, NO_MEMORY, IO (the next file could not be created; or, under mfq_install_sigbus_guard, a page was lost),
/// BUSY (RAW: a claim is open; MFQ_OPEN_POOL_FAIL_FAST: no buffer is free), READ_ONLY, POISONED. After any of them
/// nothing was appended. Under MFQ_FLUSH_EVERY_APPEND also NOT_DURABLE: the record is appended and `at` is written, but
/// its sync failed (the queue is poisoned), or was not done within append_timeout_ms (it may still come: mfq_wait
/// tells), or no descriptor could be had for it (MFQ_STAGED, RAW; mfq_flush can try again), or the queue was closed
/// meanwhile, or mfq_truncate_after has cut the record off again.
///
/// Threads: any number at once; in RECORD none waits for another one's copy.
///
/// Blocks: at most append_timeout_ms for the next file; when one is ready, as almost always, not at all. If the
/// library's thread has not begun with the file 10 ms after it was first asked for, by this call or an earlier one, the
/// call makes the file itself and may overrun its time by as long as that takes; under MFQ_OPEN_NO_WAIT it never does.
/// In RAW it also waits, without a limit, for the copies of the appends that were given space before it. Under
/// MFQ_FLUSH_EVERY_APPEND it waits for the disk, as mfq_flush does with append_timeout_ms, which begins anew with that
/// wait, and holds for it under MFQ_OPEN_NO_WAIT too. A record behind an open claim cannot become durable before that
/// ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_append(
    queue: *mut mfq_queue_t,
    data: *const std::ffi::c_void,
    len: usize,
    at: *mut mfq_span_t,
) -> mfq_status_t {
    guard(queue, || {
        let queue = handles::queue(queue, "mfq_append: queue")?;
        // SAFETY: the host says that `data` is valid for `len` bytes and `at` is NULL or its own; both are checked.
        let (data, at) =
            unsafe { (decode::bytes(data, len, "mfq_append: data")?, decode::span(at, "mfq_append: at")?) };
        let span = queue.append(data)?;
        if let Some(at) = at {
            at.write(encode::span(span));
        }
        queue.secure(span.end)
    })
}

/// Appends one record made of `count` parts, one after the other; as mfq_append otherwise. `count` 0 is INVALID; parts
/// may be empty. `parts` must not be changed during the call.
///
/// Errors: as mfq_append.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_appendv(
    queue: *mut mfq_queue_t,
    parts: *const mfq_slice_t,
    count: usize,
    at: *mut mfq_span_t,
) -> mfq_status_t {
    guard(queue, || {
        let queue = handles::queue(queue, "mfq_appendv: queue")?;
        // SAFETY: the host says that `parts` are `count` slices, each valid for its length, and `at` is NULL or its
        // own.
        let (parts, at) =
            unsafe { (decode::slices(parts, count, "mfq_appendv: parts")?, decode::span(at, "mfq_appendv: at")?) };
        let span = queue.append_parts(parts.iter())?;
        if let Some(at) = at {
            at.write(encode::span(span));
        }
        queue.secure(span.end)
    })
}

/// Appends `count` records, all or none: readers, and an mfq_open after the death of the process, see all of them or
/// none; after a power cut a prefix. They lie in one file; more than fits into one is TOO_LARGE. `at` may be NULL, else
/// it is `count` spans. `count` 0 is INVALID. `records` must not be changed during the call.
///
/// Errors: as mfq_append.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_append_batch(
    queue: *mut mfq_queue_t,
    records: *const mfq_slice_t,
    count: usize,
    at: *mut mfq_span_t,
) -> mfq_status_t {
    guard(queue, || {
        let queue = handles::queue(queue, "mfq_append_batch: queue")?;
        // SAFETY: the host says that `records` are `count` slices, each valid for its length, and `at` is NULL or
        // `count` spans.
        let (records, at) = unsafe {
            (decode::slices(records, count, "mfq_append_batch: records")?, decode::span(at, "mfq_append_batch: at")?)
        };
        let end = queue.append_batch(records.iter(), |index, span| {
            if let Some(at) = &at {
                // SAFETY: the core calls with `index` < `count`, and the host says that `at` is `count` spans.
                unsafe { at.add(index) }.write(encode::span(span));
            }
        })?;
        queue.secure(end)
    })
}

/// Gives `len` bytes of memory in which the host writes a record by itself, and tells where the record will be before
/// it is written. End it with mfq_commit or mfq_abort: until then nothing behind it becomes readable (mfq_stats tells
/// the oldest one's age).
///
/// RECORD: the memory is the file itself (MFQ_STAGED: its buffer); any number of claims may be open, from any threads.
/// RAW: it is a buffer that is copied at commit, and while it is open other appends and claims answer BUSY; `len` 0 is
/// INVALID.
///
/// Errors: as mfq_append, with the largest `len` that it tells, but never NOT_DURABLE.
///
/// Blocks: as mfq_append.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_claim(queue: *mut mfq_queue_t, len: usize, claim: *mut mfq_claim_t) -> mfq_status_t {
    guard(queue, || {
        let handle = handles::number(queue);
        let queue = handles::queue(queue, "mfq_claim: queue")?;
        // SAFETY: the host says that `claim` is its own; checked for NULL and alignment.
        let out = unsafe { decode::output(claim, "mfq_claim: claim")? };
        decode::length(len, "mfq_claim: len")?;
        out.write(encode::claim(handle, queue.claim(len)?));
        Ok(())
    })
}

/// Makes the first `len` bytes of a claim a record. Fewer than were claimed are fine in RAW; in RECORD, if what is left
/// is 0 or at least 16 once both lengths are rounded up to a multiple of 8 (it becomes padding). `at` may be NULL. From
/// any thread. Under MFQ_FLUSH_EVERY_APPEND it returns after the record is durable, as mfq_append does.
///
/// Errors: INVALID (`len` more than claimed, or a rest that cannot be padding: the claim is still open), CLOSED (it was
/// committed or aborted before, or the queue is closed: it is no record), IO (under mfq_install_sigbus_guard: a page of
/// it was lost: it is no record), NOT_DURABLE (it is a record; as mfq_append), and in RAW as mfq_append. The memory
/// must not be touched any more after MFQ_OK, CLOSED, IO and NOT_DURABLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_commit(claim: *mut mfq_claim_t, len: usize, at: *mut mfq_span_t) -> mfq_status_t {
    guard(claim, || {
        decode::admitted()?;
        // SAFETY: the host says that `claim` is one that mfq_claim wrote, and `at` is NULL or its own; both are
        // checked.
        let ([handle, id], at) =
            unsafe { (decode::claim(claim, "mfq_commit: claim")?, decode::span(at, "mfq_commit: at")?) };
        let queue =
            QUEUES.pin(handle, "mfq_commit: the queue of the claim").map_err(|error| without_queue(error, id))?;
        let span = queue.commit(id, len)?;
        if let Some(at) = at {
            at.write(encode::span(span));
        }
        queue.secure(span.end)
    })
}

/// Gives a claim up: its place becomes padding in RECORD, in RAW nothing. The memory must not be touched any more. From
/// any thread.
///
/// Errors: INVALID, CLOSED (it was committed or aborted before, or the queue is closed: it is no record either way).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_abort(claim: *mut mfq_claim_t) -> mfq_status_t {
    guard(claim, || {
        decode::admitted()?;
        // SAFETY: the host says that `claim` is one that mfq_claim wrote; checked for NULL and alignment.
        let [handle, id] = unsafe { decode::claim(claim, "mfq_abort: claim")? };
        let queue =
            QUEUES.pin(handle, "mfq_abort: the queue of the claim").map_err(|error| without_queue(error, id))?;
        queue.abort(id)
    })
}

/// Its queue is gone, and this was the last call that could let its memory go.
#[cold]
fn without_queue(error: Error, id: u64) -> Error {
    if error.status() == Status::Closed {
        claim::release_orphan(id);
    }
    error
}
