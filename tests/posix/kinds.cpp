// On which kinds of tree the rows are tested.
#include "tests/posix/posix_test.h"

namespace kilnfs::testing {

INSTANTIATE_TEST_SUITE_P(, Posix,
                         ::testing::Values(Kind::native, Kind::empty, Kind::filled, Kind::build,
                                           Kind::overlay),
                         KindName());
INSTANTIATE_TEST_SUITE_P(, PosixResult, ::testing::Values(Kind::native, Kind::result), KindName());
INSTANTIATE_TEST_SUITE_P(, PosixMount, ::testing::Values(Kind::empty, Kind::filled), KindName());

}  // namespace kilnfs::testing
