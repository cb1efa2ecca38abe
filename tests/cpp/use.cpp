// What a host does with mfq.hpp, on real lines. Run with an empty directory to work in and a file of text.

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "check.hpp"

#if __cplusplus >= 202002L
#include <ranges>
static_assert(std::ranges::input_range<mfq::reader> && std::ranges::input_range<mfq::reader::range>);
#endif

using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

namespace {

std::vector<std::string> lines;

// ---- what the compiler can tell ----

template <class T>
constexpr bool owns = std::is_nothrow_default_constructible_v<T> && std::is_nothrow_move_constructible_v<T> &&
                      std::is_nothrow_move_assignable_v<T> && !std::is_copy_constructible_v<T> &&
                      !std::is_copy_assignable_v<T>;
static_assert(owns<mfq::queue> && owns<mfq::reader> && owns<mfq::view> && owns<mfq::claim> && owns<mfq::file>);
static_assert(std::is_trivially_copyable_v<mfq::record>);
// A record of a view that stays, and none of one that is gone at the end of the line.
static_assert(std::is_constructible_v<mfq::record, const mfq::view &>);
static_assert(!std::is_constructible_v<mfq::record, mfq::view> && !std::is_assignable_v<mfq::record &, mfq::view>);
static_assert(!std::is_constructible_v<mfq::record, const mfq::view>);
static_assert(!std::is_constructible_v<std::optional<mfq::record>, mfq::view>);
static_assert(std::is_nothrow_copy_constructible_v<mfq::not_durable>);
static_assert(std::is_base_of_v<std::system_error, mfq::error>);
// Braces in the place of the options are the defaults, and no mfq_options_t that is zeroed.
static_assert(!std::is_constructible_v<mfq::queue, mfq::path, mfq_options_t>);
static_assert(std::is_constructible_v<mfq::queue, mfq::path, mfq::options>);

constexpr std::int32_t ms(mfq::timeout within) { return within.ms(); }
static_assert(ms(0s) == 0 && ms(-1s) == 0 && ms(1s) == 1000 && ms(1500us) == 2 && ms(1ns) == 1);
static_assert(ms(std::chrono::milliseconds(INT32_MAX - 1)) == INT32_MAX - 1);
static_assert(ms(mfq::forever) == -1 && ms(1000h) == -1 && ms(std::chrono::hours::max()) == -1);
static_assert(ms(std::chrono::duration<double>(0.25)) == 250 && ms(std::chrono::hours::min()) == 0);

static_assert(std::is_convertible_v<const char *, mfq::slice> && std::is_convertible_v<std::string, mfq::slice>);
static_assert(std::is_convertible_v<std::array<unsigned char, 3>, mfq::slice>);
static_assert(std::is_convertible_v<mfq::view, mfq::slice> && std::is_convertible_v<mfq::record, mfq::slice>);
static_assert(!std::is_constructible_v<mfq::slice, std::nullptr_t>);
static_assert(!std::is_convertible_v<std::vector<int>, mfq::slice> && !std::is_convertible_v<std::wstring, mfq::slice>);

// With a place for the error nothing is thrown.
[[maybe_unused]] void throws_nothing(mfq::queue &q, mfq::reader &reader, mfq::claim &claim, mfq::view &view,
                                     mfq::file &file, std::error_code &ec, mfq::path path, const mfq::options &how,
                                     mfq::slice bytes, mfq::slices list, mfq::timeout within, mfq::place *at,
                                     void *buffer) {
  static_assert(
      noexcept(mfq::queue(path, how, ec)) && noexcept(mfq::queue(path, ec)) && noexcept(q.close(ec)) &&
      noexcept(q.append(bytes, ec)) && noexcept(q.appendv(list, ec)) && noexcept(q.append_batch(list, at, ec)) &&
      noexcept(q.claim(1, ec)) && noexcept(q.read(0, buffer, 1, ec)) && noexcept(q.view(0, ec)) &&
      noexcept(q.reader(0, ec)) && noexcept(q.flush(0, within, ec)) && noexcept(q.flush(0, ec)) &&
      noexcept(q.flush(ec)) && noexcept(q.flush_start(0, ec)) && noexcept(q.flush_start(ec)) &&
      noexcept(q.event_fd(ec)) && noexcept(q.wait(mfq::position::flushed, 0, within, ec)) &&
      noexcept(q.wait(mfq::position::flushed, 0, ec)) && noexcept(q.offsets(ec)) && noexcept(q.stats(ec)) &&
      noexcept(q.recovery(ec)) && noexcept(q.get_last(within, ec)) && noexcept(q.get_last(ec)) &&
      noexcept(q.find(0, ec)) && noexcept(q.truncate_after(0, ec)) && noexcept(q.truncate_before(0, ec)) &&
      noexcept(reader.next(within, ec)) && noexcept(reader.next(ec)) && noexcept(reader.seek(0, ec)) &&
      noexcept(reader.close(ec)) && noexcept(claim.commit(1, ec)) && noexcept(claim.commit(ec)) &&
      noexcept(claim.abort(ec)) && noexcept(view.release(ec)) && noexcept(file.info(ec)) && noexcept(file.memory(ec)) &&
      noexcept(file.release(ec)));
}

// ---- appending and reading ----

void lines_come_back_however_they_are_given_and_read() {
  const std::string path = in_work("lines");
  {
    mfq::queue queue(std::filesystem::path(path), small());
    for (std::size_t i = 0; i < lines.size(); i++) {
      const std::string &line = lines[i];
      switch (i % 5) {
        case 0: queue.append(line); break;
        case 1: queue.append(std::string_view(line)); break;
        case 2: queue.append(line.c_str()); break;
        case 3: queue.append(std::vector<std::uint8_t>(line.begin(), line.end())); break;
        case 4: queue.append({line.data(), line.size()}); break;
      }
    }
  }
  // It was closed by its destructor.
  mfq::queue queue(path);
  CHECK(queue.recovery().ended == MFQ_ENDED_CLEAN);

  mfq::reader reader = queue.reader(0);
  std::size_t i = 0;
  std::uint64_t offset = 0;
  for (const mfq::record &record : reader) {
    CHECK(i < lines.size() && record.str() == lines[i]);
    const mfq::view view = queue.view(offset);
    CHECK(view.str() == lines[i] && view.offset() == record.offset() && view.next() == record.next());
    std::vector<char> buffer(lines[i].size());
    const auto [size, next] = queue.read(offset, buffer.data(), buffer.size());
    CHECK(size == lines[i].size() && next == view.next() && std::string(buffer.data(), size) == lines[i]);
    const auto age = std::chrono::system_clock::now() - record.time();
    CHECK(age > -1min && age < 1h);
#if __cplusplus >= 202002L
    const std::span<const std::byte> bytes = record.bytes();
    CHECK(bytes.size() == record.size() && static_cast<const void *>(bytes.data()) == record.data());
#endif
    offset = record.next();
    i++;
  }
  CHECK(i == lines.size() && offset == queue.offsets().committed && queue.offsets().min == 0);

  reader.seek(0);
  i = 0;
  while (const std::optional<mfq::record> record = reader.next()) CHECK(record->str() == lines[i++]);
  CHECK(i == lines.size());
  reader.seek(0);
  std::error_code ec = mfq::errc::panic;
  i = 0;
  while (const auto record = reader.next(0ms, ec)) CHECK(!ec && record->str() == lines[i++]);
  CHECK(i == lines.size() && ec == mfq::errc::end);
}

void parts_and_batches() {
  mfq::queue queue(in_work("parts"), small());
  std::vector<mfq::slice> parts;
  std::string joined;
  for (std::size_t i = 0; i < 10; i++) parts.push_back(lines[i]), joined += lines[i];
  const mfq::place at = queue.appendv(parts);
  CHECK(queue.view(at.offset).str() == joined);
  std::error_code ec = mfq::errc::panic;
  CHECK(queue.view(queue.appendv({lines[0], ": ", lines[1]}, ec).offset).str() == lines[0] + ": " + lines[1] && !ec);

  const std::vector<mfq::place> places = queue.append_batch(parts);
  CHECK(places.size() == parts.size());
  mfq::place noted[2];
  queue.append_batch({lines[0], lines[1]}, noted, ec);
  CHECK(!ec);
  const std::vector<mfq::place> told = queue.append_batch(parts, ec);
  CHECK(!ec && told.size() == parts.size() && queue.view(told.back().offset).str() == lines[9]);
  for (std::size_t i = 0; i < parts.size(); i++) CHECK(queue.view(places[i].offset).str() == lines[i]);
  for (std::size_t i = 0; i < 2; i++) CHECK(queue.view(noted[i].offset).str() == lines[i]);
  // What was read is appended as it lies there.
  CHECK(queue.view(queue.append(queue.view(at.offset)).offset).str() == joined);
}

void threads_share_a_queue() {
  mfq::queue queue(in_work("threads"), small());
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; t++)
    threads.emplace_back([&queue, t] {
      const std::string name(1, static_cast<char>('a' + t));
      for (const std::string &line : lines) queue.appendv({name, line});
    });
  for (std::thread &thread : threads) thread.join();
  std::size_t seen[4] = {}, wrong = 0;
  for (const mfq::record &record : queue.reader(0)) {
    std::size_t &i = seen[(record.str()[0] - 'a') % 4];
    wrong += i >= lines.size() || record.str().substr(1) != lines[i];
    i++;
  }
  for (std::size_t count : seen) CHECK(count == lines.size());
  CHECK(wrong == 0 && queue.stats().appends == 4 * lines.size());
}

