// Commands that the store carries out while kiln waits: build, wait, import and the rest.
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <optional>
#include <thread>

#include "tools/kiln/build_finder.h"
#include "tools/kiln/commands.h"
#include "tools/kiln/control_file.h"
#include "tools/kiln/progress.h"
#include "tools/kiln/status_table.h"
#include "tools/kiln/words.h"

namespace kilnfs {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kLook{20};       // how often the id of a new build is looked for
constexpr milliseconds kRefresh{1000};  // how often the queue is asked

// A stop signal would end the wait (the kernel interrupts the write for it), and with the last
// waiter the build. So Ctrl-Z does nothing while kiln waits; Ctrl-C does what it says.
void ignoreStops() {
  ::signal(SIGTSTP, SIG_IGN);
}

// Empty if it was removed.
std::string workingDirectory() {
  char* cwd = getcwd(nullptr, 0);
  std::string path = cwd == nullptr ? "" : cwd;
  ::free(cwd);
  return path;
}

// The words as the store can take them, which does not know where kiln was started.
Expected<Words> wordsForStore(const Words& words) {
  const std::string cwd = workingDirectory();
  auto absolute = withAbsolutePaths(words, cwd);
  if (cwd.empty() && absolute != words) {
    return fail(ENOENT, "the working directory is gone: give absolute paths, or go to another");
  }
  return absolute;
}

// What the store says about a build, for the status line.
std::string placeInQueue(const std::string& mount, const std::string& id) {
  auto control = ControlFile::open(mount);
  if (!control) return {};
  const auto answer = control->command({"status"});
  return answer ? buildState(answer->json, id) : std::string();
}

// Copies the log of a build to stdout, on a thread of its own.
class LogStream {
 public:
  LogStream(std::string mount, std::string id, StatusLine& line)
      : thread_([this, mount = std::move(mount), id = std::move(id), &line] {
          done_ = copy(mount, id, line);
        }) {}
  ~LogStream() {
    if (thread_.joinable()) thread_.join();
  }
  LogStream(const LogStream&) = delete;
  LogStream& operator=(const LogStream&) = delete;
  /// Whether there was something in the log.
  bool started() const { return started_; }
  /// Waits for the log's end.
  Status finish() {
    thread_.join();
    return done_;
  }

 private:
  Status copy(const std::string& mount, const std::string& id, StatusLine& line) {
    auto control = ControlFile::open(mount);
    if (!control) return Failure(control.error());
    return control->follow(id, [this, &line](std::string_view bytes) {
      if (!started_.exchange(true)) line.clear();
      return writeAll(STDOUT_FILENO, bytes, "stdout");
    });
  }

  std::atomic<bool> started_{false};
  Status done_;  // the thread's, until it was joined
  std::thread thread_;
};

// The answer to a `build --wait`, its log streamed meanwhile. `shown`: whether all of that got out.
Expected<Answer> waitForBuild(const std::string& mount, ControlFile& control,
                              const BuildWords& build, StatusLine& line, Status& shown) {
  Expected<Answer> answer = fail(EIO);
  std::optional<LogStream> log;
  BuildFinder finder(mount, build.id);
  std::atomic<pid_t> requester{0};
  std::string id;
  milliseconds asked{0};
  const auto ask = [&] {
    requester = gettid();
    answer = control.command(build.words);
  };
  runWithTicks(ask, kLook, [&](milliseconds elapsed) {
    if (id.empty()) {
      id = finder.find(requester);
      if (id.empty()) return;
      if (!build.json) log.emplace(mount, id, line);
    }
    if ((log && log->started()) || !line.terminal() || elapsed - asked < kRefresh) return;
    asked = elapsed;
    const std::string place = placeInQueue(mount, id);
    if (log && log->started()) return;
    line.show(fmt::format("{}: {}, {}", id, place, durationText(elapsed)));
  });
  // A build that was over before its id was seen still shows its log; one that was stored, or never
  // begun, has none to show.
  const bool ran = answer && answer->json.contains("state") && answer->text("cached") != "true";
  if (!build.json && !log && ran) log.emplace(mount, answer->text("id"), line);
  if (!log) return answer;
  shown = log->finish();
  // Where there is no answer either, that says why, and once is enough.
  if (!shown && answer) line.print(shown.error().message);
  return answer;
}

std::string buildOutcome(const Answer& answer, milliseconds took) {
  const std::string id = answer.text("id");
  if (answer.text("cached") == "true") return id + ": was in the store";
  if (answer.ok) return fmt::format("{}: {} in {}", id, answer.text("state"), durationText(took));
  if (id.empty()) return failureText(answer);
  const std::string message = failureText(answer);
  return message.find(id) == std::string::npos ? id + ": " + message : message;
}

int printJson(const Answer& answer) {
  const auto text = answer.json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  const auto written = writeAll(STDOUT_FILENO, text + "\n", "stdout");
  return written ? exitStatus(answer) : complain(written.error().message);
}

// What stays on the screen of the answer to a command that is no build.
int printAnswer(const Answer& answer) {
  // What was found wrong is an answer too.
  const bool found = answer.json.contains("results");
  const auto text = answer.ok || found ? answerText(answer.json) : std::string();
  if (!answer.ok) {
    (void)writeAll(STDOUT_FILENO, text, "stdout");
    return complain(failureText(answer), exitStatus(answer));
  }
  if (text.empty()) return 0;
  const auto written = writeAll(STDOUT_FILENO, text, "stdout");
  return written ? 0 : complain(written.error().message);
}

int failed(const Error& error) {
  if (error.code == EINTR) return complain(error.message, kSignalBase + SIGINT);
  const bool usage = error.code == EINVAL || error.code == E2BIG;
  return complain(error.message, usage ? kExitUsage : kExitRefused);
}

}  // namespace

