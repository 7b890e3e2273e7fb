// A store in a directory of its own, served by a real daemon on a real mount. What the daemon must
// leave behind is checked when the test ends: exit status 0, no mount, no process, no work in
// progress.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/temp_dir.h"

namespace kilnfs::testing {

struct Ran {
  int status = 0;      // exit status, or 128 + the signal
  std::string output;  // standard output and error
};

/// Runs a shell command line in directory `cwd`, as user `uid`.
Ran shell(const std::string& line, const std::string& cwd = "/", unsigned uid = 0);

/// A daemon in the foreground, a child of the test.
class Daemon {
 public:
  /// Returns once `mnt` is mounted, or the daemon has ended. `uid` runs it by that user.
  Daemon(std::string store, std::string mnt, const std::vector<std::string>& options,
         unsigned uid = 0);
  /// Kills it if it was not ended.
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  bool mounted() const;
  /// Sends `signal` (0: none) and waits; the exit status, or 128 + the signal.
  int end(int signal);
  int pid() const { return pid_; }
  /// The process that looks after its mount if it is killed; -1: there is none.
  int guard() const;
  /// What it has logged so far.
  std::string log() const { return readFile(log_); }

 private:
  const std::string mnt_;
  const std::string log_;
  int pid_ = -1;
};

/// The fixture. A test that wants the store to hold something before writes it in SetUp() and
/// then calls start().
class MountedStore : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;
  void start(const std::vector<std::string>& options = {}, unsigned uid = 0);
  /// Ends the daemon and makes the checks; TearDown does it if the test has not.
  void finish();

  std::string store() const { return dir_ / "store"; }
  std::string mnt() const { return dir_ / "mnt"; }
  std::string scratch() const { return dir_ / "scratch"; }
  std::string mnt(const std::string& below) const { return mnt() + "/" + below; }

  TempDir dir_;
  std::unique_ptr<Daemon> daemon_;
};

/// Mount points below `path`, as the kernel lists them.
std::vector<std::string> mountsBelow(const std::string& path);

/// A child process of the test that runs `body` as `uid` and ends with what it returns.
int asUser(unsigned uid, const std::function<int()>& body);

}  // namespace kilnfs::testing
