//! What opening a queue found.

/// How the queue had been left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was not there.
    Created,
    /// Closed, and nothing was written since.
    Clean,
    /// Its process ended without closing it: the page cache still held every store.
    ProcessDeath,
    /// The machine stopped, or the file system was mounted anew.
    PowerCut,
    /// Nobody knows: its directory had no `.mfq`.
    Adopted,
}

/// What opening a queue found, and did about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recovery {
    pub ended: Ended,
    /// The log ended here; what lay behind is gone.
    pub cut_at: u64,
    /// Everything below is known to be as it was written: by its checksums, by the walker, by the tail page, or because
    /// it was durable.
    pub verified_to: u64,
    /// From the cut to the last byte that was not zero, in each file.
    pub cut_bytes: u64,
    pub claims_passed_over: u64,
    /// Offset of the first whole record behind the cut.
    pub record_beyond: Option<u64>,
    /// Durable bytes that were damaged, the stretches they lie in, and where the first begins.
    pub lost_bytes: u64,
    pub lost_stretches: u64,
    pub first_lost: Option<u64>,
}

impl Recovery {
    /// Nothing was cut, passed over or lost.
    pub(crate) fn intact(ended: Ended, end: u64) -> Recovery {
        Recovery {
            ended,
            cut_at: end,
            verified_to: end,
            cut_bytes: 0,
            claims_passed_over: 0,
            record_beyond: None,
            lost_bytes: 0,
            lost_stretches: 0,
            first_lost: None,
        }
    }

    pub fn unverified_bytes(&self) -> u64 {
        self.cut_at - self.verified_to
    }
}
