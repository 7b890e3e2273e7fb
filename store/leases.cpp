#include "store/leases.h"

#include "store/lease_table.h"

namespace kilnfs {

std::unique_ptr<Leases> Leases::create(Store& store, Options options) {
  return std::make_unique<LeaseTable>(store, options);
}

}  // namespace kilnfs
