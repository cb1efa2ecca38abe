/* Files cut off behind the library's back, under mfq_install_sigbus_guard: arguments are a directory to work in and how many
 * SIGBUS it takes at least. Every one of them is an error of a call, or the host's own affair, and nobody dies. */

#include <mfq.h>

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILE_BYTES ((size_t)1 << 20)

static char path_buf[600];
static const char *dir;
static long page;

static void fail(const char *what, int line) {
  char text[512] = "";
  mfq_last_error(text, sizeof text);
  printf("line %d: not so: %s (last error: %s)\n", line, what, text);
  exit(1);
}

#define CHECK(condition) ((condition) ? (void)0 : fail(#condition, __LINE__))
/* The call fails so, and says why. */
#define FAILS(call, status, word) (CHECK((call) == (status)), CHECK(strstr(last_error(), word) != NULL))
#define WORKS(call) CHECK((call) == MFQ_OK)

static const char *last_error(void) {
  static char text[512];
  mfq_last_error(text, sizeof text);
  return text;
}

static const char *in_dir(const char *name) {
  snprintf(path_buf, sizeof path_buf, "%s/%s", dir, name);
  return path_buf;
}

/* ---- handlers of the host ------------------------------------------------------------------------------------------ */

static sigjmp_buf escape;
static volatile sig_atomic_t foreign, masked, others_before, others_after;
static void *volatile fault_address;
static struct sigaction below;

/* Was there before the guard. */
static void host_handler(int signal, siginfo_t *info, void *context) {
  (void)context;
  sigset_t now;
  sigprocmask(SIG_BLOCK, NULL, &now);
  masked = signal == SIGBUS && sigismember(&now, SIGUSR1);
  fault_address = info->si_addr;
  foreign++;
  siglongjmp(escape, 1);
}

/* Installed after the guard: passes everything on, by what sigaction gave it. */
static void later_handler(int signal, siginfo_t *info, void *context) {
  others_before++;
  below.sa_sigaction(signal, info, context);
  others_after++;
}

static void plain_handler(int signal) {
  (void)signal;
  _exit(42);
}

static volatile char *cut_off_mapping(void) {
  FILE *file = tmpfile();
  CHECK(file != NULL && ftruncate(fileno(file), page) == 0);
  volatile char *bytes = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
  CHECK(bytes != MAP_FAILED && ftruncate(fileno(file), 0) == 0);
  fclose(file);
  return bytes;
}

static void a_foreign_fault_goes_to_the_host(void) {
  volatile char *bytes = cut_off_mapping();
  foreign = 0;
  if (sigsetjmp(escape, 1) == 0) {
    bytes[7] = 1;
    CHECK(!"the host was not asked");
  }
  CHECK(foreign == 1 && masked && fault_address == (void *)&bytes[7]);
  munmap((void *)bytes, (size_t)page);
}

static void set_handler(void (*handler)(int)) {
  struct sigaction action = {.sa_handler = handler};
  sigaction(SIGBUS, &action, NULL);
}

