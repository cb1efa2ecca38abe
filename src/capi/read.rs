//! Reading: a copy, a view, a reader that goes forward.

use super::handles::{self, HeldView, OpenReader, QUEUES, READERS, VIEWS};
use super::types::*;
use super::{decode, encode, guard};
use crate::deadline::Deadline;
use crate::directory::file_name;
use crate::error::{Error, Status};
use crate::queue::lost_page;
use crate::reader::ReadOutcome;
use crate::reader::Reader;
use parking_lot::Mutex;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

/// ---- READING ---------------------------------------------------------------------------------------
///
/// Copies one record to `buf`, which has room for `cap` bytes. `len` tells its length, `next` where to read next.
///
/// RECORD: the first record at or after `offset`; padding is skipped. Its checksum is verified. A record longer than
/// `cap` is TOO_LARGE: then `*len` is written all the same and tells the length needed, nothing else is; `buf` may be
/// NULL if `cap` is 0. RAW: what is committed from `offset` on, at most `cap` bytes and not beyond the end of the file;
/// filler is bytes like others, `*next` is offset + *len, and `cap` 0 is INVALID.
///
/// Errors: INVALID (RECORD: `offset` is not a multiple of 8), CLOSED, END (`offset` is at or beyond committed),
/// NOT_FOUND (before the first offset kept), CORRUPT (damaged, or `offset` is not the start of a record), TOO_LARGE, IO
/// (under mfq_install_sigbus_guard). After CORRUPT and IO the bytes of `buf` are undefined.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_read(
    queue: *mut mfq_queue_t,
    offset: u64,
    buf: *mut c_void,
    cap: usize,
    len: *mut usize,
    next: *mut u64,
) -> mfq_status_t {
    guard(queue, || {
        let queue = handles::queue(queue, "mfq_read: queue")?;
        // SAFETY: the host says that the pointers are its own; checked for NULL and alignment.
        let (buf, out_len, out_next) = unsafe {
            (
                decode::buffer(buf, cap, "mfq_read: buf")?,
                decode::output(len, "mfq_read: len")?,
                decode::output(next, "mfq_read: next")?,
            )
        };
        // SAFETY: the host says that `buf` has room for `cap` bytes.
        match unsafe { queue.read(offset, buf, cap)? } {
            ReadOutcome::Copied { len, next } => {
                out_len.write(len);
                out_next.write(next);
                Ok(())
            }
            ReadOutcome::TooSmall { len } => {
                out_len.write(len);
                let message =
                    format!("mfq_read: the record at {offset} has {len} bytes, more than cap, which is {cap}");
                Err(Error::new(Status::TooLarge, message))
            }
        }
    })
}

/// Gives a record in place, as mfq_read would copy it, and holds its file. RAW: everything from `offset` to the end of
/// what is committed in this file. The bytes stay readable until mfq_view_release, also after mfq_close. They must not
/// be written.
///
/// Errors: as mfq_read, and NO_MEMORY (about a million views are held).
///
/// Ownership: the host ends it with mfq_view_release.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_view(queue: *mut mfq_queue_t, offset: u64, view: *mut mfq_view_t) -> mfq_status_t {
    guard(queue, || {
        let handle = handles::number(queue);
        let queue = handles::queue(queue, "mfq_view: queue")?;
        // SAFETY: the host says that `view` is its own; checked for NULL and alignment.
        let out = unsafe { decode::output(view, "mfq_view: view")? };
        let view = queue.view(offset)?;
        let encoded = encode::view(&view);
        let at = view.ptr.addr() - view.file.base().addr();
        let held = HeldView { queue: handle, file: view.file, at: at as u64, len: view.len as u64 };
        let token = [VIEWS.insert(held)?, 0];
        out.write(mfq_view_t { token, ..encoded });
        Ok(())
    })
}

/// Ends a view that mfq_view gave; its bytes must not be read any more. From any thread.
///
/// Errors: INVALID (a view of mfq_reader_next, which is not released, too), CLOSED (released before), IO (under
/// mfq_install_sigbus_guard: a page of it was lost, and some of its bytes may have been read as zeros; it is released).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_view_release(view: *mut mfq_view_t) -> mfq_status_t {
    guard((), || {
        decode::admitted()?;
        // SAFETY: the host says that `view` is one that mfq_view wrote; checked for NULL and alignment.
        let handle = unsafe { decode::view(view, "mfq_view_release: view")? };
        let HeldView { queue, file, at, len } = VIEWS.take(handle, "mfq_view_release: view")?;
        match QUEUES.pin(queue, "mfq_view_release: the queue of the view") {
            Ok(queue) => queue.check_intact(&file, at, len),
            Err(_) if file.is_intact(at, len) => Ok(()),
            Err(_) => Err(lost_page(&file_name(file.start()))),
        }
    })
}

