package mfq;

import static mfq.Support.GENEROUS_MS;
import static mfq.Support.KIB;
import static mfq.Support.lines;
import static mfq.Support.raw;
import static mfq.Support.small;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.management.BufferPoolMXBean;
import java.lang.management.GarbageCollectorMXBean;
import java.lang.management.ManagementFactory;
import java.lang.reflect.Field;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Duration;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class MappedFileQueueTest {
    @TempDir Path dir;

    private MappedFileQueue open(Options.Builder options) {
        return MappedFileQueue.open(dir.resolve("queue"), options.build());
    }

    /** Appends a line in one of the ways there are. */
    private static Span append(MappedFileQueue queue, byte[] line, int way) {
        switch (way % 5) {
            case 0:
                return queue.append(line);
            case 1:
                return queue.append(ByteBuffer.wrap(line));
            case 2:
                return queue.append(ByteBuffer.wrap(line).asReadOnlyBuffer());
            case 3: {
                ByteBuffer direct = ByteBuffer.allocateDirect(line.length + 7).position(7).put(line).position(7);
                Span at = queue.append(direct);
                assertEquals(0, direct.remaining());
                return at;
            }
            default:
                try (Claim claim = queue.claim(line.length)) {
                    claim.buffer().put(line);
                    Span at = claim.commit();
                    assertEquals(claim.offset(), at.offset());
                    return at;
                }
        }
    }

    @Test
    void everyWayToAppendMakesTheRecordThatEveryWayToReadFinds() {
        for (Options.Mode mode : Options.Mode.values()) {
            List<byte[]> lines = lines();
            List<Span> places = new ArrayList<>();
            Path path = dir.resolve(mode.name());
            try (MappedFileQueue queue = MappedFileQueue.open(path, small().fileSize(16 * KIB).mode(mode).build())) {
                for (int i = 0; i < 10 * lines.size(); i++) {
                    places.add(append(queue, lines.get(i % lines.size()), i));
                }
                queue.awaitCommitted(places.get(places.size() - 1).end(), GENEROUS_MS);
                assertEquals(places.size(), queue.stats().appends());
                assertTrue(queue.stats().rollsReady() + queue.stats().rollsWaited() > 5);
            }
            try (MappedFileQueue queue = MappedFileQueue.open(path); Reader reader = queue.reader(0)) {
                assertEquals(Recovery.Ended.CLEAN, queue.recovery().ended());
                ByteBuffer heap = ByteBuffer.allocate(4096), direct = ByteBuffer.allocateDirect(4096);
                for (int i = 0; i < places.size(); i++) {
                    byte[] line = lines.get(i % lines.size());
                    Span at = places.get(i);
                    View next = reader.next();
                    assertEquals(at, new Span(next.offset(), next.end()));
                    assertArrayEquals(line, next.bytes());
                    assertTrue(next.timeMs() > 0 && next.buffer().isReadOnly() && next.buffer().isDirect());
                    Entry copy = queue.read(at.offset());
                    assertArrayEquals(line, copy.bytes());
                    assertEquals(at.end(), copy.next());
                    for (ByteBuffer into : List.of(heap.clear(), direct.clear())) {
                        assertEquals(at.end(), queue.read(at.offset(), into.position(3)));
                        assertEquals(ByteBuffer.wrap(line), into.flip().position(3));
                    }
                }
                assertFalse(reader.hasNext());
                assertThrows(NoSuchElementException.class, reader::next);
            }
        }
    }

    @Test
    void rawIsTheBytesAndNothingElse() {
        try (MappedFileQueue queue = open(raw())) {
            StringBuilder all = new StringBuilder();
            for (int i = 0; i < 100; i++) {
                byte[] line = lines().get(i);
                if (line.length > 0) {
                    assertEquals(new Span(all.length(), all.length() + line.length), append(queue, line, i));
                    all.append(new String(line, java.nio.charset.StandardCharsets.ISO_8859_1));
                }
            }
            byte[] bytes = all.toString().getBytes(java.nio.charset.StandardCharsets.ISO_8859_1);
            assertArrayEquals(bytes, queue.read(0).bytes());
            try (View view = queue.view(10)) {
                assertEquals(ByteBuffer.wrap(bytes, 10, bytes.length - 10), view.buffer());
            }
            Claim claim = queue.claim(100);
            Support.fails(Status.BUSY, "claim", () -> queue.append(new byte[1]));
            claim.buffer().put(new byte[] {1, 2, 3});
            assertEquals(3, claim.commit(3).end() - claim.offset());
        }
    }

    @Test
    void aBatchIsThereAsAWholeAndTellsEachPlace() {
        try (MappedFileQueue queue = open(small())) {
            List<byte[]> records = lines().subList(0, 20);
            List<Span> at = queue.appendBatch(records);
            for (int i = 0; i < records.size(); i++) {
                assertArrayEquals(records.get(i), queue.read(at.get(i).offset()).bytes());
                assertEquals(at.get(i).end(), queue.read(at.get(i).offset()).next());
            }
            Support.fails(Status.INVALID, "records", () -> queue.appendBatch(List.of()));
            List<byte[]> large = List.of(new byte[40_000], new byte[40_000]);
            Support.fails(Status.TOO_LARGE, "the batch does not fit in one file", () -> queue.appendBatch(large));
            // More than an array takes.
            List<byte[]> endless = Collections.nCopies(300, new byte[8 << 20]);
            Support.fails(Status.TOO_LARGE, "the batch does not fit in one file", () -> queue.appendBatch(endless));
        }
    }

    @Test
    void aReaderWaitsForWhatComesAndGivesUpInTime() {
        try (MappedFileQueue queue = open(small()); Reader reader = queue.reader(0)) {
            Support.fails(Status.END, "nothing is committed at this offset yet", () -> reader.next(0));
            MfqTimeoutException late = assertThrows(MfqTimeoutException.class, () -> reader.next(1));
            assertEquals(Status.TIMEOUT, late.status());
            CompletableFuture<byte[]> read = CompletableFuture.supplyAsync(() -> reader.next(GENEROUS_MS).bytes());
            queue.append("tailed".getBytes());
            assertArrayEquals("tailed".getBytes(), read.join());
            reader.seek(0);
            assertArrayEquals("tailed".getBytes(), reader.next().bytes());
        }
    }

    @Test
    void aTailWaitsForEachRecordAndEndsWithItsTime() throws Exception {
        try (MappedFileQueue queue = open(small()); Reader reader = queue.reader(0)) {
            List<byte[]> lines = lines().subList(0, 20);
            Thread tail = Thread.currentThread();
            Thread appends = new Thread(() -> {
                try {
                    for (byte[] line : lines) {
                        Support.untilAsleepIn("readerNext", tail);
                        queue.append(line);
                    }
                } catch (InterruptedException never) {
                    throw new AssertionError(never);
                }
            });
            tail.setName("tail");
            appends.start();
            int next = 0;
            for (View record : reader.tail(Duration.ofMillis(GENEROUS_MS))) {
                assertArrayEquals(lines.get(next++), record.bytes());
                if (next == lines.size()) {
                    break;
                }
            }
            assertEquals(lines.size(), next);
            assertFalse(reader.tail(Duration.ofMillis(1)).iterator().hasNext());
            queue.append("late".getBytes());
            // What is there needs no time.
            Iterator<View> over = reader.tail(Duration.ZERO).iterator();
            assertArrayEquals("late".getBytes(), over.next().bytes());
            assertThrows(NoSuchElementException.class, over::next);
            // What comes when the time is over is for the next one, however fast it comes.
            queue.append("later".getBytes());
            assertFalse(over.hasNext());
            for (Duration time : List.of(ChronoUnit.FOREVER.getDuration(), Duration.ofNanos(Long.MAX_VALUE))) {
                Iterator<View> endless = reader.tail(time).iterator();
                assertTrue(endless.hasNext());
                CompletableFuture<Boolean> waits = CompletableFuture.supplyAsync(() -> {
                    endless.next();
                    return endless.hasNext();
                });
                queue.append("at last".getBytes());
                assertTrue(waits.join());
            }
            reader.next();
            assertFalse(reader.tail(Duration.ofSeconds(Long.MIN_VALUE)).iterator().hasNext());
            reader.close();
            Support.fails(Status.CLOSED, "reader", over::hasNext);
        }
    }

    /** With every 1,024th file that is held anew the garbage collector is asked. */
    @Test
    void aThreadThatGoesToAndFroBetweenFilesDoesNotHoldThemAnew() {
        try (MappedFileQueue queue = open(small())) {
            long first = queue.append(new byte[40_000]).offset(), second = queue.append(new byte[40_000]).offset();
            long before = collections();
            for (int round = 0; round < 20_000; round++) {
                queue.read(first);
                queue.view(second).close();
            }
            assertTrue(collections() - before < 5, collections() - before + " full collections");
        }
    }

    private static long collections() {
        return ManagementFactory.getGarbageCollectorMXBeans().stream()
                .filter(collector -> collector.getName().matches(".*(Old|MarkSweep|Major).*"))
                .mapToLong(GarbageCollectorMXBean::getCollectionCount).sum();
    }

    @Test
    void aBufferFarLargerThanTheRecordTakesNoDirectMemory() {
        try (MappedFileQueue queue = open(small())) {
            long offset = queue.append("small".getBytes()).offset();
            ByteBuffer large = ByteBuffer.allocate(100 << 20);
            long before = direct().getTotalCapacity();
            assertEquals(queue.offsets().committed(), queue.read(offset, large));
            assertEquals(5, large.position());
            assertEquals(before, direct().getTotalCapacity());
        }
    }

    @Test
    void rawGivesAsMuchAsTheBufferTakes() {
        try (MappedFileQueue raw = open(raw())) {
            raw.append("stretch".getBytes());
            ByteBuffer part = ByteBuffer.allocate(3);
            assertEquals(3, raw.read(0, part));
            assertArrayEquals("str".getBytes(), part.array());
            Support.fails(Status.INVALID, "cap", () -> raw.read(0, part));
        }
    }

    private static BufferPoolMXBean direct() {
        return ManagementFactory.getPlatformMXBeans(BufferPoolMXBean.class).stream()
                .filter(pool -> pool.getName().equals("direct")).findFirst().orElseThrow();
    }

    /** Their records lie in different files, and each file has its own buffer. */
    @Test
    void twoThreadsThatViewGetTheFileItselfAndNoCopy() throws Exception {
        Field address = Buffer.class.getDeclaredField("address");
        address.setAccessible(true);
        try (MappedFileQueue queue = open(small())) {
            List<Callable<Set<Long>>> views = new ArrayList<>();
            for (int i = 0; i < 2; i++) {
                long offset = queue.append(new byte[40_000]).offset();
                views.add(() -> {
                    Set<Long> places = new HashSet<>();
                    for (int round = 0; round < 20_000; round++) {
                        try (View view = queue.view(offset)) {
                            places.add(address.getLong(view.buffer()));
                        }
                    }
                    return places;
                });
            }
            ExecutorService threads = Executors.newFixedThreadPool(2);
            for (Future<Set<Long>> places : threads.invokeAll(views)) {
                assertEquals(1, places.get().size());
            }
            threads.shutdown();
        }
    }

    @Test
    void theLastFileOffsetsAndTruncationsTellOneStory() {
        try (MappedFileQueue queue = open(small())) {
            List<Span> at = new ArrayList<>();
            for (int i = 0; i < 40; i++) {
                at.add(queue.append(new byte[10_000]));
            }
            Span last = at.get(39);
            queue.flush(last.end(), GENEROUS_MS);
            Offsets offsets = queue.offsets();
            assertEquals(List.of(last.end(), last.end()), List.of(offsets.committed(), offsets.flushed()));
            queue.awaitFlushed(last.end(), 0);
            try (QueueFile file = queue.getLast(GENEROUS_MS)) {
                assertEquals(64 * 1024, file.size());
                assertEquals(last.end(), file.start() + file.committed());
                assertEquals(file.flushed(), file.wrote());
            }
            // A view of what is cut stays readable, and what comes in its place is read through the new file.
            View before = queue.view(last.offset());
            queue.truncateAfter(last.offset());
            assertEquals(last.offset(), queue.offsets().committed());
            queue.append("instead".getBytes());
            assertArrayEquals("instead".getBytes(), queue.read(last.offset()).bytes());
            assertArrayEquals(new byte[10_000], before.bytes());
            before.close();
            queue.truncateBefore(at.get(20).offset());
            assertTrue(queue.offsets().min() > 0);
            Support.fails(Status.NOT_FOUND, "offset 0 ", () -> queue.read(0));
            try (QueueFile found = queue.find(at.get(20).offset())) {
                assertEquals(queue.offsets().min(), found.start());
            }
            assertEquals(24, queue.stats().creationUs().size());
            assertEquals(queue.stats().filesCreated(), queue.stats().creationUs().stream().mapToLong(Long::longValue).sum());
        }
    }
}
