package mfq;

import static mfq.Support.small;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
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
                try {
                    while (true) {
                        CompletableFuture<Long> future = queue.appendDurable("in a race".getBytes());
                        if (future.isCompletedExceptionally()) {
                            return;
                        }
                    }
                } finally {
                    Thread.yield();
                }
            });
            List<CompletableFuture<Long>> all = new ArrayList<>();
            for (int i = 0; i < 50; i++) {
                all.add(queue.appendDurable("pending".getBytes()));
            }
            appends.start();
            queue.close();
            for (CompletableFuture<Long> one : all) {
                get(one);
            }
            appends.join();
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
}
