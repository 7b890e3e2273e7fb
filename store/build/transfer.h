// Import and export: whole trees between the store and the requester's directories, copied with
// the requester's rights.
#pragma once

#include "store/build/sources.h"
#include "store/build/supervised.h"

namespace kilnfs {

class Transfer {
 public:
  Transfer(Store& store, const Builds::Options& options, Supervisors& supervisors,
           const Requester& who)
      : store_(store), options_(options), supervisors_(supervisors), who_(who) {}

  /// As Builds::importTree, for an id that nobody else is building.
  Status importTree(const Id& id, const std::string& source, const Account& account,
                    Interrupt& interrupt,
                    const std::function<void(std::shared_ptr<Workspace>)>& show);
  /// As Builds::exportTree.
  Status exportTree(const Id& id, const std::string& destination, const Account& account,
                    Interrupt& interrupt);

 private:
  Status rsync(const std::string& what, const std::string& dir, const std::string& from,
               const std::string& to, const Account& account, Interrupt& interrupt);
  Status checkDestination(const std::string& path, const Account& account) const;

  Store& store_;
  const Builds::Options& options_;
  Supervisors& supervisors_;
  const Requester& who_;
};

}  // namespace kilnfs
