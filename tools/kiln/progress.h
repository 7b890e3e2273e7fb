// What kiln shows on stderr while something takes long: one line that is refreshed in place on a
// terminal, and nothing in between elsewhere (plain lines are for the start and the end).
#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <string>

namespace kilnfs {

/// The line at the bottom of the terminal. Thread-safe.
class StatusLine {
 public:
  StatusLine();
  explicit StatusLine(bool terminal) : terminal_(terminal) {}
  ~StatusLine() { clear(); }
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;

  bool terminal() const { return terminal_; }
  /// Replaces the line; cut to the terminal's width. Nothing where stderr is no terminal.
  void show(const std::string& text);
  void clear();
  /// Clears the line and writes one that stays: "kiln: TEXT".
  void print(const std::string& text);

 private:
  void clearLocked();

  const bool terminal_;
  std::mutex mutex_;
  bool shown_ = false;  // guarded by mutex_
};

/// "850 ms", "12.3 s", "4 min 05 s".
std::string durationText(std::chrono::milliseconds duration);

/// Runs `work` on a thread of its own and calls `tick` on this one, every `period`, until `work`
/// has returned. Gives how long it took.
std::chrono::milliseconds runWithTicks(
    const std::function<void()>& work, std::chrono::milliseconds period,
    const std::function<void(std::chrono::milliseconds elapsed)>& tick);

}  // namespace kilnfs
