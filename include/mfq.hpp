/*
 * mfq.hpp: libmfq for C++17 and later, in headers only, over the C interface.
 *
 *     mfq::queue queue("/var/lib/orders");
 *     mfq::place at = queue.append("42 apples");
 *     queue.flush(at.end, 1s);
 *     for (const mfq::record &record : queue.reader(at.offset)) std::cout << record.str() << '\n';
 *
 * mfq.h is the manual: what an append promises, units and ranges, which thread may do what, what blocks, and the errors
 * of each call are told there, under the name that a method has here with `mfq_` in front of it. This file adds what
 * C++ is used to:
 *
 *   Ownership. queue, reader, file, view and claim end what they hold in their destructor: a queue is closed, a claim
 *   that was not committed is aborted. They can be moved and not copied. What a destructor cannot tell, such as a last
 *   flush that failed, close(), release() and abort() do. Each may be ended before or after the queue it came from.
 *
 *   Errors. A call throws mfq::error, whose what() is the library's sentence and whose code() compares with mfq::errc
 *   and, where it has one, with the std::errc of the same meaning. Every call takes a std::error_code & behind its
 *   other arguments as well, and throws nothing then, but where its comment says otherwise: it sets `ec`, or clears
 *   it, and last_error() gives the sentence. What it returns after a failure is empty, or zero, but where its comment
 *   says otherwise. In a host that is built with -fno-exceptions what would throw ends the process, as in the standard
 *   library.
 *
 *   Threads. Any number may call a queue or a file at once, and end it while other calls run. A reader, a view and a
 *   claim are for one thread at a time, but for close() of a reader. To move, to assign or to destroy any object is for
 *   a thread that has it alone.
 *
 *   Bad input. An object that was moved from, or default-constructed, is errc::invalid to every call; one that was
 *   closed, released, committed or aborted is errc::closed. As with std::string_view, a null `const char *` is no text.
 *
 * What has no object stays in C: check(mfq_install_sigbus_guard()), check(mfq_set_log(...)), mfq_version().
 */

#ifndef MFQ_HPP
#define MFQ_HPP

#if __cplusplus < 201703L
#error "mfq.hpp needs C++17"
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>
#if __cplusplus >= 202002L
#include <span>
#endif

#include "mfq.h"

static_assert(MFQ_ABI_VERSION == 1, "mfq.hpp and mfq.h are not of one version");

// On what is readable only as long as its object is there: clang warns of what outlives a temporary one.
#if defined(__has_cpp_attribute)
#if __has_cpp_attribute(clang::lifetimebound)
#define MFQ_LIFETIMEBOUND [[clang::lifetimebound]]
#endif
#endif
#ifndef MFQ_LIFETIMEBOUND
#define MFQ_LIFETIMEBOUND
#endif

// ---- ERRORS ----------------------------------------------------------------------------------------
//
namespace mfq {

// The statuses of mfq.h, where each is explained.
enum class errc : mfq_status_t {
  invalid = MFQ_E_INVALID,
  timeout = MFQ_E_TIMEOUT,
  end = MFQ_E_END,
  not_found = MFQ_E_NOT_FOUND,
  too_large = MFQ_E_TOO_LARGE,
  no_space = MFQ_E_NO_SPACE,
  no_memory = MFQ_E_NO_MEMORY,
  io = MFQ_E_IO,
  corrupt = MFQ_E_CORRUPT,
  locked = MFQ_E_LOCKED,
  closed = MFQ_E_CLOSED,
  busy = MFQ_E_BUSY,
  read_only = MFQ_E_READ_ONLY,
  version = MFQ_E_VERSION,
  unsupported = MFQ_E_UNSUPPORTED,
  not_durable = MFQ_E_NOT_DURABLE,
  poisoned = MFQ_E_POISONED,
  panic = MFQ_E_PANIC,
  forked = MFQ_E_FORKED,
  reentrant = MFQ_E_REENTRANT,
};

}  // namespace mfq

template <>
struct std::is_error_code_enum<mfq::errc> : std::true_type {};

namespace mfq {

namespace detail {

class status_category final : public std::error_category {
 public:
  const char *name() const noexcept override { return "mfq"; }

  std::string message(int status) const override { return mfq_strerror(status); }

