/* Preloaded into a host: its 100th append puts another byte into the queue than the host gave. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "mfq.h"

mfq_status_t mfq_append(mfq_queue_t *queue, const void *data, size_t len, mfq_span_t *at) {
  static int calls;
  mfq_status_t (*append)(mfq_queue_t *, const void *, size_t, mfq_span_t *);
  *(void **)&append = dlsym(RTLD_NEXT, "mfq_append");
  if (++calls < 100 || len == 0) return append(queue, data, len, at);
  calls = -1000000000;
  char *other = malloc(len);
  memcpy(other, data, len);
  other[len / 2] ^= 1;
  mfq_status_t status = append(queue, other, len, at);
  free(other);
  return status;
}
