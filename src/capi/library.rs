//! What concerns the library as a whole: versions, errors, the log, options.

use super::constants::*;
use super::types::*;
use super::{decode, guard, last_error};
use crate::error::{Error, Result, Status};
use crate::log::{self, Level};
use crate::os;
use std::ffi::{CStr, c_char, c_void};

/// ---- THE LIBRARY -----------------------------------------------------------------------------------
///
/// Sets every option to its default: fills `struct_size` bytes with zero and stores `struct_size`, the host's
/// sizeof(mfq_options_t). Does nothing if `options` is NULL or `struct_size` is senseless.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_options_init(options: *mut mfq_options_t, struct_size: usize) {
    if options.is_null() || !options.is_aligned() || !decode::SENSIBLE_SIZES.contains(&struct_size) {
        return;
    }
    // SAFETY: the host says that `struct_size` bytes are its own; the first of them are the size (checked: it fits).
    unsafe {
        options.cast::<u8>().write_bytes(0, struct_size);
        options.cast::<usize>().write(struct_size);
    }
}

/// The version of the library, such as "0.1.0". Static.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The MFQ_ABI_VERSION of the library: a host compiled with the same one can use it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_abi_version() -> u32 {
    MFQ_ABI_VERSION
}

/// A sentence for a status, for a number that is none too. Static.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_strerror(status: mfq_status_t) -> *const c_char {
    sentence(status).as_ptr()
}

fn sentence(status: mfq_status_t) -> &'static CStr {
    match status {
        MFQ_OK => c"success",
        MFQ_E_INVALID => c"an argument is invalid",
        MFQ_E_TIMEOUT => c"the time given was not enough",
        MFQ_E_END => c"the end of the queue is reached",
        MFQ_E_NOT_FOUND => c"not found",
        MFQ_E_TOO_LARGE => c"too large",
        MFQ_E_NO_SPACE => c"no space left",
        MFQ_E_NO_MEMORY => c"no memory left",
        MFQ_E_IO => c"a system call failed",
        MFQ_E_CORRUPT => c"the data is corrupt",
        MFQ_E_LOCKED => c"the queue is open elsewhere",
        MFQ_E_CLOSED => c"the handle is closed",
        MFQ_E_BUSY => c"in use by another call",
        MFQ_E_READ_ONLY => c"the queue is open for reading only",
        MFQ_E_VERSION => c"the queue was written by a newer version",
        MFQ_E_UNSUPPORTED => c"not supported",
        MFQ_E_NOT_DURABLE => c"appended, but not known to be durable",
        MFQ_E_POISONED => c"an earlier failure poisoned the queue",
        MFQ_E_PANIC => c"a fault inside the library",
        MFQ_E_FORKED => c"called in a forked child",
        MFQ_E_REENTRANT => c"called from inside a callback",
        _ => c"not a status of this library",
    }
}

/// Copies the sentence about this thread's last failure to `buf`: at most `cap` bytes, NUL included, shortened if need
/// be. Returns its full length without the NUL, at most 511; 0 if no call of this thread has failed. `buf` may be NULL
/// and `cap` 0: that asks for the length. A call that succeeds does not change the sentence.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_last_error(buf: *mut c_char, cap: usize) -> usize {
    // SAFETY: the host says that `buf` is NULL or valid for `cap` bytes.
    unsafe { last_error::copy(buf.cast(), cap) }
}

/// The system's error number (errno) of this thread's last failure; 0 if no system call was the reason.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_last_errno() -> i32 {
    last_error::errno()
}

/// Has the library's messages of `level` and below (MFQ_LOG_ERROR is the lowest) handed to `log`, together with
/// `context`; there is one for the whole process, and a new one replaces it. `log` NULL or `level` 0 removes it.
///
/// It is called on any thread of the host that is inside a call, and on the library's own; several may call it at once.
/// It must return soon: an append may be waiting for it. It must not call the library: functions that take a handle or
/// open one answer MFQ_E_REENTRANT there. A call that has begun may still run when mfq_set_log replaces the function,
/// so `context` should live as long as the process.
///
/// Errors: INVALID (unknown level).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_set_log(log: mfq_log_fn_t, context: *mut c_void, level: i32) -> mfq_status_t {
    guard((), || {
        decode::admitted()?;
        match (decode_level(level)?, log) {
            (Some(most), Some(log)) => {
                decode::expect_callbacks();
                log::set_sink(Some(sink(log, Context(context))), most);
            }
            _ => log::set_sink(None, Level::Error),
        }
        Ok(())
    })
}

/// Installs a handler for SIGBUS, which the kernel raises when a mapped file is touched where the device fails, or
/// where somebody has cut the file off. In a mapping of the library it puts a page of zeros in the place of the one
/// that is lost, so that the thread goes on; the call in which that happened, or mfq_view_release and mfq_commit of the
/// memory in which it did, answer MFQ_E_IO, and the queue is poisoned: nothing is published or called durable that was
/// stored there. What lies in other pages is still read, unless the process has no room for another mapping
/// (vm.max_map_count): then the whole file is lost to it. Memory of a mfq_file_t is watched as well, but nobody tells.
///
/// Every other SIGBUS goes to what was installed before, as if this were not there: a handler with its mask, or the
/// death of the process. A handler that the host installs later has to pass on what it does not know, by what sigaction
/// gave it.
///
/// For the whole process and for ever; calling it again changes nothing. Works for queues that are open already.
///
/// Errors: IO (sigaction failed).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mfq_install_sigbus_guard() -> mfq_status_t {
    guard((), || {
        decode::admitted()?;
        os::install_sigbus_guard().map_err(|cause| Error::system("mfq_install_sigbus_guard: sigaction", cause))
    })
}

fn decode_level(level: i32) -> Result<Option<Level>> {
    match level {
        0 => Ok(None),
        MFQ_LOG_ERROR => Ok(Some(Level::Error)),
        MFQ_LOG_WARN => Ok(Some(Level::Warn)),
        MFQ_LOG_INFO => Ok(Some(Level::Info)),
        MFQ_LOG_DEBUG => Ok(Some(Level::Debug)),
        _ => Err(Error::new(Status::Invalid, format!("mfq_set_log: level {level} is unknown"))),
    }
}

struct Context(*mut c_void);
// SAFETY: the library only hands the pointer back; the header tells the host that this happens on any thread.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

type Sink = Box<dyn Fn(Level, &str) + Send + Sync>;
type LogFn = unsafe extern "C" fn(*mut c_void, i32, *const c_char);

fn sink(log: LogFn, context: Context) -> Sink {
    Box::new(move |level, message| {
        let Context(context) = &context;
        // On the stack: a message about exhausted memory must not need memory.
        let mut text = [0u8; 1024];
        last_error::copy_text(message, &mut text);
        // SAFETY: the host keeps `log` callable until it replaces it; `text` ends with NUL.
        unsafe { log(*context, level as i32, text.as_ptr().cast()) }
    })
}
