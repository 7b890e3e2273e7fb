#include "tests/support/native_builds.h"

#include <sys/stat.h>
#include <unistd.h>

#include <csignal>

namespace kilnfs::testing {

const char* const kBase = R"(
set -e
umask 022
mkdir -p a/deep/er/still b/one b/two c empty locked open.d
for d in a a/deep a/deep/er a/deep/er/still b b/one b/two c; do
  for f in 1 2 3; do echo "$d $f" >$d/f$f; done
done
echo 'same directory' >a/l1; ln a/l1 a/l2
echo 'two directories' >b/x1; ln b/x1 c/x2
echo 'three' >a/deep/t1; ln a/deep/t1 a/deep/er/t2; ln a/deep/t1 b/two/t3
ln -s f1 a/link; ln -s /absolute/target b/abs; ln -s nowhere c/dangling; ln a/link a/link.hard
mkfifo a/fifo
mknod a/null c 1 3; mknod a/loop b 7 0
truncate -s 1M a/sparse; printf x | dd of=a/sparse bs=1 seek=500000 conv=notrunc status=none
echo set >a/setuid; chmod 4755 a/setuid; echo none >a/none; chmod 0 a/none
setfattr -n user.colour -v blue a/f1; setfattr -n trusted.secret -v s a/f2
setfattr -n user.colour -v red a/deep
setfacl -m u:1234:rw a/f3; setfacl -m u:1234:rwx,d:u:1234:rwx b/one
chown 1000:1001 b/f1; chown 1000:1001 b/two; chmod 0700 b/two; chmod 1777 open.d
long=$(printf 'n%.0s' $(seq 255)); mkdir c/$long; echo long >c/$long/$long
echo log >log
echo in >locked/in; chmod 0555 locked
find . -exec touch -h -d '2001-02-03 04:05:06.123456789' {} +
)";

BuildStore::BuildStore(const std::string& dir, const std::vector<std::string>& options)
    : dir_(dir) {
  ::mkdir(dir.c_str(), 0755);
  ::mkdir(mnt().c_str(), 0755);
  daemon_ = std::make_unique<Daemon>(store(), mnt(), options);
  EXPECT_TRUE(daemon_->mounted()) << daemon_->log();
}

int BuildStore::unmount() {
  const Ran done = shell("umount " + mnt());
  EXPECT_EQ(done.status, 0) << done.output;
  const int status = daemon_->end(0);
  daemon_.reset();
  return status;
}

void BuildStore::kill() {
  EXPECT_EQ(daemon_->end(SIGKILL), 128 + SIGKILL);
  daemon_.reset();
}

BuildStore::~BuildStore() {
  if (!daemon_) return;
  EXPECT_EQ(daemon_->end(SIGTERM), 0) << daemon_->log();
  EXPECT_TRUE(mountsBelow(dir_).empty());
  EXPECT_EQ(entries(store() + "/result-tmp"), 0U) << shell("ls -lAR " + store()).output;
}

Ran BuildStore::kiln(const std::string& words) const {
  return shell("KILN_MOUNT=" + mnt() + " " KILNFS_BIN "/kiln " + words, mnt());
}

Ran BuildStore::build(const std::string& id, const std::string& base, const std::string& script,
                      const std::string& options) const {
  const std::string file = dir_ + "/" + id + ".sh";
  writeFile(file, script);
  const std::string on = base.empty() ? "" : " --base " + base;
  return kiln("build " + id + on + " " + options + " -- bash " + file);
}

void BuildStore::holdUp(const std::string& id) const {
  writeFile(store() + "/result/" + id, "");
}

void BuildStore::letGo(const std::string& id) const {
  EXPECT_EQ(::unlink((store() + "/result/" + id).c_str()), 0) << id;
}

void BuildStore::settle() const {
  const Ran done = kiln("complete-deletes");
  EXPECT_EQ(done.status, 0) << done.output;
}

bool nativeBuildsPossible() {
  const TempDir dir;
  const BuildStore store(dir / "try", {});
  return store.build("a", "", "grep -q ' '$PWD' ' /proc/self/mountinfo").status == 0;
}

}  // namespace kilnfs::testing
