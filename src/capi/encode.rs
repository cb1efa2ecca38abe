//! What the core answers, in the types of C. Fields are listed in full, so that a new one cannot be forgotten.

use super::constants::*;
use super::handles::HeldFile;
use super::types::*;
use crate::claim::Claim;
use crate::positions::FilePositions;
use crate::queue::{Offsets, Span};
use crate::reader::View;
use crate::report::{Ended, Recovery};
use crate::stats::{CREATION_BUCKETS, Stats};

const _: () = assert!(CREATION_BUCKETS == MFQ_CREATION_BUCKETS);

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

pub fn recovery(recovery: &Recovery) -> mfq_recovery_t {
    let unverified_bytes = recovery.unverified_bytes();
    let &Recovery {
        ended,
        cut_at,
        verified_to,
        cut_bytes,
        claims_passed_over,
        record_beyond,
        lost_bytes,
        lost_stretches,
        first_lost,
    } = recovery;
    mfq_recovery_t {
        struct_size: HOSTS_OWN,
        ended: match ended {
            Ended::Created => MFQ_ENDED_CREATED,
            Ended::Clean => MFQ_ENDED_CLEAN,
            Ended::ProcessDeath => MFQ_ENDED_PROCESS_DEATH,
            Ended::PowerCut => MFQ_ENDED_POWER_CUT,
            Ended::Adopted => MFQ_ENDED_ADOPTED,
        },
        lost_stretches: u32::try_from(lost_stretches).unwrap_or(u32::MAX),
        cut_at,
        cut_bytes,
        verified_to,
        unverified_bytes,
        claims_passed_over,
        record_beyond: record_beyond.unwrap_or(u64::MAX),
        lost_bytes,
        first_lost: first_lost.unwrap_or(u64::MAX),
    }
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
