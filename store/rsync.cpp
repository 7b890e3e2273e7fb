#include "store/rsync.h"

#include "store/base/process.h"

namespace kilnfs {

std::vector<std::string> rsyncCommand(const CopyTree& copy) {
  std::vector<std::string> words = {"rsync", "-aHAXS", "--numeric-ids", "--quiet"};
  if (copy.linkTo) {
    // Size and time do not prove that content is equal (they published AAAA for BBBB): compare it.
    words.push_back("--checksum");
    words.push_back("--link-dest=" + *copy.linkTo);
  }
  for (const std::string& pattern : copy.exclude) words.push_back("--exclude=" + pattern);
  words.push_back("--");
  words.push_back(copy.source + "/");
  words.push_back(copy.destination + "/");
  return words;
}

Status copyTree(const CopyTree& copy, Interrupt& interrupt) {
  return runCommand(rsyncCommand(copy), interrupt);
}

}  // namespace kilnfs
