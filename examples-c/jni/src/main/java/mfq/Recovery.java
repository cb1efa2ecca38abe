package mfq;

/** What opening the queue found; {@code mfq_recovery_t} explains each. An offset of -1 stands for none. */
public record Recovery(Ended ended, long lostStretches, long cutAt, long cutBytes, long verifiedTo, long unverifiedBytes,
        long claimsPassedOver, long recordBeyond, long lostBytes, long firstLost) {
    /** How the queue had been left. */
    public enum Ended { CREATED, CLEAN, PROCESS_DEATH, POWER_CUT, ADOPTED }

    Recovery(long[] of) {
        this(Ended.values()[(int) of[0]], of[1], of[2], of[3], of[4], of[5], of[6], of[7], of[8], of[9]);
    }
}
