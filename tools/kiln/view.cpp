// Commands that only read files of the mount: log, ls, events; and status.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "store/base/name.h"
#include "tools/kiln/commands.h"
#include "tools/kiln/control_file.h"
#include "tools/kiln/mount.h"
#include "tools/kiln/status_table.h"

namespace kilnfs {
namespace {

constexpr size_t kPiece = 65536;

// The exit status if the words ask for help or are wrong; nothing if they were understood.
std::optional<int> parse(CLI::App& app, const Words& words) {
  // CLI11 takes the words last first.
  std::vector<std::string> reversed(words.rbegin(), words.rend() - 1);
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    return complain(words[0] + ": " + e.what() + "; see kiln help", kExitUsage);
  }
  return std::nullopt;
}

Expected<UniqueFd> openFile(const std::string& mount, const std::string& path, int flags) {
  int fd = -1;
  do {
    fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | flags);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return Failure(mountError(mount, path, errno));
  return UniqueFd(fd);
}

// Everything from the descriptor to stdout, until its end, or until it would block.
Status copyToStdout(const std::string& mount, int fd, const std::string& path) {
  std::array<char, kPiece> block{};
  while (true) {
    const ssize_t n = read(fd, block.data(), block.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return {};
    if (n < 0) return Failure(mountError(mount, path, errno));
    if (n == 0) return {};
    const auto size = static_cast<size_t>(n);
    if (auto done = writeAll(STDOUT_FILENO, {block.data(), size}, "stdout"); !done) return done;
  }
}

int copyFile(const std::string& mount, const std::string& path, int flags) {
  const auto fd = openFile(mount, path, flags);
  if (!fd) return complain(fd.error().message);
  const auto done = copyToStdout(mount, fd->get(), path);
  return done ? 0 : complain(done.error().message);
}

}  // namespace

int runLog(const std::string& mount, const Words& words) {
  CLI::App app("Print the log of the last attempt at ID.", "kiln log");
  bool follow = false;
  std::string id;
  app.add_flag("-f,--follow", follow, "Until the build has ended");
  app.add_option("ID", id)->required();
  if (const auto status = parse(app, words)) return *status;
  if (const auto name = Id::parse(id, "id"); !name)
    return complain(name.error().message, kExitUsage);
  const std::string path = mount + "/logs/" + id;
  struct stat attributes {};
  if (follow) return runFollow(mount, {"follow", id});
  if (lstat(path.c_str(), &attributes) != 0 && errno == ENOENT) {
    return complain("no log of " + inQuotes(id) + "; kiln ls logs lists those there are");
  }
  return copyFile(mount, path, 0);
}

int runList(const std::string& mount, const Words& words) {
  CLI::App app("List names, one a line.", "kiln ls");
  std::string what = "results";
  app.add_option("WHAT", what, "results (default), logs, caches, leases or builds")
      ->check(CLI::IsMember({"results", "logs", "caches", "leases", "builds"}));
  if (const auto status = parse(app, words)) return *status;
  const std::string path = mount + "/" + what;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(path.c_str()), closedir);
  if (!directory) return complain(mountError(mount, path, errno).message);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(directory.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
    errno = 0;
  }
  if (errno != 0) return complain(mountError(mount, path, errno).message);
  std::sort(names.begin(), names.end());
  std::string text;
  for (const auto& name : names) text += name + "\n";
  const auto written = writeAll(STDOUT_FILENO, text, "stdout");
  return written ? 0 : complain(written.error().message);
}

int runEvents(const std::string& mount, const Words& words) {
  CLI::App app("Print the store's events as JSON lines.", "kiln events");
  bool follow = false;
  app.add_flag("-f,--follow", follow, "Go on as they happen");
  if (const auto status = parse(app, words)) return *status;
  return copyFile(mount, mount + "/events", follow ? 0 : O_NONBLOCK);
}

int runStatus(const std::string& mount, const Words& words, bool json) {
  CLI::App app("Show what the store is doing.", "kiln status");
  bool raw = json || isatty(STDOUT_FILENO) != 1;
  bool people = false;
  app.add_flag("--json", raw, "The store's answer as it is (default when stdout is no terminal)");
  app.add_flag("--table", people, "A table, also when stdout is no terminal");
  if (const auto status = parse(app, words)) return *status;
  auto control = ControlFile::open(mount);
  if (!control) return complain(control.error().message);
  const auto answer = control->command({"status"});
  if (!answer) return complain(answer.error().message);
  if (!answer->ok) return complain(failureText(*answer), exitStatus(*answer));
  const auto text =
      raw && !people
          ? answer->json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n"
          : statusTable(answer->json);
  const auto written = writeAll(STDOUT_FILENO, text, "stdout");
  return written ? 0 : complain(written.error().message);
}

}  // namespace kilnfs
