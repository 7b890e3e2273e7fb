#include "fs/agree.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <string>

#include "store/base/fd.h"

namespace kilnfs {
namespace {

constexpr size_t kLargestWrite = 1 << 20;

/// Whether a request fits into a pipe, which may be as large as pipe-max-size unless one has
/// CAP_SYS_RESOURCE. libfuse finds out as well, but some versions of it anew at each request.
bool pipesHoldRequests() {
  constexpr int kHeader = 4096;  // what libfuse leaves for it
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return false;
  const UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  return ::fcntl(writer.get(), F_SETPIPE_SZ, static_cast<int>(kLargestWrite) + kHeader) > 0;
}

}  // namespace

void agree(fuse_conn_info& conn, Mount& mount) {
  struct Wish {
    uint64_t capability;
    const char* name;
    bool on;
  };
  const Wish wishes[] = {
      {FUSE_CAP_ASYNC_READ, "async_read", true},
      {FUSE_CAP_ASYNC_DIO, "async_dio", true},
      {FUSE_CAP_ATOMIC_O_TRUNC, "atomic_o_trunc", true},
      {FUSE_CAP_DONT_MASK, "dont_mask", true},
      {FUSE_CAP_SPLICE_READ, "splice_read", pipesHoldRequests()},
      {FUSE_CAP_SPLICE_WRITE, "splice_write", true},
      {FUSE_CAP_PARALLEL_DIROPS, "parallel_dirops", true},
      {FUSE_CAP_POSIX_ACL, "posix_acl", true},
      {FUSE_CAP_READDIRPLUS, "readdirplus", true},
      {kFusePassthrough, "passthrough", true},
      {fuseClearsSetId(), "handle_killpriv_v2", true},
      // Which entries get attributes is decided with each answer.
      {FUSE_CAP_READDIRPLUS_AUTO, "readdirplus_auto", false},
      // Trees change only through the kernel that caches them.
      {FUSE_CAP_EXPLICIT_INVAL_DATA, "explicit_inval_data", true},
      {FUSE_CAP_AUTO_INVAL_DATA, "auto_inval_data", false},
      // Moving pages would take them from the backing file's cache.
      {FUSE_CAP_SPLICE_MOVE, "splice_move", false},
      // Each follower of caches/<name> gets an answer of its own.
      {FUSE_CAP_CACHE_SYMLINKS, "cache_symlinks", false},
      // The first version of it is not told when; and the kernel does locks better than we could.
      {FUSE_CAP_HANDLE_KILLPRIV, "handle_killpriv", false},
      {FUSE_CAP_FLOCK_LOCKS, "flock_locks", false},
      {FUSE_CAP_POSIX_LOCKS, "posix_locks", false},
      {FUSE_CAP_WRITEBACK_CACHE, "writeback_cache", false},
  };
  std::string granted;
  for (const Wish& wish : wishes) {
    if (wish.capability != 0) fuseWant(conn, wish.capability, wish.on);
    if (wish.on)
      granted += std::string(" ") +
                 (wish.capability != 0 && fuseOffers(conn, wish.capability) ? "" : "no-") +
                 wish.name;
  }
  conn.max_write = kLargestWrite;
  conn.max_background = 64;
  conn.congestion_threshold = 48;
  spdlog::debug("FUSE {}.{}:{}", conn.proto_major, conn.proto_minor, granted);
  mount.staleNames.setCanExpire(fuseOffers(conn, FUSE_CAP_EXPIRE_ONLY));
  mount.passthrough = kFusePassthrough != 0 && (fuseWanted(conn) & kFusePassthrough) != 0;
}

}  // namespace kilnfs