void all_threads_are_told_that_the_queue_was_closed() {
  mfq::queue queue(in_work("closed"), small());
  std::atomic<std::size_t> began{0}, told{0};
  const auto until_closed = [&](auto call) {
    return std::thread([&, call] {
      for (bool first = true;; first = false) {
        std::error_code ec;
        call(ec);
        if (ec == mfq::errc::closed) break;
        if (ec) return CHECK(!"another failure");
        began += first;
      }
      told++;
    });
  };
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 2; t++) {
    threads.push_back(until_closed([&, t](std::error_code &ec) { queue.append(lines[t], ec); }));
    threads.push_back(until_closed([&](std::error_code &ec) { queue.offsets(ec); }));
  }
  while (began < threads.size()) std::this_thread::yield();
  for (std::size_t t = 0; t < 2; t++)
    threads.push_back(until_closed([&](std::error_code &ec) { queue.close(ec); }));
  for (std::thread &thread : threads) thread.join();
  CHECK(told == threads.size());
}

// ---- ownership ----

bool is_mapped(const std::string &file) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    if (line.find(file) != line.npos) return true;
  return false;
}

// A file that is removed stays mapped as long as something in it is held.
void views_hold_their_file_until_they_end() {
  mfq::queue queue(in_work("views"), small());
  const std::string first = in_work("views") + "/00000000000000000000";
  while (queue.offsets().wrote < 2 * 65536) queue.append(lines[3]);
  mfq::view view = queue.view(0), other = queue.view(65536);
  {
    const mfq::view second = queue.view(0);
    queue.truncate_before(65536);
  }
  CHECK(is_mapped(first) && view.str() == lines[3]);
  view = std::move(other); // the file is let go
  for (const auto deadline = clock_type::now() + 30s; is_mapped(first) && clock_type::now() < deadline;)
    queue.truncate_before(65536);
  CHECK(!is_mapped(first) && view.str() == lines[3]);
}

