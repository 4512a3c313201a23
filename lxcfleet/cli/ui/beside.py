"""Files that get their name once they are whole: beside it until then, and only for their owner to read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lxcfleet.api.archives import SUFFIX
from lxcfleet.errors import Busy, InvalidInput

STAMP = "%Y%m%dT%H%M%SZ"
"""The time in the name of an archive."""
_STAMPED = re.compile(r"\.[0-9]{8}T[0-9]{6}Z")
_MOST_LINKS = 40
"""So many links in a row the kernel follows, too."""


def refuse_no_file(target: Path) -> None:
    """Refuse what an archive would take the place of, and is no file: by that a host would lose its /dev/null."""
    if target.is_dir():
        raise InvalidInput(f"{target} is a directory", hint=f"--to {target} writes archives into it")
    if os.path.lexists(target) and (not target.is_file() or _is_open_file(target)):
        raise InvalidInput(
            f"{target} is no file, and an archive would take its place", hint="name a file; or stdout: -o -"
        )


def _is_open_file(target: Path) -> bool:
    """Whether a name is a link to what the kernel shows in /proc. /dev/stdout is one, and looks like a file when stdout goes
    to one."""
    for _ in range(_MOST_LINKS):
        target = target.parent.resolve() / target.name
        if target.is_relative_to("/proc"):
            return True
        if not target.is_symlink():
            return False
        target = target.parent / target.readlink()
    return True


@contextlib.contextmanager
def opened(target: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new file beside ``target``, which only its owner can read; gone in the end, unless it was renamed."""
    beside = target.with_name(f".{target.name}.new")
    with open(_new(beside, target), "w+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield beside, file
        finally:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(beside), os.fstat(file.fileno())):
                    os.unlink(beside)


def _new(beside: Path, target: Path) -> int:
    """A descriptor of a file that did not exist before. What a killed export left is removed; one that goes on is not."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(beside, flags, 0o600)
    except FileExistsError:
        pass
    with open(os.open(beside, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as left:
        try:
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{target} is being written", hint="another export writes it; wait until that is done") from None
        os.unlink(beside)
    return os.open(beside, flags, 0o600)


def sync(directory: Path) -> None:
    """Have the names in a directory on disk. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def forget_old(name: str, directory: Path, keep: int) -> None:
    """Remove all but the newest archives of a container. The time in the name counts."""
    archives = [each for each in directory.iterdir() if each.name.startswith(f"{name}.") and each.name.endswith(SUFFIX)]
    stamped = [each for each in archives if _STAMPED.fullmatch(each.name[len(name) : -len(SUFFIX)])]
    for old in sorted(stamped, key=lambda each: each.name)[:-keep]:
        old.unlink(missing_ok=True)
