"""One fault at a time: a clear error for who asked, the rest goes on, what was stored is untouched.

Each fault is a function below, made of: a store with two results and a cache; the fault; what must
be answered meanwhile; the fault's end; and the check that all is as before and works again.
"""

import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time

from mounted import BIN, Broken, Daemon, Skip, ask_on, check, detach
from power import Machine, make_believe_another_boot

FAULTS = {}


def fault(function):
    FAULTS[function.__name__] = function
    return function


def contents(top):
    """Path, mode, and the content's hash of all below `top`, read without the mount."""
    found = {}
    for directory, _, files in os.walk(top):
        for name in files:
            path = os.path.join(directory, name)
            with open(path, "rb") as data:
                found[path] = (os.lstat(path).st_mode, hashlib.sha256(data.read()).hexdigest())
    return found


class World:
    """A store that holds something, and a daemon."""

    def __init__(self, directory, rng, store=None):
        self.rng, self.directory = rng, directory
        self.daemon = Daemon(directory)
        if store:
            self.daemon.store = store
        self.options = ["jobs=2", f"mode={rng.choice(['copy', 'hardlink'])}"]
        self.held = {}

    def start(self, **how):
        self.daemon.start(*self.options, **how)

    def fill(self):
        script = "mkdir -p a/b; for i in 1 2 3; do seq 500 > a/f$i; seq 50 > a/b/g$i; done"
        self.must(f"build base --wait -c '{script}'")
        self.must("build top --base base --wait -c 'echo top > a/f1'")
        self.must("build cached --cache c:c --wait -c 'seq 100 > c/one'")
        self.must("complete-deletes")
        self.held = self.stored()

    def stored(self):
        areas = [os.path.join(self.daemon.store, area) for area in ("result", "cache")]
        return {path: what for area in areas for path, what in contents(area).items()}

    def ask(self, line):
        return self.daemon.ask(line)

    def must(self, line):
        answer = self.ask(line)
        check(answer.get("ok"), f"{line}: {answer}\n{self.errors()}")
        return answer

    def must_not(self, line, *errnos):
        answer = self.ask(line)
        check(answer.get("ok") is False and not answer.get("no_answer"), f"{line}: {answer}")
        check(answer["errno"] in errnos, f"{line}: {answer}, expected {errnos}")
        check(len(answer.get("message", "")) > 10, f"{line}: no clear message: {answer}")
        return answer

    def errors(self):
        try:
            with open(self.daemon.path("errors"), encoding="utf-8") as text:
                return text.read()[-1000:]
        except OSError as e:
            return str(e)

    def log(self, name):
        with open(self.daemon.path("logs", name), encoding="utf-8", errors="replace") as text:
            return text.read()

    def unharmed(self):
        now = self.stored()
        for path, what in self.held.items():
            check(now.get(path) == what, f"{path} was stored, and is {now.get(path, 'gone')}")
        check(self.must("status")["ok"], "status")

    def works_again(self, tag="again"):
        self.unharmed()
        self.must(f"build {tag} --base top --wait -c 'grep -q top a/f1; seq 9 > a/f2'")
        lease = self.ask_lease("c")
        check(lease == "published", f"publishing again: {lease}")
        self.must(f"delete {tag}")
        self.must("complete-deletes")
        self.daemon.check_nothing_is_left(os.listdir(self.daemon.path("results")))

    def ask_lease(self, cache, size=10):
        """Leases, changes, releases: the outcome, or the errno's name of what failed."""
        fd = os.open(self.daemon.path("control"), os.O_RDWR | os.O_CLOEXEC)
        try:
            lease = ask_on(fd, f"lease {cache}")
            if not lease["ok"]:
                return lease["errno"]
            try:
                with open(self.daemon.path(lease["path"], "new"), "w", encoding="utf-8") as out:
                    out.write("x" * size)
            except OSError:
                pass  # the lease must still be released in order
            answer = ask_on(fd, f"release {lease['lease']}")
            return answer.get("outcome") or answer["errno"]
        finally:
            os.close(fd)

    def end(self):
        self.daemon.stop()


