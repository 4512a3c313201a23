"""How lines of the daemon's log look: what a container says neither commands the terminal of who reads them, nor looks like
a line of its own."""

from __future__ import annotations

import logging

_KEPT = "\n\t"


class Plain(logging.Formatter):
    """Spells control characters out, and those that turn the direction of writing; all lines of a message but its first are
    indented, and all of its traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of a record without its traceback; see logging.Formatter."""
        text = super().formatMessage(record)
        if text.isprintable():
            return text
        return spelled(text).replace("\n", "\n  ")

    def formatException(self, ei: object) -> str:
        """The traceback; see logging.Formatter."""
        text = spelled(super().formatException(ei))  # type: ignore[arg-type]
        return f"  {text}".replace("\n", "\n  ")


def spelled(text: str) -> str:
    """``text`` with everything spelled out that is neither printed nor ends a line."""
    return "".join(c if c.isprintable() or c in _KEPT else c.encode("unicode_escape").decode() for c in text)
