/* The glue between mfq.Native and libmfq: decode, call, encode. It keeps nothing: every handle goes to Java as a number, and the
 * library itself knows which ones have ended. No native thread ever attaches to the JVM. */

#include <jni.h>
#include <mfq.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mfq_Native.h"

/* What is copied out of the Java heap lies on the stack up to here, and beyond it in memory of its own. It is copied, and not
 * pinned by GetPrimitiveArrayCritical: an append may wait for a file, and the garbage collector would wait for it. */
#define STACK_BYTES 16384

/* No reference to mfq.Native is kept, so that its class loader can go; every call comes with one. */
static jmethodID failure_method;
static jfieldID address_field;

JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM *vm, void *reserved) {
  (void)reserved;
  JNIEnv *env;
  if ((*vm)->GetEnv(vm, (void **)&env, JNI_VERSION_1_8) != JNI_OK) return JNI_ERR;
  jclass native = (*env)->FindClass(env, "mfq/Native");
  if (native == NULL) return JNI_ERR;
  failure_method = (*env)->GetStaticMethodID(env, native, "failure", "(II[BJJ)Lmfq/MfqException;");
  if (failure_method == NULL) return JNI_ERR;
  jclass buffer = (*env)->FindClass(env, "java/nio/Buffer");
  if (buffer == NULL) return JNI_ERR;
  address_field = (*env)->GetFieldID(env, buffer, "address", "J");
  if (address_field == NULL) (*env)->ExceptionClear(env);
  return JNI_VERSION_1_8;
}

/* ---- failures ------------------------------------------------------------------------------------------------------ */

static void throw_saying(JNIEnv *env, jclass type, mfq_status_t status, int32_t cause, const char *text, mfq_span_t at) {
  jsize len = (jsize)strlen(text);
  jbyteArray sentence = (*env)->NewByteArray(env, len);
  if (sentence == NULL) return;
  (*env)->SetByteArrayRegion(env, sentence, 0, len, (const jbyte *)text);
  jobject failure = (*env)->CallStaticObjectMethod(env, type, failure_method, (jint)status, (jint)cause, sentence,
                                                   (jlong)at.offset, (jlong)at.end);
  if ((*env)->ExceptionCheck(env)) return;
  (*env)->Throw(env, (jthrowable)failure);
}

static void throw_at(JNIEnv *env, jclass type, mfq_status_t status, mfq_span_t at) {
  char text[512];
  mfq_last_error(text, sizeof text);
  throw_saying(env, type, status, mfq_last_errno(), text, at);
}

/* Whether the call has succeeded; else its exception waits in Java. */
static bool check(JNIEnv *env, jclass type, mfq_status_t status) {
  if (status < 0) throw_at(env, type, status, (mfq_span_t){0, 0});
  return status >= 0;
}

static void throw_no_memory(JNIEnv *env, const char *what) {
  jclass type = (*env)->FindClass(env, "java/lang/OutOfMemoryError");
  if (type != NULL) (*env)->ThrowNew(env, type, what);
}

static jlong end_or_throw(JNIEnv *env, jclass type, mfq_status_t status, mfq_span_t at) {
  if (status < 0) throw_at(env, type, status, at);
  return (jlong)at.end;
}

/* ---- numbers ------------------------------------------------------------------------------------------------------- */

static jlong from_pointer(const void *pointer) { return (jlong)(intptr_t)pointer; }
static void *to_pointer(jlong number) { return (void *)(intptr_t)number; }
static mfq_queue_t *to_queue(jlong number) { return to_pointer(number); }
static mfq_reader_t *to_reader(jlong number) { return to_pointer(number); }
static mfq_file_t *to_file(jlong number) { return to_pointer(number); }

/* Of a direct buffer. The field is the JDK's own; where it is called so, HotSpot reads it without leaving native code, while
 * GetDirectBufferAddress costs more than the copy of 1 KiB. */
static char *address_of(JNIEnv *env, jobject direct) {
  return address_field != NULL ? to_pointer((*env)->GetLongField(env, direct, address_field))
                               : (*env)->GetDirectBufferAddress(env, direct);
}

#define COUNT(array) ((jsize)(sizeof(array) / sizeof *(array)))

static void encode(JNIEnv *env, jlongArray to, const jlong *numbers, jsize count) {
  (*env)->SetLongArrayRegion(env, to, 0, count, numbers);
}

