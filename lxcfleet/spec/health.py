"""Health checks as a spec, a profile or a request declares them. Values only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import quote, urlsplit

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reader import Fields
from lxcfleet.spec.types import ValueType

MAX_TIMEOUT = 60.0
"""Seconds; the launcher's children may not take longer than 120."""
_HTTP_PORT = 80


class CheckKind(StrEnum):
    """The kind of a health check."""

    EXEC = "exec"
    """A command inside the container must exit with 0."""
    TCP = "tcp"
    """A port must accept a connection."""
    HTTP = "http"
    """A GET request must be answered with a status from 200 to 399."""


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
    interval: float = 10.0
    """Between two checks. Until the first check passes the pauses are shorter: 0.1 s, then twice that, …"""
    timeout: float = 5.0
    """A check without an answer for this long has failed."""
    retries: int = 3
    """So many failures in a row make a container unhealthy. One check that passes makes it healthy."""
    start_period: float = 30.0
    """For this long after a start failures do not count, unless a check has passed."""

    @property
    def needs_address(self) -> bool:
        """Whether the check reaches the container over the network."""
        return self.kind is not CheckKind.EXEC

    def to_json(self) -> dict[str, Any]:
        """The check as JSON, the form in specs and requests."""
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


def _read(fields: Fields, key: str) -> HealthCheck:
    inner = fields.nested(key)
    usual = HealthCheck(CheckKind.TCP)
    said = [kind for kind in CheckKind if inner.has(kind)]
    command = inner.texts(CheckKind.EXEC)
    port = inner.integer(CheckKind.TCP, 1, 1, 65535)
    host, path = None, "/"
    if inner.has(CheckKind.HTTP):
        try:
            host, port, path = parse_url(inner.text(CheckKind.HTTP))
        except InvalidInput as error:
            inner.complain(CheckKind.HTTP, error.message)
    check = HealthCheck(
        kind=said[0] if said else CheckKind.EXEC,
        command=command,
        port=0 if CheckKind.EXEC in said else port,
        path=path,
        host=host,
        interval=inner.number("interval", usual.interval, 0.1, 3600),
        timeout=inner.number("timeout", usual.timeout, 0.1, MAX_TIMEOUT),
        retries=inner.integer("retries", usual.retries, 1, 1000),
        start_period=inner.number("start_period", usual.start_period, 0, 86400),
    )
    inner.close()
    if len(said) != 1:
        fields.complain(key, "takes exactly one of exec, tcp and http")
    elif check.kind is CheckKind.EXEC and not command:
        inner.complain(CheckKind.EXEC, "expected a command as a list")
    return check


class HealthType(ValueType[HealthCheck]):
    """How a check is read and written."""

    def read(self, fields: Fields, key: str) -> HealthCheck:
        """See ValueType."""
        return _read(fields, key)

    def parse(self, text: str) -> HealthCheck:
        """``tcp PORT``, ``http [PORT][/PATH]|URL`` or ``exec SHELL-COMMAND``, as ``str`` shows it; see ValueType."""
        kind, _, rest = text.strip().partition(" ")
        if kind not in tuple(CheckKind) or not rest.strip():
            raise InvalidInput(f"{text!r} is no check", hint="write it as 'tcp PORT', 'http PORT/PATH' or 'exec COMMAND'")
        fields = Fields({"health": {kind: self._what(CheckKind(kind), rest.strip())}}, "health")
        check = _read(fields, "health")
        fields.finish(f"{text!r} is no check")
        return check

    def _what(self, kind: CheckKind, text: str) -> object:
        if kind is CheckKind.EXEC:
            return ["/bin/sh", "-c", text]
        return int(text) if kind is CheckKind.TCP and re.fullmatch("[0-9]{1,9}", text) else text

    @property
    def form(self) -> str:
        """See ValueType."""
        return "a mapping, as in [health](health.md)"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        usual = HealthCheck(CheckKind.TCP)
        return {
            "type": "object",
            "properties": {
                "exec": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                "tcp": {"type": "integer", "minimum": 1, "maximum": 65535},
                "http": {"type": "string", "minLength": 1},
                "interval": {"type": "number", "minimum": 0.1, "maximum": 3600, "default": usual.interval},
                "timeout": {"type": "number", "minimum": 0.1, "maximum": MAX_TIMEOUT, "default": usual.timeout},
                "retries": {"type": "integer", "minimum": 1, "maximum": 1000, "default": usual.retries},
                "start_period": {"type": "number", "minimum": 0, "maximum": 86400, "default": usual.start_period},
            },
            "oneOf": [{"required": [str(kind)]} for kind in CheckKind],
            "additionalProperties": False,
        }

    def render(self, value: HealthCheck) -> dict[str, Any]:
        """See ValueType."""
        return value.to_json()

    def tell(self, value: HealthCheck) -> str:
        """See ValueType."""
        return ", ".join(f"{key}={inner}" for key, inner in sorted(value.to_json().items()))