/* How a process ends that does this under the guard, with this handler installed before. */
static int end_of(void (*handler)(int), int by_fault) {
  fflush(stdout);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    set_handler(handler);
    if (mfq_install_sigbus_guard() != MFQ_OK) _exit(1);
    if (by_fault) *cut_off_mapping() = 1;
    else raise(SIGBUS);
    _exit(0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  return status;
}

static void other_signals_do_what_they_did(void) {
  for (int by_fault = 0; by_fault < 2; by_fault++) {
    int status = end_of(SIG_DFL, by_fault);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    status = end_of(plain_handler, by_fault);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
  }
  int status = end_of(SIG_IGN, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  status = end_of(SIG_IGN, 1); /* which the kernel does not let be ignored */
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}

/* ---- faults in the library's files --------------------------------------------------------------------------------- */

static mfq_queue_t *opened(uint32_t format) {
  mfq_options_t options;
  mfq_queue_t *queue;
  mfq_options_init(&options, sizeof options);
  options.file_size = FILE_BYTES;
  options.format = format;
  WORKS(mfq_open(in_dir("queue"), &options, &queue));
  return queue;
}

static void cut_off(off_t len) { CHECK(truncate(in_dir("queue/00000000000000000000"), len) == 0); }

static void end(mfq_queue_t *queue) {
  char command[700];
  FAILS(mfq_append(queue, "x", 1, NULL), MFQ_E_POISONED, "SIGBUS");
  FAILS(mfq_flush(queue, UINT64_MAX, 0), MFQ_E_POISONED, "SIGBUS");
  FAILS(mfq_wait(queue, MFQ_FLUSHED, 1, -1), MFQ_E_POISONED, "SIGBUS");
  FAILS(mfq_close(queue), MFQ_E_POISONED, "SIGBUS");
  snprintf(command, sizeof command, "rm -r '%s'", in_dir("queue"));
  CHECK(system(command) == 0);
}

static char bytes[8000];
static const char *FILE_NAME = "00000000000000000000";

static void appended_to(uint32_t format) {
  mfq_queue_t *queue = opened(format);
  mfq_slice_t parts[2] = {{bytes, 5000}, {bytes, 5000}};
  mfq_offsets_t before = {.struct_size = sizeof before}, after = before;
  mfq_span_t at = {1, 2};
  for (int i = 0; i < 50; i++) WORKS(mfq_append(queue, bytes, sizeof bytes, NULL));
  WORKS(mfq_offsets(queue, &before));
  cut_off(0);
  FAILS(mfq_append_batch(queue, parts, 2, &at), MFQ_E_IO, FILE_NAME);
  CHECK(at.offset == 1 && at.end == 2);
  WORKS(mfq_offsets(queue, &after));
  CHECK(after.committed == before.committed && after.flushed == before.flushed);
  end(queue);
}

static void read_from(uint32_t format) {
  mfq_queue_t *queue = opened(format);
  mfq_reader_t *reader;
  mfq_view_t view, next;
  uint64_t following;
  size_t len;
  static char copy[FILE_BYTES];
  for (int i = 0; i < 120; i++) WORKS(mfq_append(queue, bytes, sizeof bytes, NULL));
  WORKS(mfq_reader_open(queue, 0, &reader));
  WORKS(mfq_view(queue, 0, &view));
  WORKS(mfq_reader_next(reader, 0, &next));
  cut_off(page * 100);
  /* What is still there is read. */
  WORKS(mfq_read(queue, 0, copy, 8000, &len, &following));
  CHECK(len == 8000 && memcmp(copy, bytes, len) == 0);
  /* The host reads the view to its end: in RAW that is all of them. */
  volatile char sum = 0;
  for (size_t i = 0; i < view.len; i += 512) sum += (char)view.ptr[i];
  for (size_t i = 0; i < next.len; i += 512) sum += (char)next.ptr[i];
  (void)sum;
  if (format == MFQ_RAW) {
    FAILS(mfq_view_release(&view), MFQ_E_IO, FILE_NAME);
    FAILS(mfq_view_release(&view), MFQ_E_CLOSED, "");
    FAILS(mfq_reader_next(reader, 0, &next), MFQ_E_IO, FILE_NAME);
  } else {
    mfq_status_t status;
    WORKS(mfq_view_release(&view));
    do status = mfq_reader_next(reader, 0, &next);
    while (status == MFQ_OK);
    FAILS(status, MFQ_E_IO, FILE_NAME);
  }
  FAILS(mfq_read(queue, 104 * (8016), copy, sizeof copy, &len, &following), MFQ_E_IO, FILE_NAME);
  WORKS(mfq_read(queue, 0, copy, 8000, &len, &following));
  CHECK(len == 8000 && memcmp(copy, bytes, len) == 0);
  WORKS(mfq_reader_close(reader));
  end(queue);
}

static void claimed_in(void) {
  mfq_queue_t *queue = opened(MFQ_RECORD);
  mfq_claim_t claim, whole;
  WORKS(mfq_claim(queue, 8000, &whole));
  WORKS(mfq_claim(queue, 500000, &claim));
  memset(whole.ptr, 1, whole.len);
  cut_off(page * 3);
  memset(claim.ptr, 1, claim.len);
  WORKS(mfq_commit(&whole, 8000, NULL));
  FAILS(mfq_commit(&claim, 500000, NULL), MFQ_E_IO, FILE_NAME);
  FAILS(mfq_commit(&claim, 500000, NULL), MFQ_E_CLOSED, "");
  end(queue);
}

static void flushed(void) {
  mfq_queue_t *queue = opened(MFQ_RECORD);
  mfq_file_t *file;
  mfq_file_info_t info = {.struct_size = sizeof info};
  WORKS(mfq_append(queue, bytes, sizeof bytes, NULL));
  WORKS(mfq_get_last(queue, -1, &file));
  WORKS(mfq_file_info(file, &info));
  cut_off(0);
  volatile char sum = 0;
  for (size_t i = 0; i < FILE_BYTES; i += (size_t)page) sum += (char)info.base[i]; /* replaced, and nobody has said so */
  (void)sum;
  FAILS(mfq_flush(queue, UINT64_MAX, -1), MFQ_E_IO, FILE_NAME);
  WORKS(mfq_file_release(file));
  end(queue);
}

static void truncated(void) {
  mfq_queue_t *queue = opened(MFQ_RAW);
  mfq_offsets_t offsets = {.struct_size = sizeof offsets};
  for (int i = 0; i < 3; i++) WORKS(mfq_append(queue, bytes, sizeof bytes, NULL));
  CHECK(truncate(in_dir("queue/.mfq/tail"), 0) == 0);
  FAILS(mfq_truncate_after(queue, sizeof bytes), MFQ_E_IO, "tail");
  WORKS(mfq_offsets(queue, &offsets));
  CHECK(offsets.committed == 3 * sizeof bytes);
  end(queue);
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  dir = argv[1];
  long wanted = atol(argv[2]);
  page = sysconf(_SC_PAGESIZE);
  memset(bytes, 'b', sizeof bytes);
  other_signals_do_what_they_did();

  struct sigaction action, found;
  mfq_queue_t *queue = opened(MFQ_RECORD);
  sigaction(SIGBUS, NULL, &found);
  CHECK(found.sa_handler == SIG_DFL);

  memset(&action, 0, sizeof action);
  action.sa_sigaction = host_handler;
  action.sa_flags = SA_SIGINFO;
  sigaddset(&action.sa_mask, SIGUSR1);
  sigaction(SIGBUS, &action, NULL);
  WORKS(mfq_install_sigbus_guard());
  sigaction(SIGBUS, NULL, &below);
  CHECK(below.sa_flags & SA_ONSTACK && below.sa_flags & SA_SIGINFO && below.sa_sigaction != host_handler);
  a_foreign_fault_goes_to_the_host();

  action.sa_sigaction = later_handler;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &below);
  WORKS(mfq_install_sigbus_guard());
  sigaction(SIGBUS, NULL, &found);
  CHECK(found.sa_sigaction == later_handler);
  a_foreign_fault_goes_to_the_host();

  /* Of a queue that was open before the guard was there. */
  WORKS(mfq_append(queue, bytes, sizeof bytes, NULL));
  cut_off(0);
  FAILS(mfq_append(queue, bytes, sizeof bytes, NULL), MFQ_E_IO, FILE_NAME);
  end(queue);

  others_before = others_after = foreign = 0;
  while (others_after < wanted) {
    appended_to(MFQ_RECORD);
    appended_to(MFQ_RAW);
    read_from(MFQ_RECORD);
    read_from(MFQ_RAW);
    claimed_in();
    flushed();
    truncated();
  }
  CHECK(foreign == 0 && others_before == others_after);
  a_foreign_fault_goes_to_the_host();
  printf("%ld SIGBUS in the library's files, none of them the end\n", (long)others_after);
  return 0;
}
