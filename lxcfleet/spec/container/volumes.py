"""The mounts of a container beside its layers: volumes, directories of the host, and memory file systems. Pure.

Each mount is written as a text, ``SOURCE:TARGET[:OPTION]…``, or as a mapping, whose keys are those of the fleet's file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.names import check_label, check_name
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import row
from lxcfleet.spec.reading.types import Items, Pairs, Size, Text, Whole
from lxcfleet.units import as_size, parse_size

MOST = 64
"""The most mounts of one container."""
TMPFS = "tmpfs"
_LONGEST = 1024
"""The most bytes of a path."""
_HINT = "write it as VOLUME:/PATH, /HOST/PATH:/PATH or tmpfs:/PATH:size=SIZE, with options such as :ro at the end"

_OWN = ("/dev", "/proc", "/run", "/sys")
"""Each container mounts these anew at its start."""
_EMPTIED = ("/tmp", "/var/tmp")
"""systemd-tmpfiles removes all files there at boot, or old ones once a day; tmpfiles.d(5)."""
_PROGRAMS = re.compile(
    r"/|/(etc|var|var/lib|var/lib/dpkg(/.*)?|usr|(usr/)?(bin|sbin|lib|lib32|lib64|libx32|libexec))|/(usr/)?lib/[^/]+-linux-[^/]+"
)
"""Directories with the host's programs, libraries and records, which every patch changes."""


class MountKind(StrEnum):
    """The kinds of what can be mounted. The words are keys of a mount that is written as a mapping."""

    VOLUME = "volume"
    HOST = "host"
    TMPFS = TMPFS
    APP = "app"
    """A release of an app. A container has it by its field ``app``, and not by its volumes; see spec.container.apps."""


_ASKED = (MountKind.VOLUME, MountKind.HOST, MountKind.TMPFS)
"""The kinds that can be asked for as a volume."""


class IdsOwner(StrEnum):
    """The owner of the ids that the files of a directory of the host have inside."""

    HOST = "host"
    """The host's. The container may do with them what any other user of the host may do."""
    CONTAINER = "container"
    """The container's: 0 is root inside, as in a volume."""


@dataclass(frozen=True, order=True)
class VolumeMount:
    """One mount of a container."""

    target: str
    """The absolute path inside."""
    source: MountKind
    what: str = ""
    """The volume's name, the path on the host, or the app's release; empty for a tmpfs."""
    read_only: bool = False
    owner: IdsOwner = IdsOwner.HOST
    """Only a directory of the host may have another one."""
    suid: bool = False
    """Whether setuid programs on it give rights."""
    dev: bool = False
    """Whether device files on it work."""
    noexec: bool = False
    """Whether no program on it can be run."""
    size: int = 0
    """The most bytes that a tmpfs may take."""
    mode: int = 0o755
    """The mode of a tmpfs's top directory."""

    def __str__(self) -> str:
        words = [self.what or TMPFS, self.target]
        if self.source is MountKind.HOST:
            words += ["ro" if self.read_only else "rw", *(["owner=container"] if self.owner is IdsOwner.CONTAINER else [])]
        elif self.read_only and self.source is not MountKind.APP:
            words.append("ro")
        words += [flag for flag in _FLAGS if getattr(self, flag)]
        if self.source is MountKind.TMPFS:
            words += [f"size={as_size(self.size)}", *([f"mode={self.mode:04o}"] if self.mode != 0o755 else [])]
        return ":".join(words)


_FLAGS = ("suid", "dev", "noexec")


@dataclass(frozen=True)
class Volume:
    """A volume, as its file ``volume.yaml`` has it."""

    name: str = ""
    size: int = row(Size(), "The most bytes that may be on it; 0: no limit. Takes project quotas.", default=0)
    labels: Mapping[str, str] = row(Pairs(check_label), "Labels, by key.", default={})
    first_id: int = row(
        Whole(65536, 2**32 - 65537), "The first of the uids and gids that its files have on the host's disk.", default=0
    )
    created: str = row(Text(), "When it was created, as an ISO 8601 time in UTC.", default="")


def check_volume(name: str) -> str:
    """``name`` itself, if a volume may have it; raises InvalidInput."""
    try:
        check_name(name)
    except InvalidInput as error:
        raise InvalidInput(f"{name!r} can't be a volume's name", why=error.why) from error
    if name == TMPFS:
        raise InvalidInput(f"a volume can't be named {TMPFS}", why=f"{TMPFS}:/PATH means a file system in memory")
    return name


