#define _POSIX_C_SOURCE 200809L
#include "show.h"

#include <langinfo.h>
#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bool colour, blocks, terminal_errors;

void show_init(void) {
  const char *no_colour = getenv("NO_COLOR"), *term = getenv("TERM");
  bool dumb = !term || strcmp(term, "dumb") == 0;
  setlocale(LC_CTYPE, "");
  blocks = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
  colour = isatty(STDOUT_FILENO) && !dumb && !(no_colour && *no_colour);
  terminal_errors = isatty(STDERR_FILENO) && !dumb;
}

static char *buffer(void) {
  static char buffers[10][40];
  static unsigned next;
  return buffers[next++ % 10];
}

const char *show_count(uint64_t count) {
  char digits[24], *text = buffer(), *to = text;
  int length = snprintf(digits, sizeof digits, "%llu", (unsigned long long)count);
  for (int i = 0; i < length; i++) {
    if (i && (length - i) % 3 == 0) *to++ = ',';
    *to++ = digits[i];
  }
  *to = 0;
  return text;
}

/* Three digits are enough for a person. */
static const char *scaled(double value, double step, const char *const units[], unsigned count) {
  char *text = buffer();
  unsigned unit = 0;
  while (value >= 999.5 && unit + 1 < count) {
    value /= step;
    unit++;
  }
  int whole = value == (double)(uint64_t)value;
  int decimals = whole || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  snprintf(text, 40, "%.*f %s", decimals, value, units[unit]);
  return text;
}

const char *show_bytes(uint64_t bytes) {
  static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  return scaled((double)bytes, 1024, units, 5);
}

const char *show_time(uint64_t ns) {
  static const char *const units[] = {"ns", "us", "ms", "s"};
  return scaled((double)ns, 1000, units, 4);
}

const char *show_bold(void) { return colour ? "\033[1m" : ""; }
const char *show_dim(void) { return colour ? "\033[2m" : ""; }
const char *show_good(void) { return colour ? "\033[32m" : ""; }
const char *show_bad(void) { return colour ? "\033[33m" : ""; }
const char *show_plain(void) { return colour ? "\033[0m" : ""; }

void show_bar(unsigned cells, int light) {
  const char *cell = blocks ? light ? "░" : "█" : light ? "-" : "#";
  while (cells--) fputs(cell, stdout);
}

void show_column(unsigned level) {
  static const char *const high[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  static const char *const plain[] = {"_", ".", ":", "-", "=", "+", "*", "#"};
  fputs((blocks ? high : plain)[level < 8 ? level : 7], stdout);
}

static uint64_t progress_began, progress_shown;

void show_progress(const char *what, uint64_t done, uint64_t total) {
  if (!terminal_errors || !total) return;
  uint64_t now = show_now();
  if (!progress_began) progress_began = now;
  if (now - progress_began < 400000000 || now - progress_shown < 100000000) return;
  progress_shown = now;
  unsigned filled = (unsigned)(30 * done / total);
  fprintf(stderr, "\r\033[K  %-8s ", what);
  for (unsigned i = 0; i < 30; i++) fputs(i < filled ? blocks ? "█" : "#" : blocks ? "░" : "-", stderr);
  fprintf(stderr, " %3u %%", (unsigned)(100 * done / total));
  fflush(stderr);
}

void show_progress_end(void) {
  if (progress_shown) fputs("\r\033[K", stderr);
  progress_began = progress_shown = 0;
}

uint64_t show_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}
