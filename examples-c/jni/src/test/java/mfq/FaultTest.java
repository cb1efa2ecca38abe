package mfq;

import static mfq.Support.GENEROUS_MS;
import static mfq.Support.fails;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.FileInputStream;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A disk that is full, and files that are cut off behind the library's back. */
class FaultTest {
    private static final int FILE_BYTES = 1 << 20;
    private static final int ENOSPC = 28;

    @TempDir Path dir;

    // ---- a full disk --------------------------------------------------------------------------------------------

    private static boolean mount(String... words) throws IOException, InterruptedException {
        return new ProcessBuilder(words).inheritIO().start().waitFor() == 0;
    }

    @Test
    void aFullDiskIsAnExceptionAndNoSignalAndHeals() throws Exception {
        Path disk = Files.createDirectory(dir.resolve("disk"));
        if (!mount("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk.toString())) {
            assertFalse("true".equals(System.getenv("CI")), "no tmpfs can be mounted");
            Assumptions.abort("no tmpfs can be mounted here: it needs root");
        }
        try (MappedFileQueue queue = MappedFileQueue.open(disk.resolve("queue"), Options.builder().fileSize(FILE_BYTES).build())) {
            byte[] record = new byte[60_000];
            ByteBuffer direct = ByteBuffer.allocateDirect(record.length);
            List<Span> at = new ArrayList<>();
            MfqException full = assertThrows(MfqException.class, () -> {
                while (true) {
                    record[0] = (byte) at.size();
                    at.add(queue.append(record));
                }
            });
            assertEquals(List.of(Status.NO_SPACE, ENOSPC), List.of(full.status(), full.errno()), full.getMessage());
            assertTrue(full.getMessage().contains(disk.toString()), full.getMessage());
            fails(Status.NO_SPACE, disk.toString(), () -> queue.append(direct.clear()));
            fails(Status.NO_SPACE, disk.toString(), () -> queue.claim(record.length));
            ExecutionException later = assertThrows(ExecutionException.class, () -> queue.appendDurable(record).get());
            assertEquals(Status.NO_SPACE, ((MfqException) later.getCause()).status());
            queue.flush(MappedFileQueue.EVERYTHING, GENEROUS_MS);
            assertTrue(mount("mount", "-o", "remount,size=10m", disk.toString()));
            at.add(queue.append(record));
            for (int i = 0; i < at.size() - 1; i++) {
                assertEquals((byte) i, queue.read(at.get(i).offset()).bytes()[0]);
            }

            // The files of what is removed give their space back, once the buffers of their records are collected.
            fails(Status.NO_SPACE, disk.toString(), () -> {
                while (true) {
                    queue.append(record);
                }
            });
            queue.truncateBefore(queue.offsets().committed());
            Support.until(() -> {
                System.gc();
                try {
                    queue.truncateBefore(queue.offsets().committed());
                    queue.append(record);
                    return true;
                } catch (MfqException still) {
                    assertEquals(Status.NO_SPACE, still.status());
                    return false;
                }
            }, "space comes back");
        } finally {
            mount("umount", "--lazy", disk.toString());
        }
    }

    // ---- no memory, no descriptor ------------------------------------------------------------------------------------

    @Test
    void aClaimWithoutMemoryForItsBufferHoldsNobodyUp() throws Exception {
        Support.output(Support.jvm(List.of("-XX:MaxDirectMemorySize=256k"), NoMemory.class, dir));
    }

    static final class NoMemory {
        public static void main(String[] arguments) {
            Options.Builder staged = Options.builder().mode(Options.Mode.STAGED);
            Options.Builder raw = Options.builder().format(Options.Format.RAW);
            for (Options.Builder options : List.of(staged, raw)) {
                Path path = Path.of(arguments[0], "queue-" + System.nanoTime());
                try (MappedFileQueue queue = MappedFileQueue.open(path, options.fileSize(FILE_BYTES).build())) {
                    assertThrows(OutOfMemoryError.class, () -> queue.claim(FILE_BYTES / 2));
                    assertEquals(0, queue.stats().openClaims());
                    queue.awaitCommitted(queue.append(new byte[8]).end(), GENEROUS_MS);
                }
            }
        }
    }

    @Test
    void aFutureWithoutADescriptorIsAnExceptionAndTheNextOneCompletes() throws Exception {
        ProcessBuilder jvm = Support.jvm(List.of("-XX:-MaxFDLimit"), NoDescriptor.class, dir);
        List<String> limited = new ArrayList<>(List.of("sh", "-c", "ulimit -n 200; exec \"$@\"", "sh"));
        limited.addAll(jvm.command());
        Support.output(jvm.command(limited));
    }

    static final class NoDescriptor {
        private static final int EMFILE = 24;

        public static void main(String[] arguments) throws Exception {
            try (MappedFileQueue used = MappedFileQueue.open(Path.of(arguments[0], "used"))) {
                // Loads the classes that are needed, as that takes descriptors too.
                used.appendDurable(new byte[1]).get();
                fails(Status.TIMEOUT, "", () -> used.awaitFlushed(Long.MAX_VALUE, 0));
                fails(Status.IO, "", () -> {
                    throw new MfqException(Status.IO, EMFILE, "");
                });
            }
            int tries = 0;
            while (!isToldOfBoth(Path.of(arguments[0], "queue-" + tries))) {
                assertTrue(++tries < 100, "there is always a descriptor");
            }
        }

        /** Unless the library's thread for files lets one of its own go meanwhile. */
        private static boolean isToldOfBoth(Path path) throws Exception {
            List<FileInputStream> taken = new ArrayList<>();
            try (MappedFileQueue queue = MappedFileQueue.open(path)) {
                Span before = queue.append(new byte[1]);
                try {
                    IOException none = assertThrows(IOException.class, () -> {
                        while (true) {
                            taken.add(new FileInputStream("/dev/null"));
                        }
                    });
                    assertTrue(taken.size() > 10, none.toString());
                    // The queue's own, and then the one of the thread that waits for it.
                    for (String missing : List.of("making an event descriptor", "duplicating the event descriptor")) {
                        try {
                            queue.appendDurable(new byte[1]).get();
                            return false;
                        } catch (ExecutionException failed) {
                            MfqException cause = (MfqException) failed.getCause();
                            assertEquals(List.of(Status.IO, EMFILE), List.of(cause.status(), cause.errno()), cause.toString());
                            if (!cause.getMessage().startsWith(missing)) {
                                return false;
                            }
                        }
                        taken.remove(0).close();
                    }
                } finally {
                    for (FileInputStream each : taken) {
                        each.close();
                    }
                }
                assertEquals(before.end(), queue.appendDurable(new byte[1]).get());
                return true;
            }
        }
    }

    // ---- lost pages ---------------------------------------------------------------------------------------------

    /** As many SIGBUS as MFQ_JAVA_SIGBUS says, in a JVM whose own handler of it was there before. */
    @Test
    void aLostPageIsAnExceptionInAJvmWithLibjsig() throws Exception {
        Path libjsig = Path.of(System.getProperty("java.home"), "lib/libjsig.so");
        String count = System.getenv().getOrDefault("MFQ_JAVA_SIGBUS", "2000");
        ProcessBuilder jvm = Support.jvm(List.of(), LostPages.class, dir, count);
        jvm.environment().put("LD_PRELOAD", libjsig.toString());
        System.out.print(Support.output(jvm));
    }

    static final class LostPages {
        private static final int RECORD_BYTES = 8000, RECORDS = 120, CUT_BYTES = 100 * 4096;

        public static void main(String[] arguments) throws Exception {
            long wanted = Long.parseLong(arguments[1]), lost = 0, faults = 0, rounds = 0;
            Path path = Path.of(arguments[0], "queue");
            MappedFileQueue.installSigbusGuard();
            MappedFileQueue.installSigbusGuard();
            while (lost < wanted) {
                MappedFileQueue queue = MappedFileQueue.open(path, Options.builder().fileSize(FILE_BYTES).build());
                List<Span> at = new ArrayList<>();
                byte[] record = new byte[RECORD_BYTES];
                for (int i = 0; i < RECORDS - 1; i++) {
                    record[0] = (byte) i;
                    at.add(queue.append(record));
                }
                View whole = queue.view(0), beyond = queue.view(at.get(80).offset());
                // Not durable before the claim ends, which it does not.
                Claim open = queue.claim(8);
                CompletableFuture<Long> pending = queue.appendDurable(record);
                assertFalse(pending.isDone());
                try (RandomAccessFile file = new RandomAccessFile(path.resolve("0".repeat(20)).toFile(), "rw")) {
                    file.setLength(CUT_BYTES);
                }

                // What is left is read; what is lost is an exception of the call that found out.
                for (int i = 0; i < at.size(); i++) {
                    long offset = at.get(i).offset();
                    if (at.get(i).end() <= CUT_BYTES) {
                        assertEquals((byte) i, queue.read(offset).bytes()[0]);
                    } else {
                        fails(Status.IO, "0".repeat(20), () -> queue.read(offset));
                        lost++;
                    }
                }
                faults += touch(beyond);
                assertArrayEquals(new byte[RECORD_BYTES], whole.bytes());
                whole.close();

                ExecutionException failed =
                        assertThrows(ExecutionException.class, () -> pending.get(GENEROUS_MS, TimeUnit.MILLISECONDS));
                NotDurableException notDurable = (NotDurableException) failed.getCause();
                assertEquals(Status.POISONED, notDurable.status());
                assertTrue(notDurable.at().offset() > at.get(RECORDS - 2).offset());
                fails(Status.POISONED, "SIGBUS", () -> queue.append(record));
                fails(Status.POISONED, "SIGBUS", () -> queue.flush(MappedFileQueue.EVERYTHING, 0));
                fails(Status.POISONED, "SIGBUS", queue::close);
                open.close();
                Support.delete(path);
                // Each page that was replaced is a mapping of its own, until nothing refers to the file.
                if (++rounds % 50 == 0) {
                    System.gc();
                }
            }
            System.out.printf("  SIGBUS: %d records lost to it in a JVM, %d views of which %d told Java of it as an "
                    + "InternalError, and it lives%n", lost, rounds, faults);
        }

        /**
         * In Java's own code: an InternalError of the JVM's, which may come a little later, or zeros and an exception at
         * the view's end. Whether it was the first.
         */
        private static int touch(View view) {
            boolean isTold = false;
            int faults = 0;
            try {
                view.bytes();
                Thread.yield();
            } catch (InternalError fault) {
                faults = 1;
            }
            for (boolean isClosed = false; !isClosed;) {
                try {
                    view.close();
                    isClosed = true;
                } catch (InternalError fault) {
                    faults = 1; // before it was closed, perhaps
                } catch (MfqException lost) {
                    assertEquals(Status.IO, lost.status());
                    isTold = isClosed = true;
                }
            }
            assertTrue(isTold || faults > 0);
            return faults;
        }
    }
}
