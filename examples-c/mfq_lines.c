/*
 * Appends the lines of a file or of standard input to a queue, one record each, from as many threads as asked for; has
 * them flushed; closes the queue, opens it again, reads everything back and compares it with the input, byte for byte.
 */
#define _XOPEN_SOURCE 700

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define PROGRAM "mfq_lines"
#include "histogram.h"
#include "input.h"
#include "mfq.h"
#include "scratch.h"
#include "show.h"

#define MOST_THREADS 256
/* Without --passes the input is appended so often that it fills this many files, or comes close to this many bytes. */
#define ENOUGH_FILES 32
#define ENOUGH_BYTES ((uint64_t)256 << 20)

static const char help[] =
    "usage: mfq_lines [OPTION]... FILE\n"
    "Append the lines of FILE (- is standard input) to a queue, one record each, flush,\n"
    "close, open again, read everything back and compare it with the input byte by byte.\n"
    "\n"
    "  -t, --threads=N       append from N threads, each its own part of the lines (1)\n"
    "  -r, --raw             a RAW queue: bytes without frames; newlines are kept in it\n"
    "  -f, --file-size=SIZE  of each file of the queue; K, M and G are understood (1M)\n"
    "  -p, --passes=N        append the input N times (as often as fills 32 files,\n"
    "                        but not more than 256M in all)\n"
    "  -d, --directory=DIR   keep the queue in DIR, and append to what is there\n"
    "                        (a temporary directory, removed at the end)\n"
    "  -h, --help\n"
    "\n"
    "The whole input is held in memory. NO_COLOR is respected.\n"
    "Exit status: 0 all as it was appended, 1 it failed or differs, 2 wrong usage.\n";

struct settings {
  const char *input_name;
  const char *directory;
  uint64_t file_size;
  size_t passes;
  size_t threads;
  bool raw;
};

/* How long the append took that began a file: the one that rolled. */
struct roll {
  uint64_t offset;
  uint64_t ns;
};

struct job {
  struct settings settings;
  struct input input;
  mfq_queue_t *queue;
  /* Where the first record of this run goes. */
  uint64_t begin;
  bool was_empty;
  struct worker *workers;
  pthread_mutex_t mutex;
  pthread_cond_t worker_done;
  size_t workers_done;
  struct roll *rolls;
  size_t roll_count, roll_room;
};

struct worker {
  pthread_t thread;
  struct job *job;
  size_t first_line, line_count;
  /* Where each record went; they only grow, as appends of one thread follow one another. */
  uint64_t *offsets;
  size_t appended;
  struct histogram times;
  bool failed;
  char error[600];
};

/* What took how long, in nanoseconds. */
struct times {
  uint64_t append, flush, close, reopen, read;
};

static bool stop_asked;

static void ask_to_stop(int signal) {
  (void)signal;
  __atomic_store_n(&stop_asked, true, __ATOMIC_RELAXED);
}

static bool stopped(void) { return __atomic_load_n(&stop_asked, __ATOMIC_RELAXED); }

/* Says what failed, in the library's own words. Returns 1, the exit status. */
static int failed(const char *call) {
  char why[512];
  mfq_last_error(why, sizeof why);
  show_progress_end();
  fprintf(stderr, PROGRAM ": %s: %s\n", call, why);
  return 1;
}

static void *memory(size_t count, size_t size) {
  void *memory = calloc(count ? count : 1, size);
  if (!memory) {
    fprintf(stderr, PROGRAM ": no memory for %zu times %zu bytes\n", count, size);
    exit(1);
  }
  return memory;
}

/* ---- Appending ---- */

static void note_roll(struct job *job, uint64_t offset, uint64_t ns) {
  pthread_mutex_lock(&job->mutex);
  if (job->roll_count == job->roll_room) {
    size_t room = job->roll_room ? 2 * job->roll_room : 64;
    struct roll *larger = realloc(job->rolls, room * sizeof *larger);
    if (larger) {
      job->rolls = larger;
      job->roll_room = room;
    }
  }
  if (job->roll_count < job->roll_room) job->rolls[job->roll_count++] = (struct roll){offset, ns};
  pthread_mutex_unlock(&job->mutex);
}

