package mfq;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.function.BooleanSupplier;
import java.util.stream.Stream;
import org.junit.jupiter.api.function.Executable;

/** What the tests share. */
final class Support {
    static final int GENEROUS_MS = 60_000;
    static final long KIB = 1024;

    private Support() {}

    /** Real input: the lines of this project's README. */
    static List<byte[]> lines() {
        try (Stream<String> lines = Files.lines(Path.of(System.getProperty("mfq.input")))) {
            return lines.map(String::getBytes).toList();
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }

    static Options.Builder small() {
        return Options.builder().fileSize(64 * KIB);
    }

    static Options.Builder raw() {
        return small().format(Options.Format.RAW);
    }

    /** The call fails with this status, and its sentence holds the word. */
    static MfqException fails(Status status, String word, Executable call) {
        MfqException failed = assertThrows(MfqException.class, call);
        assertEquals(status, failed.status(), failed.getMessage());
        assertTrue(failed.getMessage().contains(word), failed.getMessage());
        return failed;
    }

    /** Waits for something that no event tells of, and does not wait for ever. */
    static void until(BooleanSupplier so, String what) throws InterruptedException {
        long deadline = System.nanoTime() + GENEROUS_MS * 1_000_000L;
        while (!so.getAsBoolean()) {
            assertTrue(System.nanoTime() < deadline, what);
            Thread.sleep(1);
        }
    }

    /** Waits until the thread sleeps in a native method: it is not only on its way to it. */
    static void untilAsleepIn(String method, Thread thread) throws InterruptedException {
        until(() -> {
            StackTraceElement[] stack = thread.getStackTrace();
            return stack.length > 0 && stack[0].getMethodName().equals(method) && isAsleep(thread.getName());
        }, thread.getName() + " in " + method);
    }

    private static boolean isAsleep(String name) {
        try (Stream<Path> tasks = Files.list(Path.of("/proc/self/task"))) {
            for (Path task : tasks.toList()) {
                String stat = Files.readString(task.resolve("stat"));
                if (stat.contains("(" + name + ") S")) {
                    return true;
                }
            }
            return false;
        } catch (IOException ended) {
            return false;
        }
    }

    static void delete(Path directory) throws IOException {
        try (Stream<Path> all = Files.walk(directory)) {
            all.sorted(Comparator.reverseOrder()).map(Path::toFile).forEach(File::delete);
        }
    }

    /** A JVM of its own, under -Xcheck:jni, with these options and then a class and its arguments. */
    static ProcessBuilder jvm(List<String> options, Class<?> main, Object... arguments) {
        List<String> command = new ArrayList<>(List.of(Path.of(System.getProperty("java.home"), "bin/java").toString(),
                "-Xcheck:jni", "-Xmx256m", "-XX:TieredStopAtLevel=1"));
        command.addAll(options);
        command.addAll(List.of("-cp", System.getProperty("java.class.path"), main.getName()));
        Stream.of(arguments).map(Object::toString).forEach(command::add);
        return new ProcessBuilder(command).redirectErrorStream(true);
    }

    /** Runs one to its end, and tells what it said, without a warning of -Xcheck:jni in it. */
    static String output(ProcessBuilder builder) throws IOException, InterruptedException {
        Process process = builder.start();
        String said = new String(process.getInputStream().readAllBytes());
        assertEquals(0, process.waitFor(), said);
        isWithoutWarnings(said);
        return said;
    }

    static void isWithoutWarnings(String said) {
        assertTrue(said.lines().noneMatch(line -> line.startsWith("WARNING")), said);
    }
}
