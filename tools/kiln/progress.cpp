#include "tools/kiln/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "tools/kiln/control_file.h"

namespace kilnfs {
namespace {

constexpr std::string_view kClearLine = "\r\033[K";

bool stderrIsTerminal() {
  const char* term = std::getenv("TERM");
  return isatty(STDERR_FILENO) == 1 && term != nullptr && std::string_view(term) != "dumb";
}

size_t terminalWidth() {
  constexpr size_t kUsual = 80;
  struct winsize size {};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : kUsual;
}

// Progress that can't be shown is no reason to fail.
void toStderr(std::string_view text) {
  (void)writeAll(STDERR_FILENO, text, "stderr");
}

}  // namespace

StatusLine::StatusLine() : StatusLine(stderrIsTerminal()) {}

void StatusLine::show(const std::string& text) {
  if (!terminal_) return;
  const std::lock_guard lock(mutex_);
  toStderr(std::string(kClearLine) + text.substr(0, terminalWidth() - 1));
  shown_ = true;
}

void StatusLine::clear() {
  const std::lock_guard lock(mutex_);
  clearLocked();
}

void StatusLine::clearLocked() {
  if (shown_) toStderr(kClearLine);
  shown_ = false;
}

void StatusLine::print(const std::string& text) {
  const std::lock_guard lock(mutex_);
  clearLocked();
  toStderr("kiln: " + text + "\n");
}

std::string durationText(std::chrono::milliseconds duration) {
  constexpr int64_t kSecond = 1000;
  constexpr int64_t kMinute = 60 * kSecond;
  const int64_t ms = duration.count();
  if (ms < kSecond) return fmt::format("{} ms", ms);
  if (ms < kMinute) return fmt::format("{}.{} s", ms / kSecond, ms % kSecond / 100);
  return fmt::format("{} min {:02} s", ms / kMinute, ms % kMinute / kSecond);
}

std::chrono::milliseconds runWithTicks(
    const std::function<void()>& work, std::chrono::milliseconds period,
    const std::function<void(std::chrono::milliseconds elapsed)>& tick) {
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&start] {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() -
                                                                 start);
  };
  std::mutex mutex;
  std::condition_variable ended;
  bool done = false;
  std::thread worker([&] {
    work();
    const std::lock_guard lock(mutex);
    done = true;
    ended.notify_one();
  });
  for (std::unique_lock lock(mutex); !ended.wait_for(lock, period, [&] { return done; });) {
    lock.unlock();
    tick(elapsed());
    lock.lock();
  }
  worker.join();
  return elapsed();
}

}  // namespace kilnfs