void what_is_moved_ends_once() {
  const std::string path = in_work("moved"), other_path = in_work("other");
  mfq::queue queue(path, small());
  queue = mfq::queue(other_path, small());
  mfq::queue again(path, small()); // the assignment has closed it
  mfq::queue &self = queue;
  queue = std::move(self);
  queue.append(lines[0]);

  std::vector<mfq::view> views;
  for (std::size_t i = 0; i < 100; i++) views.push_back(queue.view(queue.append(lines[i]).offset));
  std::swap(views[0], views[99]);
  views[1] = std::move(views[2]);
  CHECK(views[0].str() == lines[99] && views[1].str() == lines[2]);

  std::vector<mfq::claim> claims;
  for (std::size_t i = 0; i < 10; i++) claims.push_back(queue.claim(16));
  CHECK(queue.stats().open_claims == 10);
  claims[0] = std::move(claims[1]);
  CHECK(queue.stats().open_claims == 9);
  claims.clear();
  CHECK(queue.stats().open_claims == 0);

  mfq::reader reader = queue.reader(0);
  mfq::reader moved = std::move(reader);
  reader = std::move(moved);
  mfq::file file = queue.get_last(1s);
  const mfq_file_info_t info = file.info();
  CHECK(info.start == 0 && info.size == 65536);
  const std::string_view memory = file.memory();
  CHECK(memory.data() == reinterpret_cast<const char *>(info.base) && memory.size() == info.size);

  // What is held ends with its object: the handles are kept here behind its back.
  mfq_queue_t *queue_handle;
  mfq_reader_t *reader_handle;
  mfq_file_t *file_handle;
  {
    mfq::queue short_lived(in_work("short"), small());
    mfq::reader short_reader = short_lived.reader(0);
    mfq::file short_file = short_lived.get_last();
    queue_handle = short_lived.handle(), reader_handle = short_reader.handle(), file_handle = short_file.handle();
  }
  mfq_file_info_t told{};
  told.struct_size = sizeof told;
  CHECK(mfq_flush_start(queue_handle, 0) == MFQ_E_CLOSED && mfq_reader_seek(reader_handle, 0) == MFQ_E_CLOSED);
  CHECK(mfq_file_info(file_handle, &told) == MFQ_E_CLOSED);

  // And it outlives the queue.
  queue.close();
  CHECK(views[3].str() == lines[3] && file.info().base == info.base);
  views[3].release();
  file.release();
  reader.close();
  mfq::queue free_again(other_path, small());
}