  std::error_condition default_error_condition(int status) const noexcept override {
    switch (status) {
      case MFQ_E_INVALID: return std::errc::invalid_argument;
      case MFQ_E_TIMEOUT: return std::errc::timed_out;
      case MFQ_E_NOT_FOUND: return std::errc::no_such_file_or_directory;
      case MFQ_E_NO_SPACE: return std::errc::no_space_on_device;
      case MFQ_E_NO_MEMORY: return std::errc::not_enough_memory;
      case MFQ_E_IO: return std::errc::io_error;
      case MFQ_E_BUSY: return std::errc::device_or_resource_busy;
      case MFQ_E_UNSUPPORTED: return std::errc::not_supported;
      default: return {status, *this};
    }
  }
};

}  // namespace detail

// The category of mfq::errc. Its messages are those of mfq_strerror.
inline const std::error_category &category() noexcept {
  static const detail::status_category only;
  return only;
}

inline std::error_code make_error_code(errc why) noexcept { return {static_cast<int>(why), category()}; }

// The sentence about this thread's last failure; see mfq_last_error. For calls that set a std::error_code; an
// mfq::error carries it.
inline std::string last_error() {
  char sentence[512] = "";
  mfq_last_error(sentence, sizeof sentence);
  return sentence;
}

// A call of the library failed. Made in the thread and right behind the call, whose sentence it takes along.
class error : public std::system_error {
 public:
  explicit error(errc why) : std::system_error(why), os_errno_(mfq_last_errno()) {
    mfq_last_error(sentence_, sizeof sentence_);
  }

  // The library's sentence, which names the argument, file or offset.
  const char *what() const noexcept override { return sentence_; }

  errc status() const noexcept { return static_cast<errc>(code().value()); }

  // The system's number for it (errno); 0 if no system call was the reason.
  int os_errno() const noexcept { return os_errno_; }

 private:
  int os_errno_;
  // The longest sentence is 511 bytes. In place, as a copy of an exception must not throw.
  char sentence_[512] = "";
};

// Where a record lies: [offset, end). The next one can begin at `end`.
using place = mfq_span_t;

// Appended, but not known to be on stable storage: errc::not_durable. To append again would write twice.
class not_durable : public error {
 public:
  explicit not_durable(place at) : error(errc::not_durable), at_(at) {}

  // Where the record lies; of a batch, from its first record to its last.
  const place &at() const noexcept { return at_; }

 private:
  place at_;
};

namespace detail {

template <class Error>
[[noreturn]] void raise(const Error &error) {
#if defined(__cpp_exceptions)
  throw error;
#else
  static_cast<void>(error);
  std::terminate();
#endif
}

}  // namespace detail

// Throws mfq::error if `status` is a failure of the call just made.
inline void check(mfq_status_t status) {
  if (status < 0) detail::raise(error(static_cast<errc>(status)));
}

// ---- ARGUMENTS -------------------------------------------------------------------------------------
//
// A path, as the bytes of it that end with NUL: of a std::filesystem::path, a std::string, or a const char *.
class path {
 public:
  path(const char *bytes) noexcept : bytes_(bytes) {}

  template <class T, class = std::enable_if_t<
                         std::is_convertible_v<decltype(std::declval<const T &>().c_str()), const char *>>>
  path(const T &from) noexcept : bytes_(from.c_str()) {}

  const char *c_str() const noexcept { return bytes_; }

 private:
  const char *bytes_;
};

// Bytes of the host, lent for the time of a call: of a text, of anything with data() and size() whose elements are
// bytes (std::string, std::vector<std::uint8_t>, std::span<const std::byte>, mfq::record), or of any memory.
struct slice : mfq_slice_t {
  slice(const void *bytes, std::size_t size) noexcept : mfq_slice_t{bytes, size} {}

  slice(std::nullptr_t) = delete;
  slice(const char *text) noexcept : slice(text, std::char_traits<char>::length(text)) {}

  template <class T, class Byte = std::remove_pointer_t<decltype(std::declval<const T &>().data())>,
            class = std::enable_if_t<std::is_trivially_copyable_v<Byte> && sizeof(Byte) == 1>>
  slice(const T &bytes) noexcept : slice(bytes.data(), bytes.size()) {}
};

static_assert(sizeof(slice) == sizeof(mfq_slice_t), "an array of slices is one of mfq_slice_t");

// Several slices, lent for the time of a call: {a, b, c}, or anything with data() and size() whose elements are slices.
class slices {
 public:
  slices(const slice *first, std::size_t count) noexcept : first_(first), count_(count) {}

