/* Everything a host can do wrong: each mistake has its own status and a sentence that names the argument, writes no output,
 * and changes nothing on disk. Run with an empty directory to work in. */

#include <mfq.h>

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int failures = 0;
static char dir[512];
static char path_buf[600];

static const char *in_dir(const char *name) {
  snprintf(path_buf, sizeof path_buf, "%s/%s", dir, name);
  return path_buf;
}

/* The status is as expected and, of a failure, the sentence names what is wrong. */
static void expect(mfq_status_t got, mfq_status_t wanted, const char *word, const char *call, int line) {
  char text[512] = "";
  mfq_last_error(text, sizeof text);
  if (got != wanted) {
    printf("line %d: %s: %d (%s), not %d; last error: %s\n", line, call, (int)got, mfq_strerror(got), (int)wanted, text);
    failures++;
  } else if (got < 0 && strstr(text, word) == NULL) {
    printf("line %d: %s: the last error does not say \"%s\": %s\n", line, call, word, text);
    failures++;
  }
}

#define FAILS(call, status, word) expect((call), (status), (word), #call, __LINE__)
#define WORKS(call) expect((call), MFQ_OK, "", #call, __LINE__)

static void check(int so, const char *condition, int line) {
  if (so) return;
  printf("line %d: not so: %s\n", line, condition);
  failures++;
}

#define CHECK(condition) check((condition), #condition, __LINE__)

/* Bytes that no call may touch. */
#define UNTOUCHED(place) memset(&(place), 0xA5, sizeof(place))
static int is_untouched(const void *place, size_t len) {
  const unsigned char *bytes = place;
  for (size_t i = 0; i < len; i++)
    if (bytes[i] != 0xA5) return 0;
  return 1;
}
#define CHECK_UNTOUCHED(place) CHECK(is_untouched(&(place), sizeof(place)))

static void *misaligned(void *place) { return (char *)place + 1; }

static mfq_options_t small(void) {
  mfq_options_t options;
  mfq_options_init(&options, sizeof options);
  options.file_size = 65536;
  return options;
}

static mfq_queue_t *opened(const char *name) {
  mfq_options_t options = small();
  mfq_queue_t *queue = NULL;
  WORKS(mfq_open(in_dir(name), &options, &queue));
  if (queue == NULL) exit(1);
  return queue;
}

/* ---- the library --------------------------------------------------------------------------------------------------- */

static void last_error_is_copied_with_care(void) {
  CHECK(mfq_last_error(NULL, 0) == 0);
  CHECK(mfq_last_errno() == 0);
  FAILS(mfq_close(NULL), MFQ_E_INVALID, "mfq_close: queue is NULL");
  size_t len = mfq_last_error(NULL, 0);
  char text[512];
  UNTOUCHED(text);
  CHECK(mfq_last_error(text, 0) == len);
  CHECK_UNTOUCHED(text);
  CHECK(mfq_last_error(text, 4) == len && strcmp(text, "mfq") == 0);
  CHECK(is_untouched(text + 4, sizeof text - 4));
  CHECK(mfq_last_error(text, sizeof text) == len && strlen(text) == len);
  WORKS(mfq_set_log(NULL, NULL, 0));
  CHECK(mfq_last_error(NULL, 0) == len);
}

static void options_init_takes_any_size(void) {
  mfq_options_t options;
  UNTOUCHED(options);
  mfq_options_init(&options, 0);
  mfq_options_init(&options, sizeof(size_t) - 1);
  mfq_options_init(&options, 4097);
  mfq_options_init(&options, SIZE_MAX);
  mfq_options_init(NULL, sizeof options);
  CHECK_UNTOUCHED(options);
  mfq_options_init(&options, sizeof options / 2);
  CHECK(options.struct_size == sizeof options / 2);
  CHECK(is_untouched((char *)&options + sizeof options / 2, sizeof options - sizeof options / 2));
}

struct log_seen {
  mfq_queue_t *queue;
  mfq_claim_t claim;
  int called;
};

static void call_from_callback(void *context, int32_t level, const char *message) {
  struct log_seen *seen = context;
  mfq_offsets_t offsets;
  offsets.struct_size = sizeof offsets;
  CHECK(level >= MFQ_LOG_ERROR && level <= MFQ_LOG_DEBUG && message[0] != 0);
  seen->called = 1;
  CHECK(mfq_offsets(seen->queue, &offsets) == MFQ_E_REENTRANT);
  CHECK(mfq_commit(&seen->claim, 1, NULL) == MFQ_E_REENTRANT);
  CHECK(mfq_abort(&seen->claim) == MFQ_E_REENTRANT);
}

static void the_log_refuses_what_it_must(void) {
  static struct log_seen seen; /* lives as long as the process: a call that has begun may outlast the change */
  FAILS(mfq_set_log(call_from_callback, &seen, -1), MFQ_E_INVALID, "level");
  FAILS(mfq_set_log(call_from_callback, &seen, 5), MFQ_E_INVALID, "level");
  seen.queue = opened("log");
  WORKS(mfq_set_log(call_from_callback, &seen, MFQ_LOG_DEBUG));
  WORKS(mfq_claim(seen.queue, 1, &seen.claim)); /* not before its file is made, which is logged */
  WORKS(mfq_close(seen.queue));
  WORKS(mfq_set_log(NULL, NULL, MFQ_LOG_DEBUG));
  CHECK(seen.called);
  FAILS(mfq_abort(&seen.claim), MFQ_E_CLOSED, "");
}

