"""How much a container may read from disks and write to them. Values only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import Row, read_said, row, rows_of, schema_of
from lxcfleet.spec.reading.types import NONE, Pairs, Size, Whole

DELTA = "delta"
"""The word for the disk that a container's delta is on."""
MAX_DISKS = 16
LEAST_RATE = 4096
"""Bytes a second: less is not even one block."""
MAX_OPERATIONS = 1 << 31
_DISK = re.compile(r"(/dev/)?[A-Za-z0-9][A-Za-z0-9:._-]*(/[A-Za-z0-9:._-]+){0,3}")
_HINT = "write it as [DISK=]read=50M,write=20M,read_ops=500,write_ops=200, or some of these"


@dataclass(frozen=True)
class IoLimit:
    """The most that a container may read from one disk and write to it. 0 is no limit."""

    read: int = row(Size(LEAST_RATE), "Bytes a second that it may read, such as 50M; 0: no limit.", default=0)
    write: int = row(Size(LEAST_RATE), "Bytes a second that it may write; 0: no limit.", default=0)
    read_ops: int = row(Whole(0, MAX_OPERATIONS), "Reads a second that it may have; 0: no limit.", default=0)
    write_ops: int = row(Whole(0, MAX_OPERATIONS), "Writes a second that it may have; 0: no limit.", default=0)

    def __str__(self) -> str:
        said = [f"{key}={each.tell(getattr(self, key))}" for key, each in rows_of(IoLimit).items() if getattr(self, key)]
        return ",".join(said) or "read=0"


def check_disk(name: str) -> str:
    """``name`` itself, if it may be that of a disk. Raises InvalidInput."""
    if not _DISK.fullmatch(name) or ".." in name:
        raise InvalidInput(f"{name!r} can't be a disk's name", hint=f"write it as {DELTA}, sda or /dev/disk/by-id/…")
    return name


class IoType(Pairs):
    """Limits by disk. On a command line a limit without a disk is meant for the one that the delta is on."""

    KEYS: ClassVar[Mapping[str, Row]] = rows_of(IoLimit)

    def __init__(self) -> None:
        super().__init__(lambda disk, limit: (disk, limit))

    def read(self, fields: Fields, key: str) -> Mapping[str, Any]:
        """See ValueType."""
        inner = fields.nested(key)
        found = {}
        for disk in inner.keys():
            if not inner.has(disk):
                continue
            try:
                check_disk(disk)
            except InvalidInput as error:
                inner.complain(disk, error.message)
            each = inner.nested(disk)
            found[disk] = IoLimit(**read_said(self.KEYS.values(), each))
            each.close()
        if len(found) > MAX_DISKS:
            fields.complain(key, f"names more than {MAX_DISKS} disks")
        return found

    def parse(self, text: str) -> Mapping[str, Any]:
        """``[DISK=]KEY=VALUE[,KEY=VALUE…]``; see ValueType."""
        first, equals, rest = text.partition("=")
        disk, limits = (DELTA, text) if first in self.KEYS or not equals else (check_disk(first), rest)
        said: dict[str, int] = {}
        for word in limits.split(","):
            key, equals, value = word.strip().partition("=")
            if not equals or key not in self.KEYS or key in said:
                raise InvalidInput(f"{word!r} is no limit of a disk, or not the first of its kind", hint=_HINT)
            try:
                said[key] = self.KEYS[key].type.parse(value)
            except InvalidInput as error:
                raise InvalidInput(f"{key}: {error.message}", hint=_HINT) from error
        return {disk: IoLimit(**said)}

    @property
    def form(self) -> str:
        """See ValueType."""
        return "a mapping of disks to limits, as in [limits of disks](resources.md#limits-of-disks)"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {"type": "object", "additionalProperties": schema_of(self.KEYS.values())}

    def part(self) -> dict[str, Any]:
        """See ValueType."""
        either = [schema_of(self.KEYS.values(), part=True), {"type": "null"}]
        return {"type": "object", "additionalProperties": {"anyOf": either}}

    def render(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """See ValueType: the keys that differ from their defaults."""
        return {
            disk: {key: each.render(getattr(limit, key)) for key, each in self.KEYS.items() if getattr(limit, key)}
            for disk, limit in value.items()
        }

    def tell(self, value: Mapping[str, Any]) -> str:
        """See ValueType."""
        return " ".join(f"{disk}={limit}" for disk, limit in sorted(value.items())) or NONE

    def tell_difference(self, has: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, str]:
        """See ValueType."""
        return self.tell(has), self.tell(wanted)
