use super::*;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;

const WHAT: &str = "test: handle";

fn status<T>(result: Result<T>) -> Status {
    result.map(|_| ()).unwrap_err().status()
}

#[test]
fn a_handle_is_closed_for_ever_and_garbage_never_was_one() {
    static TABLE: Table<u32, 5, 0> = Table::new();
    let handles: Vec<u64> = (0..500).map(|n| TABLE.insert(n).unwrap()).collect();
    for (n, &handle) in handles.iter().enumerate() {
        assert_eq!(*TABLE.pin(handle, WHAT).unwrap(), n as u32);
        assert_eq!(TABLE.close(handle, WHAT, |_| ()).unwrap(), n as u32);
    }
    let again: Vec<u64> = (0..500).map(|n| TABLE.insert(n).unwrap()).collect();
    for &handle in &handles {
        assert_eq!(status(TABLE.pin(handle, WHAT)), Status::Closed);
        assert_eq!(status(TABLE.close(handle, WHAT, |_| ())), Status::Closed);
        assert!(!again.contains(&handle));
    }
    let next_generation = again[0] + (1 << GENERATION_SHIFT);
    let other_kind = again[0] ^ (3 << 1);
    let no_generation = again[0] & ((1 << GENERATION_SHIFT) - 1);
    for garbage in [0, 1, 8, u64::MAX, next_generation, other_kind, no_generation, again[0] - 1] {
        assert_eq!(status(TABLE.pin(garbage, WHAT)), Status::Invalid, "{garbage:#x}");
        assert_eq!(status(TABLE.close(garbage, WHAT, |_| ())), Status::Invalid, "{garbage:#x}");
    }
}

#[test]
fn a_slot_given_back_unfilled_is_used_again() {
    static TABLE: Table<u32, 5, 0> = Table::new();
    drop(TABLE.reserve().unwrap());
    TABLE.insert(1).unwrap();
    assert_eq!(TABLE.used.load(Ordering::Relaxed), 1);
}

#[test]
fn a_slot_without_generations_left_is_retired() {
    static TABLE: Table<u32, 5, NO_CELL> = Table::new();
    let first = TABLE.insert(1).unwrap();
    TABLE.at(0).unwrap().generation.store(LAST_GENERATION - 1, Ordering::Relaxed);
    TABLE.take(first, WHAT).unwrap();
    let last = TABLE.insert(2).unwrap();
    assert_eq!((index_of(last), last >> GENERATION_SHIFT), (0, LAST_GENERATION));
    TABLE.take(last, WHAT).unwrap();
    assert_eq!(index_of(TABLE.insert(3).unwrap()), 1);
    assert_eq!(status(TABLE.take(last, WHAT)), Status::Closed);
}

#[test]
fn the_last_handle_of_a_table_is_no_memory() {
    static TABLE: Table<(), 5, NO_CELL> = Table::new();
    let handles: Vec<u64> = (0..MOST_SLOTS).map(|_| TABLE.insert(()).unwrap()).collect();
    assert_eq!(status(TABLE.insert(())), Status::NoMemory);
    TABLE.take(handles[77], WHAT).unwrap();
    assert_eq!(index_of(TABLE.insert(()).unwrap()), 77);
}

/// Fails loudly if it is looked at after it was taken out.
struct Witness {
    alive: AtomicBool,
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.alive.store(false, Ordering::SeqCst);
    }
}

