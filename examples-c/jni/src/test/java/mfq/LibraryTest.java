package mfq;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.lang.ref.WeakReference;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class LibraryTest {
    @TempDir Path dir;

    /** What the tests below run in a JVM of their own. */
    static final class Loads {
        public static void main(String[] arguments) throws IOException {
            try {
                System.out.println(MappedFileQueue.libraryVersion());
            } catch (UnsatisfiedLinkError failed) {
                System.out.println(failed.getMessage());
            }
            Path extracted = Path.of(System.getProperty("java.io.tmpdir"));
            if (Files.exists(extracted)) {
                try (Stream<Path> left = Files.list(extracted)) {
                    System.out.println(left.filter(path -> path.getFileName().toString().startsWith("mfq")).toList());
                }
            }
        }
    }

    private String loads(String... options) throws Exception {
        return Support.output(Support.jvm(List.of(options), Loads.class));
    }

    private static Path library() throws Exception {
        return Path.of(Library.class.getResource("linux-" + System.getProperty("os.arch") + "/libmfqjni.so").toURI());
    }

    @Test
    void theLibraryIsExtractedAndNothingIsLeftOfIt() throws Exception {
        assertEquals("0.1.0\n[]\n", loads("-Djava.io.tmpdir=" + dir));
        Path relative = Path.of("").toAbsolutePath().relativize(dir);
        assertEquals("0.1.0\n[]\n", loads("-Djava.io.tmpdir=" + relative));
    }

    @Test
    void theLibraryPathComesFirst() throws Exception {
        Path path = Files.createDirectory(dir.resolve("path"));
        Files.writeString(path.resolve("libmfqjni.so"), "no library");
        // A bad one is passed over, a good one makes the jar's superfluous.
        assertTrue(loads("-Djava.library.path=" + path, "-Djava.io.tmpdir=" + dir).endsWith("0.1.0\n[]\n"));
        // So is another library of that name.
        Path foreign = Path.of(System.getProperty("java.home"), "lib/libprefs.so");
        Files.copy(foreign, path.resolve("libmfqjni.so"), StandardCopyOption.REPLACE_EXISTING);
        assertTrue(loads("-Djava.library.path=" + path, "-Djava.io.tmpdir=" + dir).endsWith("0.1.0\n[]\n"));
        String said = loads("-Djava.library.path=" + path, "-Djava.io.tmpdir=" + dir, "-Dos.arch=none");
        assertTrue(said.contains("java.library.path=" + path) && said.contains("mfq.Native.version()"), said);
        Files.delete(path.resolve("libmfqjni.so"));
        Files.copy(library(), path.resolve("libmfqjni.so"));
        assertEquals("0.1.0\n[]\n", loads("-Djava.library.path=" + path, "-Djava.io.tmpdir=" + path, "-Dos.arch=none"));
    }

    /** One that a plug-in was loaded with, say: what the library keeps does not keep it. */
    @Test
    void aClassLoaderThatNobodyRefersToIsUnloaded() throws Exception {
        WeakReference<ClassLoader> loader = new WeakReference<>(usedLoader());
        Support.until(() -> {
            System.gc();
            return loader.get() == null;
        }, "the class loader goes");
    }

    private ClassLoader usedLoader() throws Exception {
        URL classes = Library.class.getProtectionDomain().getCodeSource().getLocation();
        ClassLoader loader = new URLClassLoader(new URL[] {classes}, ClassLoader.getPlatformClassLoader());
        Class<?> queues = loader.loadClass("mfq.MappedFileQueue");
        try (AutoCloseable queue = (AutoCloseable) queues.getMethod("open", Path.class).invoke(null, dir.resolve("queue"))) {
            queues.getMethod("append", byte[].class).invoke(queue, new byte[8]);
        }
        return loader;
    }

    @Test
    void whereNoneIsFoundTheMessageNamesEveryPlace() throws Exception {
        String said = loads("-Djava.library.path=" + dir, "-Dos.arch=none");
        assertTrue(said.contains("java.library.path") && said.contains(dir.toString())
                && said.contains("/mfq/linux-none/libmfqjni.so"), said);
        said = loads("-Djava.library.path=" + dir, "-Djava.io.tmpdir=" + dir.resolve("not there"));
        assertTrue(said.contains("java.io.tmpdir=" + dir.resolve("not there")), said);
    }
}
