"""A type of values with several keys, each of which has a default. Values only."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, TypeVar

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import Row, read_said, rows_of, schema_of
from lxcfleet.spec.reading.types import NONE, ValueType

S = TypeVar("S")


class PartsType(ValueType[S]):
    """A frozen dataclass of rows: a mapping in files; ``KEY=VALUE…`` on a command line, where a shell's quotes hold a value
    together. A key that is not said has its default."""

    whole = False

    def __init__(self, kind: type[S], page: str) -> None:
        """``page``: the part of the documentation that has the keys."""
        self.kind = kind
        self._page = page

    @property
    def rows(self) -> Mapping[str, Row]:
        """The keys."""
        return rows_of(self.kind)

    def read(self, fields: Fields, key: str) -> S:
        """See ValueType."""
        inner = fields.nested(key)
        said = read_said(self.rows.values(), inner)
        inner.close()
        return self.kind(**said)

    def parse(self, text: str) -> S:
        """``KEY=VALUE…``; see ValueType."""
        hint = f"write it as {' '.join(f'{key}=…' for key in self.rows)}, or some of these"
        said: dict[str, Any] = {}
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise InvalidInput(f"{text!r} can't be read", why=str(error), hint=hint) from error
        for word in words:
            key, equals, value = word.partition("=")
            if not equals or key not in self.rows or key in said:
                raise InvalidInput(f"{word!r} is no key with a value, or not the first of that key", hint=hint)
            try:
                said[key] = self.rows[key].type.parse(value)
            except InvalidInput as error:
                raise InvalidInput(f"{key}: {error.message}", hint=hint) from error
        return self.kind(**said)

    @property
    def form(self) -> str:
        """See ValueType."""
        return f"a mapping, as in {self._page}"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return schema_of(self.rows.values())

    def part(self) -> dict[str, Any]:
        """See ValueType."""
        return schema_of(self.rows.values(), part=True)

    def render(self, value: S) -> dict[str, Any]:
        """See ValueType: the keys that differ from their defaults."""
        return {key: row.render(getattr(value, key)) for key, row in self._said(value).items()}

    def tell(self, value: S) -> str:
        """See ValueType."""
        said = [f"{key}={shlex.quote(row.tell(getattr(value, key)))}" for key, row in self._said(value).items()]
        return " ".join(said) or NONE

    def _said(self, value: S) -> dict[str, Row]:
        return {key: row for key, row in self.rows.items() if getattr(value, key) != row.default}
