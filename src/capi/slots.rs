//! Handles: an index and a generation in the shape of an opaque pointer, never dereferenced. Slots are in memory that
//! is never freed and are used again under a new generation, so a handle used after its close is found out, for ever.

use crate::error::{Error, Result, Status};
use crate::os::heavy_barrier;
use crate::pin::{self, Pin};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

// A handle, from its lowest bit: 1, kind, index, generation. Odd, so that no pointer of an allocator looks like one.
const KIND_BITS: u32 = 3;
const INDEX_SHIFT: u32 = 1 + KIND_BITS;
const INDEX_BITS: u32 = 20;
const GENERATION_SHIFT: u32 = INDEX_SHIFT + INDEX_BITS;
const LAST_GENERATION: u64 = u64::MAX >> GENERATION_SHIFT;

/// The state of a slot that no handle leads to.
const DEAD: u64 = 0;

/// The first chunk; each further one is twice as large as the one before.
const FIRST_CHUNK: usize = 64;
const CHUNKS: usize = 14;
const MOST_SLOTS: usize = FIRST_CHUNK * ((1 << CHUNKS) - 1);
const _: () = assert!(MOST_SLOTS < 1 << INDEX_BITS);

struct Slot<T> {
    /// The handle that leads here, or DEAD.
    state: AtomicU64,
    /// The last generation given out; 0 is none.
    generation: AtomicU64,
    /// On the free list: the next index plus one, 0 at its end.
    next_free: AtomicU32,
    value: UnsafeCell<MaybeUninit<T>>,
}

/// All handles of one kind. `CELL` is where a call writes down that it uses one; `NO_CELL`: calls take such a handle's
/// value out and never use it in its place.
pub struct Table<T: 'static, const KIND: u64, const CELL: usize> {
    chunks: [AtomicPtr<Slot<T>>; CHUNKS],
    used: AtomicU32,
    /// The first free index plus one in the low `INDEX_BITS`, and above a count that makes each head another value.
    free: AtomicU64,
}

pub const NO_CELL: usize = usize::MAX;

// SAFETY: a value is shared by the calls that have it pinned (Sync) and leaves in the thread that closes it (Send).
unsafe impl<T: Send + Sync, const KIND: u64, const CELL: usize> Sync for Table<T, KIND, CELL> {}

impl<T: Send + Sync, const KIND: u64, const CELL: usize> Table<T, KIND, CELL> {
    pub const fn new() -> Self {
        assert!(KIND != 0 && KIND < 1 << KIND_BITS);
        let chunks = [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS];
        Table { chunks, used: AtomicU32::new(0), free: AtomicU64::new(0) }
    }

    pub fn insert(&'static self, value: T) -> Result<u64> {
        Ok(self.reserve()?.fill(value))
    }

    /// A slot to fill later, for a value that is hard to undo.
    pub fn reserve(&'static self) -> Result<Vacant<T, KIND, CELL>> {
        let index = match self.pop_free() {
            Some(index) => index,
            None => self.next_unused()?,
        };
        let slot = self.at(index).expect("the chunk of an index in use");
        Ok(Vacant { table: self, slot, index })
    }

    /// Holds the value in its place: it is not closed under the call. (Always inlined: it is on the path of each
    /// append, and as a call of its own it costs twice as much.)
    #[inline(always)]
    pub fn pin(&'static self, handle: u64, what: &'static str) -> Result<Pinned<T>> {
        const { assert!(CELL != NO_CELL, "values of this table are not used in their place") };
        if let Some(slot) = self.find(handle) {
            // Looked at first, so that calls with a dead handle write nothing down and a close need not wait for them.
            if slot.state.load(Ordering::Relaxed) == handle {
                let pin = pin::pin::<CELL>(handle);
                if slot.state.load(Ordering::Acquire) == handle {
                    return Ok(Pinned { value: slot.value.get().cast(), _pin: pin });
                }
            }
        }
        Err(self.refuse(handle, what))
    }

    /// Ends a handle: `begin` brings calls out that wait, then all that are inside are waited for. One caller wins.
    pub fn close(&'static self, handle: u64, what: &'static str, begin: impl FnOnce(&T)) -> Result<T> {
        let slot = self.end(handle, what)?;
        // SAFETY: the state led here, so there is a value, and nobody else takes it out: only the one who ended it
        // does.
        begin(unsafe { (*slot.value.get()).assume_init_ref() });
        heavy_barrier();
        pin::wait_for(handle);
        Ok(self.take_out(slot, handle))
    }

    /// Ends a handle whose value is not used in its place, so that there is nobody to wait for.
    pub fn take(&'static self, handle: u64, what: &'static str) -> Result<T> {
        const { assert!(CELL == NO_CELL, "values of this table may be in use") };
        let slot = self.end(handle, what)?;
        Ok(self.take_out(slot, handle))
    }

