package sample;

import static java.nio.charset.StandardCharsets.ISO_8859_1;

import java.io.BufferedOutputStream;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.file.Path;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import mfq.MappedFileQueue;
import mfq.MfqTimeoutException;
import mfq.Options;
import mfq.Reader;
import mfq.View;

/**
 * A broker in one screen: {@code java sample.Broker DIRECTORY [PORT]} listens on the loopback. A client's first line says
 * what it is:
 *
 * <pre>
 * PRODUCE            each line that follows is a message; it is answered by its offset once it is on stable storage
 * CONSUME OFFSET     gets "offset message" for each one from there on, and waits for more
 * </pre>
 *
 * A message that was answered is there after a crash; one that was not may be, so a producer that sends it again can make
 * it twice. Answers come in the order of the messages.
 */
public final class Broker {
    /** How many messages of one producer may wait for the disk. */
    private static final int PENDING = 10_000;

    private final MappedFileQueue queue;

    private Broker(MappedFileQueue queue) {
        this.queue = queue;
    }

    public static void main(String[] arguments) throws IOException {
        int port = arguments.length > 1 ? Integer.parseInt(arguments[1]) : 0;
        // Each message is flushed, and this policy's files are of small pages: a sync of a huge one writes 2 MiB.
        Options options = Options.builder().fileSize(4 << 20).flushPolicy(Options.FlushPolicy.LEAST_PAGES).build();
        try (MappedFileQueue queue = MappedFileQueue.open(Path.of(arguments[0]), options);
                ServerSocket server = new ServerSocket(port, 50, InetAddress.getLoopbackAddress())) {
            System.out.println("listening on " + server.getLocalPort() + ", messages up to " + queue.offsets().committed());
            Broker broker = new Broker(queue);
            while (true) {
                Socket client = server.accept();
                start("client " + client.getPort(), () -> broker.serve(client));
            }
        }
    }

    private static void start(String name, Runnable work) {
        Thread thread = new Thread(work, name);
        thread.setDaemon(true);
        thread.start();
    }

    private void serve(Socket client) {
        try (client;
                BufferedReader in = new BufferedReader(new InputStreamReader(client.getInputStream(), ISO_8859_1));
                OutputStream out = new BufferedOutputStream(client.getOutputStream(), 1 << 16)) {
            String asked = in.readLine();
            if ("PRODUCE".equals(asked)) {
                produce(client, in, out);
            } else if (asked != null && asked.startsWith("CONSUME ")) {
                consume(Long.parseLong(asked.substring(8)), out);
            } else {
                out.write("PRODUCE or CONSUME OFFSET\n".getBytes(ISO_8859_1));
            }
        } catch (IOException | RuntimeException gone) {
            System.err.println(Thread.currentThread().getName() + ": " + gone);
        }
    }

    /** Reads and appends in this thread and answers in another one, so that many messages wait for one sync. */
    private void produce(Socket client, BufferedReader in, OutputStream out) throws IOException {
        BlockingQueue<CompletableFuture<Long>> answers = new ArrayBlockingQueue<>(PENDING);
        CompletableFuture<Long> end = new CompletableFuture<>();
        Thread answering = new Thread(() -> answer(client, answers, end, out));
        answering.start();
        try {
            try {
                for (String message = in.readLine(); message != null && answering.isAlive(); message = in.readLine()) {
                    answers.put(queue.appendDurable(message.getBytes(ISO_8859_1)));
                }
            } finally {
                answers.put(end);
                answering.join();
            }
        } catch (InterruptedException ended) {
            Thread.currentThread().interrupt();
        }
    }

    private void answer(Socket client, BlockingQueue<CompletableFuture<Long>> answers, CompletableFuture<Long> end,
            OutputStream out) {
        try {
            for (CompletableFuture<Long> answer = answers.take(); answer != end; answer = answers.take()) {
                if (!answer.isDone()) {
                    out.flush();
                }
                out.write((answer.join() + "\n").getBytes(ISO_8859_1));
                if (answers.isEmpty()) {
                    out.flush();
                }
            }
            out.flush();
        } catch (IOException | CompletionException | InterruptedException failed) {
            // Nothing is answered any more: the client has to ask anew for what it was not told, and learns it at once.
            System.err.println("answers end: " + failed);
            answers.clear();
            close(client);
        }
    }

    private static void close(Socket client) {
        try {
            client.close();
        } catch (IOException gone) {
            // Nobody is left to be told.
        }
    }

    private void consume(long from, OutputStream out) throws IOException {
        try (Reader reader = queue.reader(from)) {
            while (true) {
                if (!reader.hasNext()) {
                    out.flush();
                }
                try {
                    View message = reader.next(1000);
                    out.write((message.offset() + " ").getBytes(ISO_8859_1));
                    out.write(message.bytes());
                    out.write('\n');
                } catch (MfqTimeoutException none) {
                    // Waits on; a client that is gone is noticed when there is something to write.
                }
            }
        }
    }
}