void claims_are_written_in_place() {
  mfq::queue queue(in_work("claims"), small());
  mfq::place at;
  {
    mfq::claim whole = queue.claim(lines[0].size());
    std::memcpy(whole.data(), lines[0].data(), whole.size());
#if __cplusplus >= 202002L
    CHECK(static_cast<void *>(whole.bytes().data()) == whole.data() && whole.bytes().size() == whole.size());
#endif
    const std::uint64_t offset = whole.offset();
    at = whole.commit();
    CHECK(at.offset == offset && queue.view(offset).str() == lines[0]);
  }
  mfq::claim part = queue.claim(80);
  const int used = std::snprintf(part.data(), part.size(), "I lie at %llu", (unsigned long long)part.offset());
  std::error_code ec = mfq::errc::panic;
  const mfq::place second = part.commit(std::size_t(used), ec);
  CHECK(!ec && queue.view(second.offset).str() == "I lie at " + std::to_string(second.offset));
  try {
    const mfq::claim given_up = queue.claim(100);
    throw std::runtime_error("the host has a problem");
  } catch (const std::runtime_error &) {
  }
  const mfq::place third = queue.append(lines[1]);
  queue.wait(mfq::position::committed, third.end, 10s); // nothing holds it up
  std::size_t count = 0;
  for (const mfq::record &record : queue.reader(0)) CHECK(record.size() < 80), count++;
  CHECK(count == 3);
}

// ---- waiting ----