  // The list outlives the call in whose argument it stands; a variable of this type would outlive the list.
  slices(std::initializer_list<slice> list) noexcept {
    first_ = list.begin();
    count_ = list.size();
  }

  template <class T, class Slice = std::remove_pointer_t<decltype(std::declval<const T &>().data())>,
            class = std::enable_if_t<std::is_same_v<std::remove_cv_t<Slice>, slice>>>
  slices(const T &list) noexcept : slices(list.data(), list.size()) {}

  const slice *data() const noexcept { return first_; }
  std::size_t size() const noexcept { return count_; }

 private:
  const slice *first_ = nullptr;
  std::size_t count_ = 0;
};

// How long a call may wait: any std::chrono::duration, rounded up to milliseconds. What has passed already, so 0 and
// less, does not wait; mfq::forever, and whatever is longer than 24 days, waits for ever.
class timeout {
 public:
  template <class Rep, class Period>
  constexpr timeout(std::chrono::duration<Rep, Period> time) noexcept
      : ms_(rounded_up(std::chrono::duration<double, std::milli>(time).count())) {}

  static constexpr timeout never() noexcept { return timeout(); }

  // As the functions of mfq.h take it.
  constexpr std::int32_t ms() const noexcept { return ms_; }

 private:
  constexpr timeout() noexcept : ms_(-1) {}

  // In floating point, where no duration overflows.
  static constexpr std::int32_t rounded_up(double ms) noexcept {
    if (!(ms > 0)) return 0;
    if (ms >= INT32_MAX) return -1;
    const auto whole = static_cast<std::int32_t>(ms);
    return whole + (whole < ms ? 1 : 0);
  }

  std::int32_t ms_;
};

inline constexpr timeout forever = timeout::never();

// queue::flush and queue::flush_start: all that was appended or claimed when the call began.
inline constexpr std::uint64_t everything = UINT64_MAX;

// queue::wait: how far the log can be read, or is on stable storage.
enum class position : std::int32_t { committed = MFQ_COMMITTED, flushed = MFQ_FLUSHED };

// The options of mfq_open, every one at its default. Set what differs: options.file_size = 1 << 20.
struct options : mfq_options_t {
  options() noexcept { mfq_options_init(this, sizeof(mfq_options_t)); }

  // Has `walker` find the end of a RAW queue; see mfq_walk_fn_t. It is any object that is called with the bytes to the
  // end of the file, a std::string_view, and answers the size of the unit at their beginning: 0 there is none, < 0 it
  // is damaged. It is not copied, and has to be there until the queue is open. It must be noexcept: it has no answer
  // that says that it could not look, and what it calls damaged is cut off.
  template <class Walk>
  void walk_with(Walk &walker) noexcept {
    static_assert(std::is_nothrow_invocable_r_v<std::int64_t, Walk &, std::string_view>,
                  "a walker is noexcept, takes a std::string_view and answers a std::int64_t");
    walk = [](void *context, const std::uint8_t *bytes, std::size_t available) -> std::int64_t {
      return (*static_cast<Walk *>(context))(std::string_view(reinterpret_cast<const char *>(bytes), available));
    };
    walk_context = const_cast<void *>(static_cast<const void *>(std::addressof(walker)));
  }
};

// ---- WHAT A QUEUE GIVES ----------------------------------------------------------------------------
//
namespace detail {

inline std::error_code code(mfq_status_t status) noexcept {
  return status < 0 ? make_error_code(static_cast<errc>(status)) : std::error_code();
}

// The place of what was appended.
inline place placed(mfq_status_t status, place at) {
  if (status == MFQ_E_NOT_DURABLE) raise(not_durable(at));
  check(status);
  return at;
}

// A handle that ends with its owner. It stays when it has ended before, as other threads may be using it: they are told
// errc::closed. But it is not ended twice, which would put another sentence in the place of the one that told why.
template <class T, mfq_status_t (*End)(T *)>
class owner {
 public:
  owner() noexcept = default;
  explicit owner(T *handle) noexcept : handle_(handle) {}
  owner(owner &&from) noexcept : handle_(std::exchange(from.handle_, nullptr)), ended_(from.ended_.load()) {}
  owner &operator=(owner &&from) noexcept {
    owner old(std::move(from));
    std::swap(handle_, old.handle_);
    old.ended_ = ended_.exchange(old.ended_);
    return *this;
  }
  ~owner() {
    if (handle_ != nullptr && !ended_) End(handle_);
  }

