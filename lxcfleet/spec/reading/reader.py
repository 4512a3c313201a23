"""Reading mappings that people and programs wrote (YAML files, API bodies): strict, and all complaints at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from lxcfleet.errors import InvalidInput
from lxcfleet.units import LEAST_SIZE, check_size, parse_size

E = TypeVar("E", bound=StrEnum)
T = TypeVar("T")

_KINDS: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}


_SUGGESTED = 10
"""So many unknown keys of a mapping get the name of one that is like them, as to find it takes long."""


_LISTED = 400
"""As many characters of known words are listed at most: of more nobody finds the one that is meant."""


def did_you_mean(word: str, known: Iterable[str], number: int = 0) -> str:
    """The end of a complaint about an unknown word: the known one that is like it, or all of them, if these are few.

    ``number``: how many words of the same place were complained of before. The list stands once.
    """
    words = sorted(known)
    close = difflib.get_close_matches(word, words, 1)
    if close:
        return f": did you mean {close[0]}?"
    few = ", ".join(words)
    return f"; known here: {few}" if few and not number and len(few) <= _LISTED else ""


def is_bytes(text: str) -> bool:
    """Whether the kernel can be given the text: JSON can write halves of characters, and no encoding has these alone. Python
    writes bytes that are no UTF-8 as others of them, and these can be given."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


class Marked(dict[str, Any]):
    """A mapping that knows where it and each of its keys stands, as ``FILE:LINE``."""

    def __init__(self, place: str = "") -> None:
        super().__init__()
        self.place = place
        self.places: dict[str, str] = {}

    def put(self, key: str, value: object, place: str) -> None:
        """Set a key, and where it stands."""
        self[key] = value
        self.places[key] = place

    def copy(self) -> Marked:
        """A copy; the values are the same."""
        made = Marked(self.place)
        made.update(self)
        made.places.update(self.places)
        return made


