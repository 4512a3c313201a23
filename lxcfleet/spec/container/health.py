"""Health checks as a spec, a profile or a request declares them. Values only."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any
from urllib.parse import quote, urlsplit

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container.unit_names import check_unit
from lxcfleet.spec.reading.durations import Seconds
from lxcfleet.spec.reading.reader import Fields, Marked
from lxcfleet.spec.reading.rows import Row, read_said, row, rows_of, schema_of
from lxcfleet.spec.reading.types import Items, Text, Texts, ValueType, Whole

MAX_TIMEOUT = 60.0
"""Seconds; the attacher's children may not take longer than 120."""
_HTTP_PORT = 80
SHELL = ("/bin/sh", "-c")
class CheckKind(StrEnum):
    """The kind of a health check."""

    EXEC = "exec"
    """A command inside the container must exit with 0."""
    TCP = "tcp"
    """A port must accept a connection."""
    HTTP = "http"
    """A GET request must be answered with a status from 200 to 399."""
    UNITS = "ignore_units"
    """The container's systemd is asked, as without a check, and these units do not count."""


@dataclass(frozen=True)
class HealthCheck:
    """A check whether a running container does its work. Times are in seconds."""

    kind: CheckKind
    command: tuple[str, ...] = ()
    """For exec."""
    port: int = 0
    """For tcp and http."""
    path: str = "/"
    """For http."""
    host: str | None = None
    """For http: the Host header; None: the container's name."""
    units: tuple[str, ...] = ()
    """For ignore_units."""
    interval: float = row(
        Seconds(0.1, 3600), "Seconds from one check to the next. At first they come faster: after 0.1 s, then twice that, …",
        default=10.0, option=("--health-interval",), metavar="TIME",
    )
    timeout: float = row(
        Seconds(0.1, MAX_TIMEOUT), "Seconds that a check may take; without an answer by then it has failed.",
        default=5.0, option=("--health-timeout",), metavar="TIME",
    )
    retries: int = row(
        Whole(1, 1000), "So many failures in a row mean unhealthy. One check that passes means healthy.",
        default=3, option=("--health-retries",), metavar="N",
    )
    start_period: float = row(
        Seconds(0, 86400), "Seconds after a start in which failures do not count, unless a check has passed.",
        default=30.0, option=("--health-start-period",), metavar="TIME",
    )  # fmt: skip

    @property
    def needs_address(self) -> bool:
        """Whether the check reaches the container over the network."""
        return self.kind in (CheckKind.TCP, CheckKind.HTTP)

    def to_json(self) -> dict[str, Any]:
        """The check as JSON, the form in specs and requests."""
        if self.kind is CheckKind.UNITS:
            return {str(self.kind): list(self.units)}
        what: dict[CheckKind, Any] = {CheckKind.EXEC: list(self.command), CheckKind.TCP: self.port, CheckKind.HTTP: self.url}
        return {
            str(self.kind): what[self.kind],
            "interval": self.interval,
            "timeout": self.timeout,
            "retries": self.retries,
            "start_period": self.start_period,
        }

    @property
    def url(self) -> str:
        """For http: the text that ``parse_url`` takes."""
        return f"http://{self.host}:{self.port}{self.path}" if self.host else f"{self.port}{self.path}"

    def __str__(self) -> str:
        match self.kind:
            case CheckKind.EXEC:
                return f"exec {' '.join(self.command)}"
            case CheckKind.TCP:
                return f"tcp {self.port}"
            case CheckKind.HTTP:
                return f"http {self.url}"
            case CheckKind.UNITS:
                return f"ignore_units {' '.join(self.units)}"


_PATH = re.compile(r"/[!-~]*")


