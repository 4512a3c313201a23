"""Loop devices for images that many containers mount: one for each image, for as long as anybody has it; loop(4).

The kernel lets go of such a device when the last mount of it goes, and whoever had it open is gone (LO_FLAGS_AUTOCLEAR). So
nothing has to be cleaned up, whatever is killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lxcfleet.errors import HostError
from lxcfleet.host.kernel import locks

_CONTROL = "/dev/loop-control"
_GET_FREE, _CONFIGURE, _GET_STATUS = 0x4C82, 0x4C0A, 0x4C05
_READ_ONLY, _AUTOCLEAR = 1, 4
_INFO = struct.Struct("=QQQQQIIII64s64s32s2Q")
"""struct loop_info64 of linux/loop.h."""
_TRIES = 50


@contextmanager
def attached(image: Path, lock: Path) -> Iterator[str]:
    """The device that has ``image``, read-only: one that is there, or a new one. It stays if it is mounted meanwhile.

    ``lock``: keeps others from making a second one for the same image; see ``locks``. Raises HostError, OSError.
    """
    file = os.open(image, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with locks.held(lock):
            name, device = _present(image, file) or _new(file)
    finally:
        os.close(file)
    try:
        yield name
    finally:
        os.close(device)


def devices(image: Path) -> list[str]:
    """The devices that have ``image``, by the names of their files."""
    found, backing = [], os.path.realpath(image)
    for text in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if text.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n") == backing:
                found.append(f"/dev/{text.parts[3]}")
        except OSError:
            continue  # it has gone
    return sorted(found)


def _present(image: Path, file: int) -> tuple[str, int] | None:
    status = os.fstat(file)
    for name in devices(image):
        try:
            device = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        # It may have gone, or been given to another file, before it was opened.
        if _has(device, status):
            return name, device
        os.close(device)
    return None


def _has(device: int, status: os.stat_result) -> bool:
    try:
        number, inode, *rest = _INFO.unpack(fcntl.ioctl(device, _GET_STATUS, bytes(_INFO.size)))
    except OSError:
        return False
    flags, offset, limit = rest[6], rest[1], rest[2]
    plain = not offset and not limit and flags & _READ_ONLY and flags & _AUTOCLEAR
    return bool(plain) and (number, inode) == (_encoded(status.st_dev), status.st_ino)


def _encoded(device: int) -> int:
    """A device's number as the kernel tells it (huge_encode_dev)."""
    major, minor = os.major(device), os.minor(device)
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def _new(file: int) -> tuple[str, int]:
    empty = bytes(64)
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _READ_ONLY | _AUTOCLEAR, empty, empty, bytes(32), 0, 0)
    config = struct.pack("=II", file, 0) + info + bytes(64)
    for _ in range(_TRIES):
        control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
        try:
            name = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
        finally:
            os.close(control)
        device = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, _CONFIGURE, config)
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:  # another process took it in between
                raise OSError(error.errno, error.strerror, name) from error
            continue
        return name, device
    raise HostError("there is no loop device for it", why="others took each one that was free", hint="losetup -l shows them")
