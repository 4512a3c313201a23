"""Everything that is printed: data on stdout in four formats, messages and errors on stderr."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lxcfleet.errors import ErrorBody, FleetError, from_body
from lxcfleet.units import words_of_size

FORMATS = ("table", "json", "yaml", "csv")

NOT_CHOSEN = "lxcfleet: no container is chosen by that"
NOTHING_CHOSEN = "lxcfleet: nothing to do: no container is chosen by that"

Rows = Sequence[Sequence[str]]


def show(style: str, data: object, *, lines: Callable[[], Iterable[str]], rows: Callable[[], Rows]) -> None:
    """Print ``data`` as JSON or YAML, ``rows`` (the first one is the header) as CSV, ``lines`` for people."""
    if style == "json":
        write(to_json(data) + "\n")
    elif style == "yaml":
        write(_to_yaml(data))
    elif style == "csv":
        write(_to_csv(rows()))
    else:
        write("".join(f"{line}\n" for line in lines()))


def show_list(
    style: str,
    quiet: bool,
    records: Sequence[Any],
    fields: Sequence[str],
    *,
    table: Callable[[], Rows],
    text: Callable[[Any, str], str],
    nothing: str,
) -> None:
    """Print a list of records, with ``quiet`` only the first of the ``fields`` of each.

    ``table``: its rows for people, the header first; ``text``: a field of a record for CSV; ``nothing``: said where there is
    no record.
    """
    if quiet:
        write("".join(f"{record[fields[0]]}\n" for record in records))
        return
    show(
        style,
        records,
        lines=lambda: columns(table(), terminal_width()) if records else [],
        rows=lambda: [fields, *([text(record, key) for key in fields] for record in records)],
    )
    if style == "table" and not records:
        say(f"lxcfleet: {nothing}")


def write(text: str) -> None:
    """Write data to stdout, unbuffered. Surrogates become the bytes again from which they were decoded."""
    write_bytes(text.encode("utf-8", "surrogateescape"))


def write_bytes(data: bytes, *, error: bool = False) -> None:
    """Write data to stdout or stderr, unbuffered. An OSError names the one that takes no more."""
    text, name = (sys.stderr, "stderr") if error else (sys.stdout, "stdout")
    if text is None:  # the caller closed it
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), name)
    stream = text.buffer
    rest = memoryview(data)
    try:
        while rest:  # with PYTHONUNBUFFERED the stream is raw, and may write only a part
            rest = rest[stream.write(rest) :]
        stream.flush()
    except OSError as refused:
        refused.filename = name
        raise


def say(text: str) -> None:
    """Write a message for people to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def say_error(error: FleetError | ErrorBody, subject: str = "") -> None:
    """Write an error to stderr: what, why and what next. ``subject``: the container that the error is about."""
    if not isinstance(error, FleetError):
        error = from_body(error)
    named = subject and re.search(rf"(?<![\w-]){re.escape(subject)}(?![\w-])", error.message)
    where = f"{subject}: " if subject and not named else ""
    more = [f"  {line}" for part in (error.why, error.hint) for line in part.splitlines()]
    say("\n".join(printable(line) for line in (f"lxcfleet: {where}{error.message}", *more)))


def to_json(data: object, *, indent: int | None = 2) -> str:
    """JSON in plain ASCII, so that it survives every locale."""
    import json

    return json.dumps(data, indent=indent)


def _to_yaml(data: object) -> str:
    import yaml

    class Dumper(yaml.CSafeDumper):
        """Puts texts into quotes in which something has to be spelled out; libyaml spells out control characters alone."""

    Dumper.add_representer(
        str, lambda dumper, text: dumper.represent_scalar(_TEXT, text, style='"' if _DIRECTIONS.search(text) else None)
    )
    found = str(yaml.dump(_readable(data), Dumper=Dumper, sort_keys=False, allow_unicode=True))
    return _DIRECTIONS.sub(lambda match: f"\\u{ord(match[0]):04x}", found)


_TEXT = "tag:yaml.org,2002:str"
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Line ends, and marks that turn the writing direction: text after one may look like other text. Unicode, bidi controls."""


def _readable(data: object) -> object:
    """``data`` with bytes that are no UTF-8 spelled out: YAML has no way to write them. JSON has them as they are."""
    if isinstance(data, str):
        return data.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(data, dict):
        return {_readable(key): _readable(value) for key, value in data.items()}
    return [_readable(each) for each in data] if isinstance(data, list | tuple) else data


def _to_csv(rows: Rows) -> str:
    import csv
    import io

    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([[_in_cell(cell) for cell in row] for row in rows])
    return stream.getvalue()


_IN_CELLS = "\n\t"
"""The characters that a cell may have besides those that can be printed; CSV puts the cell in quotes."""


def _in_cell(text: str) -> str:
    """``text`` with control characters spelled out, also where a row is another one to people than to programs."""
    if text.isprintable():
        return text
    kept = (c.isprintable() or c in _IN_CELLS or "\udca0" <= c <= "\udcff" for c in text)
    return "".join(c if keep else c.encode("unicode_escape").decode() for c, keep in zip(text, kept, strict=True))


def on_terminal(line: bytes) -> bytes:
    """A line of a command's output with control characters spelled out: a carriage return could forge another line."""
    if line.translate(None, _CONTROLS) == line and line.isascii():
        return line
    text = line.decode("utf-8", "surrogateescape")
    return _COMMANDS.sub(lambda match: _spelled(match[0]), text).encode("utf-8", "surrogateescape")


_CONTROLS = bytes(c for c in (*range(32), 127) if c != ord("\t"))
_COMMANDS = re.compile(rf"[\x00-\x08\x0a-\x1f\x7f-\x9f\udc80-\udc9f]|{_DIRECTIONS.pattern}")
"""Those of one byte, those of two (C1), which terminals obey too, some of them also as the second byte alone, and those that
turn the direction of writing."""


def _spelled(character: str) -> str:
    number = ord(character) - (0xDC00 if "\udc80" <= character <= "\udcff" else 0)  # surrogateescape
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def columns(rows: Rows, width: int | None = None) -> list[str]:
    """``rows`` as aligned lines, with two spaces between columns and ``-`` for an empty cell, cut to ``width``."""
    cells = [[printable(cell) or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return cut(("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells), width)


def cut(lines: Iterable[str], width: int | None) -> list[str]:
    """``lines``, each cut to ``width``."""
    return [line if width is None or len(line) <= width else line[: width - 1] + "…" for line in lines]


def terminal_width() -> int | None:
    """How many characters a line on stdout may have; None: any number, as stdout is no terminal."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    import shutil

    return max(shutil.get_terminal_size().columns, 40)


def printable(text: str) -> str:
    """``text`` with control characters spelled out: output of a container must not control the user's terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def duration(seconds: float) -> str:
    """A time span in a form for people."""
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.1f} {name}" if unit == 1 and seconds < 10 else f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.0f} d"


def size(count: int | None) -> str:
    """A number of bytes in a form for people."""
    if count is None:
        return ""
    return words_of_size(count)
