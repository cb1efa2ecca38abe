//! A queue as a whole: open, close, its files, its offsets.

use super::constants::*;
use super::handles::{self, FILES, HeldFile, QUEUES};
use super::types::*;
use super::{decode, encode, guard, options};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::mapped_file::MappedFile;
use crate::os;
use crate::pin;
use crate::queue::{Queue, Which};
use crate::rocketmq;
use std::ffi::{c_char, c_void};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// ---- A QUEUE AND ITS FILES -------------------------------------------------------------------------
///
/// Opens the queue in the directory `path`, and creates it if it is not there and `options` do not say otherwise: the
/// directory itself, not its parents. `path` is bytes, not text of some encoding. `options` may be NULL: all defaults.
/// After a crash it looks for the end of what was appended, which reads the newest part of the queue; mfq_recovery
/// tells what it found.
///
/// Errors: INVALID (an argument or option; `path` is a file; its last component is a symbolic link; the queue has
/// another file size, format or filler), NOT_FOUND (a parent, or the queue under MFQ_OPEN_EXISTING or
/// MFQ_OPEN_READ_ONLY), LOCKED (open already, here or in another process), CORRUPT (a file in it does not belong there,
/// is missing or damaged, or MFQ_OPEN_STRICT has found something), VERSION, UNSUPPORTED (a network file system without
/// MFQ_OPEN_NETWORK), NO_SPACE, NO_MEMORY, IO. After NO_SPACE, NO_MEMORY and IO there may be the beginnings of a new
/// queue, which the next open takes up, or a part of the recovery is done, which the next open repeats; after the
/// others nothing on disk has been changed.
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
        let opened = Queue::open(os::native(), path, &options)?;
        queue.write(handles::pointer(vacant.fill(opened)));
        Ok(())
    })
}

/// Closes the queue: new calls are refused and calls that wait in it come out, all with MFQ_E_CLOSED; claims that are
/// still open become padding; everything is flushed; the lock is let go. Never fails because something is still held:
/// files and views stay readable until they are released, the memory of claims stays until their commit or abort.
///
/// Errors: INVALID (never was a queue), CLOSED (closed before, or being closed by another thread), IO, NO_SPACE,
/// POISONED (the last flush failed: what was not flushed before may not survive a power cut). Whatever it returns, the
/// queue is closed.
///
/// Blocks: until calls in other threads have come out, until the library's thread is done with a flush of this queue,
/// and for the disk.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_close(queue: *mut mfq_queue_t) -> mfq_status_t {
    guard(queue, || {
        decode::admitted()?;
        let queue = QUEUES.close(handles::number(queue), "mfq_close: queue", |queue| queue.begin_close())?;
        queue.finish_close()
    })
}

/// Gives the last file of the queue, the one that is written to, and holds it. If there is none yet or the last is
/// full, gives the next one, and waits for it as mfq_append does; but a queue that is open for reading only gives the
/// last file, full or not. A queue without files begins at start_offset, rounded down to the file size.
///
/// Errors: INVALID, CLOSED, TIMEOUT (a later call goes on waiting for the same file), READ_ONLY (there is no file yet),
/// BUSY (MFQ_OPEN_POOL_FAIL_FAST: no buffer is free), POISONED, NO_SPACE, NO_MEMORY, IO.
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
/// info->struct_size. In RECORD it passes over each record that came since anybody asked how far the queue is, a
/// millisecond for 64 MiB of 1 KiB each; mfq_file_memory does not.
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

/// Tells where a file is mapped, all of it, for reading. Below `committed` of mfq_file_info it is the log's and does not
/// change; behind that it may change at any moment. A file that is held over an mfq_truncate_after keeps what it had.
/// Looks at no record, and waits for nothing. Works after mfq_close too.
///
/// Errors: INVALID, CLOSED (released).
///
/// Ownership: the memory is good until mfq_file_release.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_file_memory(file: *mut mfq_file_t, memory: *mut mfq_slice_t) -> mfq_status_t {
    guard(file, || {
        let held = handles::file(file, "mfq_file_memory: file")?;
        // SAFETY: the host says that `memory` is its own; checked for NULL and alignment.
        let out = unsafe { decode::output(memory, "mfq_file_memory: memory")? };
        out.write(mfq_slice_t { ptr: held.file.base().cast(), len: held.file.size() as usize });
        Ok(())
    })
}