  T *get() const noexcept { return handle_; }

  mfq_status_t end() noexcept {
    const mfq_status_t status = End(handle_);
    if (status != MFQ_E_REENTRANT) ended_ = true;
    return status;
  }

 private:
  T *handle_ = nullptr;
  std::atomic<bool> ended_{false};
};

}  // namespace detail

class view;

// A record that is read in place (in RAW: a stretch of bytes). It owns nothing, as a std::string_view does: the bytes
// are there as long as the mfq::view is that it was taken from, or until the next call on the reader that gave it.
class record {
 public:
  // Of a view that is gone when the record is used.
  record(const view &&) = delete;
  record &operator=(const view &&) = delete;

  const char *data() const noexcept { return reinterpret_cast<const char *>(view_.ptr); }
  std::size_t size() const noexcept { return view_.len; }
  std::string_view str() const noexcept { return {data(), size()}; }
#if __cplusplus >= 202002L
  std::span<const std::byte> bytes() const noexcept { return {reinterpret_cast<const std::byte *>(view_.ptr), size()}; }
#endif

  // Where it begins; not before the offset that was asked for.
  std::uint64_t offset() const noexcept { return view_.offset; }

  // Where to read next.
  std::uint64_t next() const noexcept { return view_.end; }

  // When it was appended; 1970 in RAW.
  std::chrono::time_point<std::chrono::system_clock, std::chrono::milliseconds> time() const noexcept {
    return decltype(time())(std::chrono::milliseconds(view_.time_ms));
  }

 protected:
  record() noexcept = default;
  explicit record(const mfq_view_t &given) noexcept : view_(given) {}

  mfq_view_t view_{};

  friend class reader;
};

// A record that is held: its bytes stay readable until release(), or the end of this object.
class [[nodiscard]] view : public record {
 public:
  view() noexcept = default;
  view(view &&from) noexcept : record(std::exchange(from.view_, {})), held_(std::exchange(from.held_, false)) {}
  view &operator=(view &&from) noexcept {
    view old(std::move(from));
    std::swap(view_, old.view_);
    std::swap(held_, old.held_);
    return *this;
  }
  ~view() {
    if (held_) mfq_view_release(&view_);
  }

  // As those of a record, whose bytes may outlive it, while these may not outlive the view.
  const char *data() const noexcept MFQ_LIFETIMEBOUND { return record::data(); }
  std::string_view str() const noexcept MFQ_LIFETIMEBOUND { return record::str(); }
#if __cplusplus >= 202002L
  std::span<const std::byte> bytes() const noexcept MFQ_LIFETIMEBOUND { return record::bytes(); }
#endif

  void release() { check(ended()); }
  void release(std::error_code &ec) noexcept { ec = detail::code(ended()); }

 private:
  explicit view(const mfq_view_t &given) noexcept : record(given), held_(true) {}

  mfq_status_t ended() noexcept {
    const mfq_status_t status = mfq_view_release(&view_);
    if (status == MFQ_OK || status == MFQ_E_CLOSED || status == MFQ_E_IO) {
      view_.ptr = nullptr;
      view_.len = 0;
      held_ = false;
    }
    return status;
  }

  bool held_ = false;

  friend class queue;
};

// Memory to write a record into. What is not committed is aborted at the end of this object.
class [[nodiscard]] claim {
 public:
  claim() noexcept = default;
  claim(claim &&from) noexcept : claim_(std::exchange(from.claim_, {})), open_(std::exchange(from.open_, false)) {}
  claim &operator=(claim &&from) noexcept {
    claim old(std::move(from));
    std::swap(claim_, old.claim_);
    std::swap(open_, old.open_);
    return *this;
  }
  ~claim() {
    if (open_) mfq_abort(&claim_);
  }

  // Not zeroed. Null, and 0 bytes, once the claim has ended.
  char *data() const noexcept MFQ_LIFETIMEBOUND { return reinterpret_cast<char *>(claim_.ptr); }
  std::size_t size() const noexcept { return claim_.len; }
#if __cplusplus >= 202002L
  std::span<std::byte> bytes() const noexcept MFQ_LIFETIMEBOUND {
    return {reinterpret_cast<std::byte *>(claim_.ptr), size()};
  }
#endif

