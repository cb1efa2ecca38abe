/* dlopen and dlclose, again and again, beside threads that have used the library and end later. Arguments: the library, a
 * directory to work in, how often. Does not link the library. */

#include <mfq.h>

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define THREADS 4

static pthread_barrier_t used, unloaded;
static mfq_queue_t *queue;

static mfq_status_t (*open_queue)(const char *, const mfq_options_t *, mfq_queue_t **);
static mfq_status_t (*close_queue)(mfq_queue_t *);
static mfq_status_t (*append)(mfq_queue_t *, const void *, size_t, mfq_span_t *);
static void (*init)(mfq_options_t *, size_t);

static void check(int so, const char *what) {
  if (so) return;
  fprintf(stderr, "not so: %s\n", what);
  exit(1);
}

#define CHECK(condition) check((condition), #condition)

static void *use(void *argument) {
  CHECK(append(queue, "x", 1, NULL) == MFQ_OK);
  CHECK(close_queue(argument) == MFQ_E_INVALID); /* leaves a sentence in a thread-local */
  pthread_barrier_wait(&used);
  pthread_barrier_wait(&unloaded);
  return NULL; /* and its thread-locals are taken down now */
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  int cycles = atoi(argv[3]);
  for (int cycle = 0; cycle < cycles; cycle++) {
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL);
    /* ISO C has no conversion from an object to a function; POSIX says that this works. */
    *(void **)&open_queue = dlsym(library, "mfq_open");
    *(void **)&close_queue = dlsym(library, "mfq_close");
    *(void **)&append = dlsym(library, "mfq_append");
    *(void **)&init = dlsym(library, "mfq_options_init");
    mfq_options_t options;
    init(&options, sizeof options);
    options.file_size = 65536;
    CHECK(open_queue(argv[2], &options, &queue) == MFQ_OK);
    pthread_t threads[THREADS];
    pthread_barrier_init(&used, NULL, THREADS + 1);
    pthread_barrier_init(&unloaded, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, use, NULL);
    pthread_barrier_wait(&used);
    /* Every other time the queue is left open: the library's own thread goes on. */
    mfq_queue_t *left = queue;
    if (cycle % 2 == 0) CHECK(close_queue(queue) == MFQ_OK);
    CHECK(dlclose(library) == 0);
    pthread_barrier_wait(&unloaded);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    if (cycle % 2 != 0) {
      library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
      *(void **)&close_queue = dlsym(library, "mfq_close");
      CHECK(close_queue(left) == MFQ_OK); /* it is the same one */
      dlclose(library);
    }
  }
  printf("%d cycles\n", cycles);
  return 0;
}
