package mfq;

import static java.util.Objects.requireNonNull;

import java.lang.ref.Reference;
import java.nio.ByteBuffer;
import java.nio.ReadOnlyBufferException;
import java.nio.charset.Charset;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.function.Supplier;

/**
 * A queue of memory-mapped files. {@code mfq.h} is the manual: what a return promises, what each call may wait for, and
 * what each status means. Calls fail with {@link MfqException}, which carries the library's own sentence.
 *
 * <p>Threads: every method can be called from any thread at any time; {@link #close} too, which lets the calls of others
 * come out with {@link Status#CLOSED}. A call that waits is not ended by {@link Thread#interrupt}.
 *
 * <p>Memory: the buffers of claims and views are parts of mapped files. A file stays mapped until nothing refers to one of
 * its parts and the garbage collector has noticed; with every 1,024th file that is held so {@link System#gc} is called.
 *
 * <p>A {@code timeoutMs} of 0 does not wait, a negative one waits for ever.
 */
public final class MappedFileQueue implements AutoCloseable {
    /** As {@code upTo} of a flush: all that was appended or claimed when the call began. */
    public static final long EVERYTHING = -1;

    private static final int HEADER_BYTES = 16, ALIGNMENT = 8;
    /** As many as an array takes; no file takes more. */
    private static final int MOST_BYTES = Integer.MAX_VALUE - 8;
    static final int COMMITTED = 0, FLUSHED = 1;
    private static final Charset PATHS = Charset.forName(System.getProperty("sun.jnu.encoding"));

    private final Handle handle;
    private final Leaks.End end;
    private final boolean isRecord;
    /** Whether claims are in the file itself. */
    private final boolean isClaimInPlace;
    /** Of the file that claims or views were in last. */
    private volatile Window claimed, viewed;

    private MappedFileQueue(long queue, String path, Options options) {
        handle = new Handle(queue, path);
        end = new Leaks.End(this, "the queue", path, handle::close);
        isRecord = options.format == Options.Format.RECORD;
        isClaimInPlace = isRecord && options.mode == Options.Mode.MMAP;
    }

    /** Opens the queue in a directory, and creates it if it is not there; ends with {@link #close}. */
    public static MappedFileQueue open(Path directory) {
        return open(directory, Options.DEFAULT);
    }

    public static MappedFileQueue open(Path directory, Options options) {
        String path = directory.toString();
        // Relative to what is Java's current directory; an empty one is nowhere, and refused.
        Path whole = path.isEmpty() ? directory : directory.toAbsolutePath();
        byte[] bytes = whole.toString().getBytes(PATHS);
        // It may hold bytes that no string expresses here, or be one of another file system, which equals none of this.
        if (!Path.of(new String(bytes, PATHS)).equals(whole)) {
            throw new MfqException(Status.INVALID, 0,
                    "path: " + path + " cannot be expressed in " + PATHS + ", or is not of the default file system");
        }
        return new MappedFileQueue(Native.open(bytes, options.numbers()), path, options);
    }

    /** The version of the native library. */
    public static String libraryVersion() {
        return Native.version();
    }

    /**
     * Makes an error of SIGBUS in the library's mappings: see {@code mfq_install_sigbus_guard}. For the whole process and
     * for ever. A JVM under {@code -Xcheck:jni} wants libjsig preloaded beside it.
     */
    public static void installSigbusGuard() {
        Native.installSigbusGuard();
    }

    // ---- appending ----------------------------------------------------------------------------------------------

    /** Appends one record. */
    public Span append(byte[] record) {
        return append(record, 0, record.length);
    }

