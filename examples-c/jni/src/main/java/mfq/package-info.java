/** libmfq for Java: a queue of memory-mapped files, through JNI. {@link mfq.MappedFileQueue} is where to begin. */
package mfq;
