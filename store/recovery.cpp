#include "store/recovery.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include "store/publish.h"

namespace kilnfs {
namespace {

Status clearWorkInProgress(Core& core) {
  for (const Area* area : {&core.layout.resultTmp(), &core.layout.cacheTmp()}) {
    auto names = listNames(*area);
    if (!names) return Failure(names.error());
    for (const std::string& name : *names) {
      spdlog::info("recovery: removing {}/{}", area->path, inQuotes(name));
      if (auto ok = core.trash.take(*area, name); !ok) return ok;
    }
  }
  return {};
}

Status reconcile(Core& core) {
  auto names = listNames(core.layout.result());
  if (!names) return Failure(names.error());
  std::map<std::string, int64_t> existing;
  for (const std::string& name : *names) {
    struct stat st = {};
    if (!Name::valid(name)) continue;
    if (::fstatat(core.layout.result().fd.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISDIR(st.st_mode)) {
      existing.emplace(name, st.st_ctime);
    }
  }
  auto actions = core.database->reconcile(existing);
  if (!actions) return Failure(actions.error());
  for (const std::string& action : *actions) spdlog::info("recovery: {}", action);
  return {};
}

}  // namespace

Status recover(Core& core) {
  if (auto ok = finishPublishing(core); !ok) return ok;
  if (auto ok = clearWorkInProgress(core); !ok) return ok;
  return reconcile(core);
}

}  // namespace kilnfs
