package mfq;

import java.nio.ByteBuffer;

/**
 * A record that is read in place (in RAW: a stretch of bytes). One of {@link MappedFileQueue#view} lives until
 * {@link #close}, one of a {@link Reader} until the reader's next call or its close.
 */
public final class View implements AutoCloseable {
    private final long[] view;
    private final ByteBuffer buffer;
    private final Leaks.End end;
    private volatile boolean isClosed;

    View(long[] view, ByteBuffer buffer, boolean isHeld) {
        this.view = view;
        this.buffer = buffer;
        end = isHeld ? new Leaks.End(this, "a view at", view[2], () -> Native.viewRelease(view)) : null;
    }

    /** Where the record begins. */
    public long offset() {
        return view[2];
    }

    /** Where to read next. */
    public long end() {
        return view[3];
    }

    public int length() {
        return (int) view[1];
    }

    /** When it was appended, in milliseconds since 1970; 0 in RAW. */
    public long timeMs() {
        return view[4];
    }

    /**
     * The bytes, direct and read-only; the same buffer each time. Once the view is closed it is empty: whoever reads it
     * gets a {@link java.nio.BufferUnderflowException} or an {@link IndexOutOfBoundsException}. One whose limit is set
     * anew after that, by {@code clear} say, and a duplicate or slice that was made before, reads what is in the file
     * then: it is mapped as long as there is one of them.
     */
    public ByteBuffer buffer() {
        check();
        return buffer;
    }

    /** A copy of the bytes. */
    public byte[] bytes() {
        check();
        byte[] copy = new byte[length()];
        buffer.duplicate().clear().get(0, copy);
        return copy;
    }

    /** Ends it; {@link Status#IO} if, under the guard against SIGBUS, a page of it was lost. Closing again does nothing. */
    @Override
    public void close() {
        isClosed = true;
        buffer.limit(0);
        if (end != null) {
            end.close();
        }
    }

    private void check() {
        if (isClosed) {
            throw new MfqException(Status.CLOSED, 0, "the view at " + offset() + " is closed");
        }
    }
}
