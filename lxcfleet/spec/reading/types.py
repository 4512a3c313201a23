"""The types of values in specs and settings: how a value is read, written, typed on a command line and put in words.

A type is an object without state. It knows nothing of the key that has it; ``rows`` brings the two together.
"""

from __future__ import annotations

import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.reader import Fields, Marked
from lxcfleet.units import LEAST_SIZE, as_size, parse_size

if TYPE_CHECKING:  # every verb of the command line imports this module, so its own imports are few
    from ipaddress import IPv4Interface, IPv6Interface

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)
I = TypeVar("I", bound="IPv4Interface | IPv6Interface")  # noqa: E741

NONE = "none"
"""The word for an empty value."""


class ValueType(ABC, Generic[T]):
    """How values of one type are handled."""

    whole: ClassVar[bool] = True
    """Whether a single layer has all of a value; otherwise it may have a part, which means something only once it is merged
    with the other layers; see ``layering``."""

    @abstractmethod
    def read(self, fields: Fields, key: str) -> T | None:
        """The value of ``key``, which ``fields`` must have. Complaints go to ``fields``; the result then means nothing."""

    @abstractmethod
    def parse(self, text: str) -> T:
        """The value that ``text`` stands for, as options of the command line take it. Raises InvalidInput."""

    @property
    @abstractmethod
    def form(self) -> str:
        """The values that a file or a request may have, in words."""

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """Its JSON Schema (2020-12)."""

    def part(self) -> dict[str, Any]:
        """The JSON Schema of what one of several layers may say; see ``layering``."""
        return self.schema()

    def render(self, value: T) -> Any:
        """The value as plain JSON, from which ``read`` reads the same value again."""
        return value

    def tell(self, value: T) -> str:
        """The value in words, much like the text that ``parse`` takes."""
        return str(value)

    def merge(self, under: T, over: T) -> T:  # noqa: ARG002
        """The value that holds if a profile has ``under`` and a request has ``over``."""
        return over

    def alone(self, said: Marked) -> Marked:
        """The value of this key in one layer, where that is a mapping, with null for all it excludes; see ``layering``."""
        return said

    def tell_difference(self, has: T, wanted: T) -> tuple[str, str]:
        """Both values in words, as far as they differ."""
        return self.tell(has), self.tell(wanted)


class Flag(ValueType[bool]):
    """True or false."""

    WORDS: Mapping[str, bool] = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

    def read(self, fields: Fields, key: str) -> bool:
        """See ValueType."""
        return fields.flag(key)

    def parse(self, text: str) -> bool:
        """See ValueType."""
        try:
            return self.WORDS[text.lower()]
        except KeyError:
            raise InvalidInput(f"{text!r} is neither true nor false") from None

    @property
    def form(self) -> str:
        """See ValueType."""
        return "true or false"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {"type": "boolean"}

    def tell(self, value: bool) -> str:
        """See ValueType."""
        return "yes" if value else "no"


class Whole(ValueType[int]):
    """A whole number within bounds."""

    def __init__(self, low: int, high: int) -> None:
        self.low = low
        self.high = high

    def read(self, fields: Fields, key: str) -> int:
        """See ValueType."""
        return fields.integer(key, self.low, self.low, self.high)

    def parse(self, text: str) -> int:
        """See ValueType."""
        if not re.fullmatch(r"-?[0-9]{1,15}", text):
            raise InvalidInput(f"{text!r} is not a whole number")
        if not self.low <= int(text) <= self.high:
            raise InvalidInput(f"{text} is not between {self.low} and {self.high}")
        return int(text)

    @property
    def form(self) -> str:
        """See ValueType."""
        return f"a whole number from {self.low} to {self.high}"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


class Number(ValueType[float]):
    """A number within bounds."""

    def __init__(self, low: float, high: float) -> None:
        self.low = low
        self.high = high

    def read(self, fields: Fields, key: str) -> float:
        """See ValueType."""
        return fields.number(key, self.low, self.low, self.high)

    def parse(self, text: str) -> float:
        """See ValueType."""
        try:
            value = float(text)
        except ValueError:
            raise InvalidInput(f"{text!r} is not a number") from None
        if not self.low <= value <= self.high:
            raise InvalidInput(f"{text} is not between {self.low:g} and {self.high:g}")
        return value

    @property
    def form(self) -> str:
        """See ValueType."""
        return f"a number from {self.low:g} to {self.high:g}"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {"type": "number", "minimum": self.low, "maximum": self.high}

    def tell(self, value: float) -> str:
        """See ValueType."""
        return f"{value:g}"


