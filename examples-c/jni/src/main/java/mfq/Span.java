package mfq;

import java.io.Serializable;

/**
 * Where a record lies: the bytes [offset, end) of the queue. In RECORD that includes its header and the gap to the next
 * multiple of 8, so {@code end} is where the next record can begin; in RAW it is the host's bytes.
 */
public record Span(long offset, long end) implements Serializable {}
