"""YAML without its traps: plain values only, no aliases (they can stand for gigabytes), no key twice."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(None, None, "aliases (*name) are not allowed", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(None, None, "merge keys (<<) are not allowed", key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(None, None, f"{key.value!r} stands there twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(text: bytes) -> object:
    """The one document in ``text`` as plain Python values; raises ValueError with the line and the reason."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error).split("\n", maxsplit=1)[0]) from error


LONGEST_KEY = 1000
"""YAML takes a key of more than 1024 characters only after a question mark."""
_PAIR = re.compile(r"\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})")


_WORDS: dict[object, str] = {None: "null", True: "true", False: "false", "": '""'}
"""Most values of most specs."""


def inline(value: object) -> str:
    """``value`` (texts, numbers, lists, mappings) as YAML on one line, with any characters in its texts.

    JSON is almost YAML. There are two exceptions: characters beyond 16 bits, which JSON writes as two surrogates and YAML
    as one number, and numbers with an exponent.
    """
    match value:
        case None | bool() | "":
            return _WORDS[value]
        case int():
            return repr(int(value))
        case dict():
            return "{" + ", ".join(f"{_key(name)}: {inline(inner)}" for name, inner in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(inline, value)) + "]"
        case float():
            # YAML 1.1 reads 1e-05 as a text, and 1.0e-05 as a number.
            text = repr(value)
            return text if "." in text else text.replace("e", ".0e")
        case _:
            return _PAIR.sub(_whole, json.dumps(value))


def _whole(pair: re.Match[str]) -> str:
    high, low = (int(half, 16) for half in pair.groups())
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"


def _key(name: object) -> str:
    text = inline(name)
    return text if len(text) <= LONGEST_KEY else f"? {text} "