/* ---- open ---------------------------------------------------------------------------------------------------------- */

static void refuses(const mfq_options_t *options, mfq_status_t status, const char *word, int line) {
  mfq_queue_t *queue;
  UNTOUCHED(queue);
  expect(mfq_open(in_dir("refused"), options, &queue), status, word, "mfq_open", line);
  CHECK_UNTOUCHED(queue);
  CHECK(access(in_dir("refused"), F_OK) != 0);
}

#define REFUSES(field, value, status, word)      \
  do {                                           \
    mfq_options_t options = small();             \
    options.field = (value);                     \
    refuses(&options, status, word, __LINE__);   \
  } while (0)

static int64_t walk(void *context, const uint8_t *bytes, size_t available) {
  (void)context, (void)bytes, (void)available;
  return 0;
}

static void open_refuses_senseless_options(void) {
  REFUSES(struct_size, 0, MFQ_E_INVALID, "struct_size");
  REFUSES(struct_size, sizeof(size_t) - 1, MFQ_E_INVALID, "struct_size");
  REFUSES(struct_size, 4097, MFQ_E_INVALID, "struct_size");
  REFUSES(struct_size, SIZE_MAX, MFQ_E_INVALID, "struct_size");
  REFUSES(format, 2, MFQ_E_INVALID, "format");
  REFUSES(filler, 2, MFQ_E_INVALID, "filler");
  REFUSES(mode, 2, MFQ_E_INVALID, "mode");
  REFUSES(flush_policy, 4, MFQ_E_INVALID, "flush_policy");
  REFUSES(flush_interval_ms, -1, MFQ_E_INVALID, "flush_interval_ms");
  REFUSES(commit_interval_ms, -1, MFQ_E_INVALID, "commit_interval_ms");
  REFUSES(flags, 512, MFQ_E_INVALID, "flags");
  REFUSES(flags, UINT32_MAX, MFQ_E_INVALID, "flags");
  REFUSES(file_size, 65537, MFQ_E_INVALID, "file_size");
  REFUSES(file_size, UINT64_MAX, MFQ_E_INVALID, "file_size");
  for (uint32_t flag = MFQ_OPEN_LOCK_POOL; flag <= MFQ_OPEN_POOL_FAIL_FAST; flag *= 2)
    REFUSES(flags, flag, MFQ_E_INVALID, "MFQ_STAGED");
  REFUSES(flags, MFQ_OPEN_ADOPT, MFQ_E_INVALID, "MFQ_OPEN_ADOPT");
  REFUSES(flags, MFQ_OPEN_SALVAGE | MFQ_OPEN_STRICT, MFQ_E_INVALID, "MFQ_OPEN_SALVAGE");
  REFUSES(flags, MFQ_OPEN_SALVAGE | MFQ_OPEN_READ_ONLY, MFQ_E_INVALID, "MFQ_OPEN_SALVAGE");
  REFUSES(walk, walk, MFQ_E_INVALID, "walk");

  struct {
    mfq_options_t ours;
    char theirs[64];
  } longer;
  memset(&longer, 0, sizeof longer);
  longer.ours = small();
  longer.ours.struct_size = sizeof longer;
  longer.theirs[63] = 1;
  refuses(&longer.ours, MFQ_E_INVALID, "options", __LINE__);
  longer.theirs[63] = 0;
  mfq_queue_t *queue;
  WORKS(mfq_open(in_dir("longer"), &longer.ours, &queue));
  WORKS(mfq_close(queue));
}

static int64_t walk_that_opens(void *context, const uint8_t *bytes, size_t available) {
  mfq_queue_t *queue;
  UNTOUCHED(queue);
  (void)bytes;
  FAILS(mfq_open(dir, NULL, &queue), MFQ_E_REENTRANT, "callback");
  CHECK_UNTOUCHED(queue);
  CHECK(available == 65536 - *(size_t *)context);
  *(size_t *)context += 65536 / 2;
  return 65536 / 2;
}

static void a_walker_must_not_call_the_library(void) {
  char name[512];
  CHECK(mkdir(in_dir("adopted"), 0700) == 0);
  snprintf(name, sizeof name, "%s/%020d", in_dir("adopted"), 0);
  FILE *file = fopen(name, "w");
  CHECK(file != NULL && fputc('x', file) == 'x' && fseek(file, 65535, SEEK_SET) == 0 && fputc(0, file) == 0);
  fclose(file);
  size_t walked = 0;
  mfq_options_t options = small();
  options.file_size = 65536;
  options.format = MFQ_RAW;
  options.flags = MFQ_OPEN_ADOPT;
  options.walk = walk_that_opens;
  options.walk_context = &walked;
  mfq_queue_t *queue;
  WORKS(mfq_open(in_dir("adopted"), &options, &queue));
  CHECK(walked == 65536);
  mfq_recovery_t report = {.struct_size = sizeof report};
  WORKS(mfq_recovery(queue, &report));
  CHECK(report.ended == MFQ_ENDED_ADOPTED && report.cut_at == 65536 && report.record_beyond == UINT64_MAX);
  WORKS(mfq_close(queue));
  CHECK(mfq_walk_rocketmq(NULL, NULL, SIZE_MAX) == -1);
  CHECK(mfq_walk_rocketmq(NULL, (const uint8_t *)"", 0) == 0);
}

