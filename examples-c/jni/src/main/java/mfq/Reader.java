package mfq;

import java.util.Iterator;
import java.util.NoSuchElementException;

/**
 * Reads forward, in place. As an {@link Iterator} it ends where the queue ends for now, and goes on when there is more;
 * {@link #next(int)} waits for it.
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
    public synchronized boolean hasNext() {
        if (found == null) {
            try {
                found = following(0);
            } catch (MfqException failed) {
                if (failed.status() != Status.END) {
                    throw failed;
                }
            }
        }
        return found != null;
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

    /** Moves: the next record is the first one at or after the offset. */
    public synchronized void seek(long offset) {
        endGiven();
        found = null;
        Native.readerSeek(reader, offset);
    }

    /** Closing again does nothing. */
    @Override
    public void close() {
        end.close();
    }

    private View following(int timeoutMs) {
        endGiven();
        long[] view = new long[Native.VIEW];
        Native.readerNext(reader, timeoutMs, view);
        window = queue.around(window, view);
        return new View(view, MappedFileQueue.partOf(window, view), false);
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
