// What the daemon itself costs: how many builds it starts, what it remembers, long chains.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <thread>

#include "tools/bench/cloners.h"
#include "tools/bench/workload.h"

namespace kilnfs::bench {
namespace {

constexpr size_t kAtATime = 10;

// Seconds of `count` calls of `one`, kAtATime at a time.
Expected<double> atATime(size_t count, const std::function<Status()>& one) {
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  Status result;  // guarded by mutex: the first failure
  const Stopwatch watch;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kAtATime; ++i) {
    threads.emplace_back([&] {
      while (next++ < count && !interrupted()) {
        const Status done = one();
        const std::lock_guard lock(mutex);
        if (!done && result) result = done;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  if (!result) return Failure(result.error());
  return watch.seconds();
}

Expected<Samples> measureBuilds(Site& site, const Kiln& kiln) {
  const size_t count = site.options().sizes.builds;
  const auto shells = atATime(count, []() -> Status {
    const auto ran = runOk({"sh", "-c", "true"});
    return ran ? Status() : Failure(ran.error());
  });
  if (!shells) return Failure(shells.error());
  const std::string prefix = site.fresh("many") + "-";
  std::atomic<size_t> number = 0;
  const auto builds = atATime(count, [&]() -> Status {
    return kiln.command(
        {"build", prefix + std::to_string(number++), "--base", "empty", "--wait", "--", "true"});
  });
  if (!builds) return Failure(builds.error());
  for (size_t i = 0; i < count; ++i) {
    if (auto gone = kiln.command({"delete", prefix + std::to_string(i)}); !gone) {
      return Failure(gone.error());
    }
  }
  if (auto settled = kiln.command({"complete-deletes"}); !settled) return Failure(settled.error());
  Samples samples;
  samples.values = {{"builds.time", *builds / static_cast<double>(count)},
                    {"builds.shells", *shells / static_cast<double>(count)}};
  return samples;
}

Expected<std::vector<Contender>> prepareBuilds(Site& site) {
  std::vector<Contender> contenders;
  for (const auto mode : {StoreMode::kCopy, StoreMode::kHardlink}) {
    const auto kiln = site.kiln(mode);
    if (!kiln) return Failure(kiln.error());
    contenders.push_back({mode == StoreMode::kCopy ? "kiln-copy" : "kiln-link",
                          [&site, kiln] { return measureBuilds(site, **kiln); }});
  }
  return contenders;
}

double residentMegabytes(pid_t pid) {
  std::ifstream in(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("VmRSS:")) return std::stod(line.substr(6)) * 1024 / 1e6;
  }
  return 0;
}

double descriptors(pid_t pid) {
  std::error_code error;
  double count = 0;
  for (std::filesystem::directory_iterator at(fmt::format("/proc/{}/fd", pid), error), end;
       !error && at != end; at.increment(error)) {
    ++count;
  }
  return count;
}

constexpr size_t kInDirectory = 1000;

Status makeMany(const std::string& root, size_t count) {
  if (::mkdir(root.c_str(), 0755) != 0) return failErrno(root);
  for (size_t i = 0; i < count; ++i) {
    if (interrupted()) return fail(EINTR, "interrupted");
    const std::string directory = fmt::format("{}/d{:04}", root, i / kInDirectory);
    if (i % kInDirectory == 0 && ::mkdir(directory.c_str(), 0755) != 0) return failErrno(directory);
    const std::string file = fmt::format("{}/f{:06}", directory, i);
    const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (!fd.valid()) return failErrno(file);
  }
  return {};
}

// Makes every file known to the kernel, and so to the daemon.
Status statMany(const std::string& root, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (interrupted()) return fail(EINTR, "interrupted");
    struct stat st = {};
    const std::string file = fmt::format("{}/d{:04}/f{:06}", root, i / kInDirectory, i);
    if (::lstat(file.c_str(), &st) != 0) return failErrno(file);
  }
  return {};
}

Expected<Samples> growth(pid_t pid, const std::string& root, size_t count) {
  const double before = residentMegabytes(pid);
  const double held = descriptors(pid);
  if (auto done = statMany(root, count); !done) return Failure(done.error());
  // What is in use right now is no matter of how many are known.
  std::this_thread::sleep_for(std::chrono::seconds(4));
  Samples samples;
  samples.values = {
      {"memory.million", (residentMegabytes(pid) - before) * 1e6 / static_cast<double>(count)},
      {"memory.descriptors", descriptors(pid) - held}};
  return samples;
}

Expected<Samples> growthOfFuseOverlay(Site& site, const std::string& tree, size_t count) {
  const std::string dir = site.path("memory");
  const std::string at = dir + "/merged";
  if (auto made = makeEmpty({dir, dir + "/upper", dir + "/work", at}); !made) {
    return Failure(made.error());
  }
  const auto served = Served::start(
      {"fuse-overlayfs", "-f", "-o",
       fmt::format("lowerdir={},upperdir={}/upper,workdir={}/work", tree, dir, dir), at},
      at, dir + "/log");
  if (!served) return Failure(served.error());
  return growth(served->pid(), at, count);
}

Expected<std::vector<Contender>> prepareMemory(Site& site) {
  const size_t count = site.options().sizes.inodes;
  auto started = site.startKiln("memory", "mode=hardlink", [count](const std::string& store) {
    if (::mkdir((store + "/result").c_str(), 0755) != 0) return Status(failErrno(store));
    return makeMany(store + "/result/many", count);
  });
  if (!started) return Failure(started.error());
  const std::shared_ptr<Kiln> kiln = std::move(*started);
  std::vector<Contender> contenders;
  contenders.push_back({"result", [kiln, count]() -> Expected<Samples> {
                          if (auto done = kiln->restart(); !done) return Failure(done.error());
                          return growth(kiln->pid(), kiln->mnt("results/many"), count);
                        }});
  if (installed("fuse-overlayfs")) {
    contenders.push_back({"fuse-overlayfs", [&site, kiln, count] {
                            return growthOfFuseOverlay(site, kiln->store() + "/result/many", count);
                          }});
  } else {
    site.say("fuse-overlayfs is not installed");
  }
  return contenders;
}

Status submitChain(const Kiln& kiln, size_t length) {
  for (size_t i = 1; i <= length; ++i) {
    const auto queued =
        kiln.command({"build", fmt::format("c{}", i), "--base", fmt::format("c{}", i - 1), "-c",
                      fmt::format("echo {} > {}", i, kSomeFile)});
    if (!queued) return queued;
  }
  return kiln.command({"wait", fmt::format("c{}", length)});
}

// The best of some readings of a whole tree.
Expected<double> reading(const std::string& tree) {
  constexpr int kTimes = 3;
  double best = 0;
  for (int i = 0; i <= kTimes; ++i) {  // the first to warm up
    const auto ran = runOk({"sh", "-c", fmt::format("tar cf - -C '{}' . | cat > /dev/null", tree)});
    if (!ran) return Failure(ran.error());
    if (i > 0) best = i == 1 ? ran->seconds : std::min(best, ran->seconds);
  }
  return best;
}

Expected<Samples> readChain(const Kiln& kiln, size_t length, double each) {
  const auto start = reading(kiln.mnt("results/c0"));
  if (!start) return Failure(start.error());
  const auto end = reading(kiln.mnt(fmt::format("results/c{}", length)));
  if (!end) return Failure(end.error());
  const std::string last = readText(kiln.mnt(fmt::format("results/c{}/{}", length, kSomeFile)));
  if (last != fmt::format("{}\n", length)) return fail(EIO, "the chain's end is not what it built");
  Samples samples;
  samples.values = {{"chain.end", *end}, {"chain.start", *start}, {"chain.build", each}};
  return samples;
}

Expected<std::vector<Contender>> prepareChain(Site& site) {
  std::vector<Contender> contenders;
  const auto& sizes = site.options().sizes;
  for (const std::string mode : {"copy", "hardlink"}) {
    const auto fill = [&sizes](const std::string& store) {
      if (::mkdir((store + "/result").c_str(), 0755) != 0) return Status(failErrno(store));
      return makeTree(store + "/result/c0",
                      {sizes.chainFiles, sizes.chainFiles / 10, 2000, 0, 0, 4});
    };
    auto started = site.startKiln("chain-" + mode, "mode=" + mode, fill);
    if (!started) return Failure(started.error());
    const std::shared_ptr<Kiln> kiln = std::move(*started);
    const Stopwatch watch;
    if (auto done = submitChain(*kiln, sizes.chain); !done) return Failure(done.error());
    const double each = watch.seconds() / static_cast<double>(sizes.chain);
    if (auto settled = kiln->command({"complete-deletes"}); !settled) {
      return Failure(settled.error());
    }
    contenders.push_back(
        {mode == "copy" ? "kiln-copy" : "kiln-link",
         [kiln, length = sizes.chain, each] { return readChain(*kiln, length, each); }});
  }
  return contenders;
}

std::vector<Bound> bothModes(double limit) {
  return {{"kiln-copy", limit, {}}, {"kiln-link", limit, {}}};
}

}  // namespace

Workload buildsWorkload() {
  return {"builds",
          "builds of `true`, 10 at a time, against `sh -c true` started 10 at a time",
          {{"builds.time", "a build", Unit::kSeconds, Against::kOwn, "builds.shells", bothModes(2)},
           {"builds.shells", "a shell", Unit::kSeconds, Against::kNothing, "", {}}},
          prepareBuilds};
}

Workload memoryWorkload() {
  return {"memory",
          "what the daemon keeps for known inodes",
          {{"memory.million",
            "for each million inodes",
            Unit::kMegabytes,
            Against::kNothing,
            "",
            {{"result", 200, {}}}},
           {"memory.descriptors",
            "descriptors held",
            Unit::kCount,
            Against::kNothing,
            "",
            {{"result", 0, {}}}}},
          prepareMemory,
          1};
}

Workload chainWorkload() {
  return {"chain",
          "a chain of builds, submitted at once: reading its end against its start",
          {{"chain.end", "read the tree at the end", Unit::kSeconds, Against::kOwn, "chain.start",
            bothModes(1.1)},
           {"chain.build", "a build of the chain", Unit::kSeconds, Against::kNothing, "", {}}},
          prepareChain};
}

}  // namespace kilnfs::bench