/// Opens a reader whose first record is the first one at or after `offset`. `offset` may be the end of the queue or lie
/// beyond it: mfq_reader_next then waits for what is appended there.
///
/// Errors: INVALID (RECORD: `offset` is not a multiple of 8), CLOSED, NOT_FOUND (before the first offset kept),
/// NO_MEMORY.
///
/// Ownership: the host ends it with mfq_reader_close, also after mfq_close.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_reader_open(
    queue: *mut mfq_queue_t,
    offset: u64,
    reader: *mut *mut mfq_reader_t,
) -> mfq_status_t {
    guard(queue, || {
        let handle = handles::number(queue);
        let queue = handles::queue(queue, "mfq_reader_open: queue")?;
        // SAFETY: the host says that `reader` is its own; checked for NULL and alignment.
        let out = unsafe { decode::output(reader, "mfq_reader_open: reader")? };
        let state = Mutex::new(Reader::open(&queue, offset)?);
        let opened = OpenReader { queue: handle, cancelled: AtomicBool::new(false), state };
        out.write(handles::pointer(READERS.insert(Box::new(opened))?));
        Ok(())
    })
}

/// Gives the next record in place and moves on. If there is none yet, waits for it. RAW: everything from the reader's
/// position to the end of what is committed in this file. The bytes are valid until the next call on this reader, its
/// close included; the view is not released.
///
/// Errors: INVALID, CLOSED (the reader or its queue is or was closed), END (none yet, and timeout_ms is 0), TIMEOUT
/// (none yet after timeout_ms), BUSY (another thread is inside a call on this reader), NOT_FOUND, CORRUPT, POISONED
/// (none yet, and none may ever come), IO (under mfq_install_sigbus_guard: this record or the one before lies in a page
/// that is lost). The position is then as before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_reader_next(
    reader: *mut mfq_reader_t,
    timeout_ms: i32,
    view: *mut mfq_view_t,
) -> mfq_status_t {
    guard(reader, || {
        let reader = handles::reader(reader, "mfq_reader_next: reader")?;
        // SAFETY: the host says that `view` is its own; checked for NULL and alignment.
        let out = unsafe { decode::output(view, "mfq_reader_next: view")? };
        let mut state = reader.exclusively("mfq_reader_next")?;
        let queue = QUEUES.pin(reader.queue, "mfq_reader_next: the queue of the reader")?;
        // The file of this view is held by the reader as well, until its next call.
        let view = state.next(&queue, Deadline::after_ms(timeout_ms), &reader.cancelled)?;
        out.write(encode::view(&view));
        Ok(())
    })
}

/// Moves a reader: its next record is the first one at or after `offset`.
///
/// Errors: as mfq_reader_open, and BUSY (another thread is inside a call on this reader).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_reader_seek(reader: *mut mfq_reader_t, offset: u64) -> mfq_status_t {
    guard(reader, || {
        let reader = handles::reader(reader, "mfq_reader_seek: reader")?;
        let mut state = reader.exclusively("mfq_reader_seek")?;
        let queue = QUEUES.pin(reader.queue, "mfq_reader_seek: the queue of the reader")?;
        state.seek(&queue, offset)
    })
}

/// Ends a reader. A call on it that waits in another thread comes out with CLOSED. Works after mfq_close too.
///
/// Errors: INVALID, CLOSED (closed before).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_reader_close(reader: *mut mfq_reader_t) -> mfq_status_t {
    guard(reader, || {
        decode::admitted()?;
        READERS.close(handles::number(reader), "mfq_reader_close: reader", |reader| {
            reader.cancelled.store(true, Ordering::Release);
            // A queue that is closed has woken everybody by itself.
            if let Ok(queue) = QUEUES.pin(reader.queue, "mfq_reader_close: the queue of the reader") {
                queue.wake_waiters();
            }
        })?;
        Ok(())
    })
}
