#include "store/control/control.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <atomic>
#include <ctime>
#include <deque>
#include <mutex>
#include <utility>

#include "store/control/answers.h"
#include "store/control/executor.h"
#include "store/control/metrics.h"

namespace kilnfs {
namespace {

constexpr size_t kErrorsKept = 200;
constexpr size_t kCommandShown = 300;

/// What all sessions of a mount share.
class Desk {
 public:
  Desk(Store& store, Leases& leases, Builds& builds)
      : leases_(leases), executor_(store, leases, builds), metrics_(store, leases, builds) {}

  Leases& leases() { return leases_; }
  Executor& executor() { return executor_; }
  Metrics& metrics() { return metrics_; }
  uint64_t nextHandle() { return ++handles_; }

  void recordError(const Requester& who, std::string_view command, const Error& error) {
    std::string line = fmt::format(
        "{:%Y-%m-%dT%H:%M:%SZ} uid {} pid {}: {}{}: {}: {}\n", fmt::gmtime(::time(nullptr)),
        who.uid, who.pid, inQuotes(command.substr(0, kCommandShown)),
        command.size() > kCommandShown ? "..." : "", errnoName(error.code), error.message);
    const std::lock_guard lock(mutex_);
    errors_.push_back(std::move(line));
    if (errors_.size() > kErrorsKept) errors_.pop_front();
  }
  std::string errors() const {
    const std::lock_guard lock(mutex_);
    return fmt::format("{}", fmt::join(errors_, ""));
  }

 private:
  Leases& leases_;
  Executor executor_;
  Metrics metrics_;
  std::atomic<uint64_t> handles_{0};
  mutable std::mutex mutex_;
  std::deque<std::string> errors_;  // guarded by mutex_
};

class Session : public ControlSession {
 public:
  explicit Session(Desk& desk) : desk_(desk), handle_(desk.nextHandle()) {}
  ~Session() override {
    if (!cut_.empty()) {
      desk_.recordError(cutBy_, publicBeginning(cut_),
                        {EINVAL, "not executed: it has no newline at its end"});
    }
    desk_.leases().closeHandle(handle_);
  }

  Status write(uint64_t offset, std::string_view text, const Requester& who,
               Interrupt& interrupt) override {
    begin(offset);
    const auto whole = withoutCut(text, who);
    Status done =
        whole ? runAll(*whole, who, interrupt) : refuse(who, publicBeginning(text), whole.error());
    const std::lock_guard lock(mutex_);
    if (!done && !cut_.empty()) broken_ = true;
    // The kernel moves the file's offset only if the write succeeds.
    answers_.endWrite(done ? offset + text.size() : offset);
    return done;
  }

  Expected<std::string> read(uint64_t offset, size_t size, Interrupt& interrupt) override {
    std::shared_ptr<FollowedLog> log;
    uint64_t place = 0;
    {
      const std::lock_guard lock(mutex_);
      if (!answers_.written()) {
        const std::string help = controlHelp();
        return offset < help.size() ? help.substr(offset, size) : std::string();
      }
      place = answers_.place(offset);
      if (place < answers_.size()) return answers_.read(place, size);
      place -= answers_.size();
      log = log_;
    }
    if (log == nullptr) return std::string();
    return log->read(place, size, interrupt);
  }

 private:
  void begin(uint64_t offset) {
    const std::lock_guard lock(mutex_);
    if (log_ != nullptr) answers_.clear();  // what came before a log was read, or is not wanted
    log_.reset();
    answers_.beginWrite(offset);
  }

  // The commands of a write that are whole, with what was held of the last one.
  Expected<std::string> withoutCut(std::string_view text, const Requester& who) {
    const std::lock_guard lock(mutex_);
    if (broken_) {
      return fail(EINVAL,
                  "what failed before ended within a command: write what comes after it to the "
                  "control file opened anew");
    }
    std::string whole = std::exchange(cut_, {});
    if (!whole.empty() && (cutBy_.uid != who.uid || cutBy_.gid != who.gid)) {
      return fail(EINVAL, "another user has written the beginning of a command here");
    }
    whole += text;
    if (text.empty() || text.size() % kBlock != 0 || whole.size() > kLongestWrite) return whole;
    cut_ = whole.substr(wholeCommands(whole));
    cutBy_ = who;
    whole.resize(whole.size() - cut_.size());
    return whole;
  }

  Status runAll(std::string_view text, const Requester& who, Interrupt& interrupt) {
    if (text.size() > kLongestWrite) {
      return refuse(who, publicBeginning(text),
                    {E2BIG, fmt::format("a write of {} bytes: at most {} at once", text.size(),
                                        kLongestWrite)});
    }
    const auto commands = splitCommands(text);
    if (!commands) return refuse(who, publicBeginning(text), commands.error());
    for (const Words& words : *commands) {
      if (auto done = runOne(words, who, interrupt); !done) return done;
    }
    return {};
  }

  Status runOne(const Words& words, const Requester& who, Interrupt& interrupt) {
    const auto command = parseCommand(words);
    if (!command) return refuse(who, publicText(words), command.error());
    Outcome answer = desk_.executor().execute(*command, handle_, who, interrupt);
    desk_.metrics().commandRan(answer.error.has_value());
    // Who interrupted a command knows it.
    if (answer.error && answer.error->code != EINTR) {
      desk_.recordError(who, publicText(words), *answer.error);
    }
    const std::lock_guard lock(mutex_);
    if (answer.follow != nullptr) {
      log_ = std::move(answer.follow);
      return {};
    }
    answers_.add(answer.line());
    if (answer.error) return Failure(*answer.error);
    return {};
  }

  Status refuse(const Requester& who, std::string_view command, const Error& error) {
    desk_.metrics().commandRan(true);
    desk_.recordError(who, command, error);
    const std::lock_guard lock(mutex_);
    answers_.add(Outcome{nlohmann::json::object(), error, nullptr}.line());
    return Failure(error);
  }

  Desk& desk_;
  const uint64_t handle_;
  std::mutex mutex_;  // not held while a command runs
  Answers answers_;   // guarded by mutex_
  std::string cut_;   // guarded by mutex_, as what follows; waits for its rest
  Requester cutBy_;
  bool broken_ = false;
  std::shared_ptr<FollowedLog> log_;  // guarded by mutex_; what follows the answers
};

class MountControl : public Control {
 public:
  MountControl(Store& store, Leases& leases, Builds& builds) : desk_(store, leases, builds) {}

  std::unique_ptr<ControlSession> open() override { return std::make_unique<Session>(desk_); }
  std::string errors() const override { return desk_.errors(); }
  void recordError(const Requester& who, std::string_view command, const Error& error) override {
    desk_.recordError(who, command, error);
  }
  std::string metrics() const override { return desk_.metrics().text(); }

 private:
  mutable Desk desk_;
};

}  // namespace

std::unique_ptr<Control> Control::create(Store& store, Leases& leases, Builds& builds) {
  return std::make_unique<MountControl>(store, leases, builds);
}

std::string Control::help() {
  return controlHelp();
}

}  // namespace kilnfs
