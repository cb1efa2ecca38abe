/* How often each time was seen, to 3 %, in a fixed amount of memory. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>

/* Each power of two is cut into so many buckets of one width. */
#define HISTOGRAM_PARTS 32
#define HISTOGRAM_BUCKETS (60 * HISTOGRAM_PARTS)

struct histogram {
  uint64_t count;
  uint64_t most;
  uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *histogram, uint64_t value);

void histogram_merge(struct histogram *into, const struct histogram *from);

/* The value that `share` (0 to 1) of all values do not exceed. */
uint64_t histogram_at(const struct histogram *histogram, double share);

#endif
