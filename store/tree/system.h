// System calls on trees that must not follow a symbolic link.
#pragma once

#include <sys/stat.h>

#include <string>

#include "store/base/error.h"
#include "store/base/fd.h"

namespace kilnfs {

/// A name of one entry: not empty, no slash, not "." nor "..", no NUL.
bool plainName(const std::string& name);

/// openat2 that stays beneath `dirFd` and follows nothing; does not create.
Expected<UniqueFd> openBeneath(int dirFd, const std::string& path, int flags);

/// Another descriptor for the file of `fd`, which may be O_PATH, also of a file without a name.
Expected<UniqueFd> reopen(int fd, int flags);

/// The error that errno tells, after removing what was made before it.
Failure undone(int dirFd, const std::string& name, int unlinkFlags = 0);

/// The set-id bits that write(2) by somebody without privilege takes from a file of these
/// attributes.
mode_t setIdOf(const struct stat& st);
/// Takes them away.
void dropSetId(int fd);

/// "/proc/self/fd/N": stands for the file itself, even if that is a symbolic link, where a system
/// call takes no O_PATH descriptor.
std::string procPath(int fd);

}  // namespace kilnfs