void a_loop_tails_until_its_deadline() {
  mfq::queue queue(in_work("tail"), small());
  std::thread writer([&queue] {
    for (const std::string &line : lines) queue.append(line);
  });
  mfq::reader reader = queue.reader(0);
  std::size_t i = 0;
  for (const mfq::record &record : reader.tail_until(clock_type::now() + 60.5s)) {
    CHECK(record.str() == lines[i]);
    if (++i == lines.size()) break;
  }
  writer.join();
  CHECK(i == lines.size());

  const auto deadline = clock_type::now() + 30ms;
  for (const mfq::record &record : reader.tail_until(deadline)) CHECK(record.size() == 0 && !"there is nothing more");
  CHECK(clock_type::now() >= deadline);
  // It ends a loop that could go on, and the next loop goes on.
  queue.append("more");
  for (const mfq::record &record : reader.tail_until(deadline)) CHECK(record.size() == 0 && !"it is too late");
  for (const mfq::record &record : reader.tail_until(clock_type::time_point::min()))
    CHECK(record.size() == 0 && !"it always was too late");
  for (const mfq::record &record : reader) CHECK(record.str() == "more"), i++;
  CHECK(i == lines.size() + 1);
}

// The deadline counts though there is always a next record.
void a_deadline_ends_a_loop_that_never_runs_dry() {
  mfq::queue queue(in_work("stream"), small());
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    while (!stop) queue.append(lines[0]);
  });
  mfq::reader reader = queue.reader(0);
  for (const mfq::record &record : reader.tail_until(clock_type::now() + 50ms)) CHECK(record.str() == lines[0]);
  stop = true;
  writer.join();
}

// Whether a thread of this process comes to sleep, as one does that waits in the library.
bool falls_asleep(pid_t thread) {
  const std::string path = "/proc/self/task/" + std::to_string(thread) + "/stat";
  for (const auto deadline = clock_type::now() + 30s; clock_type::now() < deadline; std::this_thread::yield()) {
    std::string told;
    std::getline(std::ifstream(path), told);
    if (told.find(") S ") != told.npos) return true;
  }
  return false;
}

void close_ends_a_loop_that_would_wait_for_ever() {
  mfq::queue queue(in_work("forever"), small());
  queue.append("something");
  for (const bool close_queue : {false, true}) {
    mfq::reader reader = queue.reader(0);
    std::atomic<pid_t> waits{0}; // the thread that has seen everything, and goes on to wait
    std::atomic<std::size_t> seen{0};
    std::thread tailing([&] {
      try {
        for (const mfq::record &record : reader.tail()) {
          CHECK(record.str() == "something");
          seen++;
          waits = gettid();
        }
        CHECK(!"the loop ended by itself");
      } catch (const mfq::error &error) {
        CHECK(error.status() == mfq::errc::closed);
      }
    });
    while (waits == 0) std::this_thread::yield();
    CHECK(falls_asleep(waits));
    close_queue ? queue.close() : reader.close();
    tailing.join();
    CHECK(seen == 1);
  }
}

void flushes_are_told_by_the_event_descriptor() {
  mfq::queue queue(in_work("flush"), small());
  mfq::place at = queue.append(lines[0]);
  queue.flush();
  CHECK(queue.offsets().flushed == at.end);
  at = queue.append(lines[1]);
  queue.flush(at.end, 10s);
  queue.wait(mfq::position::flushed, at.end, 0s);

  const int fd = queue.event_fd();
  std::error_code ec = mfq::errc::panic;
  CHECK(fd >= 0 && queue.event_fd(ec) == fd && !ec);
  at = queue.append(lines[2]);
  queue.flush_start(at.end);
  while (queue.offsets().flushed < at.end) {
    pollfd polled = {fd, POLLIN, 0};
    std::uint64_t events;
    if (poll(&polled, 1, 30000) != 1 || read(fd, &events, sizeof events) != sizeof events) return CHECK(!"an event");
  }
  queue.wait(mfq::position::flushed, at.end, 0s, ec);
  CHECK(!ec);

  const mfq::claim open = queue.claim(8);
  queue.flush(mfq::everything, 10ms, ec);
  CHECK(ec == mfq::errc::timeout && ec == std::errc::timed_out);
}

