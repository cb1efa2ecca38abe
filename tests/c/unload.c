/* A host that knows the library only by dlopen: again and again it loads it, finds every function, lives the short life of
 * a queue, and unloads it, beside threads that have used the library and end later. Arguments: the library, a directory
 * to work in, how often, and the names of all functions. Does not link the library. */

#include <mfq.h>

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 4

/* What is called here, with the types of the header. */
#define CALLED(F)                                                                                                    \
  F(mfq_abi_version) F(mfq_version) F(mfq_last_error) F(mfq_options_init) F(mfq_open) F(mfq_close) F(mfq_append)     \
  F(mfq_claim) F(mfq_commit) F(mfq_flush) F(mfq_offsets) F(mfq_view) F(mfq_view_release) F(mfq_reader_open)          \
  F(mfq_reader_next) F(mfq_reader_close)

static struct {
#define MEMBER(name) __typeof__(name) *name;
  CALLED(MEMBER)
} lib;

static pthread_barrier_t used, unloaded, over;
static mfq_queue_t *queue;

static void check(int so, const char *what, const char *about) {
  if (so) return;
  fprintf(stderr, "not so: %s (%s)\n", what, about);
  exit(1);
}

#define CHECK(condition) check((condition), #condition, "")

/* ISO C has no conversion from an object to a function; POSIX says that this works. */
static void find(void *library, void *function, const char *name) {
  *(void **)function = dlsym(library, name);
  check(*(void **)function != NULL, "dlsym finds it", name);
}

/* Every function of the library is found, and in the library. */
static void *load(const char *path, char **names) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  check(library != NULL, "dlopen loads it", path);
#define FIND(name) find(library, &lib.name, #name);
  CALLED(FIND)
  CHECK(lib.mfq_abi_version() == MFQ_ABI_VERSION);
  CHECK(strcmp(lib.mfq_version(), MFQ_VERSION) == 0);
  for (; *names != NULL; names++) {
    void *function;
    Dl_info from;
    find(library, &function, *names);
    check(dladdr(function, &from) != 0 && strcmp(from.dli_fname, path) == 0, "it is the library's", *names);
  }
  return library;
}

/* The header says that it stays, which is why nothing below can go wrong. */
static void unload(void *library, const char *path) {
  CHECK(dlclose(library) == 0);
  memset(&lib, 0, sizeof lib);
  void *stayed = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
  check(stayed != NULL, "it stays loaded", path);
  CHECK(dlclose(stayed) == 0);
}

static void leave_a_sentence(void) {
  char text[512];
  CHECK(lib.mfq_close(NULL) == MFQ_E_INVALID);
  CHECK(lib.mfq_last_error(text, sizeof text) > 0 && strstr(text, "queue is NULL") != NULL);
}

static void *use(void *nothing) {
  CHECK(lib.mfq_append(queue, "x", 1, NULL) == MFQ_OK);
  leave_a_sentence(); /* in a thread-local */
  pthread_barrier_wait(&used);
  pthread_barrier_wait(&unloaded);
  return nothing; /* and its thread-locals are taken down now */
}

/* Uses the library once, after its first dlopen, and ends behind the last dlclose. */
static void *outlive(void *nothing) {
  leave_a_sentence();
  pthread_barrier_wait(&used);
  pthread_barrier_wait(&over);
  return nothing;
}

static void live(void) {
  mfq_span_t at;
  mfq_claim_t claim;
  mfq_view_t view;
  mfq_reader_t *reader;
  mfq_offsets_t offsets = {.struct_size = sizeof offsets};
  CHECK(lib.mfq_append(queue, "appended", 8, &at) == MFQ_OK);
  CHECK(lib.mfq_claim(queue, 7, &claim) == MFQ_OK);
  memcpy(claim.ptr, "claimed", 7);
  CHECK(lib.mfq_reader_open(queue, at.offset, &reader) == MFQ_OK);
  CHECK(lib.mfq_reader_next(reader, 1000, &view) == MFQ_OK);
  CHECK(view.len == 8 && memcmp(view.ptr, "appended", 8) == 0);
  CHECK(lib.mfq_reader_close(reader) == MFQ_OK);
  CHECK(lib.mfq_commit(&claim, 7, &at) == MFQ_OK);
  CHECK(lib.mfq_flush(queue, at.end, -1) == MFQ_OK); /* waits for the writers before it, too */
  CHECK(lib.mfq_view(queue, at.offset, &view) == MFQ_OK);
  CHECK(view.len == 7 && memcmp(view.ptr, "claimed", 7) == 0);
  CHECK(lib.mfq_view_release(&view) == MFQ_OK);
  CHECK(lib.mfq_offsets(queue, &offsets) == MFQ_OK && offsets.flushed >= at.end);
}

int main(int argc, char **argv) {
  if (argc < 5) return 2;
  const char *path = argv[1];
  int cycles = atoi(argv[3]);
  char **names = argv + 4;
  pthread_t threads[THREADS], longest;
  pthread_barrier_init(&over, NULL, 2);
  for (int cycle = 0; cycle < cycles; cycle++) {
    int first = cycle == 0;
    void *library = load(path, names);
    mfq_options_t options;
    lib.mfq_options_init(&options, sizeof options);
    options.file_size = 65536;
    CHECK(lib.mfq_open(argv[2], &options, &queue) == MFQ_OK);
    pthread_barrier_init(&used, NULL, THREADS + 1 + first);
    pthread_barrier_init(&unloaded, NULL, THREADS + 1);
    if (first) pthread_create(&longest, NULL, outlive, NULL);
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, use, NULL);
    live();
    pthread_barrier_wait(&used);
    /* Every other time the queue is left open: the library's own thread goes on. */
    mfq_queue_t *left = queue;
    if (cycle % 2 == 0) CHECK(lib.mfq_close(queue) == MFQ_OK);
    unload(library, path);
    pthread_barrier_wait(&unloaded);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&used);
    pthread_barrier_destroy(&unloaded);
    if (cycle % 2 != 0) {
      library = load(path, names);
      CHECK(lib.mfq_close(left) == MFQ_OK); /* it is the same one */
      unload(library, path);
    }
  }
  pthread_barrier_wait(&over);
  pthread_join(longest, NULL);
  printf("%d cycles, %td functions\n", cycles, argv + argc - names);
  return 0;
}
