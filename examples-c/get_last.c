/*
 * The files behind a queue: mfq_get_last gives the one that is written to (and makes it if need be), mfq_find the one
 * in which an offset lies, mfq_file_info tells how far a file is, mfq_file_memory where its bytes are. A file that is held
 * stays mapped, even after mfq_close.
 */
#define _XOPEN_SOURCE 700
#include <inttypes.h>
#include <unistd.h>

#define PROGRAM "get_last"
#include "scratch.h"

static void tell(const char *how, mfq_file_t *file) {
  mfq_file_info_t info = {.struct_size = sizeof info};
  must(mfq_file_info(file, &info), "mfq_file_info");
  printf("%-18s [%8" PRIu64 ", %8" PRIu64 ")  wrote %6" PRIu64 "  committed %6" PRIu64 "  flushed %6" PRIu64 "\n", how,
         info.start, info.start + info.size, info.wrote, info.committed, info.flushed);
}

int main(void) {
  char path[SCRATCH_MOST], record[1000] = "a record";
  mfq_queue_t *queue;
  mfq_file_t *first, *last, *found;
  mfq_span_t at = {0, 0};
  mfq_options_t options;

  if (scratch_make(path) < 0) return perror(PROGRAM ": a temporary directory"), 1;
  mfq_options_init(&options, sizeof options);
  options.file_size = 16 * (uint64_t)sysconf(_SC_PAGESIZE);
  must(mfq_open(path, &options, &queue), "mfq_open");

  must(mfq_get_last(queue, 1000, &first), "mfq_get_last");
  tell("the first file", first);
  for (int i = 0; i < 200; i++) must(mfq_append(queue, record, sizeof record, &at), "mfq_append");
  must(mfq_flush(queue, at.end, -1), "mfq_flush");
  tell("the same, later", first);

  must(mfq_get_last(queue, 1000, &last), "mfq_get_last");
  tell("the last file", last);
  must(mfq_find(queue, at.offset / 2, &found), "mfq_find");
  tell("half-way", found);
  if (mfq_find(queue, UINT64_MAX, &found) != MFQ_E_END) return 1;

  must(mfq_file_release(found), "mfq_file_release");
  must(mfq_file_release(last), "mfq_file_release");
  must(mfq_close(queue), "mfq_close");
  tell("held after a close", first);
  must(mfq_file_release(first), "mfq_file_release");
  return scratch_remove(path) < 0;
}
