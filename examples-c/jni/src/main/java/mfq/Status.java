package mfq;

/** What a call answered: the {@code MFQ_E_...} of {@code mfq.h}, where each is explained. */
public enum Status {
    OK, INVALID, TIMEOUT, END, NOT_FOUND, TOO_LARGE, NO_SPACE, NO_MEMORY, IO, CORRUPT, LOCKED, CLOSED, BUSY, READ_ONLY,
    VERSION, UNSUPPORTED, NOT_DURABLE, POISONED, PANIC, FORKED, REENTRANT,
    /** A number that this package does not know, as the library is newer; the message begins with it. */
    OTHER;

    static Status of(int number) {
        return number <= 0 && -number < OTHER.ordinal() ? values()[-number] : OTHER;
    }
}
