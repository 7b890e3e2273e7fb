// SHA-256 over framed fields: no two different sequences of fields hash the same bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "store/base/error.h"
#include "store/base/fd.h"
#include "store/base/interrupt.h"

struct evp_md_ctx_st;

namespace kilnfs {

class Digest {
 public:
  Digest();
  ~Digest();
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;

  void field(std::string_view bytes);
  void field(uint64_t number);
  /// Raw bytes, whose length the caller has given as a field.
  void raw(const void* data, size_t size);
  /// 64 hexadecimal digits. EIO where the library refuses. Call once.
  Expected<std::string> finish();

 private:
  evp_md_ctx_st* context_;
  bool ok_;
};

/// Opens a directory of a tree, some of whose directories are elsewhere: `path` is below where the
/// digest began.
using OpenElsewhere = std::function<Expected<UniqueFd>(const std::string& path)>;

/// Adds what is at `name` below `dir` (`name` empty: `dir` itself): names, types, modes, bytes,
/// link targets, device numbers; not owners, not times. Follows no symbolic link. `open`: null if
/// the directories are where they seem to be. EINTR; any error of reading; EAGAIN: a file changed
/// while it was read.
Status digestTree(Digest& digest, int dir, const std::string& name, Interrupt& interrupt,
                  const OpenElsewhere& open = nullptr);

}  // namespace kilnfs
