//! How long a call may wait.

use std::time::{Duration, Instant};

/// The end of a wait: now, a moment, or never.
#[derive(Clone, Copy, Debug)]
pub enum Deadline {
    /// Known to have passed without asking the clock, which costs as much as a small append.
    Now,
    At(Instant),
    Never,
}

impl Deadline {
    /// From the `timeout_ms` of the C interface: 0 do not wait, > 0 at most so long, < 0 for ever.
    pub fn after_ms(timeout_ms: i32) -> Deadline {
        match u64::try_from(timeout_ms) {
            Ok(0) => Deadline::Now,
            Ok(ms) => Deadline::At(Instant::now() + Duration::from_millis(ms)),
            Err(_) => Deadline::Never,
        }
    }

    /// The moment; `None` stands for "never".
    pub fn instant(self) -> Option<Instant> {
        match self {
            Deadline::Now => Some(Instant::now()),
            Deadline::At(at) => Some(at),
            Deadline::Never => None,
        }
    }

    pub fn has_passed(self) -> bool {
        match self {
            Deadline::Now => true,
            Deadline::At(at) => Instant::now() >= at,
            Deadline::Never => false,
        }
    }

    /// This deadline or `other`, whichever comes first.
    pub fn or_earlier(self, other: Instant) -> Deadline {
        match self {
            Deadline::Now => Deadline::Now,
            Deadline::At(at) => Deadline::At(at.min(other)),
            Deadline::Never => Deadline::At(other),
        }
    }
}
