"""Lines of the log that come again and again are counted, and not written each time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from lxcfleet.units import counted

AT_FIRST = 10
"""How often a line is written in each period; after that it is counted."""
PERIOD = 60.0
"""Seconds."""
_KNOWN = 1000
"""Lines that are remembered at most."""


@dataclass
class _Line:
    """One line, in its present period."""

    began: float
    seen: int = 0


class Repeats(logging.Filter):
    """Lets a line pass some times in each period. The first one after that says how many were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lines: dict[tuple[str, int, str], _Line] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is to be written; see logging.Filter."""
        moment = self._clock()
        key = (record.name, record.levelno, record.getMessage())
        line = self._lines.get(key)
        if line is not None and moment - line.began >= PERIOD:
            self._lines.pop(key)
            if line.seen > AT_FIRST:
                more = f"{counted(line.seen - AT_FIRST, 'time')} more, in {moment - line.began:.0f} s, before this"
                record.msg, record.args = f"{key[2]} ({more})", ()
            line = None
        if line is None:
            if len(self._lines) >= _KNOWN:
                self._lines.pop(next(iter(self._lines)))  # the oldest
            line = self._lines[key] = _Line(moment)
        line.seen += 1
        return line.seen <= AT_FIRST