static void open_reads_no_more_than_the_size_says(void) {
  /* On the heap, so that valgrind sees a byte too many. */
  size_t *shorter = calloc(1, 2 * sizeof(size_t));
  shorter[0] = 2 * sizeof(size_t);
  shorter[1] = 65536;
  mfq_queue_t *queue;
  WORKS(mfq_open(in_dir("shorter"), (const mfq_options_t *)(const void *)shorter, &queue));
  WORKS(mfq_close(queue));
  free(shorter);
}

static void open_refuses_bad_paths(void) {
  mfq_options_t options = small();
  mfq_queue_t *queue;
  UNTOUCHED(queue);
  FAILS(mfq_open(NULL, &options, &queue), MFQ_E_INVALID, "path is NULL");
  FAILS(mfq_open("", &options, &queue), MFQ_E_INVALID, "path");
  FAILS(mfq_open(in_dir("refused"), &options, NULL), MFQ_E_INVALID, "queue is NULL");
  FAILS(mfq_open(in_dir("refused"), misaligned(&options), &queue), MFQ_E_INVALID, "options is not aligned");
  FAILS(mfq_open(in_dir("refused"), &options, misaligned(&queue)), MFQ_E_INVALID, "queue is not aligned");
  CHECK(access(in_dir("refused"), F_OK) != 0);
  FAILS(mfq_open(in_dir("no/parent"), &options, &queue), MFQ_E_NOT_FOUND, "");
  options.flags = MFQ_OPEN_EXISTING;
  FAILS(mfq_open(in_dir("refused"), &options, &queue), MFQ_E_NOT_FOUND, "refused");
  options.flags = 0;
  FILE *file = fopen(in_dir("file"), "w");
  fclose(file);
  FAILS(mfq_open(in_dir("file"), &options, &queue), MFQ_E_INVALID, "file");
  mkdir(in_dir("target"), 0700);
  CHECK(symlink("target", in_dir("link")) == 0);
  FAILS(mfq_open(in_dir("link"), &options, &queue), MFQ_E_INVALID, "link");
  CHECK_UNTOUCHED(queue);
  WORKS(mfq_open(in_dir("\xff\xfe"), &options, &queue));
  mfq_queue_t *second;
  UNTOUCHED(second);
  FAILS(mfq_open(in_dir("\xff\xfe"), &options, &second), MFQ_E_LOCKED, "");
  CHECK_UNTOUCHED(second);
  WORKS(mfq_close(queue));
}

/* ---- handles ------------------------------------------------------------------------------------------------------- */

/* Every function that takes a queue says the same of this one. */
static void all_refuse_queue(mfq_queue_t *queue, mfq_status_t status, const char *word) {
  mfq_file_t *file;
  mfq_reader_t *reader;
  mfq_span_t at;
  mfq_claim_t claim;
  mfq_view_t view;
  mfq_offsets_t offsets = {.struct_size = sizeof offsets};
  mfq_stats_t stats = {.struct_size = sizeof stats};
  mfq_slice_t part = {"x", 1};
  char buf[8];
  size_t len;
  uint64_t next;
  int32_t fd;
  mfq_recovery_t report = {.struct_size = sizeof report};
  UNTOUCHED(fd), UNTOUCHED(report.ended);
  UNTOUCHED(file), UNTOUCHED(reader), UNTOUCHED(at), UNTOUCHED(claim), UNTOUCHED(view);
  UNTOUCHED(buf), UNTOUCHED(len), UNTOUCHED(next), UNTOUCHED(offsets.min), UNTOUCHED(stats.appends);
  FAILS(mfq_get_last(queue, 0, &file), status, word);
  FAILS(mfq_find(queue, 0, &file), status, word);
  FAILS(mfq_append(queue, "x", 1, &at), status, word);
  FAILS(mfq_appendv(queue, &part, 1, &at), status, word);
  FAILS(mfq_append_batch(queue, &part, 1, &at), status, word);
  FAILS(mfq_claim(queue, 1, &claim), status, word);
  FAILS(mfq_read(queue, 0, buf, sizeof buf, &len, &next), status, word);
  FAILS(mfq_view(queue, 0, &view), status, word);
  FAILS(mfq_reader_open(queue, 0, &reader), status, word);
  FAILS(mfq_flush(queue, 0, 0), status, word);
  FAILS(mfq_flush_start(queue, 0), status, word);
  FAILS(mfq_event_fd(queue, &fd), status, word);
  FAILS(mfq_wait(queue, MFQ_COMMITTED, 0, 0), status, word);
  FAILS(mfq_offsets(queue, &offsets), status, word);
  FAILS(mfq_stats(queue, &stats), status, word);
  FAILS(mfq_recovery(queue, &report), status, word);
  FAILS(mfq_truncate_after(queue, 0), status, word);
  FAILS(mfq_truncate_before(queue, 0), status, word);
  FAILS(mfq_close(queue), status, word);
  CHECK_UNTOUCHED(file), CHECK_UNTOUCHED(reader), CHECK_UNTOUCHED(at), CHECK_UNTOUCHED(claim), CHECK_UNTOUCHED(view);
  CHECK_UNTOUCHED(buf), CHECK_UNTOUCHED(len), CHECK_UNTOUCHED(next), CHECK_UNTOUCHED(fd);
  CHECK_UNTOUCHED(offsets.min), CHECK_UNTOUCHED(stats.appends), CHECK_UNTOUCHED(report.ended);
}

