"""Random trees of files, made from outside, and a look at all that is told of each file."""

from __future__ import annotations

import os
import random
import stat
import struct
from typing import Any

from lxcfleet.paths import Paths

from .harness import Fleet

ATTRIBUTES = (
    "trusted.overlay.opaque", "user.a", "user.b=%", "security.capability", "system.posix_acl_access",
    "system.posix_acl_default",
)  # fmt: skip


def acl(*lines: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *line) for line in lines)


# -- random trees, made from outside ------------------------------------------------------------------------------


class Maker:
    """Makes random trees in a delta, with the owners that the container's own processes would give."""

    def __init__(self, seed: int, first_id: int) -> None:
        self._random = random.Random(seed)
        self._first_id = first_id

    def tree(self, top: bytes) -> None:
        """One tree."""
        directories, files = [top], list[bytes]()
        os.mkdir(top)
        self._dress(top)
        for number in range(self._random.randrange(1, 9)):
            name = b"%d-" % number + bytes(self._random.choice(range(1, 256)) for _ in range(self._random.randrange(9)))
            path = self._random.choice(directories) + b"/" + name.replace(b"/", b"\n")
            kind = self._random.choice(["directory", "file", "sparse", "link", "symlink", "whiteout", "fifo"])
            if kind == "link" and not files:
                continue
            self._make(kind, path, directories, files)
            if kind != "link":
                self._dress(path)

    def _make(self, kind: str, path: bytes, directories: list[bytes], files: list[bytes]) -> None:
        match kind:
            case "directory":
                os.mkdir(path)
                directories.append(path)
            case "file" | "sparse":
                with open(path, "wb") as file:
                    if kind == "sparse":  # holes at one end, at both, or in the middle
                        for _ in range(self._random.randrange(3)):
                            file.seek(self._random.randrange(1 << 22))
                            file.write(self._random.randbytes(5000))
                        file.truncate(max(file.seek(0, os.SEEK_END), self._random.randrange(1 << 34)))
                    else:
                        file.write(self._random.randbytes(self._random.randrange(20000)))
                files.append(path)
            case "link":
                os.link(self._random.choice(files), path, follow_symlinks=False)
            case "symlink":
                os.symlink(self._random.randbytes(9).replace(b"\0", b"/"), path)
                files.append(path)
            case "whiteout":
                os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
                files.append(path)
            case _:
                os.mkfifo(path)

    def _dress(self, path: bytes) -> None:
        one, first = self._random, self._first_id
        os.chown(path, first + one.randrange(65536), first + one.randrange(65536), follow_symlinks=False)
        status = os.lstat(path)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(path, one.randrange(0o10000))
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            self._attributes(path, directory=stat.S_ISDIR(status.st_mode))
        moment = one.randrange(-(10**18), 4 * 10**18)
        os.utime(path, ns=(moment, moment), follow_symlinks=False)

    def _attributes(self, path: bytes, *, directory: bool) -> None:
        one, first = self._random, self._first_id
        if one.random() < 0.3:
            os.setxattr(path, one.choice(["user.a", "user.b=%"]), one.randbytes(20))
        if one.random() < 0.2 and not directory:
            os.setxattr(path, "security.capability", struct.pack("<6I", 0x03000001, 1 << 10, 0, 0, 0, first))
        if one.random() < 0.2 and directory:
            os.setxattr(path, "trusted.overlay.opaque", b"y")
        if one.random() < 0.3:
            who = first + one.randrange(65536)
            nobody = 0xFFFFFFFF
            value = acl((1, 7, nobody), (2, one.randrange(8), who), (4, 5, nobody), (16, 7, nobody), (32, 1, nobody))
            os.setxattr(path, f"system.posix_acl_{'default' if directory else 'access'}", value)


def look(top: bytes, first_id: int) -> dict[bytes, Any]:
    """All below a delta as its container has it, by path; written without a word of the product's."""
    found: dict[bytes, Any] = {}
    names: dict[int, list[bytes]] = {}
    todo = [b""]
    while todo:
        path = todo.pop()
        for each in os.scandir(os.path.join(top, path)):
            name = os.path.join(path, os.fsencode(each.name))
            status = os.lstat(os.path.join(top, name))
            kind = stat.S_IFMT(status.st_mode)
            seen: list[Any] = [kind, status.st_mode, status.st_uid - first_id, status.st_gid - first_id, status.st_mtime_ns]
            if stat.S_ISDIR(kind):
                todo.append(name)
            else:
                seen += [status.st_size, status.st_rdev]
            if stat.S_ISREG(kind) or stat.S_ISLNK(kind):  # tar makes several of a whiteout, which means the same
                names.setdefault(status.st_ino, []).append(name)
            if stat.S_ISLNK(kind):
                seen.append(os.readlink(os.path.join(top, name)))
            elif not stat.S_ISCHR(kind):
                place = os.path.join(top, name)
                seen.append({key: shifted(place, key, first_id) for key in attributes(place)})
            if stat.S_ISREG(kind):
                seen.append(content(os.path.join(top, name)))
            found[name] = seen
    for same in names.values():
        for name in same:
            found[name].append(sorted(same))
    return found


def attributes(path: bytes) -> list[str]:
    return [each for each in os.listxattr(path, follow_symlinks=False) if each in ATTRIBUTES]


def shifted(path: bytes, key: str, first_id: int) -> object:
    """An attribute with the ids that its container sees."""
    value = os.getxattr(path, key, follow_symlinks=False)
    if key.startswith("system."):
        lines = struct.iter_unpack("<HHI", value[4:])
        return [(tag, rights, who - first_id if tag in (2, 8) else who) for tag, rights, who in lines]
    if key == "security.capability":
        *rest, root = struct.unpack("<6I", value)
        return [*rest, root - first_id]
    return value


def content(path: bytes) -> list[tuple[int, bytes]]:
    """The parts of a file that are not zero, in blocks."""
    found: list[tuple[int, bytes]] = []
    at = 0
    with open(path, "rb") as file:
        while True:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // 4096 * 4096
            except OSError:
                return found
            if block := os.pread(file.fileno(), 4096, at).rstrip(b"\0"):
                found.append((at, block))
            at += 4096


def directories(fleet: Fleet) -> set[str]:
    """The names of all directories beside containers, but for the fleet's own records."""
    running = fleet.paths.running_record.name  # the daemon may be about to write it, at any moment
    own = {fleet.paths.state.name, running, f".{running}.new"}
    return {each.name for each in fleet.paths.lxc.iterdir()} - own


def half_made(fleet: Fleet) -> list[str]:
    return [each.name for each in fleet.paths.lxc.iterdir() if each.name.startswith(Paths.NEW_PREFIX)]
