package mfq.bench;

import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.stream.Stream;
import mfq.Claim;
import mfq.MappedFileQueue;
import mfq.Options;
import net.openhft.chronicle.bytes.Bytes;
import net.openhft.chronicle.queue.ChronicleQueue;
import net.openhft.chronicle.queue.ExcerptAppender;

/** What is measured: one thread appends records of one size, in a directory of its own, into files of 64 MiB. */
interface Log extends AutoCloseable {
    int FILE_BYTES = 64 << 20;

    String ALL = "mfq-bytes,mfq-direct,mfq-claim,mfq-raw-direct,rocketmq,rocketmq-warm,chronicle,chronicle-pretouch";

    /** Answers something that depends on the append. */
    long append() throws Exception;

    static Log open(String name, Path directory, int size) throws Exception {
        byte[] record = new byte[size];
        for (int i = 0; i < size; i++) {
            record[i] = (byte) (i * 31);
        }
        return switch (name) {
            case "mfq-bytes", "mfq-direct", "mfq-claim", "mfq-raw-direct" -> mfq(name, directory, record);
            case "rocketmq" -> new RocketMq(directory, record, false);
            case "rocketmq-warm" -> new RocketMq(directory, record, true);
            case "chronicle" -> chronicle(directory, record, false);
            case "chronicle-pretouch" -> chronicle(directory, record, true);
            default -> throw new IllegalArgumentException(name);
        };
    }

    private static Log mfq(String name, Path directory, byte[] record) {
        boolean isRaw = name.equals("mfq-raw-direct");
        MappedFileQueue queue = MappedFileQueue.open(directory, Options.builder().fileSize(FILE_BYTES)
                .format(isRaw ? Options.Format.RAW : Options.Format.RECORD).build());
        ByteBuffer direct = ByteBuffer.allocateDirect(record.length).put(record).flip();
        return new Log() {
            @Override
            public long append() {
                switch (name) {
                    case "mfq-bytes":
                        return queue.append(record).offset();
                    case "mfq-claim":
                        Claim claim = queue.claim(record.length);
                        claim.buffer().put(record);
                        return claim.commit().offset();
                    default:
                        direct.clear();
                        return queue.append(direct).offset();
                }
            }

            @Override
            public void close() {
                queue.close();
            }
        };
    }

    private static Log chronicle(Path directory, byte[] record, boolean isPretouched) {
        ChronicleQueue queue = ChronicleQueue.singleBuilder(directory.toFile()).build();
        ExcerptAppender appender = queue.acquireAppender();
        Bytes<?> bytes = Bytes.allocateDirect(record.length).write(record);
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
