// What is different between a manifest and the tree that it was made of.
#pragma once

#include <string>
#include <vector>

#include "store/manifest.h"

namespace kilnfs {

/// One sentence for each difference, in the order of the tree; stops after a few. What can't be
/// read is a difference. Blocks: reads the whole tree. EINTR; EBADMSG: the manifest's.
Expected<std::vector<std::string>> compareWithManifest(ManifestReader& manifest, UniqueFd root,
                                                       Interrupt& interrupt);

}  // namespace kilnfs
