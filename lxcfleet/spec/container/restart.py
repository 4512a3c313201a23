"""When a container that ended by itself is started again: what a spec, a profile or a request says. Values only."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.durations import Seconds
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import Row, read_said, row, rows_of, schema_of
from lxcfleet.spec.reading.types import Choice, Flag, Number, ValueType, Whole

MAX_SECONDS = 86400.0
MAX_FACTOR = 100.0
MAX_ATTEMPTS = 1000


class RestartPolicy(StrEnum):
    """After which ends a container is started again."""

    NO = "no"
    """After none."""
    ON_FAILURE = "on-failure"
    """After those with another exit status than 0, and those that nobody saw."""
    ALWAYS = "always"
    """After all; and it starts when the host boots, even if it was stopped."""
    UNLESS_STOPPED = "unless-stopped"
    """After all."""


@dataclass(frozen=True)
class Restart:
    """The policy, and the pauses between the starts. Times are in seconds."""

    policy: RestartPolicy = row(
        Choice(RestartPolicy), "After which ends it is started again: no (none), on-failure (another exit status than 0), "
        "always and unless-stopped (all). What was stopped is not started again; with always it starts when the host boots.",
        default=RestartPolicy.NO,
    )
    delay: float = row(
        Seconds(0.1, MAX_SECONDS), "Seconds until the second start in a row; the first one comes at once.", default=1.0
    )
    factor: float = row(
        Number(1, MAX_FACTOR), "Each further failure in a row multiplies the pause by this.", default=2.0
    )
    max_delay: float = row(Seconds(0.1, MAX_SECONDS), "The longest pause, in seconds.", default=60.0)
    reset_after: float = row(
        Seconds(0.1, MAX_SECONDS), "A run of so many seconds counts as success: the next failure is the first of a new row.",
        default=60.0,
    )
    attempts: int = row(
        Whole(0, MAX_ATTEMPTS), "So many starts after failures within the time `within`, and it is given up until somebody"
        " starts it; 0: never.", default=0,
    )
    within: float = row(Seconds(0.1, MAX_SECONDS), "The seconds in which `attempts` are counted.", default=600.0)
    on_unhealthy: bool = row(
        Flag(), "Whether a running container that its check calls unhealthy is restarted, too; with the same pauses.",
        default=False,
    )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """The keys that differ from their defaults, and the policy."""
        return {
            key: each.render(getattr(self, key))
            for key, each in rows_of(Restart).items()
            if key == "policy" or getattr(self, key) != each.default
        }

    def __str__(self) -> str:
        inner = {key: each.tell(getattr(self, key)) for key, each in rows().items() if key in self.to_json()}
        return " ".join([inner.pop("policy"), *(f"{key}={text}" for key, text in inner.items())])


NEVER = Restart()
"""The policy of a container of which nothing else was said."""


def rows() -> Mapping[str, Row]:
    """All keys of a policy."""
    return rows_of(Restart)


def _check(said: Mapping[str, Any]) -> Restart:
    """The policy with these values by key. Raises InvalidInput."""
    if "policy" not in said:
        raise InvalidInput("takes a policy: no, on-failure, always or unless-stopped")
    made = Restart(**said)
    if made.policy is RestartPolicy.NO and len(said) > 1:
        raise InvalidInput(f"{next(key for key in said if key != 'policy')} does nothing with the policy no")
    if made.delay > made.max_delay:
        raise InvalidInput(f"delay ({made.delay:g}) is longer than max_delay ({made.max_delay:g})")
    return made


class RestartType(ValueType[Restart]):
    """How a policy is read and written: one word, or a mapping."""

    whole = False

    def read(self, fields: Fields, key: str) -> Restart | None:
        """See ValueType."""
        inner = fields.nested(key, "policy")
        before = fields.complaints
        said = read_said(rows().values(), inner)
        inner.close()
        if fields.complaints != before:
            return None
        try:
            return _check(said)
        except InvalidInput as error:
            fields.complain(key, error.message)
            return None

    def parse(self, text: str) -> Restart:
        """``POLICY [KEY=VALUE…]``, as ``str`` shows it; see ValueType."""
        words = text.split()
        said: dict[str, Any] = {}
        for number, word in enumerate(words):
            key, equals, value = word.partition("=")
            if not equals:  # who hands a value of YAML on makes False of the word no
                key, value = "policy", "no" if word == "False" else word
            if (not equals) != (number == 0) or key not in rows() or key in said:
                raise InvalidInput(f"{text!r} is no restart policy", hint=_FORM)
            try:
                said[key] = rows()[key].type.parse(value)
            except InvalidInput as error:
                raise InvalidInput(f"{key}: {error.message}", hint=_FORM) from error
        return _check(said)

    @property
    def form(self) -> str:
        """See ValueType."""
        return "a policy, or a mapping as in [restart policies](lifecycle.md#restart-policies)"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        mapping = {**schema_of(rows().values()), "required": ["policy"]}
        return {"oneOf": [{"enum": _WORDS}, mapping]}

    def part(self) -> dict[str, Any]:
        """See ValueType."""
        return {"oneOf": [{"enum": _WORDS}, schema_of(rows().values())]}

    def render(self, value: Restart) -> Any:
        """See ValueType."""
        said = value.to_json()
        return said if len(said) > 1 else said["policy"]


_WORDS = [*map(str, RestartPolicy), False]
"""The policies as files have them. YAML 1.1 reads the word no as false, and the reader takes that for the policy."""

_FORM = "write it as " + shlex.quote("on-failure delay=1 attempts=5") + ", with any of " + ", ".join(
    key for key in rows_of(Restart) if key != "policy"
)
