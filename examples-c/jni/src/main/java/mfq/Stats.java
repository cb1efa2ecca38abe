package mfq;

import java.util.Arrays;
import java.util.List;

/**
 * What the queue did since it was opened; {@code mfq_stats_t} explains each. {@code creationUs.get(i)} counts the
 * creations of files that took less than 2^i microseconds.
 */
public record Stats(long appends, long bytes, long rollsReady, long rollsWaited, long rollsTimedOut, long filesCreated,
        long slowCreations, long failedCreations, long expiredRequests, long supersededRequests, long selfServedCreations,
        long openClaims, long oldestClaimOffset, long oldestClaimAgeMs, long prefaultedTo, long poolWaits,
        long poolRefusals, long poolFree, List<Long> creationUs) {
    private static final int BUCKETS_AT = 18;

    /** How many numbers the library tells. */
    static final int COUNT = BUCKETS_AT + 24;

    Stats(long[] of) {
        this(of[0], of[1], of[2], of[3], of[4], of[5], of[6], of[7], of[8], of[9], of[10], of[11], of[12], of[13], of[14],
                of[15], of[16], of[17], Arrays.stream(of, BUCKETS_AT, COUNT).boxed().toList());
    }
}
