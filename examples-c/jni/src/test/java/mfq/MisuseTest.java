package mfq;

import static mfq.Support.GENEROUS_MS;
import static mfq.Support.fails;
import static mfq.Support.raw;
import static mfq.Support.small;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.nio.BufferOverflowException;
import java.nio.BufferUnderflowException;
import java.nio.ByteBuffer;
import java.nio.ReadOnlyBufferException;
import java.nio.file.FileSystem;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.FutureTask;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.logging.Handler;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import java.util.logging.SimpleFormatter;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.api.io.TempDir;

/** Everything a Java host can do wrong, and each mistake is an exception. */
class MisuseTest {
    private static final int FILE_BYTES = 1 << 20;

    @TempDir Path dir;
    private MappedFileQueue queue;

    @BeforeEach
    void open() {
        queue = MappedFileQueue.open(dir.resolve("queue"), small().build());
    }

    @AfterEach
    void close() {
        queue.close();
    }

    @Test
    void senselessOptionsAreRefusedWithTheNameOfTheOption() {
        record Bad(Options.Builder options, Status status, String word) {}
        List<Bad> all = List.of(new Bad(small().fileSize(65_537), Status.INVALID, "file_size"),
                new Bad(small().fileSize(-1), Status.INVALID, "file_size"),
                new Bad(small().startOffset(-1), Status.INVALID, "start_offset"),
                new Bad(small().flushIntervalMs(-1), Status.INVALID, "flush_interval_ms"),
                new Bad(small().commitIntervalMs(-1), Status.INVALID, "commit_interval_ms"),
                new Bad(small().filesAhead(65), Status.INVALID, "files_ahead"),
                new Bad(small().mode(Options.Mode.STAGED).poolBuffers(1), Status.INVALID, "pool_buffers"),
                new Bad(small().permissions(0111), Status.INVALID, "permissions"),
                new Bad(small().lockPool(), Status.INVALID, "MFQ_STAGED"),
                new Bad(small().poolFailFast(), Status.INVALID, "MFQ_STAGED"),
                new Bad(small().adopt(), Status.INVALID, "MFQ_OPEN_ADOPT"),
                new Bad(small().salvage().strict(), Status.INVALID, "MFQ_OPEN_SALVAGE"),
                new Bad(small().salvage().readOnly(), Status.INVALID, "MFQ_OPEN_SALVAGE"),
                new Bad(small().walkRocketMq(), Status.INVALID, "walk"),
                new Bad(small().existing(), Status.NOT_FOUND, "refused"),
                new Bad(small().readOnly(), Status.NOT_FOUND, "refused"));
        for (Bad bad : all) {
            fails(bad.status, bad.word, () -> MappedFileQueue.open(dir.resolve("refused"), bad.options.build()));
            assertFalse(Files.exists(dir.resolve("refused")), bad.word);
        }
        for (Options.Builder negative : List.of(small().filesAhead(-1), small().poolBuffers(-1),
                small().flushLeastPages(-1), small().permissions(-1))) {
            assertThrows(IllegalArgumentException.class, negative::build);
        }
        assertThrows(NullPointerException.class, () -> Options.builder().format(null));
        assertThrows(NullPointerException.class, () -> MappedFileQueue.open(null));
        assertThrows(NullPointerException.class, () -> MappedFileQueue.open(dir.resolve("refused"), null));
    }

    @Test
    void badPathsAreRefused() throws Exception {
        Files.writeString(dir.resolve("file"), "no queue");
        Files.createDirectory(dir.resolve("target"));
        Files.createSymbolicLink(dir.resolve("link"), Path.of("target"));
        fails(Status.INVALID, "path", () -> MappedFileQueue.open(Path.of("")));
        fails(Status.INVALID, "file", () -> MappedFileQueue.open(dir.resolve("file"), small().build()));
        fails(Status.INVALID, "link", () -> MappedFileQueue.open(dir.resolve("link"), small().build()));
        fails(Status.NOT_FOUND, "parent", () -> MappedFileQueue.open(dir.resolve("no/parent"), small().build()));
        fails(Status.LOCKED, "queue", () -> MappedFileQueue.open(dir.resolve("queue"), small().build()));
        MfqException size = fails(Status.CORRUPT, "notes", () -> {
            Path strange = Files.createDirectory(dir.resolve("strange"));
            Files.writeString(strange.resolve("notes"), "");
            MappedFileQueue.open(strange, raw().adopt().build());
        });
        assertEquals(0, size.errno());
    }

