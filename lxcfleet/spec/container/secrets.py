"""Secrets: where their values come from, and what a container has of them. References only: no value is ever here. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container.volumes import check_path
from lxcfleet.spec.reading.durations import Seconds
from lxcfleet.spec.reading.names import check_name
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.types import Items, ValueType

DIRECTORY = "/run/secrets"
"""Where a container has its secrets."""
MOST = 64
"""The most secrets of one container."""
LARGEST = 512 * 1024
"""The most bytes of a value."""
USUAL_TIMEOUT, MAX_TIMEOUT = 10.0, 60.0
"""Seconds that a source may take."""
LEAST_REFRESH, MOST_REFRESH = 10.0, 30 * 86400.0
_MOST_WORDS, _LONGEST_COMMAND = 64, 4096
_MAX_ID = 65535
_TARGET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_CREDENTIAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,254}")
_MODE = re.compile(r"0?[0-7]{3}")
_HINT = "write it as NAME[:FILE][,uid=UID][,gid=GID][,mode=0400][,on_change=restart|signal:HUP|exec:'COMMAND…'|none]"


# -- where values come from -----------------------------------------------------------------------------------------


class SourceKind(StrEnum):
    """The kinds of sources. The words are keys of a source."""

    CREDENTIAL = "credential"
    """A file below /etc/credstore.encrypted, which systemd-creds decrypts, or else one below /etc/credstore."""
    FILE = "file"
    COMMAND = "command"


@dataclass(frozen=True)
class SecretSource:
    """Where the value of a secret comes from."""

    kind: SourceKind
    what: str = ""
    """The credential's name, or the file's path."""
    command: tuple[str, ...] = ()
    refresh: float = 0.0
    """Seconds after which it is asked for again; 0: only if somebody wants that."""
    timeout: float = USUAL_TIMEOUT
    """Seconds that it may take."""

    def to_json(self) -> dict[str, Any]:
        """In the form of files."""
        said: dict[str, Any] = {str(self.kind): list(self.command) if self.kind is SourceKind.COMMAND else self.what}
        if self.refresh:
            said["refresh"] = self.refresh
        if self.timeout != USUAL_TIMEOUT:
            said["timeout"] = self.timeout
        return said

    def __str__(self) -> str:
        """In words, without the arguments of a command: they may tell too much."""
        return f"{self.kind} {self.command[0] if self.kind is SourceKind.COMMAND else self.what}"


def check_secret(name: str) -> str:
    """``name`` itself, if a secret may have it; raises InvalidInput."""
    try:
        return check_name(name)
    except InvalidInput as error:
        raise InvalidInput(f"{name!r} can't be a secret's name", why=error.why) from error


def read_source(fields: Fields) -> SecretSource:
    """The source that ``fields`` have; complaints go there. Raises InvalidInput if it can't be told at all."""
    kinds = [kind for kind in SourceKind if fields.has(kind)]
    if len(kinds) != 1:
        fields.skip(*SourceKind, "refresh", "timeout")
        fields.close()  # the name of the one that was meant may be mistyped
        raise InvalidInput("takes exactly one of credential, file and command")
    kind = kinds[0]
    what, command = "", tuple[str, ...]()
    if kind is SourceKind.COMMAND:
        command = _command(fields.texts(kind))
    elif kind is SourceKind.FILE:
        what = check_path(fields.text(kind))
    else:
        what = fields.text(kind)
        if not _CREDENTIAL.fullmatch(what):
            raise InvalidInput(f"{what!r} can't be a credential's name", why="it is the name of a file, without slashes")
    refresh = _seconds(fields, "refresh", 0.0, LEAST_REFRESH, MOST_REFRESH)
    timeout = _seconds(fields, "timeout", USUAL_TIMEOUT, 0.1, MAX_TIMEOUT)
    fields.close()
    return SecretSource(kind, what, command, refresh, timeout)


def _command(words: Sequence[str]) -> tuple[str, ...]:
    if not words or not words[0].startswith("/"):
        raise InvalidInput("a command is a list, with the whole path of its program first", hint="[/usr/bin/pass, show, db]")
    if len(words) > _MOST_WORDS or sum(len(word.encode(errors="surrogateescape")) for word in words) > _LONGEST_COMMAND:
        raise InvalidInput(f"a command has up to {_MOST_WORDS} words and {_LONGEST_COMMAND} bytes")
    return tuple(words)


