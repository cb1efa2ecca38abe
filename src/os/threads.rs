//! Threads of the library's own.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a named thread that receives no asynchronous signal: a host's handlers run on the host's threads. Faults of
/// the thread itself (SIGSEGV, SIGBUS, ...) stay unblocked, as blocking them turns them into death without a handler.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    // SAFETY: the sets are plain values initialised by sigfillset and by the kernel; only this thread's mask changes,
    // and it is put back before returning. A new thread inherits the mask of its creator (pthread_sigmask(3)).
    unsafe {
        let mut blocked: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut blocked);
        for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT] {
            libc::sigdelset(&mut blocked, fault);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &blocked, &mut before);
        let thread = Builder::new().name(name.into()).spawn(body);
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        thread
    }
}
