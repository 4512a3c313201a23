"""Lines of the log that come again and again."""

from __future__ import annotations

import logging
import sys

from lxcfleet.runtime.log_format import Plain
from lxcfleet.runtime.repeats import AT_FIRST, PERIOD, Repeats


class Log:
    """A log, and what was written to it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.filter = Repeats(lambda: self.now)
        self.written: list[str] = []

    def say(self, text: str, *arguments: object) -> None:
        record = logging.LogRecord("x", logging.ERROR, "file", 1, text, arguments, None)
        if self.filter.filter(record):
            self.written.append(record.getMessage())


def test_a_line_that_comes_again_and_again_is_counted() -> None:
    """2.5 GB were written in an attack, of one line."""
    log = Log()
    for _ in range(10_000):
        log.say("no descriptor for %s", "a")
    assert log.written == ["no descriptor for a"] * AT_FIRST
    log.say("no descriptor for %s", "b")
    assert log.written[-1] == "no descriptor for b"
    log.now = PERIOD
    log.say("no descriptor for %s", "a")
    assert log.written[-1] == f"no descriptor for a ({10_000 - AT_FIRST} times more, in 60 s, before this)"
    log.say("no descriptor for %s", "a")
    assert log.written[-1] == "no descriptor for a"


def test_lines_that_come_now_and_then_are_written_as_they_are() -> None:
    log = Log()
    for moment in range(100):
        log.now = moment * PERIOD / 5
        log.say("100% of it")
    assert log.written == ["100% of it"] * 100


def test_not_all_lines_are_remembered() -> None:
    log = Log()
    for number in range(5000):
        log.say("line %d", number)
    assert len(log.filter._lines) <= 1000
    assert len(log.written) == 5000


def test_what_a_container_says_commands_no_terminal_and_forges_no_line() -> None:
    """The events of hooks and checks have the end of their output, and are lines of the daemon's log, too."""
    said = "a\x1b]0;x\x07b\x9bc\u202ed\re\nINFO lxcfleet: all is well\udc9b"
    record = logging.LogRecord("n", logging.INFO, "f", 1, "web: %s", (said,), None)
    lines = Plain("%(levelname)s %(message)s").format(record).split("\n")
    assert lines == [r"INFO web: a\x1b]0;x\x07b\x9bc\u202ed\re", r"  INFO lxcfleet: all is well\udc9b"]
    try:
        raise ValueError(said)
    except ValueError:
        record.exc_info = sys.exc_info()
    text = Plain("%(message)s").format(record)
    assert not {"\x1b", "\x9b", "\r"} & set(text)
    assert "\n      raise ValueError(said)\n" in text
    assert not [line for line in text.split("\n")[1:] if not line.startswith("  ")], "a traceback's end is such a text, too"