static void append_lines(struct worker *worker) {
  struct job *job = worker->job;
  const struct settings *settings = &job->settings;
  uint64_t before = show_now();
  for (size_t pass = 0; pass < settings->passes; pass++) {
    for (size_t i = 0; i < worker->line_count && !stopped(); i++) {
      const mfq_slice_t *line = &job->input.lines[worker->first_line + i];
      mfq_span_t at;
      if (mfq_append(job->queue, line->ptr, line->len, &at) < 0) {
        char why[512];
        mfq_last_error(why, sizeof why);
        snprintf(worker->error, sizeof worker->error, "line %zu: %s", worker->first_line + i + 1, why);
        worker->failed = true;
        ask_to_stop(0);
        return;
      }
      uint64_t after = show_now();
      histogram_add(&worker->times, after - before);
      worker->offsets[worker->appended++] = at.offset;
      if (at.offset % settings->file_size == 0) note_roll(job, at.offset, after - before);
      before = after;
    }
  }
}

static void *work(void *argument) {
  struct worker *worker = argument;
  struct job *job = worker->job;
  append_lines(worker);
  pthread_mutex_lock(&job->mutex);
  job->workers_done++;
  pthread_cond_signal(&job->worker_done);
  pthread_mutex_unlock(&job->mutex);
  return NULL;
}

/* Until all are done; meanwhile tells how far they are. */
static void wait_for_workers(struct job *job, size_t started, uint64_t total) {
  pthread_mutex_lock(&job->mutex);
  while (job->workers_done < started) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 100000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    if (pthread_cond_timedwait(&job->worker_done, &job->mutex, &until) != ETIMEDOUT) continue;
    mfq_stats_t stats = {.struct_size = sizeof stats};
    if (mfq_stats(job->queue, &stats) == MFQ_OK) show_progress("append", stats.appends, total);
  }
  pthread_mutex_unlock(&job->mutex);
  show_progress_end();
}

static int append_all(struct job *job) {
  size_t threads = job->settings.threads, lines = job->input.count, started = 0;
  int outcome = 0;
  for (; started < threads; started++) {
    struct worker *worker = &job->workers[started];
    worker->job = job;
    worker->first_line = lines * started / threads;
    worker->line_count = lines * (started + 1) / threads - worker->first_line;
    worker->offsets = memory(worker->line_count * job->settings.passes, sizeof *worker->offsets);
  }
  for (started = 0; started < threads; started++) {
    struct worker *worker = &job->workers[started];
    int why = pthread_create(&worker->thread, NULL, work, worker);
    if (why) {
      fprintf(stderr, PROGRAM ": thread %zu of %zu: %s\n", started + 1, threads, strerror(why));
      ask_to_stop(0);
      outcome = 1;
      break;
    }
  }
  wait_for_workers(job, started, (uint64_t)lines * job->settings.passes);
  for (size_t i = 0; i < started; i++) {
    pthread_join(job->workers[i].thread, NULL);
    if (!job->workers[i].failed) continue;
    fprintf(stderr, PROGRAM ": %s: %s\n", job->settings.input_name, job->workers[i].error);
    outcome = 1;
  }
  if (outcome == 0 && stopped()) {
    fputs(PROGRAM ": interrupted\n", stderr);
    outcome = 1;
  }
  return outcome;
}

/* ---- Reading back ---- */

/* Where the comparison is: which record of which thread comes next. */
struct expected {
  struct job *job;
  size_t *taken; /* of each worker */
};

/* The records of all threads in the order of their offsets, which is the order they have to be read in. */
static bool next_expected(struct expected *expected, uint64_t *offset, size_t *line) {
  struct worker *workers = expected->job->workers, *first = NULL;
  size_t taken = 0;
  for (size_t i = 0; i < expected->job->settings.threads; i++) {
    struct worker *worker = &workers[i];
    if (expected->taken[i] == worker->appended) continue;
    if (!first || worker->offsets[expected->taken[i]] < first->offsets[taken]) {
      first = worker;
      taken = expected->taken[i];
    }
  }
  if (!first) return false;
  expected->taken[first - workers]++;
  *offset = first->offsets[taken];
  *line = first->first_line + taken % first->line_count;
  return true;
}

static int differs(const struct job *job, uint64_t offset, size_t line, const char *how) {
  show_progress_end();
  fprintf(stderr, PROGRAM ": %s: line %zu, appended at offset %" PRIu64 ": %s\n", job->settings.input_name, line + 1,
          offset, how);
  return 1;
}