// The one failure of an append after which the record is there.
void what_is_not_durable_in_time_tells_its_place() {
  mfq::options options = small();
  options.flush_policy = MFQ_FLUSH_EVERY_APPEND;
  options.append_timeout_ms = 20;
  mfq::queue queue(in_work("durable"), options);
  queue.append("durable");
  mfq::claim open = queue.claim(8), claim = queue.claim(2); // nothing behind them is durable before they end
  std::uint64_t next = claim.offset() + 24;
  const auto is_there = [&](auto append) {
    try {
      append();
      CHECK(!"it cannot be durable");
    } catch (const mfq::not_durable &error) {
      CHECK(error.code() == mfq::errc::not_durable && std::strstr(error.what(), "appended") != nullptr);
      CHECK(error.at().offset == next && error.at().end > next);
      next = error.at().end;
    }
  };
  is_there([&] { queue.append("y"); });
  is_there([&] { queue.appendv({"ab", "cd"}); });
  is_there([&] { queue.append_batch({"ab", "cd"}); });
  std::error_code ec;
  mfq::place at = queue.append("z", ec);
  CHECK(ec == mfq::errc::not_durable && at.offset == next);
  next = at.end;
  const std::vector<mfq::place> batch = queue.append_batch({"ab", "cd"}, ec);
  CHECK(ec == mfq::errc::not_durable && batch.size() == 2 && batch[0].offset == next && batch[1].end > batch[0].end);
  next = claim.offset();
  is_there([&] { claim.commit(); });
  CHECK(claim.size() == 0);
  open.abort();
  at = queue.append("durable", ec);
  CHECK(!ec && queue.offsets().flushed >= at.end);
}

// ---- errors ----

void an_error_is_what_a_cpp_host_expects() {
  CHECK(std::strcmp(mfq::category().name(), "mfq") == 0);
  CHECK(mfq::category().message(MFQ_E_END) == mfq_strerror(MFQ_E_END));
  const std::error_code ec = mfq::errc::locked;
  CHECK(ec && ec.category() == mfq::category() && ec.value() == MFQ_E_LOCKED && ec != std::errc::invalid_argument);
  CHECK(std::error_code(mfq::errc::invalid) == std::errc::invalid_argument);
  try {
    mfq::queue queue(in_work("no/parent"));
    CHECK(!"it was opened");
  } catch (const std::system_error &error) {
    CHECK(error.code() == mfq::errc::not_found && error.code() == std::errc::no_such_file_or_directory);
    CHECK(error.what() == mfq::last_error() && std::strstr(error.what(), "no/parent") != nullptr);
    CHECK(dynamic_cast<const mfq::error &>(error).os_errno() == ENOENT);
  }
  // It keeps its sentence, whatever happens in this thread later.
  mfq::error kept(mfq::errc::end);
  const std::string told = kept.what();
  std::error_code later;
  mfq::queue().close(later);
  CHECK(kept.what() == told && mfq::last_error() != told && mfq::error(kept).what() == told);
  mfq::check(mfq_set_log(nullptr, nullptr, 0));
  try {
    mfq::check(mfq_set_log([](void *, std::int32_t, const char *) {}, nullptr, 9));
    CHECK(!"there is no such level");
  } catch (const mfq::error &error) {
    CHECK(error.status() == mfq::errc::invalid && std::strstr(error.what(), "level") != nullptr);
  }
}

// What ended early has nothing to say later, which would take the place of the sentence that told why.
void destructors_leave_the_last_sentence() {
  std::string told;
  {
    mfq::queue queue(in_work("sentence"), small()), kept(in_work("kept"), small());
    mfq::reader reader = queue.reader(0), moved_reader;
    mfq::file file = queue.get_last();
    mfq::claim committed = queue.claim(8), aborted = queue.claim(8);
    mfq::claim moved_claim = std::move(committed);
    moved_claim.commit();
    aborted.abort();
    mfq::view view = queue.view(0);
    mfq::view moved_view = std::move(view);
    moved_view.release();
    moved_reader = std::move(reader);
    moved_reader.close();
    file.release();
    queue.close();
    const mfq::queue moved_queue = std::move(queue);
    std::error_code ec;
    kept.truncate_after(1, ec);
    CHECK(ec == mfq::errc::invalid);
    told = mfq::last_error();
  }
  CHECK(mfq::last_error() == told);
}

