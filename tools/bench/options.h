// What kiln-bench is asked to do.
#pragma once

#include <cstddef>
#include <string>
#include <tl/expected.hpp>
#include <vector>

namespace kilnfs::bench {

/// How much of everything there is: tiny (to prove that the program works), quick, full.
struct Sizes {
  std::string name;
  size_t files, directories, medianBytes;  // the tree
  size_t bigFiles, bigBytes;               // and its large files
  size_t smallFiles;                       // that `small` makes
  size_t ioBytes, ioOperations;            // of `io`
  size_t archiveFiles, sources;            // of `work`
  size_t builds;                           // of `builds`
  size_t chain;                            // length, and
  size_t chainFiles;                       // files in the tree at its start
  size_t inodes;                           // of `memory`
};

struct Options {
  std::string dir;                // where to put the temporary directory
  Sizes sizes;                    // absent: quick
  std::vector<std::string> only;  // names of workloads; empty: all
  unsigned rounds = 5;
  std::string json;           // file, empty: none
  bool check = false;         // exit status 1 when a bound is exceeded
  std::string kilnfs;         // the daemon's program
  std::string daemonOptions;  // for its -o, separated by commas
};

/// The options, or the exit status of a run that ends here (help, version, wrong usage).
/// `workloads` are the names that --only takes, `self` is the path of this program.
tl::expected<Options, int> parseOptions(int argc, char** argv,
                                        const std::vector<std::string>& workloads,
                                        const std::string& self);

}  // namespace kilnfs::bench
