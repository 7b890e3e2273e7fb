// A lease to work in: the test's working directory is its root.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "store/base/fd.h"
#include "tests/support/mounted_store.h"

namespace kilnfs::testing {

constexpr unsigned kOther = 65534;  // a user who is not root

/// The errno of a call that failed, else 0.
inline int code(long result) {
  return result < 0 ? errno : 0;
}

class Lease : public MountedStore {
 protected:
  void SetUp() override {
    MountedStore::SetUp();
    start();
    former_ = std::filesystem::current_path();
    std::filesystem::current_path(std::filesystem::canonical(mnt("caches/c")));
  }
  void TearDown() override {
    std::filesystem::current_path(former_);
    MountedStore::TearDown();
  }

  static UniqueFd open(const std::string& name, int flags = O_RDWR | O_CREAT, mode_t mode = 0644) {
    return UniqueFd(::open(name.c_str(), flags | O_CLOEXEC, mode));
  }
  static void put(const std::string& name, const std::string& text) {
    const UniqueFd fd = open(name, O_WRONLY | O_CREAT | O_TRUNC);
    ASSERT_EQ(::write(fd.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  static std::string get(const std::string& name) { return readFile(name); }
  static struct stat stat(const std::string& name) {
    struct stat st = {};
    EXPECT_EQ(::lstat(name.c_str(), &st), 0) << name;
    return st;
  }
  static struct stat stat(const UniqueFd& fd) {
    struct stat st = {};
    EXPECT_EQ(::fstat(fd.get(), &st), 0);
    return st;
  }

  std::filesystem::path former_;
};

}  // namespace kilnfs::testing
