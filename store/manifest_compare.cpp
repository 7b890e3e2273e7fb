#include "store/manifest_compare.h"

#include <fmt/format.h>

#include "store/base/units.h"

namespace kilnfs {
namespace {

constexpr size_t kShown = 5;

std::string typeName(char type) {
  switch (type) {
    case 'd':
      return "a directory";
    case 'f':
      return "a file";
    case 'l':
      return "a symbolic link";
    case 'c':
    case 'b':
      return "a device";
    case 'p':
      return "a fifo";
    default:
      return "a socket";
  }
}

std::string sizeOf(const std::string& content) {
  return content.substr(0, content.find(':'));
}

/// Goes through both in step. They have the same order, so that neither is held as a whole.
class Comparison {
 public:
  Comparison(ManifestReader& manifest, UniqueFd root, Interrupt& interrupt)
      : manifest_(manifest), walk_(std::move(root)), interrupt_(interrupt) {}

  Expected<std::vector<std::string>> run() {
    if (auto ok = advance(true, true); !ok) return Failure(ok.error());
    while (then_ && now_ && found_.size() < kShown) {
      if (auto ok = step(); !ok) return Failure(ok.error());
    }
    return std::move(found_);
  }

 private:
  Status step() {
    const bool thenLeaves = then_->type == 'u';
    const bool nowLeaves = item_.leaves;
    if (thenLeaves && nowLeaves) return advance(true, true);
    if (nowLeaves || (!thenLeaves && then_->name < item_.name)) {
      report(pathThen(), "is missing");
      shifted_ = true;
      return skipThen();
    }
    if (thenLeaves || item_.name < then_->name) {
      report(walk_.path(), "was not there");
      shifted_ = true;
      return skipNow();
    }
    return meet();
  }

  // Of what is there.
  static bool saysNothing(const Error& error) {
    return error.code == EINTR || isShortage(error.code);
  }

  Status meet() {
    const std::string path = walk_.path();
    auto entry = describer_.describe(item_, path, interrupt_);
    if (!entry && saysNothing(entry.error())) return Failure(entry.error());
    const bool isDirectory = S_ISDIR(item_.attributes.st_mode);
    if (!entry) {
      found_.push_back("can't be read: " + entry.error().message);
    } else {
      compare(path, *then_, *entry);
    }
    if ((then_->type == 'd') == isDirectory) return advance(true, true);
    shifted_ = true;
    if (isDirectory) {
      if (auto ok = skipNow(); !ok) return ok;
      return advance(true, false);
    }
    if (auto ok = skipThen(); !ok) return ok;
    return advance(false, true);
  }

  void compare(const std::string& path, const ManifestEntry& then, const ManifestEntry& now) {
    if (then.type == 'h' || now.type == 'h') {
      // Numbers of entries say nothing once there are more or fewer of them.
      const bool same = then.type == now.type && then.linkTo == now.linkTo;
      if (!same && !shifted_) report(path, "is a hard link of another file");
      return;
    }
    if (then.type != now.type) {
      return report(path, fmt::format("is {}, was {}", typeName(now.type), typeName(then.type)));
    }
    if (then.mode != now.mode) {
      report(path, fmt::format("has mode {:o}, had {:o}", now.mode, then.mode));
    }
    if (then.uid != now.uid || then.gid != now.gid) {
      report(path, fmt::format("belongs to {}:{}, belonged to {}:{}", now.uid, now.gid, then.uid,
                               then.gid));
    }
    compareContent(path, then, now);
    if (then.modified != now.modified) {
      report(path, fmt::format("was modified at {}, not {}", now.modified, then.modified));
    }
    if (then.xattrs != now.xattrs) report(path, "has other extended attributes");
  }

  void compareContent(const std::string& path, const ManifestEntry& then,
                      const ManifestEntry& now) {
    if (then.content == now.content || then.content == "?") return;
    if (now.content == "?") return report(path, "can't be read: no permission");
    if (then.type == 'f' && sizeOf(then.content) != sizeOf(now.content)) {
      return report(path,
                    fmt::format("has {} bytes, had {}", sizeOf(now.content), sizeOf(then.content)));
    }
    if (then.type == 'l') {
      return report(path,
                    fmt::format("leads to {}, led to {}", shown(now.content), shown(then.content)));
    }
    report(path, then.type == 'f' ? "has other content" : "is another device");
  }

  void report(const std::string& path, const std::string& what) {
    found_.push_back((path.empty() ? "the directory itself" : inQuotes(path)) + " " + what);
  }

  std::string pathThen() const {
    const std::string& above = above_.empty() ? std::string() : above_.back();
    return above.empty() ? then_->name : above + "/" + then_->name;
  }

  /// Moves on in one or both; nothing is left in those that have ended.
  Status advance(bool then, bool now) {
    if (then) {
      if (then_ && then_->type == 'd') above_.push_back(then_->name == "." ? "" : pathThen());
      if (then_ && then_->type == 'u' && !above_.empty()) above_.pop_back();
      auto next = manifest_.next();
      if (!next) return Failure(next.error());
      then_ = std::move(*next);
    }
    if (now) {
      auto more = walk_.next(item_);
      if (!more && saysNothing(more.error())) return Failure(more.error());
      if (!more) found_.push_back("can't be read: " + more.error().message);
      now_ = more && *more;
    }
    return {};
  }

  Status skipThen() {
    size_t depth = 0;
    do {
      if (then_->type == 'd') ++depth;
      if (then_->type == 'u') --depth;
      if (auto ok = advance(true, false); !ok) return ok;
    } while (depth > 0 && then_);
    return {};
  }

  Status skipNow() {
    size_t depth = 0;
    do {
      if (item_.leaves) {
        --depth;
      } else if (S_ISDIR(item_.attributes.st_mode)) {
        ++depth;
      }
      if (interrupt_.raised()) return fail(EINTR, "interrupted");
      if (auto ok = advance(false, true); !ok) return ok;
    } while (depth > 0 && now_);
    return {};
  }

  ManifestReader& manifest_;
  TreeWalk walk_;
  Interrupt& interrupt_;
  Describer describer_;
  std::optional<ManifestEntry> then_;
  TreeWalk::Item item_;
  bool now_ = true;                 // item_ is there
  std::vector<std::string> above_;  // directories of the manifest that then_ is in
  bool shifted_ = false;            // something is missing, or more
  std::vector<std::string> found_;
};

}  // namespace

Expected<std::vector<std::string>> compareWithManifest(ManifestReader& manifest, UniqueFd root,
                                                       Interrupt& interrupt) {
  return Comparison(manifest, std::move(root), interrupt).run();
}

}  // namespace kilnfs
