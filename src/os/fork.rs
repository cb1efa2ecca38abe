//! A forked child: it is told so at each call, and keeps nothing of its parent's queues.
//!
//! A child has all of its parent's memory and one of its threads. Locks may be held by threads that it does not have,
//! so its calls are refused by one load, before any lock: of a word in a page that the kernel wipes in every child
//! (madvise(2), MADV_WIPEONFORK), also in one that clone(2) made without the C library's knowledge. Before Linux 4.14
//! the handler of pthread_atfork(3) wipes it.
//!
//! The same handler closes our descriptors, but for those of files that are just being made or synced. A lock belongs
//! to the open file description, and lives as long as the last descriptor of it in any process.

use super::registry::{Entry, Registry};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// Stands for the page until there is one.
static NO_PAGE: AtomicU32 = AtomicU32::new(1);
/// Leads to 1 in the process that made the page, to 0 in its children.
static EPOCH: AtomicPtr<AtomicU32> = AtomicPtr::new(&raw const NO_PAGE as *mut AtomicU32);

/// Forks that have begun, and that are over.
static BEGUN: AtomicU64 = AtomicU64::new(0);
static OVER: AtomicU64 = AtomicU64::new(0);

static DESCRIPTORS: Registry<Descriptor> = Registry::new();

struct Descriptor(AtomicI32);

const NONE: RawFd = -1;

impl Default for Descriptor {
    fn default() -> Self {
        Descriptor(AtomicI32::new(NONE))
    }
}

#[inline(always)]
pub fn in_forked_child() -> bool {
    // SAFETY: it leads to a static or to a page that is never unmapped.
    unsafe { (*EPOCH.load(Ordering::Acquire)).load(Ordering::Relaxed) == 0 }
}

/// Has children of this process told apart from now on. To be called before anything that a child must not use.
pub fn prepare_for_forks() -> io::Result<()> {
    let no_page = (&raw const NO_PAGE).cast_mut();
    if EPOCH.load(Ordering::Acquire) != no_page {
        return Ok(());
    }
    let page = wiped_in_children()?;
    // Before the page is there for all, so that whoever sees it relies on both. Two threads may come here at once: the
    // handlers can be called twice.
    // SAFETY: the handlers stay where they are, as the library is never unloaded.
    let refused = unsafe { libc::pthread_atfork(Some(fork_begins), Some(fork_is_over), Some(child_begins)) };
    if refused != 0 {
        return Err(io::Error::from_raw_os_error(refused));
    }
    // The loser's page stays: it is one, once.
    let _ = EPOCH.compare_exchange(no_page, page, Ordering::AcqRel, Ordering::Acquire);
    Ok(())
}

fn wiped_in_children() -> io::Result<*mut AtomicU32> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping of our own, of a page at least, which begins with room for a word; nobody else knows it
    // yet.
    unsafe {
        let bytes = libc::sysconf(libc::_SC_PAGESIZE) as usize;
        let page = libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0);
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        libc::madvise(page, bytes, libc::MADV_WIPEONFORK); // refused by old kernels: then the handler does it
        page.cast::<AtomicU32>().write(AtomicU32::new(1));
        Ok(page.cast())
    }
}

extern "C" fn fork_begins() {
    BEGUN.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn fork_is_over() {
    OVER.fetch_add(1, Ordering::SeqCst);
}

/// In the child. Takes no lock and no memory.
extern "C" fn child_begins() {
    let epoch = EPOCH.load(Ordering::Acquire);
    if epoch == (&raw const NO_PAGE).cast_mut() {
        return; // nothing was opened before the fork
    }
    // SAFETY: as in `in_forked_child`.
    unsafe { (*epoch).store(0, Ordering::Relaxed) };
    for Descriptor(fd) in DESCRIPTORS.values() {
        match fd.swap(NONE, Ordering::Relaxed) {
            NONE => {}
            // SAFETY: the descriptor is the library's own, and nothing of the library runs in this process any more.
            fd => drop(unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    }
}

/// A descriptor that forked children close.
pub struct Kept {
    // In this order: a child must not close a number that is somebody else's by now.
    _registered: Registered,
    fd: OwnedFd,
}

struct Registered(Entry<Descriptor>);

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.0.store(NONE, Ordering::Release);
    }
}

impl From<OwnedFd> for Kept {
    fn from(fd: OwnedFd) -> Kept {
        let entry = DESCRIPTORS.take();
        entry.0.store(fd.as_raw_fd(), Ordering::Release);
        Kept { _registered: Registered(entry), fd }
    }
}

impl Kept {
    /// A descriptor that no child has got: one that is forked between the opening and the registration would keep it
    /// unheard of. Then it is opened once more.
    pub fn unshared(open: impl Fn() -> io::Result<OwnedFd>) -> io::Result<Kept> {
        // A host that forks without a pause is not waited for.
        const MOST_ATTEMPTS: usize = 1000;
        let mut attempts = 0;
        loop {
            let over = OVER.load(Ordering::SeqCst);
            let kept = Kept::from(open()?);
            attempts += 1;
            // As many have begun by now as were over before: none was under way.
            if BEGUN.load(Ordering::SeqCst) == over || attempts == MOST_ATTEMPTS {
                return Ok(kept);
            }
            std::thread::yield_now();
        }
    }
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