class Fields:
    """The fields of one mapping, read one by one; ``finish`` raises all complaints at once.

    ``where`` stands before each key in a complaint, for example a file name. Nested fields share the complaints of the
    outermost fields, so that one ``finish`` reports them all. A complaint about a ``Marked`` mapping begins with the place of
    the key.
    """

    def __init__(
        self, data: object, where: str, complaints: list[str] | None = None, place: str = ""
    ) -> None:
        """``place``: of ``data``, if that is not ``Marked``."""
        self._where = where
        self._complaints: list[str] = [] if complaints is None else complaints
        self._data: dict[str, object] = {}
        self._asked: set[str] = set()
        """The keys that were asked for: those that the mapping may have."""
        self._place = data.place if isinstance(data, Marked) else place
        self._places: Mapping[str, str] = data.places if isinstance(data, Marked) else {}
        if data is None:
            return
        if not isinstance(data, Mapping):
            self._add((), f"expected a mapping, found {_describe(data)}", self._place)
            return
        for key, value in data.items():
            if isinstance(key, str):
                self._data[key] = value
            else:
                self._add((), f"{key!r} is not a text key", self._place)

    @property
    def complaints(self) -> int:
        """How many complaints there are so far."""
        return len(self._complaints)

    def complain(self, key: str, problem: str, place: str = "") -> None:
        """Note that the value of ``key`` is wrong. ``key`` may go on to a part of it: ``labels.role``, ``command[0]``."""
        outer = re.split(r"[.\[]", key, maxsplit=1)[0]
        self._add((key,), problem, place or self._places.get(outer) or self._place)

    def _add(self, keys: Sequence[str], problem: str, place: str) -> None:
        parts = (place, self._where, *(_one_line(key) for key in keys), _short(problem))
        self._complaints.append(": ".join(part for part in parts if part))

    def place(self, key: str) -> str:
        """Where ``key`` stands, as FILE:LINE; empty if that is not known."""
        return self._places.get(key) or self._place

    def raw(self, key: str) -> object:
        """The value as it stands there; the key counts as not read."""
        self._asked.add(key)
        return self._data.get(key)

    def _pop(self, key: str) -> object:
        """The value of a key, which counts as read now; None: it has none."""
        self._asked.add(key)
        return self._data.pop(key, None)

    def skip(self, *keys: str) -> None:
        """Count these keys as read."""
        for key in keys:
            self._pop(key)

    def drop_nulls(self, key: str) -> None:
        """Leave the keys of the mapping ``key`` out that have no value."""
        value = self._data.get(key)
        if isinstance(value, Marked):
            kept = value.copy()
            for name in [name for name, inner in value.items() if inner is None]:
                del kept[name]
            self._data[key] = kept

    def _take(self, key: str, kind: type[T], default: T) -> T:
        value = self._pop(key)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            example = " such as [a, b]" if kind is list else ""
            self.complain(key, f"expected {_KINDS[kind]}{example}, found {_describe(value)}")
            return default
        return value

    def has(self, key: str) -> bool:
        """Whether the mapping has ``key`` and it was not read yet; null counts as missing."""
        if self._data.get(key) is None:
            self._pop(key)
        self._asked.add(key)
        return key in self._data

    def text(self, key: str, default: str = "") -> str:
        """A text; control characters are refused, as values end up in line-based files."""
        value = self._take(key, str, default)
        if any(ord(c) < 32 or ord(c) == 127 for c in value):
            self.complain(key, "holds control characters")
            return default
        return value

    def optional_text(self, key: str) -> str | None:
        """A text, or None where the key is missing."""
        return self.text(key) if self.has(key) else None

    def scalar(self, key: str, default: str) -> str:
        """A text or a whole number, as text."""
        value = self._data.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            self._data[key] = str(value)
        return self.text(key, default)

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``."""
        if not self.has(key):
            return default
        value = self._take(key, int, low)
        if not low <= value <= high:
            self.complain(key, f"{value} is not between {low} and {high}")
            return default
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """A number from ``low`` to ``high``."""
        value = self._pop(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.complain(key, f"expected a number, found {_describe(value)}")
            return default
        if not low <= value <= high:
            self.complain(key, f"{value} is not between {low} and {high}")
            return default
        return float(value)

    def size(self, key: str, default: int, least: int = LEAST_SIZE) -> int:
        """A size in bytes: a whole number, or a text such as 512M; 0 is none."""
        value = self._pop(key)
        if value is None:
            return default
        try:
            if isinstance(value, bool) or not isinstance(value, int | str):
                raise InvalidInput(f"expected a size such as 512M, found {_describe(value)}")
            return parse_size(value, least) if isinstance(value, str) else check_size(value, least)
        except InvalidInput as error:
            self.complain(key, error.message)
            return default

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        return self._take(key, bool, default)

    def choice(self, key: str, kind: type[E], default: E) -> E:
        """One of the words of ``kind``."""
        value = self._take(key, str, str(default))
        try:
            return kind(value)
        except ValueError:
            self.complain(key, f"{value!r} is none of {', '.join(kind)}")
            return default

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, which may hold any character but NUL."""
        items = []
        for number, item in enumerate(self._take(key, list, [])):
            if not isinstance(item, str):
                self.complain(f"{key}[{number}]", f"expected text, found {_describe(item)}")
            elif "\0" in item:
                self.complain(f"{key}[{number}]", "holds a NUL character")
            elif not is_bytes(item):
                self.complain(f"{key}[{number}]", "holds half a character")
            else:
                items.append(item)
        return tuple(items)

    def parsed(
        self, key: str, parse: Callable[[Iterable[str]], Iterator[T]], check: Callable[[tuple[T, ...]], object]
    ) -> tuple[T, ...]:
        """A list of texts. ``parse`` reads them, ``check`` looks at all results together; both raise InvalidInput."""
        items: list[T] = []
        try:
            items.extend(parse(self.texts(key)))
            check(tuple(items))
        except InvalidInput as error:
            self.complain(key, error.message)
        return tuple(items)

    def items(self, key: str) -> list[object]:
        """A list of any values."""
        return self._take(key, list, [])

    def within(self, where: str, data: object) -> Fields:
        """The mapping ``data``, which stands at ``where`` in this one."""
        return Fields(data, f"{self._where}: {where}" if self._where else where, self._complaints)

    def pairs(self, key: str, check: Callable[[str, str], object]) -> dict[str, str]:
        """A mapping of text to text. ``check`` looks at each pair, and raises InvalidInput."""
        result: dict[str, str] = {}
        pairs = self._take(key, dict, {})
        places = pairs.places if isinstance(pairs, Marked) else {}
        for name, value in pairs.items():
            place = places.get(name, "")
            if not isinstance(name, str) or not isinstance(value, str):
                self.complain(f"{key}.{name}", "expected text (quote numbers and words such as yes and no)", place)
                continue
            try:
                check(name, value)
            except InvalidInput as error:
                self.complain(f"{key}.{name}", ": ".join(part for part in (error.message, error.why) if part), place)
            else:
                result[name] = value
        return result

    def nested(self, key: str, short: str = "") -> Fields:
        """The mapping below ``key``; an empty one where it is missing. ``short``: a single word stands for a mapping with
        this key alone. YAML takes the word no for false."""
        value = self._pop(key)
        if short and isinstance(value, str | bool):
            value = {short: "no" if value is False else value}
        where = f"{self._where}: {key}" if self._where else key
        return Fields(value, where, self._complaints, self.place(key))

    def keys(self) -> tuple[str, ...]:
        """The keys that were not read yet."""
        return tuple(self._data)

    def close(self) -> None:
        """Complain about every key that was not read: it is unknown. Name the key that is like it, if one is."""
        for number, key in enumerate(self._data):
            self.complain(key, "unknown key" + (did_you_mean(key, self._asked, number) if number < _SUGGESTED else ""))
        self._data.clear()

    def finish(self, message: str) -> None:
        """Raise InvalidInput with ``message`` and all complaints, if there are any."""
        self.close()
        if self._complaints:
            raise InvalidInput(message, why="\n".join(self._complaints))


_LONGEST = 600
"""Characters of a complaint: it may quote a value, and that may be as long as the file. The cause stands at its end."""


def _short(problem: str) -> str:
    return problem if len(problem) <= _LONGEST else f"{problem[: _LONGEST // 2]} … {problem[-_LONGEST // 2 :]}"


def _one_line(key: str) -> str:
    """A key as a complaint names it: complaints are lines, and none begins in the midst of another."""
    return _short("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in key))


def _describe(value: object) -> str:
    return _KINDS.get(type(value), type(value).__name__) if value is not None else "nothing"
