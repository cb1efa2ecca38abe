//! What C hands in, checked, in the types of the core. Each error names the argument; nothing is read before it is
//! checked.

use super::types::*;
use crate::error::{Error, Result, Status};
use crate::{log, os};
use std::ffi::{CStr, OsStr, c_char, c_void};
use std::marker::PhantomData;
use std::mem::size_of;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};

/// Of a structure that begins with its size: it holds the size itself, and is not garbage.
pub const SENSIBLE_SIZES: RangeInclusive<usize> = size_of::<usize>()..=4096;

/// No slice of Rust may be longer.
const LONGEST: usize = isize::MAX as usize;

/// Whether there ever was a callback: until then no call has to look at a thread-local. Never taken back, because a
/// callback may still run when it is removed.
static CALLBACK_SET: AtomicBool = AtomicBool::new(false);

pub fn expect_callbacks() {
    CALLBACK_SET.store(true, Ordering::Relaxed);
}

/// Whether a call may come in: not in a forked child, where it must not touch a lock, and not from a callback.
#[inline]
pub fn admitted() -> Result<()> {
    if os::in_forked_child() {
        return Err(forked());
    }
    // Relaxed: a thread inside a callback has seen the function, which came to the library after the flag was set.
    if CALLBACK_SET.load(Ordering::Relaxed) { not_in_callback() } else { Ok(()) }
}

#[cold]
fn forked() -> Error {
    Error::new(Status::Forked, "the library was called in a forked child of the process that uses it")
}

/// Apart, so that the address of the thread-local is not looked up where it is not needed.
#[cold]
#[inline(never)]
fn not_in_callback() -> Result<()> {
    match log::in_callback() {
        true => Err(Error::new(Status::Reentrant, "the library was called from inside a callback of its own")),
        false => Ok(()),
    }
}

#[cold]
pub fn invalid(what: &str, problem: impl std::fmt::Display) -> Error {
    Error::new(Status::Invalid, format!("{what} {problem}"))
}

#[inline]
pub fn checked<T>(pointer: *const T, what: &'static str) -> Result<NonNull<T>> {
    let Some(pointer) = NonNull::new(pointer.cast_mut()) else {
        return Err(invalid(what, "is NULL"));
    };
    if !pointer.is_aligned() {
        return Err(invalid(what, format_args!("is not aligned to {} bytes", align_of::<T>())));
    }
    Ok(pointer)
}

/// A place of the host that a result goes to. Need not be initialised.
pub struct Output<T>(NonNull<T>);

impl<T> Output<T> {
    #[inline]
    pub fn write(&self, value: T) {
        // SAFETY: whoever made it said that the place is valid for a write and the host's own.
        unsafe { self.0.write(value) };
    }

    /// # Safety
    /// The host's place has more than `index` elements.
    pub unsafe fn add(&self, index: usize) -> Output<T> {
        // SAFETY: the caller's promise.
        Output(unsafe { self.0.add(index) })
    }
}

/// # Safety
/// `pointer` is NULL or valid for writing a `T` until the call ends.
#[inline]
pub unsafe fn output<T>(pointer: *mut T, what: &'static str) -> Result<Output<T>> {
    checked(pointer, what).map(Output)
}

/// # Safety
/// As for `output`.
#[inline]
pub unsafe fn span(pointer: *mut mfq_span_t, what: &'static str) -> Result<Option<Output<mfq_span_t>>> {
    // SAFETY: the caller's promise.
    if pointer.is_null() { Ok(None) } else { unsafe { output(pointer, what).map(Some) } }
}

/// An output structure of a size that the host chose.
pub struct SizedOutput<T> {
    place: NonNull<u8>,
    size: usize,
    of: PhantomData<T>,
}

impl<T> SizedOutput<T> {
    /// Writes as much as the host has room for, zeroes what it has beyond that, and leaves the size itself as it is.
    pub fn write(&self, value: T) {
        let head = size_of::<usize>();
        let common = self.size.min(size_of::<T>());
        // SAFETY: whoever made it said that `size` bytes are valid for writing, and `common` is not more than either
        // side.
        unsafe {
            let place = self.place.as_ptr();
            place.add(head).copy_from_nonoverlapping((&raw const value).cast::<u8>().add(head), common - head);
            place.add(common).write_bytes(0, self.size - common);
        }
    }
}

/// # Safety
/// `pointer` is NULL, or leads to a size_t, and if that is sensible, to so many bytes valid for writing. `T` is a
/// structure of the C surface that begins with its size and has no gaps.
pub unsafe fn sized_output<T>(pointer: *mut T, what: &'static str) -> Result<SizedOutput<T>> {
    let place = checked(pointer, what)?;
    // SAFETY: the caller's promise.
    let size = unsafe { struct_size(place, what)? };
    Ok(SizedOutput { place: place.cast(), size, of: PhantomData })
}

/// # Safety
/// `place` leads to a size_t.
pub unsafe fn struct_size<T>(place: NonNull<T>, what: &'static str) -> Result<usize> {
    // SAFETY: the caller's promise; aligned, as `T` is at least as strictly aligned.
    let size = unsafe { place.cast::<usize>().read() };
    if SENSIBLE_SIZES.contains(&size) {
        Ok(size)
    } else {
        Err(invalid(what, format_args!("has a struct_size of {size}, which makes no sense")))
    }
}

