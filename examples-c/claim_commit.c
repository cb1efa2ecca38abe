/*
 * A record written where it will lie: mfq_claim gives memory inside the queue and tells its offset before there is a
 * byte in it; mfq_commit makes it a record, shorter if need be; mfq_abort gives it up.
 */
#define _XOPEN_SOURCE 700
#include <inttypes.h>

#define PROGRAM "claim_commit"
#include "scratch.h"

int main(void) {
  char path[SCRATCH_MOST], text[80];
  mfq_queue_t *queue;
  mfq_claim_t first, unwanted;
  mfq_span_t at;
  size_t len;
  uint64_t next;

  if (scratch_make(path) < 0) return perror(PROGRAM ": a temporary directory"), 1;
  must(mfq_open(path, NULL, &queue), "mfq_open");

  must(mfq_claim(queue, 80, &first), "mfq_claim");
  must(mfq_claim(queue, 1000, &unwanted), "mfq_claim");
  must(mfq_append(queue, "appended", 8, &at), "mfq_append");
  printf("claimed offset %" PRIu64 " and offset %" PRIu64 ", appended at %" PRIu64 "\n", first.offset, unwanted.offset,
         at.offset);

  /* Nothing behind an open claim can be read, so that a reader never sees a hole. */
  mfq_status_t status = mfq_wait(queue, MFQ_COMMITTED, at.end, 10);
  printf("with claims open:    %s\n", mfq_strerror(status));

  /* The rest of a claim becomes padding: nothing of it, or 16 bytes and more. */
  int used = snprintf((char *)first.ptr, first.len, "I know that I lie at offset %" PRIu64, first.offset);
  must(mfq_commit(&first, (size_t)used, NULL), "mfq_commit");
  must(mfq_abort(&unwanted), "mfq_abort");
  must(mfq_wait(queue, MFQ_COMMITTED, at.end, 10), "mfq_wait");
  printf("committed, aborted:  all can be read\n");

  for (uint64_t offset = 0; mfq_read(queue, offset, text, sizeof text, &len, &next) == MFQ_OK; offset = next)
    printf("  \"%.*s\"\n", (int)len, text);

  must(mfq_close(queue), "mfq_close");
  return scratch_remove(path) < 0;
}
