//! STAGED: the private buffers that appends store into, and how many of them there may be.
//!
//! A buffer is promised to a file when the file is asked for, not when it is made, so that files made ahead of the
//! writer cannot take more than there are. Its memory is the file's own from then on, and goes back to the kernel when
//! the file is full and written: what is shared is the right to have one. So nobody ever stores into memory that has
//! become another file's.

use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::options::Options;
use crate::os::{MmapRaw, Os};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct Pool {
    locked: bool,
    fail_fast: bool,
    counts: Mutex<Counts>,
    /// With `counts`: a buffer came back, a commit is asked for, or the queue ended.
    changed: Condvar,
}

struct Counts {
    free: u32,
    /// How often a buffer came back.
    returns: u64,
    /// How many wait for what a commit would bring; who did not want to wait has asked for one commit.
    waiting: u32,
    asked: bool,
    ended: bool,
}

/// The right to one buffer; back in the pool when dropped.
pub(crate) struct Buffer(Arc<Pool>);

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut counts = self.0.counts.lock();
        counts.free += 1;
        counts.returns += 1;
        self.0.changed.notify_all();
    }
}

impl Pool {
    /// Of a queue whose files have `file_bytes`. If its memory is to be locked, it is tried here whether it may be.
    pub fn open(os: &dyn Os, options: &Options, file_bytes: u64) -> Result<Arc<Pool>> {
        let buffers = options.pool_buffers();
        if options.lock_pool {
            let len = u64::from(buffers) * file_bytes;
            let locked = os.map_private(None, len as usize).and_then(|memory| os.lock_memory(&memory));
            let what = format_args!("locking {buffers} buffers of {file_bytes} bytes into memory (RLIMIT_MEMLOCK)");
            locked.map_err(|cause| Error::system(what, cause).with_status(Status::NoMemory))?;
        }
        let counts = Counts { free: buffers, returns: 0, waiting: 0, asked: false, ended: false };
        let (locked, fail_fast) = (options.lock_pool, options.pool_fail_fast);
        Ok(Arc::new(Pool { locked, fail_fast, counts: Mutex::new(counts), changed: Condvar::new() }))
    }

    /// Memory for the file `name`, which has been promised a buffer.
    pub fn memory(&self, os: &dyn Os, name: &str, len: u64) -> Result<MmapRaw> {
        let memory = os.map_private(None, len as usize).and_then(|memory| {
            if self.locked {
                os.lock_memory(&memory)?;
            }
            Ok(memory)
        });
        let what = format_args!("{name}: a buffer of {len} bytes");
        memory.map_err(|cause| Error::system(what, cause).with_status(Status::NoMemory))
    }

    pub fn take(self: &Arc<Pool>) -> Option<Buffer> {
        let mut counts = self.counts.lock();
        counts.free = counts.free.checked_sub(1)?;
        Some(Buffer(self.clone()))
    }

    pub fn free(&self) -> u32 {
        self.counts.lock().free
    }

    /// For `wait`: before looking whether there is a buffer.
    pub fn returns(&self) -> u64 {
        self.counts.lock().returns
    }

    /// Asks for commits and waits until more buffers than `seen` came back. `Busy` if the host does not want to wait.
    pub fn wait(&self, seen: u64, deadline: Deadline) -> Result<()> {
        let mut counts = self.counts.lock();
        self.changed.notify_all(); // for `pause`
        if self.fail_fast {
            counts.asked = true;
            return Err(none_free());
        }
        counts.waiting += 1;
        let mut in_time = true;
        while counts.returns == seen && !counts.ended && in_time {
            in_time = !deadline.has_passed();
            match deadline.instant() {
                Some(at) => drop(self.changed.wait_until(&mut counts, at)),
                None => self.changed.wait(&mut counts),
            }
        }
        counts.waiting -= 1;
        match in_time {
            true => Ok(()),
            false => Err(Error::new(Status::Timeout, "no buffer of the pool became free within the timeout")),
        }
    }

    /// The committing thread's pause. It is cut short while somebody waits: what is complete now need not be enough to
    /// free a buffer, and what follows may be.
    pub fn pause(&self, interval: Duration) {
        let mut counts = self.counts.lock();
        let pausing = |counts: &mut Counts| counts.waiting == 0 && !counts.asked && !counts.ended;
        self.changed.wait_while_for(&mut counts, pausing, interval);
        counts.asked = false;
    }

    /// Nobody waits any more: the queue is closed, or poisoned.
    pub fn end(&self) {
        self.counts.lock().ended = true;
        self.changed.notify_all();
    }
}

pub(crate) fn none_free() -> Error {
    Error::new(Status::Busy, "no buffer of the pool is free")
}
