// What both parts of the program share.

#ifndef CHECK_HPP
#define CHECK_HPP

#include <atomic>
#include <cstdio>
#include <mfq.hpp>
#include <string>

// Other threads check as well.
inline std::atomic<int> failures{0};

// The directory to work in, of which each test takes names of its own.
inline std::string work;

inline std::string in_work(const char *name) { return work + '/' + name; }

inline void check_that(bool so, const char *condition, const char *file, int line) {
  if (so) return;
  std::printf("%s:%d: not so: %s\n", file, line, condition);
  failures++;
}

#define CHECK(condition) check_that((condition), #condition, __FILE__, __LINE__)

inline mfq::options small() {
  mfq::options options;
  options.file_size = 65536;
  return options;
}

// misuse.cpp
void everything_that_is_wrong_is_told();

#endif