    @Test
    void pathsThatNoStringOrNoFileSystemHereExpressesAreRefused() throws Exception {
        Path bytes = Path.of(URI.create(dir.toUri() + "queue-%FF"));
        fails(Status.INVALID, bytes.toString(), () -> MappedFileQueue.open(bytes, small().build()));
        URI zip = URI.create("jar:" + dir.resolve("archive.zip").toUri());
        try (FileSystem archive = FileSystems.newFileSystem(zip, Map.of("create", "true"))) {
            Path inside = archive.getPath(dir.resolve("inside").toString());
            fails(Status.INVALID, inside.toString(), () -> MappedFileQueue.open(inside, small().build()));
        }
        try (Stream<Path> left = Files.list(dir)) {
            assertEquals(Set.of(dir.resolve("queue"), dir.resolve("archive.zip")), left.collect(Collectors.toSet()));
        }
    }

    @Test
    void aRelativePathIsWhatItIsToJava() throws Exception {
        Support.output(Support.jvm(List.of("-Duser.dir=" + dir), OpensRelative.class));
        assertTrue(Files.isDirectory(dir.resolve("relative")));
    }

    static final class OpensRelative {
        public static void main(String[] arguments) {
            MappedFileQueue.open(Path.of("relative")).close();
        }
    }

    @Test
    void badRecordsAndPlacesAreRefusedAndChangeNothing() {
        Span at = queue.append("0123456789abcdef01234567".getBytes());
        Offsets before = queue.offsets();
        assertThrows(NullPointerException.class, () -> queue.append((byte[]) null));
        assertThrows(NullPointerException.class, () -> queue.append((ByteBuffer) null));
        assertThrows(NullPointerException.class, () -> queue.appendDurable((byte[]) null));
        assertThrows(IndexOutOfBoundsException.class, () -> queue.append(new byte[8], 4, 5));
        assertThrows(IndexOutOfBoundsException.class, () -> queue.append(new byte[8], -1, 5));
        fails(Status.TOO_LARGE, "65536 bytes are more than one file takes", () -> queue.append(new byte[65_536]));
        ByteBuffer direct = ByteBuffer.allocateDirect(65_536);
        fails(Status.TOO_LARGE, "65536 bytes", () -> queue.append(direct));
        assertEquals(65_536, direct.remaining());
        fails(Status.TOO_LARGE, "65536 bytes", () -> queue.claim(65_536));
        fails(Status.TOO_LARGE, "mfq_claim: len", () -> queue.claim(-1));

        fails(Status.INVALID, "offset 1 is not a multiple of 8", () -> queue.read(at.offset() + 1));
        fails(Status.INVALID, "offset 1 is not a multiple of 8", () -> queue.reader(at.offset() + 1));
        fails(Status.CORRUPT, "no record checks at offset 16", () -> queue.read(at.offset() + 16));
        fails(Status.END, "nothing is committed at this offset yet", () -> queue.read(at.end()));
        fails(Status.END, "nothing is committed at this offset yet", () -> queue.view(-8));
        fails(Status.TOO_LARGE, "24", () -> queue.read(at.offset(), ByteBuffer.allocate(23)));
        fails(Status.TOO_LARGE, "24", () -> queue.read(at.offset(), ByteBuffer.allocateDirect(0)));
        assertThrows(ReadOnlyBufferException.class, () -> queue.read(0, ByteBuffer.allocate(64).asReadOnlyBuffer()));
        fails(Status.END, "offset 1099511627776 lies in no file", () -> queue.find(1L << 40));
        fails(Status.INVALID, "offset 8 lies within a record", () -> queue.truncateAfter(at.offset() + 8));
        fails(Status.INVALID, "offset 1099511627776 is beyond what is committed, 40", () -> queue.truncateBefore(1L << 40));
        fails(Status.TIMEOUT, "nothing came within timeout_ms", () -> queue.awaitCommitted(1L << 40, 1));
        assertEquals(before, queue.offsets());
        queue.append(new byte[0]);
        try (MappedFileQueue raw = MappedFileQueue.open(dir.resolve("raw"), raw().build())) {
            fails(Status.INVALID, "len is 0, and a RAW queue", () -> raw.append(new byte[0]));
            fails(Status.INVALID, "len is 0", () -> raw.append(ByteBuffer.allocateDirect(0)));
            fails(Status.INVALID, "len is 0", () -> raw.claim(0));
        }
    }

