/* Numbers, bars and colours for a person. Colour on a terminal only, block characters in a UTF-8 locale only. */
#ifndef SHOW_H
#define SHOW_H

#include <stddef.h>
#include <stdint.h>

void show_init(void);

/* These give one of a few static buffers: use it up before the tenth call after. One thread only. */
const char *show_count(uint64_t count);  /* 1,234,567 */
const char *show_bytes(uint64_t bytes);  /* 12.3 MiB */
const char *show_time(uint64_t ns);      /* 12.3 us */

/* Escape sequences, or nothing. */
const char *show_bold(void);
const char *show_dim(void);
const char *show_good(void);
const char *show_bad(void);
const char *show_plain(void);

/* Prints `cells` cells of a bar: full ones, or light ones. */
void show_bar(unsigned cells, int light);

/* Prints one column of a chart, lowest at `level` 0, highest at 7. */
void show_column(unsigned level);

/* On a terminal tells how far long work is, on one line of standard error; nothing at first, as most work is short. */
void show_progress(const char *what, uint64_t done, uint64_t total);
void show_progress_end(void);

/* Nanoseconds of the monotonic clock. */
uint64_t show_now(void);

#endif
