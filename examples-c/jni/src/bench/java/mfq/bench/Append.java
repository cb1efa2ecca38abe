package mfq.bench;

import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/**
 * Appends in a closed loop, rolls among them: throughput, and the time of single appends with its percentiles. Each iteration
 * has a directory of its own, which is removed after it.
 */
@State(Scope.Thread)
@BenchmarkMode({Mode.Throughput, Mode.SampleTime})
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 2)
@Fork(1)
public class Append {
    @Param({"mfq-bytes", "mfq-direct", "mfq-claim", "mfq-raw-direct", "rocketmq", "rocketmq-warm", "chronicle",
        "chronicle-pretouch"})
    public String log;

    @Param({"64", "1024", "4096"})
    public int size;

    private Path directory;
    private Log opened;

    @Setup(Level.Iteration)
    public void open() throws Exception {
        directory = Log.scratch();
        opened = Log.open(log, directory.resolve("log"), size);
    }

    @TearDown(Level.Iteration)
    public void close() throws Exception {
        opened.close();
        Log.delete(directory);
    }

    @Benchmark
    public long append() throws Exception {
        return opened.append();
    }
}
