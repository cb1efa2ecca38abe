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

    Claim(MappedFileQueue queue, long[] claim, ByteBuffer buffer, boolean isCopied) {
        this.queue = queue;
        this.claim = claim;
        this.buffer = buffer;
        this.isCopied = isCopied;
        // An open one holds up the queue's readers, and its file beyond the queue's close.
        end = new Leaks.End(this, "a claim at", claim[2], () -> Native.abort(claim));
    }

    /** Where the record will be. */
    public long offset() {
        return claim[2];
    }

    /**
     * The memory, direct and writable; the same buffer each time, and {@link Status#CLOSED} once the claim has ended or
     * the queue is closed. A buffer kept beyond the claim's end is empty: whoever writes to it gets a
     * {@link java.nio.BufferOverflowException} or an {@link IndexOutOfBoundsException}. Java has no way to take the
     * memory itself back, so do not {@code clear} it, set its limit, or use a duplicate or slice of it then: that is no
     * crash, but in RECORD and MMAP it writes into the file, over the record.
     */
    public synchronized ByteBuffer buffer() {
        if (!isOpen) {
            throw new MfqException(Status.CLOSED, 0, "the claim was committed, aborted or closed already");
        }
        if (queue.isClosed()) {
            throw new MfqException(Status.CLOSED, 0, "the queue is closed");
        }
        return buffer;
    }

    /** Makes everything that was claimed a record. */
    public Span commit() {
        return commit((int) claim[1]);
    }

    /** Makes the first bytes a record; {@code mfq_commit} tells how many fewer there may be. */
    public synchronized Span commit(int len) {
        try {
            long recordEnd = Native.commit(claim, len, isCopied && isOpen ? buffer : null);
            end();
            return new Span(offset(), recordEnd);
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
