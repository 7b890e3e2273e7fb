"""The tester's side of calls_shim.cpp, and what a tree is compared by."""

import hashlib
import mmap
import os
import stat
import struct


class Calls:
    """The file through which the shim is told what fails: see Control in calls_shim.cpp."""

    MATCH, SLOTS, SLOT = 20, 120, 24

    def __init__(self, path):
        self.path, self.kind = path, None
        with open(path, "wb") as out:
            out.write(struct.pack("5i", 0, -1, 0, 0, 0).ljust(4096, b"\0"))
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 4096)

    def number(self, at):
        return struct.unpack_from("i", self.map, at)[0]

    def names(self):
        slots = range(self.SLOTS, self.SLOTS + self.number(0) * self.SLOT, self.SLOT)
        return [self.map[at:at + 20].rstrip(b"\0").decode() for at in slots]

    def counts(self):
        return {name: self.number(self.SLOTS + i * self.SLOT + 20) for i, name in enumerate(self.names())}

    def clear(self, match=""):
        """Counts from nothing, the calls on paths that hold `match`."""
        struct.pack_into("100s", self.map, self.MATCH, match.encode())
        for i in range(self.number(0)):
            struct.pack_into("i", self.map, self.SLOTS + i * self.SLOT + 20, 0)

    def arm(self, kind, nth, code):
        self.kind = kind
        struct.pack_into("3i", self.map, 8, nth, code, 0)
        struct.pack_into("i", self.map, 4, self.names().index(kind))

    def disarm(self):
        """Whether it has fired."""
        struct.pack_into("i", self.map, 4, -1)
        return self.number(16) > 0

    def where(self):
        at = self.SLOTS + self.number(0) * self.SLOT
        return self.map[at:at + 400].split(b"\0")[0].decode(errors="replace")


def picture(top):
    """All that a tree is: names, modes, sizes, contents, links, attributes."""
    found, links = {}, {}
    for directory, directories, files in os.walk(top):
        for name in [*directories, *files, "."]:
            path = os.path.normpath(os.path.join(directory, name))
            relative, st = os.path.relpath(path, top), os.lstat(path)
            what = [stat.filemode(st.st_mode), st.st_uid, st.st_gid]
            if stat.S_ISREG(st.st_mode):
                with open(path, "rb") as data:
                    what += [st.st_size, hashlib.sha256(data.read()).hexdigest()]
                what.append(links.setdefault(st.st_ino, relative))  # by its first name
            elif stat.S_ISLNK(st.st_mode):
                what.append(os.readlink(path))
            what += [(x, os.getxattr(path, x, follow_symlinks=False))
                     for x in sorted(os.listxattr(path, follow_symlinks=False))]
            found[relative] = what
    return found


def differences(expected, found):
    return [f"{path}: {expected.get(path)} became {found.get(path)}"
            for path in sorted({*expected, *found}) if expected.get(path) != found.get(path)][:5]
