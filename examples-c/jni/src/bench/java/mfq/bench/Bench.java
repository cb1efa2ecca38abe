package mfq.bench;

import java.io.IOException;
import java.io.InputStream;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.function.ToDoubleFunction;
import org.HdrHistogram.Histogram;
import org.HdrHistogram.HistogramIterationValue;
import org.openjdk.jmh.infra.BenchmarkParams;
import org.openjdk.jmh.results.RunResult;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.options.OptionsBuilder;

/**
 * Prints what appends cost beside RocketMQ's and Chronicle's, and whether that is what it should be. Arguments say what is
 * measured: {@code jmh} is throughput; a number is the rate a second at which single appends are timed, 0 for as fast as
 * they can be.
 */
final class Bench {
    private static final List<String> LOGS = List.of("memory", "raw-bytes", "raw-direct", "record-bytes", "record-direct",
            "record-claim", "rocketmq", "rocketmq-warm", "chronicle", "chronicle-pretouch");
    private static final List<String> PEERS = List.of("rocketmq", "rocketmq-warm");
    private static final int[] SIZES = {64, 1024, 4096};
    /**
     * Each in an order of its own: what one leaves for the disk to do is not always the same one's burden. So many that
     * two bad ones do not move a median.
     */
    private static final int ROUNDS = 5;
    private static final int SECONDS = 5;

    private Bench() {}

    public static void main(String[] arguments) throws Exception {
        for (String what : arguments) {
            if (what.equals("jmh")) {
                throughput();
            } else {
                times(Long.parseLong(what));
            }
        }
    }

    private static void throughput() throws Exception {
        Map<String, Map<Integer, List<Double>>> seconds = new LinkedHashMap<>();
        for (int round = 0; round < ROUNDS; round++) {
            for (RunResult result : new Runner(new OptionsBuilder().include(Append.class.getName() + ".append")
                    .param("log", inOrder(round).toArray(String[]::new))
                    .param("size", Arrays.stream(SIZES).mapToObj(Integer::toString).toArray(String[]::new))
                    .output(System.getProperty("mfq.bench", "target") + "/jmh-" + round + ".txt").build()).run()) {
                BenchmarkParams params = result.getParams();
                List<Double> of = seconds.computeIfAbsent(params.getParam("log"), log -> new TreeMap<>())
                        .computeIfAbsent(Integer.parseInt(params.getParam("size")), size -> new ArrayList<>());
                result.getBenchmarkResults().forEach(fork -> fork.getIterationResults()
                        .forEach(iteration -> of.add(iteration.getPrimaryResult().getScore())));
            }
        }
        System.out.printf("%nClosed loop (JMH): 2 GiB of records into files of 64 MiB%n%n"
                + "Mean time of an append, rolls and all, the median of %d runs; rate; and that beside the better of RocketMQ's two.%n%n%-20s",
                ROUNDS, "");
        for (int size : SIZES) {
            System.out.printf(" %39s", size + " B");
        }
        for (String log : LOGS) {
            System.out.printf("%n  %-18s", log);
            for (int size : SIZES) {
                double best = best(peer -> median(seconds.get(peer).get(size)));
                double took = median(seconds.get(log).get(size));
                System.out.printf(" %8.1f ns %5.2f GB/s %-17s", took * 1e9 / (Append.BYTES / size), Append.BYTES / took / 1e9,
                        verdict(log, best / took, size < 1024 ? 0 : 1));
            }
        }
        System.out.println();
    }

