//! What the core answers, in the types of C. Fields are listed in full, so that a new one cannot be forgotten.

use super::handles::HeldFile;
use super::types::*;
use crate::claim::Claim;
use crate::positions::FilePositions;
use crate::queue::{Offsets, Span};
use crate::reader::View;
use crate::stats::{CREATION_BUCKETS, Stats};

const _: () = assert!(CREATION_BUCKETS == super::constants::MFQ_CREATION_BUCKETS);

/// Of output structures: it is the host's and stays as it is.
const HOSTS_OWN: usize = 0;

#[inline]
pub fn span(span: Span) -> mfq_span_t {
    let Span { offset, end } = span;
    mfq_span_t { offset, end }
}

#[inline]
pub fn claim(queue: u64, claim: Claim) -> mfq_claim_t {
    let Claim { ptr, len, offset, id } = claim;
    mfq_claim_t { ptr, len, offset, token: [queue, id] }
}

/// With the token of a view that is not released.
pub fn view(view: &View) -> mfq_view_t {
    let &View { file: _, ptr, len, offset, end, time_ms } = view;
    mfq_view_t { ptr, len, offset, end, time_ms, token: [0, 0] }
}

pub fn file_info(held: &HeldFile) -> mfq_file_info_t {
    let FilePositions { wrote, committed, flushed } = held.positions.within(&held.file);
    let (start, size, base) = (held.file.start(), held.file.size(), held.file.base());
    mfq_file_info_t { struct_size: HOSTS_OWN, start, size, wrote, committed, flushed, base }
}

pub fn offsets(offsets: &Offsets) -> mfq_offsets_t {
    let &Offsets { min, reserved, wrote, committed, flushed } = offsets;
    mfq_offsets_t { struct_size: HOSTS_OWN, min, reserved, wrote, committed, flushed }
}

pub fn stats(stats: &Stats) -> mfq_stats_t {
    let &Stats {
        appends,
        bytes,
        rolls_ready,
        rolls_waited,
        rolls_timed_out,
        files_created,
        slow_creations,
        failed_creations,
        expired_requests,
        superseded_requests,
        self_served_creations,
        open_claims,
        oldest_claim_offset,
        oldest_claim_age_ms,
        prefaulted_to,
        creation_us,
        pool_waits,
        pool_refusals,
        pool_free,
    } = stats;
    mfq_stats_t {
        struct_size: HOSTS_OWN,
        appends,
        bytes,
        rolls_ready,
        rolls_waited,
        rolls_timed_out,
        files_created,
        slow_creations,
        failed_creations,
        expired_requests,
        superseded_requests,
        self_served_creations,
        open_claims,
        oldest_claim_offset,
        oldest_claim_age_ms,
        prefaulted_to,
        creation_us,
        pool_waits,
        pool_refusals,
        pool_free,
    }
}