static void all_refuse_file(mfq_file_t *file, mfq_status_t status, const char *word) {
  mfq_file_info_t info = {.struct_size = sizeof info};
  UNTOUCHED(info.start);
  mfq_slice_t memory;
  UNTOUCHED(memory);
  FAILS(mfq_file_info(file, &info), status, word);
  FAILS(mfq_file_memory(file, &memory), status, word);
  FAILS(mfq_file_release(file), status, word);
  CHECK_UNTOUCHED(info.start), CHECK_UNTOUCHED(memory);
}

static void all_refuse_reader(mfq_reader_t *reader, mfq_status_t status, const char *word) {
  mfq_view_t view;
  UNTOUCHED(view);
  FAILS(mfq_reader_next(reader, 0, &view), status, word);
  FAILS(mfq_reader_seek(reader, 0), status, word);
  FAILS(mfq_reader_close(reader), status, word);
  CHECK_UNTOUCHED(view);
}

static void garbage_is_not_a_handle(void) {
  mfq_queue_t *queue = opened("garbage");
  mfq_file_t *file;
  mfq_reader_t *reader;
  WORKS(mfq_get_last(queue, -1, &file));
  WORKS(mfq_reader_open(queue, 0, &reader));
  int on_stack;
  void *on_heap = malloc(64);
  void *garbage[] = {NULL, (void *)1, (void *)8, (void *)(uintptr_t)0xdeadbeef, (void *)UINTPTR_MAX, &on_stack, on_heap,
                     /* a generation that was not given out yet */
                     (void *)((uintptr_t)queue + ((uintptr_t)1 << 40))};
  for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
    all_refuse_queue(garbage[i], MFQ_E_INVALID, "queue");
    all_refuse_file(garbage[i], MFQ_E_INVALID, "file");
    all_refuse_reader(garbage[i], MFQ_E_INVALID, "reader");
  }
  all_refuse_queue((void *)file, MFQ_E_INVALID, "queue");
  all_refuse_file((void *)reader, MFQ_E_INVALID, "file");
  all_refuse_reader((void *)queue, MFQ_E_INVALID, "reader");
  free(on_heap);
  WORKS(mfq_reader_close(reader));
  WORKS(mfq_file_release(file));
  WORKS(mfq_close(queue));
}

static void *refuse_queue_as_closed(void *queue) {
  all_refuse_queue(queue, MFQ_E_CLOSED, "queue");
  return NULL;
}

static void *close_and_tell(void *queue) { return mfq_close(queue) == MFQ_OK ? queue : NULL; }

static void a_closed_queue_stays_closed_for_every_thread(void) {
  mfq_queue_t *queue = opened("closed");
  pthread_t threads[4];
  int won = 0;
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, close_and_tell, queue);
  for (int i = 0; i < 4; i++) {
    void *result;
    pthread_join(threads[i], &result);
    won += result != NULL;
  }
  CHECK(won == 1);
  mfq_queue_t *other = opened("closed"); /* most likely in the same slot */
  CHECK(other != queue);
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, refuse_queue_as_closed, queue);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  WORKS(mfq_close(other));
}

static void *append_until_closed(void *queue) {
  mfq_status_t status;
  do status = mfq_append(queue, "0123456789", 10, NULL);
  while (status == MFQ_OK);
  return status == MFQ_E_CLOSED ? queue : NULL;
}

static void *wait_until_closed(void *queue) {
  return mfq_wait(queue, MFQ_COMMITTED, (uint64_t)1 << 60, -1) == MFQ_E_CLOSED ? queue : NULL;
}

static void *read_until_closed(void *reader) {
  mfq_view_t view;
  mfq_status_t status;
  do status = mfq_reader_next(reader, -1, &view);
  while (status == MFQ_OK);
  return status == MFQ_E_CLOSED ? reader : NULL;
}

static void close_brings_out_whoever_is_inside(void) {
  for (int round = 0; round < 5; round++) {
    mfq_queue_t *queue = opened("inside");
    mfq_reader_t *reader;
    mfq_offsets_t offsets = {.struct_size = sizeof offsets};
    WORKS(mfq_offsets(queue, &offsets));
    WORKS(mfq_reader_open(queue, offsets.committed, &reader));
    void *(*work[])(void *) = {append_until_closed, append_until_closed, wait_until_closed, read_until_closed};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, work[i], i == 3 ? (void *)reader : (void *)queue);
    WORKS(mfq_wait(queue, MFQ_COMMITTED, offsets.committed + 3000, 10000));
    WORKS(mfq_close(queue));
    for (int i = 0; i < 4; i++) {
      void *result;
      pthread_join(threads[i], &result);
      CHECK(result != NULL);
    }
    WORKS(mfq_reader_close(reader));
  }
}