/* RECORD: what the reader gives is a line each time. */
static int compare_records(struct job *job, mfq_reader_t *reader, struct expected *expected, uint64_t total) {
  uint64_t offset, done = 0;
  size_t line;
  mfq_view_t view;
  while (next_expected(expected, &offset, &line)) {
    const mfq_slice_t *wanted = &job->input.lines[line];
    if (mfq_reader_next(reader, 0, &view) < 0) return failed("mfq_reader_next");
    if (view.offset != offset) return differs(job, offset, line, "another record is read in its place");
    if (view.len != wanted->len) return differs(job, offset, line, "its length is another one");
    if (memcmp(view.ptr, wanted->ptr, view.len) != 0) return differs(job, offset, line, "its bytes are others");
    if (++done % 65536 == 0) show_progress("read", done, total);
    if (stopped()) return fputs(PROGRAM ": interrupted\n", stderr), 1;
  }
  return 0;
}

static bool all_zero(const uint8_t *bytes, size_t len) {
  return len == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0);
}

/* RAW: what the reader gives is the rest of a file, lines and then filler. */
static int compare_bytes(struct job *job, mfq_reader_t *reader, struct expected *expected, uint64_t total) {
  uint64_t offset, done = 0;
  size_t line;
  mfq_view_t view = {.offset = job->begin, .end = job->begin};
  uint64_t at = job->begin;
  while (next_expected(expected, &offset, &line)) {
    const mfq_slice_t *wanted = &job->input.lines[line];
    if (offset >= view.end) {
      if (view.ptr && !all_zero(view.ptr + (at - view.offset), view.end - at))
        return differs(job, offset, line, "the filler before it is not zero");
      if (mfq_reader_next(reader, 0, &view) < 0) return failed("mfq_reader_next");
      at = view.offset;
    }
    if (at != offset) return differs(job, offset, line, "other bytes are in its place");
    if (wanted->len > view.end - at) return differs(job, offset, line, "its end is missing");
    if (memcmp(view.ptr + (at - view.offset), wanted->ptr, wanted->len) != 0)
      return differs(job, offset, line, "its bytes are others");
    at += wanted->len;
    if (++done % 65536 == 0) show_progress("read", done, total);
    if (stopped()) return fputs(PROGRAM ": interrupted\n", stderr), 1;
  }
  if (at != view.end) {
    fprintf(stderr, PROGRAM ": bytes are read at offset %" PRIu64 " that nobody appended\n", at);
    return 1;
  }
  return 0;
}

static int read_back(struct job *job, uint64_t total) {
  mfq_reader_t *reader;
  mfq_view_t view;
  if (mfq_reader_open(job->queue, job->begin, &reader) < 0) return failed("mfq_reader_open");
  struct expected expected = {job, memory(job->settings.threads, sizeof(size_t))};
  int outcome = (job->settings.raw ? compare_bytes : compare_records)(job, reader, &expected, total);
  show_progress_end();
  if (outcome == 0 && mfq_reader_next(reader, 0, &view) != MFQ_E_END) {
    fputs(PROGRAM ": more is read than was appended\n", stderr);
    outcome = 1;
  }
  free(expected.taken);
  mfq_reader_close(reader);
  return outcome;
}

/* ---- Telling about it ---- */

static void tell(const char *name) { printf("  %s%-8s%s ", show_bold(), name, show_plain()); }

static void tell_plan(const struct job *job) {
  const struct settings *settings = &job->settings;
  const struct input *input = &job->input;
  printf("%s" PROGRAM "%s on libmfq %s\n\n", show_bold(), show_plain(), mfq_version());
  tell("input");
  printf("%s: %s, %s lines", settings->input_name, show_bytes(input->size), show_count(input->count));
  if (input->count) printf(", the longest %s", show_bytes(input->longest));
  if (settings->passes > 1) printf("; %s times over", show_count(settings->passes));
  putchar('\n');
  tell("queue");
  printf("%s, files of %s, %s thread%s, in %s\n", settings->raw ? "RAW" : "RECORD", show_bytes(settings->file_size),
         show_count(settings->threads), settings->threads > 1 ? "s" : "",
         settings->directory ? settings->directory : "a temporary directory");
  fflush(stdout);
}

