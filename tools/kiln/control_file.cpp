#include "tools/kiln/control_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "store/control/control.h"
#include "tools/kiln/mount.h"
#include "tools/kiln/words.h"

namespace kilnfs {
namespace {

constexpr size_t kBlock = 65536;

// Retried after a signal: a read of answers or of a log does not end a wait.
ssize_t readAt(int fd, char* buffer, size_t size, off_t offset) {
  ssize_t n = 0;
  do {
    n = pread(fd, buffer, size, offset);
  } while (n < 0 && errno == EINTR);
  return n;
}

Answer answerFromErrno(int code) {
  Answer answer;
  answer.errnoName = errnoName(code);
  answer.message = std::strerror(code);
  return answer;
}

}  // namespace

Expected<ControlFile> ControlFile::open(const std::string& mount) {
  const std::string path = mount + "/control";
  int fd = -1;
  do {
    fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return Failure(controlError(mount, errno));
  return ControlFile(mount, UniqueFd(fd));
}

Expected<int> ControlFile::write(const std::string& line) const {
  if (line.size() > ControlSession::kLongestWrite) {
    return fail(E2BIG, "the command is " + std::to_string(line.size()) + " bytes long, more than " +
                           std::to_string(ControlSession::kLongestWrite) +
                           "; put the long part into a file and name that");
  }
  // Offset 0 each time: whatever was written, its answers are found from 0 on.
  const ssize_t n = pwrite(fd_.get(), line.data(), line.size(), 0);
  const int code = errno;
  if (n == static_cast<ssize_t>(line.size())) return 0;
  if (n >= 0) return fail(EIO, "the control file took only a part of the command");
  if (code == ENOTCONN || code == ECONNABORTED || code == ESHUTDOWN) {
    return Failure(mountError(mount_, mount_, code));
  }
  return code;
}

Expected<std::string> ControlFile::readAll() const {
  std::string text;
  std::array<char, kBlock> block{};
  while (true) {
    const ssize_t n =
        readAt(fd_.get(), block.data(), block.size(), static_cast<off_t>(text.size()));
    if (n < 0) return Failure(mountError(mount_, mount_ + "/control", errno));
    if (n == 0) return text;
    text.append(block.data(), static_cast<size_t>(n));
  }
}

Expected<Answer> ControlFile::command(const Words& words) {
  const auto code = write(commandLine(words));
  if (!code) return Failure(code.error());
  if (*code == EINTR) return fail(EINTR, "interrupted");
  const auto lines = readAll();
  if (!lines) return Failure(lines.error());
  auto answer = lastAnswer(*lines);
  if (answer && answer->ok == (*code == 0)) return std::move(*answer);
  if (*code != 0) return answerFromErrno(*code);
  return fail(EPROTO, "the control file gave no answer");
}

Status ControlFile::follow(const std::string& id,
                           const std::function<Status(std::string_view)>& sink) {
  const auto code = write(commandLine({"follow", id}));
  if (!code) return Failure(code.error());
  if (*code != 0) {
    const auto lines = readAll();
    const auto answer = lines ? lastAnswer(*lines) : std::nullopt;
    return fail(*code, answer ? failureText(*answer) : std::strerror(*code));
  }
  std::array<char, kBlock> block{};
  off_t offset = 0;
  while (true) {
    const ssize_t n = readAt(fd_.get(), block.data(), block.size(), offset);
    if (n < 0) return Failure(mountError(mount_, "log of " + id, errno));
    if (n == 0) return {};
    offset += n;
    if (auto done = sink({block.data(), static_cast<size_t>(n)}); !done) return done;
  }
}

Expected<std::string> ControlFile::help() const {
  return readAll();
}

Status writeAll(int fd, std::string_view bytes, const std::string& what) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failErrno(what);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return {};
}

}  // namespace kilnfs
