// Deterministic file trees: the same shape gives the same names, contents, modes, times and links.
#pragma once

#include <cstdint>
#include <string>

#include "store/base/error.h"

namespace kilnfs::bench {

struct TreeShape {
  size_t files = 0;
  size_t directories = 1;
  size_t medianBytes = 0;  // sizes are log-normal around it; one file in 100 is empty
  size_t bigFiles = 0;     // at the top, named kBigFile with their number after it
  size_t bigBytes = 0;
  uint64_t seed = 1;
};

constexpr const char* kBigFile = "big";
/// A file at the top of every tree that has files, to be changed by who wants to change one.
constexpr const char* kSomeFile = "some";
/// A word that kNeedleFiles of the files hold.
constexpr const char* kNeedle = "NeedleInTheKiln";
constexpr size_t kNeedleFiles = 3;

/// Makes `root`, which must not exist. Blocks; EINTR when the run is interrupted.
Status makeTree(const std::string& root, const TreeShape& shape);

/// A program of `sources` C files with a Makefile, in `root`, which must exist.
Status makeProgram(const std::string& root, size_t sources);

}  // namespace kilnfs::bench
