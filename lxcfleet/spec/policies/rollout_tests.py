"""Tests of a group: commands that say whether a container does its work after a restart. Values only.

Their exit statuses are those of monitoring plugins: 0 good, 3 not known, all others bad.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.durations import Seconds
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import CheckedSection, read_section, row, rows_of, schema_of
from lxcfleet.spec.reading.types import Choice, Flag, Text, Texts, ValueType, Whole

MAX_SECONDS = 600.0
MOST = 32
"""The most tests of a group."""
MAX_COMMAND = 8192
"""Bytes of a command."""
_MOST_WORDS = 64
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,39}")


class WhereTested(StrEnum):
    """Where a test is run."""

    INSIDE = "inside"
    """In the container, as its root."""
    HOST = "host"
    """On the host, as root."""


def _check_name(text: str) -> None:
    if not _NAME.fullmatch(text):
        raise InvalidInput(f"{text!r} can't be a test's name: up to 40 letters, digits, '.', '_' and '-'")


@dataclass(frozen=True)
class RolloutTest(CheckedSection):
    """One test. Times are in seconds."""

    name: str = row(Text(_check_name, f"^{_NAME.pattern}$"), "Its name, which no other test of the group has.", default="")
    run: tuple[str, ...] = row(
        Texts(), "The command, as a list. It ends with 0: good, 3: not known, anything else: bad; the last line that it"
        " prints is the reason.", default=(),
    )
    where: WhereTested = row(
        Choice(WhereTested), "inside: in the container, as its root; host: on the host, as root, which takes a profile of the"
        " settings.", default=WhereTested.INSIDE,
    )
    timeout: float = row(
        Seconds(0.1, MAX_SECONDS), "Seconds after which it is ended, with all that it started: then it is bad.", default=30.0
    )
    passes: int = row(Whole(1, 100), "How often in a row it has to be good.", default=1)
    required: bool = row(
        Flag(), "Whether a rollout halts where it does not become good; otherwise its result is told, and no more.",
        default=True,
    )  # fmt: skip

    def problems(self) -> Iterator[tuple[str, str]]:
        """See Checked."""
        if not self.name:
            yield "name", "is missing"
        if not self.run or not self.run[0]:
            yield "run", "is missing: the command, as a list"
        elif self.where is WhereTested.HOST and not self.run[0].startswith("/"):
            yield "run", "a command of the host begins with the whole path of its program"
        if len(self.run) > _MOST_WORDS or sum(len(w.encode("utf-8", "surrogateescape")) for w in self.run) > MAX_COMMAND:
            yield "run", f"a command has up to {_MOST_WORDS} words and {MAX_COMMAND} bytes"

    def __str__(self) -> str:
        return f"{self.name}: {shlex.join(self.run)}"


def of_command(number: int, command: str) -> RolloutTest:
    """A test from a command line of the operator's, which a shell runs inside."""
    return RolloutTest(f"test{number}", ("/bin/sh", "-c", command))


class GroupTestsType(ValueType[tuple[RolloutTest, ...]]):
    """How the tests of a group are read and written."""

    def read(self, fields: Fields, key: str) -> tuple[RolloutTest, ...]:
        """See ValueType."""
        found = tuple(
            read_section(RolloutTest, fields.within(f"{key}[{number}]", item))
            for number, item in enumerate(fields.items(key)[: MOST + 1])
        )
        if len(found) > MOST:
            fields.complain(key, f"a group has {MOST} tests at most")
        for name in _twice(found):
            fields.complain(key, f"two tests have the name {name}")
        return found

    def parse(self, text: str) -> tuple[RolloutTest, ...]:
        """See ValueType."""
        raise InvalidInput(f"{text!r} can't stand for tests")

    @property
    def form(self) -> str:
        """See ValueType."""
        return "a list of mappings, as in [tests](rollouts.md#tests)"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        one = {**schema_of(rows_of(RolloutTest).values()), "required": ["name", "run"]}
        return {"type": "array", "maxItems": MOST, "items": one}

    def render(self, value: tuple[RolloutTest, ...]) -> list[dict[str, Any]]:
        """See ValueType."""
        return [to_json(each) for each in value]

    def tell(self, value: tuple[RolloutTest, ...]) -> str:
        """See ValueType."""
        return ", ".join(map(str, value)) or "none"


def to_json(test: RolloutTest) -> dict[str, Any]:
    """The test in the form of files, with the keys that differ from their defaults."""
    rows = rows_of(RolloutTest)
    values: Mapping[str, Any] = vars(test)
    return {key: each.render(values[key]) for key, each in rows.items() if values[key] != each.default}


def _twice(tests: Sequence[RolloutTest]) -> Iterator[str]:
    names = [each.name for each in tests]
    yield from (name for name in dict.fromkeys(names) if name and names.count(name) > 1)
