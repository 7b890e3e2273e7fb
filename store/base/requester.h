// Who asks for something: the process that wrote to `control`, followed a link, or made a call.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace kilnfs {

struct Requester {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // supplementary; filled only where a command may be run for them
  pid_t pid = 0;              // 0: not known (another pid namespace)
  std::string cwd;            // absolute, or empty where not known; relative sources start here
};

}  // namespace kilnfs
