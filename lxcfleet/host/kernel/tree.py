"""Removing and writing below directories that a container's root may have filled."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import secrets
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lxcfleet.errors import HostError
from lxcfleet.host.kernel import quota, small, syscalls
from lxcfleet.host.kernel.descent import Descent

_AT_ONCE = 16
"""So many files are forced to the disk at the same time."""


def write(path: Path, text: str, *, sync: bool = False) -> None:
    """Replace ``path`` in one step. A crash of the daemon (with ``sync`` also of the host) leaves the old text or the new.
    With ``sync`` it is the new one from the return on.

    A full disk leaves the old text, and no other file beside it.
    """
    content = text.encode()
    directory, name = os.path.split(path)
    beside = f"{directory}/.{name}.new"
    try:
        with open(beside, "wb", 0) as file:
            _write_all(file, content)
            if sync:
                os.fsync(file.fileno())
        os.rename(beside, path)
    except OSError:
        with contextlib.suppress(OSError):  # what is told is why it was not written
            os.unlink(beside)
        raise
    if sync:
        sync_directory(path.parent)


def write_first(path: Path, text: str) -> None:
    """The same for a file that is mostly not there yet: then it may be empty for a moment, and after a crash in that moment.

    That takes half as long, as nothing is renamed.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        write(path, text)
        return
    content = text.encode()
    try:
        if os.write(descriptor, content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def stage(texts: Mapping[Path, str], durable: Iterable[Path]) -> set[Path]:
    """Write texts beside files; ``put`` replaces one of the files by its new text. Those of ``durable`` are on disk from the
    return on. Raises OSError, and then nothing is left beside any of the files.

    Gives those of the others that have their text already: there is nothing to put.
    """
    lasting = {*durable}
    same = set()
    try:
        for path, text in texts.items():
            content = text.encode()
            if path not in lasting and _has(path, content):
                same.add(path)
                continue
            with open(_beside(path), "wb", 0) as file:
                _write_all(file, content)
                if path in lasting:
                    # Linux begins to write it, and does not wait (mm/fadvise.c): then the disk works on all of them at once.
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        sync_all([_beside(path) for path in texts if path in lasting])
    except OSError:
        for path in texts:
            unstage(path)
        raise
    return same


def _has(path: Path, content: bytes) -> bool:
    """Whether a file has that content, as far as it can be read."""
    try:
        with open(path, "rb", 0) as file:
            return file.read(len(content) + 1) == content
    except OSError:
        return False


def put(path: Path) -> None:
    """Replace ``path`` by what was staged beside it. Raises OSError."""
    os.rename(_beside(path), path)


def unstage(path: Path) -> None:
    """Remove what was staged beside ``path``."""
    with contextlib.suppress(OSError):
        _beside(path).unlink(missing_ok=True)


def _write_all(file: io.FileIO, content: bytes) -> None:
    """Write it all, as one system call may take less than that. Raises OSError."""
    while content:
        content = content[file.write(content) :]


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def unlink_all(files: Sequence[Path]) -> None:
    """Remove files, as far as that is possible. On a busy disk each waits; side by side they wait together."""
    with contextlib.suppress(OSError):
        _side_by_side(lambda file: file.unlink(missing_ok=True), files)


def sync_all(paths: Sequence[Path]) -> None:
    """Force many files, and the names in many directories, to the disk at the same time: the file system does them together.
    Raises OSError."""
    _side_by_side(_sync, paths)


def _side_by_side(act: Callable[[Path], None], paths: Sequence[Path]) -> None:
    """Do that to all of them, in threads. Each thread has its share from the beginning: to hand a path over takes longer than
    most of these acts. Raises the first OSError after all were tried."""

    def each(share: Sequence[Path]) -> list[OSError]:
        failures = []
        for path in share:
            try:
                act(path)
            except OSError as error:
                failures.append(error)
        return failures

    threads = min(len(paths), _AT_ONCE)
    if threads <= 1:
        failures = each(paths)
    else:
        with ThreadPoolExecutor(threads) as pool:
            shares = pool.map(each, [paths[first::threads] for first in range(threads)])
            failures = [failure for share in shares for failure in share]
    if failures:
        raise failures[0]


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """A descriptor for reading, with these flags besides. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    with _opened(path, os.O_NOFOLLOW) as descriptor:
        os.fsync(descriptor)


def sync_directory(directory: Path) -> None:
    """Have the names in a directory on disk, as they are now; fsync(2). Raises OSError."""
    with _opened(directory, os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)


def give_name(made: Path, own: Path) -> None:
    """Give what was put together as ``made`` the name ``own``, which nothing has yet, in the same directory; it is on disk
    then. Raises FileExistsError, OSError; then it has its former name again, by which whoever made it takes it back, unless
    the disk does not take that either."""
    syscalls.rename_new(made, own)
    try:
        sync_directory(own.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            syscalls.rename_new(own, made)
        raise


def sync_file_system(directory: Path) -> None:
    """Have all that was written to the file system of a directory on disk; syncfs(2). Raises OSError."""
    with _opened(directory, os.O_DIRECTORY) as descriptor:
        syscalls.sync_file_system(descriptor)


def keep_copy(source: Path, target: Path) -> None:
    """Copy ``source`` to ``target``. If the disk is full, there is no ``target`` afterwards."""
    text = small.content(source)
    with contextlib.suppress(OSError):
        if small.content(target) == text:
            return
    try:
        write(target, text.decode("utf-8", errors="surrogateescape"))
    except OSError:
        target.unlink(missing_ok=True)


_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_TOPDIR_FL = 0x00020000
"""linux/fs.h. The ioctl numbers contain the size of a long: these are for 64-bit machines."""


def spread(directory: Path) -> None:
    """Have ext4 put each new directory in ``directory`` into a block group of its own, as chattr(1) +T does.

    ext4 skips inodes that were deleted within the last minute, one by one (fs/ext4/ialloc.c, recently_deleted). With all
    containers in one block group, a restart or a create after a destroy spends a sixth of its time there. Other file
    systems don't know the flag, and don't need it.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            (flags,) = struct.unpack("l", fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(struct.calcsize("l"))))
            if not flags & _FS_TOPDIR_FL:
                fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, struct.pack("l", flags | _FS_TOPDIR_FL))
    finally:
        os.close(descriptor)