/// # Safety
/// `data` is NULL or valid for reading `len` bytes during `'a`.
#[inline]
pub unsafe fn bytes<'a>(data: *const c_void, len: usize, what: &'static str) -> Result<&'a [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(invalid(what, format_args!("is NULL but len is {len}")));
    }
    length(len, what)?;
    // SAFETY: not NULL, not too long, and otherwise the caller's promise.
    Ok(unsafe { slice::from_raw_parts(data.cast(), len) })
}

#[inline]
pub fn length(len: usize, what: &'static str) -> Result<()> {
    if len > LONGEST { Err(too_large(what)) } else { Ok(()) }
}

#[cold]
fn too_large(what: &str) -> Error {
    Error::new(Status::TooLarge, format!("{what} has more bytes than memory can hold"))
}

/// Slices of the host that have been checked, one by one and in their sum.
pub struct Slices<'a>(&'a [mfq_slice_t]);

impl<'a> Slices<'a> {
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        // SAFETY: `slices` has checked each, and the host says that they are valid and stay as they are.
        self.0.iter().map(
            |part| {
                if part.len == 0 { &[] } else { unsafe { slice::from_raw_parts(part.ptr.cast(), part.len) } }
            },
        )
    }
}

/// # Safety
/// `pointer` is NULL or leads to `count` slices, each of them valid for reading its length, all unchanged during `'a`.
pub unsafe fn slices<'a>(pointer: *const mfq_slice_t, count: usize, what: &'static str) -> Result<Slices<'a>> {
    let first = checked(pointer, what)?;
    if count == 0 {
        return Err(invalid(what, "has a count of 0"));
    }
    if count > LONGEST / size_of::<mfq_slice_t>() {
        return Err(too_large(what));
    }
    // SAFETY: aligned, not too long, and otherwise the caller's promise.
    let slices = unsafe { slice::from_raw_parts(first.as_ptr(), count) };
    let mut sum = 0usize;
    for (index, part) in slices.iter().enumerate() {
        if part.ptr.is_null() && part.len > 0 {
            return Err(invalid(what, format_args!("[{index}].ptr is NULL but its len is {}", part.len)));
        }
        sum = sum.checked_add(part.len).filter(|&sum| sum <= LONGEST).ok_or_else(|| too_large(what))?;
    }
    Ok(Slices(slices))
}

/// Where a read may copy to; a buffer of any size, also an absurd one, since only a record's length is written.
pub fn buffer(buf: *mut c_void, cap: usize, what: &'static str) -> Result<*mut u8> {
    if cap == 0 {
        return Ok(NonNull::dangling().as_ptr());
    }
    if buf.is_null() { Err(invalid(what, format_args!("is NULL but cap is {cap}"))) } else { Ok(buf.cast()) }
}

/// # Safety
/// `path` is NULL or ends with NUL and stays as it is during `'a`.
pub unsafe fn path<'a>(path: *const c_char, what: &'static str) -> Result<&'a Path> {
    let path = checked(path, what)?;
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(path.as_ptr()) }.to_bytes();
    if bytes.is_empty() { Err(invalid(what, "is empty")) } else { Ok(Path::new(OsStr::from_bytes(bytes))) }
}

/// What a walker sees of a file: copied out, as the bytes are mapped and somebody else may write them.
///
/// # Safety
/// `bytes` is NULL, or `available` bytes from it on stay valid for reading during `'a`.
pub unsafe fn mapped<'a>(bytes: *const u8, available: usize) -> Option<impl Fn(u64, &mut [u8]) + use<'a>> {
    (!bytes.is_null()).then_some(move |at: u64, to: &mut [u8]| {
        assert!(at <= available as u64 && to.len() as u64 <= available as u64 - at);
        // SAFETY: in bounds, and otherwise the caller's promise; `to` is not the host's.
        unsafe { to.as_mut_ptr().copy_from_nonoverlapping(bytes.add(at as usize), to.len()) }
    })
}

/// The token of a claim.
///
/// # Safety
/// `claim` is NULL or valid for reading.
#[inline]
pub unsafe fn claim(claim: *const mfq_claim_t, what: &'static str) -> Result<[u64; 2]> {
    let claim = checked(claim, what)?;
    // SAFETY: the caller's promise.
    Ok(unsafe { (*claim.as_ptr()).token })
}

/// The handle of a view.
///
/// # Safety
/// `view` is NULL or valid for reading.
pub unsafe fn view(view: *const mfq_view_t, what: &'static str) -> Result<u64> {
    let view = checked(view, what)?;
    // SAFETY: the caller's promise.
    match unsafe { (*view.as_ptr()).token } {
        [0, 0] => Err(invalid(what, "holds nothing; a reader's is valid until the next call on it and not released")),
        [handle, 0] => Ok(handle),
        _ => Err(invalid(what, "was not given by mfq_view")),
    }
}
