// A result that is not plain yet as lower layers of an overlay, so that builds on what was built
// just now are native too.
//
// What such a result has on disk (snapshot.h) is not what overlayfs can be given: there, a
// directory that was not changed is an empty one. So a layer is made beside it, of hard links: its
// own directories, opaque, since they are complete; for each directory that is still its base's an
// empty one that redirects to the path of that in the base; and white-outs for what the base's root
// has and it has not, since overlayfs merges roots whatever they say. The base is the next layer:
// it is plain, or has a layer in the same way.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "store/layout.h"
#include "store/snapshot.h"
#include "store/trash.h"

namespace kilnfs {

/// The directory of one layer. Thrown away when nobody holds it: its snapshot does, and whoever has
/// mounted it.
class OverlayLayer {
 public:
  /// Takes over `name` of `area`, if it is there. `area` and `trash` outlive this object.
  OverlayLayer(const Area& area, Trash& trash, std::string name)
      : area_(area), trash_(trash), name_(std::move(name)) {}
  ~OverlayLayer();
  OverlayLayer(const OverlayLayer&) = delete;
  OverlayLayer& operator=(const OverlayLayer&) = delete;

  const std::string& name() const { return name_; }
  Expected<UniqueFd> open() const;

 private:
  const Area& area_;
  Trash& trash_;
  const std::string name_;
};

/// Results each of which lies over the next one.
struct Chain {
  std::vector<std::shared_ptr<Snapshot>> sealed;  // not plain, with own directories; the top first
  std::shared_ptr<Snapshot> bottom;               // plain
};

/// What `top` lies over: the trees that it was built over, which stay on disk for it, and not those
/// that have taken their places since and have other files. Nothing: it is not known (it was sealed
/// by a former session), or there are more than overlayfs can be told of.
std::optional<Chain> chainOf(const std::shared_ptr<Snapshot>& top);

/// Makes the directory `name`, which must not exist, in `area` the layer of `sealed`, a result that
/// lies over `base`. False: it holds what overlayfs keeps for itself (overlay_base.h). Blocks for
/// O(what its build changed). What is left when it fails, or is false, is only good for the trash.
Expected<bool> makeLayer(const Area& area, const std::string& name, const Snapshot& sealed,
                         const Snapshot& base);

}  // namespace kilnfs
