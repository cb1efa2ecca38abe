package mfq;

import static mfq.Support.KIB;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.BufferedReader;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.Stream;
import org.apache.rocketmq.common.BrokerConfig;
import org.apache.rocketmq.common.UtilAll;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageExtBrokerInner;
import org.apache.rocketmq.common.message.MessageVersion;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.MessageExtEncoder;
import org.apache.rocketmq.store.PutMessageResult;
import org.apache.rocketmq.store.PutMessageStatus;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.store.stats.BrokerStatsManager;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** RocketMQ's own store reads what libmfq wrote, and libmfq what RocketMQ's store wrote. */
class RocketMqTest {
    private static final int FILE_BYTES = 64 * 1024;
    /** Where a message of RocketMQ holds its number in its queue and its offset in the log. */
    private static final int QUEUE_OFFSET_AT = 20, PHYSICAL_OFFSET_AT = 28;
    private static final int KILLS = Integer.parseInt(System.getenv().getOrDefault("MFQ_JAVA_KILLS", "10"));

    private static final List<byte[]> LINES = Support.lines();

    @TempDir Path dir;

    // ---- RocketMQ's side ----------------------------------------------------------------------------------------

    private static MessageStoreConfig config(Path root) {
        MessageStoreConfig config = new MessageStoreConfig();
        config.setStorePathRootDir(root.toString());
        config.setStorePathCommitLog(root.resolve("commitlog").toString());
        config.setMappedFileSizeCommitLog(FILE_BYTES);
        config.setMappedFileSizeConsumeQueue(20 * 1000);
        config.setMaxHashSlotNum(100);
        config.setMaxIndexNum(1000);
        config.setMessageIndexEnable(false);
        config.setDuplicationEnable(false);
        config.setHaListenPort(0);
        return config;
    }

    private static DefaultMessageStore store(Path root) throws IOException {
        BrokerConfig broker = new BrokerConfig();
        DefaultMessageStore store = new DefaultMessageStore(config(root), new BrokerStatsManager(broker),
                (topic, queue, offset, tags, time, filter, properties) -> {}, broker, new ConcurrentHashMap<>());
        assertTrue(store.load(), "RocketMQ's store loads and recovers");
        return store;
    }

    /** Loads as after a crash of the broker if {@code isCrash}: what tells it is this file. */
    private static DefaultMessageStore recovered(Path root, boolean isCrash) throws IOException {
        if (isCrash) {
            Files.createFile(root.resolve("abort"));
        } else {
            Files.deleteIfExists(root.resolve("abort"));
        }
        return store(root);
    }

    private static MessageExtBrokerInner message(byte[] body, int number) {
        MessageExtBrokerInner message = new MessageExtBrokerInner();
        message.setTopic("lines");
        message.setTags("readme");
        message.setKeys("line-" + number);
        message.setBody(body);
        message.setBodyCRC(UtilAll.crc32(body));
        message.setQueueId(0);
        message.setBornTimestamp(System.currentTimeMillis());
        message.setStoreTimestamp(System.currentTimeMillis());
        message.setBornHost(new InetSocketAddress("127.0.0.1", 1234));
        message.setStoreHost(new InetSocketAddress("127.0.0.1", 10911));
        message.setVersion(MessageVersion.MESSAGE_VERSION_V1);
        message.setPropertiesString(MessageDecoder.messageProperties2String(message.getProperties()));
        return message;
    }

    /** A message as RocketMQ encodes it; its place is not in it yet. */
    private static ByteBuffer encoded(MessageExtEncoder encoder, byte[] body, int number) {
        PutMessageResult refused = encoder.encode(message(body, number));
        assertEquals(null, refused);
        ByteBuffer bytes = encoder.getEncoderBuffer().clear();
        bytes.limit(bytes.getInt(0));
        bytes.putLong(QUEUE_OFFSET_AT, number);
        return bytes;
    }

    private static byte[] body(int number) {
        byte[] line = LINES.get(number % LINES.size());
        return (number + ": " + new String(line)).getBytes();
    }

    private static void copyFiles(Path from, Path to) throws IOException {
        Files.createDirectories(to);
        try (Stream<Path> files = Files.list(from)) {
            for (Path file : files.filter(Files::isRegularFile).toList()) {
                Files.copy(file, to.resolve(file.getFileName()));
            }
        }
    }