class Small:
    """A small file system that can be filled up."""

    def __init__(self, directory, options):
        self.top = os.path.join(directory, "small")
        os.makedirs(self.top)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", self.top], check=False)
        if done.returncode != 0:
            raise Skip("mounting a tmpfs needs root")
        self.store = os.path.join(self.top, "store")
        self.ballast = os.path.join(self.top, "ballast")

    def fill_bytes(self):
        with open(self.ballast, "wb", buffering=0) as out:
            for size in (1 << 20, 4096, 1):
                try:
                    while out.write(b"x" * size):
                        pass
                except OSError:
                    pass

    def fill_inodes(self):
        os.makedirs(self.ballast, exist_ok=True)
        try:
            for n in range(1 << 20):
                with open(os.path.join(self.ballast, str(n)), "x", encoding="utf-8"):
                    pass
        except OSError:
            pass

    def free(self):
        if os.path.isdir(self.ballast):
            shutil.rmtree(self.ballast)
        else:
            os.unlink(self.ballast)


def full_disk(world, small, fill):
    world.start()
    world.fill()
    fill()
    answer = world.ask("build more --base base --wait -c 'seq 100000 > a/more'")
    check(not answer["ok"] and answer["errno"] in ("ENOSPC", "EIO"), f"build: {answer}")
    check(len(answer.get("message", "")) > 10 or answer.get("state") == "failed", f"build: {answer}")
    check("more" not in os.listdir(world.daemon.path("results")), "a failed build was saved")
    outcome = world.ask_lease("c", 100000)
    check(outcome in ("ENOSPC", "EIO", "discarded", "unchanged"), f"lease: {outcome}")
    world.unharmed()
    # A full disk must be one that can be emptied, also after a restart.
    world.daemon.kill()
    world.start()
    world.must("delete top")
    for path in [p for p in world.held if "/result/top/" in p]:
        del world.held[path]
    small.free()
    world.must("complete-deletes")
    world.must("build top --base base --wait -c 'echo top > a/f1'")
    world.works_again()
    world.end()


@fault
def no_space(directory, rng):
    small = Small(directory, "size=24m")
    try:
        full_disk(World(directory, rng, small.store), small, small.fill_bytes)
    finally:
        detach(small.top)


@fault
def no_inodes(directory, rng):
    small = Small(directory, "size=64m,nr_inodes=600")
    try:
        full_disk(World(directory, rng, small.store), small, small.fill_inodes)
    finally:
        detach(small.top)


@fault
def space_that_runs_out(directory, rng):
    """At whatever write it does: the free space is a little more in each round."""
    small = Small(directory, "size=24m")
    world = World(directory, rng, small.store)
    try:
        world.start()
        world.fill()
        for n in range(12):
            small.fill_bytes()
            with open(small.ballast, "r+b") as out:
                out.truncate(max(0, os.path.getsize(small.ballast) - n * rng.randint(1, 9) * 4096))
            world.ask(f"build p{n} --base base --cache c:c --wait "
                      f"-c 'seq 3000 > a/n; seq 2000 > c/n; mkdir d; seq 1000 > d/n'")
            world.ask_lease("d", 5000)
            small.free()
            for path in [p for p in world.held if "/cache/" in p]:
                del world.held[path]  # may be published
            world.unharmed()
            if f"p{n}" in os.listdir(world.daemon.path("results")):
                for file, lines in (("a/n", 3000), ("d/n", 1000)):
                    with open(world.daemon.path("results", f"p{n}", file), encoding="utf-8") as text:
                        check(sum(1 for _ in text) == lines, f"p{n}/{file} was saved, and is not whole")
                world.must(f"delete p{n}")
        world.works_again()
        world.end()
    finally:
        detach(small.top)


@fault
def few_descriptors(directory, rng):
    world = World(directory, rng)
    world.start(prefix=["prlimit", "--nofile=128:128"])
    world.fill()
    opened, failed = [], None
    with open(world.daemon.path("control"), "r+b", buffering=0) as holder:
        lease = ask_on(holder.fileno(), "lease c")
        top = world.daemon.path(lease["path"])
        try:
            for n in range(300):
                opened.append(os.open(f"{top}/{n}", os.O_RDWR | os.O_CREAT))
        except OSError as e:
            failed = e
        check(failed is None or failed.errno in (23, 24), f"opening many files: {failed}")
        answer = world.ask("build many --wait -c true")
        check(answer["ok"] or not answer.get("no_answer"), f"a build without descriptors: {answer}")
        for fd in opened:
            os.close(fd)
        time.sleep(0.1)
        ask_on(holder.fileno(), f"release {lease['lease']} --discard")
    world.works_again()
    world.end()


