package mfq;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/**
 * The functions of the glue. Most are one call of the library. Each throws what {@link #failure} makes of an error, and
 * hands structures over as their numbers, in the order of {@code mfq.h}. Handles are the library's: one that has ended is
 * {@link Status#CLOSED}, whatever comes.
 *
 * <p>Callers check ranges of arrays and buffers, and keep memory whose address they hand over.
 */
final class Native {
    static {
        Library.load();
    }

    /** Numbers of a claim: ptr, len, offset, token, token. */
    static final int CLAIM = 5;
    /** Numbers of a view: ptr, len, offset, end, time, token, token. */
    static final int VIEW = 7;
    /** Numbers of a file: start, size, wrote, committed, flushed. */
    static final int FILE = 5;

    private Native() {}

    static native void installSigbusGuard();

    static native String version();

    static native long open(byte[] path, long[] options);

    static native void close(long queue);

    /** Answer the record's end. */
    static native long append(long queue, byte[] bytes, int from, int len);

    static native long appendDirect(long queue, ByteBuffer bytes, int from, int len);

    /** The records one after the other in {@code bytes}; {@code spans} gets an offset and an end of each. */
    static native void appendBatch(long queue, byte[] bytes, int[] lengths, long[] spans);

    static native void claim(long queue, int len, long[] claim);

    /** Copies {@code from} into the claim before, if it is not null: it is direct and has {@code len} bytes. */
    static native long commit(long[] claim, int len, ByteBuffer from);

    static native void abort(long[] claim);

    /** Answers the record's length and where to read next, in {@code lengthAndNext}; {@code into} is direct. */
    static native void readDirect(long queue, long offset, ByteBuffer into, int at, int cap, long[] lengthAndNext);

    static native void view(long queue, long offset, long[] view);

    static native void viewRelease(long[] view);

    static native long readerOpen(long queue, long offset);

    static native void readerNext(long reader, int timeoutMs, long[] view);

    static native void readerSeek(long reader, long offset);

    static native void readerClose(long reader);

    static native long getLast(long queue, int timeoutMs);

    static native long find(long queue, long offset);

    static native void fileInfo(long file, long[] info);

    static native void fileRelease(long file);

    /** A direct buffer over the whole file. */
    static native ByteBuffer fileMemory(long file);

    static native long address(ByteBuffer direct);

    /** Fills a direct buffer from memory. */
    static native void copy(long address, ByteBuffer to, int len);

    static native void flush(long queue, long upTo, int timeoutMs);

    static native void flushStart(long queue, long upTo);

    static native void await(long queue, int which, long offset, int timeoutMs);

    static native void offsets(long queue, long[] offsets);

    static native void recovery(long queue, long[] report);

    static native void stats(long queue, long[] stats);

    static native void truncateAfter(long queue, long offset);

    static native void truncateBefore(long queue, long offset);

    /** A duplicate of the queue's event descriptor, for {@link #awaitEvent} and {@link #closeEvents}. */
    static native int events(long queue);

    /** Waits, without a limit, until there is an event. */
    static native void awaitEvent(int events);

    static native void closeEvents(int events);

    /** Called by the glue when a call has failed; the span is of what was appended nevertheless. */
    static MfqException failure(int status, int errno, byte[] sentence, long offset, long end) {
        String text = new String(sentence, StandardCharsets.UTF_8);
        Status known = Status.of(status);
        // No switch: it has a class of its own, and without a descriptor to spare Java could not load it.
        if (known == Status.TIMEOUT) {
            return new MfqTimeoutException(errno, text);
        }
        if (known == Status.NOT_DURABLE) {
            return new NotDurableException(known, errno, text, new Span(offset, end));
        }
        return new MfqException(known, errno, known == Status.OTHER ? "status " + status + ": " + text : text);
    }
}
