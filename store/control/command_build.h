// The words of `build`. Part of command.cpp, for nobody else.
#pragma once

#include "store/control/command.h"
#include "store/control/options.h"

namespace kilnfs {

/// EINVAL and EOPNOTSUPP as parseCommand.
Expected<BuildCommand> makeBuild(const CommandSpec& spec, const ParsedWords& parsed);

}  // namespace kilnfs
