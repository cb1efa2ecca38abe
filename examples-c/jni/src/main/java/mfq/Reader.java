package mfq;

import static java.util.concurrent.TimeUnit.NANOSECONDS;

import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Iterator;
import java.util.NoSuchElementException;

/**
 * Reads forward, in place. As an {@link Iterator} it ends where the queue ends for now, and goes on when there is more;
 * {@link #next(int)} and {@link #tail} wait for it.
 *
 * <p>Each call ends the view that the one before gave, {@link #hasNext} too. Use it from one thread at a time: a second
 * one waits until the first has come out. {@link #close} may come from any, and brings out whoever waits.
 */
public final class Reader implements Iterator<View>, AutoCloseable {
    private final MappedFileQueue queue;
    private final long reader;
    private final Leaks.End end;
    private Window window;
    /** What was given last, and what {@link #hasNext} has found. */
    private View given, found;

    Reader(MappedFileQueue queue, long reader, String path) {
        this.queue = queue;
        this.reader = reader;
        end = new Leaks.End(this, "a reader of", path, () -> Native.readerClose(reader));
    }

    /** Whether there is a record now. */
    @Override
    public boolean hasNext() {
        return hasNextBefore(Long.MAX_VALUE, 0);
    }

    @Override
    public synchronized View next() {
        if (!hasNext()) {
            throw new NoSuchElementException("there is no record yet");
        }
        return take(found);
    }

    /** The next record; {@link MfqTimeoutException} if there is none in time ({@link Status#END} if that is 0). */
    public synchronized View next(int timeoutMs) {
        return take(found == null ? following(timeoutMs) : found);
    }

    /**
     * The records that come within a time from now: the loop over them waits for each one, and ends when the time is over.
     * What has come by then is in it, and is not waited for; what comes later is left to the reader's next call. More
     * than 292 years are that many.
     */
    public Iterable<View> tail(Duration within) {
        long deadline = System.nanoTime() + Math.max(0, NANOSECONDS.convert(within));
        return () -> new Iterator<>() {
            /** Where the log ended when the time was over; until then nothing is beyond it. */
            private long end = Long.MAX_VALUE;

            @Override
            public boolean hasNext() {
                while (end == Long.MAX_VALUE) {
                    long left = deadline - System.nanoTime();
                    if (left <= 0) {
                        end = queue.offsets().committed();
                    } else {
                        long leftMs = NANOSECONDS.toMillis(left - 1) + 1;
                        if (hasNextBefore(end, (int) Math.min(leftMs, Integer.MAX_VALUE))) {
                            return true;
                        }
                    }
                }
                return hasNextBefore(end, 0);
            }

            @Override
            public View next() {
                if (!hasNext()) {
                    throw new NoSuchElementException("no record came in time");
                }
                return Reader.this.next();
            }
        };
    }

    /** Moves: the next record is the first one at or after the offset. */
    public synchronized void seek(long offset) {
        endGiven();
        found = null;
        Native.readerSeek(reader, offset);
    }

    /** Ends the view that was given last, too. Closing again does nothing. */
    @Override
    public void close() {
        end.close();
        // Not before: whoever waits for a record holds this lock.
        synchronized (this) {
            endGiven();
            found = null;
        }
    }

    private synchronized boolean hasNextBefore(long end, int timeoutMs) {
        if (found == null) {
            try {
                found = following(timeoutMs);
            } catch (MfqException failed) {
                if (failed.status() != Status.END && failed.status() != Status.TIMEOUT) {
                    throw failed;
                }
            }
        }
        return found != null && found.offset() < end;
    }

    private View following(int timeoutMs) {
        endGiven();
        long[] view = new long[Native.VIEW];
        Native.readerNext(reader, timeoutMs, view);
        window = queue.around(window, view);
        return new View(view, window.holds(view) ? window.readable(view) : copyOf(view), false);
    }

    /** Only the reader holds what is copied, and its close lets go of it. */
    ByteBuffer copyOf(long[] view) {
        synchronized (end) {
            if (end.hasCome()) {
                throw new MfqException(Status.CLOSED, 0, "the reader is closed");
            }
            return MappedFileQueue.copyOf(view);
        }
    }

    private View take(View view) {
        found = null;
        given = view;
        return view;
    }

    private void endGiven() {
        if (given != null) {
            given.close();
            given = null;
        }
    }
}