class Size(ValueType[int]):
    """An amount of memory or disk space in bytes, or so many bytes a second; 0 is no limit."""

    def __init__(self, least: int = LEAST_SIZE) -> None:
        self.least = least

    def read(self, fields: Fields, key: str) -> int:
        """See ValueType."""
        return fields.size(key, 0, self.least)

    def parse(self, text: str) -> int:
        """See ValueType."""
        return parse_size(text, self.least)

    @property
    def form(self) -> str:
        """See ValueType."""
        return "a size such as 512M, or a whole number of bytes"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {
            "oneOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^\s*[0-9]{1,16}([KMGTkmgt][Ii]?)?[Bb]?\s*$"},
            ]
        }

    def tell(self, value: int) -> str:
        """See ValueType."""
        return as_size(value)


class Text(ValueType[str]):
    """A text on one line. ``check`` raises InvalidInput for a text that is not allowed; ``pattern`` is the same rule as a
    regular expression, for the schema."""

    def __init__(self, check: Callable[[str], object] | None = None, pattern: str = "") -> None:
        self._check = check
        self.pattern = pattern

    def read(self, fields: Fields, key: str) -> str:
        """See ValueType."""
        text = fields.text(key)
        if self._check is not None:
            try:
                self._check(text)
            except InvalidInput as error:
                fields.complain(key, error.message)
        return text

    def parse(self, text: str) -> str:
        """See ValueType."""
        if not text.isprintable():
            raise InvalidInput(f"{text!r} holds control characters")
        if self._check is not None:
            self._check(text)
        return text

    @property
    def form(self) -> str:
        """See ValueType."""
        return "text"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {"type": "string", **({"pattern": self.pattern} if self.pattern else {})}


class Choice(ValueType[E]):
    """A word of an enumeration, or one of ``words``. ``prefix`` may stand before each word."""

    def __init__(self, kind: type[E], words: tuple[E, ...] = (), prefix: str = "") -> None:
        self.kind = kind
        self.words: tuple[E, ...] = words or tuple(kind)
        self.prefix = prefix

    def read(self, fields: Fields, key: str) -> E | None:
        """See ValueType."""
        try:
            return self.parse(fields.text(key))
        except InvalidInput as error:
            fields.complain(key, error.message)
            return None

    def parse(self, text: str) -> E:
        """See ValueType."""
        for word in self.words:
            if word == text.removeprefix(self.prefix):
                return word
        raise InvalidInput(f"{text!r} is none of {', '.join(self.words)}")

    @property
    def form(self) -> str:
        """See ValueType."""
        return " or ".join(self.words)

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {"enum": [f"{prefix}{word}" for prefix in dict.fromkeys(("", self.prefix)) for word in self.words]}

    def render(self, value: E) -> str:
        """See ValueType."""
        return str(value)


class Texts(ValueType[tuple[str, ...]]):
    """A list of any texts."""

    def read(self, fields: Fields, key: str) -> tuple[str, ...]:
        """See ValueType."""
        return fields.texts(key)

    def parse(self, text: str) -> tuple[str, ...]:
        """See ValueType."""
        return tuple(part.strip() for part in text.split(",") if part.strip())

    @property
    def form(self) -> str:
        """See ValueType."""
        return "a list of text"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {"type": "array", "items": {"type": "string", "pattern": "^[^\\u0000]*$"}}

    def render(self, value: tuple[str, ...]) -> list[str]:
        """See ValueType."""
        return list(value)

    def tell(self, value: tuple[str, ...]) -> str:
        """See ValueType."""
        return ", ".join(value) or NONE


class Command(Texts):
    """A command and its arguments."""

    def parse(self, text: str) -> tuple[str, ...]:
        """See ValueType."""
        try:
            return tuple(shlex.split(text))
        except ValueError as error:
            raise InvalidInput(f"{text!r} is no command", why=str(error)) from error

    def tell(self, value: tuple[str, ...]) -> str:
        """See ValueType."""
        return shlex.join(value)


MAX_ITEMS = 4096
"""A list has at most so many values, however few texts stand for them."""


def _alone(text: str) -> tuple[str]:
    return (text,)


def _one_by_one(values: Iterable[object]) -> Iterable[str]:
    return map(str, values)


