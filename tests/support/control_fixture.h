// The control file on a real store, without a mount.
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "store/control/control.h"
#include "tests/support/temp_dir.h"

namespace kilnfs::testing {

/// One open control file with its offset, as a process sees it.
class Open {
 public:
  Open(Control& control, const Requester& who) : session_(control.open()), who_(who) {}

  int write(const std::string& text) {
    const Status done = session_->write(at_, text, who_, interrupt_);
    if (done) at_ += text.size();
    return done ? 0 : done.error().code;
  }
  std::string read(size_t size = 65536) {
    auto out = session_->read(at_, size, interrupt_);
    EXPECT_TRUE(out) << out.error().message;
    if (out) at_ += out->size();
    return out ? *out : "";
  }
  std::string readAll() {
    std::string out;
    for (std::string part; !(part = read(7)).empty();) out += part;
    return out;
  }
  /// Writes one command; its answer.
  nlohmann::json ask(const std::string& command) {
    write(command + "\n");
    const std::string text = readAll();
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
    return nlohmann::json::parse(text, nullptr, false);
  }
  ControlSession& session() { return *session_; }
  Interrupt& interrupt() { return interrupt_; }

 private:
  std::unique_ptr<ControlSession> session_;
  const Requester who_;
  Interrupt interrupt_;
  uint64_t at_ = 0;
};

class ControlTest : public ::testing::Test {
 protected:
  ControlTest() {
    auto store = Store::create(dir_ / "store", {{}, "", true});
    EXPECT_TRUE(store) << store.error().message;
    store_ = std::move(*store);
    leases_ = Leases::create(*store_, {});
    Builds::Options options;
    options.jobs = 2;
    options.supervisor = KILN_SUPERVISE;
    options.grace = std::chrono::milliseconds(200);
    builds_ = Builds::create(*store_, *leases_, options);
    control_ = Control::create(*store_, *leases_, *builds_);
    me_.uid = ::geteuid();
    me_.gid = ::getegid();
    me_.pid = ::getpid();
    me_.cwd = dir_.path();
  }
  Open open() { return Open(*control_, me_); }
  std::string gate(const std::string& name) const {
    return "touch " + (dir_ / (name + ".runs")) + "; until test -e " + (dir_ / (name + ".go")) +
           "; do sleep 0.01; done";
  }
  void awaitGate(const std::string& name) {
    while (!exists(dir_ / (name + ".runs")))
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  void openGate(const std::string& name) { writeFile(dir_ / (name + ".go"), ""); }

  TempDir dir_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Leases> leases_;
  std::unique_ptr<Builds> builds_;
  std::unique_ptr<Control> control_;
  Requester me_;
};

}  // namespace kilnfs::testing
