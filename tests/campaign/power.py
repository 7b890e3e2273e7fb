"""The machine loses power while the store is in use: on a disk whose write cache is lost.

The store is on ext4 (XFS, btrfs) on a loop device over crash_disk. After the failure the file system
is mounted from what the disk had kept, and the store must open: whole results, caches in one of the
versions that were published, all of what was synced, nothing else; no human step.
"""

import os
import random
import subprocess
import time

import crash
from mounted import BIN, Broken, Daemon, Skip, check, detach

SIZE = 256 << 20
MAKE = {"ext4": ["mkfs.ext4", "-qF"], "xfs": ["mkfs.xfs", "-qf"], "btrfs": ["mkfs.btrfs", "-qf"]}


class Machine:
    """A disk with a file system on it, mounted at `top`."""

    def __init__(self, directory, kind):
        self.image = os.path.join(directory, "image")
        self.bench = os.path.join(directory, "disk")
        self.top = os.path.join(directory, "machine")
        self.loop = self.disk = None
        if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
            raise Skip("loop devices need root and a kernel that has them")
        for path in (self.bench, self.top):
            os.mkdir(path)
        with open(self.image, "wb") as image:
            image.truncate(SIZE if kind == "ext4" else 2 * SIZE)
        subprocess.run([*MAKE[kind], self.image], check=True)

    def power_on(self, reliable=False):
        """Reliable: an ordinary disk, which can't fail()."""
        file = self.image if reliable else self.start_disk()
        self.loop = subprocess.run(["losetup", "-f", "--show", file], check=True, text=True,
                                   stdout=subprocess.PIPE).stdout.strip()
        mounted = subprocess.run(["mount", self.loop, self.top], check=False)
        check(mounted.returncode == 0, "the file system can't be mounted any more")

    def start_disk(self):
        program = os.path.join(os.path.dirname(BIN), "tests", "crash_disk")
        self.disk = subprocess.Popen([program, self.image, self.bench])
        file = os.path.join(self.bench, "disk")
        while not os.path.exists(file):
            check(self.disk.poll() is None, "crash_disk does not run")
            time.sleep(0.01)
        return file

    def fail(self, seed):
        with open(os.path.join(self.bench, "power-off"), "w", encoding="utf-8") as switch:
            switch.write(str(seed))

    def power_off(self):
        """After fail(), or in order."""
        detach(self.top)
        while self.loop:  # it goes when the last user of the mount has
            subprocess.run(["losetup", "-d", self.loop], stderr=subprocess.DEVNULL, check=False)
            if not self.attached():
                break
            time.sleep(0.05)
        if self.disk:
            detach(self.bench)
            self.disk.terminate()
            self.disk.wait()
        self.disk = self.loop = None

    def attached(self):
        out = subprocess.run(["losetup", "-n", "-O", "BACK-FILE", self.loop], text=True, check=False,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        return out.strip() != ""


def marks(daemon):
    try:
        return set(os.listdir(os.path.join(daemon.store, "state", "synced")))
    except OSError:
        return set()


def make_believe_another_boot(daemon):
    """All that the daemon knows the machine's boot by."""
    path = os.path.join(daemon.store, "state", "synced", "session")
    with open(path, encoding="utf-8") as session:
        state = session.read().split()
    with open(path, "w", encoding="utf-8") as session:
        session.write(f"another-boot {state[1]}\n")


def whole(daemon, ledger, name):
    """Of a result that will be dropped: whether that was needed. Shows that the disk does lose."""
    try:
        for each in ledger.chain(name):
            for k in range(1, crash.FILES + 1):
                path = os.path.join(daemon.store, "result", name, f"own.{each}", str(k))
                with open(path, encoding="utf-8", errors="replace") as text:
                    if text.read() != crash.payload(each, k):
                        return False
    except OSError:
        return False
    return True


def one_round(machine, daemon, ledger, rng, n, options):
    """From power on to the failure; the store was checked or is new."""
    synced_before = marks(daemon)
    load = crash.Load(daemon, ledger, rng.random(), n)
    # Now and then before the first sync, now and then after one or two.
    time.sleep(rng.choice([rng.uniform(0.1, 2), rng.uniform(5, 12)]))
    machine.fail(rng.randrange(1 << 30))
    daemon.kill()
    detach(daemon.mnt)
    load.end()
    machine.power_off()
    machine.power_on()
    kept = marks(daemon)
    there = set(os.listdir(os.path.join(daemon.store, "result")))
    marked = {m.split(".", 1)[1] for m in kept if m.startswith("result.")}
    promised = marked & there  # the others with a mark may be sealed, and not plain yet
    still = {m.split(".", 1)[1] for m in synced_before if m.startswith("result.")} & ledger.saved
    check(still <= marked, f"on disk before, and lost: {sorted(still - marked)}")
    make_believe_another_boot(daemon)
    torn = sum(not whole(daemon, ledger, name) for name in there - promised)
    daemon.start(*options)
    served = set(os.listdir(daemon.path("results")))
    check(promised <= served <= marked, f"known to be on disk {sorted(marked)}, plain of these "
          f"{sorted(promised)}, served {sorted(served)}")
    ledger.saved = set(served)  # what was not synced is dropped: that is no loss
    ledger.doubtful.clear()
    for cache in list(ledger.published):
        if not os.path.exists(os.path.join(daemon.store, "cache", cache)):
            ledger.published[cache] = 0
        elif f"cache.{cache}" in kept:
            # It may be an older one, published before the mark was; which, nobody knows.
            ledger.published[cache] = 1
    crash.check_after_restart(daemon, ledger)
    return {"kept": len(served), "dropped": len(there - promised), "of these torn": torn}


def run(directory, seed, rounds, file_system="ext4", verbose=False):
    rng = random.Random(seed)
    options = ["jobs=4", f"mode={'hardlink' if seed % 2 else 'copy'}"]
    machine = Machine(directory, file_system)
    daemon, ledger, figures = None, crash.Ledger(), {}
    try:
        machine.power_on()
        daemon = Daemon(directory)
        daemon.store = os.path.join(machine.top, "store")
        daemon.start(*options)
        for n in range(rounds):
            for key, value in one_round(machine, daemon, ledger, rng, n, options).items():
                figures[key] = figures.get(key, 0) + value
            crash.thin_out(daemon, ledger, rng)
            if verbose:
                print(f"round {n}: so far {figures}", flush=True)
        daemon.stop()
    except Broken as e:
        raise Broken(f"power --seed {seed}: {e}\n{daemon.said() if daemon else ''}") from None
    finally:
        if daemon:
            daemon.destroy()
        machine.power_off()
    return {"rounds": rounds, "file system": file_system, "built": len(ledger.base), **figures}