    public Span append(byte[] bytes, int from, int len) {
        Objects.checkFromIndexSize(from, len, bytes.length);
        try {
            return spanOf(Native.append(handle.queue, bytes, from, len), len);
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /** Appends what remains in the buffer, which is empty afterwards: a direct one without a copy on the way. */
    public Span append(ByteBuffer record) {
        // Each once, and looked at: another thread may move them at any time.
        int from = record.position(), len = record.limit() - from;
        Objects.checkFromIndexSize(from, len, record.capacity());
        Span at;
        if (record.isDirect()) {
            try {
                at = spanOf(Native.appendDirect(handle.queue, record, from, len), len);
            } finally {
                Reference.reachabilityFence(this);
            }
        } else if (record.hasArray()) {
            at = append(record.array(), record.arrayOffset() + from, len);
        } else {
            byte[] copy = new byte[len];
            record.get(from, copy);
            at = append(copy);
        }
        record.position(from + len);
        return at;
    }

    /** Appends records, all or none. */
    public List<Span> appendBatch(List<byte[]> records) {
        int[] lengths = records.stream().mapToInt(record -> record.length).toArray();
        long bytes = Arrays.stream(lengths).asLongStream().sum();
        if (bytes > MOST_BYTES) {
            throw new MfqException(Status.TOO_LARGE, 0, "the batch does not fit in one file");
        }
        ByteBuffer all = ByteBuffer.allocate((int) bytes);
        records.forEach(all::put);
        long[] spans = new long[2 * lengths.length];
        try {
            Native.appendBatch(handle.queue, all.array(), lengths, spans);
        } finally {
            Reference.reachabilityFence(this);
        }
        Span[] at = new Span[lengths.length];
        Arrays.setAll(at, i -> new Span(spans[2 * i], spans[2 * i + 1]));
        return List.of(at);
    }

    /** A buffer in which the host writes a record by itself; its place is known before. */
    public Claim claim(int len) {
        long[] claim = new long[Native.CLAIM];
        try {
            Native.claim(handle.queue, len, claim);
            try {
                ByteBuffer buffer = isClaimInPlace ? inPlace(claim) : ByteBuffer.allocateDirect((int) claim[1]);
                return new Claim(this, claim, buffer, !isClaimInPlace);
            } catch (RuntimeException | Error failed) {
                Native.abort(claim);
                throw failed;
            }
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /**
     * Appends one record and asks for it to be flushed. The future completes with the record's offset once the record is
     * on stable storage; many share a sync. It fails with what the append failed with, and with
     * {@link NotDurableException} if the record is appended but its flush has failed, or {@link #truncateAfter} has cut it
     * off ({@link Status#END}; also if that was at work while the record was appended, and it may be there). A queue that
     * is closed completes what is pending: it flushes everything.
     *
     * <p>Threads: no thread waits for a future. What depends on one runs in the thread of this queue that completes them, in
     * {@code truncateAfter} or {@code close}, or, where it is complete already, in the thread that says what depends on it.
     * Take the {@code ...Async} methods of the future for what takes long, or waits for another future of this queue.
     */
    public CompletableFuture<Long> appendDurable(byte[] record) {
        requireNonNull(record, "record");
        return durable(() -> append(record));
    }

    public CompletableFuture<Long> appendDurable(ByteBuffer record) {
        requireNonNull(record, "record");
        return durable(() -> append(record));
    }

    private CompletableFuture<Long> durable(Supplier<Span> append) {
        try {
            return handle.durability.append(append);
        } catch (MfqException failed) {
            return CompletableFuture.failedFuture(failed);
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    // ---- reading ------------------------------------------------------------------------------------------------

    /** Copies the first record at or after an offset; in RAW everything to the end of what is readable in its file. */
    public Entry read(long offset) {
        try (View view = view(offset)) {
            return new Entry(view.bytes(), view.end());
        }
    }

    /** The same, into what remains of a buffer, whose position moves behind it; answers where to read next. */
    public long read(long offset, ByteBuffer into) {
        if (into.isReadOnly()) {
            throw new ReadOnlyBufferException();
        }
        int at = into.position(), cap = into.limit() - at;
        Objects.checkFromIndexSize(at, cap, into.capacity());
        if (!into.isDirect() && cap > 0) {
            return readToHeap(offset, into, at, cap);
        }
        ByteBuffer direct = into.isDirect() ? into : ByteBuffer.allocateDirect(0);
        long[] lengthAndNext = new long[2];
        try {
            Native.readDirect(handle.queue, offset, direct, direct == into ? at : 0, cap, lengthAndNext);
        } finally {
            Reference.reachabilityFence(this);
        }
        into.position(at + (int) lengthAndNext[0]);
        return lengthAndNext[1];
    }

    /** Out of a view: the buffer may be far larger than the record, and direct memory is scarce. */
    private long readToHeap(long offset, ByteBuffer into, int at, int cap) {
        int len;
        long next;
        try (View view = view(offset)) {
            if (isRecord && view.length() > cap) {
                throw new MfqException(Status.TOO_LARGE, 0,
                        "the record has " + view.length() + " bytes, and there is room for " + cap);
            }
            len = Math.min(view.length(), cap);
            into.put(at, view.buffer(), 0, len);
            next = isRecord ? view.end() : offset + len;
        }
        into.position(at + len);
        return next;
    }

    /** A record in place, not copied; end it with {@link View#close}. In RAW as {@link #read(long)}. */
    public View view(long offset) {
        long[] view = new long[Native.VIEW];
        try {
            Native.view(handle.queue, offset, view);
            try {
                Window window = around(viewed, view);
                viewed = window;
                return new View(view, window.holds(view) ? window.readable(view) : copyOf(view), true);
            } catch (RuntimeException | Error failed) {
                Native.viewRelease(view);
                throw failed;
            }
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /** A reader whose first record is the first one at or after an offset; end it with {@link Reader#close}. */
    public Reader reader(long offset) {
        try {
            return new Reader(this, Native.readerOpen(handle.queue, offset), handle.path);
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /** The window for the memory of this claim or view: this one if it can be, else one of the file it is in. */
    Window around(Window window, long[] place) {
        return window != null && window.holds(place) ? window : Window.around(handle.queue, place);
    }

    /** For where a truncation has just put another file in the place of the one the view is in. It must not end meanwhile. */
    static ByteBuffer copyOf(long[] view) {
        ByteBuffer copy = ByteBuffer.allocateDirect((int) view[1]);
        Native.copy(view[0], copy, (int) view[1]);
        return copy.asReadOnlyBuffer();
    }

    // ---- files, offsets, durability -------------------------------------------------------------------------------

    /** The file that is written to; waits for it if it has to be made. */
    public QueueFile getLast(int timeoutMs) {
        try {
            return new QueueFile(Native.getLast(handle.queue, timeoutMs), handle.path);
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /** The file in which an offset lies. */
    public QueueFile find(long offset) {
        try {
            return new QueueFile(Native.find(handle.queue, offset), handle.path);
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /** Brings everything below an offset to stable storage ({@link #EVERYTHING}: all there is). */
    public void flush(long upTo, int timeoutMs) {
        try {
            Native.flush(handle.queue, upTo, timeoutMs);
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /** Waits until everything below an offset can be read. */
    public void awaitCommitted(long offset, int timeoutMs) {
        try {
            Native.await(handle.queue, COMMITTED, offset, timeoutMs);
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /** Waits until everything below an offset is on stable storage, without flushing it. */
    public void awaitFlushed(long offset, int timeoutMs) {
        try {
            Native.await(handle.queue, FLUSHED, offset, timeoutMs);
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    public Offsets offsets() {
        long[] offsets = new long[5];
        try {
            Native.offsets(handle.queue, offsets);
        } finally {
            Reference.reachabilityFence(this);
        }
        return new Offsets(offsets);
    }

    public Recovery recovery() {
        long[] report = new long[10];
        try {
            Native.recovery(handle.queue, report);
        } finally {
            Reference.reachabilityFence(this);
        }
        return new Recovery(report);
    }

    public Stats stats() {
        long[] stats = new long[Stats.COUNT];
        try {
            Native.stats(handle.queue, stats);
        } finally {
            Reference.reachabilityFence(this);
        }
        return new Stats(stats);
    }

    /** Cuts the log at an offset, durably; pending futures of what was there fail. */
    public void truncateAfter(long offset) {
        try {
            handle.durability.truncateAfter(offset);
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /**
     * Removes the files that end at or before an offset, durably. The space of one comes back once nothing refers to a
     * buffer of it, and the garbage collector has noticed.
     */
    public void truncateBefore(long offset) {
        try {
            Native.truncateBefore(handle.queue, offset);
        } finally {
            Reference.reachabilityFence(this);
        }
    }

    /**
     * Flushes everything and closes the queue; what comes later fails with {@link Status#CLOSED}. Closing again does
     * nothing; where another thread is at it, it waits for that one, which alone is told of a failure. So what depends
     * on a future must not wait for a close in another thread.
     */
    @Override
    public void close() {
        end.close();
    }

    // ---- its own ------------------------------------------------------------------------------------------------

    /** Or about to be. */
    boolean isClosed() {
        return end.hasCome();
    }

    /** Where a record of so many bytes that ends there begins: its header and the gap behind it are in the span. */
    Span spanOf(long end, int len) {
        long bytes = isRecord ? (HEADER_BYTES + (long) len + ALIGNMENT - 1) & -ALIGNMENT : len;
        return new Span(end - bytes, end);
    }

    private ByteBuffer inPlace(long[] claim) {
        Window window = around(claimed, claim);
        claimed = window;
        return window.writable(claim);
    }

    /** What has to be closed, apart from the object that the garbage collector watches. */
    private static final class Handle {
        final long queue;
        final String path;
        final Durability durability;

        Handle(long queue, String path) {
            this.queue = queue;
            this.path = path;
            durability = new Durability(queue, path);
        }

        void close() {
            MfqException failure = null;
            try {
                Native.close(queue);
            } catch (MfqException failed) {
                failure = failed;
            }
            durability.closed(failure);
            if (failure != null) {
                throw failure;
            }
        }
    }
}
