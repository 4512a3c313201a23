"""How the last run of a container ended, and what is to follow: a small file beside its spec, which survives a reboot."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from lxcfleet.api.records import ExitRecord
from lxcfleet.containers.restarts import FRESH, RestartCourse, RunEnd
from lxcfleet.host.kernel import tree
from lxcfleet.host.kernel.syscalls import born
from lxcfleet.paths import ContainerPaths
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)

NOT_KNOWN = "its exit status is not known, as lxcfleetd did not hear of it"
KILLED_FOR_MEMORY = "killed for memory"
"""The words for a kill that an earlier version recorded, as it kept none."""
LINES = 20
"""So many of the last lines of a container's console are kept."""
_BYTES = 16384


SHELL = 128
"""Shells, and the small init of app containers, exit with so much and a signal's number if the signal ended a program."""


@dataclass(frozen=True)
class Ending:
    """How the last run of a container ended."""

    status: int
    """Of process 1, in the form of wait(2)."""
    memory: str = ""
    """In words, how the kernel had killed a process of the container because memory ran out, if SIGKILL ended its program."""

    @property
    def exit_status(self) -> int:
        """The status as a shell shows it: 128 and the signal's number if a signal ended process 1."""
        return os.waitstatus_to_exitcode(self.status) if os.WIFEXITED(self.status) else SHELL + os.WTERMSIG(self.status)

    @property
    def words(self) -> str:
        """The same in words."""
        number = self.exit_status
        if os.WIFSIGNALED(self.status):
            # In a container, reboot(2) ends process 1 by one of these, and no other process there can send them to it.
            meant = {int(signal.SIGINT): "its init shut it down", int(signal.SIGHUP): "its init rebooted it"}
            text = meant.get(os.WTERMSIG(self.status), f"killed by {_signal(number - SHELL)}")
        else:
            name = _signal(number - SHELL)
            text = f"exit status {number}" + (f" (killed by {name})" if name and not self.memory else "")
        return f"{self.memory} ({text})" if self.memory else text


def _signal(number: int) -> str:
    """The signal's name; empty if there is none of that number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}" if signal.SIGRTMIN <= number <= signal.SIGRTMAX else ""


@dataclass(frozen=True)
class Exit:
    """The end of a run."""

    at: float
    """When it was noticed, in seconds since the epoch."""
    status: int | None = None
    """Of process 1, in the form of wait(2); None: nobody heard it."""
    out_of_memory: bool = False
    """The kernel had killed a process of the container because memory ran out, and SIGKILL ended its program."""
    asked: bool = False
    """Somebody wanted it: the operator, lxc-stop, or a shutdown from inside."""
    seconds: float | None = None
    """How long the run took; None: not known."""
    lines: tuple[str, ...] = ()
    """The last lines of its console."""
    memory: str = ""
    """In words, how the kernel killed a process of it for memory; empty: it did not, or an earlier version kept this."""
    followed: bool = False
    """Whether its restart policy has said what follows: not before an action that was under way at the end is over."""

    @property
    def ending(self) -> Ending | None:
        """The status; None: nobody heard it."""
        memory = (self.memory or KILLED_FOR_MEMORY) if self.out_of_memory else ""
        return None if self.status is None else Ending(self.status, memory)

    @property
    def exit_status(self) -> int | None:
        """The status as a shell shows it; None: nobody heard it."""
        return None if self.ending is None else self.ending.exit_status

    @property
    def words(self) -> str:
        """The end in words."""
        return NOT_KNOWN if self.ending is None else self.ending.words

    @property
    def printed(self) -> str:
        """The last lines of its console, as an error tells them."""
        return "\n".join(("its last lines:", *self.lines)) if self.lines else "it printed nothing"

    @property
    def end(self) -> RunEnd:
        """The end as restart policies see it."""
        return RunEnd(failed=self.exit_status != 0, asked=self.asked, seconds=self.seconds)

    def record(self) -> ExitRecord:
        """The end as the API shows it."""
        return {
            "status": self.exit_status,
            "words": self.words,
            "out_of_memory": self.out_of_memory,
            "asked": self.asked,
            "at": datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "ago": max(0.0, round(time.time() - self.at, 3)),
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class KnownPast:
    """The known past of a container: the end of its last run, and its restarts."""

    exit: Exit | None = None
    course: RestartCourse = field(default=FRESH)
    boot: str = ""
    """The boot of the host to which the course's moments belong."""


