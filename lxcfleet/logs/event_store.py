"""Events on disk, so that `lxcfleet events --since yesterday` knows of what former daemons saw. A bounded store: two files.

An event is one line of JSON at the end of the newer file. Once that is large, it takes the place of the older one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from lxcfleet.api.records import EventRecord
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)

MOST = 4 << 20
"""Bytes of one of the two files: some 25,000 events."""
LONGEST = 1 << 16
"""Bytes of one event; a longer message is cut."""


class EventStore:
    """The store of one daemon, its only writer."""

    def __init__(self, file: Path, most: int = MOST) -> None:
        self._file, self._most = file, most
        self._complained = False

    def add(self, record: EventRecord) -> None:
        """Keep an event. If the disk is full, or broken, it is not kept, and the log says so once."""
        try:
            self._append(record)
        except OSError as error:
            if not self._complained:
                log.warning("events are not kept for later: %s: %s", self._file, error.strerror)
            self._complained = True
        else:
            self._complained = False

    def open(self) -> StoredEvents:
        """All that is there by now, to be read later, also in another thread."""
        return StoredEvents([self._older, self._file])

    @property
    def _older(self) -> Path:
        return self._file.with_name(f"{self._file.name}.1")

    def _append(self, record: EventRecord) -> None:
        line = json.dumps(record)
        if len(line) > LONGEST:
            line = json.dumps({**record, "message": f"{record['message'][: LONGEST // 12]}…"})
        data = line.encode() + b"\n"
        descriptor = self._opened()
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a daemon was killed, or the disk full, in a line
                data = b"\n" + data
            if os.write(descriptor, data) != len(data):
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
        if size + len(data) > self._most:
            os.rename(self._file, self._older)

    def _opened(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(self._file, flags, 0o600)
        except FileNotFoundError:
            self._file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            return os.open(self._file, flags, 0o600)


class StoredEvents:
    """The files as they were at some moment. It is read once, and then closed."""

    def __init__(self, files: list[Path]) -> None:
        self._open = []
        for file in files:
            with contextlib.suppress(OSError):
                descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                self._open.append((descriptor, os.fstat(descriptor).st_size))

    def since(self, moment: float) -> list[EventRecord]:
        """The events that came then or later, the oldest first; ``moment`` in seconds since the epoch."""
        found: list[EventRecord] = []
        try:
            for descriptor, size in self._open:
                for line in os.pread(descriptor, size, 0).splitlines():
                    found += [event for event in _parse(line) if _seconds(event["time"]) >= moment]
        finally:
            for descriptor, _ in self._open:
                os.close(descriptor)
            self._open = []
        return found


def _parse(line: bytes) -> Iterator[EventRecord]:
    """The event in a line; nothing, if the line is torn."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        data = ondisk.parse(line)
        container = data["container"]
        record: EventRecord = {
            "time": str(data["time"]), "what": str(data["what"]),
            "container": None if container is None else str(container), "message": str(data["message"]),
        }  # fmt: skip
        _seconds(record["time"])
        yield record


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