static void encode_view(JNIEnv *env, jlongArray to, const mfq_view_t *view) {
  jlong numbers[] = {from_pointer(view->ptr), (jlong)view->len,      (jlong)view->offset,  (jlong)view->end,
                     view->time_ms,           (jlong)view->token[0], (jlong)view->token[1]};
  encode(env, to, numbers, COUNT(numbers));
}

static mfq_claim_t decode_claim(JNIEnv *env, jlongArray from) {
  jlong numbers[5];
  (*env)->GetLongArrayRegion(env, from, 0, COUNT(numbers), numbers);
  return (mfq_claim_t){to_pointer(numbers[0]), (size_t)numbers[1], (uint64_t)numbers[2],
                       {(uint64_t)numbers[3], (uint64_t)numbers[4]}};
}

/* ---- the library --------------------------------------------------------------------------------------------------- */

JNIEXPORT void JNICALL Java_mfq_Native_installSigbusGuard(JNIEnv *env, jclass type) {
  check(env, type, mfq_install_sigbus_guard());
}

JNIEXPORT jstring JNICALL Java_mfq_Native_version(JNIEnv *env, jclass type) {
  (void)type;
  return (*env)->NewStringUTF(env, mfq_version());
}

/* ---- a queue and its files ----------------------------------------------------------------------------------------- */

JNIEXPORT jlong JNICALL Java_mfq_Native_open(JNIEnv *env, jclass type, jbyteArray path, jlongArray from) {
  jlong of[15];
  mfq_options_t options;
  (*env)->GetLongArrayRegion(env, from, 0, COUNT(of), of);
  if ((*env)->ExceptionCheck(env)) return 0;
  mfq_options_init(&options, sizeof options);
  options.file_size = (uint64_t)of[0];
  options.start_offset = (uint64_t)of[1];
  options.format = (uint32_t)of[2];
  options.filler = (uint32_t)of[3];
  options.mode = (uint32_t)of[4];
  options.flush_policy = (uint32_t)of[5];
  options.flush_interval_ms = (int32_t)of[6];
  options.flush_least_pages = (uint32_t)of[7];
  options.append_timeout_ms = (int32_t)of[8];
  options.files_ahead = (uint32_t)of[9];
  options.pool_buffers = (uint32_t)of[10];
  options.commit_interval_ms = (int32_t)of[11];
  options.permissions = (uint32_t)of[12];
  options.flags = (uint32_t)of[13];
  options.walk = of[14] ? mfq_walk_rocketmq : NULL;

  jsize len = (*env)->GetArrayLength(env, path);
  char *name = malloc((size_t)len + 1);
  if (name == NULL) {
    throw_no_memory(env, "a path");
    return 0;
  }
  (*env)->GetByteArrayRegion(env, path, 0, len, (jbyte *)name);
  name[len] = 0;
  mfq_queue_t *queue = NULL;
  mfq_status_t status = mfq_open(name, &options, &queue);
  free(name);
  check(env, type, status);
  return from_pointer(queue);
}

JNIEXPORT void JNICALL Java_mfq_Native_close(JNIEnv *env, jclass type, jlong queue) {
  check(env, type, mfq_close(to_queue(queue)));
}

JNIEXPORT jlong JNICALL Java_mfq_Native_getLast(JNIEnv *env, jclass type, jlong queue, jint timeout_ms) {
  mfq_file_t *file = NULL;
  check(env, type, mfq_get_last(to_queue(queue), timeout_ms, &file));
  return from_pointer(file);
}

JNIEXPORT jlong JNICALL Java_mfq_Native_find(JNIEnv *env, jclass type, jlong queue, jlong offset) {
  mfq_file_t *file = NULL;
  check(env, type, mfq_find(to_queue(queue), (uint64_t)offset, &file));
  return from_pointer(file);
}

JNIEXPORT void JNICALL Java_mfq_Native_fileInfo(JNIEnv *env, jclass type, jlong file, jlongArray to) {
  mfq_file_info_t info = {.struct_size = sizeof info};
  if (!check(env, type, mfq_file_info(to_file(file), &info))) return;
  jlong numbers[] = {(jlong)info.start, (jlong)info.size, (jlong)info.wrote, (jlong)info.committed,
                     (jlong)info.flushed};
  encode(env, to, numbers, COUNT(numbers));
}

JNIEXPORT void JNICALL Java_mfq_Native_fileRelease(JNIEnv *env, jclass type, jlong file) {
  check(env, type, mfq_file_release(to_file(file)));
}

