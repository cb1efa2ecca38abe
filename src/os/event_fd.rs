//! A descriptor that a host can poll.

use super::Kept;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// An eventfd(2): readable from a signal on until somebody reads it.
pub(crate) struct EventFd(Kept);

impl EventFd {
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: takes integers only; the result is a descriptor of our own.
        unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(EventFd(OwnedFd::from_raw_fd(fd).into())) }
        }
    }

    pub fn number(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }

    pub fn signal(&self) {
        let one = 1u64.to_ne_bytes();
        // It cannot block, and fails only where the count is at its end, that is, where it is readable already.
        // SAFETY: the buffer is as long as the call is told.
        unsafe { libc::write(self.number(), one.as_ptr().cast(), one.len()) };
    }
}