static const char *rate(const char *show(uint64_t), uint64_t count, uint64_t ns) {
  return ns ? show((uint64_t)((double)count * 1e9 / (double)ns)) : "";
}

/* One row of the table; what took no time is left out. */
static void tell_step(const char *name, uint64_t records, uint64_t bytes, uint64_t ns) {
  tell(name);
  if (records) {
    printf("%13s  %10s  %9s  %13s  %10s/s\n", show_count(records), show_bytes(bytes), show_time(ns),
           rate(show_count, records, ns), rate(show_bytes, bytes, ns));
  } else {
    printf("%36s\n", show_time(ns));
  }
}

static void tell_steps(const mfq_stats_t *stats, const struct times *times) {
  printf("\n%s%24s  %10s  %9s  %13s  %12s%s\n", show_dim(), "records", "bytes", "time", "records/s", "bytes/s",
         show_plain());
  tell_step("append", stats->appends, stats->bytes, times->append);
  tell_step("flush", 0, 0, times->flush);
  tell_step("close", 0, 0, times->close);
  tell_step("reopen", 0, 0, times->reopen);
  tell_step("read", stats->appends, stats->bytes, times->read);
}

static int by_offset(const void *a, const void *b) {
  uint64_t left = ((const struct roll *)a)->offset, right = ((const struct roll *)b)->offset;
  return (left > right) - (left < right);
}

/* One column for each roll, or for the slowest of several neighbours. Four times the time is one step higher. */
static void tell_roll_chart(struct roll *rolls, size_t count) {
  size_t each = (count + 63) / 64;
  printf("           ");
  for (size_t i = 0; i < count; i += each) {
    uint64_t slowest = 0;
    for (size_t k = i; k < i + each && k < count; k++) {
      if (rolls[k].ns > slowest) slowest = rolls[k].ns;
    }
    unsigned level = 0;
    for (uint64_t limit = 1000; slowest >= limit && level < 7; limit *= 4) level++;
    fputs(level >= 5 ? show_bad() : show_good(), stdout);
    show_column(level);
    fputs(show_plain(), stdout);
  }
  printf("\n           %s", show_dim());
  if (each > 1) printf("the slowest of each %zu; ", each);
  printf("the append that rolled took: ");
  show_column(0);
  printf(" < 1 us  ");
  show_column(3);
  printf(" < 64 us  ");
  show_column(7);
  printf(" > 4 ms%s\n", show_plain());
}

static void tell_rolls(struct job *job, const mfq_stats_t *stats) {
  qsort(job->rolls, job->roll_count, sizeof *job->rolls, by_offset);
  /* The first file of an empty queue is no roll. */
  size_t first = job->was_empty && job->roll_count;
  size_t count = job->roll_count - first;
  uint64_t ready = stats->rolls_ready, waited = stats->rolls_waited;
  putchar('\n');
  tell("rolls");
  fputs(show_count(count), stdout);
  if (ready + waited) {
    fputs("  ", stdout);
    unsigned light = (unsigned)((30 * waited + ready + waited - 1) / (ready + waited));
    fputs(show_good(), stdout);
    show_bar(30 - light, 0);
    fputs(show_bad(), stdout);
    show_bar(light, 1);
    printf("%s  %s found the file ready, %s waited", show_plain(), show_count(ready), show_count(waited));
  }
  putchar('\n');
  if (count) tell_roll_chart(job->rolls + first, count);
}

/* What one look at the clock costs: it is part of each append's time. */
static uint64_t clock_cost(void) {
  enum { LOOKS = 1000 };
  uint64_t began = show_now(), ended = began;
  for (int i = 0; i < LOOKS; i++) ended = show_now();
  return (ended - began) / LOOKS;
}

static void tell_percentiles(const struct job *job) {
  static const struct {
    const char *name;
    double share;
    uint64_t least; /* of fewer values none is above the share */
  } rows[] = {{"50 %", 0.5, 2},        {"90 %", 0.9, 10},          {"99 %", 0.99, 100},
              {"99.9 %", 0.999, 1000}, {"99.99 %", 0.9999, 10000}, {"all", 1, 1}};
  struct histogram *all = memory(1, sizeof *all);
  for (size_t i = 0; i < job->settings.threads; i++) histogram_merge(all, &job->workers[i].times);
  if (all->count) {
    printf("\n  %sTime of an append%s, the %s to read the clock included; twice the time is a cell more\n", show_bold(),
           show_plain(), show_time(clock_cost()));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
      if (all->count < rows[i].least) continue;
      uint64_t ns = histogram_at(all, rows[i].share);
      unsigned cells = 1;
      while (cells < 40 && ns >> cells > 8) cells++;
      printf("  %8s  within %8s  ", rows[i].name, show_time(ns));
      show_bar(cells, 0);
      putchar('\n');
    }
  }
  free(all);
}

