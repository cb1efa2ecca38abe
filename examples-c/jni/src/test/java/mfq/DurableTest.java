package mfq;

import static mfq.Support.small;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class DurableTest {
    @TempDir Path dir;

    private static <T> T get(CompletableFuture<T> future) throws Exception {
        return future.get(Support.GENEROUS_MS, TimeUnit.MILLISECONDS);
    }

    @Test
    void tenThousandFuturesCompleteWithOneThreadAndNotBeforeTheirFlush() throws Exception {
        try (MappedFileQueue queue = MappedFileQueue.open(dir.resolve("queue"), small().build())) {
            get(queue.appendDurable("the first one starts the thread".getBytes()));
            int threads = Thread.activeCount();
            List<CompletableFuture<Boolean>> all = new ArrayList<>();
            for (int i = 0; i < 10_000; i++) {
                byte[] line = Support.lines().get(0);
                all.add(queue.appendDurable(line).thenApply(at -> queue.offsets().flushed() > at));
                assertTrue(i % 1000 != 0 || Thread.activeCount() <= threads);
            }
            for (CompletableFuture<Boolean> one : all) {
                assertTrue(get(one));
            }
        }
    }

    @Test
    void whatDependsOnAFutureNeverRunsInAnotherProducersThread() throws Exception {
        Set<Thread> strangers = ConcurrentHashMap.newKeySet();
        try (MappedFileQueue queue = MappedFileQueue.open(dir.resolve("queue"), small().build())) {
            List<Thread> producers = new ArrayList<>();
            Queue<CompletableFuture<?>> all = new ConcurrentLinkedQueue<>();
            for (int i = 0; i < 4; i++) {
                producers.add(new Thread(() -> {
                    Thread producer = Thread.currentThread();
                    for (int line = 0; line < 2000; line++) {
                        all.add(queue.appendDurable("mine".getBytes()).thenRun(() -> {
                            Thread here = Thread.currentThread();
                            if (here != producer && !here.getName().startsWith("mfq-durable")) {
                                strangers.add(here);
                            }
                        }));
                    }
                }));
            }
            producers.forEach(Thread::start);
            for (Thread producer : producers) {
                producer.join();
            }
            get(CompletableFuture.allOf(all.toArray(CompletableFuture[]::new)));
        }
        assertEquals(Set.of(), strangers);
    }

    /** No event comes any more that would tell of it. */
    @Test
    void aFutureOfWhatIsDurableAlreadyCompletes() throws Exception {
        Options options = small().flushPolicy(Options.FlushPolicy.EVERY_APPEND).build();
        try (MappedFileQueue queue = MappedFileQueue.open(dir.resolve("queue"), options)) {
            for (int i = 0; i < 500; i++) {
                long at = get(queue.appendDurable("durable by its append".getBytes()));
                assertTrue(queue.offsets().flushed() > at);
            }
        }
    }

    @Test
    void whatIsPendingAtACloseIsDurableByIt() throws Exception {
        for (int round = 0; round < 20; round++) {
            MappedFileQueue queue = MappedFileQueue.open(dir.resolve("queue"), small().build());
            Thread appends = new Thread(() -> {
                while (!queue.appendDurable("in a race".getBytes()).isCompletedExceptionally()) {
                }
            });
            List<CompletableFuture<Long>> all = new ArrayList<>();
            for (int i = 0; i < 50; i++) {
                all.add(queue.appendDurable("pending".getBytes()));
            }
            appends.start();
            queue.close();
            appends.join();
            try (MappedFileQueue again = MappedFileQueue.open(dir.resolve("queue"), small().existing().build())) {
                assertEquals(again.offsets().flushed(), again.offsets().committed());
                for (CompletableFuture<Long> one : all) {
                    assertArrayEquals("pending".getBytes(), again.read(get(one)).bytes());
                }
            }
        }
    }

    @Test
    void aRefusedAppendFailsItsFutureAndAnotherQueuesGoOn() throws Exception {
        try (MappedFileQueue queue = MappedFileQueue.open(dir.resolve("queue"), small().build());
                MappedFileQueue other = MappedFileQueue.open(dir.resolve("other"), small().build())) {
            CompletableFuture<Long> refused = queue.appendDurable(new byte[70_000]);
            ExecutionException failed = assertThrows(ExecutionException.class, () -> get(refused));
            assertEquals(Status.TOO_LARGE, ((MfqException) failed.getCause()).status());
            assertEquals(0L, get(other.appendDurable(new byte[1])));
            assertEquals(0L, get(queue.appendDurable(new byte[1])));
        }
    }

    // ---- futures that fail -------------------------------------------------------------------------------------------

    /** A span that no flush reaches, so that its future is pending for as long as a test wants. */
    private static final Span BEYOND = new Span(1 << 20, 1L << 40);

    /** A queue's futures alone, with its handle. */
    private interface Work {
        void with(long queue, Durability durability) throws Exception;
    }

    private void with(Work work) throws Exception {
        String path = dir.resolve("alone").toString();
        long queue = Native.open(path.getBytes(), small().build().numbers());
        Durability durability = new Durability(queue, path);
        try {
            work.with(queue, durability);
        } finally {
            Native.close(queue);
            durability.closed(null);
        }
    }

    private static Span append(long queue) {
        long end = Native.append(queue, new byte[8], 0, 8);
        return new Span(end - 24, end);
    }

    private static void isCutOff(CompletableFuture<Long> future, Span at) {
        assertTrue(future.isDone());
        ExecutionException failed = assertThrows(ExecutionException.class, future::get);
        NotDurableException cut = (NotDurableException) failed.getCause();
        assertEquals(List.of(Status.END, at), List.of(cut.status(), cut.at()), cut.getMessage());
    }

    @Test
    void aFutureOfWhatATruncationCutsOffFailsAndIsNotCompletedByWhatComesInItsPlace() throws Exception {
        with((queue, durability) -> {
            Span kept = append(queue);
            CompletableFuture<Long> first = durability.append(() -> kept), cut = durability.append(() -> BEYOND);
            durability.truncateAfter(kept.end());
            isCutOff(cut, BEYOND);
            assertEquals(kept.offset(), get(first));
            assertEquals(kept.end(), get(durability.append(() -> append(queue))));
        });
    }

    @Test
    void aFutureOfARecordThatIsCutOffWhileItIsAppendedFails() throws Exception {
        with((queue, durability) -> {
            Span[] at = new Span[1];
            CompletableFuture<Long> cut = durability.append(() -> {
                at[0] = append(queue);
                durability.truncateAfter(at[0].offset());
                return at[0];
            });
            isCutOff(cut, at[0]);
            assertEquals(0L, get(durability.append(() -> append(queue))));
        });
    }

    @Test
    void aTruncationIsToldToTheFuturesOfItsQueue() throws Exception {
        try (MappedFileQueue queue = MappedFileQueue.open(dir.resolve("queue"), small().build())) {
            Claim claim = queue.claim(8);
            CompletableFuture<Long> first = queue.appendDurable(new byte[8]);
            CompletableFuture<Void> isHeldUp = new CompletableFuture<>(), goOn = new CompletableFuture<>();
            // Whatever becomes durable, nothing completes what is pending but the append itself.
            first.thenRun(() -> {
                isHeldUp.complete(null);
                goOn.join();
            });
            claim.commit();
            get(isHeldUp);
            CompletableFuture<Long> pending;
            do {
                pending = queue.appendDurable("flushed, perhaps".getBytes());
            } while (pending.isDone());
            queue.truncateAfter(claim.offset());
            CompletableFuture<Long> cut = pending;
            goOn.complete(null);
            ExecutionException failed = assertThrows(ExecutionException.class, () -> get(cut));
            assertEquals(Status.END, ((NotDurableException) failed.getCause()).status());
            assertEquals(claim.offset(), get(queue.appendDurable("instead".getBytes())));
        }
    }

    @Test
    void aFlushThatIsRefusedFailsItsOwnFutureOnly() throws Exception {
        with((queue, durability) -> {
            CompletableFuture<Long> pending = durability.append(() -> BEYOND);
            CompletableFuture<Long> refused = durability.append(() -> new Span(0, -8));
            ExecutionException failed = assertThrows(ExecutionException.class, () -> get(refused));
            assertEquals(Status.INVALID, ((NotDurableException) failed.getCause()).status());
            assertFalse(pending.isDone());
        });
    }
}