#[test]
fn nobody_is_inside_when_a_close_comes_back() {
    static TABLE: Table<Box<Witness>, 5, 0> = Table::new();
    static CURRENT: AtomicU64 = AtomicU64::new(0);
    static DONE: AtomicBool = AtomicBool::new(false);
    static INSIDE: AtomicUsize = AtomicUsize::new(0);
    CURRENT.store(TABLE.insert(witness()).unwrap(), Ordering::SeqCst);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !DONE.load(Ordering::Relaxed) {
                    match TABLE.pin(CURRENT.load(Ordering::Relaxed), WHAT) {
                        Ok(witness) => {
                            assert!(witness.alive.load(Ordering::Relaxed));
                            INSIDE.fetch_add(1, Ordering::Relaxed);
                            assert!(witness.alive.load(Ordering::Relaxed));
                        }
                        Err(error) => assert_eq!(error.status(), Status::Closed),
                    }
                }
            });
        }
        let mut round = 0;
        while round < 5_000 || INSIDE.load(Ordering::Relaxed) < 100_000 {
            round += 1;
            let handle = CURRENT.load(Ordering::Relaxed);
            let next = TABLE.insert(witness()).unwrap();
            // In turns: closed while it is in use, and closed when calls go elsewhere already.
            if round % 2 == 0 {
                CURRENT.store(next, Ordering::Relaxed);
            }
            drop(TABLE.close(handle, WHAT, |_| ()).unwrap());
            CURRENT.store(next, Ordering::Relaxed);
        }
        DONE.store(true, Ordering::Relaxed);
    });
}

fn witness() -> Box<Witness> {
    Box::new(Witness { alive: AtomicBool::new(true) })
}

#[test]
fn one_of_many_closers_wins() {
    static TABLE: Table<u32, 5, 0> = Table::new();
    for _ in 0..200 {
        let handle = TABLE.insert(7).unwrap();
        let won = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| match TABLE.close(handle, WHAT, |_| ()) {
                    Ok(_) => _ = won.fetch_add(1, Ordering::Relaxed),
                    Err(error) => assert_eq!(error.status(), Status::Closed),
                });
            }
        });
        assert_eq!(won.into_inner(), 1);
    }
}

#[test]
fn a_close_waits_for_the_call_that_is_inside() {
    static TABLE: Table<u32, 5, 1> = Table::new();
    let handle = TABLE.insert(7).unwrap();
    let inside = TABLE.pin(handle, WHAT).unwrap();
    let left = AtomicBool::new(false);
    thread::scope(|scope| {
        let closer = scope.spawn(|| {
            TABLE.close(handle, WHAT, |_| ()).unwrap();
            assert!(left.load(Ordering::SeqCst));
        });
        // The handle is dead for new calls as soon as the close has begun.
        while TABLE.at(index_of(handle)).unwrap().state.load(Ordering::SeqCst) == handle {
            std::hint::spin_loop();
        }
        assert_eq!(status(TABLE.close(handle, WHAT, |_| ())), Status::Closed);
        left.store(true, Ordering::SeqCst);
        drop(inside);
        closer.join().unwrap();
    });
}

#[test]
fn a_thread_that_ends_can_still_call() {
    static TABLE: Table<u32, 5, 0> = Table::new();
    static HANDLE: AtomicU64 = AtomicU64::new(0);
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    struct AtExit;
    impl Drop for AtExit {
        fn drop(&mut self) {
            assert_eq!(*TABLE.pin(HANDLE.load(Ordering::SeqCst), WHAT).unwrap(), 7);
            CALLS.fetch_add(1, Ordering::SeqCst);
        }
    }
    thread_local!(static AT_EXIT: AtExit = const { AtExit });
    HANDLE.store(TABLE.insert(7).unwrap(), Ordering::SeqCst);
    // Destructors run in the order of registration reversed, so one of the two comes after the record is given back.
    for first in [true, false] {
        let call = || drop(TABLE.pin(HANDLE.load(Ordering::SeqCst), WHAT).unwrap());
        let thread = thread::spawn(move || {
            if first {
                AT_EXIT.with(|_| ());
                call();
            } else {
                call();
                AT_EXIT.with(|_| ());
            }
        });
        thread.join().unwrap();
    }
    assert_eq!(CALLS.load(Ordering::SeqCst), 2);
    TABLE.close(HANDLE.load(Ordering::SeqCst), WHAT, |_| ()).unwrap();
}
