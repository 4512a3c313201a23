"""Amounts of swap space, where none at all and no limit are two different things."""

from __future__ import annotations

from typing import Any

from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.types import Size

NO_LIMIT = -1
"""A ``Swap`` that is not limited."""


class Swap(Size):
    """An amount of swap space in bytes; 0 is none, and the word max no limit."""

    def read(self, fields: Fields, key: str) -> int:
        """See ValueType."""
        if fields.raw(key) != "max":
            return super().read(fields, key)
        fields.skip(key)
        return NO_LIMIT

    def parse(self, text: str) -> int:
        """See ValueType."""
        return NO_LIMIT if text == "max" else super().parse(text)

    @property
    def form(self) -> str:
        """See ValueType."""
        return f"{super().form}, or max"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {"oneOf": [*super().schema()["oneOf"], {"const": "max"}]}

    def render(self, value: int) -> Any:
        """See ValueType."""
        return "max" if value == NO_LIMIT else super().render(value)

    def tell(self, value: int) -> str:
        """See ValueType."""
        return "max" if value == NO_LIMIT else super().tell(value)
