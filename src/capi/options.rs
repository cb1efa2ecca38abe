//! The options of `mfq_open`, in the core's types.

use super::constants::*;
use super::decode::{checked, expect_callbacks, invalid, struct_size};
use super::types::mfq_options_t;
use crate::error::Result;
use crate::options::{Filler, FlushPolicy, Format, Mode, Options, Walk};
use std::ffi::c_void;
use std::mem::size_of;
use std::sync::Arc;
use std::{ptr, slice};

/// # Safety
/// `pointer` is NULL, or leads to a size_t, and if that is sensible, to so many bytes valid for reading.
pub unsafe fn decode(pointer: *const mfq_options_t) -> Result<Options> {
    const WHAT: &str = "mfq_open: options";
    if pointer.is_null() {
        return Ok(Options::default());
    }
    let place = checked(pointer, WHAT)?;
    // SAFETY: the caller's promise.
    let size = unsafe { struct_size(place, WHAT)? };
    let ours = size_of::<mfq_options_t>();
    let from = place.cast::<u8>().as_ptr();
    // SAFETY: all zeros is a valid mfq_options_t, and both sides have as many bytes as are copied and looked at.
    let options = unsafe {
        let mut options: mfq_options_t = std::mem::zeroed();
        ptr::copy_nonoverlapping(from, (&raw mut options).cast::<u8>(), size.min(ours));
        if slice::from_raw_parts(from, size)[size.min(ours)..].iter().any(|&byte| byte != 0) {
            return Err(invalid(WHAT, "sets something that this version of the library does not know"));
        }
        options
    };
    core_options(&options)
}

fn core_options(options: &mfq_options_t) -> Result<Options> {
    let unknown =
        |name: &str, value: u32| invalid("mfq_open: options:", format_args!("{name} is {value}, not a known number"));
    let format = match options.format {
        MFQ_RECORD => Format::Record,
        MFQ_RAW => Format::Raw,
        other => return Err(unknown("format", other)),
    };
    let filler = match options.filler {
        MFQ_FILLER_ZERO => Filler::Zero,
        MFQ_FILLER_ROCKETMQ => Filler::RocketMq,
        other => return Err(unknown("filler", other)),
    };
    let mode = match options.mode {
        MFQ_MMAP => Mode::Mmap,
        MFQ_STAGED => Mode::Staged,
        other => return Err(unknown("mode", other)),
    };
    let flush_policy = match options.flush_policy {
        MFQ_FLUSH_NONE => FlushPolicy::None,
        MFQ_FLUSH_INTERVAL => FlushPolicy::Interval,
        MFQ_FLUSH_LEAST_PAGES => FlushPolicy::LeastPages,
        MFQ_FLUSH_EVERY_APPEND => FlushPolicy::EveryAppend,
        other => return Err(unknown("flush_policy", other)),
    };
    for (name, value) in
        [("flush_interval_ms", options.flush_interval_ms), ("commit_interval_ms", options.commit_interval_ms)]
    {
        if value < 0 {
            return Err(invalid("mfq_open: options:", format_args!("{name} is {value}, and must not be negative")));
        }
    }
    const KNOWN: u32 = MFQ_OPEN_EXISTING
        | MFQ_OPEN_READ_ONLY
        | MFQ_OPEN_NO_WAIT
        | MFQ_OPEN_ADOPT
        | MFQ_OPEN_STRICT
        | MFQ_OPEN_SALVAGE
        | MFQ_OPEN_LOCK_POOL
        | MFQ_OPEN_POOL_FAIL_FAST
        | MFQ_OPEN_NETWORK;
    let flags = options.flags;
    if flags & !KNOWN != 0 {
        return Err(invalid("mfq_open: options:", format_args!("flags has the unknown bits {:#x}", flags & !KNOWN)));
    }
    let has = |flag: u32| flags & flag != 0;
    Ok(Options {
        file_size: options.file_size,
        start_offset: options.start_offset,
        format,
        filler,
        append_timeout_ms: options.append_timeout_ms,
        files_ahead: options.files_ahead,
        permissions: options.permissions,
        existing: has(MFQ_OPEN_EXISTING),
        read_only: has(MFQ_OPEN_READ_ONLY),
        no_wait: has(MFQ_OPEN_NO_WAIT),
        mode,
        flush_policy,
        flush_interval_ms: options.flush_interval_ms as u32,
        flush_least_pages: options.flush_least_pages,
        pool_buffers: options.pool_buffers,
        commit_interval_ms: options.commit_interval_ms as u32,
        lock_pool: has(MFQ_OPEN_LOCK_POOL),
        pool_fail_fast: has(MFQ_OPEN_POOL_FAIL_FAST),
        walk: options.walk.map(|walk| host_walk(walk, options.walk_context)),
        adopt: has(MFQ_OPEN_ADOPT),
        strict: has(MFQ_OPEN_STRICT),
        salvage: has(MFQ_OPEN_SALVAGE),
        network: has(MFQ_OPEN_NETWORK),
    })
}

struct Context(*mut c_void);
// SAFETY: the library only hands the pointer back, to the walker that it was given with, during mfq_open.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

fn host_walk(walk: unsafe extern "C" fn(*mut c_void, *const u8, usize) -> i64, context: *mut c_void) -> Walk {
    expect_callbacks();
    let context = Context(context);
    Walk(Arc::new(move |bytes, available| {
        let Context(context) = &context;
        // SAFETY: the host keeps `walk` callable while its queue is being opened; the caller says that the bytes are
        // there.
        unsafe { walk(*context, bytes, available) }
    }))
}