def parse_url(text: str) -> tuple[str | None, int, str]:
    """``8080``, ``8080/path``, ``/path`` or ``http://HOST:8080/path`` as host, port and path; raises InvalidInput.

    The request always goes to the container's own address; HOST only goes into the Host header.
    """
    why = "write it as PORT, PORT/PATH, /PATH or http://HOST:PORT/PATH"
    if text.startswith("https:"):
        raise InvalidInput(f"{text!r}: https can't be checked", hint="check it from inside: --health-exec 'curl …'")
    whole = text if text.startswith("http://") else "http://" + (f":{text}" if text[:1].isdigit() else text)
    try:
        parts = urlsplit(whole)
        port = parts.port
    except ValueError as error:
        raise InvalidInput(f"{text!r} is no address of a check", hint=why) from error
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{parts.query}" if parts.query else "")
    wrong = parts.fragment or "@" in parts.netloc or not _PATH.fullmatch(path) or port == 0
    if not text or not text.isprintable() or wrong or (parts.hostname and not text.startswith("http://")):
        raise InvalidInput(f"{text!r} is no address of a check", hint=why)
    return parts.hostname, port or _HTTP_PORT, path


class _ShellCommand(Texts):
    """A command as a list; on a command line a shell command."""

    def parse(self, text: str) -> tuple[str, ...]:
        """See ValueType."""
        return (*SHELL, text)

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {**super().schema(), "minItems": 1}


class _Url(Text):
    """The address of a check over HTTP."""

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        return {"type": "string", "minLength": 1}


def _some_units(units: tuple[str, ...]) -> None:
    if not units:
        raise InvalidInput("expected the names of units")


KINDS: Mapping[CheckKind, Row] = {
    CheckKind.EXEC: Row(
        _ShellCommand(), "Healthy is when this command inside exits with 0: in files a list, as an option a shell command.",
        key="exec", option=("--health-exec",), metavar="CMD",
    ),
    CheckKind.TCP: Row(
        Whole(1, 65535), "Healthy is when this port accepts a connection.", key="tcp",
        option=("--health-tcp",), metavar="PORT",
    ),
    CheckKind.HTTP: Row(
        _Url(parse_url), "Healthy is when this is answered with a status from 200 to 399.", key="http",
        option=("--health-http",), metavar="[PORT][/PATH]|URL",
    ),
    CheckKind.UNITS: Row(
        Items(check_unit, _some_units), "Healthy is when its systemd is well, and these units do not count (system containers"
        " only).", key="ignore_units", option=("--health-ignore-unit",), metavar="UNIT",
    ),
}  # fmt: skip
"""The keys of which a check has exactly one."""


@cache
def rows() -> Mapping[str, Row]:
    """All keys of a check."""
    return {**{str(kind): each for kind, each in KINDS.items()}, **rows_of(HealthCheck)}


def check_of(said: Mapping[str, Any]) -> HealthCheck:
    """The check with these values by key. One of them is that of its kind. Raises InvalidInput."""
    kind = next(kind for kind in CheckKind if kind in said)
    more = {key: value for key, value in said.items() if key not in KINDS}
    match kind:
        case CheckKind.EXEC:
            return HealthCheck(kind, command=said[kind], **more)
        case CheckKind.TCP:
            return HealthCheck(kind, port=said[kind], **more)
        case CheckKind.HTTP:
            host, port, path = parse_url(said[kind])
            return HealthCheck(kind, host=host, port=port, path=path, **more)
        case CheckKind.UNITS:
            for name in more:
                raise InvalidInput(f"{name} does nothing with ignore_units", why="systemd is asked after a start only")
            return HealthCheck(kind, units=said[kind])


def _read(fields: Fields, key: str) -> HealthCheck | None:
    inner = fields.nested(key)
    kinds = [kind for kind in CheckKind if inner.has(kind)]
    said = read_said(rows().values(), inner)
    inner.close()
    if len(kinds) != 1:
        fields.complain(key, "takes exactly one of exec, tcp, http and ignore_units")
        return None
    if said.get(CheckKind.EXEC) == ():
        inner.complain(CheckKind.EXEC, "expected a command as a list")
    try:
        return check_of(said) if kinds[0] in said else None
    except InvalidInput as error:
        fields.complain(key, error.message)
        return None


