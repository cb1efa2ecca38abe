//! The options of `mfq_open`, in the core's types.

use super::constants::*;
use super::decode::{checked, invalid, struct_size};
use super::types::mfq_options_t;
use crate::error::{Error, Result, Status};
use crate::options::{Filler, Format, Options};
use std::mem::size_of;
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
    if options.mode > MFQ_STAGED {
        return Err(unknown("mode", options.mode));
    }
    if options.flush_policy > MFQ_FLUSH_EVERY_APPEND {
        return Err(unknown("flush_policy", options.flush_policy));
    }
    for (name, value) in
        [("flush_interval_ms", options.flush_interval_ms), ("commit_interval_ms", options.commit_interval_ms)]
    {
        if value < 0 {
            return Err(invalid("mfq_open: options:", format_args!("{name} is {value}, and must not be negative")));
        }
    }
    const SERVED: u32 = MFQ_OPEN_EXISTING | MFQ_OPEN_READ_ONLY | MFQ_OPEN_NO_WAIT;
    const LATER: u32 =
        MFQ_OPEN_ADOPT | MFQ_OPEN_STRICT | MFQ_OPEN_SALVAGE | MFQ_OPEN_LOCK_POOL | MFQ_OPEN_POOL_FAIL_FAST;
    let flags = options.flags;
    if flags & !(SERVED | LATER) != 0 {
        let bits = flags & !(SERVED | LATER);
        return Err(invalid("mfq_open: options:", format_args!("flags has the unknown bits {bits:#x}")));
    }
    refuse_what_comes_later(options, flags & LATER)?;
    Ok(Options {
        file_size: options.file_size,
        start_offset: options.start_offset,
        format,
        filler,
        append_timeout_ms: options.append_timeout_ms,
        files_ahead: options.files_ahead,
        permissions: options.permissions,
        existing: flags & MFQ_OPEN_EXISTING != 0,
        read_only: flags & MFQ_OPEN_READ_ONLY != 0,
        no_wait: flags & MFQ_OPEN_NO_WAIT != 0,
    })
}

fn refuse_what_comes_later(options: &mfq_options_t, flags: u32) -> Result<()> {
    let what = if options.mode != MFQ_MMAP {
        "mode MFQ_STAGED"
    } else if options.flush_policy != MFQ_FLUSH_NONE {
        "a flush_policy other than MFQ_FLUSH_NONE"
    } else if options.walk.is_some() {
        "walk"
    } else if flags != 0 {
        "one of the flags ADOPT, STRICT, SALVAGE, LOCK_POOL and POOL_FAIL_FAST"
    } else {
        return Ok(());
    };
    Err(Error::new(Status::Unsupported, format!("mfq_open: options: {what} is not supported in this version")))
}
