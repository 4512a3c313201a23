"""The list of a release's files, with the digest of each; and a quick way to see that nothing was changed since.

The list is a text of one JSON array for each file. The digest of that text is the release's digest: it covers names, modes
and contents. To read all contents at each start would take too long. So a stamp is kept besides: a digest of what stat(2)
says of each file, change times included, which no program can set. Equal stamps mean equal files; if they differ, as after
a backup was restored, the contents are read.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lxcfleet.errors import Broken
from lxcfleet.spec.reading import ondisk

DEEPEST = 64
"""The most levels of directories in a release."""
_PIECE = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class ReleaseEntry(NamedTuple):
    """One file of a release."""

    path: str
    """Below the release's directory; bytes that are not UTF-8 as surrogates."""
    kind: str
    """``f``: file, ``d``: directory, ``l``: symbolic link, ``?``: nothing that a release may have."""
    mode: int
    size: int
    content: str
    """The SHA-256 of a file, where a link leads."""


def render(entries: Iterable[ReleaseEntry]) -> str:
    """The text of a list of files, ordered by path."""
    return "".join(f"{json.dumps(list(entry))}\n" for entry in sorted(entries))


def parse(text: str) -> list[ReleaseEntry]:
    """Read what ``render`` wrote. Raises ValueError."""
    try:
        return [ReleaseEntry(*ondisk.parse(line)) for line in text.splitlines()]
    except TypeError as error:
        raise ValueError(str(error)) from error


def digest_of(text: str) -> str:
    """The digest of a list of files."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()


def entries(top: int) -> Iterator[ReleaseEntry]:
    """All files below the directory that ``top`` has open, with what is in them. Raises OSError, Broken."""
    for above, name, path, status in _walk(top):
        kind, content = "?", ""
        if stat.S_ISDIR(status.st_mode):
            kind = "d"
        elif stat.S_ISLNK(status.st_mode):
            kind, content = "l", os.readlink(name, dir_fd=above)
        elif stat.S_ISREG(status.st_mode):
            kind, content = "f", _hash(above, name)
        mode = 0 if kind == "l" else stat.S_IMODE(status.st_mode)
        yield ReleaseEntry(path, kind, mode, status.st_size if kind == "f" else 0, content)


def stamp(top: int, digest: str) -> str:
    """A digest of what stat(2) tells of all files below the directory ``top``, and of the release's ``digest``.

    Raises OSError, Broken.
    """
    found = hashlib.sha256(digest.encode())
    for _, _, path, status in _walk(top):
        told = (
            path, status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_ino, status.st_mtime_ns,
            status.st_ctime_ns,
        )  # fmt: skip
        found.update(f"{told!r}\n".encode("utf-8", errors="surrogateescape"))
    return found.hexdigest()


def differences(sealed: Iterable[ReleaseEntry], found: Iterable[ReleaseEntry]) -> list[str]:
    """In words, how files differ from the sealed ones."""
    before, now = {each.path: each for each in sealed}, {each.path: each for each in found}
    told = []
    for path in sorted({*before, *now}):
        was, entry = before.get(path), now.get(path)
        if was is None:
            told.append(f"{path} was added")
        elif entry is None:
            told.append(f"{path} is gone")
        elif was.kind != entry.kind:
            told.append(f"{path} is something else")
        elif was.content != entry.content or was.size != entry.size:
            told.append(f"{path} has other contents" if was.kind == "f" else f"{path} leads elsewhere")
        elif was.mode != entry.mode:
            told.append(f"{path} has the mode {entry.mode:04o} instead of {was.mode:04o}")
    return told


def _walk(top: int) -> Iterator[tuple[int, str, str, os.stat_result]]:
    """All below a directory, in the order of names: the directory above it, its name, its path, its status."""
    yield top, ".", ".", os.fstat(top)
    yield from _below(top, "", 1)


def _below(directory: int, prefix: str, depth: int) -> Iterator[tuple[int, str, str, os.stat_result]]:
    if depth > DEEPEST + 1:
        raise Broken(f"{prefix} has more than {DEEPEST} levels of directories")
    for name in sorted(os.listdir(directory)):
        path = f"{prefix}{name}"
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        yield directory, name, path, status
        if stat.S_ISDIR(status.st_mode):
            below = os.open(name, _DIRECTORY, dir_fd=directory)
            try:
                yield from _below(below, f"{path}/", depth + 1)
            finally:
                os.close(below)


def _hash(above: int, name: str) -> str:
    found = hashlib.sha256()
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=above), "rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()