_FORMS = (
    "write it as 'tcp PORT', 'http PORT/PATH', 'exec COMMAND' or 'ignore_units UNIT...',"
    " with what differs of interval, timeout, retries and start_period before that: 'interval=2 tcp 25'"
)
_WORDS = (CheckKind.TCP, CheckKind.HTTP)
"""Kinds of which the first word says what is asked; what differs may follow that, too."""


def _options(words: Iterable[str]) -> dict[str, Any]:
    """``interval=2`` and the like up to the first other word, by key. Raises InvalidInput."""
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in rows_of(HealthCheck):
            break
        found[key] = rows_of(HealthCheck)[key].type.parse(value)
    return found


class HealthType(ValueType[HealthCheck]):
    """How a check is read and written."""

    whole = False

    def read(self, fields: Fields, key: str) -> HealthCheck | None:
        """See ValueType."""
        return _read(fields, key)

    def parse(self, text: str) -> HealthCheck:
        """``tcp PORT``, ``http [PORT][/PATH]|URL``, ``exec SHELL-COMMAND`` or ``ignore_units UNIT…``, as ``str`` shows it,
        with ``interval=2`` and the like before it; see ValueType."""
        said = _options(text.split())
        kind, *rest = text.split(maxsplit=len(said) + 1)[len(said) :] or [""]
        if kind not in tuple(CheckKind) or not rest:
            raise InvalidInput(f"{text!r} is no check", hint=_FORMS)
        what = rest[0].strip()
        if kind in _WORDS:
            what, *more = what.split()
            later = _options(more)
            if len(later) < len(more):
                raise InvalidInput(f"{more[len(later)]!r} has no place in a check by {kind}", hint=_FORMS)
            said |= later
        fields = Fields({"health": {kind: self._what(CheckKind(kind), what), **said}}, "health")
        check = _read(fields, "health")
        fields.finish(f"{text!r} is no check")
        assert check is not None, "what can't be read is complained of"
        return check

    def _what(self, kind: CheckKind, text: str) -> object:
        if kind is CheckKind.EXEC:
            return [*SHELL, text]
        if kind is CheckKind.UNITS:
            return text.split()
        return int(text) if kind is CheckKind.TCP and re.fullmatch("[0-9]{1,9}", text) else text

    @property
    def form(self) -> str:
        """See ValueType."""
        return "a mapping, as in [health](health.md)"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        # A key without a value counts as missing, so it does not count as the one that is required.
        one = [{"required": [str(kind)], "properties": {str(kind): {"not": {"type": "null"}}}} for kind in CheckKind]
        return {**schema_of(rows().values()), "oneOf": one}

    def alone(self, said: Marked) -> Marked:
        """See ValueType: a check of one kind takes the place of one of another kind."""
        kinds = [kind for kind in CheckKind if said.get(kind) is not None]
        if len(kinds) != 1:
            return said
        made = said.copy()
        excluded = [*rows()] if kinds == [CheckKind.UNITS] else [str(kind) for kind in KINDS]
        for key in excluded:
            if key not in said:
                made.put(key, None, said.places[kinds[0]])
        return made

    def part(self) -> dict[str, Any]:
        """See ValueType."""
        return schema_of(rows().values())

    def render(self, value: HealthCheck) -> dict[str, Any]:
        """See ValueType."""
        return value.to_json()

    def tell(self, value: HealthCheck) -> str:
        """See ValueType."""
        return " ".join(f"{key}={self._word(inner)}" for key, inner in value.to_json().items())

    @staticmethod
    def _word(value: object) -> str:
        """A key's value in the form in which it is typed."""
        if isinstance(value, list):
            return shlex.quote(value[-1] if value[:2] == list(SHELL) else shlex.join(value))
        return f"{value:g}" if isinstance(value, float) else str(value)