    private static void times(long rate) throws Exception {
        long count = rate == 0 ? Append.BYTES / Timed.SIZE : SECONDS * rate;
        Map<String, List<Histogram>> times = new LinkedHashMap<>();
        for (int round = 0; round < ROUNDS; round++) {
            for (String log : inOrder(round)) {
                times.computeIfAbsent(log, none -> new ArrayList<>()).add(timed(log, rate, count));
            }
        }
        System.out.printf("%n%s; each figure the median of %d runs%n%n%-20s %9s %9s %9s %9s %9s %9s %9s   RocketMQ's better / its own%n%90s   %-18s p99.99%n",
                rate == 0 ? "Closed loop: each append of 1 KiB among 2 GiB, in us"
                        : "Open loop: " + rate + " appends of 1 KiB a second, each from the moment it was meant for, in us",
                ROUNDS, "", "mean", "p50", "p99", "p99.9", "p99.99", "max", "worst*", "", "worst");
        double bestWorst = best(peer -> median(times.get(peer), Bench::worst));
        double best = best(peer -> median(times.get(peer), run -> us(run, 99.99)));
        for (String log : LOGS) {
            List<Histogram> of = times.get(log);
            double worst = median(of, Bench::worst), last = median(of, run -> us(run, 99.99));
            System.out.printf("  %-18s %9.2f %9.2f %9.2f %9.2f %9.2f %9.0f %9.0f   %-18s %s%n", log, median(of, run -> run.getMean() / 1e3),
                    median(of, run -> us(run, 50)), median(of, run -> us(run, 99)), median(of, run -> us(run, 99.9)), last,
                    median(of, run -> us(run, 100)), worst, verdict(log, bestWorst / worst, 10), verdict(log, best / last, 0));
        }
        System.out.printf("%n  * the mean of the worst 0.01 %%%n");
    }

    private static double worst(Histogram times) {
        long others = times.getTotalCount() - Math.max(1, times.getTotalCount() / 10_000);
        double sum = 0;
        for (HistogramIterationValue step : times.recordedValues()) {
            long beyond = Math.min(step.getCountAtValueIteratedTo(), step.getTotalCountToThisValue() - others);
            sum += Math.max(0, beyond) * (double) step.getValueIteratedTo();
        }
        return sum / (times.getTotalCount() - others) / 1e3;
    }

    /** In a JVM like this one. */
    private static Histogram timed(String log, long rate, long count) throws Exception {
        List<String> command = new ArrayList<>(List.of(ProcessHandle.current().info().command().orElse("java")));
        command.addAll(ManagementFactory.getRuntimeMXBean().getInputArguments());
        command.addAll(List.of("-cp", System.getProperty("java.class.path"), Timed.class.getName(), log, "" + rate, "" + count));
        Process process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.DISCARD).start();
        String[] said;
        try (InputStream output = process.getInputStream()) {
            said = new String(output.readAllBytes(), StandardCharsets.UTF_8).trim().split("\n");
        }
        if (process.waitFor() != 0) {
            throw new IOException(log + ": " + String.join("\n", said));
        }
        byte[] encoded = Base64.getDecoder().decode(said[said.length - 1]);
        return Histogram.decodeFromCompressedByteBuffer(ByteBuffer.wrap(encoded), 0);
    }

    private static List<String> inOrder(int round) {
        List<String> logs = new ArrayList<>(LOGS);
        Collections.shuffle(logs, new Random(round));
        return logs;
    }

    /** A ratio and what is wanted of it: nothing of others, nor if that is 0. */
    private static String verdict(String log, double ratio, double wanted) {
        if (log.equals("memory")) {
            return "";
        }
        boolean isOurs = log.startsWith("raw") || log.startsWith("record");
        String said = !isOurs || wanted == 0 ? "" : ratio >= wanted ? " meets  >= " + (int) wanted : " MISSES >= " + (int) wanted;
        return String.format("%.2f%s", ratio, said);
    }

    /** Of RocketMQ's two. */
    private static double best(ToDoubleFunction<String> time) {
        return PEERS.stream().mapToDouble(time).min().getAsDouble();
    }

    private static double median(List<Histogram> runs, ToDoubleFunction<Histogram> time) {
        return median(runs.stream().mapToDouble(time).boxed().toList());
    }

    /** Of an even number the lower one in the middle. */
    private static double median(List<Double> of) {
        return of.stream().sorted().skip((of.size() - 1) / 2).findFirst().orElseThrow();
    }

    private static double us(Histogram times, double percentile) {
        return times.getValueAtPercentile(percentile) / 1e3;
    }
}
