"""Apps: an application that is shipped once, in releases, and that containers mount read-only. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container.volumes import MountKind, VolumeMount, check_path, check_target, refuse_emptied, within
from lxcfleet.spec.reading.names import check_name
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import row
from lxcfleet.spec.reading.types import Choice, Pairs, Text, Texts, ValueType, Whole

PLACES = "/opt"
"""An app is mounted at its name below this directory, unless its spec names another place."""
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}")
_HINT = "write it as NAME@VERSION, or NAME@VERSION:/PATH"
MAX_FILES = 200_000
"""The most files and directories of a release."""


ROOT = "/"
"""The place of a release that is a layer: its files are among the host's."""


class AppForm(StrEnum):
    """How containers have a release."""

    MOUNT = "mount"
    """As a mount at a place of its own."""
    LAYER = "layer"
    """As a layer between the mask and the container's own files."""


@dataclass(frozen=True, order=True)
class AppUse:
    """The release of an app that a container has, and where."""

    name: str
    version: str
    target: str
    """The absolute path inside."""

    @property
    def release(self) -> str:
        """As people write it: NAME@VERSION."""
        return f"{self.name}@{self.version}"

    @property
    def form(self) -> AppForm:
        """How the container has it."""
        return AppForm.LAYER if self.target == ROOT else AppForm.MOUNT

    def inside(self, path: str) -> str | None:
        """The path within the release of what the container may have from it at ``path``; None: that is elsewhere."""
        if self.form is AppForm.LAYER:
            return path.lstrip("/")
        return path.removeprefix(self.target).lstrip("/") if within(path, self.target) else None

    @property
    def mount(self) -> VolumeMount:
        """How it is mounted, unless it is a layer."""
        return VolumeMount(self.target, MountKind.APP, self.release, read_only=True)

    def __str__(self) -> str:
        return self.release if self.target == usual_target(self.name) else f"{self.release}:{self.target}"


@dataclass(frozen=True)
class Release:
    """One release of an app, as its file ``app.yaml`` has it."""

    name: str = ""
    version: str = ""
    digest: str = row(Text(), "SHA-256 of the list of its files: names, modes, contents.", default="")
    size: int = row(Whole(0, 2**62), "Bytes of its files.", default=0)
    files: int = row(Whole(0, MAX_FILES), "Files, links and directories in it.", default=0)
    created: str = row(Text(), "When it was sealed, as an ISO 8601 time in UTC.", default="")
    source: str = row(Text(), "Where it came from.", default="")
    base: str = row(Text(), "The base that it was built on; empty: it was not built here.", default="")
    packages: Mapping[str, str] = row(
        Pairs(lambda key, value: (key, value)), "Packages that it was built against, with their versions.", default={}
    )
    form: AppForm = row(Choice(AppForm), "How containers have it.", default=AppForm.MOUNT)
    covers: tuple[str, ...] = row(Texts(), "Of a layer: what of the host it may hide.", default=())
    image: str = row(Text(), "Of a layer: SHA-256 of its image.", default="")
    no_erofs: str = row(Text(), "Of a layer: why its image is ext4; empty: it is erofs.", default="")

    @property
    def release(self) -> str:
        """As people write it: NAME@VERSION."""
        return f"{self.name}@{self.version}"


def usual_target(name: str) -> str:
    """Where the app is mounted if nobody says otherwise."""
    return f"{PLACES}/{name}"


def check_app(name: str) -> str:
    """``name`` itself, if an app may have it; raises InvalidInput."""
    try:
        return check_name(name)
    except InvalidInput as error:
        raise InvalidInput(f"{name!r} can't be an app's name", why=error.why) from error


def check_version(version: str) -> str:
    """``version`` itself, if a release may have it; raises InvalidInput."""
    if not _VERSION.fullmatch(version):
        raise InvalidInput(
            f"{version!r} can't be a version", why="it has 1 to 64 letters, digits and . _ + ~ -, and begins with a letter or"
            " a digit",
        )  # fmt: skip
    return version


def parse_release(text: str) -> tuple[str, str]:
    """The name and the version of ``NAME@VERSION``; raises InvalidInput."""
    name, at, version = text.partition("@")
    if not at:
        raise InvalidInput(f"{text!r} names no release of an app", hint="write it as NAME@VERSION, such as shop@1.4")
    return check_app(name), check_version(version)


def check_covers(path: str) -> str:
    """``path`` itself, if a layer may be allowed to hide it; raises InvalidInput."""
    check_path(path)
    if path.count("/") < (3 if path.startswith("/usr/") else 2):
        raise InvalidInput(f"a layer can't cover all of {path}", hint="name the files, or a directory further down")
    return path


def outdated(name: str, versions: Sequence[str], keep: int, used: Collection[str], needed: Collection[str]) -> list[str]:
    """The versions of an app that may be removed if ``keep`` of them are to stay, at least 1: never one that containers have
    (``used``), the one that was sealed before such a one, or one of the releases that are ``needed``.

    ``versions``: in the order in which they were sealed.
    """
    before = {one for one, other in itertools.pairwise(versions) if other in used}
    held = {*used, *before}
    return [each for each in versions[:-keep] if each not in held and f"{name}@{each}" not in needed]


def parse_app(text: str) -> AppUse:
    """``NAME@VERSION[:/PATH]``; raises InvalidInput."""
    release, colon, target = text.partition(":")
    try:
        name, version = parse_release(release)
    except InvalidInput as error:
        error.hint = error.hint and _HINT
        raise
    return AppUse(name, version, check_place(target if colon else usual_target(name)))


def check_place(target: str) -> str:
    """``target`` itself, if an app may be there; raises InvalidInput."""
    if target != ROOT:
        refuse_emptied(check_target(target))
    return target


class AppType(ValueType[AppUse]):
    """The app of a container: a text, or a mapping with ``release`` and ``target``."""

    def read(self, fields: Fields, key: str) -> AppUse | None:
        """See ValueType."""
        try:
            if isinstance(fields.raw(key), Mapping):
                inner = fields.nested(key)
                release = inner.text("release")
                target = inner.text("target")
                inner.close()
                return parse_app(f"{release}:{target}" if target else release)
            return parse_app(fields.text(key))
        except InvalidInput as error:
            fields.complain(key, ": ".join(part for part in (error.message, error.why or error.hint) if part))
            return None

    def parse(self, text: str) -> AppUse:
        """See ValueType."""
        return parse_app(text)

    @property
    def form(self) -> str:
        """See ValueType."""
        return "text, as in [apps](apps.md): NAME@VERSION, or NAME@VERSION:/PATH"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        text = {"type": "string", "pattern": r"^[a-z0-9-]+@[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}(:/.*)?$"}
        keys = {"release": text, "target": {"type": "string"}}
        mapping = {"type": "object", "properties": keys, "required": ["release"], "additionalProperties": False}
        return {"anyOf": [text, mapping]}

    def render(self, value: AppUse) -> str:
        """See ValueType."""
        return str(value)