  // Where the record will be.
  std::uint64_t offset() const noexcept { return claim_.offset; }

  // Makes the first `size` bytes a record, or all of them. After errc::invalid, and in RAW others, the claim is still
  // open, which its size() tells.
  place commit(std::size_t size) {
    place at{};
    return detail::placed(ended(mfq_commit(&claim_, size, &at)), at);
  }
  place commit() { return commit(size()); }
  // After errc::not_durable it returns the place as well.
  place commit(std::size_t size, std::error_code &ec) noexcept {
    place at{};
    ec = detail::code(ended(mfq_commit(&claim_, size, &at)));
    return at;
  }
  place commit(std::error_code &ec) noexcept { return commit(size(), ec); }

  void abort() { check(ended(mfq_abort(&claim_))); }
  void abort(std::error_code &ec) noexcept { ec = detail::code(ended(mfq_abort(&claim_))); }

 private:
  explicit claim(const mfq_claim_t &given) noexcept : claim_(given), open_(true) {}

  // These are the statuses after which mfq_commit has the memory touched no more.
  mfq_status_t ended(mfq_status_t status) noexcept {
    if (status == MFQ_OK || status == MFQ_E_CLOSED || status == MFQ_E_IO || status == MFQ_E_NOT_DURABLE) {
      claim_.ptr = nullptr;
      claim_.len = 0;
      open_ = false;
    }
    return status;
  }

  mfq_claim_t claim_{};
  bool open_ = false;

  friend class queue;
};

// A file of a queue, held: it stays mapped until release(), or the end of this object.
class [[nodiscard]] file {
 public:
  file() noexcept = default;

  mfq_file_info_t info() const {
    mfq_file_info_t info{};
    info.struct_size = sizeof info;
    check(mfq_file_info(file_.get(), &info));
    return info;
  }
  mfq_file_info_t info(std::error_code &ec) const noexcept {
    mfq_file_info_t info{};
    info.struct_size = sizeof info;
    ec = detail::code(mfq_file_info(file_.get(), &info));
    return info;
  }

  // The whole file, until release() or the end of this object. What lies behind info().committed may change at any
  // moment.
  std::string_view memory() const MFQ_LIFETIMEBOUND {
    mfq_slice_t memory{};
    check(mfq_file_memory(file_.get(), &memory));
    return {static_cast<const char *>(memory.ptr), memory.len};
  }
  std::string_view memory(std::error_code &ec) const noexcept MFQ_LIFETIMEBOUND {
    mfq_slice_t memory{};
    ec = detail::code(mfq_file_memory(file_.get(), &memory));
    return {static_cast<const char *>(memory.ptr), memory.len};
  }

  void release() { check(file_.end()); }
  void release(std::error_code &ec) noexcept { ec = detail::code(file_.end()); }

  mfq_file_t *handle() const noexcept { return file_.get(); }

 private:
  explicit file(mfq_file_t *given) noexcept : file_(given) {}

  detail::owner<mfq_file_t, mfq_file_release> file_;

  friend class queue;
};

// Reads forward, record by record:
//
//     for (const mfq::record &record : reader) ...                        to the end of what can be read now
//     for (const mfq::record &record : reader.tail()) ...                 and then waits for more, for ever
//     for (const mfq::record &record : reader.tail_until(deadline)) ...   until then, however much comes
//     while (std::optional<mfq::record> record = reader.next(300ms)) ...  until nothing has come for so long
//
// A loop goes on where the last one ended. When the reader or its queue is closed, each throws errc::closed: there may
// be records that it has not seen. A reader must not be moved while a loop over it runs.
class [[nodiscard]] reader {
  using clock = std::chrono::steady_clock;

 public:
  struct sentinel {};

  class iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = record;
    using difference_type = std::ptrdiff_t;
    using pointer = const record *;
    using reference = const record &;

    reference operator*() const noexcept { return *record_; }
    pointer operator->() const noexcept { return &*record_; }
    iterator &operator++() {
      if (!deadline_) {
        record_ = reader_->next();
      } else if (*deadline_ == clock::time_point::max()) {
        record_ = reader_->next(forever);
      } else {
        record_.reset();
        const clock::duration longest = std::chrono::hours(24 * 24); // a longer timeout is for ever
        clock::time_point now;
        while (!record_ && (now = clock::now()) < *deadline_)
          record_ = reader_->next(std::min(*deadline_ - now, longest));
      }
      return *this;
    }
    void operator++(int) { ++*this; }

