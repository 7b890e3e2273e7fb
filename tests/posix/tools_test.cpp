// Programs that people use must simply work in a lease: each does its job there twice, on files of
// its own and on files that the snapshot holds.

#include "tests/posix/posix_test.h"

namespace kilnfs::testing {
namespace {

/// Runs a script that says nothing unless something is wrong.
void works(const std::string& script) {
  const Ran ran = shell("set -eu; export HOME=$PWD; " + script, ".");
  EXPECT_EQ(ran.status, 0) << ran.output;
  EXPECT_EQ(ran.output, "");
}

void project() {
  works(
      "mkdir p; cd p; mkdir src; printf 'int f(void);int main(void){return f();}' > src/m.c; "
      "printf 'int f(void){return 0;}' > src/f.c; "
      "printf 'p: m.o f.o\\n\\tgcc -o p m.o f.o\\n%%.o: src/%%.c\\n\\tgcc -c -o $@ $<\\n' > "
      "Makefile; "
      "git init -q .; git add .; git -c user.name=n -c user.email=e commit -qm 1; "
      "make -s -j2; ./p");
}

}  // namespace

ROW_ON(Tools_Git, project) {
  works(
      "cd p; test \"$(git status --short)\" = '?? f.o\n?? m.o\n?? p'; echo x > new; git add new; "
      "git -c user.name=n -c user.email=e commit -qm 2; git checkout -q HEAD~1; test ! -e new; "
      "git checkout -q -; test -e new; git mv src source; git status --short | grep -q ^R; "
      "git reset -q --hard; git gc -q; git fsck --no-progress; git clone -q . ../clone; "
      "diff -r src ../clone/src; cd ../clone; git worktree add -q ../tree HEAD~1 2>/dev/null");
}

ROW_ON(Tools_MakeAndGcc, project) {
  works(
      "cd p; make -q; touch src/f.c; make -s; ./p; make -q; printf 'int f(void){return 3;}' > "
      "src/f.c; make -s; ./p || test $? = 3; rm p *.o; make -s -j4; test -x p");
}

ROW_ON(Tools_Sqlite, [] {
  works(
      "for m in delete wal; do sqlite3 $m.db \"pragma journal_mode=$m; create table t(x); insert "
      "into t values(1);\" > /dev/null; done");
}) {
  works(
      "for m in delete wal truncate; do for i in 1 2 3 4; do (for j in 1 2 3 4 5; do sqlite3 -cmd "
      "'.timeout 60000' $m.db \"create table if not exists t(x); insert into t values($i);\"; "
      "done) "
      "& done; wait; done; "
      "test \"$(sqlite3 delete.db 'select count(*) from t')\" = 21; "
      "test \"$(sqlite3 wal.db 'select count(*) from t; pragma integrity_check')\" = '21\nok'; "
      "test \"$(sqlite3 wal.db 'pragma journal_mode')\" = wal; "
      "sqlite3 wal.db 'vacuum; delete from t;'; sqlite3 delete.db 'vacuum'");
}

ROW_ON(Tools_TarAndRsync, project) {
  works(
      "tar -cf t.tar p; mkdir u; tar -C u -xpf t.tar; diff -r p u/p; tar -df t.tar; "
      "rsync -aHAX --delete p/ u/p/; rsync -aHAX --inplace p/ u/p/; echo more >> p/Makefile; "
      "rsync -aHAX --delete p/ u/p/; test -z \"$(rsync -naHAXic --delete p/ u/p/)\"; cp -a p q; "
      "diff -r p q; rm -rf p u; test ! -e p");
}

ROW_ON(Tools_Npm, [] {
  works(
      "mkdir pkg; cd pkg; printf '{\"name\":\"x\",\"version\":\"1.0.0\",\"bin\":\"x.js\"}' > "
      "package.json; printf '#!/usr/bin/env node\\n' > x.js");
}) {
  works(
      "export npm_config_update_notifier=false; npm config set cache \"$PWD/cache\" > /dev/null; "
      "(cd pkg && npm pack --silent > /dev/null); "
      "mkdir app; cd app; printf '{\"name\":\"app\",\"version\":\"1.0.0\"}' > package.json; "
      "npm install --silent --offline --no-audit --no-fund --no-progress ../pkg/x-1.0.0.tgz > "
      "/dev/null; test -x node_modules/.bin/x; npm uninstall --silent --offline --no-audit "
      "--no-fund "
      "x > /dev/null; test ! -e node_modules/x");
}

ROW_ON(Tools_Ccache, [] { project(); }) {
  works(
      "export CCACHE_DIR=$PWD/ccache CCACHE_NOHASHDIR=1; for i in 1 2; do ccache gcc -c -o o$i.o "
      "p/src/m.c; done; cmp o1.o o2.o; ccache -s | grep -q 'Hits: *1 '; ccache -C > /dev/null");
}

ROW_ON(Tools_DpkgDeb, [] {
  works(
      "mkdir -p d/DEBIAN d/usr/share/x; printf 'Package: x\\nVersion: 1\\nArchitecture: all\\n"
      "Maintainer: n <n@localhost>\\nDescription: x\\n' > d/DEBIAN/control; echo x > "
      "d/usr/share/x/f; "
      "ln -s f d/usr/share/x/l");
}) {
  works(
      "dpkg-deb --root-owner-group -b d x.deb > /dev/null; dpkg-deb -x x.deb out; "
      "test \"$(cat out/usr/share/x/l)\" = x; dpkg-deb -x x.deb out; rm -r out d");
}

ROW_ON(Tools_AppendersAndFlock, [] { put("counter", "0\n"); }) {
  works(
      "for i in 1 2 3 4; do (for j in 1 2 3 4 5 6 7 8 9 10; do flock lock sh -c 'n=$(cat counter); "
      "echo $((n + 1)) > counter'; echo $i >> log; done) & done; wait; test $(cat counter) = 40; "
      "test $(wc -l < log) = 40");
}

}  // namespace kilnfs::testing