/// Ends the hold on a file. Its memory must not be read any more.
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
/// when the call began. Waits until that is committed, so an open claim below ends in TIMEOUT.
///
/// Threads: any number share their syncs. One of those that wait syncs, for all who have come by then, and may overrun
/// its time by as long as that takes; who comes meanwhile is served by the next sync.
///
/// Errors: INVALID, CLOSED, READ_ONLY, TIMEOUT, END (mfq_truncate_after has meanwhile cut off what lies below `up_to`, or
/// some of it), IO or NO_SPACE (the sync failed, or in MFQ_STAGED the writing before it: the queue is poisoned from now
/// on; only the call that did it is told so), IO with mfq_last_errno EMFILE or ENFILE (MFQ_STAGED, and RAW without a
/// walker: no descriptor could be had; nothing is lost, and a later call can try again), POISONED. After TIMEOUT and END
/// `flushed` may have moved: what could be flushed is.
///
/// Blocks: for the disk, and at most timeout_ms for others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_flush(queue: *mut mfq_queue_t, up_to: u64, timeout_ms: i32) -> mfq_status_t {
    guard(queue, || handles::queue(queue, "mfq_flush: queue")?.flush(up_to, Deadline::after_ms(timeout_ms)))
}

/// Has everything below `up_to` brought to stable storage, as mfq_flush would, by a thread of the library, and returns
/// at once. What is not committed yet follows when it is. Calls that come before the thread has begun share a sync. The
/// host learns of the end by mfq_event_fd, mfq_wait or mfq_offsets, of a failure too: the queue is then poisoned. If no
/// descriptor can be had the thread tries again until there is one. What mfq_truncate_after cuts off meanwhile is
/// forgotten: `flushed` comes to the new end only.
///
/// Errors: INVALID, CLOSED, READ_ONLY, POISONED, NO_MEMORY or IO (the thread could not be started).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_flush_start(queue: *mut mfq_queue_t, up_to: u64) -> mfq_status_t {
    guard(queue, || handles::queue(queue, "mfq_flush_start: queue")?.flush_start(up_to))
}

/// Gives a descriptor for poll, select or epoll: it becomes readable each time `flushed` moves, whoever flushed, when
/// mfq_truncate_after moves it back, and when the queue is poisoned or closed. It is an eventfd(2), non-blocking and
/// close-on-exec, made by the first call; every call gives the same one. Appends know nothing of it, and a queue that was
/// never asked for it has none.
///
/// How to use it: call mfq_flush_start, then look; and each time it is readable read 8 bytes from it, which makes it
/// wait for the next event, then look. To look is to call mfq_offsets and to complete whatever lies below `flushed`;
/// mfq_wait(queue, MFQ_FLUSHED, offset, 0) tells in addition whether what is missing still can come: POISONED and
/// CLOSED say no. Reading first and looking second loses nothing. Events that come together are one, and one may come
/// of which an earlier look has seen everything. Do not write to it.
///
/// Errors: INVALID, CLOSED, IO (there are no more descriptors: mfq_last_errno).
///
/// Ownership: it is the queue's, do not close it. mfq_close makes it readable and then closes it; its number may be
/// given to another file from then on, so a host must be done with it before. A host that polls in one thread while
/// another may close polls a dup(2) of it, which it closes itself: that one is readable after mfq_close, and calls with
/// the queue then answer CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_event_fd(queue: *mut mfq_queue_t, fd: *mut i32) -> mfq_status_t {
    guard(queue, || {
        let queue = handles::queue(queue, "mfq_event_fd: queue")?;
        // SAFETY: the host says that `fd` is its own; checked for NULL and alignment.
        let out = unsafe { decode::output(fd, "mfq_event_fd: fd")? };
        out.write(queue.event_fd()?);
        Ok(())
    })
}

/// Waits until everything below `offset` is readable (`which` MFQ_COMMITTED) or on stable storage (MFQ_FLUSHED). It
/// only waits and does not flush; but in MFQ_STAGED who waits for MFQ_COMMITTED commits.
///
/// Errors: INVALID (unknown `which` too), CLOSED, TIMEOUT, END (while it waited, mfq_truncate_after has moved the end of
/// the log to before `offset`), POISONED, IO or NO_SPACE (that commit failed: the queue is poisoned from now on).
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

