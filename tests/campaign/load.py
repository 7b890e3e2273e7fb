"""200 clients at once that build, join, cancel, lease, publish, delete, prune, verify, pin and read, for
as long as told.

No deadlock, no lost update (a counter in a cache is as great as the number of publishes that were
answered with "published"), `status` within a second, and memory, descriptors and threads that do not
grow. Some readers of events, control and a log have stopped reading from the start.
"""

import json
import mmap
import os
import random
import signal
import time

from mounted import Broken, Daemon, ask_on, check

CLIENTS = 200
CALM_SECONDS = 60
PINNED = ("b0", "b1")  # from the start to the end


class Figures:
    def __init__(self):
        self.counts = {}
        self.broken = []

    def count(self, what, times=1):
        self.counts[what] = self.counts.get(what, 0) + times


def usage(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as text:
        fields = dict(line.split(":", 1) for line in text)
    return {"rss_kb": int(fields["VmRSS"].split()[0]), "threads": int(fields["Threads"]),
            "descriptors": len(os.listdir(f"/proc/{pid}/fd"))}


def build(daemon, rng, figures):
    name = f"b{rng.randrange(40)}"  # few names: many join, or find it there
    base = rng.choice(["", "--base b0", "--base b1"]) if name not in ("b0", "b1") else ""
    answer = daemon.ask(f"build {name} {base} --wait -c 'seq 200 > {name}; sleep 0.0{rng.randrange(9)}'")
    check(answer["ok"] or answer["errno"] in ("ECANCELED", "ENOENT", "EIO", "EEXIST", "EBUSY"), answer)
    figures.count("built" if answer["ok"] else "not built")


def cancel(daemon, rng, figures):
    daemon.ask(f"build x{rng.randrange(10)} -c 'sleep 5'")
    daemon.ask(f"cancel x{rng.randrange(10)}")
    figures.count("cancelled")


def delete(daemon, rng, figures):
    answer = daemon.ask(f"delete b{rng.randrange(2, 40)}")
    check(answer["ok"] or answer["errno"] in ("ENOENT", "ENOTEMPTY", "EBUSY"), answer)
    figures.count("deleted" if answer["ok"] else "not deleted")


def read(daemon, rng, figures):
    try:
        for name in os.listdir(daemon.path("results"))[:5]:
            for file in os.listdir(daemon.path("results", name)):
                with open(daemon.path("results", name, file), "rb") as data:
                    data.read()
    except OSError:
        pass  # deleted meanwhile
    figures.count("read")


def prune(daemon, rng, figures):
    line = rng.choice(["--max 25", "--max 30 --dry-run", "--max-used 300K", "--before 1d --dry-run"])
    answer = daemon.ask(f"prune {line}")
    check(answer["ok"], answer)
    for one in answer.get("results", []):
        check(one["action"] != "deleted" or one["id"] not in PINNED, f"{one} was pinned")
    figures.count("pruned")


def verify(daemon, rng, figures):
    """What is deleted meanwhile is ENOENT; nothing ever differs."""
    name = f"b{rng.randrange(40)}"
    answer = daemon.ask(rng.choice(["verify", f"verify {name}", f"verify {name} --repair"]))
    check(answer["ok"] or answer["errno"] == "ENOENT", answer)
    figures.count("verified" if answer["ok"] else "not verified")


def pin(daemon, rng, figures):
    answer = daemon.ask(f"{rng.choice(['pin', 'unpin'])} b{rng.randrange(2, 40)}")
    check(answer["ok"] or answer["errno"] == "ENOENT", answer)
    figures.count("pinned or unpinned" if answer["ok"] else "no result or pin")


def publish(daemon, rng, figures):
    """Counts up by one; a release that says published is one that must never be lost."""
    cache = f"count{rng.randrange(3)}"
    fd = os.open(daemon.path("control"), os.O_RDWR | os.O_CLOEXEC)
    try:
        lease = ask_on(fd, f"lease {cache}")
        check(lease["ok"], lease)
        file = daemon.path(lease["path"], "n")
        n = 0
        if os.path.exists(file):
            with open(file, encoding="utf-8") as text:
                n = int(text.read())
        with open(file, "w", encoding="utf-8") as out:
            out.write(str(n + 1))
        answer = ask_on(fd, f"release {lease['lease']}")
        while answer.get("errno") == "EBUSY":  # the kernel tells of close() a little later
            figures.count("released again")
            answer = ask_on(fd, f"release {lease['lease']}")
        check(answer.get("outcome") in ("published", "discarded"), answer)
        figures.count(f"{cache} {answer['outcome']}")
    finally:
        os.close(fd)


def client(daemon, seed, end, stop):
    rng, figures = random.Random(seed), Figures()
    while time.monotonic() < end and not stop[0]:
        what = rng.choice([build] * 4 + [cancel, delete] * 2 + [read, publish] * 4 + [prune, verify, pin])
        try:
            what(daemon, rng, figures)
        except Exception as e:  # whatever it is, the campaign must say so
            figures.broken.append(f"{what.__name__}: {e!r}")
            stop[0] = 1
    return figures


class Clients:
    """Each a process of its own, so that `status` is not measured behind this interpreter's lock."""

    def __init__(self, daemon, seed, end, directory):
        self.stop = mmap.mmap(-1, 1)  # shared with them: one of them has failed
        self.answers = {}
        for i in range(CLIENTS):
            answer = os.path.join(directory, f"client.{i}")
            pid = os.fork()
            if pid == 0:
                self.work(daemon, f"{seed}/{i}", end, answer)
            self.answers[pid] = answer

    def work(self, daemon, seed, end, answer):
        status = 1
        try:
            figures = client(daemon, seed, end, self.stop)
            with open(answer, "w", encoding="utf-8") as out:
                json.dump([figures.counts, figures.broken], out)
            status = 0
        finally:
            os._exit(status)

    def join(self, seconds):
        """What they counted, all together."""
        figures, end = Figures(), time.monotonic() + seconds
        while self.answers:
            for pid in list(self.answers):
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    continue
                answer = self.answers.pop(pid)  # at once: who has ended must not be killed
                check(os.path.exists(answer), "a client died")
                with open(answer, encoding="utf-8") as text:
                    counts, broken = json.load(text)
                figures.broken += broken
                for what, times in counts.items():
                    figures.count(what, times)
            check(time.monotonic() < end, "a client hangs")
            time.sleep(0.02)
        check(not figures.broken, "; ".join(figures.broken[:3]))
        return figures

    def kill(self):
        for pid in self.answers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def stopped_readers(daemon):
    """They read a little, or nothing, and keep the file open."""
    held = [os.open(daemon.path("events"), os.O_RDONLY) for _ in range(5)]
    for _ in range(5):
        fd = os.open(daemon.path("control"), os.O_RDWR)
        os.write(fd, b"status\nstatus\nstatus\n")
        held.append(fd)
    daemon.ask("build b0 --wait -c 'seq 200 > b0'")
    held.append(os.open(daemon.path("logs", "b0"), os.O_RDONLY))
    return held


def watch(daemon, end, clients):
    os.setpriority(os.PRIO_PROCESS, 0, -20)  # how long the daemon takes, not how long we wait to ask
    took, samples, sampled = [], [], 0.0
    while time.monotonic() < end and not clients.stop[0]:
        began = time.monotonic()
        answer = daemon.ask("status")
        took.append(time.monotonic() - began)
        check(answer["ok"], f"status: {answer}")
        if began - sampled > 1:
            samples.append(usage(daemon.process.pid))
            sampled = began
        time.sleep(0.1)
    return sorted(took), samples


def check_counts(daemon, figures):
    for k in range(3):
        published = figures.counts.get(f"count{k} published", 0)
        path = os.path.join(daemon.store, "cache", f"count{k}", "n")
        n = 0
        if os.path.exists(path):
            with open(path, encoding="utf-8") as text:
                n = int(text.read())
        check(n == published, f"count{k} is {n}, and {published} publishes were reported")


def calm(pid, before, half_way):
    """What the daemon uses once nobody wants anything of it; that must not be more and more."""
    end = time.monotonic() + CALM_SECONDS
    while True:
        now = usage(pid)
        grown = [what for what, most in (("threads", before["threads"] + 24),
                                         ("descriptors", before["descriptors"] + 48),
                                         ("rss_kb", half_way["rss_kb"] * 3 // 2 + 20000))
                 if now[what] > most]
        if not grown:
            return now
        check(time.monotonic() < end, f"{grown}: {before} before, {half_way} half way, {now} after")
        time.sleep(0.5)


def run(directory, seed, seconds, verbose=False):
    daemon, clients = Daemon(directory), None
    try:
        daemon.start("jobs=4")
        held = stopped_readers(daemon)
        daemon.ask("build b1 --wait -c 'seq 200 > b1'")
        for name in PINNED:
            check(daemon.ask(f"pin {name}")["ok"], f"pin {name}")
        before = usage(daemon.process.pid)
        end = time.monotonic() + seconds
        clients = Clients(daemon, seed, end, directory)
        took, samples = watch(daemon, end, clients)
        figures = clients.join(120)
        for fd in held:
            os.close(fd)
        check(daemon.ask("complete-deletes")["ok"], "complete-deletes")
        check_counts(daemon, figures)
        check(set(PINNED) <= set(os.listdir(daemon.path("results"))), "what was pinned is gone")
        check(daemon.ask("verify")["ok"], "a result differs from what was saved")
        half_way = samples[len(samples) // 2]
        after = calm(daemon.process.pid, before, half_way)
        daemon.stop()
    except Broken as e:
        raise Broken(f"load --seed {seed}: {e}\n{daemon.said()}") from None
    finally:
        if clients:
            clients.kill()
        daemon.destroy()
    return {"seconds": seconds, "status": {"asked": len(took), "median": round(took[len(took) // 2], 3),
                                           "slowest": round(took[-1], 3)}, "before": before,
            "after": after, "half way": half_way, **figures.counts}
