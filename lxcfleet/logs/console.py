"""One container's console, followed through its rotations: each line is passed on once, or counted as left out.

liblxc appends to the file until that is full, renames it to ``console.log.1`` and goes on with a new one (terminal.c,
lxc_terminal_write_log_file). So the file is the buffer for lines that nobody can take at the moment. What is in neither of
the two files any more is lost, and that is told.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from pathlib import Path

from lxcfleet.host.kernel.syscalls import born
from lxcfleet.logs.entries import EntryHead, LogForm
from lxcfleet.logs.lines import Line, clean, cut
from lxcfleet.logs.position import Position, PositionFile
from lxcfleet.logs.rate import Allowance
from lxcfleet.logs.times import Times
from lxcfleet.paths import ContainerPaths
from lxcfleet.units import counted

CHUNK, LITTLE = 1 << 18, 1 << 15
"""Bytes that are read at once: others have their turn after that. Little is read while the host's log takes little."""
TELL_SECONDS = 1.0
"""Left out lines are told of at most so often."""
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""The file is not there, or something else is in its place. What else may happen, as for want of descriptors, passes."""

Send = Callable[[bytes], bool]
"""Passes an entry on; returns whether that was possible."""


class StepOutcome(Enum):
    """The outcome of one step."""

    REST = 0
    """All was read."""
    MORE = 1
    BLOCKED = 2
    """The host's log takes nothing at the moment."""


@dataclass(frozen=True)
class LineLimits:
    """How many lines of a container are passed on; see Allowance."""

    rate: int
    burst: int
    wanted: bool = True
    """Whether any are: otherwise all is read, and nothing passed on."""

    @property
    def counts(self) -> bool:
        """Whether there are more lines than may be passed on."""
        return self.wanted and self.rate > 0


@dataclass(frozen=True)
class ConsoleRun:
    """One run of a container."""

    head: EntryHead
    mark: tuple[int, int] | None = None
    """The inode and the size of the console's file when it began; None: not known."""
    born: float | None = None
    """When that file was made; None: not known."""


