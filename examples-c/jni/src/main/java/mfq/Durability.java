package mfq;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.PriorityQueue;
import java.util.concurrent.CompletableFuture;
import java.util.function.Supplier;

/**
 * The futures of one queue, and the one thread that completes them: it waits for the queue's event descriptor, in a call
 * that it makes itself, so that the library's threads never meet the JVM. Refers to the queue by its handle only, which
 * leaves the {@link MappedFileQueue} to the garbage collector.
 */
final class Durability implements Runnable {
    private record Pending(Span at, CompletableFuture<Long> future) {}

    private final long queue;
    private final String path;
    private final PriorityQueue<Pending> pending = new PriorityQueue<>(Comparator.comparingLong((Pending one) -> one.at.end()));
    /** The thread's descriptor; there is one from the first future on. */
    private int events = -1;
    /** How often the log's end was moved back. */
    private long cuts;
    private boolean isClosed;
    /** How the queue was closed, if badly. */
    private MfqException closed;

    Durability(long queue, String path) {
        this.queue = queue;
        this.path = path;
    }

    /** A future of the record that {@code append} appends. */
    CompletableFuture<Long> append(Supplier<Span> append) {
        long cutsBefore = start();
        Pending one = new Pending(append.get(), new CompletableFuture<>());
        boolean isCut, isLate;
        synchronized (this) {
            isCut = cuts != cutsBefore;
            isLate = isClosed;
            if (!isCut && !isLate) {
                pending.add(one);
            }
        }
        if (isCut) {
            end(one, cut(one, "may have been cut off: it was appended beside a truncation"));
        } else if (isLate) {
            end(one, closed);
        } else {
            flush(one);
        }
        return one.future;
    }

    @Override
    public void run() {
        try {
            while (true) {
                Native.awaitEvent(events);
                completeFlushed();
                failIfPoisoned();
            }
        } catch (MfqException closed) {
            // The queue's end: whoever closes it completes what is left.
        } catch (RuntimeException | Error failed) {
            // No memory, or no descriptor to load a class by. Nobody is to wait for this thread.
            closed(new MfqException(Status.PANIC, 0, "the thread that completes futures has ended: " + failed));
            throw failed;
        } finally {
            Native.closeEvents(events);
        }
    }

    /** Cuts the log, and fails what is cut off: another record may get its offset, and be flushed. */
    void truncateAfter(long offset) {
        List<Pending> cut = new ArrayList<>();
        synchronized (this) {
            Native.truncateAfter(queue, offset);
            cuts++;
            pending.removeIf(one -> one.at.end() > offset && cut.add(one));
        }
        cut.forEach(one -> end(one, cut(one, "was cut off")));
    }

    /** The queue is closed: well, if {@code failure} is null, and then everything that was appended is durable. */
    void closed(MfqException failure) {
        synchronized (this) {
            isClosed = true;
            closed = failure;
        }
        endAll(failure);
    }

    /** The thread, with the first future; answers how often the log has been cut. */
    private synchronized long start() {
        if (events < 0) {
            events = Native.events(queue);
            try {
                Thread thread = new Thread(null, this, "mfq-durable " + path, 0, false);
                thread.setDaemon(true);
                thread.start();
            } catch (RuntimeException | Error failed) {
                Native.closeEvents(events);
                events = -1;
                throw failed;
            }
        }
        return cuts;
    }

    private void flush(Pending one) {
        try {
            Native.flushStart(queue, one.at.end());
            // A flush that somebody else began may have come before the future did. Other producers' futures are left to
            // the thread.
            boolean isDone;
            synchronized (this) {
                isDone = flushed() >= one.at.end() && pending.remove(one);
            }
            if (isDone) {
                end(one, null);
            }
        } catch (MfqException failed) {
            boolean hasEnded;
            synchronized (this) {
                hasEnded = failed.status() != Status.CLOSED && pending.remove(one); // a close on its way tells how it went
            }
            if (hasEnded) {
                end(one, failed);
            }
        }
    }

    private void completeFlushed() {
        List<Pending> done;
        synchronized (this) {
            done = drain(flushed());
        }
        done.forEach(one -> end(one, null));
    }

    /** Under the lock: a truncation moves it back. */
    private long flushed() {
        long[] offsets = new long[5];
        Native.offsets(queue, offsets);
        return offsets[4];
    }

    private void failIfPoisoned() {
        try {
            Native.await(queue, MappedFileQueue.FLUSHED, Long.MAX_VALUE, 0);
        } catch (MfqException failed) {
            if (failed.status() == Status.CLOSED) {
                throw failed;
            }
            boolean moreCanCome = failed.status() == Status.TIMEOUT || failed.status() == Status.END;
            if (!moreCanCome) {
                endAll(failed);
            }
        }
    }

    private void endAll(MfqException failure) {
        List<Pending> all;
        synchronized (this) {
            all = drain(Long.MAX_VALUE);
        }
        all.forEach(one -> end(one, failure));
    }

    private static MfqException cut(Pending one, String how) {
        return new MfqException(Status.END, 0, "the record at " + one.at.offset() + " " + how);
    }

    private List<Pending> drain(long flushed) {
        List<Pending> drained = new ArrayList<>();
        while (!pending.isEmpty() && pending.peek().at.end() <= flushed) {
            drained.add(pending.poll());
        }
        return drained;
    }

    /** Never under the lock: what depends on the future runs here. */
    private static void end(Pending one, MfqException failure) {
        if (failure == null) {
            one.future.complete(one.at.offset());
        } else {
            one.future.completeExceptionally(
                    new NotDurableException(failure.status(), failure.errno(), failure.getMessage(), one.at));
        }
    }
}
