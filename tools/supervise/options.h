// What a supervisor is told, through its descriptor 4: words that each end with a NUL.
//
//   [--dir D] [--below P] [--plain NAME] [--link PATH TARGET]... [--env K=V]...
//   [--bind D2 [--namespace-fd N]] [--uid U --gid G --groups A,B] [--kill-grace MS] -- ARG...
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

/// Reads the words to their end. False, with `problem` set, if they make no sense.
bool readOptions(int fd, Options& options, std::string& problem);

}  // namespace kilnfs::supervise
