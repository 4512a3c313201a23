"""The output of several containers, as `lxcfleet logs` shows it: all lines in the order of time, then those that come later.

The consoles' files are read, so this takes no journal, and shows what the limits of the host's log have left out. Times are
those that the forwarder has noted beside each file (logs.times). Of each file, little is in memory at a time.
"""

from __future__ import annotations

import asyncio
import heapq
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from lxcfleet.api.records import LineRecord
from lxcfleet.logs import times
from lxcfleet.logs.lines import Line, clean, cut
from lxcfleet.logs.rotated import MISSED, Rotated
from lxcfleet.paths import ContainerPaths

LONGEST = 1 << 15
"""Bytes of a line, above which it is shown in pieces."""
BATCH = 500
"""Lines that are handed on at once."""
BLOCKS = 8
"""Blocks of a console that are read in one go while it is followed."""
FOLLOW_SECONDS = 0.2
"""Seconds between two looks at files that somebody follows."""


class Shown(NamedTuple):
    """One line, in the order in which lines are shown."""

    at: float
    """Seconds since the epoch; 0: not known, and before all that is."""
    name: str
    number: int
    text: bytes

    def record(self) -> LineRecord:
        """The line as the API has it."""
        when = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"time": when if self.at else None, "container": self.name, "text": clean(self.text).decode()}


class Tail:
    """The lines of one container's console from some place on. It must be closed."""

    def __init__(self, directory: Path, name: str, lines: int, since: float = 0.0) -> None:
        """``lines``: begin so many lines before the end; 0: with the oldest. ``since``: leave out what is older."""
        self._log, self._name, self._since = Rotated(ContainerPaths(directory).console_log, lines), name, since
        self._noted = _noted(directory)
        self._number, self._latest, self._rest = 0, 0.0, b""
        self.behind = False
        """Whether the last look read as much as it was allowed to, so that more may be there already."""

    def close(self) -> None:
        """Read nothing any more."""
        self._log.close()

    def lines(self, *, now: float = 0.0, most: int = 0) -> Iterator[Shown]:
        """The whole lines that are there by now and were not given before, to be taken to the end.

        ``now``: when they came; 0: as was noted. ``most``: blocks that are read at most; 0: any number.
        """
        blocks = 0
        self.behind = False
        while block := self._log.block():
            blocks += 1
            self.behind = blocks == most
            if self._log.jumped:
                yield from self._missed()
            data, begin = self._rest + block, self._log.offset - len(block) - len(self._rest)
            clock, used = times.Clock(self._noted, self._log.inode), 0
            for piece in cut(data, LONGEST):
                at = now or clock.at(max(0, begin + used)) or 0.0
                used = piece.end
                if (shown := self._show(piece, at)) is not None:
                    yield shown
            self._rest = data[used:]
            if self.behind:
                return

    def unfinished(self) -> Iterator[Shown]:
        """The rest after the last line's end."""
        if self._rest and (shown := self._show(Line(self._rest, 0), 0.0)) is not None:
            yield shown

    def _missed(self) -> Iterator[Shown]:
        yield from self.unfinished()
        self._rest = b""
        if (shown := self._show(Line(MISSED, 0), 0.0)) is not None:
            yield shown

    def _show(self, piece: Line, at: float) -> Shown | None:
        self._latest = max(self._latest, at)
        self._number += 1
        return Shown(self._latest, self._name, self._number, piece.text) if self._latest >= self._since else None


def _noted(directory: Path) -> Sequence[times.TimedPlace]:
    try:
        return times.read(str(ContainerPaths(directory).console_times))
    except OSError:
        return []


class Reading:
    """The lines that one client is shown."""

    def __init__(self, chosen: Callable[[], Mapping[str, Path]], lines: int, since: float) -> None:
        """``chosen``: the directories of the chosen containers by name, whenever it is asked; it may be others later."""
        self._chosen, self._lines, self._since = chosen, lines, since
        self._tails: dict[str, Tail] = {}
        self._busy = threading.Lock()
        """Files are read in other threads. One that goes on after the client has left must not find them closed."""

    async def records(self, *, follow: bool) -> AsyncIterator[Sequence[LineRecord]]:
        """All lines, some at a time; with ``follow`` also those to come, for ever."""
        try:
            await asyncio.to_thread(self._take_up, self._chosen(), self._lines)
            found = iter(heapq.merge(*(self._past(tail, follow=follow) for tail in self._tails.values())))
            while batch := await asyncio.to_thread(self._batch, found):
                yield batch
            while follow:
                if not any(tail.behind for tail in self._tails.values()):  # else the file is overwritten before it is read
                    await asyncio.sleep(FOLLOW_SECONDS)
                batch = await asyncio.to_thread(self._news, self._chosen())
                if batch:
                    yield batch
        finally:
            asyncio.get_running_loop().run_in_executor(None, self._close)

    def _take_up(self, chosen: Mapping[str, Path], lines: int) -> None:
        with self._busy:
            for name in [name for name in self._tails if name not in chosen]:
                self._tails.pop(name).close()
            for name, directory in chosen.items():
                if name not in self._tails:
                    self._tails[name] = Tail(directory, name, lines, self._since)

    @staticmethod
    def _past(tail: Tail, *, follow: bool) -> Iterator[Shown]:
        yield from tail.lines()
        if not follow:
            yield from tail.unfinished()

    def _batch(self, found: Iterator[Shown]) -> list[LineRecord]:
        with self._busy:
            return [shown.record() for shown in islice(found, BATCH)]

    def _news(self, chosen: Mapping[str, Path]) -> list[LineRecord]:
        self._take_up(chosen, 0)
        with self._busy:
            now, tails = time.time(), self._tails.values()
            return [shown.record() for tail in tails for shown in tail.lines(now=now, most=BLOCKS)]

    def _close(self) -> None:
        with self._busy:
            for tail in self._tails.values():
                tail.close()