    @Test
    void aStatusThatIsNotKnownIsToldByItsNumber() {
        MfqException failed = Native.failure(-99, 5, "from a newer library".getBytes(), 0, 0);
        assertEquals(List.of(Status.OTHER, 5), List.of(failed.status(), failed.errno()));
        assertEquals("status -99: from a newer library", failed.getMessage());
    }

    @Test
    void aClosedQueueSaysSoToEveryCall() {
        Reader reader = queue.reader(0);
        QueueFile file = queue.getLast(GENEROUS_MS);
        Claim claim = queue.claim(8);
        ByteBuffer kept = claim.buffer();
        queue.close();
        queue.close();
        List<Executable> calls = List.of(() -> queue.append(new byte[1]), () -> queue.append(ByteBuffer.allocateDirect(1)),
                () -> queue.appendBatch(List.of(new byte[1])), () -> queue.claim(1), () -> queue.read(0),
                () -> queue.read(0, ByteBuffer.allocate(8)), () -> queue.view(0), () -> queue.reader(0),
                () -> queue.getLast(0), () -> queue.find(0), () -> queue.flush(0, 0), () -> queue.awaitFlushed(0, 0),
                queue::offsets, queue::recovery, queue::stats, () -> queue.truncateAfter(0), () -> queue.truncateBefore(0));
        calls.forEach(call -> fails(Status.CLOSED, "queue", call));
        ExecutionException failed = assertThrows(ExecutionException.class, () -> queue.appendDurable(new byte[1]).get());
        assertEquals(Status.CLOSED, ((MfqException) failed.getCause()).status());
        fails(Status.CLOSED, "queue", reader::hasNext);
        fails(Status.CLOSED, "queue", () -> reader.seek(0));
        reader.close();
        reader.close();
        fails(Status.CLOSED, "reader", () -> reader.next(0));
        // What it held is not there to be copied any more.
        fails(Status.CLOSED, "reader", () -> reader.copyOf(new long[Native.VIEW]));
        assertEquals(64 * 1024, file.size());
        file.close();
        file.close();
        fails(Status.CLOSED, "file", file::size);
        fails(Status.CLOSED, "the queue is closed", claim::buffer);
        kept.putLong(0, 1);
        fails(Status.CLOSED, "queue", claim::commit);
        fails(Status.CLOSED, "committed, aborted or closed already", claim::buffer);
        assertThrows(BufferOverflowException.class, () -> kept.put((byte) 1));
    }

