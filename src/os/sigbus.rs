//! The guard that a host may ask for: SIGBUS in a mapping of ours becomes a mark on it, and not the death of the
//! process.
//!
//! The kernel raises it in whoever touches a page that the device cannot give or that somebody has cut off. The handler
//! puts a page of zeros in its place, or zeros in that of the whole file where no mapping more is to be had, so that
//! the thread goes on, and calls look at the mark before they publish or return anything. All other faults go to the
//! handler that was there before.

use super::registry::{Entry, Registry};
use super::{MmapRaw, heavy_barrier};
use parking_lot::Mutex;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};

static MAPPINGS: Registry<Mapping> = Registry::new();
/// What SIGBUS did before the guard; null while there is none.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);
/// A mapping to do without: at the limit (vm.max_map_count) mmap(2) refuses even what would make no mapping more. Null
/// if there was no room for it.
static SPARE: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
/// Whether somebody is replacing a page: another one would take the room that it has made.
static BUSY: AtomicBool = AtomicBool::new(false);
/// How often it is tried to be the only one. Not for ever: the handler of another signal may have interrupted the one
/// that is, in the same thread.
const MOST_TRIES: usize = 10_000;

struct Mapping {
    start: AtomicUsize,
    /// 0 while this stands for no mapping.
    end: AtomicUsize,
    /// All pages that were replaced lie between these two, in bytes from the start.
    lost_from: AtomicUsize,
    lost_to: AtomicUsize,
}

impl Default for Mapping {
    fn default() -> Self {
        let [start, end, lost_to] = [const { AtomicUsize::new(0) }; 3];
        Mapping { start, end, lost_from: AtomicUsize::new(usize::MAX), lost_to }
    }
}

/// A mapping that the guard knows. Has to end before the mapping does.
pub struct Watched(Entry<Mapping>);

impl Watched {
    pub fn new(map: &MmapRaw) -> Watched {
        let mapping = MAPPINGS.take();
        let start = map.as_ptr().addr();
        mapping.start.store(start, Ordering::Relaxed);
        mapping.end.store(start + map.len(), Ordering::Release);
        Watched(mapping)
    }

    /// Whether no page of `[at, at + len)` was replaced before the loads and stores that this comes after.
    #[inline(always)]
    pub fn is_intact(&self, at: u64, len: u64) -> bool {
        fence(Ordering::Acquire);
        let lost_from = self.0.lost_from.load(Ordering::Relaxed) as u64;
        lost_from >= at + len || self.0.lost_to.load(Ordering::Relaxed) as u64 <= at
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.end.store(0, Ordering::Release);
        self.0.lost_from.store(usize::MAX, Ordering::Relaxed);
        self.0.lost_to.store(0, Ordering::Relaxed);
    }
}

/// Once is enough: a handler that the host installs later calls this one, or it does not.
pub fn install_sigbus_guard() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock();
    if *installed {
        return Ok(());
    }
    // SAFETY: takes an integer.
    PAGE_BYTES.store(unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize, Ordering::Relaxed);
    make_spare();
    // SAFETY: all zeros is a valid sigaction, and each call is given one to read or one to fill. What was there is
    // remembered before the handler can run, and once more in case that it was another one by then.
    unsafe {
        let mut previous: libc::sigaction = mem::zeroed();
        check(libc::sigaction(libc::SIGBUS, ptr::null(), &mut previous))?;
        remember(previous);
        let mut ours: libc::sigaction = mem::zeroed();
        ours.sa_sigaction = on_sigbus as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | previous.sa_flags & libc::SA_RESTART;
        check(libc::sigaction(libc::SIGBUS, &ours, &mut previous))?;
        remember(previous);
    }
    *installed = true;
    Ok(())
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Leaked: a handler may be looking at the one before.
fn remember(previous: libc::sigaction) {
    PREVIOUS.store(Box::leak(Box::new(previous)), Ordering::Release);
}

extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands in a valid siginfo, whose address is there if the code says that it is a fault; errno is
    // this thread's own, and the code that was interrupted may be about to read it.
    unsafe {
        let is_ours = match (*info).si_code {
            libc::BUS_ADRERR | libc::BUS_OBJERR | libc::BUS_MCEERR_AR => {
                let errno = libc::__errno_location();
                let before = *errno;
                let replaced = replace_page((*info).si_addr().addr());
                *errno = before;
                replaced
            }
            _ => false,
        };
        if !is_ours {
            pass_on(signal, info, context);
        }
    }
}

