// For fuzzers of the store: where it lies, with something beside it that must stay as it is.
#pragma once

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "store/base/remove_tree.h"
#include "store/store.h"

namespace kilnfs::fuzz {

/// What a fuzzer was given, piece by piece; zeros after its end.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), left_(size) {}
  bool done() const { return left_ == 0; }
  uint8_t byte() {
    if (left_ == 0) return 0;
    --left_;
    return *data_++;
  }
  std::string text(size_t most) {
    std::string out;
    for (size_t n = byte() % (most + 1); n > 0 && left_ > 0; --n) {
      out += static_cast<char>(byte());
    }
    return out;
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

[[noreturn]] inline void broken(const std::string& what) {
  std::fprintf(stderr, "broken: %s\n", what.c_str());
  std::abort();
}

/// A failure has a code; on hot paths, where the code says it all, that may be all (error.h).
template <class T>
void hasCode(const T& outcome) {
  if (!outcome && outcome.error().code == 0) broken("an error without a code");
}

/// A failure says why.
template <class T>
void tells(const T& outcome) {
  if (!outcome && (outcome.error().code == 0 || outcome.error().message.empty())) {
    broken("an error without a word");
  }
}

class Site {
 public:
  Site() {
    spdlog::set_level(spdlog::level::off);
    std::string name = (::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp") +
                       std::string("/kilnfs-fuzz.XXXXXX");
    if (::mkdtemp(name.data()) == nullptr) broken("no temporary directory");
    top_ = name;
    for (const char* directory : {"/outside", "/outside/d", "/outside/d/e"}) {
      std::filesystem::create_directory(top_ + directory);
    }
    for (const char* file : {"/outside/f", "/outside/d/f"}) std::ofstream(top_ + file) << "theirs";
    before_ = fingerprint();
  }
  ~Site() { (void)removeTree(AT_FDCWD, top_); }
  Site(const Site&) = delete;
  Site& operator=(const Site&) = delete;

  std::string store() const { return top_ + "/store"; }
  std::string outside() const { return top_ + "/outside"; }
  void check() const {
    if (fingerprint() != before_) broken("something outside the store has changed:\n" + before_);
  }

 private:
  /// Inode numbers and times of change tell of renaming and new modes too.
  std::string fingerprint() const {
    std::string out = line(outside());
    for (const auto& at : std::filesystem::recursive_directory_iterator(outside())) {
      out += line(at.path());
    }
    for (const auto& at : std::filesystem::directory_iterator(top_)) {
      if (at.path() != store()) out += at.path().string() + "\n";
    }
    return out;
  }
  static std::string line(const std::string& path) {
    struct stat st = {};
    if (::lstat(path.c_str(), &st) != 0) return path + " is gone\n";
    return fmt::format("{} {} {:o} {} {}.{}\n", path, st.st_ino, st.st_mode, st.st_nlink,
                       st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
  }

  std::string top_;
  std::string before_;
};

inline std::unique_ptr<Store> openStore(const std::string& path, std::string* why = nullptr) {
  auto store = Store::create(path, {});
  tells(store);
  if (store) return std::move(*store);
  if (why == nullptr) broken("the store does not open: " + store.error().message);
  *why = store.error().message;
  return nullptr;
}

}  // namespace kilnfs::fuzz