/// Tells what mfq_open found: how the queue had been left, where it ended, what was cut. The host sets
/// report->struct_size.
///
/// Errors: INVALID, CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_recovery(queue: *mut mfq_queue_t, report: *mut mfq_recovery_t) -> mfq_status_t {
    guard(queue, || {
        let queue = handles::queue(queue, "mfq_recovery: queue")?;
        // SAFETY: the host says that `report` is its own and set its size; checked there.
        let out = unsafe { decode::sized_output(report, "mfq_recovery: report")? };
        out.write(encode::recovery(&queue.recovery()?));
        Ok(())
    })
}

/// A walker over RocketMQ's messages (stores 4.x and 5.x), for mfq_options_t.walk; `context` is not used. A message is
/// whole if its magic is known, its lengths add up to its size, and the CRC of its body is right; a blank reaches to
/// the end of the file. May be called from anywhere, and answers -1 if `bytes` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_walk_rocketmq(context: *mut c_void, bytes: *const u8, available: usize) -> i64 {
    let _ = context;
    // SAFETY: the caller says that so many bytes can be read.
    let read = unsafe { decode::mapped(bytes, available) };
    // No handle, no lock, no callback: a panic could only be a bug of the walk, and ends it.
    std::panic::catch_unwind(AssertUnwindSafe(|| read.map_or(-1, |read| rocketmq::unit_bytes(available as u64, read))))
        .unwrap_or(-1)
}

/// Cuts the log at `offset`, durably: everything there and behind is gone when this returns, and the next append goes
/// there. In MFQ_RECORD a record has to begin or end at `offset`; in MFQ_RAW it is any byte. All offsets that
/// mfq_offsets tells may move back. Files and views that are held stay as they are; a reader behind the new end finds
/// nothing, or what is appended later, and should be set to an offset of a record by mfq_reader_seek.
///
/// Appends, mfq_get_last and an mfq_flush of UINT64_MAX that come meanwhile wait for it as long as they may wait at all;
/// mfq_offsets and an mfq_flush_start of UINT64_MAX wait whatever their time. mfq_wait and mfq_flush for what is cut off
/// end with MFQ_E_END. In MFQ_STAGED everything is committed first.
///
/// A crash at any moment leaves the log as it was, or a beginning of it that reaches to `offset` at least. The file that
/// is cut is copied up to `offset`, which takes space for one file more until this returns.
///
/// Errors: INVALID (`offset` lies within a record, below the first offset, or beyond the end), CLOSED, BUSY (a claim is
/// open, or no buffer of MFQ_STAGED is free), READ_ONLY, POISONED; nothing has happened then. NO_SPACE, NO_MEMORY, IO:
/// nothing has happened, or the queue is poisoned from now on, and opening it anew shows how far it came.
///
/// Blocks: for the disk, and for appends that are under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_truncate_after(queue: *mut mfq_queue_t, offset: u64) -> mfq_status_t {
    guard(queue, || truncate(queue, "mfq_truncate_after: queue", |queue| queue.truncate_after(offset)))
}

/// Removes the files that end at or before `offset`, durably, but never the last one: what lies below is NOT_FOUND from
/// then on, and mfq_offsets_t.min moves to the beginning of the file in which `offset` lies. Files and views that are
/// held stay readable; a file's space comes back once nothing holds it any more, and no call that was inside the queue
/// when it was removed still is (with a later truncation, if such a call takes its time).
///
/// Appends go on meanwhile. A crash at any moment leaves all of it or none; files that are left over are removed by the
/// next mfq_open.
///
/// Errors: INVALID (`offset` is beyond what is committed), CLOSED, READ_ONLY, POISONED; nothing has happened then. IO,
/// NO_SPACE: nothing has happened, or the files are gone from the queue and some stay on disk until the next mfq_open.
///
/// Blocks: for the disk, and for a flush that is at work.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_truncate_before(queue: *mut mfq_queue_t, offset: u64) -> mfq_status_t {
    guard(queue, || truncate(queue, "mfq_truncate_before: queue", |queue| queue.truncate_before(offset)))
}

fn truncate(handle: *mut mfq_queue_t, what: &'static str, truncate: impl FnOnce(&Queue) -> Result<()>) -> Result<()> {
    let queue = handles::queue(handle, what)?;
    let outcome = truncate(&queue);
    // SAFETY: every call on a queue is pinned by its handle, and rests only where it keeps no reference to a file; this
    // one is done with them.
    unsafe { queue.release_removed(|| pin::is_unused(handles::number(handle))) };
    outcome
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
