"""The keys of queries, each written and read in the same way by all calls, and the requests that consist of such keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lxcfleet.api.shape import NOT_VALID, InQuery, Key, Query, single
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container.unit_names import parse_unit
from lxcfleet.spec.files.settings import NetworkSettings
from lxcfleet.spec.policies.cves import parse_cve
from lxcfleet.spec.reading.names import MAX_COUNT, parse_label
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.selection import Selection

_DIGITS = 18
"""Digits that a number in a query may have."""
LOGS = ("console", "lxc")


def _one(texts: Sequence[str]) -> str:
    if len(texts) > 1:
        raise InvalidInput("is there more than once")
    return texts[0]


def number(name: str, meaning: str, default: int, low: int, high: int) -> Key[int]:
    """A key whose value is a whole number from ``low`` to ``high``."""

    def read(texts: Sequence[str]) -> int:
        text = _one(texts)
        if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
            raise InvalidInput(f"expected a whole number, found {text[:_DIGITS]!r}")
        if not low <= int(text) <= high:
            raise InvalidInput(f"{int(text)} is not between {low} and {high}")
        return int(text)

    form = f"a whole number from {low}" + (f" to {high}" if high < 10**_DIGITS else "")
    return Key(name, form, meaning, lambda value: [str(value)], read, default)


def flag(name: str, meaning: str) -> Key[bool]:
    """A key whose value is 1 or 0; a missing key counts as 0."""

    def read(texts: Sequence[str]) -> bool:
        text = _one(texts)
        if text not in ("0", "1"):
            raise InvalidInput(f"expected 0 or 1, found {text[:_DIGITS]!r}")
        return text == "1"

    return Key(name, "0 or 1", meaning, lambda value: ["1"] if value else [], read, False)


def moment(name: str, meaning: str) -> Key[float]:
    """A key whose value is a time in seconds since 1970, which may have a fraction; a missing key counts as 0."""

    def read(texts: Sequence[str]) -> float:
        text = _one(texts)
        if not (text.isascii() and text.replace(".", "", 1).isdigit() and len(text) <= _DIGITS):
            raise InvalidInput(f"expected seconds since 1970, found {text[:_DIGITS]!r}")
        return float(text)

    return Key(name, "seconds since 1970", meaning, lambda value: [f"{value:.3f}"] if value else [], read, 0.0)


def word(name: str, meaning: str, default: str, words: Sequence[str]) -> Key[str]:
    """A key whose value is one of ``words``."""

    def read(texts: Sequence[str]) -> str:
        text = _one(texts)
        if text not in words:
            raise InvalidInput(f"{text[:40]!r} is none of {', '.join(words)}")
        return text

    return Key(name, " or ".join(words), meaning, lambda value: [value], read, default)


def setting(name: str, meaning: str) -> Key[str]:
    """A key whose value is what this key below ``network`` may be in settings."""
    default = str(getattr(NetworkSettings(), name))

    def read(texts: Sequence[str]) -> str:
        text = _one(texts)
        for key, problem in replace(NetworkSettings(), **{name: text}).problems():
            if key == name:
                raise InvalidInput(problem)
        return text

    return Key(name, "as in the settings", meaning, lambda value: [value], read, default)


def texts(name: str, form: str, meaning: str, parse: Callable[[str], Any] = str) -> Key[tuple[Any, ...]]:
    """A key that a query may have many times. ``parse`` reads each text and raises InvalidInput; ``str`` writes a value."""
    return Key(name, f"{form}, any number of times", meaning, lambda values: map(str, values), _each(parse), ())


def _each(parse: Callable[[str], Any]) -> Callable[[Sequence[str]], tuple[Any, ...]]:
    return lambda found: tuple(map(parse, found))


# -- the keys -----------------------------------------------------------------------------------------------

PATTERN = texts("pattern", "a name or glob", "The containers of that name; without pattern and label all of them.")
LABEL: Key[tuple[tuple[str, str], ...]] = Key(
    "label", "KEY=VALUE, any number of times", "Of these only those that have all the labels.",
    lambda labels: [f"{key}={value}" for key, value in labels], _each(parse_label), (),
)  # fmt: skip
PACKAGE = texts("package", "the name of a package", "Only these packages count; without one all do.")
UNIT = texts("unit", "the name of a unit", "The units that containers are to run.", parse_unit)
BRIDGE = setting("bridge", "The bridge's name.")
IPV4 = setting("ipv4", "The containers' range.")
IPV6 = setting("ipv6", "Their range of IPv6 addresses.")
CVE = texts("cve", "CVE-YEAR-NUMBER", "Only the fixes of these CVEs count, whichever packages have them.", parse_cve)
DEEP = flag("deep", "Compare all files of packages that changed since a container's start, whatever the settings say.")
COUNT = number("count", "How many more containers.", 1, 1, MAX_COUNT)
INIT = word("init", "Of which kind they are.", Init.SYSTEM.value, [each.value for each in Init])
KIND = word("kind", "The console's log, or liblxc's.", "console", LOGS)
LINES = number("lines", "Only the last so many lines; 0: all.", 0, 0, 10**_DIGITS)
SINCE = moment("since", "Only what came then or later.")
FOLLOW = flag("follow", "Go on with later events, for ever.")
REDO = flag("redo", "Do again what the last rollout undid, instead.")

SELECTION: Query[Selection] = Query(PATTERN, LABEL, join=Selection, split=lambda chosen: (chosen.patterns, chosen.labels))
"""The containers of a call that changes nothing: all containers, if nothing is chosen."""


# -- the requests -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogsRequest:
    """``lxcfleet logs``."""

    name: str
    kind: str = "console"
    lines: int = 0
    follow: bool = False


@dataclass(frozen=True)
class LinesRequest:
    """``lxcfleet logs`` of several containers. ``lines``: of each; 0: all. ``since``: seconds since the epoch; 0: all."""

    selection: Selection
    lines: int = 0
    since: float = 0.0
    follow: bool = False


@dataclass(frozen=True)
class EventsRequest:
    """``lxcfleet events``. ``since``: seconds since the epoch; 0: since the daemon started."""

    follow: bool = False
    since: float = 0.0


@dataclass(frozen=True)
class VerifyRequest:
    """``lxcfleet verify``. ``packages``: only these count; empty: all count. ``deep``: compare documentation and
    translations, too. ``cves``: only the fixes of these count; empty: all packages, or those, do."""

    selection: Selection
    packages: tuple[str, ...] = ()
    deep: bool = False
    cves: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnitsRequest:
    """``lxcfleet config check``: the names of units of the host's that containers are to run."""

    units: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetworkRequest:
    """``lxcfleet config check``: a network of the fleet's own, as settings have it."""

    bridge: str
    ipv4: str
    ipv6: str


