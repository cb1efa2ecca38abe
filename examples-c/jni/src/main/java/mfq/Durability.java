package mfq;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.PriorityQueue;
import java.util.concurrent.CompletableFuture;

/**
 * The futures of one queue, and the one thread that completes them: it waits for the queue's event descriptor, in a call
 * that it makes itself, so that the library's threads never meet the JVM. Refers to the queue by its handle only, which
 * leaves the {@link MappedFileQueue} to the garbage collector.
 */
final class Durability implements Runnable {
    private record Pending(Span at, CompletableFuture<Long> future) {}

    private final long queue;
    private final int events;
    private final PriorityQueue<Pending> pending = new PriorityQueue<>(Comparator.comparingLong((Pending one) -> one.at.end()));
    private boolean isClosed;
    /** How the queue was closed, if badly. */
    private MfqException closed;

    Durability(long queue, String path) {
        this.queue = queue;
        events = Native.events(queue);
        Thread thread = new Thread(null, this, "mfq-durable " + path, 0, false);
        thread.setDaemon(true);
        thread.start();
    }

    /** A future of a record that is appended. Whoever calls this starts no flush before. */
    CompletableFuture<Long> of(Span at) {
        Pending one = new Pending(at, new CompletableFuture<>());
        boolean isLate;
        synchronized (this) {
            isLate = isClosed;
            if (!isLate) {
                pending.add(one);
            }
        }
        if (isLate) {
            end(one, closed);
            return one.future;
        }
        try {
            // Looked at once more: a flush that somebody else began may have come before the future did.
            if (Native.flushStart(queue, at.end())) {
                completeBelow(at.end());
            }
        } catch (MfqException failed) {
            // A close on its way tells how it went.
            if (failed.status() != Status.CLOSED) {
                failAll(failed);
            }
        }
        return one.future;
    }

    @Override
    public void run() {
        try {
            long[] offsets = new long[5];
            while (true) {
                Native.awaitEvent(events);
                Native.offsets(queue, offsets);
                completeBelow(offsets[4]);
                long next = firstPending();
                if (next >= 0) {
                    failIfHopeless(next);
                }
            }
        } catch (MfqException closed) {
            // The queue's end: whoever closes it completes what is left.
        } finally {
            Native.closeEvents(events);
        }
    }

    /** The queue is closed: well, if {@code failure} is null, and then everything that was appended is durable. */
    void closed(MfqException failure) {
        List<Pending> all;
        synchronized (this) {
            isClosed = true;
            closed = failure;
            all = drain(Long.MAX_VALUE);
        }
        all.forEach(one -> end(one, failure));
    }

    private void failIfHopeless(long offset) {
        try {
            Native.isFlushed(queue, offset);
        } catch (MfqException failed) {
            if (failed.status() == Status.CLOSED) {
                throw failed;
            }
            failAll(failed);
        }
    }

    private synchronized long firstPending() {
        return pending.isEmpty() ? -1 : pending.peek().at.end();
    }

    private void completeBelow(long flushed) {
        List<Pending> done;
        synchronized (this) {
            done = drain(flushed);
        }
        done.forEach(one -> end(one, null));
    }

    private void failAll(MfqException failure) {
        List<Pending> all;
        synchronized (this) {
            all = drain(Long.MAX_VALUE);
        }
        all.forEach(one -> end(one, failure));
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