    @Test
    void aClaimEndsOnceAndItsBufferWithIt() {
        for (Options.Builder options : List.of(small(), small().mode(Options.Mode.STAGED), raw())) {
            try (MappedFileQueue queue = MappedFileQueue.open(dir.resolve("" + System.nanoTime()), options.build())) {
                Claim claim = queue.claim(40);
                claim.buffer().put(new byte[40]);
                assertThrows(BufferOverflowException.class, () -> claim.buffer().put((byte) 1));
                fails(Status.INVALID, "len 41 is more than the 40 bytes claimed", () -> claim.commit(41));
                fails(Status.INVALID, "is more than the 40 bytes claimed", () -> claim.commit(-1));
                ByteBuffer buffer = claim.buffer().clear(), kept = buffer.duplicate();
                Span at = claim.commit();
                assertEquals(claim.offset(), at.offset());
                queue.awaitCommitted(at.end(), GENEROUS_MS);
                fails(Status.CLOSED, "committed, aborted or closed already", claim::commit);
                fails(Status.CLOSED, "committed, aborted or closed already", claim::abort);
                claim.close();
                fails(Status.CLOSED, "committed, aborted or closed already", claim::buffer);
                assertThrows(BufferOverflowException.class, () -> buffer.put((byte) 1));
                assertThrows(IndexOutOfBoundsException.class, () -> buffer.put(0, (byte) 1));
                assertArrayEquals(new byte[40], queue.read(0).bytes());

                Claim aborted = queue.claim(40);
                aborted.abort();
                fails(Status.CLOSED, "committed, aborted or closed already", aborted::commit);
                queue.close();
                // Told not to, a host writes to what it has kept: no crash.
                kept.put(new byte[40]);
            }
        }
    }

    @Test
    void aViewAndItsBufferEndWithItsClose() {
        Span at = queue.append("looked at".getBytes());
        View view = queue.view(at.offset());
        ByteBuffer buffer = view.buffer(), kept = buffer.duplicate();
        assertThrows(ReadOnlyBufferException.class, () -> buffer.put(0, (byte) 1));
        view.close();
        view.close();
        fails(Status.CLOSED, "view", view::buffer);
        fails(Status.CLOSED, "view", view::bytes);
        assertThrows(BufferUnderflowException.class, buffer::get);
        assertThrows(IndexOutOfBoundsException.class, () -> buffer.get(0));

        Reader reader = queue.reader(at.offset());
        View first = reader.next();
        assertArrayEquals("looked at".getBytes(), first.bytes());
        assertFalse(reader.hasNext());
        fails(Status.CLOSED, "view", first::bytes);
        reader.seek(at.offset());
        View last = reader.next();
        reader.close();
        fails(Status.CLOSED, "view", last::bytes);

        // Removed, closed and released: a duplicate still reads what was there.
        for (int i = 0; i < 20; i++) {
            queue.append(new byte[20_000]);
        }
        queue.truncateBefore(queue.offsets().committed());
        queue.close();
        System.gc();
        byte[] bytes = new byte[9];
        kept.get(bytes);
        assertArrayEquals("looked at".getBytes(), bytes);
    }

