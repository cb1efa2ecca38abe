package mfq;

import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** Finds the native library: on {@code java.library.path}, then inside the jar. */
final class Library {
    private static final String NAME = "mfqjni";

    private Library() {}

    static void load() {
        List<String> tried = new ArrayList<>();
        try {
            System.loadLibrary(NAME);
            // Another library of that name would be found out in the first call only.
            Native.version();
            return;
        } catch (UnsatisfiedLinkError failed) {
            tried.add("java.library.path=" + System.getProperty("java.library.path") + ": " + failed.getMessage());
        }
        String resource = "linux-" + System.getProperty("os.arch") + "/" + System.mapLibraryName(NAME);
        try (InputStream library = Library.class.getResourceAsStream(resource)) {
            if (library != null) {
                loadExtracted(library);
                return;
            }
            tried.add("in the jar: there is no /mfq/" + resource);
        } catch (IOException | UnsatisfiedLinkError failed) {
            tried.add("/mfq/" + resource + " of the jar, extracted below java.io.tmpdir="
                    + System.getProperty("java.io.tmpdir") + ": " + failed);
        }
        throw new UnsatisfiedLinkError(System.mapLibraryName(NAME) + " was not found; tried " + String.join("; ", tried));
    }

    /** To a directory that only this user can enter (mode 0700); both are gone once the library is loaded. */
    private static void loadExtracted(InputStream library) throws IOException {
        // java.io.tmpdir may be relative, and System.load wants a whole path.
        Path directory = Files.createTempDirectory("mfq").toAbsolutePath();
        Path file = directory.resolve(System.mapLibraryName(NAME));
        try {
            Files.copy(library, file);
            System.load(file.toString());
        } finally {
            Files.deleteIfExists(file);
            Files.delete(directory);
        }
    }
}
