//! Which handles are in use by a call right now, so that a close can wait for them without the calls taking a lock.
//!
//! Each thread has a record in a global list, and writes the handle into it for the length of a call. The hot path is a
//! store and a load; the price is paid by the closing side, with `heavy_barrier()`:
//!
//! ```text
//! call:   cell = handle; light(); slot.state == handle ?     close:  slot.state = dead; heavy(); cell == handle ?
//! ```
//!
//! Of the two stores at least one is seen by the other side. If the call sees the dead state, it clears its cell and
//! touches nothing. If the close sees the handle, it waits until the cell is something else. Cells are written with
//! Release and read with Acquire, so all that the call did comes before what the close does then. (The store of a
//! handle too: the close may read the *next* handle in the cell, and has to see the end of the call before it.)
//!
//! A call that waits for as long as it likes says meanwhile that it is at rest: a close waits for it all the same, but
//! whoever only wants to know that nobody uses what was there before (`is_unused`) need not.
//!
//! The record itself is seen as well: its push onto the list comes before the store to its cell, hence before
//! `light()`.

use crate::os::{heavy_barrier, light_barrier};
use crate::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use crate::sync::{looks, spin_loop, thread, thread_local};
use std::cell::Cell;
use std::ptr;
use std::time::Duration;

/// A call on a reader or a file holds that and its queue.
const CELLS: usize = 2;

/// Apart from each other by two cache lines, which the hardware fetches in pairs.
#[repr(align(128))]
struct Record {
    cells: [AtomicU64; CELLS],
    in_use: AtomicBool,
    /// Set once, before the record is on the list.
    next: *const Record,
}

// SAFETY: `next` is never written once the record is shared.
unsafe impl Sync for Record {}

/// Records are never freed, so a close can walk the list while threads come and go. (Under loom a static is made anew
/// for each execution, and cannot be a constant.)
#[cfg(not(mfq_loom))]
static RECORDS: AtomicPtr<Record> = AtomicPtr::new(ptr::null_mut());
#[cfg(mfq_loom)]
loom::lazy_static! { static ref RECORDS: AtomicPtr<Record> = AtomicPtr::new(ptr::null_mut()); }

thread_local! {
    /// Without a destructor, so that it is there as long as the thread is.
    static MINE: Cell<Option<&'static Record>> = const { Cell::new(None) };
    static GIVE_BACK: GiveBack = const { GiveBack };
}

struct GiveBack;

impl Drop for GiveBack {
    fn drop(&mut self) {
        if let Ok(Some(record)) = MINE.try_with(Cell::take) {
            record.in_use.store(false, Ordering::Release);
        }
    }
}

/// While it lives, no close of this handle gets past `wait_for`.
pub struct Pin {
    cell: &'static AtomicU64,
    /// The thread is ending and its own record is given back already: this one is for a single call.
    one_shot: Option<&'static Record>,
}

/// Writes the handle down. The caller has to look at the slot's state after this, and drop the pin if it is dead.
#[inline(always)]
pub fn pin<const CELL: usize>(handle: u64) -> Pin {
    let pin = match MINE.with(Cell::get) {
        Some(record) => Pin { cell: &record.cells[CELL], one_shot: None },
        None => first_pin(CELL),
    };
    debug_assert_eq!(pin.cell.load(Ordering::Relaxed), 0);
    pin.cell.store(handle, Ordering::Release);
    light_barrier();
    pin
}

impl Drop for Pin {
    #[inline(always)]
    fn drop(&mut self) {
        self.cell.store(0, Ordering::Release);
        if let Some(record) = self.one_shot {
            record.in_use.store(false, Ordering::Release);
        }
    }
}

#[cold]
fn first_pin(cell: usize) -> Pin {
    let record = free_record().unwrap_or_else(new_record);
    // Touching it is what has its destructor run; after that has happened it can no longer be touched.
    let ending = GIVE_BACK.try_with(|_| ()).is_err();
    if !ending {
        MINE.with(|mine| mine.set(Some(record)));
    }
    Pin { cell: &record.cells[cell], one_shot: ending.then_some(record) }
}

fn free_record() -> Option<&'static Record> {
    let take =
        |record: &&Record| record.in_use.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
    records().find(take)
}

fn new_record() -> &'static Record {
    let mut head = RECORDS.load(Ordering::Acquire);
    let record = Box::leak(Box::new(Record {
        cells: std::array::from_fn(|_| AtomicU64::new(0)),
        in_use: AtomicBool::new(true),
        next: head,
    }));
    while let Err(other) = RECORDS.compare_exchange_weak(head, record, Ordering::AcqRel, Ordering::Acquire) {
        head = other;
        record.next = head;
    }
    record
}

fn records() -> impl Iterator<Item = &'static Record> {
    // SAFETY: the list holds leaked boxes only, and they were complete before they were published (Release, Acquire).
    let at = |record: *const Record| unsafe { record.as_ref() };
    std::iter::successors(at(RECORDS.load(Ordering::Acquire)), move |record| at(record.next))
}

/// Of a handle, which is odd: the call that uses it is at rest.
const AT_REST: u64 = !1;

