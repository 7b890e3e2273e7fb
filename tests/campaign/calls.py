"""Single calls of the system fail, one at a time, wherever the daemon makes them.

A library that is loaded before the C library (calls_shim.cpp) counts the daemon's calls on what is
below the store, and makes the N-th of one kind fail. Each round of a campaign is one such failure
in one of the phases below. What must hold, whichever call it was:

 - the daemon does not crash, and answers;
 - what it says was done is done, whole; what it says failed has a message and left nothing;
 - what was stored before is untouched, on disk and in the database;
 - afterwards the same succeeds, and nothing is left: at the latest once the next daemon has started.

How many calls of each kind a phase makes is counted first. Of those, `rounds` are drawn for each
kind and phase, and of all these `most`. `--only` takes a phase, a kind, PHASE:KIND:N, or PHASE:KIND:TEXT for all calls on
paths with that text in them.
"""

import errno
import os
import random
import signal

from calls_shim import Calls, differences, picture
from faults import World
from mounted import BIN, Broken, Skip, ask_on, check
from power import make_believe_another_boot

SHIM = os.path.join(os.path.dirname(BIN), "tests", "libcalls_shim.so")

# What else than EIO a call may fail with, when it is not the disk that fails.
OTHERS = {
    "open": [errno.EMFILE, errno.ENOSPC], "write": [errno.ENOSPC, errno.EDQUOT], "splice": [errno.ENOSPC],
    "mkdir": [errno.ENOSPC, errno.EMLINK], "mknod": [errno.ENOSPC], "symlink": [errno.ENOSPC],
    "link": [errno.ENOSPC], "rename": [errno.ENOSPC], "setxattr": [errno.ENOSPC],
    "copy_file_range": [errno.ENOSPC], "truncate": [errno.ENOSPC], "fsync": [errno.ENOSPC],
}


BASE = """mkdir -p a/b/c e; for i in 1 2 3; do seq 300 >a/f$i; seq 50 >a/b/g$i; done; seq 30000 >big
ln a/f1 a/link; ln a/f1 a/b/link; ln -s f1 a/sym; mkfifo a/fifo; chmod 750 a/b; echo x >a/b/c/x
setfattr -n user.k -v v a/f2; setfattr -n user.d -v w a/b; chmod 4711 a/f3"""
CHANGE = """set -e
echo more >>a/f1; rm a/f2; mkdir new; seq 2000 >new/n; ln new/n new/m; mv a/b/c new/c; ln -s x new/s
chmod 700 a/b; cp big big2; truncate -s 10000 big; mkfifo new/p; setfattr -n user.new -v 1 a/b/g1; mv a/f3 a/f4"""


