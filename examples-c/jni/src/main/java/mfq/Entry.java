package mfq;

/** A copy of a record, and where to read next. The array is the caller's. */
public record Entry(byte[] bytes, long next) {}
