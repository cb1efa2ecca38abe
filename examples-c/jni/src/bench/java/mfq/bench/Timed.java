package mfq.bench;

import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Base64;
import org.HdrHistogram.Histogram;

/**
 * The time of each append of 1 KiB, in a process of its own for each log, which prints them as a histogram. At a rate
 * they are timed from the moment that each was meant for: whoever is held up holds up those that follow, and that counts.
 * Arguments: the log; a rate a second, or 0 for as fast as it can; how many.
 */
final class Timed {
    static final int SIZE = 1024;
    /** The JVM compiles a loop anew after it has seen it end. */
    private static final int WARM_UPS = 3;

    private Timed() {}

    public static void main(String[] arguments) throws Exception {
        String log = arguments[0];
        long rate = Long.parseLong(arguments[1]), count = Long.parseLong(arguments[2]);
        long[] took = new long[Math.toIntExact(count)]; // a histogram that grows at the first long time makes it longer
        Arrays.fill(took, 1); // its memory is touched before it counts
        for (int warmUp = 0; warmUp < WARM_UPS; warmUp++) {
            time(log, rate, took, Math.min(took.length, 100_000));
        }
        System.gc(); // what the warm-ups left is not collected in what is timed
        time(log, rate, took, took.length);
        Histogram times = new Histogram(3);
        for (long one : took) {
            times.recordValue(one);
        }
        ByteBuffer encoded = ByteBuffer.allocate(times.getNeededByteBufferCapacity());
        int len = times.encodeIntoCompressedByteBuffer(encoded);
        System.out.println(Base64.getEncoder().encodeToString(Arrays.copyOf(encoded.array(), len)));
    }

    private static void time(String name, long rate, long[] took, int count) throws Exception {
        Path directory = Log.scratch();
        try (Log log = Log.open(name, directory.resolve("log"), SIZE)) {
            long start = System.nanoTime(), before = start;
            for (int i = 0; i < count; i++) {
                long from = rate == 0 ? before : start + i * 1_000_000_000L / rate;
                while (before < from) {
                    Thread.onSpinWait();
                    before = System.nanoTime();
                }
                log.append();
                before = System.nanoTime();
                took[i] = before - from;
            }
        }
        Log.delete(directory);
    }
}