static void reader_close_brings_out_its_call(void) {
  mfq_queue_t *queue = opened("reader");
  for (int round = 0; round < 20; round++) {
    mfq_reader_t *reader;
    pthread_t thread;
    void *result;
    WORKS(mfq_reader_open(queue, 0, &reader));
    pthread_create(&thread, NULL, read_until_closed, reader);
    WORKS(mfq_reader_close(reader));
    pthread_join(thread, &result);
    CHECK(result != NULL);
  }
  WORKS(mfq_close(queue));
}

static void what_is_held_outlives_the_queue(void) {
  mfq_queue_t *queue = opened("held");
  mfq_file_t *file;
  mfq_reader_t *reader;
  mfq_view_t view, next;
  mfq_span_t at;
  WORKS(mfq_append(queue, "held", 4, &at));
  WORKS(mfq_get_last(queue, -1, &file));
  WORKS(mfq_view(queue, at.offset, &view));
  WORKS(mfq_reader_open(queue, at.offset, &reader));
  WORKS(mfq_reader_next(reader, 1000, &next));
  WORKS(mfq_append(queue, "told", 4, &at));
  mfq_file_info_t live = {.struct_size = sizeof live};
  WORKS(mfq_file_info(file, &live));
  CHECK(live.wrote == at.end - live.start && live.committed == live.wrote);
  WORKS(mfq_close(queue));
  CHECK(view.len == 4 && memcmp(view.ptr, "held", 4) == 0);
  CHECK(next.len == 4 && memcmp(next.ptr, "held", 4) == 0);
  mfq_file_info_t info = {.struct_size = sizeof info};
  WORKS(mfq_file_info(file, &info));
  CHECK(info.size == 65536 && info.committed > 4 && info.base != NULL);
  mfq_slice_t memory;
  WORKS(mfq_file_memory(file, &memory));
  CHECK(memory.ptr == (const void *)info.base && memory.len == info.size);
  UNTOUCHED(next);
  FAILS(mfq_reader_next(reader, -1, &next), MFQ_E_CLOSED, "queue");
  CHECK_UNTOUCHED(next);
  FAILS(mfq_reader_seek(reader, 0), MFQ_E_CLOSED, "queue");
  WORKS(mfq_reader_close(reader));
  all_refuse_reader(reader, MFQ_E_CLOSED, "reader");
  WORKS(mfq_view_release(&view));
  FAILS(mfq_view_release(&view), MFQ_E_CLOSED, "view");
  WORKS(mfq_file_release(file));
  all_refuse_file(file, MFQ_E_CLOSED, "file");
}

/* ---- append -------------------------------------------------------------------------------------------------------- */

static void append_refuses_bad_data(void) {
  mfq_queue_t *queue = opened("append");
  mfq_offsets_t before = {.struct_size = sizeof before}, after = before;
  mfq_span_t at[3];
  UNTOUCHED(at);
  WORKS(mfq_offsets(queue, &before));
  FAILS(mfq_append(queue, NULL, 12, at), MFQ_E_INVALID, "mfq_append: data is NULL but len is 12");
  FAILS(mfq_append(queue, "x", SIZE_MAX, at), MFQ_E_TOO_LARGE, "");
  FAILS(mfq_append(queue, "x", (size_t)PTRDIFF_MAX + 1, at), MFQ_E_TOO_LARGE, "data");
  FAILS(mfq_append(queue, "x", 65536, at), MFQ_E_TOO_LARGE, "");
  FAILS(mfq_append(queue, "x", 1, misaligned(at)), MFQ_E_INVALID, "at is not aligned");

  mfq_slice_t parts[2] = {{"x", 1}, {NULL, 0}};
  FAILS(mfq_appendv(queue, NULL, 2, at), MFQ_E_INVALID, "parts is NULL");
  FAILS(mfq_append_batch(queue, NULL, 2, at), MFQ_E_INVALID, "records is NULL");
  FAILS(mfq_appendv(queue, parts, 0, at), MFQ_E_INVALID, "parts");
  FAILS(mfq_append_batch(queue, parts, 0, at), MFQ_E_INVALID, "records");
  FAILS(mfq_appendv(queue, parts, SIZE_MAX, at), MFQ_E_TOO_LARGE, "parts");
  FAILS(mfq_append_batch(queue, parts, SIZE_MAX, at), MFQ_E_TOO_LARGE, "records");
  FAILS(mfq_appendv(queue, misaligned(parts), 1, at), MFQ_E_INVALID, "parts is not aligned");
  parts[1].len = 12;
  FAILS(mfq_appendv(queue, parts, 2, at), MFQ_E_INVALID, "[1].ptr is NULL");
  FAILS(mfq_append_batch(queue, parts, 2, at), MFQ_E_INVALID, "[1].ptr is NULL");
  parts[1] = (mfq_slice_t){"y", SIZE_MAX};
  FAILS(mfq_appendv(queue, parts, 2, at), MFQ_E_TOO_LARGE, "parts");
  FAILS(mfq_append_batch(queue, parts, 2, at), MFQ_E_TOO_LARGE, "records");
  parts[0] = parts[1] = (mfq_slice_t){"y", (size_t)1 << 62};
  FAILS(mfq_appendv(queue, parts, 2, at), MFQ_E_TOO_LARGE, "parts");
  CHECK_UNTOUCHED(at);
  WORKS(mfq_offsets(queue, &after));
  CHECK(memcmp(&before, &after, sizeof before) == 0);

  WORKS(mfq_append(queue, NULL, 0, at));
  parts[0] = parts[1] = (mfq_slice_t){NULL, 0};
  WORKS(mfq_appendv(queue, parts, 2, NULL));
  WORKS(mfq_append_batch(queue, parts, 2, at));
  CHECK(at[1].offset >= at[0].end && is_untouched(&at[2], sizeof at[2]));
  WORKS(mfq_close(queue));
}

