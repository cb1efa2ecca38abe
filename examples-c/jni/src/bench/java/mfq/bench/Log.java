package mfq.bench;

import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.function.Function;
import java.util.stream.Stream;
import mfq.Claim;
import mfq.MappedFileQueue;
import mfq.Options;
import mfq.Span;
import net.openhft.chronicle.bytes.Bytes;
import net.openhft.chronicle.queue.ChronicleQueue;
import net.openhft.chronicle.queue.ExcerptAppender;

/** What is measured: one thread appends records of one size, in a directory of its own, into files of 64 MiB. */
interface Log extends AutoCloseable {
    int FILE_BYTES = 64 << 20;

    /** Answers something that depends on the append. */
    long append() throws Exception;

    static Log open(String name, Path directory, int size) throws Exception {
        byte[] record = new byte[size];
        for (int i = 0; i < size; i++) {
            record[i] = (byte) (i * 31);
        }
        return switch (name) {
            case "memory" -> memory(record);
            case "raw-bytes" -> mfq(directory, Options.Format.RAW, queue -> queue.append(record));
            case "record-bytes" -> mfq(directory, Options.Format.RECORD, queue -> queue.append(record));
            case "raw-direct" -> mfq(directory, Options.Format.RAW, direct(record));
            case "record-direct" -> mfq(directory, Options.Format.RECORD, direct(record));
            case "record-claim" -> mfq(directory, Options.Format.RECORD, queue -> {
                Claim claim = queue.claim(record.length);
                claim.buffer().put(record);
                return claim.commit();
            });
            case "rocketmq" -> new RocketMq(directory, record, false);
            case "rocketmq-warm" -> new RocketMq(directory, record, true);
            case "chronicle" -> chronicle(directory, record, false);
            case "chronicle-pretouch" -> chronicle(directory, record, true);
            default -> throw new IllegalArgumentException(name);
        };
    }

    /** The floor: records are put into 64 MiB of memory that is there, again and again. */
    private static Log memory(byte[] record) {
        ByteBuffer memory = ByteBuffer.allocateDirect(FILE_BYTES);
        return new Log() {
            @Override
            public long append() {
                if (memory.remaining() < record.length) {
                    memory.clear();
                }
                return memory.put(record).position();
            }

            @Override
            public void close() {}
        };
    }

    private static Log mfq(Path directory, Options.Format format, Function<MappedFileQueue, Span> append) throws Exception {
        MappedFileQueue queue =
                MappedFileQueue.open(directory, Options.builder().fileSize(FILE_BYTES).format(format).build());
        queue.getLast(10_000).close();
        while (queue.stats().prefaultedTo() < FILE_BYTES) {
            Thread.sleep(1); // its first file is ready before it is measured, as RocketMQ's is once it has been warmed
        }
        return new Log() {
            @Override
            public long append() {
                return append.apply(queue).offset();
            }

            @Override
            public void close() {
                queue.close();
            }
        };
    }

    private static Function<MappedFileQueue, Span> direct(byte[] record) {
        ByteBuffer direct = ByteBuffer.allocateDirect(record.length).put(record);
        return queue -> queue.append(direct.clear());
    }

    private static Log chronicle(Path directory, byte[] record, boolean isPretouched) {
        ChronicleQueue queue = ChronicleQueue.singleBuilder(directory.toFile()).build();
        ExcerptAppender appender = queue.acquireAppender();
        Bytes<?> bytes = Bytes.allocateDirect(record.length).write(record);
        appender.writeBytes(bytes); // its first file, too
        Thread pretoucher = new Thread(() -> {
            try (ExcerptAppender own = queue.acquireAppender()) {
                while (!Thread.interrupted()) {
                    own.pretouch();
                    Thread.sleep(1);
                }
            } catch (InterruptedException ended) {
                // as asked
            }
        });
        pretoucher.setDaemon(true);
        if (isPretouched) {
            pretoucher.start();
        }
        return new Log() {
            @Override
            public long append() {
                appender.writeBytes(bytes);
                return bytes.readPosition();
            }

            @Override
            public void close() throws InterruptedException {
                pretoucher.interrupt();
                pretoucher.join();
                appender.close();
                queue.close();
                bytes.releaseLast();
            }
        };
    }

    /** Beside the build, on the same disk for all. */
    static Path scratch() throws IOException {
        return Files.createTempDirectory(Files.createDirectories(Path.of(System.getProperty("mfq.bench", "target"))), "bench");
    }

    static void delete(Path directory) throws IOException {
        try (Stream<Path> all = Files.walk(directory)) {
            all.sorted(Comparator.reverseOrder()).map(Path::toFile).forEach(File::delete);
        }
    }
}