    friend bool operator==(const iterator &at, sentinel) noexcept { return !at.record_; }
    friend bool operator!=(const iterator &at, sentinel) noexcept { return at.record_.has_value(); }
    friend bool operator==(sentinel, const iterator &at) noexcept { return !at.record_; }
    friend bool operator!=(sentinel, const iterator &at) noexcept { return at.record_.has_value(); }

   private:
    iterator(reader &from, std::optional<clock::time_point> deadline) : reader_(&from), deadline_(deadline) {
      ++*this;
    }

    reader *reader_;
    // None: what can be read now, however long that takes.
    std::optional<clock::time_point> deadline_;
    std::optional<record> record_;

    friend class reader;
  };

  // The records that come until a moment.
  class range {
   public:
    iterator begin() const { return {*reader_, deadline_}; }
    sentinel end() const noexcept { return {}; }

   private:
    range(reader &from, clock::time_point deadline) noexcept : reader_(&from), deadline_(deadline) {}

    reader *reader_;
    clock::time_point deadline_;

    friend class reader;
  };

  reader() noexcept = default;

  // The next record; none if there is none within the time.
  std::optional<record> next(timeout within = std::chrono::milliseconds(0)) {
    std::optional<record> found(std::in_place, record());
    const mfq_status_t status = mfq_reader_next(reader_.get(), within.ms(), &found->view_);
    if (status < 0) found.reset();
    if (status != MFQ_E_END && status != MFQ_E_TIMEOUT) check(status);
    return found;
  }
  // `ec` tells why there is none: errc::end, errc::timeout, or what failed.
  std::optional<record> next(timeout within, std::error_code &ec) noexcept {
    std::optional<record> found(std::in_place, record());
    const mfq_status_t status = mfq_reader_next(reader_.get(), within.ms(), &found->view_);
    if (status < 0) found.reset();
    ec = detail::code(status);
    return found;
  }
  std::optional<record> next(std::error_code &ec) noexcept { return next(std::chrono::milliseconds(0), ec); }

  iterator begin() { return {*this, std::nullopt}; }
  sentinel end() noexcept { return {}; }
  range tail() & noexcept { return {*this, clock::time_point::max()}; }
  // A moment of std::chrono::steady_clock, of any precision.
  template <class Duration>
  range tail_until(std::chrono::time_point<clock, Duration> deadline) & noexcept {
    // Compared in floating point, where nothing overflows.
    const std::chrono::duration<double> since = deadline.time_since_epoch();
    if (since >= clock::duration::max()) return {*this, clock::time_point::max()};
    return {*this, std::chrono::ceil<clock::duration>(deadline)};
  }

  void seek(std::uint64_t offset) { check(mfq_reader_seek(reader_.get(), offset)); }
  void seek(std::uint64_t offset, std::error_code &ec) noexcept {
    ec = detail::code(mfq_reader_seek(reader_.get(), offset));
  }

  // Brings out a call that waits in another thread.
  void close() { check(reader_.end()); }
  void close(std::error_code &ec) noexcept { ec = detail::code(reader_.end()); }

  mfq_reader_t *handle() const noexcept { return reader_.get(); }

 private:
  explicit reader(mfq_reader_t *given) noexcept : reader_(given) {}

  detail::owner<mfq_reader_t, mfq_reader_close> reader_;

  friend class queue;
};

// ---- THE QUEUE -------------------------------------------------------------------------------------
//
// An open queue. One is enough for all threads.
class [[nodiscard]] queue {
 public:
  queue() noexcept = default;

  explicit queue(path directory, const options &how = options()) {
    mfq_queue_t *opened = nullptr;
    check(mfq_open(directory.c_str(), &how, &opened));
    queue_ = owner(opened);
  }
  queue(path directory, const options &how, std::error_code &ec) noexcept {
    mfq_queue_t *opened = nullptr;
    ec = detail::code(mfq_open(directory.c_str(), &how, &opened));
    queue_ = owner(opened);
  }
  queue(path directory, std::error_code &ec) noexcept : queue(directory, options(), ec) {}