    // ---- libmfq's side ------------------------------------------------------------------------------------------

    private static Options.Builder commitLog() {
        return Support.raw().fileSize(FILE_BYTES).filler(Options.Filler.ROCKETMQ).walkRocketMq();
    }

    /** Appends a message that knows its offset: that is what claims are for. */
    private static Span append(MappedFileQueue queue, MessageExtEncoder encoder, int number) {
        ByteBuffer bytes = encoded(encoder, body(number), number);
        try (Claim claim = queue.claim(bytes.remaining())) {
            bytes.putLong(PHYSICAL_OFFSET_AT, claim.offset());
            claim.buffer().put(bytes);
            return claim.commit();
        }
    }

    /** Appends until it is killed, and says where each message went. */
    static final class Appends {
        public static void main(String[] arguments) {
            MessageExtEncoder encoder = new MessageExtEncoder(config(Path.of(arguments[0])));
            int number = Integer.parseInt(arguments[1]);
            try (MappedFileQueue queue = MappedFileQueue.open(Path.of(arguments[0], "commitlog"), commitLog().build())) {
                while (true) {
                    System.out.println(number + " " + append(queue, encoder, number).offset());
                    number++;
                }
            }
        }
    }

    private static void assertMessage(DefaultMessageStore store, long offset, int number) {
        MessageExt found = store.lookMessageByOffset(offset);
        assertNotNull(found, "message " + number + " at " + offset);
        assertArrayEquals(body(number), found.getBody());
        assertEquals(List.of("lines", (long) number, offset),
                List.of(found.getTopic(), found.getQueueOffset(), found.getCommitLogOffset()));
    }

    @Test
    void rocketMqRecoversWhatACleanCloseLeft() throws Exception {
        for (boolean isCrash : List.of(false, true)) {
            Path root = Files.createDirectory(dir.resolve("clean-" + isCrash));
            MessageExtEncoder encoder = new MessageExtEncoder(config(root));
            List<Span> at = new ArrayList<>();
            try (MappedFileQueue queue = MappedFileQueue.open(root.resolve("commitlog"), commitLog().build())) {
                for (int number = 0; number < 2000; number++) {
                    at.add(append(queue, encoder, number));
                }
                assertTrue(queue.stats().filesCreated() > 5);
            }
            // Its file queue alone loads the directory, .mfq in it and all.
            org.apache.rocketmq.store.MappedFileQueue files =
                    new org.apache.rocketmq.store.MappedFileQueue(root.resolve("commitlog").toString(), FILE_BYTES, null);
            assertTrue(files.load());
            files.checkSelf();
            assertEquals(0, files.getMappedFiles().get(0).getFileFromOffset());
            assertTrue(files.getMappedFiles().size() * FILE_BYTES >= at.get(1999).end());
            files.shutdown(0);

            DefaultMessageStore store = recovered(root, isCrash);
            assertEquals(at.get(1999).end(), store.getMaxPhyOffset());
            for (int number = 0; number < at.size(); number++) {
                assertMessage(store, at.get(number).offset(), number);
            }
            store.shutdown();
        }
    }