class Site(World):
    """A store that is known in all its parts, and a daemon with the shim in it."""

    def __init__(self, directory, rng, mode, overlay):
        super().__init__(directory, rng)
        self.options = ["jobs=2", f"mode={mode}"] + ([] if overlay else ["no_overlay"])
        self.calls = Calls(os.path.join(directory, "calls"))
        self.expected = {}
        self.generation = 0

    def start(self, *more, **how):
        env = {"LD_PRELOAD": SHIM, "CALLS_SHIM": self.calls.path, "CALLS_SHIM_BELOW": self.daemon.store,
               "ASAN_OPTIONS": "verify_asan_link_order=0"}
        return self.daemon.start(*self.options, *more, env=env, **how)

    def fill(self):
        self.must(f"build base --wait -c '{BASE}'")
        self.must("build top --base base --wait -c 'echo top >a/b/g2; ln a/b/g2 a/b/g4'")
        self.must("build cached --cache c:c --cache k:k --wait -c 'mkdir c/d; seq 100 >c/d/one; seq 9 >k/9'")
        self.must("build model --base top --wait -c '" + CHANGE + "'")
        self.must("complete-deletes")
        self.daemon.stop()
        self.start()
        for name in ("base", "top", "model"):
            self.expected[name] = picture(self.daemon.path("results", name))
        self.must("delete model")
        self.must("complete-deletes")
        self.held = self.stored()
        self.generation = self.generation_of("c")

    def stored(self):
        """All but the cache c, which is published to."""
        trees = [os.path.join("result", name) for name in ("base", "top", "cached")] + ["cache/k"]
        return {f"{tree}/{path}": what for tree in trees
                for path, what in picture(os.path.join(self.daemon.store, tree)).items()}

    def generation_of(self, cache):
        found = [c["generation"] for c in self.must("status")["caches"] if c["name"] == cache]
        check(len(found) == 1, f"caches: {self.must('status')['caches']}")
        return found[0]

    def answered(self, line):
        """An answer: that it was done, or a message that says why not."""
        answer = self.ask(line)
        if not answer.get("ok"):
            # Reading the answer is a call, too, but one of the asker's mount.
            check(not answer.get("no_answer"), f"{line}: {answer}")
            said = answer.get("message") or str(answer)
            check(len(said) > 10, f"{line}: no clear message: {answer}")
        return answer

    def is_expected(self, result, model):
        found = picture(self.daemon.path("results", result))
        check(found == self.expected[model], f"{result} is not whole: {differences(self.expected[model], found)}")

    def cache_content(self):
        try:
            with open(os.path.join(self.daemon.store, "cache", "c", "new"), encoding="utf-8") as text:
                return text.read()
        except FileNotFoundError:
            return ""

    # -- the phases: what is done, and then, with the fault gone, the check of what was said

    def work(self):
        before = self.cache_content()
        built = self.answered("build x --base top --wait -c '" + CHANGE.replace("'", "") + "'")
        wanted = "y" * self.rng.randint(1, 5000)
        outcome, wrote = self.publish(wanted)
        verified = self.answered("verify")
        yield [built["ok"], outcome == "published", verified["ok"]]
        self.settle()
        if built["ok"]:
            self.is_expected("x", "model")
        else:
            check("x" not in os.listdir(self.daemon.path("results")), f"failed, and saved: {built}")
            self.must("build x --base top --wait -c '" + CHANGE + "'")
            self.is_expected("x", "model")
        now = self.cache_content()
        if outcome == "published" and wrote:
            check(now == wanted, f"published, and lost: {len(now)} of {len(wanted)} bytes")
        elif outcome != "published":
            check(now == before, f"not published ({outcome}), and changed")
        self.must("delete x")

    def publish(self, content):
        """The outcome, or the errno's name; and whether all was written."""
        control = os.open(self.daemon.path("control"), os.O_RDWR | os.O_CLOEXEC)
        try:
            lease = ask_on(control, "lease c")
            if not lease["ok"]:
                check(len(lease.get("message", "")) > 5, f"lease: {lease}")
                return lease["errno"], False
            wrote = True
            try:
                with open(self.daemon.path(lease["path"], "new"), "w", encoding="utf-8") as out:
                    out.write(content)
            except OSError:
                wrote = False
            answer = ask_on(control, f"release {lease['lease']}")
            return answer.get("outcome") or answer["errno"], wrote
        finally:
            os.close(control)

    def delete(self):
        self.must("build x --base top --wait -c '" + CHANGE + "'")
        yield
        gone = self.answered("delete x")
        done = self.answered("complete-deletes")
        yield [gone["ok"], done["ok"]]
        self.settle()
        if gone["ok"]:
            check("x" not in os.listdir(self.daemon.path("results")), "deleted, and there")
        elif "x" in os.listdir(self.daemon.path("results")):
            self.is_expected("x", "model")
            self.must("delete x")

    def begin(self):
        """A start that has something to recover: a result that is sealed but not plain."""
        self.daemon.stop()
        self.start("fault=result.plain")
        self.ask("build x --base top --wait -c '" + CHANGE + "'")
        self.daemon.process.wait()
        self.daemon.destroy()
        yield
        began = self.try_to_start()
        yield [began]
        if began:
            self.keeps_what_it_cant_read()
        self.start_again()
        self.check_saved()

    def keeps_what_it_cant_read(self):
        """A result that is not shown since it could not be read is not built anew or repaired away."""
        if "x" in os.listdir(self.daemon.path("results")):
            return
        self.must_not("build x --wait -c true", "EIO")
        self.must_not("build y --base x --wait -c true", "EIO")
        self.must_not("verify --repair", "EIO")

    def try_to_start(self):
        began = self.start(must=False)
        if not began:
            code = self.daemon.process.wait()
            check(code == 1, f"a start that failed ended with {code}: {self.daemon.said()}")
            check("kilnfs: " in self.daemon.said(300), "a start failed without a word")
        return began

    def start_again(self):
        if self.daemon.process.poll() is None:
            self.end_daemon()
        self.daemon.destroy()
        self.start()

    def crashed(self):
        """A start after a crash of the machine, which drops what was not synced, and nothing else."""
        self.refresh()
        self.must("build x --base top --wait -c '" + CHANGE + "'")
        self.daemon.kill()
        self.daemon.destroy()
        make_believe_another_boot(self.daemon)
        yield
        yield [self.try_to_start()]
        self.start_again()
        if "x" in os.listdir(self.daemon.path("results")):
            self.settle()
            self.is_expected("x", "model")
            self.must("delete x")

    def publishing(self):
        """A start that has to finish publishing a cache."""
        self.daemon.stop()
        self.start("fault=cache.exchange")
        try:
            self.publish("published at last")
        except OSError:
            pass  # the daemon is gone
        self.daemon.process.wait()
        self.daemon.destroy()
        yield
        yield [self.try_to_start()]
        self.start_again()
        if self.calls.kind == "syncfs" and "dropping cache c: it was not on disk" in self.daemon.said():
            self.must("build again --cache c:c --wait -c 'mkdir c/d; seq 100 >c/d/one'")
            self.must("delete again")
            return
        check(self.cache_content() == "published at last", "a cache that was being published is not")
        with open(os.path.join(self.daemon.store, "cache", "c", "d", "one"), encoding="utf-8") as text:
            check(text.read().split() == [str(i) for i in range(1, 101)], "what was not changed is lost")

    def end_it(self):
        self.must("build x --base top --wait -c '" + CHANGE + "'")
        yield
        self.daemon.process.send_signal(signal.SIGTERM)
        code = self.daemon.process.wait(120)
        yield [code == 0]
        check(code in (0, 1), f"ended with {code}: {self.daemon.said()}")
        self.daemon.destroy()
        self.start()
        self.check_saved()

    def check_saved(self):
        """x is there, and has its row; or was not synced to disk, and that is known."""
        if "x" not in os.listdir(self.daemon.path("results")):
            check("dropping result 'x': it was not on disk" in self.daemon.said() or
                  "dropping result x: it was not on disk" in self.daemon.said(),
                  "a result is gone that was saved")
            check(self.calls.kind == "syncfs", "dropped, though synced")
            return
        self.settle()
        self.is_expected("x", "model")
        self.must_not("delete top", "ENOTEMPTY")
        self.must("delete x")

    def settle(self):
        """What failed in the background meanwhile is told once, and then done."""
        if not self.ask("complete-deletes")["ok"]:
            self.must("complete-deletes")

    def check_trash(self):
        """What could not be deleted at first is by now, and so is what the kernel has let go of since."""
        for _ in range(5):
            left = [name for name in os.listdir(os.path.join(self.daemon.store, "result-tmp"))
                    if name.startswith(".trash")]
            if not left:
                return
            self.must("complete-deletes")
        raise Broken(f"never deleted: {left}")

    PHASES = {"work": work, "delete": delete, "begin": begin, "crashed": crashed,
              "publishing": publishing, "end": end_it}

    def round(self, phase, kind=None, nth=0, code=0, match=""):
        """One phase, with the N-th call of a kind (on a path that holds `match`) failing. What came of
        each step; None: no such call."""
        steps = self.PHASES[phase](self)
        if phase != "work":
            next(steps)  # what comes before
        self.calls.clear(match)
        if kind and nth:
            self.calls.arm(kind, nth, code)
        outcomes = next(steps)
        counts = self.calls.counts()
        fired = self.calls.disarm()
        check(phase not in ("work", "delete") or self.daemon.process.poll() is None,
              f"the daemon has crashed:\n{self.daemon.said()}")
        for _ in steps:
            pass
        self.unharmed()
        self.settle()
        self.is_expected("top", "top")
        self.must_not("delete base", "ENOTEMPTY")
        self.check_trash()
        return (outcomes, counts) if fired or not nth else (None, counts)

    def end_daemon(self):
        self.daemon.process.send_signal(signal.SIGTERM)
        code = self.daemon.process.wait(120)
        check(code == 0, f"the daemon ended with {code}: {self.daemon.said()}")

    def refresh(self):
        """Another daemon: what could not even be moved away is cleared by its start, and a sync that
        failed is over."""
        self.end_daemon()
        self.start()
        self.must("complete-deletes")
        self.daemon.check_nothing_is_left(())


