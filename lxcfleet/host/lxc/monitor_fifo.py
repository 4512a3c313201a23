"""The records that liblxc's monitors write about containers: each change of state, and how process 1 ended.

A monitor writes records to a FIFO if somebody has it open for reading, and drops them otherwise. It waits while the pipe
is full, so whoever opens the FIFO has to read it all the time: a daemon that ends closes it, and no other process inherits
it. The format and the lock are those of lxc-monitord (src/lxc/monitor.h and src/lxc/cmd/lxc_monitord.c, LXC 5.0 to 7.0).
Where lxc-monitord is the one that reads it, the records come from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lxcfleet.errors import HostError
from lxcfleet.host.lxc import monitord

RECORD = struct.Struct("@i256si")
"""One record: the type, the container's name, and a value."""
STATE = 0
"""The type of a record whose value is the container's state."""
EXIT = 2
"""The type of a record whose value is the exit status of process 1, in the form of wait(2)."""
STARTING = 1
"""The state of a container that begins to run."""
PIPE_BYTES = 1 << 20
"""The pipe holds so many bytes, or 3900 records, while the reader does not get to read."""
_ROOT = Path("/run/lxc")


@dataclass(frozen=True)
class MonitorRecord:
    """One record."""

    kind: int
    name: str
    value: int


_AT_ONCE = 1024 * RECORD.size


def path_of(lxc_path: Path) -> Path:
    """The FIFO of the containers below ``lxc_path``."""
    return _ROOT / lxc_path.relative_to("/") / "monitor-fifo"


def parse(data: bytes) -> list[MonitorRecord]:
    """The records in ``data``; a piece of a record at its end is left out."""
    whole = len(data) - len(data) % RECORD.size
    return [
        MonitorRecord(kind, name.partition(b"\0")[0].decode(errors="surrogateescape"), value)
        for kind, name, value in RECORD.iter_unpack(data[:whole])
    ]


class MonitorFifo:
    """The reading end of the FIFO. It calls ``hear`` with the records that it reads at once, in the event loop."""

    def __init__(self, lxc_path: Path, hear: Callable[[list[MonitorRecord]], None]) -> None:
        self._lxc_path = lxc_path
        self._path = path_of(lxc_path)
        self._hear = hear
        self._descriptor: int | None = None
        self._relayed = False
        """Whether the records come from lxc-monitord, which reads the FIFO."""
        self._rest = b""
        """The beginning of a record, the rest of which has not been read yet."""

    @property
    def reads(self) -> bool:
        """Whether records reach this process at the moment: not if somebody has put another file in the FIFO's place."""
        return self._descriptor is not None and (self._relayed or self._is_there(self._descriptor))

    def check(self) -> None:
        """Begin to read, unless that is done already; begin anew if another file has the path now. Raises HostError.

        Where lxc-monitord reads the FIFO, this is one of its clients.
        """
        try:
            if self._descriptor is not None and not self._relayed and not self._is_there(self._descriptor):
                self.close()
            if self._descriptor is None:
                self._open()
        except OSError as error:
            raise HostError.from_os_error(f"liblxc's monitors can't be heard at {self._path}", error) from error

    def drain(self) -> None:
        """Hear all records that were written so far."""
        while self._descriptor is not None:
            try:
                data = os.read(self._descriptor, _AT_ONCE)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            if not data:  # lxc-monitord has ended; the next check looks for another one before it reads the FIFO itself
                self.close()
                return
            whole = self._rest + data
            self._rest = whole[len(whole) - len(whole) % RECORD.size :]
            self._hear(parse(whole))
            if len(data) < _AT_ONCE:
                return  # there was no more

    def close(self) -> None:
        """Stop reading: monitors drop their records from now on."""
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor, self._relayed, self._rest = None, False, b""

    def remove(self) -> None:
        """Stop reading, and remove the FIFO and its directories, if they are empty."""
        mine = self._descriptor is not None and not self._relayed and self._is_there(self._descriptor)
        self.close()
        if mine:
            with contextlib.suppress(OSError):
                self._path.unlink()
                for directory in self._path.parents:
                    if directory == _ROOT:
                        break
                    directory.rmdir()

    def _is_there(self, descriptor: int) -> bool:
        try:
            found = os.lstat(self._path)
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(descriptor))

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self._path, 0o600)
        if not stat.S_ISFIFO(os.lstat(self._path).st_mode):
            raise HostError(
                "liblxc's monitors can't be heard", why=f"{self._path} is no FIFO", hint=f"remove it: rm {self._path}"
            )
        # For writing, too, so that it never ends. Not a moment passes between the opening and the first read.
        descriptor = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _lock(descriptor, self._path)
            with contextlib.suppress(OSError):  # the smaller pipe serves, too
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except HostError as taken:
            os.close(descriptor)
            try:
                descriptor = monitord.connect(self._lxc_path).detach()
            except OSError:
                raise taken from None
            self._relayed = True
        self._descriptor = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self.drain)


def _lock(descriptor: int, path: Path) -> None:
    """Take the lock that lxc-monitord takes: of two readers each would hear only a part."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise HostError(
            "liblxc's monitors can't be heard", why=f"another process, such as lxc-monitor, reads {path}",
            hint=f"`fuser -v {path}` shows which; end it",
        ) from error  # fmt: skip