JNIEXPORT jobject JNICALL Java_mfq_Native_fileMemory(JNIEnv *env, jclass type, jlong file) {
  mfq_slice_t memory;
  if (!check(env, type, mfq_file_memory(to_file(file), &memory))) return NULL;
  /* Writable, as claims are parts of it. */
  jobject buffer = (*env)->NewDirectByteBuffer(env, (void *)memory.ptr, (jlong)memory.len);
  if (buffer == NULL && !(*env)->ExceptionCheck(env)) throw_no_memory(env, "a file's buffer");
  return buffer;
}

JNIEXPORT jlong JNICALL Java_mfq_Native_address(JNIEnv *env, jclass type, jobject direct) {
  (void)type;
  return from_pointer(address_of(env, direct));
}

JNIEXPORT void JNICALL Java_mfq_Native_copy(JNIEnv *env, jclass type, jlong address, jobject to, jint len) {
  (void)type;
  memcpy(address_of(env, to), to_pointer(address), (size_t)len);
}

/* ---- appending ----------------------------------------------------------------------------------------------------- */

JNIEXPORT jlong JNICALL Java_mfq_Native_append(JNIEnv *env, jclass type, jlong queue, jbyteArray bytes, jint from,
                                               jint len) {
  jbyte on_stack[STACK_BYTES];
  jbyte *copy = len <= STACK_BYTES ? on_stack : malloc((size_t)len);
  if (copy == NULL) {
    throw_no_memory(env, "a record's copy");
    return 0;
  }
  mfq_span_t at = {0, 0};
  (*env)->GetByteArrayRegion(env, bytes, from, len, copy);
  mfq_status_t status = mfq_append(to_queue(queue), copy, (size_t)len, &at);
  if (copy != on_stack) free(copy);
  return end_or_throw(env, type, status, at);
}

JNIEXPORT jlong JNICALL Java_mfq_Native_appendDirect(JNIEnv *env, jclass type, jlong queue, jobject bytes, jint from,
                                                     jint len) {
  const char *start = address_of(env, bytes);
  mfq_span_t at = {0, 0};
  return end_or_throw(env, type, mfq_append(to_queue(queue), start == NULL ? NULL : start + from, (size_t)len, &at), at);
}

JNIEXPORT void JNICALL Java_mfq_Native_appendBatch(JNIEnv *env, jclass type, jlong queue, jbyteArray bytes,
                                                   jintArray lengths, jlongArray to) {
  jsize count = (*env)->GetArrayLength(env, lengths), len = (*env)->GetArrayLength(env, bytes);
  jbyte *copy = malloc((size_t)len + 1);
  jint *each = calloc((size_t)count + 1, sizeof *each);
  mfq_slice_t *records = calloc((size_t)count + 1, sizeof *records);
  mfq_span_t *at = calloc((size_t)count + 1, sizeof *at);
  if (copy == NULL || each == NULL || records == NULL || at == NULL) {
    throw_no_memory(env, "a batch's copy");
  } else {
    (*env)->GetByteArrayRegion(env, bytes, 0, len, copy);
    (*env)->GetIntArrayRegion(env, lengths, 0, count, each);
    const jbyte *next = copy;
    for (jsize i = 0; i < count; next += each[i++]) records[i] = (mfq_slice_t){next, (size_t)each[i]};
    mfq_status_t status = mfq_append_batch(to_queue(queue), records, (size_t)count, at);
    if (status < 0) throw_at(env, type, status, count > 0 ? (mfq_span_t){at[0].offset, at[count - 1].end} : (mfq_span_t){0, 0});
    /* A span is an offset and an end, and so is it in Java. */
    else (*env)->SetLongArrayRegion(env, to, 0, 2 * count, (const jlong *)(const void *)at);
  }
  free(copy), free(each), free(records), free(at);
}

JNIEXPORT void JNICALL Java_mfq_Native_claim(JNIEnv *env, jclass type, jlong queue, jint len, jlongArray to) {
  mfq_claim_t claim;
  if (!check(env, type, mfq_claim(to_queue(queue), (size_t)len, &claim))) return;
  jlong numbers[] = {from_pointer(claim.ptr), (jlong)claim.len, (jlong)claim.offset, (jlong)claim.token[0],
                     (jlong)claim.token[1]};
  encode(env, to, numbers, COUNT(numbers));
}

