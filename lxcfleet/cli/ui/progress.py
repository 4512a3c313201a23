"""A bar on the terminal, once the work has lasted longer than a moment."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

from lxcfleet.cli.ui.output import say, say_error

if TYPE_CHECKING:
    from lxcfleet.api.records import ResultRecord
    from lxcfleet.errors import ErrorBody

MOMENT = 0.4
"""Work that takes fewer seconds gets no bar."""

_INTERVAL = 0.1
_WIDTH = 30


class Progress:
    """Counts results, prints failures as they come, and draws the bar while it is entered.

    A timer signal draws the bar: Python resumes interrupted reads, and no second thread shares the terminal.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._failed = 0
        self._told: set[tuple[str, str]] = set()
        """The causes that were told, with what to do: many containers may fail for the same one."""
        self._drawn = False
        self._talking = False
        self._before: Any = None
        self._begun = time.monotonic()

    def __enter__(self) -> Progress:
        if self._total and sys.stderr.isatty():
            self._before = signal.signal(signal.SIGALRM, self._tick)
            signal.setitimer(signal.ITIMER_REAL, MOMENT, _INTERVAL)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)
        self._clear()

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begun

    def add(self, result: ResultRecord) -> None:
        """Count one more result. A failure is printed, except for cancelled ones, which are summed up at the end."""
        self._done += 1
        error = result["error"]
        if error is not None and error["code"] != "cancelled":
            self._failed += 1
            self._talking = True
            self._clear()
            name = result["name"]
            of_it = rf"(?<![\w-]){re.escape(name)}(?![\w-])"
            more = (re.sub(of_it, "NAME", error["why"]), re.sub(of_it, "NAME", error["hint"]))
            short: ErrorBody = {"code": error["code"], "message": error["message"], "why": "", "hint": ""}
            say_error(short if more in self._told else error, name)
            self._told.add(more)
            self._talking = False

    def show(self, done: int, what: str) -> None:
        """Set the number of results so far, and the text beside the bar."""
        self._done, self._what = done, what

    def note(self, text: str) -> None:
        """Print a message without leaving parts of the bar on its line."""
        self._talking = True
        self._clear()
        say(text)
        self._talking = False

    def _tick(self, _signal: int, _frame: FrameType | None) -> None:
        if self._talking:
            return
        filled = _WIDTH * min(self._done, self._total) // self._total
        failed = f", {self._failed} failed" if self._failed else ""
        bar = "#" * filled + "." * (_WIDTH - filled)
        line = f"{self._what} [{bar}] {self._done}/{self._total}{failed} {self.seconds:.0f} s"
        os.write(2, f"\r\x1b[K{line}".encode())
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            os.write(2, b"\r\x1b[K")
            self._drawn = False
