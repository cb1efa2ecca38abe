/* The input: a file or standard input, whole in memory, and its lines. */
#ifndef INPUT_H
#define INPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "mfq.h"

struct input {
  char *bytes;
  size_t size;
  /* Into `bytes`. */
  mfq_slice_t *lines;
  size_t count;
  size_t longest;
};

/* Reads `name`, "-" for standard input. A line is any bytes but a newline; what follows the last newline is a line too,
 * unless it is nothing. Returns -1 and sets errno on failure. */
int input_read(struct input *input, const char *name, bool keep_newlines);

void input_free(struct input *input);

#endif