@fault
def too_many_links(directory, rng):
    """A file of the base has as many links as ext4 allows."""
    machine = Machine(directory, "ext4")
    machine.power_on(reliable=True)
    world = World(directory, rng, os.path.join(machine.top, "store"))
    world.options[1] = "mode=hardlink"
    try:
        world.start()
        world.fill()
        links = os.path.join(machine.top, "links")
        os.mkdir(links)
        file = os.path.join(world.daemon.store, "result", "base", "a", "f3")
        try:
            for n in range(70000):
                os.link(file, f"{links}/{n}")
        except OSError as e:
            check(e.errno == 31, f"linking: {e}")
        world.must("build linked --base base --wait -c 'echo new > a/new; seq 500 | cmp - a/f3'")
        world.must("complete-deletes")
        with open(os.path.join(world.daemon.store, "result", "linked", "a", "f3"),
                  encoding="utf-8") as text:
            check(text.read().split() == [str(i) for i in range(1, 501)], "linked/a/f3 is not whole")
        world.works_again()
        world.end()
    finally:
        world.daemon.destroy()
        machine.power_off()


@fault
def disk_that_fails(directory, rng):
    """From one moment on every read and write of the device is EIO."""
    machine = Machine(directory, "ext4")
    machine.power_on()
    world = World(directory, rng, os.path.join(machine.top, "store"))
    try:
        world.start()
        world.fill()
        world.daemon.stop()  # what it has now is on disk
        world.start()
        machine.fail(rng.randrange(1 << 30))
        answer = world.ask("build more --base base --wait -c 'seq 1000000 > a/more; sync -f a/more'")
        check(not answer.get("no_answer"), f"build: {answer}")  # memory may have taken it all
        outcome = world.ask_lease("c", 100000)
        check(outcome in ("EIO", "EROFS", "discarded", "unchanged", "published"), f"lease: {outcome}")
        for path in [p for p in world.held if "/cache/" in p]:
            del world.held[path]  # published to memory alone, it may be dropped
        check(world.ask("status")["ok"], "status is not answered any more")
        world.daemon.process.send_signal(signal.SIGTERM)
        check(world.daemon.process.wait(120) in (0, 1), "the daemon crashed: " + world.daemon.said())
        machine.power_off()
        machine.power_on()
        make_believe_another_boot(world.daemon)
        world.start()
        check("more" not in os.listdir(world.daemon.path("results")), "kept, and never on disk")
        world.works_again()
        world.end()
    finally:
        world.daemon.destroy()
        machine.power_off()


@fault
def database_locked(directory, rng):
    world = World(directory, rng)
    world.start()
    world.fill()
    database = os.path.join(world.daemon.store, "state", "db", "db.sqlite")
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    world.must_not("build locked --wait -c true", "EBUSY", "EIO")
    check("locked" not in os.listdir(world.daemon.path("results")), "saved without its row")
    world.must("status")
    other.execute("ROLLBACK")
    other.close()
    world.works_again()
    world.end()


@fault
def database_corrupt(directory, rng):
    world = World(directory, rng)
    world.start()
    world.fill()
    database = os.path.join(world.daemon.store, "state", "db", "db.sqlite")
    for pages in (slice(0, 100), slice(4096, None)):
        world.daemon.stop()
        with open(database, "r+b") as file:
            data = bytearray(file.read())
            data[pages] = os.urandom(len(data[pages]))
            file.seek(0)
            file.write(data)
        world.start()
        check({"base", "top"} <= set(os.listdir(world.daemon.path("results"))), "results are gone")
        world.works_again(f"after{pages.start}")
    world.end()


@fault
def database_from_the_future(directory, rng):
    world = World(directory, rng)
    world.start()
    world.fill()
    world.daemon.stop()
    database = os.path.join(world.daemon.store, "state", "db", "db.sqlite")
    with sqlite3.connect(database) as db:
        db.execute("INSERT OR REPLACE INTO kilnfs_meta VALUES ('version', '1000')")
    db.close()
    check(not world.daemon.start(*world.options, must=False), "a store of a newer version was opened")
    check("newer" in world.daemon.said(400), "without saying why: " + world.daemon.said(400))
    with sqlite3.connect(database) as db:
        db.execute("DELETE FROM kilnfs_meta WHERE key = 'version'")
    db.close()
    world.start()
    world.works_again()
    world.end()


