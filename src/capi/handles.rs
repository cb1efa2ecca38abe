//! What the handles of C stand for.

use super::decode;
use super::slots::{NO_CELL, Pinned, Table};
use super::types::*;
use crate::error::{Error, Result, Status};
use crate::mapped_file::MappedFile;
use crate::positions::Positions;
use crate::queue::OpenQueue;
use crate::reader::Reader;
use parking_lot::{Mutex, MutexGuard};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

// In boxes where a value is large: unused slots cost memory too.
pub static QUEUES: Table<OpenQueue, 1, 0> = Table::new();
// A cell of their own: a call on a file or a reader uses the queue as well.
pub static FILES: Table<HeldFile, 2, 1> = Table::new();
pub static READERS: Table<Box<OpenReader>, 3, 1> = Table::new();
pub static VIEWS: Table<HeldView, 4, NO_CELL> = Table::new();

pub struct HeldFile {
    /// A handle, not a reference: a held file does not keep its queue open.
    pub queue: u64,
    pub file: Arc<MappedFile>,
    /// Of the queue, which may be closed by now.
    pub positions: Arc<Positions>,
}

/// `len` bytes from `at` of a file.
pub struct HeldView {
    /// As in `HeldFile`.
    pub queue: u64,
    pub file: Arc<MappedFile>,
    pub at: u64,
    pub len: u64,
}

pub struct OpenReader {
    /// A handle, not a reference: a reader does not keep its queue open.
    pub queue: u64,
    pub cancelled: AtomicBool,
    pub state: Mutex<Reader>,
}

impl OpenReader {
    pub fn exclusively(&self, call: &str) -> Result<MutexGuard<'_, Reader>> {
        let busy = || Error::new(Status::Busy, format!("{call}: another thread is inside a call on this reader"));
        self.state.try_lock().ok_or_else(busy)
    }
}

#[inline(always)]
pub fn queue(handle: *mut mfq_queue_t, what: &'static str) -> Result<Pinned<OpenQueue>> {
    decode::admitted()?;
    QUEUES.pin(number(handle), what)
}

pub fn file(handle: *mut mfq_file_t, what: &'static str) -> Result<Pinned<HeldFile>> {
    decode::admitted()?;
    FILES.pin(number(handle), what)
}

pub fn reader(handle: *mut mfq_reader_t, what: &'static str) -> Result<Pinned<Box<OpenReader>>> {
    decode::admitted()?;
    READERS.pin(number(handle), what)
}

/// What an exported function was called with, as far as it leads to a queue.
pub trait About: Copy {
    fn queue(self) -> Option<u64>;
}

impl About for () {
    fn queue(self) -> Option<u64> {
        None
    }
}

impl About for *mut mfq_queue_t {
    fn queue(self) -> Option<u64> {
        Some(number(self))
    }
}

impl About for *mut mfq_file_t {
    fn queue(self) -> Option<u64> {
        FILES.pin(number(self), "file").ok().map(|held| held.queue)
    }
}

impl About for *mut mfq_reader_t {
    fn queue(self) -> Option<u64> {
        READERS.pin(number(self), "reader").ok().map(|reader| reader.queue)
    }
}

impl About for *mut mfq_claim_t {
    fn queue(self) -> Option<u64> {
        // SAFETY: the host says that it is one that mfq_claim wrote; checked for NULL and alignment.
        unsafe { decode::claim(self, "claim") }.ok().map(|[queue, _]| queue)
    }
}

#[inline]
pub fn number<T>(handle: *mut T) -> u64 {
    handle.addr() as u64
}

pub fn pointer<T>(handle: u64) -> *mut T {
    ptr::without_provenance_mut(handle as usize)
}
