// Whether the tests are built with AddressSanitizer, and so with UndefinedBehaviorSanitizer.
//
// That one finds out through a pipe whether an object is there: where a test leaves no descriptor
// free, it reports objects that are sound, and ends the process.
#pragma once

namespace kilnfs::testing {

#ifdef __SANITIZE_ADDRESS__
constexpr bool kSanitizerNeedsDescriptors = true;
#else
constexpr bool kSanitizerNeedsDescriptors = false;
#endif

}  // namespace kilnfs::testing