static void tell_outcome(struct job *job, const mfq_stats_t *stats, const struct times *times) {
  uint64_t records = (uint64_t)job->input.count * job->settings.passes;
  tell_steps(stats, times);
  tell_rolls(job, stats);
  tell_percentiles(job);
  printf("\n  %s%s records read back, every byte as it was appended.%s\n", show_good(), show_count(records),
         show_plain());
}

/* ---- The whole job ---- */

static mfq_options_t options_of(const struct settings *settings) {
  mfq_options_t options;
  mfq_options_init(&options, sizeof options);
  options.file_size = settings->file_size;
  options.format = settings->raw ? MFQ_RAW : MFQ_RECORD;
  return options;
}

/* Appends, flushes and closes. */
static int write_queue(struct job *job, const char *path, mfq_stats_t *stats, struct times *times) {
  mfq_options_t options = options_of(&job->settings);
  if (mfq_open(path, &options, &job->queue) < 0) return failed("mfq_open");
  tell_plan(job);
  mfq_offsets_t offsets = {.struct_size = sizeof offsets};
  int outcome = mfq_offsets(job->queue, &offsets) < 0 ? failed("mfq_offsets") : 0;
  job->begin = offsets.committed;
  job->was_empty = offsets.committed == offsets.min;

  uint64_t began = show_now();
  if (outcome == 0) outcome = append_all(job);
  times->append = show_now() - began;
  if (outcome == 0 && mfq_stats(job->queue, stats) < 0) outcome = failed("mfq_stats");

  began = show_now();
  if (outcome == 0 && mfq_flush(job->queue, UINT64_MAX, -1) < 0) outcome = failed("mfq_flush");
  times->flush = show_now() - began;

  began = show_now();
  if (mfq_close(job->queue) < 0 && outcome == 0) outcome = failed("mfq_close");
  times->close = show_now() - began;
  return outcome;
}

/* Opens again and compares. */
static int check_queue(struct job *job, const char *path, struct times *times) {
  mfq_options_t options = options_of(&job->settings);
  options.flags = MFQ_OPEN_EXISTING | MFQ_OPEN_READ_ONLY;
  uint64_t began = show_now();
  if (mfq_open(path, &options, &job->queue) < 0) return failed("mfq_open");
  times->reopen = show_now() - began;

  began = show_now();
  int outcome = read_back(job, (uint64_t)job->input.count * job->settings.passes);
  times->read = show_now() - began;
  if (mfq_close(job->queue) < 0 && outcome == 0) outcome = failed("mfq_close");
  return outcome;
}

static int run_in(struct job *job, const char *path) {
  mfq_stats_t stats = {.struct_size = sizeof stats};
  struct times times = {0};
  job->workers = memory(job->settings.threads, sizeof *job->workers);
  int outcome = write_queue(job, path, &stats, &times);
  if (outcome == 0) outcome = check_queue(job, path, &times);
  if (outcome == 0) tell_outcome(job, &stats, &times);
  for (size_t i = 0; i < job->settings.threads; i++) free(job->workers[i].offsets);
  free(job->workers);
  free(job->rolls);
  return outcome;
}

static int run(struct job *job) {
  char path[SCRATCH_MOST];
  if (job->settings.directory) return run_in(job, job->settings.directory);
  if (scratch_make(path) < 0) {
    fprintf(stderr, PROGRAM ": a temporary directory under %s: %s\n", path, strerror(errno));
    return 1;
  }
  int outcome = run_in(job, path);
  if (scratch_remove(path) < 0) {
    fprintf(stderr, PROGRAM ": %s: cannot be removed: %s\n", path, strerror(errno));
    outcome = 1;
  }
  return outcome;
}

/* ---- The command line ---- */

static void usage_error(const char *option, const char *value, const char *wanted) {
  fprintf(stderr, PROGRAM ": %s %s: %s\nTry '" PROGRAM " --help'.\n", option, value, wanted);
  exit(2);
}

