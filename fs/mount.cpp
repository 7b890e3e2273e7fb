#include "fs/mount.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <ctime>
#include <tuple>

#include "fs/fuse_compat.h"

namespace kilnfs {
namespace {

struct timespec now() {
  struct timespec t = {};
  ::clock_gettime(CLOCK_REALTIME, &t);
  return t;
}

}  // namespace

Mount::Mount(Parts parts, const MountOptions& options)
    : quiet(options.source),
      accessTimes(options.source),
      staleNames([this](std::function<void()> job) { later(std::move(job)); }),
      parts_(parts),
      options_(options),
      started_(now()),
      workers_(options.workers),
      waiters_(options.workers) {}

void Mount::setSession(fuse_session* session) {
  session_ = session;
  staleNames.setSession(session);
}

namespace {

void runOn(Workers& workers, std::function<void()> job) {
  workers.run([job = std::move(job)] {
    resetThreadIdentity();
    job();
  });
}

// std::function wants to be copied; the Reply can't be.
std::function<void()> holding(Reply reply, std::function<void(Reply)> job) {
  auto held = std::make_shared<Reply>(std::move(reply));
  return [held, job = std::move(job)] { job(std::move(*held)); };
}

}  // namespace

void Mount::later(std::function<void()> job) {
  runOn(workers_, std::move(job));
}

void Mount::later(Reply reply, std::function<void(Reply)> job) {
  if (finishing_) return reply.error(ENOTCONN);
  later(holding(std::move(reply), std::move(job)));
}

void Mount::laterWaiting(std::function<void()> job) {
  runOn(waiters_, std::move(job));
}

void Mount::laterWaiting(Reply reply, std::function<void(Reply)> job) {
  if (finishing_) return reply.error(ENOTCONN);
  laterWaiting(holding(std::move(reply), std::move(job)));
}

void Mount::laterInterruptible(Reply reply, std::function<void(Reply, Interrupt&)> job) {
  const std::shared_ptr<Interrupt> interrupt = reply.interruptible();
  {
    const std::lock_guard lock(mutex_);
    if (finishing_) interrupt->raise();  // nobody else will, should it come to be done
    if (waiting_.size() >= pruneAt_) {
      std::erase_if(waiting_, [](const auto& weak) { return weak.expired(); });
      pruneAt_ = 64 + 2 * waiting_.size();
    }
    waiting_.push_back(interrupt);
  }
  laterWaiting(std::move(reply),
               [interrupt, job = std::move(job)](Reply held) { job(std::move(held), *interrupt); });
}

void Mount::finish() {
  while (!finishFor(std::chrono::hours(1))) {
  }
}

bool Mount::finishFor(std::chrono::milliseconds limit) {
  staleNames.end();
  std::vector<std::weak_ptr<Interrupt>> waiting;
  {
    const std::lock_guard lock(mutex_);
    finishing_ = true;
    waiting.swap(waiting_);
  }
  for (const auto& weak : waiting) {
    if (const auto interrupt = weak.lock()) interrupt->raise();
  }
  // Those who wait first: they give the others work.
  return waiters_.drainFor(limit) && workers_.drainFor(limit);
}

void Mount::answerEntry(Reply reply, const NodeRef& node, const struct stat& st,
                        double entryTimeout, double attributeTimeout) {
  nodes.remember(node);
  const uint64_t number = node.number();
  if (!reply.entry({number, st, entryTimeout, attributeTimeout})) nodes.forget(number, 1);
}

void Mount::answerOpen(Reply reply, std::shared_ptr<Handle> handle, OpenAnswer answer) {
  answer.handle = handles.add(std::move(handle));
  if (!reply.opened(answer)) close(answer.handle);
}

std::shared_ptr<Handle> Mount::close(uint64_t handle) {
  auto closing = handles.remove(handle);
  if (closing) closing->closed();
  return closing;
}

void Mount::attributesChanged(uint64_t node) const {
  // A negative offset: the attributes alone.
  std::ignore = fuse_lowlevel_notify_inval_inode(session_, node, -1, 0);
}

void Mount::givePages(uint64_t node, int fd, size_t size) const {
  const auto bytes = std::make_unique_for_overwrite<char[]>(size);
  const ssize_t n = ::pread(fd, bytes.get(), size, 0);
  if (n <= 0) return;
  fuse_bufvec buffers = FUSE_BUFVEC_INIT(static_cast<size_t>(n));
  buffers.buf[0].mem = bytes.get();
  // What it does not take it will ask for. So little is not worth a pipe.
  std::ignore = fuse_lowlevel_notify_store(session_, node, 0, &buffers, FUSE_BUF_NO_SPLICE);
}

void Mount::answerSpace(Reply reply) const {
  struct statvfs st = {};
  if (::statvfs(options_.source.c_str(), &st) != 0) return reply.error(errno);
  reply.statistics(st);
}

struct stat Mount::ownAttributes(uint64_t number, mode_t mode) const {
  struct stat st = {};
  st.st_ino = number;
  st.st_mode = mode;
  st.st_nlink = S_ISDIR(mode) ? 2 : 1;
  st.st_uid = options_.uid;
  st.st_gid = options_.gid;
  st.st_blksize = 4096;
  st.st_atim = st.st_mtim = st.st_ctim = started_;
  return st;
}

void Mount::answerVerb(Reply reply, const std::string& command, const Status& result) const {
  if (!result) control().recordError(reply.requester(), command, result.error());
  reply.status(result);
}

}  // namespace kilnfs
