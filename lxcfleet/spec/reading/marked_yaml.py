"""YAML with the place of each key, for files of which a complaint is to name the line.

Read event by event, so that a hostile file costs no more than what of it is looked at: it is refused as soon as it has more
values, or is nested more deeply, than any such file needs. What YAML 1.1 reads as something else than people mean is
complained of: `0755` is the number 493 there, and `22:22` the number 1342.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.reader import Marked

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_VALUES = 30_000
LONGEST = 40
"""Characters of a number or another value that is no text. Longer ones take long to read."""

_STR = "tag:yaml.org,2002:str"
_TRAP = re.compile(r"[-+]?(0[0-9_]+|0[xb][0-9a-fA-F_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|[0-9]+_[0-9_]*)")
"""Plain numbers whose value is another one than people think: octal, hexadecimal, to the base of 60, with underscores."""


class _TooMuch(ValueError):
    pass


def load(text: bytes, where: str, complain: Callable[[str], object]) -> Marked:
    """The mapping in ``text``, which the file ``where`` has. ``complain`` is called with whatever is wrong but readable.

    Raises InvalidInput if nothing can be made of the text.
    """
    if len(text) > MAX_BYTES:
        raise InvalidInput(f"{where} is too large", why=f"{where}: it has {len(text)} bytes, and may have {MAX_BYTES}")
    loader = yaml.CSafeLoader(text)
    try:
        return _Reader(loader, where, complain).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}:{mark.line + 1}" if mark else where
        raise InvalidInput(f"{where} is not valid", why=f"{place}: {error.problem or 'it is no YAML'}") from error
    except _TooMuch as error:
        raise InvalidInput(f"{where} is not valid", why=str(error)) from error
    except yaml.YAMLError as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise InvalidInput(f"{where} is not valid", why=f"{where}: {reason}") from error
    except (RecursionError, UnicodeError) as error:
        raise InvalidInput(f"{where} is not valid", why=f"{where}: it is no text in UTF-8") from error
    finally:
        loader.dispose()


class _Reader:
    """Makes plain values of the events of one document."""

    def __init__(self, loader: yaml.CSafeLoader, where: str, complain: Callable[[str], object]) -> None:
        self._loader, self._where, self._complain = loader, where, complain
        self._values = 0

    def document(self) -> Marked:
        """The one document."""
        self._loader.get_event()  # the stream begins
        if self._loader.check_event(yaml.StreamEndEvent):
            return Marked(self._where)
        self._loader.get_event()  # the document begins
        event = self._loader.get_event()
        value = self._value(event, 0)
        self._loader.get_event()  # the document ends
        if not self._loader.check_event(yaml.StreamEndEvent):
            self._complain(f"{self._place(self._loader.peek_event())}: a second document begins, and one is expected")
        if value is None:
            return Marked(self._where)
        if not isinstance(value, Marked):
            self._complain(f"{self._place(event)}: expected a mapping")
            return Marked(self._where)
        return value

    def _place(self, event: Any) -> str:
        return f"{self._where}:{event.start_mark.line + 1}"

    def _value(self, event: Any, depth: int) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _TooMuch(f"{self._place(event)}: it has more than {MAX_VALUES} values")
        if isinstance(event, yaml.AliasEvent):
            self._complain(f"{self._place(event)}: aliases (*name) are not allowed")
            return None
        if event.anchor is not None:
            self._complain(f"{self._place(event)}: anchors (&name) are not allowed")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if depth >= MAX_DEPTH:
            raise _TooMuch(f"{self._place(event)}: nested more than {MAX_DEPTH} deep")
        if event.tag not in (None, "!"):
            self._complain(f"{self._place(event)}: tags ({event.tag}) are not allowed")
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(inner := self._loader.get_event(), yaml.SequenceEndEvent):
                items.append(self._value(inner, depth + 1))
            return items
        return self._mapping(event, depth)

    def _mapping(self, event: Any, depth: int) -> Marked:
        found = Marked(self._place(event))
        while not isinstance(head := self._loader.get_event(), yaml.MappingEndEvent):
            place = self._place(head)
            key = self._value(head, depth + 1)
            value = self._value(self._loader.get_event(), depth + 1)
            if isinstance(head, yaml.ScalarEvent) and head.value == "<<" and not head.style:
                self._complain(f"{place}: merge keys (<<) are not allowed")
            elif not isinstance(key, str):
                text = head.value if isinstance(head, yaml.ScalarEvent) else "a list or mapping"
                self._complain(f"{place}: {text[:40]!r} is not read as a text, which a key is: quote it")
            elif key in found:
                self._complain(f"{place}: {key[:40]!r} stands there twice, first at {found.places[key]}")
            else:
                found.put(key, value, place)
        return found

    def _scalar(self, event: Any) -> Any:
        if event.tag not in (None, "!"):
            self._complain(f"{self._place(event)}: tags ({event.tag}) are not allowed")
            return event.value
        text: str = event.value
        if event.style or event.tag == "!":
            return text
        tag = self._loader.resolve(yaml.ScalarNode, text, event.implicit)
        if tag == _STR or text == "<<":
            return text
        if len(text) > LONGEST:
            self._complain(f"{self._place(event)}: {text[:LONGEST]}… is no number that anything has: quote a text")
            return text
        try:
            value = self._loader.construct_object(yaml.ScalarNode(tag, text, event.start_mark, event.end_mark))
        except (ValueError, yaml.YAMLError):
            value = None
        if _TRAP.fullmatch(text) or not isinstance(value, bool | int | float | None):
            as_what = "a time" if not isinstance(value, int | float) else f"the number {value}"
            self._complain(f"{self._place(event)}: {text} is {as_what} in YAML: write it in quotes, or as a plain number")
            return text
        return value