static void a_claim_ends_once(void) {
  mfq_queue_t *queue = opened("claim");
  mfq_claim_t claim, copy;
  mfq_span_t at;
  UNTOUCHED(claim);
  FAILS(mfq_claim(queue, 1, NULL), MFQ_E_INVALID, "claim is NULL");
  FAILS(mfq_claim(queue, SIZE_MAX, &claim), MFQ_E_TOO_LARGE, "");
  FAILS(mfq_claim(queue, 65536, &claim), MFQ_E_TOO_LARGE, "");
  CHECK_UNTOUCHED(claim);
  FAILS(mfq_commit(NULL, 1, &at), MFQ_E_INVALID, "claim is NULL");
  FAILS(mfq_abort(NULL), MFQ_E_INVALID, "claim is NULL");
  FAILS(mfq_commit(&claim, 1, &at), MFQ_E_INVALID, "claim");
  memset(&claim, 0, sizeof claim);
  FAILS(mfq_abort(&claim), MFQ_E_INVALID, "claim");

  WORKS(mfq_claim(queue, 40, &claim));
  memset(claim.ptr, 'c', claim.len);
  UNTOUCHED(at);
  FAILS(mfq_commit(&claim, 41, &at), MFQ_E_INVALID, "");
  FAILS(mfq_commit(&claim, SIZE_MAX, &at), MFQ_E_INVALID, "");
  CHECK_UNTOUCHED(at);
  copy = claim;
  WORKS(mfq_commit(&claim, 40, &at));
  CHECK(at.offset == claim.offset);
  UNTOUCHED(at);
  FAILS(mfq_commit(&claim, 40, &at), MFQ_E_CLOSED, "");
  FAILS(mfq_commit(&copy, 40, &at), MFQ_E_CLOSED, "");
  FAILS(mfq_abort(&copy), MFQ_E_CLOSED, "");
  WORKS(mfq_claim(queue, 40, &claim));
  WORKS(mfq_abort(&claim));
  FAILS(mfq_abort(&claim), MFQ_E_CLOSED, "");
  FAILS(mfq_commit(&claim, 40, &at), MFQ_E_CLOSED, "");

  /* The memory is the host's until it says otherwise, though the queue is gone. */
  WORKS(mfq_claim(queue, 40, &claim));
  WORKS(mfq_claim(queue, 40, &copy));
  WORKS(mfq_close(queue));
  memset(claim.ptr, 'd', claim.len);
  memset(copy.ptr, 'd', copy.len);
  FAILS(mfq_commit(&claim, 40, &at), MFQ_E_CLOSED, "queue");
  FAILS(mfq_abort(&copy), MFQ_E_CLOSED, "queue");
  FAILS(mfq_abort(&claim), MFQ_E_CLOSED, "queue");
  CHECK_UNTOUCHED(at);
}

/* ---- read and the rest --------------------------------------------------------------------------------------------- */