/// Marks and replaces the page of this address, if it lies in a mapping of ours. Takes no lock and no memory.
fn replace_page(address: usize) -> bool {
    let page_bytes = PAGE_BYTES.load(Ordering::Relaxed);
    let found = MAPPINGS.values().find_map(|mapping| {
        let end = mapping.end.load(Ordering::Acquire);
        let start = mapping.start.load(Ordering::Relaxed);
        // Looked at again, as the entry may become another mapping's meanwhile. The one with the address in it cannot
        // end: whoever touches it holds it.
        let same = mapping.end.load(Ordering::Acquire) == end;
        (same && (start..end).contains(&address)).then_some((mapping, start, end))
    });
    let Some((mapping, start, end)) = found else { return false };
    let replace = |from: usize, to: usize| {
        mapping.lost_from.fetch_min(from - start, Ordering::SeqCst);
        mapping.lost_to.fetch_max(to - start, Ordering::SeqCst);
        // Whoever sees a byte of the new page sees the mark as well. (Prepared by the open that made the mapping.)
        heavy_barrier();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let len = to.next_multiple_of(page_bytes) - from;
        // SAFETY: the range lies in a mapping of ours, whose bytes are accessed through raw pointers and atomics only.
        unsafe { libc::mmap(from as *mut c_void, len, protection, kind, -1, 0) != libc::MAP_FAILED }
    };
    let alone = (0..MOST_TRIES).any(|_| is_the_only_one());
    let page = address - address % page_bytes;
    // Where there is no room for the two mappings more that this makes: all of the file makes none.
    let replaced = replace(page, page + page_bytes) || {
        give_up_spare();
        replace(start, end)
    };
    make_spare();
    if alone {
        BUSY.store(false, Ordering::Release);
    }
    replaced
}

/// Lets others run if it is not.
fn is_the_only_one() -> bool {
    let alone = !BUSY.swap(true, Ordering::Acquire);
    if !alone {
        // SAFETY: takes nothing.
        unsafe { libc::sched_yield() };
    }
    alone
}

fn give_up_spare() {
    let spare = SPARE.swap(ptr::null_mut(), Ordering::AcqRel);
    if !spare.is_null() {
        // SAFETY: a mapping that nobody uses, and that nobody else has taken.
        unsafe { libc::munmap(spare, PAGE_BYTES.load(Ordering::Relaxed)) };
    }
}

/// If there is none. A shared one, as the kernel merges others with their neighbours.
fn make_spare() {
    if SPARE.load(Ordering::Acquire).is_null() {
        let (len, kind) = (PAGE_BYTES.load(Ordering::Relaxed), libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: new memory.
        let spare = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, kind, -1, 0) };
        if spare != libc::MAP_FAILED {
            SPARE.store(spare, Ordering::Release);
        }
    }
}

/// Does what would have happened without the guard.
///
/// # Safety
/// As for a handler of SIGBUS.
unsafe fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: set before the handler was, and never freed. A handler's address has the type that its flags say. The
    // mask is put back when the signal returns.
    unsafe {
        let previous = &*PREVIOUS.load(Ordering::Acquire);
        let code = (*info).si_code;
        let is_fault = matches!(code, libc::BUS_ADRALN | libc::BUS_ADRERR | libc::BUS_OBJERR | libc::BUS_MCEERR_AR);
        match previous.sa_sigaction {
            // A fault cannot be ignored (sigaction(2)): the kernel ends the process, and so does this.
            libc::SIG_IGN if !is_fault => {}
            libc::SIG_DFL | libc::SIG_IGN => {
                let default: libc::sigaction = mem::zeroed();
                libc::sigaction(signal, &default, ptr::null_mut());
                // A fault comes again by itself, at the same instruction.
                if !is_fault {
                    libc::raise(signal);
                }
            }
            handler => {
                if previous.sa_flags & libc::SA_RESETHAND != 0 {
                    // SAFETY: all zeros is a valid sigaction.
                    static DEFAULT: libc::sigaction = unsafe { mem::zeroed() };
                    PREVIOUS.store((&raw const DEFAULT).cast_mut(), Ordering::Release);
                }
                libc::pthread_sigmask(libc::SIG_BLOCK, &previous.sa_mask, ptr::null_mut());
                if previous.sa_flags & libc::SA_NODEFER != 0 {
                    let mut only: libc::sigset_t = mem::zeroed();
                    libc::sigaddset(&mut only, signal);
                    libc::pthread_sigmask(libc::SIG_UNBLOCK, &only, ptr::null_mut());
                }
                if previous.sa_flags & libc::SA_SIGINFO != 0 {
                    type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
                    mem::transmute::<usize, Handler>(handler)(signal, info, context);
                } else {
                    mem::transmute::<usize, extern "C" fn(c_int)>(handler)(signal);
                }
            }
        }
    }
}