JNIEXPORT jlong JNICALL Java_mfq_Native_commit(JNIEnv *env, jclass type, jlongArray from, jint len, jobject bytes) {
  mfq_claim_t claim = decode_claim(env, from);
  mfq_span_t at = {0, 0};
  if (bytes != NULL && len >= 0 && (size_t)len <= claim.len)
    memcpy(claim.ptr, address_of(env, bytes), (size_t)len);
  return end_or_throw(env, type, mfq_commit(&claim, (size_t)len, &at), at);
}

JNIEXPORT void JNICALL Java_mfq_Native_abort(JNIEnv *env, jclass type, jlongArray from) {
  mfq_claim_t claim = decode_claim(env, from);
  check(env, type, mfq_abort(&claim));
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

JNIEXPORT void JNICALL Java_mfq_Native_readDirect(JNIEnv *env, jclass type, jlong queue, jlong offset, jobject into,
                                                  jint at, jint cap, jlongArray to) {
  char *start = address_of(env, into);
  size_t len;
  uint64_t next;
  char *buf = start == NULL ? NULL : start + at;
  if (!check(env, type, mfq_read(to_queue(queue), (uint64_t)offset, buf, (size_t)cap, &len, &next))) return;
  jlong numbers[] = {(jlong)len, (jlong)next};
  encode(env, to, numbers, COUNT(numbers));
}

JNIEXPORT void JNICALL Java_mfq_Native_view(JNIEnv *env, jclass type, jlong queue, jlong offset, jlongArray to) {
  mfq_view_t view;
  if (check(env, type, mfq_view(to_queue(queue), (uint64_t)offset, &view))) encode_view(env, to, &view);
}

JNIEXPORT void JNICALL Java_mfq_Native_viewRelease(JNIEnv *env, jclass type, jlongArray from) {
  jlong of[7];
  (*env)->GetLongArrayRegion(env, from, 0, COUNT(of), of);
  mfq_view_t view = {to_pointer(of[0]), (size_t)of[1],  (uint64_t)of[2],
                     (uint64_t)of[3],   (int64_t)of[4], {(uint64_t)of[5], (uint64_t)of[6]}};
  check(env, type, mfq_view_release(&view));
}

JNIEXPORT jlong JNICALL Java_mfq_Native_readerOpen(JNIEnv *env, jclass type, jlong queue, jlong offset) {
  mfq_reader_t *reader = NULL;
  check(env, type, mfq_reader_open(to_queue(queue), (uint64_t)offset, &reader));
  return from_pointer(reader);
}

JNIEXPORT void JNICALL Java_mfq_Native_readerNext(JNIEnv *env, jclass type, jlong reader, jint timeout_ms, jlongArray to) {
  mfq_view_t view;
  if (check(env, type, mfq_reader_next(to_reader(reader), timeout_ms, &view))) encode_view(env, to, &view);
}

JNIEXPORT void JNICALL Java_mfq_Native_readerSeek(JNIEnv *env, jclass type, jlong reader, jlong offset) {
  check(env, type, mfq_reader_seek(to_reader(reader), (uint64_t)offset));
}

JNIEXPORT void JNICALL Java_mfq_Native_readerClose(JNIEnv *env, jclass type, jlong reader) {
  check(env, type, mfq_reader_close(to_reader(reader)));
}

/* ---- offsets and durability ---------------------------------------------------------------------------------------- */

JNIEXPORT void JNICALL Java_mfq_Native_flush(JNIEnv *env, jclass type, jlong queue, jlong up_to, jint timeout_ms) {
  check(env, type, mfq_flush(to_queue(queue), (uint64_t)up_to, timeout_ms));
}

JNIEXPORT void JNICALL Java_mfq_Native_flushStart(JNIEnv *env, jclass type, jlong queue, jlong up_to) {
  check(env, type, mfq_flush_start(to_queue(queue), (uint64_t)up_to));
}

JNIEXPORT void JNICALL Java_mfq_Native_await(JNIEnv *env, jclass type, jlong queue, jint which, jlong offset,
                                             jint timeout_ms) {
  check(env, type, mfq_wait(to_queue(queue), which, (uint64_t)offset, timeout_ms));
}

JNIEXPORT void JNICALL Java_mfq_Native_offsets(JNIEnv *env, jclass type, jlong queue, jlongArray to) {
  mfq_offsets_t of = {.struct_size = sizeof of};
  if (!check(env, type, mfq_offsets(to_queue(queue), &of))) return;
  jlong numbers[] = {(jlong)of.min, (jlong)of.reserved, (jlong)of.wrote, (jlong)of.committed, (jlong)of.flushed};
  encode(env, to, numbers, COUNT(numbers));
}

JNIEXPORT void JNICALL Java_mfq_Native_recovery(JNIEnv *env, jclass type, jlong queue, jlongArray to) {
  mfq_recovery_t of = {.struct_size = sizeof of};
  if (!check(env, type, mfq_recovery(to_queue(queue), &of))) return;
  jlong numbers[] = {(jlong)of.ended,       (jlong)of.lost_stretches,   (jlong)of.cut_at,
                     (jlong)of.cut_bytes,   (jlong)of.verified_to,      (jlong)of.unverified_bytes,
                     (jlong)of.claims_passed_over, (jlong)of.record_beyond, (jlong)of.lost_bytes,
                     (jlong)of.first_lost};
  encode(env, to, numbers, COUNT(numbers));
}

JNIEXPORT void JNICALL Java_mfq_Native_stats(JNIEnv *env, jclass type, jlong queue, jlongArray to) {
  mfq_stats_t of = {.struct_size = sizeof of};
  if (!check(env, type, mfq_stats(to_queue(queue), &of))) return;
  jlong numbers[18 + MFQ_CREATION_BUCKETS] = {
      (jlong)of.appends,           (jlong)of.bytes,
      (jlong)of.rolls_ready,       (jlong)of.rolls_waited,
      (jlong)of.rolls_timed_out,   (jlong)of.files_created,
      (jlong)of.slow_creations,    (jlong)of.failed_creations,
      (jlong)of.expired_requests,  (jlong)of.superseded_requests,
      (jlong)of.self_served_creations, (jlong)of.open_claims,
      (jlong)of.oldest_claim_offset, (jlong)of.oldest_claim_age_ms,
      (jlong)of.prefaulted_to,     (jlong)of.pool_waits,
      (jlong)of.pool_refusals,     (jlong)of.pool_free};
  for (int i = 0; i < MFQ_CREATION_BUCKETS; i++) numbers[18 + i] = (jlong)of.creation_us[i];
  encode(env, to, numbers, COUNT(numbers));
}

JNIEXPORT void JNICALL Java_mfq_Native_truncateAfter(JNIEnv *env, jclass type, jlong queue, jlong offset) {
  check(env, type, mfq_truncate_after(to_queue(queue), (uint64_t)offset));
}

JNIEXPORT void JNICALL Java_mfq_Native_truncateBefore(JNIEnv *env, jclass type, jlong queue, jlong offset) {
  check(env, type, mfq_truncate_before(to_queue(queue), (uint64_t)offset));
}

/* ---- events -------------------------------------------------------------------------------------------------------- */

static void throw_no_descriptor(JNIEnv *env, jclass type, int cause) {
  char reason[128], text[256];
  snprintf(text, sizeof text, "duplicating the event descriptor: %s", strerror_r(cause, reason, sizeof reason));
  throw_saying(env, type, MFQ_E_IO, cause, text, (mfq_span_t){0, 0});
}

JNIEXPORT jint JNICALL Java_mfq_Native_events(JNIEnv *env, jclass type, jlong queue) {
  int32_t fd, again;
  if (!check(env, type, mfq_event_fd(to_queue(queue), &fd))) return -1;
  int duplicate = fcntl(fd, F_DUPFD_CLOEXEC, 0), cause = errno;
  /* A close in between may have given the number to another file; while the queue is open it has not. */
  mfq_status_t status = mfq_event_fd(to_queue(queue), &again);
  if (status < 0 || duplicate < 0) {
    if (duplicate >= 0) close(duplicate);
    if (status < 0) check(env, type, status);
    else throw_no_descriptor(env, type, cause);
    return -1;
  }
  return duplicate;
}

JNIEXPORT void JNICALL Java_mfq_Native_awaitEvent(JNIEnv *env, jclass type, jint events) {
  (void)env, (void)type;
  struct pollfd poll_on = {.fd = events, .events = POLLIN};
  uint64_t count;
  while (poll(&poll_on, 1, -1) < 0 && errno == EINTR) {
  }
  /* Non-blocking: somebody else's read of the same event does no harm. */
  while (read(events, &count, sizeof count) < 0 && errno == EINTR) {
  }
}

JNIEXPORT void JNICALL Java_mfq_Native_closeEvents(JNIEnv *env, jclass type, jint events) {
  (void)env, (void)type;
  close(events);
}
