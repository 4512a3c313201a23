"""How far something is, in one line of the terminal."""

from __future__ import annotations

import os
import sys
import threading
import time

from lxcfleet.cli.ui import output

_TELL_SECONDS = 0.2


class Meter:
    """A line on the terminal that says how far it is."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._shown = False

    def show(self, name: str, size: int) -> None:
        """Say how far one is."""
        if not self._on or time.monotonic() - self._last < _TELL_SECONDS:
            return
        with self._lock:
            self._last, self._shown = time.monotonic(), True
            os.write(2, f"\r\x1b[K{output.printable(name)}: {output.size(size)}".encode())

    def clear(self) -> None:
        """Take the line away."""
        with self._lock:
            if self._shown:
                os.write(2, b"\r\x1b[K")
            self._shown = False
