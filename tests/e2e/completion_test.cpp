// The completion for bash offers what the store understands.
#include <gmock/gmock.h>

#include "tests/support/mounted_store.h"

namespace kilnfs::testing {
namespace {

class Completion : public MountedStore {
 protected:
  void SetUp() override {
    MountedStore::SetUp();
    start();
  }
  /// What is offered for the last of `words`, in order, one a line. The words need no quotes.
  std::string offered(const std::string& words) const { return bash("offer " + words); }
  /// A line of bash in which `offer WORD...` does that.
  std::string bash(const std::string& line) const {
    const std::string script = "source " KILNFS_SOURCE
                               "/packaging/completion/kiln\n"
                               "offer() { COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _kiln; "
                               "printf \"%s\\n\" \"${COMPREPLY[@]}\"; }\n" +
                               line;
    return shell("PATH=" KILNFS_BIN ":$PATH KILN_MOUNT='" + mnt() + "' bash -c '" + script + "'",
                 scratch())
        .output;
  }
};

TEST_F(Completion, OffersEveryOptionOfTheStoresGrammar) {
  // --wait is what kiln does anyway, and of --sandbox there is one value.
  EXPECT_EQ(bash("kiln help control | sed -n \"/^build/,\\$p\" | while read -r name rest; do "
                 "for word in $rest; do word=${word#[}; word=${word%%[^a-z-]*}; "
                 "case $word in --wait) ;; --[a-z]*) offer kiln $name -- | grep -qxe \"$word\" || "
                 "echo \"$name: no $word\" ;; esac; done; done"),
            "");
  EXPECT_EQ(bash("kiln help control | sed -n \"/^build/,\\$p\" | while read -r name rest; do "
                 "offer kiln \"\" | grep -qxe \"$name\" || echo \"no $name\"; done"),
            "");
}

TEST_F(Completion, OffersNothingThatIsRefused) {
  EXPECT_EQ(offered("kiln build --sandbox \"\""), "host\n");
  EXPECT_EQ(offered("kiln build --net"), "\n");
}

TEST_F(Completion, OffersOptionsAfterADashAndElseNames) {
  EXPECT_EQ(shell("PATH=" KILNFS_BIN ":$PATH; kiln --mount '" + mnt() + "' build a -- true").status,
            0);
  EXPECT_EQ(offered("kiln delete \"\""), "a\n");
  EXPECT_EQ(offered("kiln delete -"), "--recursive\n");
  EXPECT_EQ(offered("kiln log \"\""), "a\n");
}

}  // namespace
}  // namespace kilnfs::testing
