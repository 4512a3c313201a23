"""Looking at the base: a directory tree whose absolute paths and links are meant inside it, not on this
host."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Container, Sequence
from pathlib import Path

MAX_LINKS = 40
"""As many symbolic links as the kernel follows in one path; path_resolution(7)."""


class Tree:
    """The base below ``root``. Paths are absolute in the base; bytes that are not UTF-8 become surrogate
    escapes.

    Answers are remembered, so one object shows the base at one moment.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._prefix = os.fspath(root).rstrip("/")
        self._known: dict[str, os.stat_result | None] = {}
        self.consulted: dict[str, list[int] | None] = {}
        """Stamps of the paths that were listed or read, taken just before that (see ``stamp``)."""

    def outside(self, path: str) -> str:
        """The path by which this host knows the base's ``path``."""
        return self._prefix + path

    def places(self, directory: str) -> Sequence[str]:
        """The directories of this host that have the entries of the base's ``directory``. If there are several, an entry of
        the first hides those of the same name in the others."""
        return [self.outside(directory) or "/"]

    def lstat(self, path: str) -> os.stat_result | None:
        """The status of ``path``, without following links; None if nothing is there."""
        if path not in self._known:
            try:
                self._known[path] = os.lstat(self.outside(path))
            except (FileNotFoundError, NotADirectoryError):
                self._known[path] = None
        return self._known[path]

    def exists(self, path: str) -> bool:
        """Whether anything is at ``path``, a dangling link too."""
        return self.lstat(path) is not None

    def is_directory(self, path: str) -> bool:
        """Whether ``path`` is a directory, not a link to one."""
        status = self.lstat(path)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def is_file(self, path: str) -> bool:
        """Whether ``path`` is a regular file, not a link to one."""
        status = self.lstat(path)
        return status is not None and stat.S_ISREG(status.st_mode)

    def is_link(self, path: str) -> bool:
        """Whether ``path`` is a symbolic link."""
        status = self.lstat(path)
        return status is not None and stat.S_ISLNK(status.st_mode)

    def names(self, path: str) -> list[str]:
        """The sorted names in the directory ``path``; none where it is missing."""
        self.consult(path)
        try:
            return sorted(os.listdir(self.outside(path)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, path: str) -> bytes | None:
        """The content of the regular file ``path``; None where there is none."""
        self.consult(path)
        if not self.is_file(path):
            return None
        try:
            with open(self.outside(path), "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):  # gone since the look; what was consulted tells of that later
            return None

    def consult(self, path: str) -> None:
        """Note that the outcome depends on what is at ``path``."""
        if path not in self.consulted:
            self.consulted[path] = stamp(self.outside(path))

    def link(self, path: str) -> str:
        """Where the symbolic link ``path`` points to, as written in it."""
        return os.readlink(self.outside(path))

    def real(self, path: str, *, last: bool = False, fixed: Container[str] = ()) -> str:
        """``path`` without links, ``.`` and ``..``; a link in its last component is followed only with
        ``last``.

        Links at ``fixed`` paths are taken for directories. A path that loops or leads nowhere comes back as
        far as it could be followed, with the rest appended.
        """

        def link(here: str, more: bool) -> str:
            if (more or last) and here not in fixed and self.is_link(here):
                try:
                    return self.link(here)
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL):  # gone, or no link any more
                        raise
            return ""

        return follow(path, link)


def follow(path: str, link: Callable[[str, bool], str]) -> str:
    """``path`` without links, ``.`` and ``..``, as far as it can be followed.

    ``link`` is called with each path on the way, and whether it is not the last. It returns where a link leads, or an empty
    text if the path is no link that is to be followed.
    """
    done = ""
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            done = done.rpartition("/")[0]
            continue
        here = f"{done}/{part}"
        target = link(here, bool(todo)) if links < MAX_LINKS else ""
        if target:
            links += 1
            done = "" if target.startswith("/") else done
            todo.extend(part for part in reversed(target.split("/")) if part not in ("", "."))
        else:
            done = here
    return done or "/"


def stamp(path: str | int) -> list[int] | None:
    """A value that changes with the content, owner and mode of a file, or the entries of a directory; None: nothing is there.

    The change time moves with each of these changes, and can't be set back; inode(7).
    """
    try:
        status = os.fstat(path) if isinstance(path, int) else os.lstat(path)
    except OSError:
        return None
    return [status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def parents(path: str) -> list[str]:
    """The directories above ``path``, ``/`` first."""
    parts = path.split("/")[1:-1]
    return ["/", *("/" + "/".join(parts[: n + 1]) for n in range(len(parts)))] if path != "/" else []


def parent(path: str) -> str:
    """The directory above ``path``."""
    return path.rpartition("/")[0] or "/"


def join(directory: str, name: str) -> str:
    """The path of ``name`` in ``directory``."""
    return f"{directory.rstrip('/')}/{name}"
