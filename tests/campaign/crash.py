"""kill -9 of the daemon under load, at random points and at every fault point.

What a client was told is saved, published or deleted must be so after the next start; what it was
not told may be either, but never half. Everything has content that its name determines: a result
holds a directory `own.<id>` for each result of its chain of bases, a version of a cache has the same
number in all of its files.
"""

import os
import random
import re
import subprocess
import threading
import time

from mounted import SOURCE, Broken, Daemon, ask_on, check

FILES = 6


def fault_points():
    names = set()
    for directory, _, files in os.walk(os.path.join(SOURCE, "store")):
        for name in files:
            with open(os.path.join(directory, name), encoding="utf-8") as text:
                names.update(re.findall(r'faultPoint\("([^"]+)"\)', text.read()))
    return sorted(names)


def payload(name, k):
    return "".join(f"{name} {k} {i}\n" for i in range(40 * k))


class Ledger:
    """What the clients asked for, and what they were told."""

    def __init__(self):
        self.lock = threading.Lock()
        self.base = {}       # id -> base, for all that was ever asked for
        self.saved = set()   # reported, and no deletion asked for
        self.doubtful = set()  # deletion asked for, no answer
        self.published = {}  # cache -> the greatest version reported as published
        self.attempted = {}  # cache -> the greatest version tried

    def chain(self, name):
        while name is not None:
            yield name
            name = self.base[name]


class Load:
    """Clients of one round; they end when the daemon is gone."""

    def __init__(self, daemon, ledger, seed, tag):
        self.daemon, self.ledger, self.tag = daemon, ledger, tag
        self.stop = threading.Event()
        kinds = [self.builds, self.builds, self.publishes, self.publishes, self.deletes]
        self.threads = [threading.Thread(target=kind, args=(random.Random(f"{seed}/{i}"), i))
                        for i, kind in enumerate(kinds)]
        for thread in self.threads:
            thread.start()

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(120)
            check(not thread.is_alive(), "a client hangs after the daemon was killed")

    def builds(self, rng, worker):
        for n in range(10**6):
            name = f"r{self.tag}.{worker}.{n}"
            with self.ledger.lock:
                base = rng.choice(sorted(self.ledger.saved) + [None])
                self.ledger.base[name] = base
            # One file of the base's own is removed and put back, so that its directory is un-shared.
            script = [f"mkdir own.{name}"]
            script += [f"seq -f '{name} {k} %g' 0 {40 * k - 1} > own.{name}/{k}"
                       for k in range(1, FILES + 1)]
            if base is not None:
                script.append(f"cp own.{base}/2 t; rm own.{base}/2; mv t own.{base}/2")
            answer = self.daemon.ask(f"build {name} {f'--base {base}' if base else ''} "
                                     f"--cache shared --wait -c \"{'; '.join(script)}\"")
            if answer.get("no_answer") or self.stop.is_set():
                return
            with self.ledger.lock:
                if answer.get("state") == "saved":
                    self.ledger.saved.add(name)

    def publishes(self, rng, worker):
        cache = f"c{worker}"
        version = self.ledger.attempted.get(cache, 0)
        while not self.stop.is_set():
            version += 1
            self.ledger.attempted[cache] = version
            try:
                if self.publish(cache, version, rng):
                    self.ledger.published[cache] = version
            except OSError:
                return

    def publish(self, cache, version, rng):
        fd = os.open(self.daemon.path("control"), os.O_RDWR | os.O_CLOEXEC)
        try:
            lease = ask_on(fd, f"lease {cache}")
            if not lease["ok"]:
                return False
            top = self.daemon.path(lease["path"])
            for k in range(FILES):
                os.makedirs(f"{top}/d{k}/same", exist_ok=True)
                with open(f"{top}/d{k}/version", "w", encoding="utf-8") as out:
                    out.write(f"{version}\n" * rng.randint(1, 300))
            if not os.path.exists(f"{top}/d0/same/big"):  # stays as it is: it is given on
                for k in range(FILES):
                    with open(f"{top}/d{k}/same/big", "w", encoding="utf-8") as out:
                        out.write("the same\n" * 500)
            return ask_on(fd, f"release {lease['lease']}").get("outcome") == "published"
        finally:
            os.close(fd)

    def deletes(self, rng, _):
        while not self.stop.wait(0.05):
            with self.ledger.lock:
                bases = set(self.ledger.base.values())
                free = sorted(self.ledger.saved - bases)
                if len(free) < 4:
                    continue
                name = rng.choice(free)
                self.ledger.saved.discard(name)
                self.ledger.doubtful.add(name)
            answer = self.daemon.ask(f"delete {name}")
            with self.ledger.lock:
                if answer.get("ok"):
                    self.ledger.doubtful.discard(name)
                elif not answer.get("no_answer"):  # somebody took it as a base meanwhile
                    self.ledger.doubtful.discard(name)
                    self.ledger.saved.add(name)


