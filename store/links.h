// Link counts inside one tree, where files are also linked from other trees.
#pragma once

#include <functional>

#include "store/backing_id.h"
#include "store/base/error.h"
#include "store/base/fd.h"

namespace kilnfs {

/// Walks a tree once and tells of each file that has more than one name in it. `open` opens a
/// directory by its path below the root (empty: the root). What may not be read is left out. Fails
/// if something can't be, and has told of nothing then: too low a count would part a file's names.
Status countLinks(const std::function<Expected<UniqueFd>(const std::string& path)>& open,
                  const std::function<void(const BackingId&, nlink_t)>& found);

}  // namespace kilnfs