// ---- the rest ----

// Lines, each behind its length in a byte: a format of the host's own, in a directory that it has written by itself.
void a_walker_is_any_callable() {
  const std::string path = in_work("adopted");
  CHECK(mkdir(path.c_str(), 0700) == 0);
  std::string units;
  std::size_t count = 0;
  for (const std::string &line : lines) {
    if (line.empty() || line.size() > 255 || units.size() + 1 + line.size() > 60000) continue;
    units += static_cast<char>(line.size());
    units += line;
    count++;
  }
  std::ofstream(path + "/00000000000000000000") << units << std::string(65536 - units.size(), '\0');
  mfq::options options = small();
  options.format = MFQ_RAW;
  options.flags = MFQ_OPEN_ADOPT;
  std::size_t walked = 0;
  mfq::errc from_inside{};
  auto walk = [&](std::string_view bytes) noexcept -> std::int64_t {
    std::error_code ec;
    mfq::queue inside(path, options, ec);
    from_inside = static_cast<mfq::errc>(ec.value());
    if (bytes.empty() || bytes[0] == 0) return 0;
    walked++;
    return 1 + static_cast<unsigned char>(bytes[0]);
  };
  options.walk_with(walk);
  mfq::queue queue(path, options);
  CHECK(walked == count && count > 0 && from_inside == mfq::errc::reentrant);
  CHECK(queue.recovery().cut_at == units.size() && queue.recovery().verified_to == units.size());
  CHECK(queue.view(0).str() == units);

  struct {
    std::int64_t operator()(std::string_view) const noexcept { return 0; }
  } const nothing{};
  options.walk_with(nothing);
}

void files_and_truncation() {
  mfq::queue queue(in_work("files"), small());
  std::vector<mfq::place> at;
  while (queue.offsets().wrote < 4 * 65536) at.push_back(queue.append(lines[at.size() % lines.size()]));
  mfq::file first = queue.find(0), last = queue.get_last();
  CHECK(first.info().start == 0 && first.info().wrote == 65536 && last.info().start == 4 * 65536);
  std::error_code ec = mfq::errc::panic;
  CHECK(queue.find(65536, ec).info(ec).start == 65536 && !ec);
  queue.truncate_before(65536);
  CHECK(queue.offsets().min == 65536);
  CHECK(queue.find(0, ec).handle() == nullptr && ec == mfq::errc::not_found);
  queue.truncate_after(at[at.size() - 10].offset);
  CHECK(queue.offsets().committed == at[at.size() - 10].offset);
  CHECK(queue.append("on").offset == at[at.size() - 10].offset);
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  alarm(300); // a wait that nobody ends is no reason to wait for ever
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ); // so that what was said is not lost with the process
  work = argv[1];
  std::ifstream text(argv[2]);
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  if (lines.size() < 200) return std::printf("%s: too few lines\n", argv[2]), 2;

  lines_come_back_however_they_are_given_and_read();
  parts_and_batches();
  threads_share_a_queue();
  all_threads_are_told_that_the_queue_was_closed();
  views_hold_their_file_until_they_end();
  what_is_moved_ends_once();
  claims_are_written_in_place();
  a_loop_tails_until_its_deadline();
  a_deadline_ends_a_loop_that_never_runs_dry();
  close_ends_a_loop_that_would_wait_for_ever();
  flushes_are_told_by_the_event_descriptor();
  what_is_not_durable_in_time_tells_its_place();
  an_error_is_what_a_cpp_host_expects();
  destructors_leave_the_last_sentence();
  a_walker_is_any_callable();
  files_and_truncation();
  everything_that_is_wrong_is_told();
  if (failures > 0) std::printf("%d checks failed\n", failures.load());
  return failures > 0;
}