  void close() { check(queue_.end()); }
  void close(std::error_code &ec) noexcept { ec = detail::code(queue_.end()); }

  // -- Appending. With `ec`, the place is returned after errc::not_durable as well.

  place append(slice data) {
    place at{};
    return detail::placed(mfq_append(queue_.get(), data.ptr, data.len, &at), at);
  }
  place append(slice data, std::error_code &ec) noexcept {
    place at{};
    ec = detail::code(mfq_append(queue_.get(), data.ptr, data.len, &at));
    return at;
  }

  // One record out of several parts.
  place appendv(slices parts) {
    place at{};
    return detail::placed(mfq_appendv(queue_.get(), parts.data(), parts.size(), &at), at);
  }
  place appendv(slices parts, std::error_code &ec) noexcept {
    place at{};
    ec = detail::code(mfq_appendv(queue_.get(), parts.data(), parts.size(), &at));
    return at;
  }

  // Several records, all or none. Returns the place of each.
  std::vector<place> append_batch(slices records) {
    std::vector<place> at = room_for(records);
    const mfq_status_t status = mfq_append_batch(queue_.get(), records.data(), records.size(), at.data());
    detail::placed(status, at.empty() ? place{} : place{at.front().offset, at.back().end});
    return at;
  }
  // Without the memory for the places it throws std::bad_alloc, and appends nothing.
  std::vector<place> append_batch(slices records, std::error_code &ec) {
    std::vector<place> at = room_for(records);
    append_batch(records, at.data(), ec);
    if (ec && ec != errc::not_durable) at.clear();
    return at;
  }
  // `at` has room for the place of each, or is null.
  void append_batch(slices records, place *at, std::error_code &ec) noexcept {
    ec = detail::code(mfq_append_batch(queue_.get(), records.data(), records.size(), at));
  }

  mfq::claim claim(std::size_t size) {
    mfq_claim_t given;
    check(mfq_claim(queue_.get(), size, &given));
    return mfq::claim(given);
  }
  mfq::claim claim(std::size_t size, std::error_code &ec) noexcept {
    mfq_claim_t given;
    ec = detail::code(mfq_claim(queue_.get(), size, &given));
    return ec ? mfq::claim() : mfq::claim(given);
  }

  // -- Reading.

  // What read() has copied, and where to read next.
  struct copied {
    std::size_t size;
    std::uint64_t next;
  };

  copied read(std::uint64_t offset, void *buffer, std::size_t room) const {
    copied outcome{};
    check(mfq_read(queue_.get(), offset, buffer, room, &outcome.size, &outcome.next));
    return outcome;
  }
  // After errc::too_large `size` is the room that it needs.
  copied read(std::uint64_t offset, void *buffer, std::size_t room, std::error_code &ec) const noexcept {
    copied outcome{};
    ec = detail::code(mfq_read(queue_.get(), offset, buffer, room, &outcome.size, &outcome.next));
    return outcome;
  }

  mfq::view view(std::uint64_t offset) const {
    mfq_view_t given;
    check(mfq_view(queue_.get(), offset, &given));
    return mfq::view(given);
  }
  mfq::view view(std::uint64_t offset, std::error_code &ec) const noexcept {
    mfq_view_t given;
    ec = detail::code(mfq_view(queue_.get(), offset, &given));
    return ec ? mfq::view() : mfq::view(given);
  }

  // See mfq_reader_open.
  mfq::reader reader(std::uint64_t offset) const {
    mfq_reader_t *opened = nullptr;
    check(mfq_reader_open(queue_.get(), offset, &opened));
    return mfq::reader(opened);
  }
  mfq::reader reader(std::uint64_t offset, std::error_code &ec) const noexcept {
    mfq_reader_t *opened = nullptr;
    ec = detail::code(mfq_reader_open(queue_.get(), offset, &opened));
    return mfq::reader(opened);
  }

  // -- Durability.

  void flush(std::uint64_t up_to = everything, timeout within = forever) {
    check(mfq_flush(queue_.get(), up_to, within.ms()));
  }
  void flush(std::uint64_t up_to, timeout within, std::error_code &ec) noexcept {
    ec = detail::code(mfq_flush(queue_.get(), up_to, within.ms()));
  }
  void flush(std::uint64_t up_to, std::error_code &ec) noexcept { flush(up_to, forever, ec); }
  void flush(std::error_code &ec) noexcept { flush(everything, ec); }