class Items(ValueType[tuple[T, ...]]):
    """A list of values that are written as texts. ``parse_one`` reads each value; ``check`` looks at all values together.
    Both raise InvalidInput. ``name_of``: what tells one value from the others of the list; see ``layering``. ``spread``: the
    texts of single values that one text may stand for; raises InvalidInput. ``gather``: the texts of values, as short as
    they can be; ``spread`` reads them."""

    def __init__(
        self,
        parse_one: Callable[[str], T],
        check: Callable[[tuple[T, ...]], object],
        name_of: Callable[[T], Hashable] | None = None,
        spread: Callable[[str], Sequence[str]] = _alone,
        gather: Callable[[Iterable[T]], Iterable[str]] = _one_by_one,
    ) -> None:
        self.parse_one = parse_one
        self.check = check
        self.name_of = name_of
        self.spread = spread
        self.gather = gather

    def read(self, fields: Fields, key: str) -> tuple[T, ...]:
        """See ValueType."""
        return fields.parsed(key, self.parse_all, self.check)

    def parse(self, text: str) -> tuple[T, ...]:
        """See ValueType."""
        items = tuple(self.parse_all(part.strip() for part in text.split(",") if part.strip()))
        self.check(items)
        return items

    def parse_all(self, texts: Iterable[str]) -> Iterator[T]:
        """The values of many texts; raises InvalidInput."""
        singles = chain.from_iterable(map(self.spread, texts))
        for count, single in enumerate(singles):
            if count == MAX_ITEMS:
                raise InvalidInput(f"a list of more than {MAX_ITEMS} values is too long")
            yield self.parse_one(single)

    @property
    def form(self) -> str:
        """See ValueType."""
        return "a list of text"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {"type": "array", "items": {"type": "string"}}

    def render(self, value: tuple[T, ...]) -> list[str]:
        """See ValueType."""
        return list(self.gather(value))

    def tell(self, value: tuple[T, ...]) -> str:
        """See ValueType."""
        return ", ".join(self.gather(value)) or NONE


class Pairs(ValueType[Mapping[str, str]]):
    """Texts by key. ``check`` raises InvalidInput for a pair that is not allowed. ``secret``: the values are never shown."""

    written = "KEY=VALUE"
    """How one of them is written."""

    def __init__(self, check: Callable[[str, str], tuple[str, str]], *, secret: bool = False) -> None:
        self._check = check
        self._secret = secret

    def read(self, fields: Fields, key: str) -> Mapping[str, str]:
        """See ValueType."""
        return fields.pairs(key, self._check)

    def key(self, inner: str) -> str:
        """The key that is meant by what stands on a command line."""
        return inner

    def parse(self, text: str) -> Mapping[str, str]:
        """``KEY=VALUE``; see ValueType."""
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidInput(f"{text!r} has no value", hint=f"write it as {self.written}")
        return dict([self._check(key, value)])

    @property
    def form(self) -> str:
        """See ValueType."""
        return "a mapping of text to text"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {"type": "object", "additionalProperties": {"type": "string"}}

    def part(self) -> dict[str, Any]:
        """See ValueType: null takes a pair away that a lower layer has."""
        return {"type": "object", "additionalProperties": {"type": ["string", "null"]}}

    def render(self, value: Mapping[str, str]) -> dict[str, str]:
        """See ValueType."""
        return dict(value)

    def tell(self, value: Mapping[str, str]) -> str:
        """See ValueType."""
        return self._tell(value, {})

    def merge(self, under: Mapping[str, str], over: Mapping[str, str]) -> Mapping[str, str]:
        """See ValueType."""
        return {**under, **over}

    def tell_difference(self, has: Mapping[str, str], wanted: Mapping[str, str]) -> tuple[str, str]:
        """See ValueType."""
        return self._tell(has, wanted), self._tell(wanted, has)

    def _tell(self, value: Mapping[str, str], others: Mapping[str, str]) -> str:
        """The pairs in words, without those that ``others`` has, too."""
        form = "{}=…" if self._secret else "{}={}"
        return ", ".join(form.format(*pair) for pair in sorted(value.items()) if pair not in others.items()) or NONE


class Interface(ValueType[I]):
    """An IP address with the length of its network's prefix."""

    def __init__(self, kind: Callable[[str], I]) -> None:
        self._kind = kind

    def read(self, fields: Fields, key: str) -> I | None:
        """See ValueType."""
        try:
            return self._kind(fields.text(key))
        except ValueError as error:
            fields.complain(key, str(error))
            return None

    def parse(self, text: str) -> I:
        """See ValueType."""
        try:
            return self._kind(text)
        except ValueError as error:
            raise InvalidInput(str(error)) from error

    @property
    def form(self) -> str:
        """See ValueType."""
        return "text"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {"type": "string"}

    def render(self, value: I) -> str:
        """See ValueType."""
        return str(value)
