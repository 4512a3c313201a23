"""Lengths of time, as specs and settings have them."""

from __future__ import annotations

from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.types import Number, ValueType
from lxcfleet.units import as_duration, parse_duration

_TEXT = {"type": "string", "pattern": "^[0-9]{1,9}(\\.[0-9]{1,6})? *([sSmMhHdD]|[mM][iI][nN])?$"}
"""A length of time as a text, in JSON Schema."""


class Seconds(Number):
    """A number of seconds within bounds, which people may write as 10m. It is kept and shown as a number."""

    def read(self, fields: Fields, key: str) -> float:
        """See ValueType."""
        if not isinstance(fields.raw(key), str):
            return super().read(fields, key)
        try:
            return self.parse(fields.text(key))
        except InvalidInput as error:
            fields.complain(key, ": ".join(part for part in (error.message, error.hint) if part))
            return self.low

    def parse(self, text: str) -> float:
        """See ValueType."""
        seconds = parse_duration(text)
        if not self.low <= seconds <= self.high:
            raise InvalidInput(f"{text} is not between {self.low:g} and {self.high:g} seconds")
        return seconds

    @property
    def form(self) -> str:
        """See ValueType."""
        return f"seconds from {self.low:g} to {self.high:g}, or a length of time such as 10m"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {"anyOf": [super().schema(), _TEXT]}


class Duration(ValueType[float]):
    """A length of time in seconds, which people may write as 10m."""

    def __init__(self, most: float) -> None:
        self.most = most

    def read(self, fields: Fields, key: str) -> float:
        """See ValueType."""
        if isinstance(fields.raw(key), float):
            return fields.number(key, 0.0, 0.0, self.most)
        try:
            return self.parse(fields.scalar(key, "0"))
        except InvalidInput as error:
            fields.complain(key, error.message)
            return 0.0

    def parse(self, text: str) -> float:
        """See ValueType."""
        seconds = parse_duration(text)
        if seconds > self.most:
            raise InvalidInput(f"{text} is more than {as_duration(self.most)}")
        return seconds

    @property
    def form(self) -> str:
        """See ValueType."""
        return f"seconds, or a length of time such as 10m; at most {as_duration(self.most)}"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {"anyOf": [{"type": "number", "minimum": 0, "maximum": self.most}, _TEXT]}

    def render(self, value: float) -> str:
        """See ValueType."""
        return as_duration(value)

    def tell(self, value: float) -> str:
        """See ValueType."""
        return as_duration(value)
