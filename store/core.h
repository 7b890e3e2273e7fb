// What the parts of the store share. Owned by the store, constructed first, destroyed last.
#pragma once

#include <memory>
#include <string>

#include "store/database.h"
#include "store/durability.h"
#include "store/events.h"
#include "store/layout.h"
#include "store/manifests.h"
#include "store/overlay.h"
#include "store/store.h"
#include "store/trash.h"

namespace kilnfs {

struct Core {
  Core(Layout l, std::unique_ptr<Database> d, Mode m, const Store::Options& options, UniqueFd lock)
      : lockFd(std::move(lock)),
        layout(std::move(l)),
        database(std::move(d)),
        mode(m),
        plainWorkspaces(options.plainWorkspaces),
        nativeBuilds(options.nativeBuilds && !options.plainWorkspaces),
        durability(layout),
        trash(layout.resultTmp()),
        overlays(layout.resultTmp(), trash),
        manifests(layout, *database) {}

  Expected<Space> df() const;

  UniqueFd lockFd;  // flock'ed for as long as we live
  Layout layout;
  std::unique_ptr<Database> database;
  const Mode mode;
  const bool plainWorkspaces;
  const bool nativeBuilds;
  Events events;
  Durability durability;  // uses layout, as the next
  Trash trash;
  Overlays overlays;    // uses layout and trash
  Manifests manifests;  // uses layout and database
};

/// A workspace over `base`, at `name` of `area`, which is a new and empty directory: opens in O(1).
/// Its root gets the attributes of the snapshot's.
Expected<std::shared_ptr<Workspace>> openWorkspace(const Area& area, const std::string& name,
                                                   const std::string& key,
                                                   const std::shared_ptr<Snapshot>& base);

/// Makes `name`, which must not exist, in `area`: a directory that `owner` owns.
Status makeOwnedDirectory(const Area& area, const std::string& name, User owner);
/// Gives the directory `name` of `area` to `owner`. Without the right to (an unprivileged daemon,
/// which owns all it makes) nothing happens.
Status giveTo(const Area& area, const std::string& name, User owner);

}  // namespace kilnfs