def read_within(top: Path, path: str, most: int) -> tuple[bytes, os.stat_result] | None:
    """Content and status of the regular file ``path`` below ``top``, of at most ``most`` bytes; None if there is none such.

    A container's root has filled ``top``, so no link and no mount is followed. Raises OSError.
    """
    descriptor = _open_file_within(top, path)
    if descriptor is None:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            return None
        with open(descriptor, "rb", closefd=False) as file:  # refuses directories, so only after the look
            return file.read(most), status
    finally:
        os.close(descriptor)


def size_within(top: Path, path: str) -> int:
    """Bytes of the regular file ``path`` below ``top``; 0 if there is none such. Raises OSError."""
    descriptor = _open_file_within(top, path)
    if descriptor is None:
        return 0
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _open_file_within(top: Path, path: str) -> int | None:
    directory = _open_within(top, path)
    if directory is None:
        return None
    try:
        return os.open(
            os.path.basename(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
        )
    except OSError:
        return None
    finally:
        os.close(directory)


def replace_within(top: Path, path: str, content: bytes, like: os.stat_result) -> None:
    """Replace a file that ``read_within`` returned, in one step; owner and mode stay. Raises OSError."""
    directory = _open_within(top, path)
    if directory is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{top}{path}")
    beside = ".lxcfleet-new"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(beside, flags, 0o600, dir_fd=directory), "wb") as file:
            file.write(content)
            os.fchown(file.fileno(), like.st_uid, like.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(like.st_mode))
        os.rename(beside, os.path.basename(path), src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        os.close(directory)


def _open_within(top: Path, path: str) -> int | None:
    """A descriptor of the directory that holds ``path``; None if it is missing or no plain directory."""
    above = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return syscalls.open_beneath(above, os.path.dirname(path).lstrip("/") or ".")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
            return None
        raise
    finally:
        os.close(above)


def remove(path: Path) -> None:
    """Remove ``path`` and all below it; fine if it is not there.

    The kernel refuses to lead us through a symlink or onto another mount, bind mounts included (openat2(2)). As the lower
    layer is the host's own root, a mount left below ``path`` must stop us. Raises HostError then.
    """
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _remove(parent, path.name)
    except OSError as error:
        hint = "something is mounted there; unmount it, then try again" if error.errno in (errno.EXDEV, errno.EBUSY) else ""
        raise HostError.from_os_error(f"{path} can't be removed", error, hint=hint) from error
    finally:
        os.close(parent)


def _remove(parent: int, name: str) -> None:
    """Remove depth first, without recursion: a container may have made directories deeper than Python's stack."""
    try:
        directory = syscalls.open_beneath(parent, name)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)
        return
    except OSError as error:
        if error.errno != errno.ELOOP:  # a symlink is removed like a file
            raise
        os.unlink(name, dir_fd=parent)
        return
    # Descending more than a few thousand levels would use up descriptors, so each level deeper than that is
    # first moved up to the top.
    stack = [(directory, _entries(directory))]
    names = [name]
    try:
        while stack:
            current, entries = stack[-1]
            if not entries:
                os.close(current)
                stack.pop()
                above = stack[-1][0] if stack else parent
                os.rmdir(names.pop(), dir_fd=above)
                continue
            entry, is_directory = entries.pop()
            if not is_directory:
                os.unlink(entry, dir_fd=current)
            elif len(stack) >= _DEEP:
                lifted = f".lxcfleet-{secrets.token_hex(8)}"  # a random name, as an existing one could not be replaced
                os.rename(entry, lifted, src_dir_fd=current, dst_dir_fd=stack[0][0])
                stack[0][1].append((lifted, True))
            else:
                below = syscalls.open_beneath(current, entry)
                stack.append((below, _entries(below)))
                names.append(entry)
    finally:
        for left, _ in stack:
            os.close(left)


