"""Unpacks an archive that a container made, whose root may want to harm this host.

Whatever the archive says, nothing is made outside of one directory, no link is followed, and no file has set-id bits, devices
or room without end. What is left out is told. Each directory is opened by its name in the one above.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

MOST_FILES = 1_000_000
_MOST_HEADER = 1 << 20
"""Bytes of a long name or of other attributes in the archive."""
_CHAIN = 4
"""An entry has at most a long name, the long name of what it is a link to, and other attributes."""
_DEEPEST = 200
_PIECE = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
"""Errors about this host's disk, not about one entry."""
_ODD = (ValueError, OverflowError, EOFError, LookupError)
"""The errors that come from numbers and texts that make no sense."""
_LONG = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


class _Entry(tarfile.TarInfo):
    """An entry whose header takes no more memory or time than it needs; tarfile itself has no such limits."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.size < 0 or (self.type in _LONG and self.size > _MOST_HEADER):
            raise tarfile.ReadError("an entry of the archive has a size that makes no sense")
        # tarfile calls itself for what follows a long name.
        chain = getattr(archive, "chain", 0) + 1 if self.type in _LONG else 0
        if chain > _CHAIN:
            raise tarfile.ReadError("an entry of the archive has too many long names")
        archive.chain = chain  # type: ignore[attr-defined]
        if self.type == tarfile.XGLTYPE:  # these would add up in memory
            raise tarfile.ReadError("the archive has attributes for all entries, which tar makes only if it is told so")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("the archive has files with holes, which tar makes only if it is told so")
        return super()._proc_member(archive)  # type: ignore[misc]

    def _proc_gnusparse_00(self, *_: Any) -> None:
        raise tarfile.ReadError("the archive has files with holes, which tar makes only if it is told so")

    _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_gnusparse_00


class Unpacking:
    """One archive, on its way into one directory."""

    def __init__(self, directory: Path) -> None:
        """``directory``: is made if it is missing."""
        self._top = directory
        self._owners = os.geteuid() == 0
        self.files = 0
        """How many files, links and directories were made."""
        self.left_out: list[str] = []
        """The entries that were left out, each with the reason."""
        self._last: list[tuple[str, tarfile.TarInfo]] = []

    def run(self, file: IO[bytes]) -> None:
        """Unpack it. Raises OSError, and tarfile.TarError for what is no archive, or one that was cut off."""
        self._top.mkdir(parents=True, exist_ok=True)
        top = os.open(self._top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._take_all(top, file)
            for path, entry in reversed(self._last):
                with contextlib.suppress(OSError, *_ODD), _opened(top, path.split("/")) as handle:
                    self._finish(handle, entry)
        finally:
            os.close(top)

    def _take_all(self, top: int, file: IO[bytes]) -> None:
        try:
            with tarfile.open(fileobj=file, mode="r:", tarinfo=_Entry) as archive:
                for _ in range(MOST_FILES):
                    entry = archive.next()
                    if entry is None:
                        return
                    archive.members = []  # type: ignore[attr-defined]  # else all entries are remembered
                    self._take(top, archive, entry)
                self._leave_out("the rest", f"the archive has more than {MOST_FILES} entries")
        except _ODD as error:
            raise tarfile.ReadError(f"an entry of the archive makes no sense: {type(error).__name__}") from error

    def _take(self, top: int, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        parts = [part for part in entry.name.split("/") if part not in ("", ".")]
        wrong = _wrong(entry, parts)
        if wrong:
            self._leave_out(entry.name, wrong)
            return
        if not parts:  # the directory itself
            return
        try:
            with _opened(top, parts[:-1], make=True) as above:
                self._make(top, above, parts, archive, entry)
        except (NotADirectoryError, FileExistsError, IsADirectoryError) as error:
            self._leave_out(entry.name, f"in its way is something else: {error.strerror}")
        except OSError as error:
            if error.errno in _OURS:
                raise
            self._leave_out(entry.name, error.strerror or "it can't be made")
        except _ODD as error:
            self._leave_out(entry.name, f"it makes no sense: {error}")
        else:
            self.files += 1

    def _make(self, top: int, above: int, parts: list[str], archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        name = parts[-1]
        if entry.isdir():
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=above)
            os.close(os.open(name, _DIRECTORY, dir_fd=above))  # a link in its place is refused
            self._last.append(("/".join(parts), entry))
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=above)
        if entry.issym():
            os.symlink(entry.linkname, name, dir_fd=above)
            if self._owners:
                os.chown(name, entry.uid, entry.gid, dir_fd=above, follow_symlinks=False)
        elif entry.islnk():
            other = [part for part in entry.linkname.split("/") if part not in ("", ".")]
            with _opened(top, other[:-1]) as there:
                if not stat.S_ISREG(os.stat(other[-1], dir_fd=there, follow_symlinks=False).st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, "it is another name of something that is no file")
                os.link(other[-1], name, src_dir_fd=there, dst_dir_fd=above, follow_symlinks=False)
        else:
            with open(os.open(name, _NEW, 0o600, dir_fd=above), "wb") as file:
                content = archive.extractfile(entry)
                assert content is not None
                while piece := content.read(_PIECE):
                    file.write(piece)
                file.flush()
                self._finish(file.fileno(), entry)

    def _finish(self, handle: int, entry: tarfile.TarInfo) -> None:
        """Owner, mode and time: no user of this host gains rights by a program that a container made."""
        if self._owners:
            os.fchown(handle, entry.uid, entry.gid)
        os.fchmod(handle, entry.mode & (0o1777 if entry.isdir() else 0o777))
        os.utime(handle, (entry.mtime, entry.mtime))

    def _leave_out(self, name: str, why: str) -> None:
        if len(self.left_out) < MOST_FILES:
            self.left_out.append(f"{name[:200]}: {why}")


def _wrong(entry: tarfile.TarInfo, parts: list[str]) -> str:
    """Why an entry is left out; empty: it is not."""
    if entry.name.startswith("/") or ".." in parts or "\0" in entry.name:
        return "its name leads out of the directory"
    if len(parts) > _DEEPEST:
        return f"it is more than {_DEEPEST} directories deep"
    if not (entry.isreg() or entry.isdir() or entry.issym() or entry.islnk()):
        return "it is a device, a pipe or the like"
    if entry.issym() and _leads_out(parts, entry.linkname):
        return "this link leads out of the directory"
    if entry.islnk() and (entry.linkname.startswith("/") or ".." in entry.linkname.split("/")):
        return "this link leads out of the directory"
    return ""


def _leads_out(parts: list[str], target: str) -> bool:
    """Whether a symlink at ``parts`` with this target leads out. Links on the way, which could lead up further, lead nowhere
    outside themselves; but a `..` behind one could, so that is refused, too."""
    depth = len(parts) - 1
    if not target or target.startswith("/") or "\0" in target:
        return True
    below = False
    for part in target.split("/"):
        if part == "..":
            depth -= 1
            if below or depth < 0:
                return True
        elif part not in ("", "."):
            depth += 1
            below = True
    return False


@contextlib.contextmanager
def _opened(top: int, parts: list[str], *, make: bool = False) -> Iterator[int]:
    """A descriptor of a directory below ``top``. ``make``: missing ones are made."""
    handle = os.dup(top)
    try:
        for part in parts:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=handle)
            below = os.open(part, _DIRECTORY, dir_fd=handle)
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)

