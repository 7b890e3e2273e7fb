// A row of the list of cases that file systems get wrong, tested on every kind of tree.
//
//   ROW(Row13_Something) { body }                   on a tree that is empty at first
//   ROW_ON(Row52_Something, [] { put(...); }) { body }   where the tree holds something already
//
// The body's working directory is the tree's root. What a ROW_ON prepares is in the snapshot below,
// where the kind of tree has one: the body then meets files that are still shared.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <string>

#include "store/base/fd.h"
#include "tests/posix/site.h"

namespace kilnfs::testing {

constexpr unsigned kOther = 65534;  // a user who is not root

/// The errno of a call that failed, else 0.
inline int code(long result) {
  return result < 0 ? errno : 0;
}

inline UniqueFd open(const std::string& name, int flags = O_RDWR | O_CREAT, mode_t mode = 0644) {
  return UniqueFd(::open(name.c_str(), flags | O_CLOEXEC, mode));
}
inline int failure(const UniqueFd& fd) {
  return fd.valid() ? 0 : errno;
}
inline void put(const std::string& name, const std::string& text) {
  const UniqueFd fd = open(name, O_WRONLY | O_CREAT | O_TRUNC);
  ASSERT_EQ(::write(fd.get(), text.data(), text.size()), static_cast<ssize_t>(text.size())) << name;
}
inline std::string get(const std::string& name) {
  return readFile(name);
}
inline struct stat statOf(const std::string& name) {
  struct stat st = {};
  EXPECT_EQ(::lstat(name.c_str(), &st), 0) << name;
  return st;
}
inline struct stat statOf(const UniqueFd& fd) {
  struct stat st = {};
  EXPECT_EQ(::fstat(fd.get(), &st), 0);
  return st;
}
inline bool operator==(const struct timespec& a, const struct timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}
inline bool operator<(const struct timespec& a, const struct timespec& b) {
  return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

/// Whether the test that runs is on a native directory, in an overlay of the kernel's, or on a
/// tree that is served through FUSE. Where the kernel or libfuse can't let one of the latter do
/// what a native directory does, the test says which answer it gives instead.
bool onNative();
bool onOverlay();
inline bool onFuse() {
  return !onNative() && !onOverlay();
}
/// Notes that another answer is given here, and why; for the table that tests/posix-table makes.
void instead(const std::string& why);

class Posix : public ::testing::TestWithParam<Kind> {
 protected:
  using Part = std::function<void()>;
  void TearDown() override;

  /// Does both parts on a tree of this test's kind.
  void run(const Part& prepare, const Part& body);

 private:
  void inLease(const Part& prepare, const Part& body);
  void inBuild(const Part& prepare, const Part& body);
  void inResult(const Part& prepare, const Part& body);

  const std::filesystem::path former_ = std::filesystem::current_path();
};

/// Rows about reading only: on results.
class PosixResult : public Posix {};
/// Rows about what is peculiar to a lease: no native directory can show them.
class PosixMount : public Posix {};

// Of which kinds each is made is said in kinds.cpp.
#define KILNFS_ROW(suite, name, ...)   \
  static void name##On##suite();       \
  TEST_P(suite, name) {                \
    run(__VA_ARGS__, name##On##suite); \
  }                                    \
  static void name##On##suite()
#define ROW(name) KILNFS_ROW(Posix, name, nullptr)
#define ROW_ON(name, ...) KILNFS_ROW(Posix, name, __VA_ARGS__)
#define RESULT_ROW_ON(name, ...) KILNFS_ROW(PosixResult, name, __VA_ARGS__)
#define LEASE_ROW_ON(name, ...) KILNFS_ROW(PosixMount, name, __VA_ARGS__)

}  // namespace kilnfs::testing