def parse_mount(text: str) -> VolumeMount:
    """``SOURCE:TARGET[:OPTION]…``; raises InvalidInput."""
    what, colon, rest = text.partition(":")
    if not colon or not what:
        raise InvalidInput(f"{text!r} does not say what is mounted where", hint=_HINT)
    target, *options = rest.split(":")
    source = MountKind.HOST if what.startswith("/") else MountKind.TMPFS if what == TMPFS else MountKind.VOLUME
    if source is MountKind.VOLUME and "@" in what:
        if options:
            raise InvalidInput(f"{text!r}: {options[0]} is no option of an app: it is always mounted read-only")
        return VolumeMount(check_target(target), MountKind.APP, what, read_only=True)
    said: dict[str, Any] = {}
    for option in options:
        key, value = _option(option, text)
        if key in said:
            raise InvalidInput(f"{text!r}: {option} says again what was said before", hint="leave one of them out")
        said[key] = value
    return _mount(source, "" if source is MountKind.TMPFS else what, target, said)


def _option(option: str, whole: str) -> tuple[str, Any]:
    """The key of an option, and its value."""
    key, _, value = option.partition("=")
    if option in ("ro", "rw"):
        return "read_only", option == "ro"
    if option in _FLAGS:
        return option, True
    if key == "size" and value:
        return key, parse_size(value)
    if key == "mode" and re.fullmatch("[0-7]{3,4}", value):
        return key, int(value, 8)
    if key == "owner" and value in tuple(IdsOwner):
        return key, IdsOwner(value)
    raise InvalidInput(
        f"{whole!r}: {option or 'nothing'} is no option of a mount",
        hint="options are ro, rw, suid, dev, noexec, owner=container (a path of the host), size=SIZE and mode=MODE (tmpfs)",
    )


def _mount(source: MountKind, what: str, target: str, said: Mapping[str, Any]) -> VolumeMount:
    """The mount with these values; raises InvalidInput if they don't go together."""
    named = what or TMPFS
    if source is MountKind.HOST:
        check_path(what)
    elif source is MountKind.VOLUME:
        check_volume(what)
    if source is not MountKind.TMPFS:
        refuse_emptied(target)
    for key, of in (("owner", MountKind.HOST), ("size", MountKind.TMPFS), ("mode", MountKind.TMPFS)):
        if key in said and source is not of:
            raise InvalidInput(f"{named}: {key} is for {'a path of the host' if of is MountKind.HOST else of}")
    if source is MountKind.TMPFS:
        if not said.get("size"):
            raise InvalidInput(f"the tmpfs at {target} has no size", why="it could take all memory", hint="add size=64M")
        if said.get("read_only"):
            raise InvalidInput(f"the tmpfs at {target} can't be read-only", why="it would stay empty")
    values: dict[str, Any] = {"read_only": source is MountKind.HOST, **said}
    return VolumeMount(check_target(target), source, what, **values)


def refuse_emptied(target: str) -> None:
    """Raise InvalidInput if systemd in a container would remove what is mounted there."""
    if any(within(target, directory) for directory in _EMPTIED):
        raise InvalidInput(
            f"only a tmpfs can be mounted at {target}", why="systemd in a container would remove files from there",
            hint="mount it elsewhere, such as below /srv",
        )  # fmt: skip


def check_path(path: str) -> str:
    """``path`` itself, if it is absolute, and written without detours; raises InvalidInput."""
    if path == "/":
        raise InvalidInput("/ can't be mounted, and nothing can be mounted there", why="it is the whole root file system")
    if not path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")[1:]):
        raise InvalidInput(f"{path!r} is no absolute path without detours", hint="write it as /srv/data")
    if not path.isprintable() or set(path) & set(":,\\") or len(path.encode(errors="surrogateescape")) > _LONGEST:
        why = f"a path has up to {_LONGEST} bytes, and none of : , \\ and control bytes"
        raise InvalidInput(f"{path!r} can't be mounted", why=why)
    return path


def check_target(path: str) -> str:
    """``path`` itself, if something may be mounted there in a container; raises InvalidInput."""
    check_path(path)
    for own in _OWN:
        if within(path, own):
            raise InvalidInput(f"nothing can be mounted at {path}", why=f"each container mounts {own} anew at its start")
    if within(path, "/tmp") and path != "/tmp":
        why = "/tmp is mounted anew at each start"
        raise InvalidInput(f"nothing can be mounted at {path}", why=why, hint="mount it at /tmp itself, or elsewhere")
    if _PROGRAMS.fullmatch(path):
        raise InvalidInput(
            f"nothing can be mounted at {path}", why="it would hide programs, libraries or records of the host there, which"
            " each patch changes", hint="mount it at a directory below, such as /srv or /opt",
        )  # fmt: skip
    return path


