"""A store and its daemon, for the campaigns: start, kill, ask."""

import ctypes
import errno
import json
import os
import signal
import subprocess
import time

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("KILNFS_BIN") or os.path.join(SOURCE, "build-ci", "bin")
START_SECONDS = 120  # a bound for a machine that is busy, not an expectation


class Broken(Exception):
    """A promise that was not kept."""


class Skip(Exception):
    """This machine can't do it."""


def check(condition, message):
    if not condition:
        raise Broken(message)


def detach(path):
    subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL, check=False)


def become_subreaper():
    """What a daemon leaves behind becomes our child, so that it can be found."""
    ctypes.CDLL(None).prctl(36, 1)


class Daemon:
    """One daemon at a time on one store. `log` keeps what all of them said."""

    started = []  # all of them, for who has to clean up

    def __init__(self, directory):
        Daemon.started.append(self)
        self.directory = directory
        self.store = os.path.join(directory, "store")
        self.mnt = os.path.join(directory, "mnt")
        self.log = os.path.join(directory, "log")
        self.process = None
        os.makedirs(self.mnt, exist_ok=True)

    def start(self, *options, env=None, prefix=(), must=True):
        """Starts it; returns whether it serves. With `must`, not serving is a broken promise."""
        words = [*prefix, os.path.join(BIN, "kilnfs"), "-f", self.store, self.mnt]
        for option in options:
            words += ["-o", option]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                            env={**os.environ, **(env or {})})
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            if self.serves():
                return True
            time.sleep(0.01)
        check(not must, "the daemon did not start:\n" + self.said())
        return False

    def serves(self):
        with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
            if not any(line.split()[4] == self.mnt for line in mounts):
                return False
        try:
            return os.path.exists(os.path.join(self.mnt, "control"))
        except OSError:
            return False

    def said(self, last=3000):
        with open(self.log, "rb") as log:
            return log.read()[-last:].decode(errors="replace")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """A clean stop."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Broken("SIGTERM did not end the daemon:\n" + self.said()) from None
        check(status == 0, f"the daemon ended with {status}:\n" + self.said())
        self.check_nothing_is_left(())

    def check_nothing_is_left(self, results):
        """No work in progress. A tree that one of `results` was sealed as stays as long as the kernel
        knows some of it."""
        for area in ("result-tmp", "cache-tmp"):
            left = [name for name in os.listdir(os.path.join(self.store, area))
                    if not (name.startswith("build.") and name.split(".", 2)[2] in results)]
            check(not left, f"left in {area}: {left}")

    def destroy(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()
        detach(self.mnt)

    def path(self, *below):
        return os.path.join(self.mnt, *below)

    def ask(self, line):
        """One command. Its answer; {"ok": False, "errno": NAME} where there is none."""
        try:
            fd = os.open(self.path("control"), os.O_RDWR | os.O_CLOEXEC)
        except OSError as e:
            return gone(e)
        try:
            return ask_on(fd, line)
        finally:
            try:
                os.close(fd)
            except OSError:
                pass


def ask_on(fd, line):
    """The same, on a control file that is open."""
    failure = None
    try:
        os.write(fd, line.encode() + b"\n")
    except OSError as e:
        failure = e
    try:
        answers = os.read(fd, 1 << 20).decode().splitlines()
    except OSError as e:
        return gone(failure or e)
    if not answers:
        return gone(failure) if failure else {"ok": False, "errno": "ENODATA"}
    return json.loads(answers[-1])


def gone(error):
    return {"ok": False, "errno": errno.errorcode.get(error.errno, "?"), "no_answer": True}
