package mfq;

/** How far a queue is: flushed &lt;= committed &lt;= wrote &lt;= reserved; {@code min} is the first offset kept. */
public record Offsets(long min, long reserved, long wrote, long committed, long flushed) {
    Offsets(long[] of) {
        this(of[0], of[1], of[2], of[3], of[4]);
    }
}
