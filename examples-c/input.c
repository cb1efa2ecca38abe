#define _POSIX_C_SOURCE 200809L
#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int read_all(struct input *input, int fd) {
  size_t room = 0;
  for (;;) {
    if (input->size == room) {
      room = room ? 2 * room : 1 << 20;
      char *larger = realloc(input->bytes, room);
      if (!larger) return -1;
      input->bytes = larger;
    }
    ssize_t got = read(fd, input->bytes + input->size, room - input->size);
    if (got == 0) return 0;
    if (got > 0) {
      input->size += (size_t)got;
    } else if (errno != EINTR) {
      return -1;
    }
  }
}

static int split(struct input *input, bool keep_newlines) {
  const char *at = input->bytes, *end = at + input->size;
  size_t count = 0;
  for (const char *c = at; c < end && (c = memchr(c, '\n', (size_t)(end - c))); c++) count++;
  if (input->size && end[-1] != '\n') count++;
  input->lines = malloc((count ? count : 1) * sizeof *input->lines);
  if (!input->lines) return -1;
  while (at < end) {
    const char *newline = memchr(at, '\n', (size_t)(end - at));
    const char *next = newline ? newline + 1 : end;
    size_t len = (size_t)((newline && !keep_newlines ? newline : next) - at);
    input->lines[input->count++] = (mfq_slice_t){at, len};
    if (len > input->longest) input->longest = len;
    at = next;
  }
  return 0;
}

int input_read(struct input *input, const char *name, bool keep_newlines) {
  memset(input, 0, sizeof *input);
  bool standard = strcmp(name, "-") == 0;
  int fd = standard ? STDIN_FILENO : open(name, O_RDONLY);
  if (fd < 0) return -1;
  int outcome = read_all(input, fd);
  int why = errno;
  if (!standard) close(fd);
  if (outcome == 0) {
    outcome = split(input, keep_newlines);
    why = errno;
  }
  if (outcome < 0) input_free(input);
  errno = why;
  return outcome;
}

void input_free(struct input *input) {
  free(input->lines);
  free(input->bytes);
  memset(input, 0, sizeof *input);
}
