// Random reads and writes of one file, in every way that there is to do so, against a model of its
// content in memory: through two descriptors, a mapping that is kept and ones that are not, copies,
// holes, truncation, reopening, and dropping of the kernel's pages.
//
// KILNFS_POSIX_SEED and KILNFS_POSIX_STEPS make other and longer sequences.

#include <sys/mman.h>

#include <algorithm>
#include <random>

#include "tests/posix/digest.h"
#include "tests/posix/posix_test.h"

namespace kilnfs::testing {
namespace {

constexpr size_t kMost = 300000;

unsigned number(const char* name, unsigned otherwise) {
  const char* text = ::getenv(name);
  return text != nullptr ? static_cast<unsigned>(std::stoul(text)) : otherwise;
}

class DataTester {
 public:
  explicit DataTester(unsigned seed) : random_(seed), model_(get("f")) { reopen(); }

  /// Whether all was as the model says.
  bool step() {
    const size_t offset = random_() % kMost;
    const size_t size = std::min<size_t>(1 + random_() % 40000, kMost - offset);
    switch (random_() % 12) {
      case 0:
      case 1:
        return write(offset, size);
      case 2:
        return writeMapped(offset, size);
      case 3:
        return truncate(offset);
      case 4:
        return allocate(offset, size);
      case 5:
        return copy(offset, size);
      case 6:
        return readMapped(offset, size);
      case 7:
        reopen();
        return true;
      case 8:
        return append(size);
      case 9:
        return check(get("f") == model_, "whole content", 0, 0);
      default:
        return read(offset, size);
    }
  }
  const std::string& what() const { return what_; }

 private:
  bool check(bool right, const char* what, size_t offset, size_t size) {
    what_ = std::string(what) + " at " + std::to_string(offset) + " of " + std::to_string(size) +
            ", errno " + std::to_string(errno);
    return right;
  }

  void reopen() {
    if (random_() % 4 == 0) ::posix_fadvise(reader_.get(), 0, 0, POSIX_FADV_DONTNEED);
    if (random_() % 2 == 0) reader_ = open("f", O_RDONLY);
    writer_ = open("f", random_() % 8 == 0 ? O_RDWR | O_SYNC : O_RDWR);
    if (!reader_.valid()) reader_ = open("f", O_RDONLY);
  }

  std::string bytes(size_t size) {
    std::string text(size, '\0');
    const auto salt = static_cast<unsigned>(random_());
    for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(salt + i * 31);
    return text;
  }

  void put(size_t offset, const std::string& text) {
    if (model_.size() < offset + text.size()) model_.resize(offset + text.size());
    model_.replace(offset, text.size(), text);
  }

  bool write(size_t offset, size_t size) {
    const std::string text = bytes(size);
    put(offset, text);
    return check(::pwrite(writer_.get(), text.data(), size, static_cast<off_t>(offset)) ==
                     static_cast<ssize_t>(size),
                 "write", offset, size);
  }

  bool append(size_t size) {
    if (model_.size() + size > kMost) return truncate(size);
    const std::string text = bytes(size);
    const UniqueFd fd = open("f", O_WRONLY | O_APPEND);
    put(model_.size(), text);
    return check(::write(fd.get(), text.data(), size) == static_cast<ssize_t>(size), "append", 0,
                 size);
  }

  bool read(size_t offset, size_t size) {
    std::string text(size, '\0');
    const UniqueFd& fd = random_() % 2 == 0 ? reader_ : writer_;
    const ssize_t n = ::pread(fd.get(), text.data(), size, static_cast<off_t>(offset));
    text.resize(n > 0 ? static_cast<size_t>(n) : 0);
    return check(text == (offset < model_.size() ? model_.substr(offset, size) : ""), "read",
                 offset, size);
  }

  bool readMapped(size_t offset, size_t size) {
    return mapped(offset, size, [&](char* at, size_t begin, size_t length) {
      return std::equal(at, at + length, model_.begin() + static_cast<ssize_t>(begin));
    });
  }

  bool writeMapped(size_t offset, size_t size) {
    const std::string text = bytes(size);
    return mapped(offset, size, [&](char* at, size_t begin, size_t length) {
      std::copy_n(text.begin(), length, at);
      model_.replace(begin, length, text.substr(0, length));
      return random_() % 2 == 0 || ::msync(at - begin % 4096, length, MS_SYNC) == 0;
    });
  }

  template <class Fn>
  bool mapped(size_t offset, size_t size, Fn fn) {
    if (offset >= model_.size()) return true;
    const size_t length = std::min(size, model_.size() - offset);
    void* map =
        ::mmap(nullptr, model_.size(), PROT_READ | PROT_WRITE, MAP_SHARED, writer_.get(), 0);
    if (map == MAP_FAILED) return check(false, "map", offset, size);
    const bool right = fn(static_cast<char*>(map) + offset, offset, length);
    ::munmap(map, model_.size());
    return check(right, "mapping", offset, length);
  }

  bool truncate(size_t size) {
    model_.resize(size);
    const int failed = random_() % 2 == 0 ? ::ftruncate(writer_.get(), static_cast<off_t>(size))
                                          : ::truncate("f", static_cast<off_t>(size));
    return check(failed == 0, "truncate", size, 0);
  }

  bool allocate(size_t offset, size_t size) {
    constexpr int kModes[] = {0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
                              FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
    const unsigned way = random_() % 4;
    if (::fallocate(writer_.get(), kModes[way], static_cast<off_t>(offset),
                    static_cast<off_t>(size)) != 0) {
      return check(errno == EOPNOTSUPP, "allocate", offset, size);
    }
    const bool keeps = (kModes[way] & FALLOC_FL_KEEP_SIZE) != 0;
    if (!keeps && model_.size() < offset + size) model_.resize(offset + size);
    if (way != 0 && offset < model_.size()) {
      const size_t length = std::min(size, model_.size() - offset);
      model_.replace(offset, length, std::string(length, '\0'));
    }
    return true;
  }

  bool copy(size_t offset, size_t size) {
    loff_t from = static_cast<loff_t>(random_() % kMost);
    loff_t to = static_cast<loff_t>(offset);
    const auto begin = static_cast<size_t>(from);
    if (begin < offset + size && offset < begin + size) return true;  // they may not overlap
    const ssize_t n = ::copy_file_range(reader_.get(), &from, writer_.get(), &to, size, 0);
    if (n < 0) return check(false, "copy", offset, size);
    if (n > 0) put(offset, model_.substr(begin, static_cast<size_t>(n)));
    return check(n > 0 || begin >= model_.size(), "copy", offset, size);
  }

  std::mt19937 random_;
  std::string model_, what_;
  UniqueFd reader_, writer_;
};

}  // namespace

ROW_ON(Data_ReadsGiveWhatWasWritten, [] { put("f", std::string(100000, 'b')); }) {
  const unsigned seed = number("KILNFS_POSIX_SEED", 1);
  DataTester tester(seed);
  for (unsigned i = 0; i < number("KILNFS_POSIX_STEPS", 1000); ++i) {
    ASSERT_TRUE(tester.step()) << "seed " << seed << " step " << i << ": " << tester.what();
  }
}

}  // namespace kilnfs::testing
