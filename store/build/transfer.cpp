#include "store/build/transfer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <filesystem>

#include "store/base/directory_names.h"

namespace kilnfs {
namespace {

/// The end of what rsync said, on one line.
std::string lastWords(int fd) {
  constexpr off_t kTail = 1000;
  struct stat st = {};
  ::fstat(fd, &st);
  const off_t from = st.st_size > kTail ? st.st_size - kTail : 0;
  std::string text(static_cast<size_t>(st.st_size - from), '\0');
  const ssize_t n = ::pread(fd, text.data(), text.size(), from);
  text.resize(n > 0 ? static_cast<size_t>(n) : 0);
  while (text.ends_with('\n')) text.pop_back();
  for (size_t at = 0; (at = text.find('\n', at)) != std::string::npos;) text.replace(at, 1, "; ");
  return text;
}

}  // namespace

Status Transfer::rsync(const std::string& what, const std::string& dir, const std::string& from,
                       const std::string& to, const Account& account, Interrupt& interrupt) {
  const UniqueFd output(::memfd_create("rsync", MFD_CLOEXEC));
  if (!output.valid()) return failErrno("memfd_create");
  Supervised::Spec spec;
  spec.grace = options_.grace;
  spec.account = account;
  spec.env = cleanEnvironment(account, {});
  spec.dir = dir;
  spec.outputFd = output.get();
  spec.argv = {"rsync", "-aHAXS", "--numeric-ids", "--", from, to};
  auto started = Supervised::start(supervisors_, spec);
  if (!started) return Failure(started.error());
  const Supervised::End end = started->run(interrupt, std::nullopt);
  if (end.ok()) return {};
  if (end.interrupted) return fail(EINTR, what + " was interrupted");
  if (end.error) return fail(end.error->code, fmt::format("{}: {}", what, end.error->message));
  return fail(EIO, fmt::format("{}: rsync {}: {}", what, describe(end), lastWords(output.get())));
}

Status Transfer::importTree(const Id& id, const std::string& source, const Account& account,
                            Interrupt& interrupt,
                            const std::function<void(std::shared_ptr<Workspace>)>& show) {
  auto path = Sources::resolve(source, who_);
  if (!path) return Failure(path.error());
  const Sources sources(store_, options_.mount);
  auto directory = sources.isDirectory(*path, account);
  if (!directory) return Failure(directory.error());
  if (!*directory) return fail(ENOTDIR, fmt::format("{} is not a directory", inQuotes(*path)));
  return store_.build(id, std::nullopt, User{account.uid, account.gid}, interrupt,
                      [&](const std::shared_ptr<Workspace>& tmpdir) -> Status {
                        // Who has the daemon's own rights needs no detour through the mount.
                        const bool direct = options_.mount.empty() || account.uid == ::geteuid();
                        const std::string to =
                            direct ? tmpdir->path()
                                   : fmt::format("{}/builds/{}", options_.mount, id.str());
                        if (!direct) show(tmpdir);
                        Status done = rsync(fmt::format("import {}", inQuotes(source)), "/",
                                            *path + "/", to + "/", account, interrupt);
                        show(nullptr);
                        return done;
                      });
}

Status Transfer::checkDestination(const std::string& path, const Account& account) const {
  // A path below the mount is rsync's to look at: the daemon does not go through its own mount.
  const std::string normal = std::filesystem::path(path).lexically_normal().string();
  if (!options_.mount.empty() && normal.starts_with(options_.mount + "/")) return {};
  const ActAs rights(account);
  if (!rights.ok()) return fail(EPERM, "can't take on the user's rights");
  struct stat st = {};
  if (::stat(path.c_str(), &st) != 0) {
    if (errno != ENOENT) return failErrno(inQuotes(path));
    std::string parent = normal;
    while (parent.size() > 1 && parent.ends_with('/')) parent.pop_back();
    parent = std::filesystem::path(parent).parent_path().string();
    if (::stat(parent.c_str(), &st) != 0) return failErrno(inQuotes(parent));
    return {};
  }
  if (!S_ISDIR(st.st_mode)) return fail(ENOTDIR, fmt::format("{} is no directory", inQuotes(path)));
  const UniqueFd there(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!there.valid()) return failErrno(inQuotes(path));
  auto empty = isEmptyDirectory(there.get());
  if (!empty) return Failure(empty.error());
  if (!*empty) {
    return fail(ENOTEMPTY, fmt::format("{} is not empty: export into a new or an empty directory",
                                       inQuotes(path)));
  }
  return {};
}

Status Transfer::exportTree(const Id& id, const std::string& destination, const Account& account,
                            Interrupt& interrupt) {
  auto path = Sources::resolve(destination, who_);
  if (!path) return Failure(path.error());
  auto snapshot = store_.basis(id);
  if (!snapshot) return Failure(snapshot.error());
  if (*snapshot == nullptr) return fail(ENOENT, fmt::format("no result {}", id.str()));
  if (auto good = checkDestination(*path, account); !good) return good;
  store_.touch(id);
  std::string from = fmt::format("{}/results/{}", options_.mount, id.str());
  UniqueFd root;
  // Of one that is not plain yet, some directories are elsewhere: the mount knows where.
  if (options_.mount.empty() && !(*snapshot)->plain()) {
    if (auto done = store_.completeDeletes(); !done) return done;
    snapshot = store_.basis(id);
    if (!snapshot) return Failure(snapshot.error());
    if (*snapshot == nullptr) return fail(ENOENT, fmt::format("no result {}", id.str()));
  }
  if (options_.mount.empty() || (account.uid == ::geteuid() && (*snapshot)->plain())) {
    // By descriptor: it stays the same directory even if the result is renamed away meanwhile.
    auto opened = (*snapshot)->open("", O_RDONLY | O_DIRECTORY);
    if (!opened) return Failure(opened.error());
    root = std::move(*opened);
    from = fmt::format("/proc/{}/fd/{}", ::getpid(), root.get());
  }
  return rsync(fmt::format("export {}", id.str()), from, "./", *path + "/", account, interrupt);
}

}  // namespace kilnfs
