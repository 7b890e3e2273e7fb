#include "store/build/digest.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <sys/stat.h>

#include <algorithm>
#include <vector>

#include "store/base/directory_names.h"
#include "store/tree_root.h"

namespace kilnfs {

Digest::Digest() : context_(::EVP_MD_CTX_new()) {
  ok_ = context_ != nullptr && ::EVP_DigestInit_ex(context_, ::EVP_sha256(), nullptr) == 1;
}

Digest::~Digest() {
  ::EVP_MD_CTX_free(context_);
}

void Digest::raw(const void* data, size_t size) {
  ok_ = ok_ && ::EVP_DigestUpdate(context_, data, size) == 1;
}

void Digest::field(uint64_t number) {
  unsigned char bytes[8];
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<unsigned char>(number >> (8 * i));
  raw(bytes, sizeof bytes);
}

void Digest::field(std::string_view bytes) {
  field(static_cast<uint64_t>(bytes.size()));
  raw(bytes.data(), bytes.size());
}

Expected<std::string> Digest::finish() {
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  ok_ = ok_ && ::EVP_DigestFinal_ex(context_, bytes, &size) == 1;
  if (!ok_) return fail(EIO, "SHA-256 is not available");
  std::string out;
  for (unsigned i = 0; i < size; ++i) out += fmt::format("{:02x}", bytes[i]);
  return out;
}

namespace {

Status digestFile(Digest& digest, int dir, const std::string& name, const struct stat& seen,
                  Interrupt& interrupt) {
  const UniqueFd fd(::openat(dir, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid()) return failErrno(inQuotes(name));
  struct stat st = {};
  if (::fstat(fd.get(), &st) != 0) return failErrno(inQuotes(name));
  uint64_t left = static_cast<uint64_t>(seen.st_size);
  bool same = st.st_ino == seen.st_ino && S_ISREG(st.st_mode) && st.st_size == seen.st_size;
  digest.field(left);
  std::vector<char> buffer(1 << 18);
  while (same && left > 0) {
    if (interrupt.raised()) return fail(EINTR, "interrupted");
    const ssize_t n = ::read(fd.get(), buffer.data(), std::min<uint64_t>(buffer.size(), left));
    if (n < 0) return failErrno(inQuotes(name));
    same = n > 0;
    digest.raw(buffer.data(), static_cast<size_t>(n));
    left -= static_cast<uint64_t>(n);
  }
  if (!same) return fail(EAGAIN, fmt::format("{} changed while it was read", inQuotes(name)));
  return {};
}

Status digestLink(Digest& digest, int dir, const std::string& name) {
  char target[4097];
  const ssize_t n = ::readlinkat(dir, name.c_str(), target, sizeof target);
  if (n < 0) return failErrno(inQuotes(name));
  digest.field(std::string_view(target, static_cast<size_t>(n)));
  return {};
}

class TreeDigest {
 public:
  TreeDigest(Digest& digest, Interrupt& interrupt, const OpenElsewhere& open)
      : digest_(digest), interrupt_(interrupt), open_(open) {}

  /// What is at `path` below where it all began, and has the last name of it in `dir`.
  Status add(int dir, const std::string& name, const std::string& path) {
    if (interrupt_.raised()) return fail(EINTR, "interrupted");
    struct stat st = {};
    if (::fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0) {
      return failErrno(inQuotes(name));
    }
    if (S_ISDIR(st.st_mode)) return addDirectory(dir, name, path);
    digest_.field(name);
    // A link's mode means nothing, and differs between file systems.
    digest_.field(S_ISLNK(st.st_mode) ? static_cast<uint64_t>(S_IFLNK) : uint64_t{st.st_mode});
    if (S_ISREG(st.st_mode)) return digestFile(digest_, dir, name, st, interrupt_);
    if (S_ISLNK(st.st_mode)) return digestLink(digest_, dir, name);
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) digest_.field(uint64_t{st.st_rdev});
    return {};
  }

 private:
  Status addDirectory(int dir, const std::string& name, const std::string& path) {
    auto fd = open(dir, name, path);
    if (!fd) return Failure(fd.error());
    struct stat st = {};
    if (::fstat(fd->get(), &st) != 0) return failErrno(inQuotes(name));
    digest_.field(name);
    digest_.field(uint64_t{st.st_mode});
    auto names = directoryNames(fd->get());
    if (!names) return Failure(names.error());
    std::sort(names->begin(), names->end());
    digest_.field(static_cast<uint64_t>(names->size()));
    for (const std::string& each : *names) {
      if (auto done = add(fd->get(), each, pathBelow(path, each)); !done) return done;
    }
    return {};
  }

  Expected<UniqueFd> open(int dir, const std::string& name, const std::string& path) const {
    if (open_) {
      auto fd = open_(path);
      return fd ? std::move(fd) : fail(fd.error().code, inQuotes(name));
    }
    const char* const from = name.empty() ? "." : name.c_str();
    UniqueFd fd(::openat(dir, from, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd.valid()) return failErrno(inQuotes(name));
    return fd;
  }

  Digest& digest_;
  Interrupt& interrupt_;
  const OpenElsewhere& open_;
};

}  // namespace

Status digestTree(Digest& digest, int dir, const std::string& name, Interrupt& interrupt,
                  const OpenElsewhere& open) {
  return TreeDigest(digest, interrupt, open).add(dir, name, name);
}

}  // namespace kilnfs