static uint64_t number(const char *option, const char *text, uint64_t least, uint64_t most, const char *wanted) {
  static const char units[] = "KMG";
  char *end;
  errno = 0;
  uint64_t value = strtoull(text, &end, 10);
  bool sane = *text >= '0' && *text <= '9' && errno == 0;
  const char *unit = *end ? strchr(units, *end) : NULL;
  if (unit) {
    unsigned shift = 10 * (unsigned)(unit - units + 1);
    sane = sane && value <= UINT64_MAX >> shift;
    value <<= shift;
    end++;
  }
  if (!sane || *end || value < least || value > most) usage_error(option, text, wanted);
  return value;
}

static void parse(int argc, char **argv, struct settings *settings) {
  static const struct option options[] = {
      {"threads", required_argument, NULL, 't'}, {"raw", no_argument, NULL, 'r'},
      {"file-size", required_argument, NULL, 'f'}, {"passes", required_argument, NULL, 'p'},
      {"directory", required_argument, NULL, 'd'}, {"help", no_argument, NULL, 'h'},
      {NULL, 0, NULL, 0}};
  int option;
  *settings = (struct settings){.file_size = 1 << 20, .threads = 1};
  argv[0] = PROGRAM; /* what getopt begins its messages with */
  while ((option = getopt_long(argc, argv, "t:rf:p:d:h", options, NULL)) != -1) {
    switch (option) {
      case 't':
        settings->threads = (size_t)number("--threads", optarg, 1, MOST_THREADS, "wanted: a number from 1 to 256");
        break;
      case 'r': settings->raw = true; break;
      case 'f': settings->file_size = number("--file-size", optarg, 1, UINT64_MAX, "wanted: bytes, such as 1M"); break;
      case 'p':
        settings->passes = (size_t)number("--passes", optarg, 1, UINT32_MAX, "wanted: a number from 1 on");
        break;
      case 'd': settings->directory = optarg; break;
      case 'h': fputs(help, stdout); exit(0);
      default: fputs("Try '" PROGRAM " --help'.\n", stderr); exit(2);
    }
  }
  if (optind + 1 != argc) {
    fputs(optind == argc ? PROGRAM ": no FILE given (- is standard input)\n" : PROGRAM ": more than one FILE given\n",
          stderr);
    fputs("Try '" PROGRAM " --help'.\n", stderr);
    exit(2);
  }
  settings->input_name = argv[optind];
}

/* As often as is enough: a frame of RECORD adds 16 bytes to a line, and what is missing to a multiple of 8. */
static size_t enough_passes(const struct settings *settings, const struct input *input) {
  uint64_t pass = 0;
  for (size_t i = 0; i < input->count; i++) {
    uint64_t len = input->lines[i].len;
    pass += settings->raw ? len : (len + 16 + 7) / 8 * 8;
  }
  if (pass == 0 || pass > ENOUGH_BYTES / 2) return 1;
  if (settings->file_size > ENOUGH_BYTES / ENOUGH_FILES) return (size_t)(ENOUGH_BYTES / pass);
  uint64_t enough = (ENOUGH_FILES * settings->file_size + pass - 1) / pass;
  return (size_t)(enough * pass > ENOUGH_BYTES ? ENOUGH_BYTES / pass : enough);
}

int main(int argc, char **argv) {
  struct job job = {.mutex = PTHREAD_MUTEX_INITIALIZER, .worker_done = PTHREAD_COND_INITIALIZER};
  struct sigaction on_signal = {.sa_handler = ask_to_stop};
  show_init();
  parse(argc, argv, &job.settings);
  if (input_read(&job.input, job.settings.input_name, job.settings.raw) < 0) {
    fprintf(stderr, PROGRAM ": %s: %s\n", job.settings.input_name, strerror(errno));
    return 1;
  }
  /* From here on there may be a temporary directory to remove. */
  sigaction(SIGINT, &on_signal, NULL);
  sigaction(SIGTERM, &on_signal, NULL);
  sigaction(SIGHUP, &on_signal, NULL);
  if (!job.settings.passes) job.settings.passes = enough_passes(&job.settings, &job.input);
  int outcome = run(&job);
  input_free(&job.input);
  if (fflush(stdout) != 0) return 1;
  return outcome;
}