int complain(const std::string& text, int status) {
  (void)writeAll(STDERR_FILENO, "kiln: " + text + "\n", "stderr");
  return status;
}

int runBuild(const std::string& mount, const Words& words) {
  auto request = splitBuildWords(words);
  auto control = ControlFile::open(mount);
  if (!control) return failed(control.error());
  auto line = wordsForStore(request.words);
  if (!line) return failed(line.error());
  request.words = std::move(*line);
  if (request.detach) {
    const auto answer = control->command(request.words);
    if (!answer) return failed(answer.error());
    if (request.json) return printJson(*answer);
    if (!answer->ok) return complain(failureText(*answer), exitStatus(*answer));
    const auto written = writeAll(STDOUT_FILENO, answer->text("id") + "\n", "stdout");
    return written ? 0 : complain(written.error().message);
  }
  ignoreStops();
  const auto start = std::chrono::steady_clock::now();
  StatusLine status;
  Status shown;
  const auto answer = waitForBuild(mount, *control, request, status, shown);
  if (!answer) {
    status.clear();
    return failed(answer.error());
  }
  const auto took =
      std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - start);
  status.print(buildOutcome(*answer, took));
  const int ended = request.json ? printJson(*answer) : exitStatus(*answer);
  return ended == 0 && !shown ? kExitRefused : ended;
}

int runControlCommand(const std::string& mount, const Words& words, bool json) {
  auto control = ControlFile::open(mount);
  if (!control) return failed(control.error());
  const auto line = wordsForStore(words);
  if (!line) return failed(line.error());
  const bool copies = words[0] == "import" || words[0] == "export";
  const bool waits = copies || words[0] == "wait" || words[0] == "complete-deletes" ||
                     words[0] == "prune" || words[0] == "verify";
  if (waits) ignoreStops();
  StatusLine status;
  const std::string what = words[0] + (words.size() > 1 ? " " + words[1] : "");
  if (copies && !status.terminal()) status.print(what);
  Expected<Answer> answer = fail(EIO);
  const auto took = runWithTicks(
      [&] { answer = control->command(*line); }, kRefresh,
      [&](milliseconds elapsed) {
        if (!waits) return;
        const std::string place =
            words[0] == "wait" && words.size() == 2 ? placeInQueue(mount, words[1]) + ", " : "";
        status.show(what + ": " + place + durationText(elapsed));
      });
  status.clear();
  if (!answer) return failed(answer.error());
  if (copies && answer->ok) status.print(what + ": done in " + durationText(took));
  if (json) return printJson(*answer);
  return copies && answer->ok ? 0 : printAnswer(*answer);
}

int runFollow(const std::string& mount, const Words& words) {
  if (words.size() != 2) return complain("usage: kiln follow ID", kExitUsage);
  auto control = ControlFile::open(mount);
  if (!control) return failed(control.error());
  const auto done = control->follow(
      words[1], [](std::string_view bytes) { return writeAll(STDOUT_FILENO, bytes, "stdout"); });
  if (!done) return failed(done.error());
  // How the build ended, which the log does not tell.
  const auto answer = control->command({"wait", words[1]});
  if (!answer) return failed(answer.error());
  // A log without a result, of a build that this daemon does not know.
  if (answer->ok || answer->errnoName == "ENOENT") return 0;
  return complain(failureText(*answer), exitStatus(*answer));
}

}  // namespace kilnfs