def _seconds(fields: Fields, key: str, usual: float, low: float, high: float) -> float:
    return Seconds(low, high).read(fields, key) if fields.has(key) else usual


class SourcesType(ValueType[Mapping[str, SecretSource]]):
    """Sources by the names of secrets."""

    def read(self, fields: Fields, key: str) -> Mapping[str, SecretSource]:
        """See ValueType."""
        inner = fields.nested(key)
        found = {}
        for name in inner.keys():
            place = inner.place(name)
            try:
                check_secret(name)
                found[name] = read_source(inner.nested(name))
            except InvalidInput as error:
                inner.skip(name)
                inner.complain(name, ": ".join(part for part in (error.message, error.why) if part), place)
        return found

    def parse(self, text: str) -> Mapping[str, SecretSource]:
        """See ValueType."""
        raise InvalidInput(f"{text!r} can't stand for sources of secrets")

    @property
    def form(self) -> str:
        """See ValueType."""
        return "a mapping of names to sources, as in [secrets](secrets.md)"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        times = {"type": ["number", "string", "null"]}
        text, words = {"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}
        source = {
            "type": "object",
            "properties": {"credential": text, "file": text, "command": words, "refresh": times, "timeout": times},
            "additionalProperties": False,
            "oneOf": [{"required": [kind]} for kind in SourceKind],
        }
        return {"type": "object", "additionalProperties": source}

    def render(self, value: Mapping[str, SecretSource]) -> dict[str, Any]:
        """See ValueType."""
        return {name: source.to_json() for name, source in value.items()}

    def tell(self, value: Mapping[str, SecretSource]) -> str:
        """See ValueType."""
        return ", ".join(f"{name}: {source}" for name, source in value.items())


def sources_from_json(data: object) -> dict[str, SecretSource]:
    """The sources that ``to_json`` wrote, by the names of secrets; all that can't be read is left out."""
    return dict(SOURCES.read(Fields({"secrets": data}, "", []), "secrets")) if isinstance(data, dict) else {}


SOURCES = SourcesType()


def key_of(fleet: str | None, name: str) -> str:
    """How a secret is told from those of the same name: FLEET/NAME, or NAME if the settings of the host declare it."""
    return name if fleet is None else f"{fleet}/{name}"


# -- what a container has of them -----------------------------------------------------------------------------------


class Then(StrEnum):
    """The consequence in a container that runs when one of its secrets has another value."""

    NONE = "none"
    """Nothing: its program reads the file again by itself."""
    RESTART = "restart"
    """It is restarted in its turn, in a rollout."""
    SIGNAL = "signal"
    """Its program gets a signal."""
    EXEC = "exec"
    """A command is run inside."""


class ChangeSignal(StrEnum):
    """The signals by which programs can be told to read their files again."""

    HUP = "HUP"
    USR1 = "USR1"
    USR2 = "USR2"
    WINCH = "WINCH"


@dataclass(frozen=True, order=True)
class OnChange:
    """The consequence of a change, with the signal or the command."""

    then: Then = Then.NONE
    signal: str = ""
    command: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = self.signal or shlex.join(self.command)
        return f"{self.then}:{more}" if more else str(self.then)

    def to_json(self) -> Any:
        """In the form of files."""
        if self.then is Then.SIGNAL:
            return {"signal": self.signal}
        return {"exec": list(self.command)} if self.then is Then.EXEC else str(self.then)


@dataclass(frozen=True, order=True)
class SecretUse:
    """One secret of a container: a file in its directory of secrets."""

    target: str
    """The file's name."""
    secret: str
    """The secret's name: of its fleet's, or else of the host's."""
    uid: int = 0
    """The file's owner, as the container numbers it."""
    gid: int = 0
    mode: int = 0o400
    on_change: OnChange = OnChange()

    def __str__(self) -> str:
        words = [self.secret if self.target == self.secret else f"{self.secret}:{self.target}"]
        words += [f"{key}={value}" for key, value in (("uid", self.uid), ("gid", self.gid)) if value]
        words += [f"mode={self.mode:04o}"] if self.mode != 0o400 else []
        words += [f"on_change={self.on_change}"] if self.on_change != OnChange() else []
        return ",".join(words)

    def to_json(self) -> Any:
        """In the form of files: a text, or a mapping if it has a command."""
        if self.on_change.then is not Then.EXEC:
            return str(self)
        said: dict[str, Any] = {"secret": self.secret, "target": self.target}
        said |= {key: value for key, value in (("uid", self.uid), ("gid", self.gid)) if value}
        return {**said, "mode": f"{self.mode:04o}", "on_change": self.on_change.to_json()}


def parse_use(item: str | Mapping[str, Any]) -> SecretUse:
    """A secret of a container from its text, or from a mapping as files have it. Raises InvalidInput."""
    if isinstance(item, str):
        return _parse_text(item)
    complaints: list[str] = []
    use = _of_mapping(Fields(item, "", complaints))
    if complaints:
        raise InvalidInput(complaints[0])
    return use


def _parse_text(text: str) -> SecretUse:
    head, *options = text.split(",")
    secret, colon, target = head.partition(":")
    if not secret or (colon and not target):
        raise InvalidInput(f"{text!r} names no secret", hint=_HINT)
    said: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or key in said or key not in ("uid", "gid", "mode", "on_change"):
            problem = "is said twice" if key in said else "is no option of a secret"
            raise InvalidInput(f"{text!r}: {option or 'nothing'} {problem}", hint=_HINT)
        said[key] = value
    if "on_change" in said:
        said["on_change"] = _parse_change(said["on_change"])
    for key in ("uid", "gid"):
        if key in said:
            said[key] = _parse_id(key, said[key])
    if "mode" in said:
        said["mode"] = _mode(said["mode"])
    return _use(secret, target or secret, said)


def _parse_id(key: str, text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > _MAX_ID:
        raise InvalidInput(f"{key}={text} is no number from 0 to {_MAX_ID}", why="names of users differ in each container")
    return int(text)


def _mode(text: str) -> int:
    if not _MODE.fullmatch(text):
        raise InvalidInput(f"mode {text!r} is none from 0000 to 0777", hint='write it in quotes, as in "0440"')
    return int(text, 8)


def _parse_change(text: str) -> OnChange:
    word, _, more = text.partition(":")
    if word == Then.EXEC:
        try:
            return _exec(shlex.split(more))
        except ValueError as error:
            raise InvalidInput(f"{more!r} is no command", why=str(error)) from error
    if word == Then.SIGNAL:
        return _signal(more)
    if more or word not in (Then.NONE, Then.RESTART):
        raise InvalidInput(f"on_change={text} is none of restart, signal:HUP, exec:COMMAND and none")
    return OnChange(Then(word))


def _signal(word: str) -> OnChange:
    word = word.removeprefix("SIG")
    if word not in tuple(ChangeSignal):
        raise InvalidInput(f"{word!r} is none of the signals {', '.join(ChangeSignal)}")
    return OnChange(Then.SIGNAL, word)


def _exec(words: Sequence[str]) -> OnChange:
    if not words or not words[0] or len(words) > _MOST_WORDS or sum(map(len, words)) > _LONGEST_COMMAND:
        raise InvalidInput(f"exec takes a command of 1 to {_MOST_WORDS} words and {_LONGEST_COMMAND} bytes")
    for word in words:
        if not word.isprintable():
            raise InvalidInput(f"exec: {word!r} holds control characters, or is not UTF-8")
    return OnChange(Then.EXEC, command=tuple(words))


def _use(secret: str, target: str, said: Mapping[str, Any]) -> SecretUse:
    check_secret(secret)
    if not _TARGET.fullmatch(target):
        raise InvalidInput(
            f"{target!r} can't be the name of a secret's file",
            why=f"it is a name in {DIRECTORY}: letters, digits and _.-, without slashes, and no dot in front",
        )
    return SecretUse(target, secret, **said)


def check_uses(uses: Sequence[SecretUse]) -> None:
    """Raise InvalidInput if two have the same file, or there are too many."""
    if len(uses) > MOST:
        raise InvalidInput(f"{len(uses)} secrets are too many", why=f"a container has {MOST} at most")
    targets = [use.target for use in uses]
    for target in targets:
        if targets.count(target) > 1:
            raise InvalidInput(f"{DIRECTORY}/{target} is given twice", why="it can have one secret only")


class SecretsType(Items[SecretUse]):
    """The secrets of a container: each a text, or a mapping with ``secret`` and what differs of the other keys."""

    def __init__(self) -> None:
        super().__init__(parse_use, check_uses, lambda use: use.target)

    def read(self, fields: Fields, key: str) -> tuple[SecretUse, ...]:
        """See ValueType."""
        found = []
        for number, item in enumerate(fields.items(key)):
            where = f"{key}[{number}]"
            try:
                found.append(_parse_text(item) if isinstance(item, str) else _of_mapping(fields.within(where, item)))
            except InvalidInput as error:
                fields.complain(where, ": ".join(part for part in (error.message, error.why) if part))
        try:
            check_uses(found)
        except InvalidInput as error:
            fields.complain(key, error.message)
        return tuple(found)

    def parse(self, text: str) -> tuple[SecretUse, ...]:
        """Several, with commas between them; what follows a comma and has ``=`` belongs to the one before. See ValueType."""
        items: list[str] = []
        for part in text.split(","):
            if items and "=" in part:
                items[-1] += f",{part.strip()}"
            elif part.strip():
                items.append(part.strip())
        uses = tuple(map(parse_use, items))
        check_uses(uses)
        return uses

    @property
    def form(self) -> str:
        """See ValueType."""
        return "a list of texts or mappings, as in [secrets](secrets.md)"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        number = {"type": "integer", "minimum": 0, "maximum": _MAX_ID}
        signal: dict[str, Any] = {"properties": {"signal": {"enum": list(ChangeSignal)}}, "required": ["signal"]}
        words = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        command: dict[str, Any] = {"properties": {"exec": words}, "required": ["exec"]}
        closed = {"type": "object", "additionalProperties": False}
        change = {"anyOf": [{"type": "string"}, {**signal, **closed}, {**command, **closed}]}
        keys: dict[str, Any] = {
            "secret": {"type": "string"}, "target": {"type": "string"}, "uid": number, "gid": number,
            "mode": {"type": "string", "pattern": f"^{_MODE.pattern}$"}, "on_change": change,
        }  # fmt: skip
        mapping = {"type": "object", "properties": keys, "required": ["secret"], "additionalProperties": False}
        return {"type": "array", "maxItems": MOST, "items": {"anyOf": [{"type": "string"}, mapping]}}

    def render(self, value: tuple[SecretUse, ...]) -> list[Any]:
        """See ValueType."""
        return [use.to_json() for use in value]

    def merge(self, under: tuple[SecretUse, ...], over: tuple[SecretUse, ...]) -> tuple[SecretUse, ...]:
        """See ValueType: of two with the same file, the request's holds."""
        return tuple({use.target: use for use in (*under, *over)}.values())


def _of_mapping(inner: Fields) -> SecretUse:
    """A secret of a container that is written as a mapping; complaints go to ``inner``. Raises InvalidInput."""
    said: dict[str, Any] = {}
    secret = inner.text("secret")
    target = inner.text("target", secret)
    for key in ("uid", "gid"):
        if inner.has(key):
            said[key] = inner.integer(key, 0, 0, _MAX_ID)
    if inner.has("mode"):
        if not isinstance(inner.raw("mode"), str):
            inner.skip("mode")
            raise InvalidInput("mode is a text in quotes, such as \"0440\"", why="YAML takes 0440 for another number")
        said["mode"] = _mode(inner.text("mode"))
    if inner.has("on_change"):
        said["on_change"] = _change(inner)
    inner.close()
    return _use(secret, target, said)


def _change(inner: Fields) -> OnChange:
    if isinstance(inner.raw("on_change"), str):
        return _parse_change(inner.text("on_change"))
    how = inner.nested("on_change")
    if how.has("signal") == how.has("exec"):
        how.skip(*how.keys())
        raise InvalidInput("on_change is one of restart, none, {signal: HUP} and {exec: [COMMAND, …]}")
    made = _signal(how.text("signal")) if how.has("signal") else _exec(how.texts("exec"))
    how.close()
    return made
