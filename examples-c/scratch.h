/* A directory for the time of one run, and what a small host does about a failure. Wants PROGRAM, the host's name. */
#ifndef SCRATCH_H
#define SCRATCH_H

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mfq.h"

#define SCRATCH_MOST 4096

static inline int scratch_remove_one(const char *path, const struct stat *stat, int kind, struct FTW *place) {
  (void)stat, (void)kind, (void)place;
  return remove(path);
}

/* Removes the directory with all that is in it. */
static inline int scratch_remove(const char *path) {
  return nftw(path, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Makes a new directory under $TMPDIR or /tmp and writes its path to `path`. Returns -1 and sets errno if it cannot. */
static inline int scratch_make(char path[SCRATCH_MOST]) {
  const char *under = getenv("TMPDIR");
  int length = snprintf(path, SCRATCH_MOST, "%s/" PROGRAM "-XXXXXX", under && *under ? under : "/tmp");
  if (length >= SCRATCH_MOST) {
    errno = ENAMETOOLONG;
    return -1;
  }
  return mkdtemp(path) ? 0 : -1;
}

/* Ends the program, with the library's own words, if a call failed. */
static inline void must(mfq_status_t status, const char *call) {
  char why[512];
  if (status >= 0) return;
  mfq_last_error(why, sizeof why);
  fprintf(stderr, PROGRAM ": %s: %s\n", call, why);
  exit(1);
}

#endif
