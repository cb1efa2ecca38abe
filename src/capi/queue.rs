//! A queue as a whole: open, close, its files, its offsets.

use super::constants::*;
use super::handles::{self, FILES, HeldFile, QUEUES};
use super::types::*;
use super::{decode, encode, guard, options};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::mapped_file::MappedFile;
use crate::os;
use crate::queue::{Queue, Which};
use std::ffi::c_char;
use std::sync::Arc;

/// ---- A QUEUE AND ITS FILES -------------------------------------------------------------------------
///
/// Opens the queue in the directory `path`, and creates it if it is not there and `options` do not say otherwise: the
/// directory itself, not its parents. `path` is bytes, not text of some encoding. `options` may be NULL: all defaults.
/// After a crash it looks for the end of what was appended, which reads the newest part of the queue.
///
/// Errors: INVALID (an argument or option; `path` is a file; its last component is a symbolic link; the queue has another
/// file size, format or filler), NOT_FOUND (a parent, or the queue under MFQ_OPEN_EXISTING or MFQ_OPEN_READ_ONLY), LOCKED
/// (open already, here or in another process), CORRUPT (a file in it does not belong there, is missing or damaged),
/// VERSION, UNSUPPORTED (an option, or a network file system without MFQ_OPEN_NETWORK), NO_SPACE, NO_MEMORY, IO. After NO_SPACE, NO_MEMORY and IO there may be the beginnings of a new
/// queue, which the next open takes up, or a part of the recovery is done, which the next open repeats; after the others
/// nothing on disk has been changed.
///
/// Blocks: for the disk. It does not wait for a lock.
///
/// Ownership: the host ends the queue with mfq_close.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_open(
    path: *const c_char,
    options: *const mfq_options_t,
    queue: *mut *mut mfq_queue_t,
) -> mfq_status_t {
    guard((), || {
        decode::admitted()?;
        // SAFETY: the host says what the pointers lead to; they are checked for NULL and alignment there.
        let (path, options, queue) = unsafe {
            (
                decode::path(path, "mfq_open: path")?,
                options::decode(options)?,
                decode::output(queue, "mfq_open: queue")?,
            )
        };
        os::prepare_for_forks().map_err(|cause| Error::system("mfq_open: preparing for forks", cause))?;
        let vacant = QUEUES.reserve()?;
        let opened = Box::new(Queue::open(os::native(), path, &options)?);
        queue.write(handles::pointer(vacant.fill(opened)));
        Ok(())
    })
}

/// Closes the queue: new calls are refused and calls that wait in it come out, all with MFQ_E_CLOSED; claims that are
/// still open become padding; everything is flushed; the lock is let go. Never fails because something is still held:
/// files and views stay readable until they are released, the memory of claims stays until their commit or abort.
///
/// Errors: INVALID (never was a queue), CLOSED (closed before, or being closed by another thread), IO, NO_SPACE, POISONED
/// (the last flush failed: what was not flushed before may not survive a power cut). Whatever it returns, the queue is
/// closed.
///
/// Blocks: until calls in other threads have come out, and for the disk.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_close(queue: *mut mfq_queue_t) -> mfq_status_t {
    guard(queue, || {
        decode::admitted()?;
        let queue = QUEUES.close(handles::number(queue), "mfq_close: queue", |queue| queue.begin_close())?;
        queue.finish_close()
    })
}

/// Gives the last file of the queue, the one that is written to, and holds it. If there is none yet or the last is full,
/// gives the next one, and waits for it as mfq_append does; but a queue that is open for reading only gives the last file,
/// full or not. A queue without files begins at start_offset, rounded down to the file size.
///
/// Errors: INVALID, CLOSED, TIMEOUT (a later call goes on waiting for the same file), READ_ONLY (there is no file yet),
/// POISONED, NO_SPACE, NO_MEMORY, IO.
///
/// Ownership: the host ends the hold with mfq_file_release, also after mfq_close.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_get_last(
    queue: *mut mfq_queue_t,
    timeout_ms: i32,
    file: *mut *mut mfq_file_t,
) -> mfq_status_t {
    guard(queue, || {
        let handle = handles::number(queue);
        let queue = handles::queue(queue, "mfq_get_last: queue")?;
        // SAFETY: the host says that `file` is its own; checked for NULL and alignment.
        let out = unsafe { decode::output(file, "mfq_get_last: file")? };
        let file = queue.get_last(Deadline::after_ms(timeout_ms))?;
        out.write(hold(handle, &queue, file)?);
        Ok(())
    })
}

