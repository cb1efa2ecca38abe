//! How long a call may wait.

use std::time::{Duration, Instant};

/// The end of a wait: a moment, or never.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// From the `timeout_ms` of the C interface: 0 do not wait, > 0 at most so long, < 0 for ever.
    pub fn after_ms(timeout_ms: i32) -> Deadline {
        Deadline(u64::try_from(timeout_ms).ok().map(|ms| Instant::now() + Duration::from_millis(ms)))
    }

    pub fn never() -> Deadline {
        Deadline(None)
    }

    /// The moment; `None` stands for "never".
    pub fn instant(self) -> Option<Instant> {
        self.0
    }

    pub fn has_passed(self) -> bool {
        self.0.is_some_and(|at| Instant::now() >= at)
    }

    /// This deadline or `other`, whichever comes first.
    pub fn or_earlier(self, other: Instant) -> Deadline {
        Deadline(Some(self.0.map_or(other, |at| at.min(other))))
    }
}
