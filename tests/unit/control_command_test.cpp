// Commands and their options: what is understood, and how what is not is refused.
#include "store/control/command.h"

#include <gtest/gtest.h>

namespace kilnfs {
namespace {

using std::chrono::milliseconds;

Expected<Command> parseText(const std::string& text) {
  const auto commands = splitCommands(text);
  EXPECT_TRUE(commands && commands->size() == 1) << text;
  return parseCommand(commands->at(0));
}

template <class T>
T parsed(const std::string& text) {
  auto command = parseText(text);
  EXPECT_TRUE(command) << text << ": " << (command ? "" : command.error().message);
  return std::get<T>(*command);
}

TEST(ParseCommand, UnderstandsAWholeBuild) {
  const auto build = parsed<BuildCommand>(
      "build out --base in --copy src --copy a:b:lib/x/ --cache npm --cache cc:.cache/cc "
      "--env A=1 --env B= --user 1000:1001 --sandbox host --timeout 5m --wait --retry -c 'make "
      "-j2'");
  const BuildRequest& r = build.request;
  EXPECT_EQ(r.id->str(), "out");
  EXPECT_EQ(r.base->str(), "in");
  ASSERT_EQ(r.copies.size(), 2U);
  EXPECT_EQ(r.copies[0].source, "src");
  EXPECT_EQ(r.copies[0].destination, "");
  EXPECT_EQ(r.copies[1].source, "a:b");
  EXPECT_EQ(r.copies[1].destination, "lib/x/");
  ASSERT_EQ(r.caches.size(), 2U);
  EXPECT_EQ(r.caches[0].name.str(), "npm");
  EXPECT_EQ(r.caches[0].destination, "");
  EXPECT_EQ(r.caches[1].destination, ".cache/cc");
  EXPECT_EQ(r.env, (std::vector<std::string>{"A=1", "B="}));
  EXPECT_EQ(build.user->uid, 1000U);
  EXPECT_EQ(build.user->gid, 1001U);
  EXPECT_EQ(r.timeout, milliseconds(300000));
  EXPECT_TRUE(build.wait);
  EXPECT_TRUE(r.retry);
  EXPECT_EQ(r.argv, (Words{"/bin/sh", "-c", "make -j2"}));
}

TEST(ParseCommand, UnderstandsAnArgumentVector) {
  const auto build = parsed<BuildCommand>("build --user 5 -- cc --wait -c x.c -- y");
  EXPECT_FALSE(build.request.id);
  EXPECT_FALSE(build.wait);
  EXPECT_FALSE(build.user->gid);
  EXPECT_EQ(build.request.argv, (Words{"cc", "--wait", "-c", "x.c", "--", "y"}));
}

TEST(ParseCommand, UnderstandsTheOthers) {
  EXPECT_EQ(parsed<WaitCommand>("wait a b").ids.size(), 2U);
  EXPECT_EQ(parsed<FollowCommand>("follow a").id.str(), "a");
  EXPECT_EQ(parsed<CancelCommand>("cancel a").id.str(), "a");
  EXPECT_FALSE(parsed<DeleteCommand>("delete a").recursive);
  EXPECT_TRUE(parsed<DeleteCommand>("delete --recursive a").recursive);
  EXPECT_EQ(parsed<DeleteCommand>("delete -- -a").id.str(), "-a");
  EXPECT_TRUE(parsed<DeleteCacheCommand>("delete-cache a --force").force);
  const auto lease = parsed<LeaseCommand>("lease npm --as ci-17 --ttl=1500ms");
  EXPECT_EQ(lease.tag, "ci-17");
  EXPECT_EQ(lease.ttl, std::chrono::seconds(2));
  EXPECT_FALSE(parsed<LeaseCommand>("lease npm").tag);
  EXPECT_FALSE(parsed<LeaseCommand>("lease npm").discard);
  EXPECT_TRUE(parsed<LeaseCommand>("lease npm --discard").discard);
  EXPECT_TRUE(parsed<ReleaseCommand>("release npm.3 --discard").discard);
  EXPECT_EQ(parsed<ImportCommand>("import a '/b c'").source, "/b c");
  EXPECT_EQ(parsed<ExportCommand>("export a d").destination, "d");
  EXPECT_TRUE(parsed<PinCommand>("pin a").pin);
  EXPECT_FALSE(parsed<PinCommand>("unpin a").pin);
  const auto prune =
      parsed<PruneCommand>("prune --before 2h --max-used=10G --min-free 15% --max 100 --dry-run");
  EXPECT_EQ(prune.limits.before, std::chrono::hours(2));
  EXPECT_EQ(prune.limits.maxUsed, 10ULL << 30);
  EXPECT_EQ(std::get<double>(*prune.limits.minFree), 15.0);
  EXPECT_EQ(prune.limits.maxCount, 100U);
  EXPECT_TRUE(prune.dryRun);
  EXPECT_FALSE(parsed<PruneCommand>("prune").limits.any());
  EXPECT_EQ(parsed<PruneCommand>("prune --max 0").limits.maxCount, 0U);
  EXPECT_EQ(std::get<uint64_t>(*parsed<PruneCommand>("prune --min-free 5G").limits.minFree),
            5ULL << 30);
  EXPECT_TRUE(parsed<VerifyCommand>("verify").ids.empty());
  EXPECT_EQ(parsed<VerifyCommand>("verify a --repair b").ids.size(), 2U);
  EXPECT_TRUE(parsed<VerifyCommand>("verify --repair").repair);
  parsed<CompleteDeletesCommand>("complete-deletes");
  parsed<StatusCommand>("status");
  parsed<HelpCommand>("help");
}

TEST(ParseCommand, EveryNamedCommandIsKnown) {
  for (const std::string& name : commandNames()) {
    const auto command = parseCommand({name, "a"});
    if (command) continue;
    EXPECT_EQ(command.error().message.find("unknown command"), std::string::npos) << name;
    EXPECT_NE(controlHelp().find(name), std::string::npos);
  }
}

struct Bad {
  const char* text;
  int code;
  const char* says;
};

class ParseBad : public ::testing::TestWithParam<Bad> {};

TEST_P(ParseBad, IsRefusedWithTheReason) {
  const auto command = parseText(GetParam().text);
  ASSERT_FALSE(command) << GetParam().text;
  EXPECT_EQ(command.error().code, GetParam().code);
  EXPECT_NE(command.error().message.find(GetParam().says), std::string::npos)
      << command.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    Table, ParseBad,
    ::testing::Values(
        Bad{"frobnicate", EINVAL, "unknown command 'frobnicate'; commands: build, wait"},
        Bad{"''", EINVAL, "unknown command"}, Bad{"Build x", EINVAL, "unknown command"},
        Bad{"build a/b -c x", EINVAL, "'a/b' is not a valid id"},
        Bad{"build .. -c x", EINVAL, "not a valid id"}, Bad{"build '' -c x", EINVAL, "valid id"},
        Bad{"build x", EINVAL, "no command"}, Bad{"build x --", EINVAL, "no command"},
        Bad{"build x -- ''", EINVAL, "no command"},
        Bad{"build x -c a -- b", EINVAL, "both -c and --"},
        Bad{"build x -c a -c b", EINVAL, "-c is given twice"},
        Bad{"build x y -c a", EINVAL, "unexpected word 'y'"},
        Bad{"build x -c", EINVAL, "-c needs a shell command"},
        Bad{"build x --wait=1 -c a", EINVAL, "--wait takes no value"},
        Bad{"build x --wat -c a", EINVAL, "unknown option '--wat'"},
        Bad{"build x -j -c a", EINVAL, "unknown option '-j'"},
        Bad{"build x --base ../y -c a", EINVAL, "not a valid id"},
        Bad{"build x --copy '' -c a", EINVAL, "needs a source"},
        Bad{"build x --copy a:/etc -c a", EINVAL, "is absolute"},
        Bad{"build x --copy a:b/../c -c a", EINVAL, "has a .."},
        Bad{"build x --cache a/b -c a", EINVAL, "not a valid cache name"},
        Bad{"build x --cache a:. -c a", EINVAL, "whole directory"},
        Bad{"build x --cache a:../b -c a", EINVAL, "has a .."},
        Bad{"build x --env A -c a", EINVAL, "NAME=VALUE"},
        Bad{"build x --env =A -c a", EINVAL, "NAME=VALUE"},
        Bad{"build x --env '' -c a", EINVAL, "NAME=VALUE"},
        Bad{"build x --user me -c a", EINVAL, "use numbers"},
        Bad{"build x --user -1 -c a", EINVAL, "use numbers"},
        Bad{"build x --user 4294967295 -c a", EINVAL, "use numbers"},
        Bad{"build x --user 1: -c a", EINVAL, "use numbers"},
        Bad{"build x --user 4294967296 -c a", EINVAL, "use numbers"},
        Bad{"build x --timeout 0 -c a", EINVAL, "not a duration"},
        Bad{"build x --timeout soon -c a", EINVAL, "not a duration"},
        Bad{"build x --sandbox jail -c a", EINVAL, "use host"},
        Bad{"build x --sandbox root -c a", EOPNOTSUPP, "later version"},
        Bad{"build x --network none -c a", EOPNOTSUPP, "later version"},
        Bad{"prune x", EINVAL, "unexpected word 'x'"},
        Bad{"prune --max -1", EINVAL, "--max '-1': use the number of results"},
        Bad{"prune --max 3x", EINVAL, "use the number"},
        Bad{"prune --before 0", EINVAL, "not a duration"},
        Bad{"prune --max-used 1.5G", EINVAL, "not a size"},
        Bad{"prune --min-free 101%", EINVAL, "not a percentage"},
        Bad{"prune --min-free", EINVAL, "needs a size or percentage"},
        Bad{"prune --dry-run=1", EINVAL, "takes no value"},
        Bad{"verify a/b", EINVAL, "not a valid id"}, Bad{"pin", EINVAL, "missing"},
        Bad{"pin a b", EINVAL, "unexpected word 'b'"}, Bad{"unpin ..", EINVAL, "not a valid id"},
        Bad{"wait", EINVAL, "something is missing; usage: wait ID..."},
        Bad{"wait a b/", EINVAL, "not a valid id"}, Bad{"delete", EINVAL, "missing"},
        Bad{"delete a b", EINVAL, "unexpected word 'b'"}, Bad{"import a", EINVAL, "missing"},
        Bad{"import a ''", EINVAL, "empty path"}, Bad{"lease npm --ttl 3", EINVAL, "--as TAG"},
        Bad{"lease npm --as a --discard", EINVAL, "leave out --as"},
        Bad{"lease npm --as a/b", EINVAL, "not a valid tag"},
        Bad{"status now", EINVAL, "unexpected word"}));

TEST(ParseCommand, AnIdOf300CharactersIsRefusedInOneLine) {
  const auto command = parseCommand({"delete", std::string(300, 'x')});
  ASSERT_FALSE(command);
  EXPECT_NE(command.error().message.find("(300 bytes)"), std::string::npos);
  EXPECT_LT(command.error().message.size(), 250U);
}

TEST(ParseCommand, HostileBytesStayOnTheirLine) {
  const auto command = parseCommand({"x\n\x1b[31m"});
  ASSERT_FALSE(command);
  EXPECT_EQ(command.error().message.find('\n'), std::string::npos);
  EXPECT_EQ(command.error().message.find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace kilnfs