  void flush_start(std::uint64_t up_to = everything) { check(mfq_flush_start(queue_.get(), up_to)); }
  void flush_start(std::uint64_t up_to, std::error_code &ec) noexcept {
    ec = detail::code(mfq_flush_start(queue_.get(), up_to));
  }
  void flush_start(std::error_code &ec) noexcept { flush_start(everything, ec); }

  // The queue's own, which is not to be closed. With `ec`, -1 after a failure.
  int event_fd() {
    std::int32_t fd = -1;
    check(mfq_event_fd(queue_.get(), &fd));
    return fd;
  }
  int event_fd(std::error_code &ec) noexcept {
    std::int32_t fd = -1;
    ec = detail::code(mfq_event_fd(queue_.get(), &fd));
    return fd;
  }

  void wait(position reached, std::uint64_t offset, timeout within = forever) const {
    check(mfq_wait(queue_.get(), static_cast<std::int32_t>(reached), offset, within.ms()));
  }
  void wait(position reached, std::uint64_t offset, timeout within, std::error_code &ec) const noexcept {
    ec = detail::code(mfq_wait(queue_.get(), static_cast<std::int32_t>(reached), offset, within.ms()));
  }
  void wait(position reached, std::uint64_t offset, std::error_code &ec) const noexcept {
    wait(reached, offset, forever, ec);
  }

  // -- What it is like.

  mfq_offsets_t offsets() const { return told(mfq_offsets); }
  mfq_offsets_t offsets(std::error_code &ec) const noexcept { return told(mfq_offsets, ec); }

  mfq_stats_t stats() const { return told(mfq_stats); }
  mfq_stats_t stats(std::error_code &ec) const noexcept { return told(mfq_stats, ec); }

  mfq_recovery_t recovery() const { return told(mfq_recovery); }
  mfq_recovery_t recovery(std::error_code &ec) const noexcept { return told(mfq_recovery, ec); }

  mfq_queue_t *handle() const noexcept { return queue_.get(); }

  // -- Its files.

  file get_last(timeout within = forever) {
    mfq_file_t *last = nullptr;
    check(mfq_get_last(queue_.get(), within.ms(), &last));
    return file(last);
  }
  file get_last(timeout within, std::error_code &ec) noexcept {
    mfq_file_t *last = nullptr;
    ec = detail::code(mfq_get_last(queue_.get(), within.ms(), &last));
    return file(last);
  }
  file get_last(std::error_code &ec) noexcept { return get_last(forever, ec); }

  file find(std::uint64_t offset) const {
    mfq_file_t *found = nullptr;
    check(mfq_find(queue_.get(), offset, &found));
    return file(found);
  }
  file find(std::uint64_t offset, std::error_code &ec) const noexcept {
    mfq_file_t *found = nullptr;
    ec = detail::code(mfq_find(queue_.get(), offset, &found));
    return file(found);
  }

  void truncate_after(std::uint64_t offset) { check(mfq_truncate_after(queue_.get(), offset)); }
  void truncate_after(std::uint64_t offset, std::error_code &ec) noexcept {
    ec = detail::code(mfq_truncate_after(queue_.get(), offset));
  }

  void truncate_before(std::uint64_t offset) { check(mfq_truncate_before(queue_.get(), offset)); }
  void truncate_before(std::uint64_t offset, std::error_code &ec) noexcept {
    ec = detail::code(mfq_truncate_before(queue_.get(), offset));
  }

 private:
  using owner = detail::owner<mfq_queue_t, mfq_close>;

  // More than there can be in memory is for the library to refuse.
  static std::vector<place> room_for(slices records) {
    return std::vector<place>(records.size() <= PTRDIFF_MAX / sizeof(slice) ? records.size() : 0);
  }

  template <class T>
  T told(mfq_status_t (*tell)(mfq_queue_t *, T *)) const {
    T what{};
    what.struct_size = sizeof what;
    check(tell(queue_.get(), &what));
    return what;
  }
  template <class T>
  T told(mfq_status_t (*tell)(mfq_queue_t *, T *), std::error_code &ec) const noexcept {
    T what{};
    what.struct_size = sizeof what;
    ec = detail::code(tell(queue_.get(), &what));
    return what;
  }

  owner queue_;
};

}  // namespace mfq

#endif  /* MFQ_HPP */
