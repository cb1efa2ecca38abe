package mfq;

/** A call of the library failed. Its message is the library's own sentence, which names the argument, file or offset. */
public class MfqException extends RuntimeException {
    private static final long serialVersionUID = 1;

    private final Status status;
    private final int errno;

    public MfqException(Status status, int errno, String sentence) {
        super(sentence);
        this.status = status;
        this.errno = errno;
    }

    public Status status() {
        return status;
    }

    /** The system's error number; 0 if no system call was the reason. */
    public int errno() {
        return errno;
    }
}