@fault
def result_removed_behind_our_back(directory, rng):
    world = World(directory, rng)
    world.start()
    world.fill()
    world.must("build gone --base base --wait -c 'echo 1 > one'")
    world.must("complete-deletes")  # then it is on disk
    path = os.path.join(world.daemon.store, "result", "gone")
    with open(world.daemon.path("results", "gone", "one"), encoding="utf-8") as held:
        shutil.rmtree(path)
        try:
            held.read()
        except OSError:
            pass
    try:
        os.listdir(world.daemon.path("results", "gone"))
    except OSError as e:
        check(e.errno in (2, 5, 116), f"listing what is gone: {e}")
    world.must_not("delete gone", "ENOENT")
    world.must_not("build onto --base gone --wait -c true", "ENOENT")
    world.must("build gone --base base --wait -c 'echo 2 > one'")
    with open(world.daemon.path("results", "gone", "one"), encoding="utf-8") as text:
        check(text.read() == "2\n", "the new one does not show")
    world.works_again()
    # And a directory that nobody made through us.
    os.mkdir(os.path.join(world.daemon.store, "result", "foreign"))
    world.must("build foreign --wait -c false")  # it exists: that is the answer
    world.must("delete foreign")
    world.end()


@fault
def clock_that_jumps(directory, rng):
    """A year ahead, two back: nothing expires, nothing hangs."""
    shim = os.path.join(os.path.dirname(BIN), "tests", "libclock_shim.so")
    if not os.path.exists(shim):
        raise Skip("the clock's shim is not built")
    clock = os.path.join(directory, "clock")
    world = World(directory, rng)
    # A sanitizer's build wants to be the first library, which does not matter for a clock.
    world.start(env={"LD_PRELOAD": shim, "CLOCK_SHIM": clock,
                     "ASAN_OPTIONS": "verify_asan_link_order=0"})
    world.fill()
    lease = world.must("lease c --as kept --ttl 1h")
    world.must("build long --timeout 1h -c 'sleep 3'")
    year = 365 * 86400
    for n, offset in enumerate((year, -year, 0)):
        with open(clock + ".new", "w", encoding="utf-8") as out:
            out.write(str(offset))
        os.rename(clock + ".new", clock)
        world.must(f"build j{n} --base top --wait -c 'seq 5 > a/j'")
        world.must("status")
        with sqlite3.connect(os.path.join(world.daemon.store, "state", "db", "db.sqlite")) as db:
            used = db.execute("SELECT strftime('%s', used) FROM builds WHERE id = 'top'").fetchone()
        db.close()
        # A use is in the database at once, or within seconds: not only when the clock is where it was.
        if n < 2:
            late = int(used[0]) - time.time() - offset
            check(abs(late) < 3600, f"the use of a base is not recorded after a jump: {late} s")
    world.must("wait long")
    check(os.path.isdir(world.daemon.path(lease["path"])), "the lease has expired")
    world.must(f"release {lease['lease']}")
    world.works_again()
    world.end()


def run(directory, seed, only=None, verbose=False):
    names = [only] if only else list(FAULTS)
    skipped = []
    for name in names:
        place = os.path.join(directory, name)
        os.mkdir(place)
        began = time.monotonic()
        try:
            FAULTS[name](place, random.Random(f"{seed}/{name}"))
        except Skip as e:
            skipped.append(f"{name}: {e}")
        except Broken as e:
            log = os.path.join(place, "log")
            said = ""
            if os.path.exists(log):
                with open(log, encoding="utf-8", errors="replace") as text:
                    said = text.read()[-2500:]
            raise Broken(f"faults --seed {seed} --only {name}: {e}\n{said}") from None
        finally:
            clean_up(place)
        if verbose:
            print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
    if len(skipped) == len(names):
        raise Skip("; ".join(skipped))
    return {"faults": len(names) - len(skipped), "skipped": skipped}


def clean_up(place):
    """Whatever a broken promise has left."""
    while Daemon.started:
        Daemon.started.pop().destroy()
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        for path in [line.split()[4] for line in mounts]:
            if path.startswith(place + "/"):
                detach(path)
