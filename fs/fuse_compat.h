// libfuse, and the only place that knows how its versions differ: 3.14 as packaged, 3.17 and 3.18.
#pragma once

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#include <cstdint>

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

inline uint64_t fuseWanted(const fuse_conn_info& conn) {
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
  return conn.want_ext;
#else
  return conn.want;
#endif
}

}  // namespace kilnfs
