package mfq;

import java.nio.ByteBuffer;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * One mapped file as one buffer, of which claims, views and files hand out parts. Every part refers to the whole, and the
 * file is held until nothing refers to that any more: a part that a host kept too long reads old bytes, and never memory
 * that is gone. That costs no {@code Cleaner} for each record, and no new direct buffer.
 */
final class Window {
    /** So many more files that are held have the garbage collector asked, as direct memory does: mappings are not endless. */
    private static final int MANY = 1024;
    private static final AtomicInteger HELD = new AtomicInteger();

    private final long base;
    private final ByteBuffer writable;
    private final ByteBuffer readable;

    /** Of a file that is held; the hold becomes this one's. */
    Window(long file, long base, long size) {
        this.base = base;
        writable = Native.memory(base, size);
        readable = writable.asReadOnlyBuffer();
        Leaks.CLEANER.register(writable, () -> {
            HELD.decrementAndGet();
            Native.fileRelease(file);
        });
        if (HELD.incrementAndGet() % MANY == 0) {
            System.gc();
        }
    }

    /** Of the file in which the offset lies. */
    static Window at(long queue, long offset) {
        return of(Native.find(queue, offset));
    }

    static Window of(long file) {
        long[] info = new long[Native.FILE];
        Native.fileInfo(file, info);
        return new Window(file, info[5], info[1]);
    }

    /** Whether the memory of a claim or a view, which its first two numbers say, is part of it. */
    boolean holds(long[] place) {
        return place[0] >= base && place[0] + place[1] <= base + writable.capacity();
    }

    ByteBuffer writable(long[] claim) {
        return part(writable, claim);
    }

    ByteBuffer readable(long[] view) {
        return part(readable, view);
    }

    private ByteBuffer part(ByteBuffer whole, long[] place) {
        return whole.slice((int) (place[0] - base), (int) place[1]);
    }
}
