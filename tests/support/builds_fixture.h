// Builds on a real store, without a mount: commands run in the tmpdir's path on disk.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "store/build/builds.h"
#include "tests/support/names.h"
#include "tests/support/temp_dir.h"

namespace kilnfs::testing {

class BuildsTest : public ::testing::Test {
 protected:
  explicit BuildsTest(unsigned jobs = 2) {
    auto store = Store::create(dir_ / "store", {{}, "", true});
    EXPECT_TRUE(store) << store.error().message;
    store_ = std::move(*store);
    leases_ = Leases::create(*store_, {});
    Builds::Options options;
    options.jobs = jobs;
    options.supervisor = KILN_SUPERVISE;
    options.grace = std::chrono::milliseconds(200);
    builds_ = Builds::create(*store_, *leases_, options);
    me_.uid = ::geteuid();
    me_.gid = ::getegid();
    me_.cwd = dir_.path();
  }

  BuildRequest request(const std::string& name, const std::string& shell,
                       const std::string& base = {}) const {
    BuildRequest out;
    if (!name.empty()) out.id = id(name);
    if (!base.empty()) out.base = id(base);
    out.argv = {"/bin/sh", "-c", shell};
    return out;
  }
  BuildStatus run(const BuildRequest& what) {
    auto status = builds_->run(what, me_, interrupt_);
    EXPECT_TRUE(status) << status.error().message;
    return status ? *status : BuildStatus{id("none")};
  }
  BuildStatus run(const std::string& name, const std::string& shell, const std::string& base = {}) {
    return run(request(name, shell, base));
  }
  BuildStatus submit(const BuildRequest& what) {
    auto status = builds_->submit(what, me_, interrupt_);
    EXPECT_TRUE(status) << status.error().message;
    return status ? *status : BuildStatus{id("none")};
  }
  BuildStatus wait(const std::string& name) {
    Interrupt none;
    auto status = builds_->wait(id(name), none);
    EXPECT_TRUE(status) << status.error().message;
    return status ? *status : BuildStatus{id("none")};
  }
  std::string result(const std::string& below) const {
    return readFile(dir_ / ("store/result/" + below));
  }
  std::string log(const std::string& name) const { return readFile(dir_ / ("store/log/" + name)); }
  void awaitFile(const std::string& path) {
    while (!exists(path)) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  /// A shell command that says that it runs and waits until it may go on.
  std::string gate(const std::string& name) const {
    return "touch " + (dir_ / (name + ".runs")) + "; until test -e " + (dir_ / (name + ".go")) +
           "; do sleep 0.01; done; ";
  }
  void awaitGate(const std::string& name) { awaitFile(dir_ / (name + ".runs")); }
  void openGate(const std::string& name) { writeFile(dir_ / (name + ".go"), ""); }
  std::string workInProgress() const {
    builds_->stop();
    EXPECT_TRUE(store_->completeDeletes());
    std::string out;
    for (const char* area : {"result-tmp", "cache-tmp"}) {
      for (const auto& entry :
           std::filesystem::directory_iterator(dir_ / ("store/" + std::string(area)))) {
        out += entry.path().filename().string() + " ";
      }
    }
    return out;
  }

  TempDir dir_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Leases> leases_;
  std::unique_ptr<Builds> builds_;
  Requester me_;
  Interrupt interrupt_;
};

}  // namespace kilnfs::testing
