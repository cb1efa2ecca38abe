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
 * The time of 2 GiB of appends in a closed loop, 31 rolls or more among them. So much and no more: what a loop dirties
 * without an end is soon as fast as the disk. Each time has a directory of its own, which is removed after it.
 */
@State(Scope.Thread)
@BenchmarkMode(Mode.SingleShotTime)
@OutputTimeUnit(TimeUnit.SECONDS)
@Warmup(iterations = 1)
@Measurement(iterations = 1)
@Fork(1)
public class Append {
    static final long BYTES = 2L << 30;

    @Param("memory")
    public String log;

    @Param("1024")
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
        long last = 0;
        for (long left = BYTES / size; left > 0; left--) {
            last = opened.append();
        }
        return last;
    }
}
