"""A cgroup of its own for one program and all that it starts, with a most of processes; it ends with all of them.

A process leaves its session, its process group and its parent as it likes, and empties its environment, but not its cgroup.
So what forks faster than it can be killed one by one is found and ended. On cgroup v1 that is a cgroup of the hierarchy
``pids`` alone: in all others the processes stay where they are, with the limits and devices of their container. Where no
cgroup can be made, there is none, and the program runs without.

The name has the process that made it, so that the next one finds, ends and removes what one that was killed has left.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from lxcfleet.host.process import cgroup, proc

log = logging.getLogger(__name__)

MOST_PROCESSES = 512
_PREFIX = "lxcfleet-test-"
_LARGEST = 1 << 20
"""Bytes of a list of processes that are read."""
_MOST_SWEPT = 64
_END_SECONDS = 5.0
"""All processes are gone within so many seconds after they were killed, unless one hangs in the kernel."""
_LOOK_SECONDS = 0.01


def place_on_host() -> Path | None:
    """The cgroup in which those of the host's programs are made."""
    return cgroup.place("pids")


def place_inside(payload: cgroup.Payload) -> Path | None:
    """The cgroup in which those of a container's programs are made: its own, so its limits hold."""
    found = payload.directories.get("" if cgroup.unified() else "pids")
    return None if found is None else Path(found)


class Enclosure:
    """Such a cgroup. ``directory``: None: there is none."""

    def __init__(self, directory: Path | None, join: int | None) -> None:
        self.directory, self._join = directory, join

    def enter(self) -> None:
        """Put this process into it, also from inside a container. If the kernel refuses that, the program runs without, as
        where there is none."""
        if self._join is not None:
            with contextlib.suppress(OSError):
                os.write(self._join, b"0")

    def end(self) -> bool:
        """Kill all that is in it; whether nothing is left."""
        return self.directory is None or _end(self.directory)


@contextlib.contextmanager
def made(above: Path | None, most: int = MOST_PROCESSES) -> Iterator[Enclosure]:
    """A new one, below the cgroup ``above``; in the end all that is in it is killed, and it is removed."""
    if above is not None:
        sweep(above)
    directory, join = _make(above, most)
    enclosure = Enclosure(directory, join)
    try:
        yield enclosure
    finally:
        if join is not None:
            os.close(join)
        if directory is not None:
            _remove(directory)


def _make(above: Path | None, most: int) -> tuple[Path | None, int | None]:
    if above is None:
        return None, None
    directory = above / f"{_PREFIX}{os.getpid()}-{_start(os.getpid())}-{secrets.token_hex(4)}"
    try:
        directory.mkdir(mode=0o755)
        with contextlib.suppress(FileNotFoundError, PermissionError):  # v2: not where the cgroup above has processes itself
            _write(directory / "pids.max", str(most))
        return directory, os.open(directory / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        log.info("no cgroup for a test: %s", error)
        with contextlib.suppress(OSError):
            directory.rmdir()
        return None, None


def _start(pid: int) -> int:
    """When the process began; pid and that tell it from all others since the boot. 0: it is gone."""
    return round((proc.began(pid) or 0.0) * 100)


def sweep(above: Path) -> None:
    """End and remove what processes that are gone have left directly below the cgroup ``above``."""
    try:
        with os.scandir(above) as entries:
            # One that root inside has made has another owner, and may have cgroups in it.
            found = [each for each in entries if is_left(each.name)]
            left = [Path(each.path) for each in found if each.stat(follow_symlinks=False).st_uid == 0]
    except OSError:
        return
    for directory in left[:_MOST_SWEPT]:
        _remove(directory)


def is_left(name: str) -> bool:
    """Whether a cgroup of that name is one of a process that is gone."""
    words = name.removeprefix(_PREFIX).split("-")
    if not name.startswith(_PREFIX) or len(words) != len(("pid", "start", "token")):
        return False
    try:
        return _start(int(words[0])) != int(words[1])
    except ValueError:
        return False


def _remove(directory: Path) -> None:
    if not _end(directory):
        log.warning("processes of a test are left in %s", directory)
    deadline = time.monotonic() + _END_SECONDS
    while True:
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                log.warning("%s can't be removed: %s", directory, error.strerror)
                return
        else:
            return
        time.sleep(_LOOK_SECONDS)


def _end(directory: Path) -> bool:
    """Kill all that is in it; whether nothing is left."""
    with contextlib.suppress(OSError):
        _write(directory / "pids.max", "0")  # nothing in it forks any more
    with contextlib.suppress(OSError):
        _write(directory / "cgroup.kill", "1")  # v2, since Linux 5.14
    deadline = time.monotonic() + _END_SECONDS
    while found := _members(directory):
        _kill(directory, found)
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def _kill(directory: Path, found: set[int]) -> None:
    """Kill those processes, unless their number is another one's by now."""
    processes: dict[int, int] = {}
    try:
        for pid in found:
            with contextlib.suppress(OSError):
                processes[pid] = os.pidfd_open(pid)
        for pid in processes.keys() & _members(directory):
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(processes[pid], signal.SIGKILL)
    finally:
        for process in processes.values():
            os.close(process)


def _members(directory: Path) -> set[int]:
    try:
        with (directory / "cgroup.procs").open("rb", buffering=0) as file:
            text = b""
            while len(text) < _LARGEST and (piece := file.read(65536)):
                text += piece
    except OSError:
        return set()
    return {int(word) for word in text.split()} - {0}


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="ascii") as file:
        file.write(text)
