"""The files that processes run: mapped executable, as their program, or as their script. proc(5).

A process may end at any moment: ProcessLookupError is raised for information that it no longer gives.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from lxcfleet.host.kernel.mounts import unescape

_NO_FILES = ("/memfd:", "/dev/", "/SYSV", "/anon_hugepage")
"""Mappings that are shown as deleted, and never were files on a disk."""
_PIECE = 1 << 16
_MOST = 16 << 20
"""Bytes of the largest table of mappings or mounts that is read. The largest ordinary ones have 2 MiB."""
_DELETED = b" (deleted)"
_UP = 8, 1000
"""Steps up: from almost every directory the first reaches the top; the second is further than a path can lead down."""


class Identity(NamedTuple):
    """The identity of a file, the same through an overlay and in its own file system.

    An overlay changes the device number, and nothing else of the file below. The change time can't be set, and so tells
    files of equal inode number in different file systems apart.
    """

    inode: int
    size: int
    modified: int
    """Nanoseconds since the epoch, as the next."""
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """The identity in a result of stat(2)."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class MappedFile(NamedTuple):
    """A file in a line of ``maps``."""

    device: str
    """MAJOR:MINOR in hexadecimal, as ``maps`` has it: from Linux 6.8 on the overlay's, before that the device of
    the layer that has the file."""
    inode: str
    path: str
    """The path, as the container knows it."""
    deleted: bool
    """Whether the container itself removed or replaced the file."""


class Mapping(NamedTuple):
    """A range of a process's memory that maps a file and may be executed."""

    range: str
    """The range's name in ``map_files``."""
    file: MappedFile


def executable(pid: int) -> list[Mapping]:
    """The executable mappings of the process; raises ProcessLookupError if there is no such process any more.

    A process that has ended and waits for its parent has none. If the first thread has ended while others run, their maps
    are read.
    """
    return _parsed(_table(pid))


def deleted(pid: int) -> list[Mapping]:
    """Those of them whose files were replaced or removed. Most processes have none, so their maps are not taken apart."""
    text = _table(pid)
    return [mapping for mapping in _parsed(text) if mapping.file.deleted] if _DELETED in text else []


def _table(pid: int) -> bytes:
    return _read(pid, "maps") or next(filter(None, _of_threads(pid)), b"")


def _parsed(text: bytes) -> list[Mapping]:
    return [mapping for mark in (b"xp ", b"xs ") for mapping in _lines(text, mark)]


def replaced(mapped: Iterable[Mapping]) -> list[str]:
    """The files of a process of the host that were replaced or removed on disk. This does not work on an overlay."""
    files = {mapping.file for mapping in mapped if mapping.file.deleted}
    return sorted({file.path for file in files if not file.path.startswith(_NO_FILES)})


def _lines(text: bytes, mark: bytes) -> Iterator[Mapping]:
    """The lines of ``maps`` whose permissions end in ``mark``. This searches, as parsing all lines takes as long as reading.

    A line has range, permissions, offset, device, inode and path. A mapping without a path that begins with a slash has no
    file: [heap], [vdso], anonymous memory.
    """
    at = text.find(mark)
    while at >= 0:
        end = text.find(b"\n", at)
        end = len(text) if end < 0 else end
        words = text[text.rfind(b"\n", 0, at) + 1 : end].split(None, 5)
        if len(words) == 6 and words[1][2:] == mark[:2] and words[5].startswith(b"/"):
            yield Mapping(_range_name(words[0]), _mapped_file(words[3], words[4], words[5]))
        at = text.find(mark, end)


def _range_name(text: bytes) -> str:
    """The range as ``map_files`` names it, without leading zeros."""
    if not text.startswith(b"0"):
        return text.decode()
    low, _, high = text.partition(b"-")
    return f"{low.lstrip(b'0').decode() or '0'}-{high.lstrip(b'0').decode()}"


@functools.lru_cache(4096)
def _mapped_file(device: bytes, inode: bytes, path: bytes) -> MappedFile:
    """Results are remembered, as processes have most of their files in common."""
    deleted = path.endswith(_DELETED)
    if deleted:
        path = path[: -len(_DELETED)]
    return MappedFile(device.decode(), inode.decode(), os.fsdecode(path.replace(b"\\012", b"\n")), deleted)


def living_thread(pid: int) -> int | None:
    """A thread of a process whose first thread has ended while others run; None: there is none.

    /proc has nothing of such a process but its threads: its root, program and command line are found by the thread's number.
    """
    with suppress(OSError):
        for thread in map(int, os.listdir(f"/proc/{pid}/task")):
            with suppress(OSError):
                if thread != pid and os.readlink(f"/proc/{thread}/exe"):
                    return thread
    return None


