package mfq;

import java.lang.ref.Reference;
import java.nio.ByteBuffer;

/**
 * Memory in which the host writes a record by itself. It ends with the first {@link #commit} or {@link #abort}; until
 * then nothing behind it becomes readable. {@link #close} aborts what is neither, for try-with-resources.
 *
 * <p>In RECORD and MMAP the buffer is the file itself. In RAW and in STAGED it is private memory, copied by the commit.
 */
public final class Claim implements AutoCloseable {
    private final MappedFileQueue queue;
    private final long[] claim;
    private final ByteBuffer buffer;
    private final boolean isCopied;
    private final Leaks.End end;
    private boolean isOpen = true;

    Claim(MappedFileQueue queue, long[] claim, ByteBuffer inPlace) {
        this.queue = queue;
        this.claim = claim;
        isCopied = inPlace == null;
        buffer = isCopied ? ByteBuffer.allocateDirect((int) claim[1]) : inPlace;
        // An open one holds up the queue's readers, and its file beyond the queue's close.
        end = new Leaks.End(this, "a claim at", claim[2], () -> Native.abort(claim));
    }

    /** Where the record will be. */
    public long offset() {
        return claim[2];
    }

    /**
     * The memory, direct and writable. Once the claim has ended it is empty: whoever writes to it gets a
     * {@link java.nio.BufferOverflowException} or an {@link IndexOutOfBoundsException}. Keep no duplicate of it: writing to
     * one then is no crash, but damages the record.
     */
    public ByteBuffer buffer() {
        return buffer;
    }

    /** Makes everything that was claimed a record. */
    public Span commit() {
        return commit((int) claim[1]);
    }

    /** Makes the first bytes a record; {@code mfq_commit} tells how many fewer there may be. */
    public synchronized Span commit(int len) {
        try {
            Span at = queue.spanOf(Native.commit(claim, len, isCopied && isOpen ? buffer : null), len);
            end();
            return new Span(offset(), at.end());
        } catch (MfqException failed) {
            if (failed.status() != Status.INVALID) {
                end();
            }
            throw failed;
        } finally {
            Reference.reachabilityFence(queue);
        }
    }

    /** Gives it up. */
    public synchronized void abort() {
        end();
        Native.abort(claim);
    }

    @Override
    public synchronized void close() {
        if (isOpen) {
            end();
            try {
                Native.abort(claim);
            } catch (MfqException closed) {
                if (closed.status() != Status.CLOSED) {
                    throw closed;
                }
            }
        }
    }

    private void end() {
        isOpen = false;
        buffer.limit(0);
        end.come();
    }
}