_DEEP = 200


def _entries(directory: int) -> list[tuple[str, bool]]:
    with os.scandir(directory) as found:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]


def disk_usage(path: Path) -> int:
    """Bytes on disk of all below ``path``, without following symlinks or leaving its file system."""
    total = 0
    for total in disk_usage_steps(path):  # noqa: B007  # the last one counts
        pass
    return total


_STEP = 500


def disk_usage_steps(path: Path) -> Iterator[int]:
    """Like ``disk_usage``, in slices: gives the sum so far after every few hundred files."""
    known = quota.used(path)
    if known is not None:
        yield known
        return
    if not os.path.lexists(path):
        return
    count = _Count()
    for _ in Descent(os.fspath(path), count.look):
        if count.new >= _STEP:
            count.new = 0
            yield count.bytes
    yield count.bytes


_BLOCK = 512
"""Bytes; stat(2), st_blocks."""


class _Count:
    """The space on disk that was added up."""

    def __init__(self) -> None:
        self._blocks = 0.0
        self.new = 0
        """The files since the last pause."""

    @property
    def bytes(self) -> int:
        """So many so far."""
        return int(self._blocks * _BLOCK)

    def look(self, directory: int) -> Iterator[str]:
        """Add up the files of one directory; gives the directories in it."""
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError:  # files vanish while we look
                    continue
                if stat.S_ISDIR(found.st_mode):
                    self._blocks += found.st_blocks
                    yield entry.name
                else:  # a file with several names counts once: each name has its share, and none has to be remembered
                    self._blocks += found.st_blocks / max(1, found.st_nlink)
                self.new += 1
                if self.new % _STEP == 0:
                    yield ""
