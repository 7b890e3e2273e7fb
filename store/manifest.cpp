#include "store/manifest.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <string_view>

#include "store/base/units.h"
#include "store/base/xattr.h"
#include "store/tree/system.h"

namespace kilnfs {
namespace {

constexpr const char* kMagic = "kilnfs-manifest 1 ";
constexpr size_t kBuffer = 1 << 16;
constexpr size_t kReadAtOnce = 1 << 18;

std::string escaped(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte > 0x20 && byte < 0x7f && c != '\\' && c != '=') {
      out += c;
    } else {
      out += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return out;
}

std::optional<std::string> unescaped(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '\\') {
      out += text[at];
      continue;
    }
    unsigned byte = 0;
    if (at + 3 >= text.size() || text[at + 1] != 'x') return std::nullopt;
    const char* const digits = text.data() + at + 2;
    const auto [end, error] = std::from_chars(digits, digits + 2, byte, 16);
    if (error != std::errc() || end != digits + 2) return std::nullopt;
    out += static_cast<char>(byte);
    at += 3;
  }
  return out;
}

std::vector<std::string_view> split(std::string_view line) {
  std::vector<std::string_view> words;
  for (size_t at = 0; at <= line.size();) {
    const size_t end = std::min(line.find(' ', at), line.size());
    words.push_back(line.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

Failure damaged(std::string_view what) {
  return fail(EBADMSG, fmt::format("a manifest is damaged: {}", shown(what)));
}

char typeOf(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return 'd';
    case S_IFREG:
      return 'f';
    case S_IFLNK:
      return 'l';
    case S_IFCHR:
      return 'c';
    case S_IFBLK:
      return 'b';
    case S_IFIFO:
      return 'p';
    default:
      return 's';
  }
}

bool withoutRights(int code) {
  return code == EACCES || code == EPERM;
}

Expected<std::vector<std::pair<std::string, std::string>>> xattrsOf(const TreeWalk::Item& item) {
  std::vector<std::pair<std::string, std::string>> out;
  const UniqueFd node(::openat(item.dirFd, item.name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!node.valid()) return failErrno("open");
  const std::string path = procPath(node.get());
  std::string names(1024, '\0');
  ssize_t length = ::listxattr(path.c_str(), names.data(), names.size());
  if (length < 0 && errno == ERANGE) {
    names.resize(XATTR_LIST_MAX);
    length = ::listxattr(path.c_str(), names.data(), names.size());
  }
  if (length < 0) {
    if (withoutRights(errno) || errno == EOPNOTSUPP) return out;
    return failErrno("list attributes");
  }
  for (size_t at = 0; at < static_cast<size_t>(length);) {
    std::string name = names.data() + at;
    at += name.size() + 1;
    std::string value(XATTR_SIZE_MAX, '\0');
    const ssize_t n = readXattr(path, name, value.data(), value.size());
    if (n < 0 && (withoutRights(errno) || errno == ENODATA || errno == EOPNOTSUPP)) continue;
    if (n < 0) return failErrno("read attribute " + name);
    value.resize(static_cast<size_t>(n));
    out.emplace_back(std::move(name), std::move(value));
  }
  std::sort(out.begin(), out.end());
  return out;
}

/// "SIZE:SHA256", or "?".
Expected<std::string> readContent(const TreeWalk::Item& item, Interrupt& interrupt) {
  constexpr int kFlags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
  UniqueFd fd(::openat(item.dirFd, item.name.c_str(), kFlags | O_NOATIME));
  if (!fd.valid() && errno == EPERM) fd.reset(::openat(item.dirFd, item.name.c_str(), kFlags));
  if (!fd.valid() && withoutRights(errno)) return std::string("?");
  if (!fd.valid()) return failErrno("open");
  struct stat st = {};
  if (::fstat(fd.get(), &st) != 0) return failErrno("stat");
  if (!S_ISREG(st.st_mode)) return fail(EAGAIN, "it changed while it was read");
  Digest digest;
  std::vector<char> buffer(std::min<size_t>(kReadAtOnce, static_cast<size_t>(st.st_size) + 1));
  uint64_t size = 0;
  for (;;) {
    if (interrupt.raised()) return fail(EINTR, "interrupted");
    const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failErrno("read");
    if (n == 0) break;
    digest.raw(buffer.data(), static_cast<size_t>(n));
    size += static_cast<uint64_t>(n);
  }
  auto sum = digest.finish();
  if (!sum) return Failure(sum.error());
  return fmt::format("{}:{}", size, *sum);
}

Expected<std::string> readTarget(const TreeWalk::Item& item) {
  std::string target(PATH_MAX, '\0');
  const ssize_t n = ::readlinkat(item.dirFd, item.name.c_str(), target.data(), target.size());
  if (n < 0) return failErrno("read a link");
  target.resize(static_cast<size_t>(n));
  return target;
}

}  // namespace

// -- entries

std::string ManifestEntry::line() const {
  if (type == 'u') return "u\n";
  if (type == 'h') return fmt::format("h {} {}\n", linkTo, escaped(name));
  std::string out = fmt::format("{} {:o} {} {} {} {} {}", type, mode, uid, gid, modified,
                                content.empty() ? "-" : escaped(content), escaped(name));
  for (const auto& [key, value] : xattrs) {
    out += fmt::format(" {}={}", escaped(key), escaped(value));
  }
  return out + "\n";
}

Expected<ManifestEntry> ManifestEntry::parse(const std::string& line) {
  const auto words = split(line);
  ManifestEntry out;
  if (words[0].size() != 1) return damaged(line);
  out.type = words[0][0];
  if (out.type == 'u' && words.size() == 1) return out;
  const auto take = [](std::string_view word, std::string& to) {
    auto text = unescaped(word);
    if (text) to = std::move(*text);
    return text.has_value();
  };
  if (out.type == 'h') {
    const auto number = words.size() == 3 ? parseNumber<uint64_t>(words[1]) : std::nullopt;
    if (!number || !take(words[2], out.name)) return damaged(line);
    out.linkTo = *number;
    return out;
  }
  if (words.size() < 7) return damaged(line);
  const auto [end, error] =
      std::from_chars(words[1].data(), words[1].data() + words[1].size(), out.mode, 8);
  const auto uid = parseNumber<uid_t>(words[2]);
  const auto gid = parseNumber<gid_t>(words[3]);
  out.modified = words[4];
  if (error != std::errc() || end != words[1].data() + words[1].size() || !uid || !gid ||
      (words[5] != "-" && !take(words[5], out.content)) || !take(words[6], out.name)) {
    return damaged(line);
  }
  out.uid = *uid;
  out.gid = *gid;
  for (size_t i = 7; i < words.size(); ++i) {
    const size_t equals = words[i].find('=');
    std::pair<std::string, std::string> xattr;
    if (equals == std::string_view::npos || !take(words[i].substr(0, equals), xattr.first) ||
        !take(words[i].substr(equals + 1), xattr.second)) {
      return damaged(line);
    }
    out.xattrs.push_back(std::move(xattr));
  }
  return out;
}

// -- describing

Expected<std::string> Describer::contentOf(const TreeWalk::Item& item, const std::string& path,
                                           Interrupt& interrupt) {
  const struct stat& st = item.attributes;
  if (S_ISLNK(st.st_mode)) return readTarget(item);
  if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) {
    return fmt::format("{}:{}", major(st.st_rdev), minor(st.st_rdev));
  }
  if (S_ISDIR(st.st_mode)) return std::string(item.unreadable ? "?" : "");
  if (!S_ISREG(st.st_mode)) return std::string();
  if (known_) {
    if (auto content = known_(path, st)) return std::move(*content);
  }
  return readContent(item, interrupt);
}

Expected<ManifestEntry> Describer::describe(const TreeWalk::Item& item, const std::string& path,
                                            Interrupt& interrupt) {
  ManifestEntry out;
  if (item.leaves) return out;
  if (interrupt.raised()) return fail(EINTR, "interrupted");
  const struct stat& st = item.attributes;
  const uint64_t number = entries_++;
  const uint64_t bytes = static_cast<uint64_t>(st.st_blocks) * 512;
  out.name = item.name;
  if (!S_ISDIR(st.st_mode) && st.st_nlink > 1) {
    const auto [linked, fresh] =
        linked_.try_emplace(backingId(st), Linked{number, bytes, st.st_nlink});
    if (!fresh) {
      ++linked->second.inTree;
      out.type = 'h';
      out.linkTo = linked->second.number;
      return out;
    }
  }
  bytes_ += bytes;
  out.type = typeOf(st.st_mode);
  out.mode = S_ISLNK(st.st_mode) ? 0 : st.st_mode & 07777;  // a link's differs between systems
  out.uid = st.st_uid;
  out.gid = st.st_gid;
  out.modified = fmt::format("{}.{:09}", st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
  const auto at = [&path](const Error& error) {
    return fail(error.code,
                fmt::format("{}: {}", path.empty() ? "." : inQuotes(path), error.message));
  };
  auto content = contentOf(item, path, interrupt);
  if (!content) return at(content.error());
  out.content = std::move(*content);
  auto xattrs = xattrsOf(item);
  if (!xattrs) return at(xattrs.error());
  out.xattrs = std::move(*xattrs);
  return out;
}

// -- writing

ManifestWriter::ManifestWriter(UniqueFd fd, int64_t created, int64_t recorded)
    : fd_(std::move(fd)) {
  put(fmt::format("{}{} {}\n", kMagic, created, recorded));
}

void ManifestWriter::add(const ManifestEntry& entry) {
  if (entry.type != 'u') ++entries_;
  put(entry.line());
}

void ManifestWriter::put(const std::string& line) {
  digest_.raw(line.data(), line.size());
  buffer_ += line;
  if (buffer_.size() >= kBuffer) flush();
}

void ManifestWriter::flush() {
  for (size_t at = 0; at < buffer_.size() && error_.code == 0;) {
    const ssize_t n = ::write(fd_.get(), buffer_.data() + at, buffer_.size() - at);
    if (n < 0 && errno != EINTR) error_ = failErrno("write a manifest").value();
    if (n > 0) at += static_cast<size_t>(n);
  }
  buffer_.clear();
}

Status ManifestWriter::finish() {
  auto sum = digest_.finish();
  if (!sum) return Failure(sum.error());
  buffer_ += fmt::format("end {} {}\n", entries_, *sum);
  flush();
  if (error_.code != 0) return Failure(error_);
  return {};
}

// -- reading

Expected<ManifestReader> ManifestReader::open(const std::string& path) {
  ManifestReader reader;
  if (auto ok = reader.check(path); !ok) return Failure(ok.error());
  reader.file_.open(path, std::ios::binary);
  if (!reader.file_) return failErrno("open " + path);
  if (auto ok = reader.readHeader(); !ok) return Failure(ok.error());
  return reader;
}

Status ManifestReader::check(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return failErrno("open " + path);
  Digest digest;
  uint64_t lines = 0;
  uint64_t entries = 0;
  while (std::getline(file, line_)) {
    if (line_.starts_with("end ")) {
      auto sum = digest.finish();
      if (!sum) return Failure(sum.error());
      const bool good = !file.eof() && line_ == fmt::format("end {} {}", entries, *sum) &&
                        file.peek() == std::ifstream::traits_type::eof();
      return good ? Status() : Status(damaged("its checksum is wrong"));
    }
    if (lines++ > 0 && line_ != "u") ++entries;
    line_ += '\n';
    digest.raw(line_.data(), line_.size());
  }
  return damaged("it has no end");
}

Status ManifestReader::readHeader() {
  const size_t magic = std::string_view(kMagic).size();
  if (!std::getline(file_, line_) || !line_.starts_with(kMagic)) return damaged(line_);
  const auto words = split(std::string_view(line_).substr(magic));
  const auto created = parseNumber<int64_t>(words[0]);
  const auto recorded = words.size() == 2 ? parseNumber<int64_t>(words[1]) : std::nullopt;
  if (!created || !recorded) return damaged(line_);
  created_ = *created;
  recorded_ = *recorded;
  return {};
}

Expected<std::optional<ManifestEntry>> ManifestReader::next() {
  if (!std::getline(file_, line_)) return damaged("it has no end");
  if (line_.starts_with("end ")) return std::optional<ManifestEntry>();
  auto entry = ManifestEntry::parse(line_);
  if (!entry) return Failure(entry.error());
  return std::optional<ManifestEntry>(std::move(*entry));
}

}  // namespace kilnfs
