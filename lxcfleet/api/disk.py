"""The requests and records of ``du`` and ``diff NAME``, as they travel between client and daemon. Values only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from lxcfleet.api.queries import SELECTION, flag, number
from lxcfleet.api.shape import InQuery, Key, single
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.selection import Selection

MOST_DEPTH = 30
MOST_PATHS = 1000
MOST_CHANGES = 20_000
_LONGEST = 4096
"""PATH_MAX; limits.h."""


@dataclass(frozen=True)
class DiskRequest:
    """``lxcfleet du``."""

    selection: Selection
    depth: int = 0
    top: int = 20
    volumes: bool = False


@dataclass(frozen=True)
class DiffRequest:
    """``lxcfleet diff NAME``."""

    name: str
    path: str = "/"
    most: int = 2000


class DiskPathRecord(TypedDict):
    """A directory with all below it, or a file. ``path``: below the delta's or the volume's top."""

    path: str
    disk_bytes: int
    """The space on disk: a hole in a file takes none."""
    apparent_bytes: int
    """The sizes of the files."""
    items: int
    """How many files and directories."""


class DiskRecord(TypedDict):
    """The space that one delta or volume takes on the disk."""

    name: str
    kind: str
    """container or volume."""
    disk_bytes: int
    """The space on disk. A file with several names counts once."""
    apparent_bytes: int
    """The sizes of the files."""
    items: int
    """How many files and directories."""
    paths: list[DiskPathRecord]
    """The largest paths, the largest first, as far as they were asked for."""
    cut: bool
    """Whether not all was looked at: it is too deep, too many, or took too long."""
    problem: str | None
    """Why it could not be looked at."""


class PathChangeRecord(TypedDict):
    """A path of a container that is not as mask and base have it."""

    path: str
    change: str
    """added, removed, type, changed (the content), mode, owner, or touched: copied into the delta, and the same so far."""
    type: str
    """file, directory, link, device, fifo or socket; of a removed path, the kind that it had."""
    was: str | None
    """The type below, if it is another one."""
    size: int
    mode: str | None
    was_mode: str | None
    """Both modes, in octal, if they differ."""
    owner: str | None
    was_owner: str | None
    """Both owners, UID:GID as the container sees them, if they differ."""
    layer: str | None
    """The layer that has the path below; null: none has."""


class DiffRecord(TypedDict):
    """The changes that a container made."""

    name: str
    path: str
    changed: bool
    counts: dict[str, int]
    """How many paths there are of each kind of change, those included that are not listed."""
    changes: list[PathChangeRecord]
    """In the order of their paths."""
    items: int
    """How many files and directories of the delta were looked at."""
    cut: bool
    """Whether not all was looked at, or not all is listed: too many, too deep, or it took too long."""


def parse_path(text: str) -> str:
    """An absolute path in a container, without ``.`` and ``..``; raises InvalidInput."""
    if not text.startswith("/") or "\0" in text or len(os.fsencode(text)) > _LONGEST:
        raise InvalidInput(f"{text[:100]!r} is no absolute path", hint="write it as the container sees it, such as /etc")
    return "/" + os.path.normpath(text).lstrip("/")


def _path(texts: Sequence[str]) -> str:
    if len(texts) > 1:
        raise InvalidInput("is there more than once")
    return parse_path(texts[0])


DEPTH = number("depth", "Paths down to so many levels; 0: none.", 0, 0, MOST_DEPTH)
TOP = number("top", "At most so many paths of each.", 20, 1, MOST_PATHS)
VOLUMES = flag("volumes", "The containers' volumes, too; all volumes if no containers are chosen.")
PATH = Key(
    "path", "an absolute path", "Only this path of the container, and all paths below it.", lambda path: [path], _path, "/"
)
MOST = number("most", "At most so many changes are listed.", 2000, 0, MOST_CHANGES)

DISK: InQuery[DiskRequest] = InQuery(
    SELECTION, single(DEPTH), single(TOP), single(VOLUMES), make=DiskRequest,
    split=lambda asked: (asked.selection, asked.depth, asked.top, asked.volumes),
)  # fmt: skip
DIFFERENCES: InQuery[DiffRequest] = InQuery(
    single(PATH), single(MOST), path="name", make=DiffRequest,
    split=lambda asked: (asked.name, asked.path, asked.most),
)  # fmt: skip