static void read_refuses_bad_places(void) {
  mfq_queue_t *queue = opened("read");
  mfq_span_t at;
  char buf[64];
  size_t len;
  uint64_t next;
  mfq_view_t view;
  WORKS(mfq_append(queue, "0123456789abcdef01234567", 24, &at));
  UNTOUCHED(buf), UNTOUCHED(len), UNTOUCHED(next), UNTOUCHED(view);
  FAILS(mfq_read(queue, at.offset, NULL, 12, &len, &next), MFQ_E_INVALID, "buf is NULL but cap is 12");
  FAILS(mfq_read(queue, at.offset, buf, sizeof buf, NULL, &next), MFQ_E_INVALID, "len is NULL");
  FAILS(mfq_read(queue, at.offset, buf, sizeof buf, &len, NULL), MFQ_E_INVALID, "next is NULL");
  FAILS(mfq_read(queue, at.offset, buf, sizeof buf, misaligned(&len), &next), MFQ_E_INVALID, "len is not aligned");
  FAILS(mfq_read(queue, at.offset + 1, buf, sizeof buf, &len, &next), MFQ_E_INVALID, "");
  FAILS(mfq_read(queue, at.offset + 16, buf, sizeof buf, &len, &next), MFQ_E_CORRUPT, "");
  FAILS(mfq_read(queue, at.end, buf, sizeof buf, &len, &next), MFQ_E_END, "");
  FAILS(mfq_read(queue, UINT64_MAX - 7, buf, sizeof buf, &len, &next), MFQ_E_END, "");
  FAILS(mfq_view(queue, at.end, &view), MFQ_E_END, "");
  FAILS(mfq_view(queue, at.offset, NULL), MFQ_E_INVALID, "view is NULL");
  CHECK_UNTOUCHED(len);
  FAILS(mfq_read(queue, at.offset, buf, 23, &len, &next), MFQ_E_TOO_LARGE, "24");
  CHECK(len == 24);
  UNTOUCHED(len);
  FAILS(mfq_read(queue, at.offset, NULL, 0, &len, &next), MFQ_E_TOO_LARGE, "24");
  CHECK(len == 24);
  CHECK_UNTOUCHED(buf), CHECK_UNTOUCHED(next), CHECK_UNTOUCHED(view);
  WORKS(mfq_read(queue, at.offset, buf, 24, &len, &next));
  CHECK(len == 24 && next == at.end && is_untouched(buf + 24, sizeof buf - 24));

  FAILS(mfq_view_release(NULL), MFQ_E_INVALID, "view is NULL");
  FAILS(mfq_view_release(&view), MFQ_E_INVALID, "view");
  mfq_reader_t *reader;
  FAILS(mfq_reader_open(queue, at.offset, NULL), MFQ_E_INVALID, "reader is NULL");
  FAILS(mfq_reader_open(queue, at.offset + 1, &reader), MFQ_E_INVALID, "");
  WORKS(mfq_reader_open(queue, at.offset, &reader));
  FAILS(mfq_reader_next(reader, 0, NULL), MFQ_E_INVALID, "view is NULL");
  WORKS(mfq_reader_next(reader, 0, &view));
  FAILS(mfq_view_release(&view), MFQ_E_INVALID, "not released");
  UNTOUCHED(view);
  FAILS(mfq_reader_next(reader, 0, &view), MFQ_E_END, "");
  FAILS(mfq_reader_next(reader, 1, &view), MFQ_E_TIMEOUT, "");
  CHECK_UNTOUCHED(view);
  WORKS(mfq_reader_close(reader));
  WORKS(mfq_close(queue));
}

static void output_structs_have_the_size_the_host_says(void) {
  mfq_queue_t *queue = opened("sizes");
  mfq_file_t *file;
  WORKS(mfq_append(queue, "x", 1, NULL));
  WORKS(mfq_get_last(queue, -1, &file));
  FAILS(mfq_offsets(queue, NULL), MFQ_E_INVALID, "offsets is NULL");
  FAILS(mfq_stats(queue, NULL), MFQ_E_INVALID, "stats is NULL");
  FAILS(mfq_recovery(queue, NULL), MFQ_E_INVALID, "report is NULL");
  FAILS(mfq_file_info(file, NULL), MFQ_E_INVALID, "info is NULL");
  FAILS(mfq_file_memory(file, NULL), MFQ_E_INVALID, "memory is NULL");
  const size_t senseless[] = {0, sizeof(size_t) - 1, 4097, SIZE_MAX};
  for (size_t i = 0; i < sizeof senseless / sizeof *senseless; i++) {
    mfq_offsets_t offsets = {.struct_size = senseless[i]};
    mfq_stats_t stats = {.struct_size = senseless[i]};
    mfq_file_info_t info = {.struct_size = senseless[i]};
    FAILS(mfq_offsets(queue, &offsets), MFQ_E_INVALID, "offsets has a struct_size");
    FAILS(mfq_stats(queue, &stats), MFQ_E_INVALID, "stats has a struct_size");
    mfq_recovery_t report = {.struct_size = senseless[i]};
    FAILS(mfq_recovery(queue, &report), MFQ_E_INVALID, "report has a struct_size");
    FAILS(mfq_file_info(file, &info), MFQ_E_INVALID, "info has a struct_size");
  }
  struct {
    mfq_offsets_t ours;
    char theirs[64];
  } longer;
  UNTOUCHED(longer);
  longer.ours.struct_size = sizeof longer;
  WORKS(mfq_offsets(queue, &longer.ours));
  CHECK(longer.ours.struct_size == sizeof longer && longer.ours.committed > 0);
  for (size_t i = 0; i < sizeof longer.theirs; i++) CHECK(longer.theirs[i] == 0);
  mfq_offsets_t shorter;
  UNTOUCHED(shorter);
  shorter.struct_size = offsetof(mfq_offsets_t, wrote);
  WORKS(mfq_offsets(queue, &shorter));
  CHECK(shorter.struct_size == offsetof(mfq_offsets_t, wrote) && shorter.reserved == longer.ours.reserved);
  CHECK_UNTOUCHED(shorter.wrote);
  FAILS(mfq_wait(queue, 2, 0, 0), MFQ_E_INVALID, "which is 2");
  FAILS(mfq_truncate_after(queue, 1), MFQ_E_INVALID, "offset 1");
  FAILS(mfq_truncate_after(queue, UINT64_MAX), MFQ_E_INVALID, "offset");
  FAILS(mfq_truncate_before(queue, UINT64_MAX), MFQ_E_INVALID, "offset");
  FAILS(mfq_get_last(queue, 0, NULL), MFQ_E_INVALID, "file is NULL");
  FAILS(mfq_flush(queue, (uint64_t)INT64_MAX + 1, 0), MFQ_E_INVALID, "up_to");
  FAILS(mfq_flush_start(queue, (uint64_t)INT64_MAX + 1), MFQ_E_INVALID, "up_to");
  FAILS(mfq_event_fd(queue, NULL), MFQ_E_INVALID, "fd is NULL");
  int32_t fds[2];
  FAILS(mfq_event_fd(queue, misaligned(fds)), MFQ_E_INVALID, "fd is not aligned");
  FAILS(mfq_find(queue, 0, NULL), MFQ_E_INVALID, "file is NULL");
  WORKS(mfq_file_release(file));
  WORKS(mfq_close(queue));
}

