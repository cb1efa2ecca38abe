package mfq.bench;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.HdrHistogram.Histogram;

/**
 * Appends of 1 KiB at a fixed rate, each timed from the moment it was meant for: whoever is held up holds up those that
 * follow, and that counts. Arguments are rates a second, and {@code -s SECONDS}.
 */
public final class OpenLoop {
    private static final int SIZE = 1024;

    private OpenLoop() {}

    public static void main(String[] arguments) throws Exception {
        List<Long> rates = new ArrayList<>();
        long seconds = 10;
        for (int i = 0; i < arguments.length; i++) {
            if (arguments[i].equals("-s")) {
                seconds = Long.parseLong(arguments[++i]);
            } else {
                rates.add(Long.parseLong(arguments[i]));
            }
        }
        System.out.printf("%-22s %10s %10s %10s %10s %10s %10s   (us, 1 KiB, from the intended moment)%n", "", "a second",
                "p50", "p99", "p99.9", "p99.99", "max");
        for (long rate : rates) {
            for (String name : Log.ALL.split(",")) {
                run(name, rate, 1); // compiled before it counts
                Histogram times = run(name, rate, seconds);
                System.out.printf("%-22s %10d %10.2f %10.2f %10.2f %10.2f %10.2f%n", name, rate, us(times, 50), us(times, 99),
                        us(times, 99.9), us(times, 99.99), times.getMaxValue() / 1e3);
            }
        }
    }

    private static double us(Histogram times, double percentile) {
        return times.getValueAtPercentile(percentile) / 1e3;
    }

    private static Histogram run(String name, long rate, long seconds) throws Exception {
        Path directory = Log.scratch();
        Histogram times = new Histogram(3);
        try (Log log = Log.open(name, directory.resolve("log"), SIZE)) {
            long start = System.nanoTime();
            for (long i = 0; i < rate * seconds; i++) {
                long intended = start + i * 1_000_000_000 / rate;
                while (System.nanoTime() < intended) {
                    Thread.onSpinWait();
                }
                log.append();
                times.recordValue(System.nanoTime() - intended);
            }
        }
        Log.delete(directory);
        return times;
    }
}
