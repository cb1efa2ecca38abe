package mfq;

import java.lang.ref.WeakReference;
import java.nio.ByteBuffer;
import java.util.Map;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * One mapped file as one buffer, of which claims and views hand out parts. Every part refers to the whole, and the
 * file is held until nothing refers to that any more: a part that a host kept too long reads old bytes, and never memory
 * that is gone. That costs no {@code Cleaner} for each record, and no new direct buffer.
 */
final class Window {
    /** So many more files that are held have the garbage collector asked, as direct memory does: mappings are not endless. */
    private static final int MANY = 1024;
    private static final AtomicInteger HELD = new AtomicInteger();
    /** By where they begin: who goes to and fro between files does not hold each one anew. */
    private static final ConcurrentSkipListMap<Long, WeakReference<Window>> ALL = new ConcurrentSkipListMap<>();

    private final long base;
    private final ByteBuffer writable;
    private final ByteBuffer readable;

    /** Of a file that is held; the hold becomes this one's with its last step. */
    private Window(long file, ByteBuffer memory) {
        writable = memory;
        base = Native.address(memory);
        readable = memory.asReadOnlyBuffer();
        WeakReference<Window> self = new WeakReference<>(this);
        Leaks.CLEANER.register(writable, letGo(file, base, self));
        ALL.put(base, self);
        if (HELD.incrementAndGet() % MANY == 0) {
            System.gc();
        }
    }

    /** Refers to the file by numbers: what has a way to the memory would keep it for ever. */
    private static Runnable letGo(long file, long base, WeakReference<Window> self) {
        return () -> {
            // Before the memory can be another file's.
            ALL.remove(base, self);
            HELD.decrementAndGet();
            Native.fileRelease(file);
        };
    }

    /** Of the file that this claim or view is in; of the one in its place, if a truncation has just put one there. */
    static Window around(long queue, long[] place) {
        Map.Entry<Long, WeakReference<Window>> below = ALL.floorEntry(place[0]);
        Window known = below == null ? null : below.getValue().get();
        if (known != null && known.holds(place)) {
            return known;
        }
        long file = Native.find(queue, place[2]);
        try {
            return new Window(file, Native.fileMemory(file));
        } catch (RuntimeException | Error failed) {
            Native.fileRelease(file);
            throw failed;
        }
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
