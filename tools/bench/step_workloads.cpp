// The workloads whose work is a step that runs in every file system.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "store/base/fd.h"
#include "tools/bench/places.h"
#include "tools/bench/step.h"
#include "tools/bench/workload.h"

namespace kilnfs::bench {
namespace {

constexpr const char* kFusePeer = "fuse-overlayfs";

Figure figure(const std::string& id, const std::string& title, std::vector<Bound> bounds = {}) {
  return {id, title, Unit::kSeconds, Against::kNative, "", std::move(bounds)};
}

Bound atMost(const std::string& contender, double limit) {
  return {contender, limit, {}};
}

/// At most `limit` times native in a lease, and not above the best FUSE peer.
std::vector<Bound> asFusePeer(double limit) {
  return {{"lease", limit, {kFusePeer}}};
}

Contender contender(const std::shared_ptr<Place>& place, const Argv& args) {
  return {place->name(), [place, args]() -> Expected<Samples> {
            const auto output = place->run(args);
            if (!output) return Failure(output.error());
            return readSamples(*output);
          }};
}

Expected<std::vector<Contender>> stepEverywhere(Site& site, Use use, const Argv& args) {
  const auto places = makePlaces(site, use);
  if (!places) return Failure(places.error());
  std::vector<Contender> contenders;
  for (const auto& place : *places) contenders.push_back(contender(place, args));
  return contenders;
}

// Pages are as large as the writes that filled them, and larger pages are read faster: without this
// the ways in which the copies of a file were made would be compared, not the ways to read them.
void readFromDiskAgain(Site& site) {
  ::sync();
  const UniqueFd fd(::open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC));
  if (!fd.valid() || ::write(fd.get(), "1", 1) != 1) {
    site.say("io: only root can drop the page cache; how files were written shows in reading them");
  }
}

// Reads in every place, and writes where one can; the native directory is another one for each.
Expected<std::vector<Contender>> prepareIo(Site& site) {
  const auto& sizes = site.options().sizes;
  const std::string operations = std::to_string(sizes.ioOperations);
  const auto readers = stepEverywhere(site, Use::kReads, {"read", "--operations", operations});
  if (!readers) return Failure(readers.error());
  const auto writers = stepEverywhere(
      site, Use::kWrites,
      {"write", "--operations", operations, "--bytes", std::to_string(sizes.ioBytes)});
  if (!writers) return Failure(writers.error());
  readFromDiskAgain(site);
  std::vector<Contender> both = *readers;
  for (auto& one : both) {
    for (const auto& writer : *writers) {
      if (writer.name != one.name) continue;
      one.measure = [read = one.measure, write = writer.measure]() -> Expected<Samples> {
        auto samples = read();
        if (!samples) return samples;
        const auto more = write();
        if (!more) return more;
        samples->values.insert(more->values.begin(), more->values.end());
        return samples;
      };
    }
  }
  return both;
}

}  // namespace

Workload walkWorkload() {
  Figure first = figure("walk.find-first", "find -type f, first time", {atMost("result", 5)});
  first.reference = "walk.find-warm";
  return {"walk",
          "walking and reading a tree",
          {figure("walk.find-warm", "find -type f, warm", {atMost("result", 1.3)}),
           figure("walk.stat-warm", "stat of all, warm", {atMost("result", 1.4)}), first,
           figure("walk.tar", "full read: tar"), figure("walk.grep", "full read: grep -r")},
          [](Site& site) { return stepEverywhere(site, Use::kReads, {"walk"}); }};
}

Workload ioWorkload() {
  return {
      "io",
      "reading and writing a large file, page cache warm",
      {figure("io.read-base", "sequential read, of the base",
              {atMost("result", 1.1), atMost("lease", 1.1)}),
       figure("io.random-read-base", "random 4k read, of the base",
              {atMost("result", 1.25), atMost("lease", 1.25)}),
       figure("io.write", "sequential write, new file", {atMost("lease", 1.2)}),
       figure("io.random-write", "random 4k write", {atMost("lease", 1.5)}),
       figure("io.read-new", "sequential read, of the new file", {atMost("lease", 1.1)}),
       figure("io.random-read-new", "random 4k read, of the new file", {atMost("lease", 1.25)})},
      prepareIo};
}

Workload smallWorkload() {
  return {"small",
          "many small files",
          {figure("small.create", "create 4 KB", asFusePeer(4)),
           figure("small.stat", "stat after it", asFusePeer(5)),
           figure("small.read", "open, read, close", asFusePeer(3.5)),
           figure("small.rename", "rename", asFusePeer(2.5)),
           figure("small.unlink", "unlink", asFusePeer(2))},
          [](Site& site) {
            return stepEverywhere(
                site, Use::kWrites,
                {"small", "--files", std::to_string(site.options().sizes.smallFiles)});
          }};
}

Workload workWorkload() {
  const auto bounds = [](double limit) {
    return std::vector<Bound>{atMost("build", limit), {"lease", std::nullopt, {kFusePeer}}};
  };
  return {"work",
          "a developer's work",
          {figure("work.unpack", "unpack an archive", bounds(1.3)),
           figure("work.git", "git add, commit", bounds(1.3)),
           figure("work.make", "make -j2", bounds(1.05)), figure("work.cp", "cp -r", bounds(1.7)),
           figure("work.rm", "rm -rf", bounds(1.5))},
          [](Site& site) -> Expected<std::vector<Contender>> {
            for (const char* program : {"git", "make", "cc"}) {
              if (!installed(program)) site.say(fmt::format("work: {} is not installed", program));
            }
            const auto archive = site.archive();
            if (!archive) return Failure(archive.error());
            return stepEverywhere(site, Use::kWrites, {"work", "--archive", *archive});
          }};
}

}  // namespace kilnfs::bench