class Console:
    """See the module. ``directory``: the container's own."""

    def __init__(self, directory: str, run: ConsoleRun, form: LogForm, limits: LineLimits, *, over: bool, skip: bool) -> None:
        """``over``: nothing runs that could print more. ``skip``: if no position is known, what stands in the file already
        is not passed on."""
        own = ContainerPaths(Path(directory))
        self._path = str(own.console_log)
        self._run, self._form, self._limits = run, form, limits
        self._over, self._skip = over, skip
        self._next: ConsoleRun | None = None
        self._record = PositionFile(str(own.console_sent))
        self._times = Times(str(own.console_times))
        self._position: Position | None = None
        self._descriptor = -1
        self._told = 0.0
        self._slow = False
        self.adrift = False
        """Whether the file has lost its name, and the next one is not there yet."""
        self._allowance = Allowance(limits.rate, limits.burst, float(limits.burst), time.monotonic())
        self._rests = False
        """Whether all was read that anybody has told of."""

    @property
    def descriptor(self) -> int | None:
        """Of the file that is being read; None: there is none yet."""
        return None if self._descriptor < 0 else self._descriptor

    @property
    def file(self) -> int:
        """The inode of that file."""
        return -1 if self._descriptor < 0 or self._position is None else self._position.inode

    @property
    def over(self) -> bool:
        """Whether nothing runs that could print more."""
        return self._over and self._next is None

    @property
    def untold(self) -> bool:
        """Whether lines were left out of which nobody was told yet."""
        return self._position is not None and bool(self._position.lost or self._position.jumps)

    def follow(self, run: ConsoleRun, limits: LineLimits, *, over: bool) -> None:
        """The container runs anew, or has other fields or limits. What is read until the begin of the run is the former
        one's."""
        if limits != self._limits:
            self._limits = limits
            self._allowance = Allowance(limits.rate, limits.burst, float(limits.burst), time.monotonic())
        self._over = over
        if run.mark is None or self._position is None:
            self._run, self._next = run, None
        else:
            self._next = run

    def close(self) -> None:
        """Nothing is read any more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._record.close()

    def open(self) -> bool:
        """Open the file in which the position is, unless it is open; returns whether there is one."""
        if self._descriptor < 0 and not self._find():
            self.adrift = not self._over
            if self._position is None:  # it has printed nothing yet
                self._allowance.rest(time.monotonic())
            return False
        return True

    def wake(self) -> None:
        """Something was printed: if all was read before, nothing was until now."""
        if self._rests:
            self._allowance.rest(time.monotonic())
            self._rests = False

    def step(self, send: Send) -> StepOutcome:
        """Pass on what stands in the file, up to ``CHUNK`` bytes. Raises OSError if it can't be read."""
        send = send if self._limits.wanted else _drop
        if not self.open():
            return StepOutcome.REST
        position = self._position
        assert position is not None
        renamed = _inode(self._path) != position.inode  # first, as something may be written just before that
        data = self._read(position)
        run_ends = self._up_to_next(position, data, renamed=renamed)
        if run_ends is not None:
            data = data[:run_ends]
        pieces = cut(data, self._form.piece)
        first = next(pieces, None)
        if first is None and data and (renamed or self._over or run_ends is not None):
            first = Line(data, len(data), partial=renamed and run_ends is None)
        if self.untold and not self._tell(send, position):
            return StepOutcome.BLOCKED
        if first is not None:
            return self._pass_on(chain([first], pieces), send, position)
        if run_ends is not None and self._next is not None:
            self._run, self._next = self._next, None
            return StepOutcome.MORE
        if renamed and self._open_next(position):
            return StepOutcome.MORE
        self.adrift = renamed
        self._allowance.rest(time.monotonic())
        self._rests = True
        position.at = time.time()
        self._record.save(position)
        return StepOutcome.REST

    def _read(self, position: Position) -> bytes:
        data = os.pread(self._descriptor, LITTLE if self._slow else CHUNK, position.offset)
        if not data and (size := os.fstat(self._descriptor).st_size) < position.offset:
            position.offset = size  # somebody emptied the file
        elif data:
            self._times.note(time.time(), position.inode, position.offset, position.offset + len(data))
        return data

    def _up_to_next(self, position: Position, data: bytes, *, renamed: bool) -> int | None:
        """How much of ``data`` belongs to the run before the next one; None: all of it."""
        if self._next is None or self._next.mark is None:
            return None
        inode, size = self._next.mark
        if inode == position.inode:
            left = max(0, size - position.offset)
            return left if left <= len(data) else None
        return None if renamed else 0

    def _pass_on(self, pieces: Iterator[Line], send: Send, position: Position) -> StepOutcome:
        allowed = self._allowance.refill(time.monotonic()) if self._limits.counts else None
        base, line, spent, self._slow = position.offset, self._run.head.line, 0, False
        rest: list[Line] = []
        for piece in pieces:
            text = clean(piece.text)
            cost = self._allowance.cost(len(text))
            if allowed is not None and spent + cost > allowed:
                rest = [piece, *pieces]
                break
            if not send(line(text, partial=piece.partial)):
                self._slow = True
                break
            position.offset = base + piece.end
            self._record.save(position)
            spent += cost
        self._allowance.left -= spent
        if self._slow:
            return StepOutcome.BLOCKED
        if rest:
            position.lost += len(rest)
            position.offset = base + rest[-1].end
            self._record.save(position)
        return StepOutcome.MORE

    def _tell(self, send: Send, position: Position) -> bool:
        """Tell of what was left out, unless that was done a moment ago; returns False if the host's log takes nothing."""
        if time.monotonic() - self._told < TELL_SECONDS:
            return True
        why = []
        if position.lost:
            limits = f"more than {self._limits.rate} lines a second, and {self._limits.burst} at once"
            why.append(f"left out here: {counted(position.lost, 'line')} of its console, as it printed {limits}")
        if position.jumps:
            why.append("some lines of its console are missing here: they were overwritten before they could be passed on")
        if not send(self._run.head.lost(position.lost, "; ".join(why))):
            return False
        position.lost = position.jumps = 0
        self._record.save(position)
        self._told = time.monotonic()
        return True

    # -- files -----------------------------------------------------------------------------------------------

    def _find(self) -> bool:
        """Open the file in which the position is; returns whether there is one."""
        position = self._position = self._position or self._load() or self._first()
        if position is None:
            return False
        for path in (self._path, f"{self._path}.1"):
            if self._take(path, position.inode):
                position.offset = min(position.offset, os.fstat(self._descriptor).st_size)
                return True
        return self._jump(position)

    def _load(self) -> Position | None:
        position = self._record.load()
        if position is not None and position.at:  # while nobody read, its allowance grew
            self._allowance.left += max(0.0, time.time() - position.at) * self._limits.rate
        return position

    def _first(self) -> Position | None:
        """The position for a console of which none is known; None: there is no file yet."""
        found = _status(self._path)  # one look: the file may be renamed, or removed, at any moment
        if found is None:
            return None
        if self._run.mark is None or not self._run.mark[0]:
            return Position(found.st_ino, found.st_size if self._skip and self._run.mark is None else 0)
        before = _status(f"{self._path}.1")
        for path, status in ((self._path, found), (f"{self._path}.1", before)):
            if status is not None and status.st_ino == self._run.mark[0] and self._run.born in (None, born(path)):
                return Position(*self._run.mark)
        return Position((before or found).st_ino, 0, jumps=1)  # overwritten before the first look

    def _open_next(self, position: Position) -> bool:
        """Go on in the file that was begun after this one; returns whether there is one already."""
        read = self._descriptor
        if not self._take(self._path, None):
            return False
        # Only now: files may be renamed between two looks, and another one may have come and gone unread.
        before = _inode(f"{self._path}.1")
        os.close(read)
        if before not in (position.inode, None):
            os.close(self._descriptor)
            self._descriptor = -1
            return self._jump(position)
        return self._go_on(position)

    def _jump(self, position: Position) -> bool:
        """Go on in the oldest file that is still there: what was between is gone."""
        position.jumps += 1
        return self._begin(f"{self._path}.1", position) or self._begin(self._path, position)

    def _begin(self, path: str, position: Position) -> bool:
        return self._take(path, None) and self._go_on(position)

    def _go_on(self, position: Position) -> bool:
        """Be at the beginning of the file that was just opened."""
        position.inode, position.offset = os.fstat(self._descriptor).st_ino, 0
        self._record.save(position)
        return True

    def _take(self, path: str, inode: int | None) -> bool:
        """Open a file; returns False if there is none, or another one than that of ``inode``. Raises OSError."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in _NO_FILE:
                return False
            raise
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or inode not in (None, found.st_ino):
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True


def _drop(_: bytes) -> bool:
    """Take an entry that nobody is to have."""
    return True


def _inode(path: str) -> int | None:
    found = _status(path)
    return None if found is None else found.st_ino


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=False)
    except OSError:
        return None