    @Test
    void rocketMqRecoversWhatAKillLeftAtAnyPoint() throws Exception {
        Random random = new Random(5);
        Path root = Files.createDirectory(dir.resolve("killed"));
        MessageExtEncoder encoder = new MessageExtEncoder(config(root));
        List<Long> acknowledged = new ArrayList<>();
        for (int kill = 0; kill < KILLS; kill++) {
            Process process = Support.jvm(List.of("-Dmfq.input=" + System.getProperty("mfq.input")), Appends.class, root,
                    acknowledged.size()).redirectError(ProcessBuilder.Redirect.DISCARD).redirectErrorStream(false).start();
            int messages = acknowledged.size() + 1 + random.nextInt(1500);
            BufferedReader said = process.inputReader();
            for (String line = said.readLine(); line != null; line = said.readLine()) {
                String[] words = line.split(" ");
                assertEquals(acknowledged.size(), Integer.parseInt(words[0]), line);
                acknowledged.add(Long.parseLong(words[1]));
                if (acknowledged.size() == messages) {
                    process.toHandle().destroyForcibly(); // the other one closes what we read
                }
            }
            assertEquals(128 + 9, process.waitFor(), "ended by SIGKILL");
            assertTrue(acknowledged.size() >= messages);

            // A copy is RocketMQ's to recover, as it cuts and zeroes what it does not know.
            Path copy = dir.resolve("copy-" + kill);
            copyFiles(root.resolve("commitlog"), copy.resolve("commitlog"));
            Files.createDirectory(copy.resolve("commitlog/.mfq"));
            DefaultMessageStore store = recovered(copy, kill % 2 == 0);
            for (int number = 0; number < acknowledged.size(); number++) {
                assertMessage(store, acknowledged.get(number), number);
            }
            // At most one more: its append had not returned, or nobody had been told.
            long end = store.getMaxPhyOffset();
            store.shutdown();
            try (MappedFileQueue queue = MappedFileQueue.open(root.resolve("commitlog"), commitLog().build())) {
                assertEquals(Recovery.Ended.PROCESS_DEATH, queue.recovery().ended());
                // One that was copied and not yet committed is whole to RocketMQ alone.
                int next = encoded(encoder, body(acknowledged.size()), acknowledged.size()).remaining();
                long committed = queue.offsets().committed(), more = end - committed;
                // A file that is full with nothing behind it ends for RocketMQ before its filler.
                boolean isFull = committed % FILE_BYTES == 0 && more < 0 && -more < next + 8;
                assertTrue(more == 0 || more == next || isFull, "both find the same end: RocketMQ's is " + more + " bytes behind");
                // What nobody was told of is cut, so that the next process goes on with the same number.
                long told = acknowledged.get(acknowledged.size() - 1);
                queue.truncateAfter(told + ByteBuffer.wrap(queue.read(told).bytes()).getInt());
            }
            Support.delete(copy);
        }
        System.out.printf("  RocketMQ: %d SIGKILL, %d messages returned, 0 lost%n", KILLS, acknowledged.size());
    }

    @Test
    void libmfqAdoptsWhatRocketMqWroteAndRocketMqGoesOnWithIt() throws Exception {
        for (boolean isClean : List.of(true, false)) {
            Path root = Files.createDirectory(dir.resolve("rocketmq-" + isClean));
            DefaultMessageStore store = store(root);
            store.start();
            List<Long> offsets = new ArrayList<>();
            for (int number = 0; number < 1500; number++) {
                PutMessageResult put = store.putMessage(message(body(number), number));
                assertEquals(PutMessageStatus.PUT_OK, put.getPutMessageStatus());
                offsets.add(put.getAppendMessageResult().getWroteOffset());
            }
            long end = store.getMaxPhyOffset();
            if (!isClean) {
                // As it is while the broker lives: with the files it has made ahead.
                root = dir.resolve("crashed");
                copyFiles(dir.resolve("rocketmq-false/commitlog"), root.resolve("commitlog"));
            }
            store.shutdown();
            try (MappedFileQueue queue = MappedFileQueue.open(root.resolve("commitlog"), commitLog().adopt().build())) {
                Recovery found = queue.recovery();
                assertEquals(Recovery.Ended.ADOPTED, found.ended());
                assertEquals(List.of(end, 0L), List.of(queue.offsets().committed(), found.unverifiedBytes()));
                for (int number = 0; number < offsets.size(); number++) {
                    ByteBuffer bytes = ByteBuffer.wrap(queue.read(offsets.get(number)).bytes());
                    bytes.limit(bytes.getInt(0));
                    assertArrayEquals(body(number), MessageDecoder.decode(bytes).getBody());
                }
                MessageExtEncoder encoder = new MessageExtEncoder(config(root));
                for (int number = 1500; number < 2500; number++) {
                    offsets.add(append(queue, encoder, number).offset());
                }
            }
            DefaultMessageStore again = recovered(root, !isClean);
            again.start();
            for (int number = 0; number < offsets.size(); number++) {
                assertMessage(again, offsets.get(number), number);
            }
            PutMessageResult put = again.putMessage(message(body(2500), 2500));
            assertEquals(PutMessageStatus.PUT_OK, put.getPutMessageStatus());
            long last = put.getAppendMessageResult().getWroteOffset();
            assertTrue(last >= offsets.get(2499));
            assertArrayEquals(body(2500), again.lookMessageByOffset(last).getBody());
            again.shutdown();
        }
    }
}
