"""Arguments and answers of the launcher's operations on archives; see operations and data.archives."""

from __future__ import annotations

from typing import Any, TypedDict

from lxcfleet.errors import ErrorBody


class ExportItem(TypedDict):
    """A container to write to an archive; the archive's descriptor comes along."""

    name: str
    first_id: int | None
    stack: Any
    """Its layers; see base.stack.Stack.to_json."""
    spec: dict[str, Any]
    version: str
    created: str
    still: str
    """See data.archives.head.ArchiveHead."""
    volumes: list[str]
    """The volumes whose files go along."""
    level: int
    """Of zstd."""
    seconds: float
    """The longest time."""


class ArrivalItem(TypedDict):
    """A volume that is made of an archive's files."""

    archived: str
    """Its name in the archive."""
    had: int | None
    """The first of the ids that its files had on their host, if that is known."""
    directory: str
    """The name of the directory where it is put together; see data.arrivals."""
    name: str
    record: str
    """The text of its file ``volume.yaml``."""


class ImportItem(TypedDict):
    """The use of the archive whose descriptor came along: a new container, or nothing."""

    name: str
    beside: str
    """The name of the directory where it is put together."""
    first_id: int | None
    files: dict[str, str]
    """Files for its directory: name to text."""
    data: int | None
    """The most bytes that its files may have; None: as the file system has room for."""
    snapshot: str
    """See data.archives.head.ArchiveHead."""
    volumes: list[ArrivalItem]
    """The volumes that are made with it."""
    passed_over: list[str]
    """The other volumes that its archive has."""
    compare: bool
    """Whether what was unpacked is held against the archive, which is read once more for that."""
    keep: bool
    """Whether it gets its name in the end; otherwise it is removed."""


class Packed(TypedDict):
    """How far an archive is, or the outcome."""

    error: ErrorBody | None
    done: bool
    bytes: int
    """So many bytes of tar were written, before compression; or so many bytes of files were unpacked."""
    read: bool
    """Whether all of its files is read: it may change from here on."""
    entries: int
    differences: list[str]
    """The differences between the unpacked files and the archive."""
    differing: int
    """How many there are of those."""