# What has been wrong once is looked at in full, in a mode: each call of a kind in a phase, on some
# paths.
ALWAYS = [
    # Was taken for a corrupt database, which lost what is sealed.
    ("copy", "begin", "read", "/state/db/db.sqlite"),
    # Was taken for a sealed result that is gone.
    ("copy", "begin", "stat", "/result-tmp/build."),
    # Was taken for a base that is gone, and what lay over it was dropped.
    ("copy", "begin", "stat", "/result/top"),
    # Was taken for the directory's end: files were missing, and links parted.
    ("copy", "work", "readdir", "/result/top/a/b"),
    ("hardlink", "work", "readdir", "/result/top/a/b"),
    # Was taken for a directory that was not moved: it was empty.
    ("copy", "work", "getxattr", "/new/c"),
    # Was taken for a tree that was never synced.
    ("copy", "crashed", "access", "/synced/"),
    # Was taken for a publish that was over: the cache was left half exchanged.
    ("hardlink", "publishing", "stat", "/cache/c"),
    # Was not tried again.
    ("hardlink", "delete", "unlink", "/new/m"),
]


def each_call(site, phase, kind, match):
    """All calls of a kind on paths that hold `match`."""
    _, counts = site.round(phase, kind, 0, 0, match)
    return [(phase, kind, nth, errno.EIO, match) for nth in range(1, counts[kind] + 1)]


