package mfq;

import java.lang.ref.Reference;

/** One file of a queue, held: it stays mapped until {@link #close}, even if the queue is closed before. */
public final class QueueFile implements AutoCloseable {
    private final long file;
    private final Leaks.End end;

    QueueFile(long file, String path) {
        this.file = file;
        end = new Leaks.End(this, "a file of", path, () -> Native.fileRelease(file));
    }

    /** The queue's offset of the file's first byte. */
    public long start() {
        return info()[0];
    }

    public long size() {
        return info()[1];
    }

    /** How far it is written without a hole: bytes from its start; so are the next two. */
    public long wrote() {
        return info()[2];
    }

    public long committed() {
        return info()[3];
    }

    public long flushed() {
        return info()[4];
    }

    @Override
    public void close() {
        end.close();
    }

    private long[] info() {
        long[] info = new long[Native.FILE];
        Native.fileInfo(file, info);
        Reference.reachabilityFence(this);
        return info;
    }
}
