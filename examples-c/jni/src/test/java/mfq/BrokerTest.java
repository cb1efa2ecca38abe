package mfq;

import static java.nio.charset.StandardCharsets.ISO_8859_1;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.BufferedOutputStream;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.Socket;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import sample.Broker;

/** The sample broker in a JVM of its own, killed in the middle of 200,000 messages. */
class BrokerTest {
    private static final int PRODUCERS = 4, MESSAGES = 50_000;

    @TempDir Path dir;
    private final List<String> lines = Support.lines().stream().map(line -> new String(line, ISO_8859_1)).toList();
    private final ExecutorService threads = Executors.newCachedThreadPool();
    private final List<String> said = new CopyOnWriteArrayList<>();
    private volatile Process broker;
    private volatile int port;

    @AfterEach
    void end() throws InterruptedException {
        broker.destroyForcibly().waitFor();
        threads.shutdownNow();
    }

    private void start() throws Exception {
        broker = Support.jvm(List.of(), Broker.class, dir.resolve("queue")).start();
        BufferedReader said = broker.inputReader();
        String first = said.readLine();
        assertTrue(first != null && first.startsWith("listening on "), first);
        port = Integer.parseInt(first.split("[ ,]")[2]);
        threads.submit(() -> said.lines().forEach(this.said::add));
    }

    private void kill() throws InterruptedException {
        broker.toHandle().destroyForcibly();
        assertEquals(128 + 9, broker.waitFor(), "ended by SIGKILL");
    }

    private Socket connect() throws IOException {
        Socket socket = new Socket(InetAddress.getLoopbackAddress(), port);
        socket.setSoTimeout(Support.GENEROUS_MS);
        return socket;
    }

    /** Sends what was not answered, over again whenever the connection ends. */
    private final class Producer implements Runnable {
        final int id;
        final long[] answers = new long[MESSAGES];
        volatile int answered;

        Producer(int id) {
            this.id = id;
        }

        String message(int seq) {
            return id + " " + seq + " " + lines.get((seq + id) % lines.size());
        }

        @Override
        public void run() {
            while (answered < MESSAGES && !Thread.currentThread().isInterrupted()) {
                try (Socket socket = connect()) {
                    int from = answered;
                    threads.submit(() -> send(socket, from));
                    BufferedReader in = new BufferedReader(new InputStreamReader(socket.getInputStream(), ISO_8859_1));
                    for (String line = in.readLine(); line != null; line = in.readLine()) {
                        answers[answered] = Long.parseLong(line);
                        answered++;
                        if (answered == MESSAGES) {
                            return;
                        }
                    }
                } catch (IOException killed) {
                    Thread.yield();
                }
            }
        }

        private void send(Socket socket, int from) {
            try {
                OutputStream out = new BufferedOutputStream(socket.getOutputStream(), 1 << 16);
                out.write("PRODUCE\n".getBytes(ISO_8859_1));
                for (int seq = from; seq < MESSAGES; seq++) {
                    out.write((message(seq) + "\n").getBytes(ISO_8859_1));
                }
                out.flush();
            } catch (IOException killed) {
                // Its answers end, too.
            }
        }
    }

    private static int answered(List<Producer> producers) {
        return producers.stream().mapToInt(one -> one.answered).sum();
    }

    /** Reads until every message was there, at the offset it was answered with if those are known; how many came twice. */
    private int consume(List<Producer> producers, boolean isAnswered) throws IOException {
        int found = 0, repeated = 0;
        int[] next = new int[PRODUCERS];
        try (Socket socket = connect()) {
            socket.getOutputStream().write("CONSUME 0\n".getBytes(ISO_8859_1));
            BufferedReader in = new BufferedReader(new InputStreamReader(socket.getInputStream(), ISO_8859_1));
            while (found < PRODUCERS * MESSAGES) {
                String line = in.readLine();
                assertNotNull(line);
                String[] words = line.split(" ", 4);
                Producer producer = producers.get(Integer.parseInt(words[1]));
                int seq = Integer.parseInt(words[2]);
                assertEquals(producer.message(seq), line.substring(words[0].length() + 1));
                // The first of each kind is in order; a message that was not answered may have been sent again.
                assertTrue(seq <= next[producer.id], line);
                boolean isFirst = seq == next[producer.id];
                if (isFirst) {
                    next[producer.id]++;
                } else {
                    repeated++;
                }
                if (isAnswered ? producer.answers[seq] == Long.parseLong(words[0]) : isFirst) {
                    found++;
                }
            }
        }
        return repeated;
    }

    /** Each is sent when the one before was read: the consumer has come to the end, and waits. */
    @Test
    void aConsumerThatIsThereFirstGetsEachMessageAsItComes() throws Exception {
        start();
        try (Socket consumer = connect(); Socket producer = connect()) {
            consumer.getOutputStream().write("CONSUME 0\n".getBytes(ISO_8859_1));
            producer.getOutputStream().write("PRODUCE\n".getBytes(ISO_8859_1));
            BufferedReader got = new BufferedReader(new InputStreamReader(consumer.getInputStream(), ISO_8859_1));
            BufferedReader answers = new BufferedReader(new InputStreamReader(producer.getInputStream(), ISO_8859_1));
            for (String line : lines.subList(0, 100)) {
                producer.getOutputStream().write((line + "\n").getBytes(ISO_8859_1));
                assertEquals(answers.readLine() + " " + line, got.readLine());
            }
        }
    }

    @Test
    void aMessageThatIsRefusedEndsItsConnection() throws Exception {
        start();
        try (Socket socket = connect()) {
            OutputStream out = new BufferedOutputStream(socket.getOutputStream(), 1 << 16);
            out.write("PRODUCE\n".getBytes(ISO_8859_1));
            out.write("x".repeat(5 << 20).getBytes(ISO_8859_1)); // more than a file takes
            out.write('\n');
            out.flush();
            assertEquals(-1, socket.getInputStream().read());
        }
    }

    @Test
    void everyAnsweredMessageIsThereInOrderAfterItsBrokerWasKilled() throws Exception {
        start();
        List<Producer> producers = new ArrayList<>();
        List<Future<?>> ends = new ArrayList<>();
        for (int id = 0; id < PRODUCERS; id++) {
            producers.add(new Producer(id));
            ends.add(threads.submit(producers.get(id)));
        }
        Support.until(() -> answered(producers) > PRODUCERS * MESSAGES / 3, "answers");
        kill();
        int before = answered(producers);
        start();
        // Tails what the producers send meanwhile, and so overtakes their answers.
        Future<Integer> tailed = threads.submit(() -> consume(producers, false));
        for (Future<?> end : ends) {
            end.get();
        }
        assertEquals(PRODUCERS * MESSAGES, answered(producers));
        tailed.get(Support.GENEROUS_MS, TimeUnit.MILLISECONDS);
        kill();
        start();
        int repeated = consume(producers, true);
        System.out.printf("  broker: %d messages answered, %d of them before the first SIGKILL, 0 lost; %d were there twice%n",
                answered(producers), before, repeated);
        assertTrue(before < PRODUCERS * MESSAGES, "killed in the middle");
        Support.isWithoutWarnings(String.join("\n", said));
    }
}
