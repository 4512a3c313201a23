"""The /run of an app container: empty, but for the directories that programs expect there.

In a system container systemd-tmpfiles makes them at boot. An app container has nothing that would, so the directories that
the host's packages ask for in tmpfiles.d are made here, a few system calls each.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lxcfleet.base.tree import Tree, join
from lxcfleet.host.kernel import syscalls

_FILES = "/usr/lib/tmpfiles.d"
_LEFT_OUT = re.compile(r"systemd.*|legacy|lxcfleet.*")
"""Files about systemd's own directories, which nothing in an app container uses."""
_PATH = re.compile(r"/(?:var/)?run((?:/[A-Za-z0-9_][A-Za-z0-9_.@+-]*)+)/?")
_MODE = re.compile(r"[~:]?([0-7]{3,4})")
_LOCK = "/lock"
_MOST = 256


@dataclass(frozen=True)
class RuntimeDirectory:
    """A directory in /run."""

    path: str
    """Below /run; it begins with a slash."""
    mode: int = 0o755
    user: int = 0
    group: int = 0


_Stamps = dict[str, list[int] | None]
_known: dict[tuple[str, ...], tuple[_Stamps, list[RuntimeDirectory]]] = {}
"""The directories that packages of a base ask for, by its top directories, and the stamps of all that they follow from:
containers that start one after the other have the same."""


def directories(base: Tree) -> list[RuntimeDirectory]:
    """The directories that packages in ``base`` ask for, each after its parent; tmpfiles.d(5). Lines with specifiers, and
    with users that the base does not have, are left out."""
    tops = tuple(base.places("/"))
    known = _known.get(tops)
    if known is not None and all(_stamp(path) == before for path, before in known[0].items()):
        return known[1]
    files = [base.outside(path) for path in ("/etc/passwd", "/etc/group", *_files(base))]
    stamps = {path: _stamp(path) for path in (*base.places(_FILES), *files)}
    found = _look(base)
    _known[tops] = stamps, found
    return found


def _stamp(path: str) -> list[int] | None:
    """A value that changes with what is read there; see base.tree.stamp. It is that of what a link leads to."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _look(base: Tree) -> list[RuntimeDirectory]:
    found = {_LOCK: RuntimeDirectory(_LOCK, 0o1777)}
    users, groups = _ids(base, "/etc/passwd"), _ids(base, "/etc/group")
    for line in _lines(base):
        words = [*line.split(), "-", "-", "-", "-", "-"]
        place, mode = _PATH.fullmatch(words[1]), _MODE.fullmatch("0755" if words[2] == "-" else words[2])
        user, group = _id(words[3], users), _id(words[4], groups)
        if words[0][:1] in ("d", "D") and place and mode and user is not None and group is not None and len(found) < _MOST:
            found.setdefault(place[1], RuntimeDirectory(place[1], int(mode[1], 8), user, group))
    return [found[path] for path in sorted(found)]


def mount_empty(root: Path, first_id: int, size: str = "10%") -> None:
    """Mount an empty /run below ``root``. ``size``: the most memory that it may take. Raises OSError."""
    place = os.open(root / "run", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        options = f"mode=0755,size={size},uid={first_id},gid={first_id}"
        syscalls.mount("tmpfs", f"/proc/self/fd/{place}", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)
    finally:
        os.close(place)


def mount(root: Path, base: Tree, first_id: int) -> None:
    """Mount /run below ``root``, with the directories that ``base`` asks for. Raises OSError.

    ``first_id``: the container's root, as this host numbers it. Follows no link that the container may have left.
    """
    mount_empty(root, first_id)
    for each in directories(base):
        _make(f"{root}/run", each, first_id)


def _make(run: str, wanted: RuntimeDirectory, first_id: int) -> None:
    place = run
    for name in wanted.path.split("/")[1:]:
        place = f"{place}/{name}"
        with suppress(FileExistsError):
            os.mkdir(place)
            os.chown(place, first_id, first_id)
    os.chown(place, first_id + wanted.user, first_id + wanted.group)
    os.chmod(place, wanted.mode)


def _files(base: Tree) -> list[str]:
    names = (name for name in base.names(_FILES) if name.endswith(".conf"))
    return [join(_FILES, name) for name in names if not _LEFT_OUT.fullmatch(name.removesuffix(".conf"))]


def _lines(base: Tree) -> Iterator[str]:
    for file in _files(base):
        yield from (line for line in _text(base, file).splitlines() if line[:1] in ("d", "D"))


def _text(base: Tree, path: str) -> str:
    """The file's content; empty if it can't be read."""
    with suppress(OSError):
        return Path(base.outside(path)).read_text(errors="replace")
    return ""


def _ids(base: Tree, file: str) -> dict[str, int]:
    """Ids by name; passwd(5), group(5)."""
    found: dict[str, int] = {}
    for line in _text(base, file).splitlines():
        name, _, number, *_ = [*line.split(":"), "", ""]
        if number.isdecimal():
            found[name] = int(number)
    return found


def _id(word: str, known: dict[str, int]) -> int | None:
    word = word.lstrip(":")
    if word in ("-", ""):
        return 0
    number = int(word) if word.isdecimal() else known.get(word)
    return number if number is not None and number < 65536 else None
