"""The requests on the attach socket for archives of containers, and the messages that answer them; see AttachRequest."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from lxcfleet.errors import ErrorBody

SUFFIX = ".lxcfleet.tar.zst"
"""The end of an archive's name."""
LEVEL, MOST_LEVEL = 3, 19
"""zstd's usual level of compression, and the highest that can be asked for."""
SECONDS, MOST_SECONDS = 60.0, 86400.0
"""The longest time, in seconds, that a container is frozen for its archive."""


class ExportContainer(TypedDict):
    """Write a container to an archive: to stdout, which travels with this, and is no terminal. It stays frozen meanwhile, so
    whoever reads a pipe slowly keeps it so."""

    export: str
    """The container's name."""
    level: int
    stopped: bool
    """Whether it is refused if it runs."""
    volumes: bool
    """Whether the files of its volumes go along."""
    seconds: float


class Moved(TypedDict):
    """By which move a container comes; see docs/move.md."""

    id: str
    origin: str
    """The host that it comes from, by the name that this gave itself."""
    ran: bool
    """Whether it ran there."""


class ImportVolumes(TypedDict):
    """Which volumes are made of an archive, too: all whose files it has."""

    names: dict[str, str]
    """Other names for them here, by those in the archive."""
    keep: bool
    """Whether those that are here already are left as they are; otherwise they are refused."""


class ImportContainer(TypedDict):
    """Make a container of the archive that is stdin, which travels with this."""

    unpack: str
    """Its name; empty: that in the archive."""
    trusted: bool
    """Whether it gets what its spec asks for of the host; see docs/backup.md."""
    limit: int
    """The most bytes that its files may have; 0: as the file system has room for."""
    start: bool
    """Whether it is started."""
    check: bool
    """Whether it is only compared with the archive, and removed again."""
    dry_run: bool
    """Whether only the head of the archive is read, and checked."""
    volumes: NotRequired[ImportVolumes]
    """Missing: the files of volumes stay in the archive."""
    moved: NotRequired[Moved]
    """It comes by a move: it is blocked until the sending side has handed it over."""


class ArchiveMessage(TypedDict, total=False):
    """An answer: how far it is, at last ``done`` with the outcome, or ``error``."""

    bytes: int
    """So many bytes of tar were written, before compression; or so many bytes of files were unpacked."""
    done: bool
    name: str
    entries: int
    frozen_ms: int | None
    """Milliseconds that the container was frozen; null: it was not frozen for this."""
    differences: list[str]
    """The differences between the container and the archive."""
    differing: int
    """How many there are of those."""
    notes: list[str]
    started: bool
    unstarted: NotRequired[ErrorBody]
    """Why it was made and could not be started; missing: it could, or nobody asked, or it waits for something."""
    volumes: list[str]
    """Volumes that were made with it."""
    error: ErrorBody
