"""The whole terminal for one verb. Each picture is one write, and the terminal is restored however the verb ends."""

from __future__ import annotations

import os
import select
import shutil
import signal
import termios
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

_ENTER = b"\x1b[?1049h\x1b[?25l"
"""Switch to the alternate screen and hide the cursor, by xterm's control sequences, which all current terminals know."""
_LEAVE = b"\x1b[?25h\x1b[?1049l"
_REVERSED, _PLAIN = "\x1b[7m", "\x1b[0m"

_KEYS = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[5~": "page up", b"\x1b[6~": "page down",
         b"\x1b[H": "home", b"\x1b[F": "end"}  # fmt: skip

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Screen:
    """Has the terminal while it is entered."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._wake = (-1, -1)

    def __enter__(self) -> Screen:
        self._wake = os.pipe()
        for end in self._wake:
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        self._handle(signal.SIGWINCH, _nothing)  # a signal with a handler wakes ``key``
        self._handle(signal.SIGTSTP, self._pause)
        for number in _ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handle(number, _end)
        try:
            self._take()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        for end in self._wake:
            os.close(end)

    def draw(self, heading: Sequence[str], rows: Sequence[str], footer: str) -> None:
        """Show lines, each cut to the terminal's width. The last line of the heading is in reverse.

        Each line is overwritten and only its rest is erased, so nothing flickers.
        """
        columns, lines = self.size()
        shown = [*heading, *rows][: max(0, lines - 1)]
        cut = [line[:columns] for line in shown]
        if len(cut) >= len(heading) > 0:
            line = cut[len(heading) - 1]
            cut[len(heading) - 1] = f"{_REVERSED}{line.ljust(columns)}{_PLAIN}"
        text = "".join(f"{line}\x1b[K\r\n" for line in cut) + f"\x1b[J\x1b[{lines};1H{footer[:columns]}\x1b[K"
        _write(f"\x1b[H{text}".encode("utf-8", "backslashreplace"))

    @staticmethod
    def size() -> tuple[int, int]:
        """Columns and lines at the moment."""
        found = shutil.get_terminal_size()
        return found.columns, found.lines

    def key(self, seconds: float) -> str | None:
        """The next key, ``resized`` if the terminal's size changed, or None if neither happened within ``seconds``."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([0, self._wake[0]], [], [], left)
            if self._wake[0] in ready:
                numbers = os.read(self._wake[0], 64)
                if signal.SIGWINCH in numbers or signal.SIGCONT in numbers or signal.SIGTSTP in numbers:
                    return "resized"
            if 0 in ready:
                typed = os.read(0, 64)
                if not typed:  # the terminal is gone
                    return "q"
                return _KEYS.get(typed) or typed[:1].decode("ascii", "replace")
        return None

    def _handle(self, number: signal.Signals, handler: Any) -> None:
        self._handlers[number] = signal.signal(number, handler)

    def _take(self) -> None:
        self._before = termios.tcgetattr(0)
        mode = termios.tcgetattr(0)
        mode[3] &= ~(termios.ICANON | termios.ECHO)  # each key arrives at once, without Enter; Ctrl-C and Ctrl-Z stay signals
        termios.tcsetattr(0, termios.TCSADRAIN, mode)
        _write(_ENTER)

    def _give_back(self) -> None:
        if self._before is not None:
            before, self._before = self._before, None
            try:
                _write(_LEAVE)
                termios.tcsetattr(0, termios.TCSADRAIN, before)
            except (OSError, termios.error):
                pass  # the terminal is gone

    def _pause(self, _number: int, _frame: FrameType | None) -> None:
        """On Ctrl-Z give the terminal back to the shell, until the shell continues this process."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()


def _write(data: bytes) -> None:
    """Write to the terminal, in one write if the terminal takes all of it."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


def _nothing(_number: int, _frame: FrameType | None) -> None:
    pass


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
