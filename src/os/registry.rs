//! A list that a signal handler or a forked child can walk: it takes no lock, and nothing in it is ever freed.

use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// As many as `used` has bits.
const ENTRIES: usize = 64;

struct Block<T> {
    used: AtomicU64,
    entries: [T; ENTRIES],
    /// Set once, before the block is on the list.
    next: *const Block<T>,
}

/// Entries that are given out, given back, and given out again.
pub struct Registry<T: 'static>(AtomicPtr<Block<T>>);

/// One entry, its holder's alone until it is dropped. Its value has to be as a new one by then.
pub struct Entry<T: 'static> {
    block: &'static Block<T>,
    index: usize,
}

// SAFETY: `next` is never written once the block is shared, and the entries may be shared.
unsafe impl<T: Sync> Sync for Block<T> {}
// SAFETY: an entry is a shared reference to its block.
unsafe impl<T: Sync> Send for Entry<T> {}

impl<T: Default + Sync> Registry<T> {
    pub const fn new() -> Self {
        Registry(AtomicPtr::new(ptr::null_mut()))
    }

    pub fn take(&self) -> Entry<T> {
        self.blocks().find_map(|block| take_from(block)).unwrap_or_else(|| self.grow())
    }

    /// The values that are given out, and of others perhaps, which are as new.
    pub fn values(&self) -> impl Iterator<Item = &'static T> + use<T> {
        self.blocks().flat_map(|block| {
            let used = block.used.load(Ordering::Acquire);
            block.entries.iter().enumerate().filter(move |(index, _)| used & 1 << index != 0).map(|(_, value)| value)
        })
    }

    fn blocks(&self) -> impl Iterator<Item = &'static Block<T>> + use<T> {
        // SAFETY: the list holds leaked boxes only, and they were complete before they were published (Release,
        // Acquire).
        let at = |block: *const Block<T>| unsafe { block.as_ref() };
        std::iter::successors(at(self.0.load(Ordering::Acquire)), move |block| at(block.next))
    }

    #[cold]
    fn grow(&self) -> Entry<T> {
        let mut head = self.0.load(Ordering::Acquire);
        let entries = std::array::from_fn(|_| T::default());
        let block = Box::into_raw(Box::new(Block { used: AtomicU64::new(1), entries, next: head }));
        loop {
            // SAFETY: from a box, and nobody has seen it yet.
            unsafe { (*block).next = head };
            match self.0.compare_exchange(head, block, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: from now on it is shared, and never freed.
                Ok(_) => return Entry { block: unsafe { &*block }, index: 0 },
                Err(other) => head = other,
            }
        }
    }
}

fn take_from<T>(block: &'static Block<T>) -> Option<Entry<T>> {
    let free = |used: u64| (used != u64::MAX).then(|| used | (used + 1));
    let before = block.used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, free).ok()?;
    Some(Entry { block, index: before.trailing_ones() as usize })
}

impl<T> Deref for Entry<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.block.entries[self.index]
    }
}

impl<T> Drop for Entry<T> {
    fn drop(&mut self) {
        self.block.used.fetch_and(!(1 << self.index), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn an_entry_is_one_holders_and_is_given_out_again() {
        static NUMBERS: Registry<AtomicU32> = Registry::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let held: Vec<_> = (0..50).map(|_| NUMBERS.take()).collect();
                        held.iter().for_each(|number| assert_eq!(number.fetch_add(1, Ordering::Relaxed), 0));
                        held.iter().for_each(|number| assert_eq!(number.fetch_sub(1, Ordering::Relaxed), 1));
                    }
                });
            }
        });
        assert_eq!(NUMBERS.values().count(), 0);
        let blocks = NUMBERS.blocks().count();
        assert!(blocks <= 8, "{blocks} blocks for 200 entries at once, and some that were given back too late");
        let held: Vec<_> = (0..65).map(|_| NUMBERS.take()).collect();
        assert_eq!(NUMBERS.values().count(), held.len());
    }
}