    @Test
    void closeBringsOutWhoeverIsInside() throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(8);
        for (int round = 0; round < 5; round++) {
            MappedFileQueue queue = MappedFileQueue.open(dir.resolve("inside"), small().build());
            Reader tail = queue.reader(queue.offsets().committed());
            ByteBuffer direct = ByteBuffer.allocateDirect(300);
            AtomicLong appended = new AtomicLong();
            List<Callable<Object>> work = List.of(() -> queue.append(new byte[100]), () -> queue.append(direct.duplicate()),
                    () -> {
                        try (Claim claim = queue.claim(100)) {
                            claim.buffer().put(new byte[100]);
                            return claim.commit();
                        }
                    },
                    () -> tail.next(GENEROUS_MS).bytes(), () -> queue.read(queue.offsets().min()),
                    () -> {
                        queue.awaitFlushed(1L << 50, GENEROUS_MS);
                        return "never";
                    });
            List<Future<Status>> ends = new ArrayList<>();
            for (Callable<Object> call : work) {
                ends.add(threads.submit(() -> {
                    while (true) {
                        try {
                            call.call();
                            appended.incrementAndGet();
                        } catch (MfqException failed) {
                            if (failed.status() != Status.END) {
                                return failed.status();
                            }
                        }
                    }
                }));
            }
            Support.until(() -> appended.get() > 500, "calls in other threads");
            queue.close();
            for (Future<Status> end : ends) {
                assertEquals(Status.CLOSED, end.get());
            }
            tail.close();
        }
        threads.shutdown();
    }

    @Test
    void closingAReaderBringsOutWhoeverWaitsInIt() throws Exception {
        Reader reader = queue.reader(0);
        FutureTask<View> waits = new FutureTask<>(() -> reader.next(-1));
        Thread waiting = new Thread(waits, "waiting");
        waiting.start();
        Support.untilAsleepIn("readerNext", waiting);
        reader.close();
        ExecutionException failed = assertThrows(ExecutionException.class, waits::get);
        assertEquals(Status.CLOSED, ((MfqException) failed.getCause()).status());
    }

    /** Else a host would exit in the middle of the first one. */
    @Test
    void aSecondCloseWaitsForTheFirst() throws Exception {
        CountDownLatch begun = new CountDownLatch(1), mayEnd = new CountDownLatch(1);
        AtomicBoolean isClosed = new AtomicBoolean();
        Leaks.End end = new Leaks.End(this, "a thing of", "this test", () -> {
            begun.countDown();
            try {
                mayEnd.await();
            } catch (InterruptedException never) {
                throw new AssertionError(never);
            }
            isClosed.set(true);
        });
        Thread first = new Thread(end::close);
        first.start();
        begun.await();
        FutureTask<Boolean> second = new FutureTask<>(() -> {
            end.close();
            return isClosed.get();
        });
        Thread waits = new Thread(second);
        waits.start();
        Support.until(() -> waits.getState() == Thread.State.BLOCKED || second.isDone(), "the second waits");
        mayEnd.countDown();
        assertTrue(second.get());
        first.join();
    }

    @Test
    void aQueueThatIsThereIsOpenedAsWhatItIs() {
        Path path = dir.resolve("there"), message = dir.resolve("raw");
        MappedFileQueue.open(path, small().build()).close();
        MappedFileQueue.open(message, raw().build()).close();
        fails(Status.INVALID, "file_size", () -> MappedFileQueue.open(path, small().fileSize(128 * 1024).build()));
        fails(Status.INVALID, "format", () -> MappedFileQueue.open(path, raw().build()));
        fails(Status.INVALID, "format", () -> MappedFileQueue.open(message, small().build()));
        fails(Status.INVALID, "filler", () -> MappedFileQueue.open(message, raw().filler(Options.Filler.ROCKETMQ).build()));
    }

    @Test
    void aQueueThatIsOnlyReadRefusesEveryChange() {
        Span at = queue.append("there".getBytes());
        queue.close();
        try (MappedFileQueue queue = MappedFileQueue.open(dir.resolve("queue"), small().readOnly().build())) {
            List<Executable> changes = List.of(() -> queue.append(new byte[1]),
                    () -> queue.append(ByteBuffer.allocateDirect(1)), () -> queue.appendBatch(List.of(new byte[1])),
                    () -> queue.claim(1), () -> queue.flush(at.end(), 0), () -> queue.truncateAfter(0),
                    () -> queue.truncateBefore(0));
            changes.forEach(change -> fails(Status.READ_ONLY, "the queue was opened read-only", change));
            ExecutionException failed = assertThrows(ExecutionException.class, () -> queue.appendDurable(new byte[1]).get());
            assertEquals(Status.READ_ONLY, ((MfqException) failed.getCause()).status());
            assertArrayEquals("there".getBytes(), queue.read(at.offset()).bytes());
        }
    }

    /** In a JVM of its own, which interprets: that leaves more time between two looks at a buffer. */
    @Test
    void aBufferThatAnotherThreadMovesIsNeitherReadNorWrittenBeyondItsEnd() throws Exception {
        Support.output(Support.jvm(List.of("-Xint"), MovedBuffers.class, dir.resolve("moved")));
    }

    static final class MovedBuffers {
        private static final int ROUNDS = 20_000;

        public static void main(String[] arguments) {
            ByteBuffer whole = ByteBuffer.allocateDirect(16).putLong(8, -1), moved = whole.slice(0, 8);
            Thread mover = new Thread(() -> {
                while (true) {
                    moved.position(8).position(0);
                }
            });
            mover.setDaemon(true);
            mover.start();
            try (MappedFileQueue queue = MappedFileQueue.open(Path.of(arguments[0]), small().fileSize(FILE_BYTES).build())) {
                Span zeros = queue.append(new byte[8]);
                for (int round = 0; round < ROUNDS; round++) {
                    for (byte each : queue.read(queue.append(moved).offset()).bytes()) {
                        assertEquals(0, each, "a byte from beyond the end");
                    }
                    try {
                        queue.read(zeros.offset(), moved);
                    } catch (MfqException small) {
                        assertEquals(Status.TOO_LARGE, small.status());
                    } catch (IllegalArgumentException moving) {
                        // The position it has afterwards.
                    }
                    assertEquals(-1, whole.getLong(8), "what lies beyond the end");
                }
            }
        }
    }

    @Test
    void whatWasForgottenIsClosedAndReported() throws Exception {
        Reports listener = new Reports();
        List<String> reports = listener.reports;
        LOG.addHandler(listener);
        Path forgotten = dir.resolve("forgotten");
        forget(forgotten);
        Support.until(() -> {
            System.gc();
            return reports.stream().anyMatch(report -> report.contains("the queue " + forgotten))
                    && reports.stream().anyMatch(report -> report.contains("a view at"));
        }, "a report of the leak");
        // Nobody waits for a claim for ever that nobody can commit.
        queue.claim(100);
        Span behind = queue.append(new byte[10]);
        Support.until(() -> {
            System.gc();
            return queue.offsets().committed() == behind.end();
        }, "the claim's end");
        Support.until(() -> reports.stream().anyMatch(report -> report.contains("a claim at 0")), "a report of the claim");
        LOG.removeHandler(listener);
        // Its lock is let go, once the close has come to its end.
        Support.until(() -> {
            try (MappedFileQueue again = MappedFileQueue.open(forgotten)) {
                return again.offsets().committed() > 0;
            } catch (MfqException locked) {
                return false;
            }
        }, "the queue can be opened");
    }

    @Test
    void filesThatNothingRefersToAnyMoreAreUnmapped() throws Exception {
        Path used = dir.resolve("used");
        use(used);
        Support.until(() -> {
            System.gc();
            try {
                return !Files.readString(Path.of("/proc/self/maps")).contains(used.toString());
            } catch (IOException failed) {
                throw new UncheckedIOException(failed);
            }
        }, "the files are unmapped");
    }

    private static void use(Path path) {
        try (MappedFileQueue queue = MappedFileQueue.open(path, small().build())) {
            for (int file = 0; file < 3; file++) {
                try (Claim claim = queue.claim(40_000)) {
                    claim.commit();
                }
            }
            try (Reader reader = queue.reader(0)) {
                reader.forEachRemaining(record -> queue.view(record.offset()).close());
            }
        }
    }

    @Test
    void aForgottenThingWhoseCloseFailsIsReportedWithTheReason() throws Exception {
        Reports listener = new Reports();
        LOG.addHandler(listener);
        new Leaks.End(new Object(), "a thing of", "this test", () -> {
            throw new MfqException(Status.IO, 5, "the disk is gone");
        });
        Support.until(() -> {
            System.gc();
            return listener.reports.contains("a thing of this test: its close failed: the disk is gone");
        }, "a report of the failure");
        LOG.removeHandler(listener);
    }

    private static final Logger LOG = Logger.getLogger("mfq");

    private static final class Reports extends Handler {
        final List<String> reports = new CopyOnWriteArrayList<>();

        @Override
        public void publish(LogRecord record) {
            String reason = record.getThrown() == null ? "" : ": " + record.getThrown().getMessage();
            reports.add(new SimpleFormatter().formatMessage(record) + reason);
        }

        @Override
        public void flush() {}

        @Override
        public void close() {}
    }

    private static void forget(Path path) throws Exception {
        MappedFileQueue queue = MappedFileQueue.open(path, small().build());
        queue.view(queue.append(new byte[10]).offset());
        queue.appendDurable(new byte[10]).get();
    }
}
