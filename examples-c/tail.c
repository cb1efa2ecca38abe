/*
 * One thread appends, another reads along: mfq_reader_next waits for the next record until a deadline, and gives it in
 * place, without a copy. Nobody polls: the reader sleeps until a record is committed.
 */
#define _XOPEN_SOURCE 700
#include <inttypes.h>
#include <pthread.h>
#include <time.h>

#define PROGRAM "tail"
#include "scratch.h"

static void *append_now_and_then(void *queue) {
  static const char *const news[] = {"the first", "a second", "and a last record"};
  const struct timespec a_moment = {.tv_nsec = 100 * 1000 * 1000};
  for (int i = 0; i < 3; i++) {
    nanosleep(&a_moment, NULL);
    must(mfq_append(queue, news[i], strlen(news[i]), NULL), "mfq_append");
  }
  return NULL;
}

int main(void) {
  char path[SCRATCH_MOST];
  mfq_queue_t *queue;
  mfq_reader_t *reader;
  mfq_view_t view;
  mfq_status_t status;
  pthread_t appender;

  if (scratch_make(path) < 0) return perror(PROGRAM ": a temporary directory"), 1;
  must(mfq_open(path, NULL, &queue), "mfq_open");
  must(mfq_reader_open(queue, 0, &reader), "mfq_reader_open");
  if (pthread_create(&appender, NULL, append_now_and_then, queue) != 0) return perror(PROGRAM ": a thread"), 1;

  int seen = 0;
  while ((status = mfq_reader_next(reader, seen < 3 ? 10000 : 300, &view)) == MFQ_OK) {
    seen++;
    printf("%" PRId64 " ms  offset %3" PRIu64 "  %.*s\n", view.time_ms, view.offset, (int)view.len,
           (const char *)view.ptr);
  }
  printf("then nothing for 300 ms: %s\n", mfq_strerror(status));

  pthread_join(appender, NULL);
  must(mfq_reader_close(reader), "mfq_reader_close");
  must(mfq_close(queue), "mfq_close");
  return scratch_remove(path) < 0 || status != MFQ_E_TIMEOUT || seen != 3;
}
