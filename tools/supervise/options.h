// What kiln-supervise is told on its command line and through the descriptor of --env-fd.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

namespace kilnfs::supervise {

struct Options {
  std::string dir = "/";  // where the command starts
  std::string below;      // a directory below `dir` to start in instead, made if need be
  std::string plain;      // a name there that must not be a symbolic link
  std::string bind;       // a directory to be bound over `dir`, for the command alone
  int namespaceFd = -1;   // the mount namespace that has `bind`; -1: the one we are in
  std::vector<std::pair<std::string, std::string>>
      links;  // made below `dir` while the command runs
  bool changeUser = false;
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
  int graceMillis = 5000;        // between SIGTERM and SIGKILL
  std::vector<std::string> env;  // "K=V", the command's whole environment
  std::vector<std::string> argv;
};

/// False, with `problem` set, for a command line that makes no sense. Reads --env-fd to its end.
bool parseOptions(int argc, char** argv, Options& options, std::string& problem);

}  // namespace kilnfs::supervise