def plan(site, rounds, most, rng, only):
    """Which calls fail: (phase, kind, n, errno, match)."""
    words = (only or "").split(":")
    if len(words) == 3 and words[2].isdigit():
        return [(words[0], words[1], int(words[2]), errno.EIO, "")]
    if len(words) == 3:
        return each_call(site, *words)
    todo, drawn = [], []
    for mode, *calls in [] if only else ALWAYS:
        if f"mode={mode}" in site.options:
            todo += each_call(site, *calls)
    for phase in Site.PHASES:
        _, counts = site.round(phase)
        for kind, count in counts.items():
            if only and kind not in words and phase not in words:
                continue
            for nth in sorted(rng.sample(range(1, count + 1), min(count, rounds))):
                drawn.append((phase, kind, nth, rng.choice([errno.EIO] * 2 + OTHERS.get(kind, [])), ""))
    kept = sorted(rng.sample(range(len(drawn)), min(len(drawn), most)))
    return todo + [drawn[i] for i in kept]


class Sweep:
    """All rounds in one mode. What is broken is told at the end: a new store goes on after it."""

    def __init__(self, directory, rng, options):
        self.directory, self.rng, self.options = directory, rng, options
        self.figures = {"injected": 0, "refused": 0, "quiet": 0}
        self.broken = []
        self.site = None
        self.begin()

    def begin(self):
        place = os.path.join(self.directory, str(len(self.broken)))
        os.mkdir(place)
        self.site = Site(place, self.rng, *self.options)
        self.site.start()
        self.site.fill()

    def round(self, phase, kind, nth, code, match, verbose):
        site = self.site
        what = f"{phase}:{kind}:{match or nth} {errno.errorcode[code]}"
        said = os.path.getsize(site.daemon.log)
        try:
            outcomes, _ = site.round(phase, kind, nth, code, match)
            where = site.calls.where()
            if outcomes is not None:
                site.refresh()
        except (Broken, OSError) as e:
            self.broken.append(f"{what} of {site.calls.where()}, {site.options}: {e}\n{site.daemon.said(1000)}")
            if verbose:
                print("BROKEN: " + self.broken[-1], flush=True)
            site.daemon.destroy()
            self.begin()
            return
        if outcomes is None:
            return  # there were fewer calls this time
        with open(site.daemon.log, encoding="utf-8", errors="replace") as log:
            log.seek(said)
            text = log.read()
        quiet = all(outcomes) and "[error]" not in text and "[warning]" not in text
        self.figures["injected"] += 1
        self.figures["refused"] += not all(outcomes)
        self.figures["quiet"] += quiet
        if verbose:
            print(f"{what}: {outcomes}{' quiet' if quiet else ''} {where}", flush=True)


def run(directory, seed, rounds, most, only=None, verbose=False):
    if not os.path.exists(SHIM):
        raise Skip("the shim is not built")
    total, broken = {}, []
    for mode, overlay in (("copy", True), ("hardlink", False)):
        place = os.path.join(directory, mode)
        os.mkdir(place)
        sweep = Sweep(place, random.Random(f"{seed}/{mode}"), (mode, overlay))
        try:
            for each in plan(sweep.site, rounds, most, sweep.rng, only):
                sweep.round(*each, verbose)
            sweep.site.end()
        finally:
            sweep.site.daemon.destroy()
        broken += sweep.broken
        for name, count in sweep.figures.items():
            total[name] = total.get(name, 0) + count
    if broken:
        raise Broken(f"calls --seed {seed} --rounds {rounds} --most {most}:\n" + "\n".join(broken))
    return total
