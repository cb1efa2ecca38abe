/*
 * A service of several threads that logs what it is given, and a follower that tails its log, in C++: the lines of
 * standard input are taken by whichever worker is free and logged, each durably before the worker takes the next one;
 * what is logged is printed as it comes, in place and without a copy.
 *
 *     log_service DIRECTORY [WORKERS] < INPUT
 *
 * A line is printed with the worker that took it and its number in the input. However the service ended, the next one
 * goes on behind what is in the log.
 */
#include <atomic>
#include <cstdlib>
#include <future>
#include <iostream>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "mfq.hpp"

namespace {

struct line {
  unsigned long number;
  std::string text;
};

// The input, from which each worker takes the next line.
class source {
 public:
  std::optional<line> next() {
    const std::lock_guard lock(mutex_);
    line taken;
    if (stopped_ || !std::getline(std::cin, taken.text)) return std::nullopt;
    taken.number = ++count_;
    return taken;
  }

  void stop() { stopped_ = true; }

 private:
  std::mutex mutex_;
  unsigned long count_ = 0;
  std::atomic<bool> stopped_{false};
};

// Starts a thread; if it fails nothing more is taken in, and get() of the future tells why.
template <class Job>
std::future<void> start(source &input, Job job) {
  return std::async(std::launch::async, [&input, job] {
    try {
      job();
    } catch (...) {
      input.stop();
      throw;
    }
  });
}

void work(mfq::queue &log, source &input, unsigned worker) {
  while (const std::optional<line> taken = input.next()) {
    const std::string head = std::to_string(worker) + '\t' + std::to_string(taken->number) + '\t';
    log.appendv({head, taken->text});
  }
}

// No line looks like this one, as each has tabs.
constexpr const char *the_end = "end";

void follow(mfq::reader &reader) {
  for (const mfq::record &record : reader.tail()) {
    if (record.str() == the_end) break;
    if (!(std::cout << record.str() << std::endl)) throw std::runtime_error("standard output takes no more");
  }
}

void serve(const char *directory, unsigned workers) {
  mfq::options options;
  options.file_size = 1 << 20;
  options.flush_policy = MFQ_FLUSH_EVERY_APPEND; // an append returns when it is durable; the workers share their syncs
  mfq::queue log(directory, options);
  mfq::reader reader = log.reader(log.offsets().committed);

  source input;
  std::future<void> follower = start(input, [&] { follow(reader); });
  // A follower that would wait for ever comes out, whatever happens here.
  struct closer {
    mfq::reader &reader;
    ~closer() {
      std::error_code ec;
      reader.close(ec);
    }
  } const closes{reader};

  std::vector<std::future<void>> threads;
  for (unsigned worker = 0; worker < workers; worker++)
    threads.push_back(start(input, [&, worker] { work(log, input, worker); }));
  for (std::future<void> &thread : threads) thread.get();
  log.append(the_end);
  follower.get();
  log.close();
}

}  // namespace

int main(int argc, char **argv) {
  const long workers = argc == 3 ? std::strtol(argv[2], nullptr, 10) : 4;
  if (argc < 2 || argc > 3 || workers < 1 || workers > 256) {
    std::cerr << "usage: log_service DIRECTORY [WORKERS] < INPUT\n";
    return 2;
  }
  std::cin.tie(nullptr); // the workers read while the follower prints
  try {
    serve(argv[1], static_cast<unsigned>(workers));
  } catch (const std::exception &error) {
    std::cerr << "log_service: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
