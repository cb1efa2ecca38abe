package mfq;

/**
 * The record is appended, but it is not known to be on stable storage. A host that blindly appends again writes twice.
 * The status is {@link Status#NOT_DURABLE} of an append or a commit, and what {@code mfq_flush} would have said of a
 * future ({@link Status#POISONED}, say); {@link Status#END} of a future whose record a truncation has cut off.
 */
public class NotDurableException extends MfqException {
    private static final long serialVersionUID = 1;

    private final Span at;

    public NotDurableException(Status status, int errno, String sentence, Span at) {
        super(status, errno, sentence);
        this.at = at;
    }

    /** Where the record lies. */
    public Span at() {
        return at;
    }
}