/* The one failure of an append after which the record is there, so that the host has to know where. */
static void what_is_not_durable_in_time_is_appended_all_the_same(void) {
  mfq_options_t options = small();
  options.flush_policy = MFQ_FLUSH_EVERY_APPEND;
  options.append_timeout_ms = 20;
  mfq_queue_t *queue = NULL;
  WORKS(mfq_open(in_dir("durable"), &options, &queue));
  if (queue == NULL) exit(1);
  mfq_offsets_t offsets = {.struct_size = sizeof offsets};
  mfq_span_t at, places[2];
  mfq_claim_t open, claim;
  mfq_slice_t parts[2] = {{"ab", 2}, {"cd", 2}};
  WORKS(mfq_append(queue, "x", 1, &at));
  WORKS(mfq_offsets(queue, &offsets));
  CHECK(offsets.flushed == at.end);
  WORKS(mfq_claim(queue, 8, &open)); /* nothing behind it is durable before it ends */
  uint64_t next = at.end + 24;
  FAILS(mfq_append(queue, "y", 1, &at), MFQ_E_NOT_DURABLE, "appended");
  CHECK(at.offset == next && at.end > next);
  FAILS(mfq_appendv(queue, parts, 2, &places[0]), MFQ_E_NOT_DURABLE, "appended");
  CHECK(places[0].offset == at.end);
  next = places[0].end;
  FAILS(mfq_append_batch(queue, parts, 2, places), MFQ_E_NOT_DURABLE, "appended");
  CHECK(places[0].offset == next && places[1].offset == places[0].end);
  WORKS(mfq_claim(queue, 1, &claim));
  FAILS(mfq_commit(&claim, 1, &at), MFQ_E_NOT_DURABLE, "appended");
  CHECK(at.offset == places[1].end);
  FAILS(mfq_commit(&claim, 1, NULL), MFQ_E_CLOSED, "");
  WORKS(mfq_abort(&open));
  WORKS(mfq_append(queue, "z", 1, &at));
  WORKS(mfq_wait(queue, MFQ_FLUSHED, at.end, 0));
  WORKS(mfq_close(queue));
}

static void the_event_descriptor_ends_with_its_queue(void) {
  mfq_queue_t *queue = opened("event");
  mfq_span_t at;
  int32_t fd = -1, again = -1;
  WORKS(mfq_event_fd(queue, &fd));
  WORKS(mfq_event_fd(queue, &again));
  CHECK(fd >= 0 && fd == again);
  int ours = dup(fd);
  struct pollfd polled = {.fd = ours, .events = POLLIN};
  WORKS(mfq_append(queue, "x", 1, &at));
  CHECK(poll(&polled, 1, 0) == 0);
  WORKS(mfq_flush_start(queue, at.end));
  CHECK(poll(&polled, 1, 30000) == 1);
  uint64_t events;
  CHECK(read(fd, &events, sizeof events) == sizeof events);
  WORKS(mfq_wait(queue, MFQ_FLUSHED, at.end, 0));
  WORKS(mfq_close(queue));
  CHECK(poll(&polled, 1, 0) == 1);
  CHECK(close(fd) == -1);
  close(ours);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  snprintf(dir, sizeof dir, "%s", argv[1]);
  last_error_is_copied_with_care();
  options_init_takes_any_size();
  the_log_refuses_what_it_must();
  open_refuses_senseless_options();
  open_reads_no_more_than_the_size_says();
  a_walker_must_not_call_the_library();
  open_refuses_bad_paths();
  garbage_is_not_a_handle();
  a_closed_queue_stays_closed_for_every_thread();
  close_brings_out_whoever_is_inside();
  reader_close_brings_out_its_call();
  what_is_held_outlives_the_queue();
  append_refuses_bad_data();
  a_claim_ends_once();
  read_refuses_bad_places();
  output_structs_have_the_size_the_host_says();
  what_is_not_durable_in_time_is_appended_all_the_same();
  the_event_descriptor_ends_with_its_queue();
  if (failures > 0) printf("%d checks failed\n", failures);
  return failures > 0;
}
