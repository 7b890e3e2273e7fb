// What the database says may be anybody's: opening and using the store with it never crashes, and
// changes nothing outside; where it can't be made good the store says so.
#include <SQLiteCpp/SQLiteCpp.h>

#include "tests/fuzz/site.h"

namespace kilnfs::fuzz {
namespace {

namespace fs = std::filesystem;

// One table each, and its columns.
constexpr std::pair<const char*, int> kTables[] = {
    {"builds", 5},       {"kilnfs_meta", 2},   {"kilnfs_results", 1},
    {"kilnfs_pins", 1},  {"kilnfs_usage", 3},  {"kilnfs_caches", 4},
    {"kilnfs_gifts", 5}, {"kilnfs_sealed", 3}, {"kilnfs_stubs", 4}};

// Names of what there is, of what is outside, and other words that mean something.
constexpr const char* kWords[] = {"",
                                  ".",
                                  "..",
                                  "/",
                                  "a",
                                  "b",
                                  "c",
                                  "s",
                                  "t",
                                  "build.7.s",
                                  "build.8.t",
                                  "lease.7.c",
                                  "../a",
                                  "../../outside",
                                  "../../outside/d",
                                  "/tmp",
                                  "d",
                                  "d/e",
                                  "d/..",
                                  "link",
                                  "link/d",
                                  "empty",
                                  "stub",
                                  "d/stub",
                                  "../result/a",
                                  "../state",
                                  "mode",
                                  "version",
                                  "copy",
                                  "hardlink",
                                  "2020-01-01 00:00:00",
                                  "not a time",
                                  "x/../y",
                                  "result"};

/// The store of all runs: results a, b on a, a cache c, and what two sealed trees and a lease left.
class Template {
 public:
  Template() {
    auto store = openStore(site_.store());
    const auto make = [](const std::shared_ptr<Workspace>& tmp) -> Status {
      fill(tmp->path());
      return {};
    };
    Interrupt interrupt;
    tells(store->build(*Id::parse("a"), {}, {}, interrupt, make));
    tells(store->build(*Id::parse("b"), {}, {}, interrupt, make));
    tells(store->completeDeletes());
    tells(store->completeRecords(interrupt));
    store.reset();
    for (const char* left :
         {"/result-tmp/build.7.s", "/result-tmp/build.8.t", "/cache-tmp/lease.7.c", "/cache/c"}) {
      fs::create_directory(site_.store() + left);
      fill(site_.store() + left);
    }
  }
  std::string path() const { return site_.store(); }

 private:
  static void fill(const std::string& top) {
    for (const char* directory : {"/d", "/d/e", "/empty", "/stub", "/d/stub"}) {
      fs::create_directory(top + directory);
    }
    std::ofstream(top + "/f") << "text";
    std::ofstream(top + "/d/e/g") << "more";
    fs::create_symlink("../../../outside", top + "/link");
  }
  Site site_;
};

void bindValue(SQLite::Statement& row, int column, Bytes& bytes) {
  const uint8_t kind = bytes.byte();
  if (kind < 200) {
    row.bind(column, std::string(kWords[kind % std::size(kWords)]));
  } else if (kind < 215) {
    int64_t number = 0;
    for (int i = kind % 9; i > 0; --i) number = number << 8 | bytes.byte();
    row.bind(column, number);
  } else if (kind < 230) {
    const std::string blob = bytes.text(40);
    row.bind(column, blob.data(), static_cast<int>(blob.size()));
  } else if (kind < 245) {
    row.bind(column, bytes.text(40));
  } else {
    row.bind(column);  // NULL
  }
}

/// The number of what a publish would exchange, which is not to be guessed.
void bindInode(SQLite::Statement& row, int column, const std::string& path) {
  struct stat st = {};
  ::lstat(path.c_str(), &st);
  row.bind(column, static_cast<int64_t>(st.st_ino));
}

void insertRows(const std::string& store, Bytes& bytes) {
  SQLite::Database db(store + "/state/db/db.sqlite", SQLite::OPEN_READWRITE);
  while (!bytes.done()) {
    const auto& [table, columns] = kTables[bytes.byte() % std::size(kTables)];
    std::string marks = "?";
    for (int i = 1; i < columns; ++i) marks += ", ?";
    SQLite::Statement row(db, fmt::format("INSERT OR REPLACE INTO {} VALUES ({})", table, marks));
    for (int i = 1; i <= columns; ++i) {
      const bool inode = i == 5 && std::string_view(table) == "kilnfs_gifts";
      const uint8_t which = inode ? bytes.byte() % 4 : 0;
      if (which == 0) {
        bindValue(row, i, bytes);
      } else {
        bindInode(row, i,
                  store + (which == 1   ? "/cache/c"
                           : which == 2 ? "/cache/c/d"
                                        : "/cache/x"));
      }
    }
    try {
      row.exec();
    } catch (const SQLite::Exception&) {
      // Not a row for that table.
    }
  }
}

void use(Store& store) {
  Interrupt interrupt;
  for (const char* name : {"a", "b", "s", "t"}) {
    const Id id = *Id::parse(name);
    auto result = store.result(id);
    tells(result);
    if (result && *result) hasCode((*result)->open("d/stub", O_RDONLY | O_DIRECTORY));
    tells(store.info(id));
    store.touch(id);
  }
  tells(store.pins());
  tells(store.usage());
  tells(store.caches());
  tells(store.completeDeletes());
  tells(store.completeRecords(interrupt));
  tells(store.verify({}, true, interrupt));
  PruneRequest request;
  request.limits.maxCount = 1;
  request.dryRun = true;
  tells(store.prune(request, interrupt));
  request.dryRun = false;
  tells(store.prune(request, interrupt));
  if (auto lease = store.cache({}, *CacheName::parse("c"))) {
    tells(store.release(*lease, false, "fuzz"));
  }
  tells(store.deleteCache(*CacheName::parse("c"), true));
  for (const char* name : {"a", "b", "s", "t"}) tells(store.remove(*Id::parse(name), true));
  tells(store.completeDeletes());
}

void run(Bytes bytes) {
  static const Template model;
  const Site site;
  fs::copy(model.path(), site.store(),
           fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  insertRows(site.store(), bytes);
  std::string why;
  if (const auto store = openStore(site.store(), &why)) {
    site.check();
    use(*store);
  }
  site.check();
}

}  // namespace
}  // namespace kilnfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1000) kilnfs::fuzz::run({data, size});
  return 0;
}
