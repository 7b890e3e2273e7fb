// What the benchmark mounts and serves; each object takes down what it put up.
#pragma once

#include <optional>
#include <string>

#include "store/base/error.h"
#include "store/base/process.h"
#include "tools/bench/command.h"

namespace kilnfs::bench {

bool isMounted(const std::string& path);
/// Whatever is mounted below `path`, last things first: for what an interrupted `mount` left.
void unmountBelow(const std::string& path);

/// A kernel mount. Unmounted when destroyed.
class Mounted {
 public:
  /// Needs root. `upper` and `work` are in one file system.
  static Expected<Mounted> overlay(const std::string& lower, const std::string& upper,
                                   const std::string& work, const std::string& at);
  /// Makes a file system of `type` in the sparse file `image` and mounts it. Needs root.
  static Expected<Mounted> loop(const std::string& type, const std::string& image, size_t bytes,
                                const std::string& at);
  Mounted(Mounted&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  Mounted& operator=(Mounted&&) = delete;
  ~Mounted();

  const std::string& path() const { return path_; }

 private:
  explicit Mounted(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

/// A program that serves a FUSE mount in the foreground.
class Served {
 public:
  /// Returns once `at` is mounted. What the program says goes to the file `log`.
  static Expected<Served> start(const Argv& argv, const std::string& at, const std::string& log);
  Served(Served&&) noexcept = default;
  Served& operator=(Served&&) = delete;
  ~Served() { end(); }

  /// Asks it to end, and sees to it; again is harmless.
  void end();
  pid_t pid() const { return process_ ? process_->pid() : -1; }
  const std::string& path() const { return path_; }

 private:
  Served(Process process, std::string path)
      : process_(std::move(process)), path_(std::move(path)) {}
  std::optional<Process> process_;
  std::string path_;
};

/// Makes the directories, empty: what was in them is deleted.
Status makeEmpty(const std::vector<std::string>& directories);
Status removeAll(const std::string& path);

}  // namespace kilnfs::bench