def load(paths: ContainerPaths) -> KnownPast:
    """The past of a container; empty if there is none, or the file can't be read."""
    try:
        return _parse(ondisk.record(paths.exit, ondisk.SMALL))
    except FileNotFoundError:
        return KnownPast()
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        log.warning("%s can't be read: how it ended last is not known: %s", paths.exit, error)
        return KnownPast()


def _parse(data: Mapping[str, Any]) -> KnownPast:
    said, course = data["exit"], data["course"]
    past = None if said is None else _parse_exit(said)
    tries = tuple(float(each) for each in course["tries"])
    due = course["due"]
    if due is not None:
        datetime.fromtimestamp(float(due), UTC)
    moment, gave_up, cause = None if due is None else float(due), bool(course["gave_up"]), str(course.get("cause", ""))
    read = RestartCourse(int(course["row"]), tries, moment, gave_up, cause)
    return KnownPast(past, read, str(data["boot"]))


def _parse_exit(said: Mapping[str, Any]) -> Exit:
    status, seconds, at = said["status"], said["seconds"], float(said["at"])
    datetime.fromtimestamp(at, UTC)  # raises where no calendar has such a time: each list of containers would tell it
    return Exit(
        at=at,
        status=None if status is None else int(status) & 0xFFFF,
        out_of_memory=bool(said["out_of_memory"]),
        memory=str(said.get("memory", "")),
        asked=bool(said["asked"]),
        seconds=None if seconds is None else float(seconds),
        lines=tuple(map(str, said["lines"])),
        followed=bool(said.get("followed", True)),
    )


def save(paths: ContainerPaths, past: KnownPast) -> None:
    """Write the past of a container down. Raises OSError."""
    # Not by asdict(), which takes as long as all the rest.
    data = {"exit": None if past.exit is None else vars(past.exit), "course": vars(past.course), "boot": past.boot}
    tree.write(paths.exit, json.dumps(data) + "\n")


class LogPlace(NamedTuple):
    """A place in a log."""

    inode: int
    size: int
    born: float | None = None
    """When the log was made, as another one may get its inode; None: not known."""


def mark(log_file: Path) -> LogPlace | None:
    """The present end of a log, from which on ``last_lines`` reads; None: there is no log."""
    try:
        found = log_file.stat()
    except OSError:
        return None
    return LogPlace(found.st_ino, found.st_size, born(str(log_file)))


def begin(log_file: Path) -> LogPlace:
    """Where the next run begins in a log. One that is not there yet is made: of a log that was overwritten before anybody
    read it, nobody could tell otherwise that something is missing."""
    found = mark(log_file)
    if found is None:
        try:
            os.close(os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError as error:  # the start tells of a full disk, or of one that gives errors
            log.debug("%s can't be made: %s", log_file, error)
        found = mark(log_file)
    return found or LogPlace(0, 0)


def last_lines(log_file: Path, begin: LogPlace | None = None) -> tuple[str, ...]:
    """The last lines of a log; with ``begin`` only what was written since."""
    try:
        descriptor = os.open(log_file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            same = begin is not None and begin[0] == found.st_ino and begin[1] <= found.st_size
            first = begin[1] if begin is not None and same else 0
            text = os.pread(descriptor, _BYTES, max(first, found.st_size - _BYTES))
        finally:
            os.close(descriptor)
    except OSError:
        return ()
    return tuple(text.decode(errors="replace").splitlines()[-LINES:])