def within(path: str, directory: str) -> bool:
    """Whether ``path`` is ``directory``, or below it."""
    return path == directory or path.startswith(f"{directory}/")


def check_mounts(mounts: Sequence[VolumeMount]) -> None:
    """Raise InvalidInput if two are at the same place, or there are too many."""
    if len(mounts) > MOST:
        raise InvalidInput(f"{len(mounts)} mounts are too many", why=f"a container has {MOST} at most")
    targets = [mount.target for mount in mounts]
    for target in targets:
        if targets.count(target) > 1:
            raise InvalidInput(f"{target} is given twice", why="only one thing can be mounted there")


def volumes_of(mounts: Sequence[VolumeMount]) -> tuple[str, ...]:
    """The names of the volumes among them."""
    return tuple(dict.fromkeys(mount.what for mount in mounts if mount.source is MountKind.VOLUME))


class VolumesType(Items[VolumeMount]):
    """The mounts of a container: each a text, or a mapping with one of volume, host and tmpfs, and a target."""

    def __init__(self) -> None:
        super().__init__(_parse_asked, check_mounts)

    def read(self, fields: Fields, key: str) -> tuple[VolumeMount, ...]:
        """See ValueType."""
        found = []
        for number, item in enumerate(fields.items(key)):
            where = f"{key}[{number}]"
            try:
                found.append(_parse_asked(item) if isinstance(item, str) else _of_mapping(fields.within(where, item)))
            except InvalidInput as error:
                fields.complain(where, f"{error.message}{': ' if error.why else ''}{error.why}")
        try:
            check_mounts(found)
        except InvalidInput as error:
            fields.complain(key, error.message)
        return tuple(found)

    @property
    def form(self) -> str:
        """See ValueType."""
        return "a list of texts or mappings, as in [volumes](volumes.md)"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        keys: dict[str, Any] = {
            "volume": {"type": "string"}, "host": {"type": "string"}, "tmpfs": Size().schema(), "target": {"type": "string"},
            "read_only": {"type": "boolean"}, **{flag: {"type": "boolean"} for flag in _FLAGS},
            "owner": {"enum": list(IdsOwner)}, "mode": {"type": "string", "pattern": "^[0-7]{3,4}$"},
        }  # fmt: skip
        mapping = {"type": "object", "properties": keys, "required": ["target"], "additionalProperties": False}
        return {"type": "array", "maxItems": MOST, "items": {"anyOf": [{"type": "string"}, mapping]}}

    def merge(self, under: tuple[VolumeMount, ...], over: tuple[VolumeMount, ...]) -> tuple[VolumeMount, ...]:
        """See ValueType: of two mounts at the same target, the request's holds."""
        return tuple({mount.target: mount for mount in (*under, *over)}.values())


def _parse_asked(text: str) -> VolumeMount:
    """A mount that somebody asks for. Raises InvalidInput."""
    mount = parse_mount(text)
    if mount.source is MountKind.APP:
        hint = f"write it as the field app: app={mount.what}:{mount.target}, or --app"
        raise InvalidInput(f"{mount.what} is a release of an app, and no volume", hint=hint)
    return mount


def _of_mapping(inner: Fields) -> VolumeMount:
    """A mount that is written as a mapping. Raises InvalidInput."""
    kinds = [kind for kind in _ASKED if inner.has(kind)]
    if len(kinds) != 1:
        raise InvalidInput("takes exactly one of volume, host and tmpfs")
    source = kinds[0]
    said: dict[str, Any] = {}
    what = ""
    if source is MountKind.TMPFS:
        said["size"] = inner.size(source, 0)
    else:
        what = inner.text(source)
    target = inner.text("target")
    for flag in ("read_only", *_FLAGS):
        if inner.has(flag):
            said[flag] = inner.flag(flag)
    if inner.has("owner"):
        said["owner"] = inner.choice("owner", IdsOwner, IdsOwner.HOST)
    if inner.has("mode"):
        said["mode"] = _option(f"mode={inner.text('mode')}", "mode")[1]
    inner.close()
    return _mount(source, what, target, said)