/// Runs `wait`, over which the calling thread's call keeps no reference to anything that `is_unused` is asked about.
pub fn at_rest<T>(wait: impl FnOnce() -> T) -> T {
    struct Awake(Option<(&'static AtomicU64, u64)>);
    impl Drop for Awake {
        fn drop(&mut self) {
            if let Some((cell, handle)) = self.0 {
                cell.store(handle, Ordering::Release);
                light_barrier(); // what the call looks at from here on is what `is_unused` left there
            }
        }
    }
    let cell = MINE.with(Cell::get).map(|record| &record.cells[0]);
    let _awake = Awake(cell.map(|cell| {
        let handle = cell.load(Ordering::Relaxed);
        cell.store(handle & AT_REST, Ordering::Release);
        (cell, handle)
    }));
    wait()
}

/// Whether every call of other threads that used the handle when this one began has ended or come to rest since. It may
/// say no where it could say yes: a call that takes its time is not waited for.
pub fn is_unused(handle: u64) -> bool {
    const PATIENCE: u32 = looks(200);
    heavy_barrier();
    let mine = MINE.with(Cell::get);
    let in_use = |record: &&Record| record.cells.iter().any(|cell| cell.load(Ordering::Acquire) == handle);
    let others = records().filter(|record| !mine.is_some_and(|mine| ptr::eq(mine, *record)));
    others.into_iter().all(|record| {
        (0..PATIENCE).any(|turn| {
            if turn > PATIENCE / 2 {
                thread::yield_now();
            }
            !in_use(&record)
        })
    })
}

/// Returns when no call uses the handle any more. The slot's state must be dead and `heavy_barrier()` be behind us.
pub fn wait_for(handle: u64) {
    for record in records() {
        let mut turn = 0u32;
        while record.cells.iter().any(|cell| cell.load(Ordering::Acquire) | !AT_REST == handle) {
            turn += 1;
            match turn {
                ..100 => spin_loop(),
                100..120 => thread::yield_now(),
                // A call that has to come out of the disk: nobody is in a hurry any more.
                _ => thread::sleep(Duration::from_micros((50u64 << (turn - 120).min(5)).min(1000))),
            }
        }
    }
}

/// What the tables of handles and of files do with it: [`crate::capi`], [`crate::file_table`].
#[cfg(all(test, mfq_loom))]
mod models {
    use super::*;
    use crate::sync::explore;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;

    const HANDLE: u64 = 17;
    const DEAD: u64 = 0;

    /// A handle's value: loom reports a race if it is used while it is taken away.
    struct Slot {
        state: AtomicU64,
        value: UnsafeCell<u64>,
    }

    impl Slot {
        fn open() -> Arc<Slot> {
            Arc::new(Slot { state: AtomicU64::new(HANDLE), value: UnsafeCell::new(1) })
        }

        /// Whether the handle was still good.
        fn call<const CELL: usize>(&self, inside: impl FnOnce()) -> bool {
            let _pin = pin::<CELL>(HANDLE);
            let live = self.state.load(Ordering::Acquire) == HANDLE;
            if live {
                inside();
                self.use_value();
            }
            live
        }

        fn use_value(&self) {
            // SAFETY: pinned, so nobody takes it away; loom checks it.
            self.value.with(|value| assert_eq!(unsafe { *value }, 1, "used after the close"));
        }

        fn close(&self) {
            self.state.compare_exchange(HANDLE, DEAD, Ordering::AcqRel, Ordering::Relaxed).unwrap();
            heavy_barrier();
            wait_for(HANDLE);
            self.take_value();
        }

        fn take_value(&self) {
            // SAFETY: no call is inside any more; loom checks it.
            self.value.with_mut(|value| unsafe { *value = 0 });
        }
    }

    #[test]
    fn a_close_waits_for_the_calls_that_found_the_handle_good() {
        explore(|| {
            let slot = Slot::open();
            let first = {
                let slot = slot.clone();
                thread::spawn(move || slot.call::<0>(|| ()))
            };
            let second = {
                let slot = slot.clone();
                thread::spawn(move || slot.call::<1>(|| ()))
            };
            slot.close();
            first.join().unwrap();
            second.join().unwrap();
            assert!(!slot.call::<0>(|| ()), "the handle is closed for ever");
        });
    }

    #[test]
    fn a_close_waits_for_a_thread_that_calls_again() {
        explore(|| {
            let slot = Slot::open();
            let caller = {
                let slot = slot.clone();
                thread::spawn(move || {
                    let first = slot.call::<0>(|| ());
                    assert!(first || !slot.call::<0>(|| ()), "good after it was bad");
                })
            };
            slot.close();
            caller.join().unwrap();
        });
    }

    #[test]
    fn a_call_at_rest_is_still_waited_for_by_a_close() {
        explore(|| {
            let slot = Slot::open();
            let caller = {
                let slot = slot.clone();
                thread::spawn(move || slot.call::<0>(|| at_rest(|| ())))
            };
            slot.close();
            caller.join().unwrap();
        });
    }

    /// A file that a truncation removed: `state` stands for the table, where calls find it.
    #[test]
    fn what_is_unused_no_call_looks_at_any_more() {
        explore(|| {
            let file = Slot::open();
            let caller = {
                let file = file.clone();
                thread::spawn(move || {
                    let _pin = pin::<0>(HANDLE);
                    let look = || {
                        if file.state.load(Ordering::Acquire) != DEAD {
                            file.use_value();
                        }
                    };
                    look();
                    at_rest(|| ());
                    look();
                })
            };
            file.state.store(DEAD, Ordering::Release);
            if is_unused(HANDLE) {
                file.take_value();
            }
            caller.join().unwrap();
        });
    }
}
