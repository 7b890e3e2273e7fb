// libfuse, and the only place that knows how its versions differ: 3.14 as packaged, 3.17 and 3.18.
#pragma once

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <tuple>

namespace kilnfs {

inline bool fuseOffers(const fuse_conn_info& conn, uint64_t capability) {
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
  return (conn.capable_ext & capability) != 0;
#else
  return (conn.capable & capability) != 0;
#endif
}

/// Asks for a capability where the kernel has it, or turns one off that is on by default.
inline void fuseWant(fuse_conn_info& conn, uint64_t capability, bool on) {
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
  if (!on) {
    fuse_unset_feature_flag(&conn, capability);
  } else if (fuseOffers(conn, capability)) {
    fuse_set_feature_flag(&conn, capability);
  }
#else
  if (!on) {
    conn.want &= ~static_cast<unsigned>(capability);
  } else if (fuseOffers(conn, capability)) {
    conn.want |= static_cast<unsigned>(capability);
  }
#endif
}

// -- names that the kernel has to ask for again, whether or not somebody stands in them

template <class... Flags>
int fuseExpire(int (*notify)(fuse_session*, fuse_ino_t, const char*, size_t, Flags...),
               fuse_session* session, uint64_t parent, const std::string& name) {
  return notify(session, parent, name.c_str(), name.size(), Flags(FUSE_LL_EXPIRE_ONLY)...);
}
inline int fuseExpire(fuse_session* session, uint64_t parent, const std::string& name) {
  return fuseExpire(&fuse_lowlevel_notify_expire_entry, session, parent, name);
}

// -- files that the kernel reads and writes itself

#ifdef FUSE_CAP_PASSTHROUGH
constexpr uint64_t kFusePassthrough = FUSE_CAP_PASSTHROUGH;
inline int fuseEnroll(fuse_req_t request, int fd) {
  return fuse_passthrough_open(request, fd);
}
inline void fuseDismiss(fuse_req_t request, int backing) {
  std::ignore = fuse_passthrough_close(request, backing);
}
inline void fusePassThrough(fuse_file_info& info, int backing) {
  info.backing_id = backing;
}
#else
constexpr uint64_t kFusePassthrough = 0;
inline int fuseEnroll(fuse_req_t, int) {
  return 0;
}
inline void fuseDismiss(fuse_req_t, int) {}
inline void fusePassThrough(fuse_file_info&, int) {}
#endif

// -- set-id bits that we clear, so that the kernel need not look before each write. Some versions
// can agree to it but not say when.

template <class Info>
constexpr bool kFuseTellsSetId = requires(Info info) {
  info.kill_suidgid;
};

#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
inline uint64_t fuseClearsSetId() {
  int major = 0;
  int minor = 0;
  int patch = 0;
  std::ignore = std::sscanf(fuse_pkgversion(), "%d.%d.%d", &major, &minor, &patch);
  const bool tells = std::tuple(major, minor, patch) >= std::tuple(3, 18, 3);
  return kFuseTellsSetId<fuse_file_info> && tells ? FUSE_CAP_HANDLE_KILLPRIV_V2 : 0;
}
#else
inline uint64_t fuseClearsSetId() {
  return 0;
}
#endif

#ifdef FUSE_SET_ATTR_KILL_SUID
constexpr int kFuseKillSetId = FUSE_SET_ATTR_KILL_SUID;
#else
constexpr int kFuseKillSetId = 0;
#endif

template <class Info>
bool fuseWantsSetIdCleared(const Info& info) {
  if constexpr (kFuseTellsSetId<Info>) {
    return info.kill_suidgid;
  } else {
    return false;
  }
}

// -- files without a name

using FuseTmpfile = void (*)(fuse_req_t, fuse_ino_t, mode_t, fuse_file_info*);
template <class Operations>
void fuseSetTmpfile(Operations& operations, FuseTmpfile handler) {
  if constexpr (requires { operations.tmpfile; }) operations.tmpfile = handler;
}

inline uint64_t fuseWanted(const fuse_conn_info& conn) {
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
  return conn.want_ext;
#else
  return conn.want;
#endif
}

}  // namespace kilnfs
