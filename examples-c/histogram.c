#include "histogram.h"

static unsigned log2_of(uint64_t value) {
  unsigned log = 0;
  while (value >>= 1) log++;
  return log;
}

/* Values below HISTOGRAM_PARTS have a bucket each; from there on the highest six bits tell. */
static unsigned bucket_of(uint64_t value) {
  if (value < HISTOGRAM_PARTS) return (unsigned)value;
  unsigned shift = log2_of(value) - 5;
  return (shift + 1) * HISTOGRAM_PARTS + (unsigned)(value >> shift) - HISTOGRAM_PARTS;
}

static uint64_t highest_in(unsigned bucket) {
  if (bucket < HISTOGRAM_PARTS) return bucket;
  unsigned shift = bucket / HISTOGRAM_PARTS - 1;
  return ((uint64_t)(HISTOGRAM_PARTS + bucket % HISTOGRAM_PARTS + 1) << shift) - 1;
}

void histogram_add(struct histogram *histogram, uint64_t value) {
  histogram->buckets[bucket_of(value)]++;
  histogram->count++;
  if (value > histogram->most) histogram->most = value;
}

void histogram_merge(struct histogram *into, const struct histogram *from) {
  for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) into->buckets[i] += from->buckets[i];
  into->count += from->count;
  if (from->most > into->most) into->most = from->most;
}

uint64_t histogram_at(const struct histogram *histogram, double share) {
  double wanted = share * (double)histogram->count;
  uint64_t seen = 0;
  for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
    seen += histogram->buckets[i];
    if (seen && (double)seen >= wanted) return highest_in(i) < histogram->most ? highest_in(i) : histogram->most;
  }
  return histogram->most;
}