    fn end(&'static self, handle: u64, what: &'static str) -> Result<&'static Slot<T>> {
        let slot = self.find(handle).ok_or_else(|| self.refuse(handle, what))?;
        match slot.state.compare_exchange(handle, DEAD, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => Ok(slot),
            Err(_) => Err(self.refuse(handle, what)),
        }
    }

    fn take_out(&'static self, slot: &'static Slot<T>, handle: u64) -> T {
        // SAFETY: the caller ended the handle, so this happens once, and no call uses the value any more (`wait_for`,
        // or a table without a cell).
        let value = unsafe { (*slot.value.get()).assume_init_read() };
        self.give_back(slot, index_of(handle));
        value
    }

    fn give_back(&self, slot: &Slot<T>, index: usize) {
        // A slot that has used up its generations is left alone: its handles stay closed.
        if slot.generation.load(Ordering::Relaxed) < LAST_GENERATION {
            self.push_free(slot, index);
        }
    }

    /// The slot that a handle leads to if it is one of this kind, whatever its generation.
    #[inline]
    fn find(&self, handle: u64) -> Option<&'static Slot<T>> {
        if handle & ((1 << INDEX_SHIFT) - 1) != (KIND << 1 | 1) {
            return None;
        }
        self.at(index_of(handle))
    }

    #[inline]
    fn at(&self, index: usize) -> Option<&'static Slot<T>> {
        if index >= MOST_SLOTS {
            return None;
        }
        let (chunk, place) = place(index);
        let first = self.chunks[chunk].load(Ordering::Acquire);
        if first.is_null() {
            return None;
        }
        // SAFETY: a chunk is never freed, all zeros is a valid slot without a value, and `place` is below its length.
        Some(unsafe { &*first.add(place) })
    }

    #[cold]
    fn refuse(&self, handle: u64, what: &'static str) -> Error {
        if handle == 0 {
            return Error::new(Status::Invalid, format!("{what} is NULL"));
        }
        let last = self.find(handle).map_or(0, |slot| slot.generation.load(Ordering::Acquire));
        if (1..=last).contains(&(handle >> GENERATION_SHIFT)) {
            Error::new(Status::Closed, format!("{what} was closed or released before"))
        } else {
            Error::new(Status::Invalid, format!("{what} was never a handle of this kind"))
        }
    }

    fn pop_free(&self) -> Option<usize> {
        let mut head = self.free.load(Ordering::Acquire);
        loop {
            let index = ((head & ((1 << INDEX_BITS) - 1)) as usize).checked_sub(1)?;
            let next = self.at(index)?.next_free.load(Ordering::Relaxed);
            match self.free.compare_exchange_weak(head, successor(head, next), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(index),
                Err(other) => head = other,
            }
        }
    }

    fn push_free(&self, slot: &Slot<T>, index: usize) {
        let mut head = self.free.load(Ordering::Acquire);
        loop {
            slot.next_free.store((head & ((1 << INDEX_BITS) - 1)) as u32, Ordering::Relaxed);
            let new = successor(head, index as u32 + 1);
            match self.free.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(other) => head = other,
            }
        }
    }

    fn next_unused(&self) -> Result<usize> {
        let mut index = self.used.load(Ordering::Relaxed);
        loop {
            if index as usize >= MOST_SLOTS {
                return Err(Error::new(Status::NoMemory, "too many handles of this kind are open"));
            }
            self.ensure_chunk(place(index as usize).0)?;
            match self.used.compare_exchange_weak(index, index + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(index as usize),
                Err(other) => index = other,
            }
        }
    }

    fn ensure_chunk(&self, chunk: usize) -> Result<()> {
        let there = &self.chunks[chunk];
        if !there.load(Ordering::Acquire).is_null() {
            return Ok(());
        }
        let layout = Layout::array::<Slot<T>>(FIRST_CHUNK << chunk).expect("a chunk is far below isize::MAX bytes");
        // SAFETY: a slot has a size above zero.
        let new: *mut Slot<T> = unsafe { alloc_zeroed(layout) }.cast();
        if new.is_null() {
            return Err(Error::new(Status::NoMemory, "no memory for another handle"));
        }
        if there.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: another thread was first, so nobody has seen ours.
            unsafe { dealloc(new.cast(), layout) };
        }
        Ok(())
    }
}

/// Chunk `n` begins at index `FIRST_CHUNK * (2^n - 1)`.
#[inline]
fn place(index: usize) -> (usize, usize) {
    let shifted = index + FIRST_CHUNK;
    let chunk = (shifted.ilog2() - FIRST_CHUNK.ilog2()) as usize;
    (chunk, shifted - (FIRST_CHUNK << chunk))
}

#[inline]
fn index_of(handle: u64) -> usize {
    (handle >> INDEX_SHIFT) as usize & ((1 << INDEX_BITS) - 1)
}

/// A head of the free list that is not mistaken for the one before, even if its index is the same.
fn successor(head: u64, index_plus_one: u32) -> u64 {
    ((head >> INDEX_BITS).wrapping_add(1) << INDEX_BITS) | u64::from(index_plus_one)
}

/// A slot that is this caller's alone; given back if it is not filled.
pub struct Vacant<T: Send + Sync + 'static, const KIND: u64, const CELL: usize> {
    table: &'static Table<T, KIND, CELL>,
    slot: &'static Slot<T>,
    index: usize,
}

impl<T: Send + Sync, const KIND: u64, const CELL: usize> Vacant<T, KIND, CELL> {
    pub fn fill(self, value: T) -> u64 {
        let generation = self.slot.generation.load(Ordering::Relaxed) + 1;
        let handle = generation << GENERATION_SHIFT | (self.index as u64) << INDEX_SHIFT | KIND << 1 | 1;
        // SAFETY: the state is dead and the slot is off the free list, so it is nobody's but ours.
        unsafe { (*self.slot.value.get()).write(value) };
        self.slot.generation.store(generation, Ordering::Release);
        self.slot.state.store(handle, Ordering::Release);
        std::mem::forget(self);
        handle
    }
}

impl<T: Send + Sync, const KIND: u64, const CELL: usize> Drop for Vacant<T, KIND, CELL> {
    fn drop(&mut self) {
        self.table.give_back(self.slot, self.index);
    }
}

/// A value in use by a call.
pub struct Pinned<T: 'static> {
    value: *const T,
    _pin: Pin,
}

impl<T> Deref for Pinned<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the handle was live after it was written down, and a close waits for the pin before it takes the
        // value.
        unsafe { &*self.value }
    }
}

#[cfg(test)]
mod tests;
