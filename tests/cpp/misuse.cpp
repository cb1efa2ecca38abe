// What a host can do wrong in C++, beside tests/c/misuse.c: each mistake throws mfq::error with its own status and the
// library's sentence, or sets a std::error_code and throws nothing.

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <thread>
#include <tuple>

#include "check.hpp"

using mfq::errc;
using std::chrono::milliseconds;

namespace {

// Both variants of a call fail alike, and the sentence is the same as in C and has the word.
template <class Throwing, class Quiet>
void fails(errc why, const char *word, Throwing throwing, Quiet quiet, const char *call, int line) {
  std::string told;
  try {
    throwing();
    std::printf("misuse.cpp:%d: %s: nothing was thrown\n", line, call);
    failures++;
  } catch (const mfq::error &error) {
    told = error.what();
    const bool same = error.status() == why && error.code() == why && told == mfq::last_error() &&
                      error.os_errno() == mfq_last_errno() && told.find(word) != told.npos;
    if (!same) std::printf("misuse.cpp:%d: %s: %d: %s\n", line, call, error.code().value(), error.what());
    failures += !same;
  }
  std::error_code ec;
  quiet(ec);
  if (ec != why || mfq::last_error() != told) {
    std::printf("misuse.cpp:%d: %s, ec: %d: %s\n", line, call, ec.value(), mfq::last_error().c_str());
    failures++;
  }
}

#define FAILS(why, word, call, ...)                                           \
  fails(                                                                      \
      why, word, [&] { static_cast<void>(call(__VA_ARGS__)); },               \
      [&](std::error_code &ec) { static_cast<void>(call(__VA_ARGS__, ec)); }, \
      #call "(" #__VA_ARGS__ ")", __LINE__)

#define FAILS_BARE(why, word, call)                              \
  fails(                                                         \
      why, word, [&] { static_cast<void>(call()); },             \
      [&](std::error_code &ec) { static_cast<void>(call(ec)); }, \
      #call, __LINE__)

// What no call may touch, before the queue exists.
template <class Spoil>
void refuses(errc why, const char *word, Spoil spoil, int line) {
  mfq::options options = small();
  spoil(options);
  const std::string path = in_work("refused");
  fails(
      why, word, [&] { mfq::queue queue(path, options); },
      [&](std::error_code &ec) {
        mfq::queue queue(path, options, ec);
        CHECK(queue.handle() == nullptr);
      },
      word, line);
  CHECK(access(path.c_str(), F_OK) != 0);
}

#define REFUSES(field, value, word) \
  refuses(errc::invalid, word, [](mfq::options &options) { options.field = (value); }, __LINE__)

void options_that_make_no_sense() {
  REFUSES(struct_size, 0, "struct_size");
  REFUSES(struct_size, sizeof(std::size_t) - 1, "struct_size");
  REFUSES(struct_size, 4097, "struct_size");
  REFUSES(struct_size, SIZE_MAX, "struct_size");
  REFUSES(file_size, 1, "file_size");
  REFUSES(file_size, 65537, "file_size");
  REFUSES(file_size, std::uint64_t(2) << 30, "file_size");
  REFUSES(file_size, UINT64_MAX, "file_size");
  REFUSES(start_offset, std::uint64_t(1) << 63, "start_offset");
  REFUSES(format, 2, "format");
  REFUSES(filler, 2, "filler");
  REFUSES(filler, MFQ_FILLER_ROCKETMQ, "filler");
  REFUSES(mode, 2, "mode");
  REFUSES(flush_policy, 4, "flush_policy");
  REFUSES(flush_interval_ms, -1, "flush_interval_ms");
  REFUSES(commit_interval_ms, -1, "commit_interval_ms");
  REFUSES(files_ahead, UINT32_MAX, "files_ahead");
  REFUSES(permissions, 04600, "permissions");
  REFUSES(permissions, 0400, "permissions");
  REFUSES(flags, 512, "flags");
  REFUSES(flags, UINT32_MAX, "flags");
  REFUSES(flags, MFQ_OPEN_LOCK_POOL, "MFQ_STAGED");
  REFUSES(flags, MFQ_OPEN_POOL_FAIL_FAST, "MFQ_STAGED");
  REFUSES(flags, MFQ_OPEN_ADOPT, "MFQ_OPEN_ADOPT");
  REFUSES(flags, MFQ_OPEN_SALVAGE | MFQ_OPEN_STRICT, "MFQ_OPEN_SALVAGE");
  REFUSES(flags, MFQ_OPEN_SALVAGE | MFQ_OPEN_READ_ONLY, "MFQ_OPEN_SALVAGE");
  REFUSES(walk, mfq_walk_rocketmq, "walk");
  refuses(
      errc::invalid, "pool_buffers",
      [](mfq::options &options) { options.mode = MFQ_STAGED, options.pool_buffers = 1; }, __LINE__);
}

void paths_that_lead_nowhere() {
  mfq::options options = small(), existing = options, reading = options;
  existing.flags = MFQ_OPEN_EXISTING;
  reading.flags = MFQ_OPEN_READ_ONLY;
  const char *null = nullptr;
  FAILS(errc::invalid, "path is NULL", mfq::queue, null, options);
  FAILS(errc::invalid, "path is NULL", mfq::queue, null);
  FAILS(errc::invalid, "path", mfq::queue, "", options);
  FAILS(errc::not_found, "no/parent", mfq::queue, in_work("no/parent"), options);
  FAILS(errc::not_found, "none", mfq::queue, in_work("none"), existing);
  FAILS(errc::not_found, "none", mfq::queue, std::filesystem::path(in_work("none")), reading);
  std::fclose(std::fopen(in_work("file").c_str(), "w"));
  FAILS(errc::invalid, "not a directory", mfq::queue, in_work("file"), options);
  CHECK(mkdir(in_work("target").c_str(), 0700) == 0 && symlink("target", in_work("link").c_str()) == 0);
  FAILS(errc::invalid, "symbolic link", mfq::queue, in_work("link"), options);
  CHECK(access(in_work("none").c_str(), F_OK) != 0);
}

void a_queue_that_is_open_damaged_or_of_another_kind() {
  const std::string path = in_work("kinds");
  mfq::options options = small(), other = options;
  {
    mfq::queue queue(path, options);
    queue.append("a record");
    FAILS(errc::locked, "kinds", mfq::queue, path, options);
  }
  other.file_size *= 2;
  FAILS(errc::invalid, "file_size", mfq::queue, path, other);
  other = options;
  other.format = MFQ_RAW;
  FAILS(errc::invalid, "format", mfq::queue, path, other);
  const std::string strange = path + "/notes.txt";
  std::fclose(std::fopen(strange.c_str(), "w"));
  FAILS(errc::corrupt, "notes.txt", mfq::queue, path, options);
  CHECK(unlink(strange.c_str()) == 0);

  other = options;
  other.flags = MFQ_OPEN_READ_ONLY;
  mfq::queue queue(path, other);
  FAILS(errc::read_only, "", queue.append, "x");
  FAILS(errc::read_only, "", queue.claim, 1);
  FAILS(errc::read_only, "", queue.truncate_after, 0);
}

// Every call on a queue says the same of this one.
void all_refuse_queue(mfq::queue &queue, errc why, const char *word) {
  char buffer[8];
  FAILS(why, word, queue.append, "x");
  FAILS(why, word, queue.appendv, mfq::slices({"x"}));
  FAILS(why, word, queue.append_batch, mfq::slices({"x"}));
  FAILS(why, word, queue.claim, 1);
  FAILS(why, word, queue.read, 0, buffer, sizeof buffer);
  FAILS(why, word, queue.view, 0);
  FAILS(why, word, queue.reader, 0);
  FAILS(why, word, queue.flush, 0, milliseconds(0));
  FAILS(why, word, queue.flush, 0);
  FAILS_BARE(why, word, queue.flush);
  FAILS(why, word, queue.flush_start, 0);
  FAILS_BARE(why, word, queue.flush_start);
  FAILS_BARE(why, word, queue.event_fd);
  FAILS(why, word, queue.wait, mfq::position::committed, 0, milliseconds(0));
  FAILS(why, word, queue.wait, mfq::position::committed, 0);
  FAILS_BARE(why, word, queue.offsets);
  FAILS_BARE(why, word, queue.stats);
  FAILS_BARE(why, word, queue.recovery);
  FAILS(why, word, queue.get_last, milliseconds(0));
  FAILS_BARE(why, word, queue.get_last);
  FAILS(why, word, queue.find, 0);
  FAILS(why, word, queue.truncate_after, 0);
  FAILS(why, word, queue.truncate_before, 0);
  FAILS_BARE(why, word, queue.close);
}

void all_refuse_reader(mfq::reader &reader, errc why, const char *word) {
  FAILS(why, word, reader.next, milliseconds(0));
  FAILS_BARE(why, word, reader.next);
  FAILS(why, word, reader.seek, 0);
  FAILS_BARE(why, word, reader.close);
  try {
    for (const mfq::record &record : reader) CHECK(record.size() == 0 && !"a record of a reader that is none");
    CHECK(!"the loop did not throw");
  } catch (const mfq::error &error) {
    CHECK(error.status() == why);
  }
}

void all_refuse_file(mfq::file &file, errc why, const char *word) {
  FAILS_BARE(why, word, file.info);
  FAILS_BARE(why, word, file.release);
}

void objects_that_hold_nothing_and_objects_that_ended() {
  mfq::queue queue(in_work("ended"), small());
  const mfq::place at = queue.append("a record");
  mfq::reader reader = queue.reader(at.offset);
  mfq::file file = queue.get_last();
  mfq::view view = queue.view(at.offset);
  mfq::claim claim = queue.claim(8), other = queue.claim(8), third = queue.claim(8);

  // Moved from, or never anything else.
  mfq::queue no_queue;
  mfq::reader no_reader;
  mfq::file no_file;
  mfq::view no_view;
  mfq::claim no_claim;
  all_refuse_queue(no_queue, errc::invalid, "queue is NULL");
  all_refuse_reader(no_reader, errc::invalid, "reader is NULL");
  all_refuse_file(no_file, errc::invalid, "file is NULL");
  FAILS_BARE(errc::invalid, "view holds nothing", no_view.release);
  FAILS_BARE(errc::invalid, "claim", no_claim.abort);
  FAILS(errc::invalid, "claim", no_claim.commit, 0);
  FAILS_BARE(errc::invalid, "claim", no_claim.commit);
  mfq::queue moved(std::move(queue));
  all_refuse_queue(queue, errc::invalid, "queue is NULL");

  view.release();
  CHECK(view.data() == nullptr && view.size() == 0 && view.str().empty());
  FAILS_BARE(errc::closed, "view", view.release);
  claim.commit();
  CHECK(claim.data() == nullptr && claim.size() == 0);
  FAILS(errc::closed, "", claim.commit, 0);
  FAILS_BARE(errc::closed, "", claim.commit);
  FAILS_BARE(errc::closed, "", claim.abort);
  other.abort();
  CHECK(other.data() == nullptr && other.size() == 0);
  FAILS(errc::closed, "", other.commit, 0);
  moved.close();
  all_refuse_queue(moved, errc::closed, "queue");
  std::thread([&] { all_refuse_queue(moved, errc::closed, "queue"); }).join();
  // The memory is there until the host says otherwise, though the queue is gone.
  std::memset(third.data(), 'c', third.size());
  FAILS(errc::closed, "queue", third.commit, 8);

  FAILS(errc::closed, "queue", reader.seek, 0);
  reader.close();
  all_refuse_reader(reader, errc::closed, "reader");
  file.release();
  all_refuse_file(file, errc::closed, "file");
}

void arguments_that_make_no_sense() {
  mfq::queue queue(in_work("arguments"), small());
  const mfq::place at = queue.append("0123456789abcdef01234567");
  const mfq_offsets_t before = queue.offsets();
  using mfq::slice;
  const slice none[] = {slice(nullptr, 0)}, bad[] = {slice("x", 1), slice(nullptr, 12)};
  const slice large[] = {slice("x", SIZE_MAX)};

  FAILS(errc::invalid, "data is NULL but len is 12", queue.append, slice(nullptr, 12));
  FAILS(errc::too_large, "", queue.append, slice("x", SIZE_MAX));
  FAILS(errc::too_large, "65536", queue.append, std::string(65536, 'x'));
  FAILS(errc::invalid, "parts is NULL", queue.appendv, mfq::slices(nullptr, 2));
  FAILS(errc::invalid, "parts", queue.appendv, mfq::slices(none, 0));
  FAILS(errc::too_large, "parts", queue.appendv, mfq::slices(none, SIZE_MAX));
  FAILS(errc::invalid, "[1].ptr is NULL", queue.appendv, mfq::slices(bad, 2));
  FAILS(errc::too_large, "parts", queue.appendv, mfq::slices(large, 1));
  for (const auto &[records, why, word] :
       {std::tuple(mfq::slices(nullptr, 2), errc::invalid, "records is NULL"),
        std::tuple(mfq::slices(none, 0), errc::invalid, "records"),
        std::tuple(mfq::slices(none, SIZE_MAX), errc::too_large, "records"),
        std::tuple(mfq::slices(bad, 2), errc::invalid, "[1].ptr is NULL"),
        std::tuple(mfq::slices(large, 1), errc::too_large, "records")}) {
    const mfq::slices batch = records;
    FAILS(why, word, queue.append_batch, batch);
  }
  FAILS(errc::too_large, "", queue.claim, SIZE_MAX);
  FAILS(errc::too_large, "", queue.claim, 65536);

  char buffer[64] = "";
  FAILS(errc::invalid, "buf is NULL but cap is 12", queue.read, at.offset, nullptr, 12);
  FAILS(errc::invalid, "", queue.read, at.offset + 1, buffer, sizeof buffer);
  FAILS(errc::corrupt, "", queue.read, at.offset + 16, buffer, sizeof buffer);
  FAILS(errc::end, "", queue.read, at.end, buffer, sizeof buffer);
  FAILS(errc::too_large, "24", queue.read, at.offset, buffer, 23);
  std::error_code ec;
  CHECK(queue.read(at.offset, nullptr, 0, ec).size == 24 && ec == errc::too_large);
  CHECK(buffer[0] == 0);
  FAILS(errc::end, "", queue.view, at.end);
  FAILS(errc::invalid, "", queue.view, at.offset + 1);
  FAILS(errc::invalid, "", queue.reader, at.offset + 1);
  FAILS(errc::invalid, "up_to", queue.flush, std::uint64_t(INT64_MAX) + 1, milliseconds(0));
  FAILS(errc::invalid, "up_to", queue.flush_start, std::uint64_t(INT64_MAX) + 1);
  FAILS(errc::invalid, "which is 2", queue.wait, static_cast<mfq::position>(2), 0, milliseconds(0));
  FAILS(errc::timeout, "", queue.wait, mfq::position::committed, at.end + 1, milliseconds(1));
  FAILS(errc::invalid, "offset 1", queue.truncate_after, 1);
  FAILS(errc::invalid, "offset", queue.truncate_before, UINT64_MAX);
  FAILS(errc::end, "", queue.find, UINT64_MAX);
  const mfq_offsets_t after = queue.offsets();
  CHECK(std::memcmp(&before, &after, sizeof before) == 0);

  // Nothing, of whatever kind, is an empty record.
  queue.append("");
  queue.append(std::string_view());
  queue.appendv({"", slice(nullptr, 0)});
  queue.append_batch({"", slice(nullptr, 0)});

  mfq::reader reader = queue.reader(queue.offsets().committed);
  CHECK(!reader.next() && !reader.next(milliseconds(1)));
  CHECK(!reader.next(milliseconds(0), ec) && ec == errc::end);
  CHECK(!reader.next(milliseconds(1), ec) && ec == errc::timeout);

  mfq::claim claim = queue.claim(40);
  FAILS(errc::invalid, "", claim.commit, 41);
  FAILS(errc::invalid, "", claim.commit, 30);
  CHECK(claim.size() == 40 && claim.data() != nullptr); // still open
  FAILS(errc::busy, "claim", queue.truncate_after, 0);
  claim.commit(16);

  mfq::options raw = small();
  raw.format = MFQ_RAW;
  mfq::queue bytes(in_work("bytes"), raw);
  FAILS(errc::invalid, "len is 0", bytes.append, "");
  FAILS(errc::invalid, "", bytes.claim, 0);
  mfq::claim alone = bytes.claim(8);
  FAILS(errc::busy, "claim", bytes.append, "x");
  FAILS(errc::busy, "claim", bytes.claim, 1);
}

// A file size limit is as good as a full disk.
void no_space_is_an_error_and_the_next_append_succeeds() {
  mfq::queue queue(in_work("limited"), small());
  const std::string half(32768, 'x');
  rlimit limit;
  CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
  const rlimit tight{4096, limit.rlim_max};
  CHECK(setrlimit(RLIMIT_FSIZE, &tight) == 0);
  std::error_code ec;
  int appended = 0;
  while (queue.append(half, ec), !ec) appended++;
  CHECK(ec == errc::no_space && ec == std::errc::no_space_on_device);
  FAILS(errc::no_space, "limited", queue.append, half);
  CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
  queue.append(half);
  int found = 0;
  for (const mfq::record &record : queue.reader(0)) found += record.size() == half.size();
  CHECK(found == appended + 1);
}

void a_forked_child_is_told() {
  mfq::queue queue(in_work("forked"), small());
  const pid_t child = fork();
  if (child == 0) {
    std::error_code ec;
    queue.append("x", ec);
    bool thrown = false;
    try {
      queue.append("x");
    } catch (const mfq::error &error) {
      thrown = error.status() == errc::forked;
    }
    _exit(ec == errc::forked && thrown ? 0 : 1);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  queue.append("x");
}

}  // namespace

void everything_that_is_wrong_is_told() {
  options_that_make_no_sense();
  paths_that_lead_nowhere();
  a_queue_that_is_open_damaged_or_of_another_kind();
  objects_that_hold_nothing_and_objects_that_ended();
  arguments_that_make_no_sense();
  no_space_is_an_error_and_the_next_append_succeeds();
  a_forked_child_is_told();
}