def check_result(daemon, ledger, name):
    top = daemon.path("results", name)
    expected = {f"own.{each}" for each in ledger.chain(name)}
    check(set(os.listdir(top)) - {"shared"} == expected, f"{name} holds {sorted(os.listdir(top))}")
    for each in ledger.chain(name):
        for k in range(1, FILES + 1):
            with open(f"{top}/own.{each}/{k}", encoding="utf-8") as text:
                check(text.read() == payload(each, k), f"{name}: own.{each}/{k} is not what it was")


def check_cache(daemon, ledger, cache):
    top = os.path.join(daemon.store, "cache", cache)
    low, high = ledger.published.get(cache, 0), ledger.attempted.get(cache, 0)
    if not os.path.isdir(top) or not os.listdir(top):
        check(low == 0, f"{cache}: version {low} was published and is gone")
        return
    versions = set()
    for k in range(FILES):
        with open(f"{top}/d{k}/version", encoding="utf-8") as text:
            versions.update(text.read().split())
        with open(f"{top}/d{k}/same/big", encoding="utf-8") as text:
            check(text.read() == "the same\n" * 500, f"{cache}: d{k}/same/big is not what it was")
    check(len(versions) == 1, f"{cache} is a mixture of {versions}")
    version = int(versions.pop())
    check(low <= version <= high, f"{cache} is version {version}, published was {low}")
    ledger.published[cache] = version


def check_after_restart(daemon, ledger):
    there = set(os.listdir(daemon.path("results")))
    lost = ledger.saved - there
    check(not lost, f"reported as saved, and gone: {sorted(lost)}")
    for name in sorted(there):
        check_result(daemon, ledger, name)
    ledger.saved |= there  # saved when the daemon was killed, or not deleted: both may be
    ledger.doubtful.clear()
    for cache in sorted(ledger.attempted):
        check_cache(daemon, ledger, cache)
    check(daemon.ask("complete-deletes")["ok"], "complete-deletes fails")
    daemon.check_nothing_is_left(there)


def died_as_told(daemon):
    """Whether it was the fault point: what a start takes up again comes by some of them."""
    try:
        return daemon.process.wait(5) == 99
    except subprocess.TimeoutExpired:
        return False


def thin_out(daemon, ledger, rng, keep=30):
    """Keeps the store small, so that checking all of it stays cheap."""
    for name in rng.sample(sorted(ledger.saved), max(0, len(ledger.saved) - keep)):
        if name in os.listdir(daemon.path("results")):
            # Before it is asked for: the daemon may die on the way.
            ledger.saved -= {each for each in ledger.saved if name in ledger.chain(each)}
            answer = daemon.ask(f"delete {name} --recursive")
            check(answer["ok"], f"delete {name}: {answer}")


def supervisors(daemon):
    """Processes of builds that outlived the daemon."""
    found = subprocess.run(["pgrep", "-f", f"kiln-supervise.*{daemon.directory}"], text=True,
                           stdout=subprocess.PIPE, check=False).stdout
    return found.split()


def one_round(daemon, ledger, rng, tag, point):
    """The daemon runs, checked. Loads it, kills it, starts it again, checks."""
    load = Load(daemon, ledger, rng.random(), tag)
    if point:
        deadline = time.monotonic() + 20
        while daemon.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
    else:
        time.sleep(rng.uniform(0.05, 2.0))
    hit = daemon.process.poll() is not None
    check(not hit or daemon.process.returncode == 99, "the daemon died by itself: " + daemon.said())
    daemon.kill()
    load.end()
    return hit


def run(directory, seed, rounds, verbose=False):
    rng = random.Random(seed)
    daemon, ledger = Daemon(directory), Ledger()
    points, hits = fault_points(), {}
    try:
        for n in range(rounds):
            # Every other round at a fault point: each in turn, at a random one of its passes.
            point = points[(n // 2) % len(points)] if n % 2 else None
            options = ["jobs=4", f"mode={'hardlink' if seed % 2 else 'copy'}"]
            if point:
                options.append(f"fault={point}:{rng.randint(0, 4)}")
            try:
                daemon.start(*options)
                check_after_restart(daemon, ledger)
                thin_out(daemon, ledger, rng)
            except (Broken, OSError):
                if not point or not died_as_told(daemon):
                    raise
                hit = True  # the next round checks
            else:
                hit = one_round(daemon, ledger, rng, n, point)
            if point:
                hits[point] = hits.get(point, 0) + hit
            left = supervisors(daemon)
            check(not left or not time.sleep(2) and not supervisors(daemon), f"left running: {left}")
            if verbose:
                print(f"round {n}: {point or 'random'}{' hit' if hit else ''}, "
                      f"{len(ledger.saved)} results", flush=True)
        daemon.start()
        check_after_restart(daemon, ledger)
        daemon.stop()
    except (Broken, OSError) as e:
        raise Broken(f"crash --seed {seed}, round {n}: {e}\n{daemon.said()}") from None
    finally:
        daemon.destroy()
    return {"rounds": rounds, "built": len(ledger.base), "published": sum(ledger.published.values()),
            "killed at": hits}
