package mfq;

import java.lang.ref.Cleaner;
import java.util.concurrent.atomic.AtomicBoolean;

/** The safety net: what a host has forgotten to close is closed when nothing refers to it any more, and is reported. */
final class Leaks {
    static final Cleaner CLEANER = Cleaner.create();

    private static final System.Logger LOG = System.getLogger("mfq");

    private Leaks() {}

    /** The end of one thing, which comes once. */
    static final class End {
        private final AtomicBoolean come = new AtomicBoolean();
        private final Cleaner.Cleanable cleanable;
        private final Runnable close;

        /** {@code close} must not refer to {@code of}. */
        End(Object of, String what, Object where, Runnable close) {
            this.close = close;
            AtomicBoolean come = this.come;
            cleanable = CLEANER.register(of, () -> {
                if (come.compareAndSet(false, true)) {
                    LOG.log(System.Logger.Level.WARNING, "{0} {1} was never closed; it is now", what, String.valueOf(where));
                    try {
                        close.run();
                    } catch (RuntimeException | Error failed) {
                        LOG.log(System.Logger.Level.ERROR, what + " " + where + ": its close failed", failed);
                    }
                }
            });
        }

        boolean hasCome() {
            return come.get();
        }

        /** Closes it, if nobody has; waits for another thread that is about it. */
        synchronized void close() {
            if (come()) {
                close.run();
            }
        }

        /** It has come to its end in another way; whether that is the first. */
        boolean come() {
            boolean first = come.compareAndSet(false, true);
            if (first) {
                cleanable.clean();
            }
            return first;
        }
    }
}