/// Gives the file in which `offset` lies, and holds it. As fast with ten thousand files as with one.
///
/// Errors: INVALID, CLOSED, NOT_FOUND (before the first file), END (beyond the last file), NO_MEMORY.
///
/// Ownership: the host ends the hold with mfq_file_release, also after mfq_close.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_find(queue: *mut mfq_queue_t, offset: u64, file: *mut *mut mfq_file_t) -> mfq_status_t {
    guard(queue, || {
        let handle = handles::number(queue);
        let queue = handles::queue(queue, "mfq_find: queue")?;
        // SAFETY: the host says that `file` is its own; checked for NULL and alignment.
        let out = unsafe { decode::output(file, "mfq_find: file")? };
        out.write(hold(handle, &queue, queue.find(offset)?)?);
        Ok(())
    })
}

fn hold(handle: u64, queue: &Queue, file: Arc<MappedFile>) -> Result<*mut mfq_file_t> {
    FILES.insert(HeldFile { queue: handle, file, positions: queue.positions() }).map(handles::pointer)
}

/// Tells where a file lies and how far it is. Works after mfq_close too, and then tells how far it was. The host sets
/// info->struct_size.
///
/// Errors: INVALID, CLOSED (released).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_file_info(file: *mut mfq_file_t, info: *mut mfq_file_info_t) -> mfq_status_t {
    guard(file, || {
        let held = handles::file(file, "mfq_file_info: file")?;
        // SAFETY: the host says that `info` is its own and set its size; checked there.
        let out = unsafe { decode::sized_output(info, "mfq_file_info: info")? };
        // RECORD's writers leave it to whoever asks to move `wrote`. A closed queue has done so.
        if let Ok(queue) = QUEUES.pin(held.queue, "mfq_file_info: the queue of the file") {
            queue.advance_wrote(held.file.end());
        }
        out.write(encode::file_info(&held));
        Ok(())
    })
}

/// Ends the hold on a file. `base` must not be read any more.
///
/// Errors: INVALID, CLOSED (released before).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_file_release(file: *mut mfq_file_t) -> mfq_status_t {
    guard(file, || {
        decode::admitted()?;
        FILES.close(handles::number(file), "mfq_file_release: file", |_| ())?;
        Ok(())
    })
}

/// ---- OFFSETS AND DURABILITY ------------------------------------------------------------------------
///
/// Brings everything below the offset `up_to` to stable storage; UINT64_MAX means all that was appended or claimed
/// when the call began. Waits first until that is committed, so an open claim below ends in TIMEOUT. One call syncs at a
/// time, and may overrun its time by as long as that takes; the others wait for it, and one that finds its range covered
/// then returns at once.
///
/// Errors: INVALID, CLOSED, READ_ONLY, TIMEOUT, IO or NO_SPACE (the sync failed: the queue is poisoned from now on), POISONED.
///
/// Blocks: for the disk, and at most timeout_ms for others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_flush(queue: *mut mfq_queue_t, up_to: u64, timeout_ms: i32) -> mfq_status_t {
    guard(queue, || handles::queue(queue, "mfq_flush: queue")?.flush(up_to, Deadline::after_ms(timeout_ms)))
}

/// Waits until everything below `offset` is readable (`which` MFQ_COMMITTED) or on stable storage (MFQ_FLUSHED). It only
/// waits: it does not flush.
///
/// Errors: INVALID (unknown `which` too), CLOSED, TIMEOUT, POISONED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_wait(queue: *mut mfq_queue_t, which: i32, offset: u64, timeout_ms: i32) -> mfq_status_t {
    guard(queue, || {
        let queue = handles::queue(queue, "mfq_wait: queue")?;
        let which = match which {
            MFQ_COMMITTED => Which::Committed,
            MFQ_FLUSHED => Which::Flushed,
            _ => {
                return Err(Error::new(Status::Invalid, format!("mfq_wait: which is {which}, not a known number")));
            }
        };
        queue.wait(which, offset, Deadline::after_ms(timeout_ms))
    })
}

/// Tells how far the queue is. The host sets offsets->struct_size.
///
/// Errors: INVALID, CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_offsets(queue: *mut mfq_queue_t, offsets: *mut mfq_offsets_t) -> mfq_status_t {
    guard(queue, || {
        let queue = handles::queue(queue, "mfq_offsets: queue")?;
        // SAFETY: the host says that `offsets` is its own and set its size; checked there.
        let out = unsafe { decode::sized_output(offsets, "mfq_offsets: offsets")? };
        out.write(encode::offsets(&queue.offsets()?));
        Ok(())
    })
}

/// Counts what the queue did since it was opened. The host sets stats->struct_size.
///
/// Errors: INVALID, CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_stats(queue: *mut mfq_queue_t, stats: *mut mfq_stats_t) -> mfq_status_t {
    guard(queue, || {
        let queue = handles::queue(queue, "mfq_stats: queue")?;
        // SAFETY: the host says that `stats` is its own and set its size; checked there.
        let out = unsafe { decode::sized_output(stats, "mfq_stats: stats")? };
        out.write(encode::stats(&queue.stats()?));
        Ok(())
    })
}
