"""Names of containers, labels, variables and users, and the bounds of counts and times.

A container's name is also its host name, a directory below LXC's path and a part of an abstract socket
address. So it must be valid for all three: one lower-case DNS label.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.reader import is_bytes

MAX_NAME = 63
"""Length of a DNS label (RFC 1035)."""

MAX_COUNT = 4096
"""The most containers that one request may create: the uid range that the installer adds has room for so many."""

LONGEST_GLOB = 255
"""Characters of a glob. Longer ones take long to read, and names have at most 63."""

MAX_DRAIN = 3600.0
"""The longest drain time, in seconds."""

MAX_ALIASES = 16
"""The most further names of a container."""
_MAX_ALIAS = 150
"""With the domain and the name of a service it is still a name of the DNS."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_RULE = "a name has 1 to 63 lower-case letters, digits and hyphens, and neither begins nor ends with a hyphen"
_USER = re.compile(r"[0-9]{1,5}|[a-zA-Z_][a-zA-Z0-9_.-]{0,31}")
_MAX_ID = 65535
_LABEL_KEY = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9._/-]{0,61}[a-zA-Z0-9])?")
_LABEL_VALUE = re.compile(r"[a-zA-Z0-9._/@:+-]{0,255}")


def check_name(name: str) -> str:
    """``name`` itself, if a container may have it; raises InvalidInput."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} can't be a container's name", why=_RULE)
    return name


def check_label(key: str, value: str) -> tuple[str, str]:
    """The pair itself, if it can be a label; raises InvalidInput."""
    if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
        pair = f"{key}={value}"
        raise InvalidInput(
            f"{pair!r} can't be a label",
            why="a key has 1 to 63 letters, digits and ._/-, a value up to 255 of them and @:+",
        )
    return key, value


def parse_label(text: str) -> tuple[str, str]:
    """``KEY=VALUE`` as a pair; raises InvalidInput."""
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(f"{text!r} is not a label", hint="write it as KEY=VALUE")
    return check_label(key, value)


def check_variable(name: str, value: str) -> tuple[str, str]:
    """The pair itself, if it can be an environment variable; raises InvalidInput."""
    if not name or "=" in name or any(ord(c) < 33 for c in name):
        raise InvalidInput(f"{name!r} can't be the name of an environment variable")
    if "\0" in value:
        raise InvalidInput("the value of an environment variable can't hold a NUL character")
    if not is_bytes(name + value):
        raise InvalidInput("an environment variable can't hold half a character")
    return name, value


def check_user(text: str) -> str:
    """``text`` itself, if it can name a user of a container; raises InvalidInput."""
    user, colon, group = text.partition(":")
    for name in (user, group) if colon else (user,):
        if not _USER.fullmatch(name) or (name.isdigit() and int(name) > _MAX_ID):
            raise InvalidInput(f"{text!r} can't be a user", hint="write it as NAME, UID, NAME:GROUP or UID:GID")
    return text


def check_alias(text: str) -> str:
    """``text`` itself, if it can be a further name of a container below the fleet's domain; raises InvalidInput."""
    if len(text) > _MAX_ALIAS or not all(len(part) <= MAX_NAME and _NAME.fullmatch(part) for part in text.split(".")):
        why = f"{_RULE}; several may stand one after the other with dots between them, {_MAX_ALIAS} characters in all"
        raise InvalidInput(f"{text[:80]!r} can't be an alias", why=why)
    return text


def check_aliases(aliases: Sequence[str]) -> None:
    """Raise InvalidInput if a container has an alias twice, or too many."""
    if len({*aliases}) < len(aliases):
        raise InvalidInput("an alias stands there twice")
    if len(aliases) > MAX_ALIASES:
        raise InvalidInput(f"{len(aliases)} aliases are more than {MAX_ALIASES}")


def next_free(prefix: str, count: int, taken: Collection[str]) -> tuple[str, ...]:
    """``count`` names PREFIX1, PREFIX2, … that are not in ``taken``, lowest numbers first."""
    check_count(count)
    names: list[str] = []
    number = 0
    while len(names) < count:
        number += 1
        name = f"{prefix}{number}"
        if name not in taken:
            names.append(name)
    check_name(names[-1])
    check_name(names[0])
    return tuple(names)


def first(prefix: str, count: int) -> tuple[str, ...]:
    """The names PREFIX1 to PREFIXcount."""
    return next_free(prefix, count, ())


def check_count(count: int) -> int:
    """``count`` itself, if one request may ask for so many containers; raises InvalidInput."""
    if not 1 <= count <= MAX_COUNT:
        raise InvalidInput(f"-n {count} is out of range", hint=f"ask for 1 to {MAX_COUNT} containers")
    return count