def _of_threads(pid: int) -> Iterator[bytes]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError as error:
        raise _gone(error) from error
    if len(threads) > 1:
        for thread in threads:
            try:
                yield _read(pid, f"task/{thread}/maps")
            except ProcessLookupError:
                continue


def mapped_file(pid: int, name: str) -> Identity | None:
    """The identity of the file in the range ``name``; None if it is not mapped any more. Needs CAP_SYS_ADMIN."""
    try:
        return Identity.of(os.stat(f"/proc/{pid}/map_files/{name}"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def program(pid: int) -> tuple[str, bool]:
    """The path of the process's program, and whether it is deleted."""
    path = _link(pid, "exe")
    return path.removesuffix(" (deleted)"), path.endswith(" (deleted)")


def program_file(pid: int) -> Identity:
    """The identity of the process's program."""
    return Identity.of(_stat(pid, "exe"))


def arguments(pid: int) -> list[str]:
    """The command line, up to a limit: a process may declare any part of its memory to be that (prctl(2))."""
    return [os.fsdecode(word) for word in _read(pid, "cmdline", once=True).rstrip(b"\0").split(b"\0")]


def command(pid: int) -> str:
    """The process's short name."""
    return os.fsdecode(_read(pid, "comm", once=True).rstrip(b"\n"))


def directory(pid: int) -> str:
    """The directory where relative paths of the process begin, as the container knows it."""
    return _link(pid, "cwd")


def root_directory(pid: int) -> str:
    """The process's root directory, as the paths of its mappings begin; another one than ``/`` after chroot(2)."""
    return _link(pid, "root")


def mount_namespace(pid: int) -> str:
    """A name of the process's mount namespace; namespaces(7)."""
    return _link(pid, "ns/mnt")


def root_device(pid: int) -> int:
    """The device of the process's root directory; an overlay always has its own."""
    return _stat(pid, "root").st_dev


def top_device(pid: int) -> int:
    """The device of the topmost directory that the process could ever see; an overlay always has its own.

    A process that has shut itself into a directory (chroot(2)) can't go further up from there. We can, as our root is
    another one.
    """
    for steps in _UP:  # a thousand steps take 0.3 ms
        here, above = (_stat(pid, "root" + "/.." * number) for number in (steps, steps + 1))
        if os.path.samestat(here, above):
            break
    return above.st_dev


class ProcessMount(NamedTuple):
    """One line of a process's mount table."""

    device: str
    """The device as in ``Mapping``."""
    root: str
    """The directory (or file) of its file system that is mounted there."""
    point: str
    kind: str
    source: str


def mounts(pid: int) -> list[ProcessMount]:
    """The mounts that the process sees; proc_pid_mountinfo(5)."""
    table = []
    for line in _read(pid, "mountinfo").splitlines():
        fields, _, rest = line.partition(b" - ")
        words, (kind, source, _) = fields.split(b" ", 5), rest.split(b" ", 2)
        table.append(ProcessMount(_hexadecimal(words[2]), _text(words[3]), _text(words[4]), _text(kind), _text(source)))
    return table


@functools.lru_cache(4096)
def _hexadecimal(device: bytes) -> str:
    major, _, minor = device.partition(b":")
    return f"{int(major):02x}:{int(minor):02x}"


@functools.lru_cache(4096)
def _text(word: bytes) -> str:
    """Results are remembered, as containers' mounts are much alike."""
    return os.fsdecode(unescape(word))


def device_name(device: int) -> str:
    """A device number as ``maps`` writes it."""
    return f"{os.major(device):02x}:{os.minor(device):02x}"


def _read(pid: int, file: str, *, once: bool = False) -> bytes:
    """Read with bare system calls: a file object costs as much as a small file. ``once``: one read returns the whole file.

    Raises OSError if the file is larger than what is read.
    """
    try:
        descriptor = os.open(f"/proc/{pid}/{file}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise _gone(error) from error
    try:
        if once:
            return os.read(descriptor, _PIECE)
        pieces, size = [], 0
        while piece := os.read(descriptor, _PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > _MOST:
                raise OSError(errno.EFBIG, f"has more than {_MOST >> 20} MiB, and is not read", f"/proc/{pid}/{file}")
    finally:
        os.close(descriptor)
    return b"".join(pieces)


def _link(pid: int, file: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{file}")
    except FileNotFoundError as error:
        raise _gone(error) from error


def _stat(pid: int, file: str) -> os.stat_result:
    try:
        return os.stat(f"/proc/{pid}/{file}")
    except FileNotFoundError as error:
        raise _gone(error) from error


def _gone(error: OSError) -> ProcessLookupError:
    """The error for a process that has ended: its directory is missing, or an open file of it gives ESRCH."""
    return ProcessLookupError(error.errno, error.strerror, error.filename)
