package mfq;

/** The time given was not enough. Nothing was done and nothing is broken: the call can be made again. */
public class MfqTimeoutException extends MfqException {
    private static final long serialVersionUID = 1;

    public MfqTimeoutException(int errno, String sentence) {
        super(Status.TIMEOUT, errno, sentence);
    }
}