@dataclass(frozen=True)
class DoctorRequest:
    """``lxcfleet doctor``: can the host take ``count`` more containers with this ``init``?"""

    count: int = 1
    init: Init = Init.SYSTEM

    def to_json(self) -> dict[str, Any]:
        """The body of ``doctor --fix``."""
        return {"count": self.count, "init": self.init.value}

    @classmethod
    def from_json(cls, data: object) -> DoctorRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(fields.integer("count", 1, 1, MAX_COUNT), fields.choice("init", Init, Init.SYSTEM))
        fields.finish(NOT_VALID)
        return request


def _itself(chosen: Selection) -> Selection:
    return chosen


CHOSEN: InQuery[Selection] = InQuery(SELECTION, make=_itself, split=lambda chosen: (chosen,))
"""A call about containers whose request is a selection."""
UNDONE: InQuery[bool] = InQuery(single(REDO), make=bool, split=lambda redo: (redo,))
LOGS_OF: InQuery[LogsRequest] = InQuery(
    single(KIND), single(LINES), single(FOLLOW), path="name", make=LogsRequest,
    split=lambda asked: (asked.name, asked.kind, asked.lines, asked.follow),
)  # fmt: skip
LINES_OF: InQuery[LinesRequest] = InQuery(
    SELECTION, single(LINES), single(SINCE), single(FOLLOW), make=LinesRequest,
    split=lambda asked: (asked.selection, asked.lines, asked.since, asked.follow),
)  # fmt: skip
VERIFIED: InQuery[VerifyRequest] = InQuery(
    SELECTION, single(PACKAGE), single(DEEP), single(CVE), make=VerifyRequest,
    split=lambda asked: (asked.selection, asked.packages, asked.deep, asked.cves),
)  # fmt: skip
EXAMINED: InQuery[DoctorRequest] = InQuery(
    single(COUNT), single(INIT), make=lambda count, init: DoctorRequest(count, Init(init)),
    split=lambda asked: (asked.count, asked.init.value),
)  # fmt: skip
SERVICES: InQuery[UnitsRequest] = InQuery(single(UNIT), make=UnitsRequest, split=lambda asked: (asked.units,))
NETWORKS: InQuery[NetworkRequest] = InQuery(
    single(BRIDGE), single(IPV4), single(IPV6), make=NetworkRequest,
    split=lambda asked: (asked.bridge, asked.ipv4, asked.ipv6),
)
FOLLOWED: InQuery[EventsRequest] = InQuery(
    single(FOLLOW), single(SINCE), make=EventsRequest, split=lambda asked: (asked.follow, asked.since)
)
