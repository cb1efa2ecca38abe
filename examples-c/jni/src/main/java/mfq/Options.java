package mfq;

import static java.util.Objects.requireNonNull;

/**
 * What a queue is opened with. Immutable; {@code mfq_options_t} explains each, and what is not set has the library's
 * default. {@link Builder#build} refuses negative numbers where C has none, with an {@link IllegalArgumentException};
 * {@link MappedFileQueue#open} refuses what else makes no sense, with the library's sentence.
 */
public final class Options {
    public enum Format { RECORD, RAW }

    public enum Filler { ZERO, ROCKETMQ }

    public enum Mode { MMAP, STAGED }

    public enum FlushPolicy { NONE, INTERVAL, LEAST_PAGES, EVERY_APPEND }

    public static final Options DEFAULT = builder().build();

    private static final int EXISTING = 1, READ_ONLY = 2, NO_WAIT = 4, ADOPT = 8, STRICT = 16, SALVAGE = 32,
            LOCK_POOL = 64, POOL_FAIL_FAST = 128, NETWORK = 256;

    final Format format;
    final Mode mode;
    /** In the order in which the glue takes them. */
    private final long[] numbers;

    private Options(Builder from) {
        format = from.format;
        mode = from.mode;
        numbers = new long[] {from.fileSize, from.startOffset, from.format.ordinal(), from.filler.ordinal(),
            from.mode.ordinal(), from.flushPolicy.ordinal(), from.flushIntervalMs,
            unsigned("flushLeastPages", from.flushLeastPages), from.appendTimeoutMs,
            unsigned("filesAhead", from.filesAhead), unsigned("poolBuffers", from.poolBuffers), from.commitIntervalMs,
            unsigned("permissions", from.permissions), from.flags, from.walkRocketMq ? 1 : 0};
    }

    /** C would take a negative number for a large one. */
    private static long unsigned(String name, int value) {
        if (value < 0) {
            throw new IllegalArgumentException(name + ": " + value + " is negative");
        }
        return value;
    }

    long[] numbers() {
        return numbers.clone();
    }

    public static Builder builder() {
        return new Builder();
    }

    /** Not for use by several threads at once. */
    public static final class Builder {
        private long fileSize, startOffset;
        private Format format = Format.RECORD;
        private Filler filler = Filler.ZERO;
        private Mode mode = Mode.MMAP;
        private FlushPolicy flushPolicy = FlushPolicy.NONE;
        private int flushIntervalMs, flushLeastPages, appendTimeoutMs, filesAhead, poolBuffers, commitIntervalMs;
        private int permissions, flags;
        private boolean walkRocketMq;

        private Builder() {}

        /** Bytes of one file; 0: 64 MiB for a new queue, what it has for an old one. */
        public Builder fileSize(long bytes) {
            fileSize = bytes;
            return this;
        }

        /** Of a new queue: where its first file begins. */
        public Builder startOffset(long offset) {
            startOffset = offset;
            return this;
        }

        public Builder format(Format of) {
            format = requireNonNull(of, "format");
            return this;
        }

        /** RAW: what fills the rest of a full file. */
        public Builder filler(Filler of) {
            filler = requireNonNull(of, "filler");
            return this;
        }

        public Builder mode(Mode of) {
            mode = requireNonNull(of, "mode");
            return this;
        }

        public Builder flushPolicy(FlushPolicy of) {
            flushPolicy = requireNonNull(of, "flushPolicy");
            return this;
        }

        /** 0: 500. */
        public Builder flushIntervalMs(int ms) {
            flushIntervalMs = ms;
            return this;
        }

        /** 0: 4. */
        public Builder flushLeastPages(int pages) {
            flushLeastPages = pages;
            return this;
        }

        /** How long an append may wait for a file; 0: 5,000, negative: for ever. */
        public Builder appendTimeoutMs(int ms) {
            appendTimeoutMs = ms;
            return this;
        }

        /** 0: as many as the writer fills in a second, at least 2 and at most 8; in STAGED 2. */
        public Builder filesAhead(int files) {
            filesAhead = files;
            return this;
        }

        /** STAGED; 0: 5. */
        public Builder poolBuffers(int buffers) {
            poolBuffers = buffers;
            return this;
        }

        /** STAGED; 0: 200. */
        public Builder commitIntervalMs(int ms) {
            commitIntervalMs = ms;
            return this;
        }

        /** Of files that are created, as in chmod; 0: 0600. */
        public Builder permissions(int mode) {
            permissions = mode;
            return this;
        }

        /** Do not create. */
        public Builder existing() {
            return flag(EXISTING);
        }

        public Builder readOnly() {
            return flag(READ_ONLY);
        }

        /** An append that finds no file ready does not wait for it. */
        public Builder noWait() {
            return flag(NO_WAIT);
        }

        /** RAW: a directory of data files that another system wrote becomes a queue. */
        public Builder adopt() {
            return flag(ADOPT);
        }

        public Builder strict() {
            return flag(STRICT);
        }

        public Builder salvage() {
            return flag(SALVAGE);
        }

        public Builder lockPool() {
            return flag(LOCK_POOL);
        }

        public Builder poolFailFast() {
            return flag(POOL_FAIL_FAST);
        }

        public Builder network() {
            return flag(NETWORK);
        }

        /** RAW: the end is found by walking over RocketMQ's messages ({@code mfq_walk_rocketmq}). */
        public Builder walkRocketMq() {
            walkRocketMq = true;
            return this;
        }

        public Options build() {
            return new Options(this);
        }

        private Builder flag(int flag) {
            flags |= flag;
            return this;
        }
    }
}
