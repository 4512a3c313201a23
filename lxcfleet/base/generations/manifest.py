"""The content of a sheet, as it was when the sheet was made: the values, their file on disk, and how sheets add up.

The file is not JSON, as it has a line for each file of the host, and each patch waits for it to be read: names in one piece,
numbers in arrays, all of it compressed, a checksum at the end.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import zlib
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import NamedTuple

from lxcfleet.base.tree import join, parent
from lxcfleet.errors import Broken
from lxcfleet.spec.reading import ondisk


class FileIdentity(NamedTuple):
    """The identity of a file that was copied: if none of these changed, its content did not either; inode(7)."""

    inode: int
    size: int
    mtime: int
    """In nanoseconds, as the next."""
    ctime: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        """That of the file with this status."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class LinkedFile(NamedTuple):
    """Mode and owners of a linked file: all its names have the same ones."""

    mode: int
    """Without the kind of file."""
    uid: int
    gid: int


Attributes = tuple[tuple[str, bytes], ...]
"""Extended attributes, by name."""


class Stamp(NamedTuple):
    """A linked file as it was when it was linked. Its size or its time changes if it is written in place."""

    inode: int
    size: int
    mtime: int
    """In nanoseconds."""
    owned: LinkedFile | None = None
    """None: a list of the first format does not say."""
    attributes: Attributes | None = ()
    """Access lists, capabilities and the like; None: a list that was made by an earlier version does not say."""

    @classmethod
    def of(cls, status: os.stat_result, attributes: Attributes = ()) -> Stamp:
        """That of the file with this status."""
        owned = LinkedFile(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, owned, attributes)


class DirectoryStatus(NamedTuple):
    """Owner, mode and extended attributes of a directory."""

    mode: int
    uid: int
    gid: int
    attributes: Attributes = ()


@dataclass
class Folder:
    """One directory of a sheet, or of several sheets together. Directories in it are folders of their own."""

    status: DirectoryStatus
    linked: dict[str, int] = field(default_factory=dict)
    """Files and symbolic links, name to inode: the host's own."""
    copied: dict[str, FileIdentity] = field(default_factory=dict)
    """Files that are copies, each with what it is a copy of."""
    hollow: set[str] = field(default_factory=set)
    """Those of ``copied`` without their content, as no container sees it."""
    gone: set[str] = field(default_factory=set)
    """Names of the sheets below that are not there. None are, in several sheets together."""
    foreign: dict[str, int] = field(default_factory=dict)
    """Those of ``linked`` that belong to no package and would have been copied had there been room, with their sizes."""
    stamps: dict[str, Stamp] = field(default_factory=dict)
    """Of ``linked``; only where they were asked for."""


Folders = dict[str, Folder]
"""Folders by path, each after the one that it is in."""

FORMAT = 2
_WITHOUT_OWNERS = 1
"""A format that is read as well: it has no mode and owners of linked files."""
_LINKED, _FOREIGN, _COPIED, _HOLLOW, _GONE = b"LFCHG"
_SUM = 32
"""Bytes of a SHA-256."""
_SWIFT = 1
"""zlib's level: half the size, in 0.1 s for 150,000 files."""
_SECTIONS = ("paths", "modes", "uids", "gids", "counts", "names", "kinds", "inodes", "sizes", "mtimes", "ctimes")
_OWNERS = ("file_modes", "file_uids", "file_gids")


@dataclass(frozen=True)
class Manifest:
    """All that a sheet has."""

    top: int
    """The inode of the sheet's own directory: a sheet that was restored or moved elsewhere has another."""
    folders: Folders


_NOTHING = Stamp(0, 0, 0)
_NOBODY = LinkedFile(0, 0, 0)


class _Columns:
    """The entries of all folders, a column for each of their numbers."""

    def __init__(self) -> None:
        self.counts = array("I")
        self.names: list[str] = []
        self.kinds = bytearray()
        self.inodes, self.sizes = array("Q"), array("Q")
        self.mtimes, self.ctimes = array("q"), array("q")
        self.file_modes, self.file_uids, self.file_gids = array("I"), array("I"), array("I")

    def add(self, folder: Folder) -> None:
        """Add its entries."""
        self.counts.append(len(folder.linked) + len(folder.copied) + len(folder.gone))
        self.names += [*folder.linked, *folder.copied, *sorted(folder.gone)]
        self.kinds += bytes(_FOREIGN if name in folder.foreign else _LINKED for name in folder.linked)
        self.kinds += bytes(_HOLLOW if name in folder.hollow else _COPIED for name in folder.copied)
        self.kinds += bytes([_GONE]) * len(folder.gone)
        stamps: list[Stamp | FileIdentity] = [*map(folder.stamps.__getitem__, folder.linked), *folder.copied.values()]
        stamps += [_NOTHING] * len(folder.gone)
        self.inodes.extend([stamp.inode for stamp in stamps])
        self.sizes.extend([stamp.size for stamp in stamps])
        self.mtimes.extend([stamp.mtime for stamp in stamps])
        self.ctimes.extend([0] * len(folder.linked))
        self.ctimes.extend([source.ctime for source in folder.copied.values()])
        self.ctimes.extend([0] * len(folder.gone))
        owned = [folder.stamps[name].owned or _NOBODY for name in folder.linked]
        owned += [_NOBODY] * (len(folder.copied) + len(folder.gone))
        self.file_modes.extend([each.mode for each in owned])
        self.file_uids.extend([each.uid for each in owned])
        self.file_gids.extend([each.gid for each in owned])


def encode(manifest: Manifest) -> bytes:
    """The bytes of the file. Linked files must have their stamps."""
    folders = manifest.folders
    columns = _Columns()
    for folder in folders.values():
        columns.add(folder)
    statuses = [folder.status for folder in folders.values()]
    written = (
        os.fsencode("\0".join(folders)),
        *(array("I", column).tobytes() for column in zip(*(status[:3] for status in statuses), strict=True)),
        columns.counts.tobytes(), os.fsencode("\0".join(columns.names)), columns.kinds, columns.inodes.tobytes(),
        columns.sizes.tobytes(), columns.mtimes.tobytes(), columns.ctimes.tobytes(),
        columns.file_modes.tobytes(), columns.file_uids.tobytes(), columns.file_gids.tobytes(),
    )  # fmt: skip
    attributes = {path: _told(folder.status.attributes) for path, folder in folders.items() if folder.status.attributes}
    of_files: dict[str, dict[str, list[list[str]]]] = {}
    for path, folder in folders.items():
        if told := {name: _told(each.attributes) for name, each in folder.stamps.items() if each.attributes}:
            of_files[path] = told
    head = {
        "format": FORMAT, "order": sys.byteorder, "top": manifest.top, "lengths": [len(each) for each in written],
        "attributes": attributes, "file_attributes": of_files,
    }  # fmt: skip
    content = zlib.compress(json.dumps(head).encode("ascii") + b"\n" + b"".join(written), _SWIFT)
    return content + hashlib.sha256(content).digest()


def _told(attributes: Attributes) -> list[list[str]]:
    return [[name, value.hex()] for name, value in attributes]


def _attributes(told: Iterable[tuple[str, str]]) -> Attributes:
    return tuple((name, bytes.fromhex(value)) for name, value in told)


def decode(content: bytes, where: str, *, stamps: bool = False) -> Manifest:
    """The manifest that ``content`` is; ``where``: its path, for errors; ``stamps``: with those. Raises Broken."""
    try:
        return _decode(content, stamps)
    except (ValueError, LookupError, TypeError, AttributeError, zlib.error) as error:
        raise Broken(
            "the list of the files of a generation can't be used", why=f"{where}: {error}",
            hint="it was cut off or changed by hand; the next patch freezes the base anew and whole",
        ) from error  # fmt: skip


def _decode(content: bytes, stamps: bool) -> Manifest:
    body, digest = content[:-_SUM], content[-_SUM:]
    if hashlib.sha256(body).digest() != digest:
        raise ValueError("its checksum is wrong")
    line, _, rest = zlib.decompress(body).partition(b"\n")
    head = ondisk.parse(line)
    if head["format"] not in (FORMAT, _WITHOUT_OWNERS) or head["order"] != sys.byteorder:
        raise ValueError(f"its format is {head['format']} ({head['order']} endian)")
    sections = _SECTIONS if head["format"] == _WITHOUT_OWNERS else (*_SECTIONS, *_OWNERS)
    ends = [*accumulate(head["lengths"], initial=0)]
    parts = {key: rest[start:end] for key, (start, end) in zip(sections, pairwise(ends), strict=True)}
    paths, names = _texts(parts["paths"]), _texts(parts["names"])
    if b"/" in parts["names"]:
        raise ValueError("a name has a slash in it")
    modes, uids, gids, counts = (array("I", parts[key]) for key in ("modes", "uids", "gids", "counts"))
    inodes, sizes = (array("Q", parts[key]) for key in ("inodes", "sizes"))
    mtimes, ctimes = (array("q", parts[key]) for key in ("mtimes", "ctimes"))
    kinds = parts["kinds"]
    owned = [array("I", parts[key]) for key in _OWNERS if key in parts]
    of_files = head.get("file_attributes")  # not in lists of earlier versions
    folders: Folders = {}
    start = 0
    for path, mode, uid, gid, count in zip(paths, modes, uids, gids, counts, strict=True):
        end = start + count
        folder = folders[path] = Folder(DirectoryStatus(mode, uid, gid, _attributes(head["attributes"].get(path, ()))))
        if kinds.count(_LINKED, start, end) == count and not stamps:  # most directories have nothing else
            folder.linked = dict(zip(names[start:end], inodes[start:end], strict=True))
        else:
            for at in range(start, end):
                whose = LinkedFile(*(column[at] for column in owned)) if owned and stamps else None
                told = None if of_files is None else _attributes(of_files.get(path, {}).get(names[at], ()))
                _put(folder, names[at], kinds[at], Stamp(inodes[at], sizes[at], mtimes[at], whose, told), ctimes[at])
        start = end
    if start != len(names):
        raise ValueError("it has more names than its directories")
    return Manifest(int(head["top"]), folders)


def _texts(joined: bytes) -> list[str]:
    return os.fsdecode(joined).split("\0") if joined else []


def _put(folder: Folder, name: str, kind: int, stamp: Stamp, ctime: int) -> None:
    if kind in (_LINKED, _FOREIGN):
        folder.linked[name], folder.stamps[name] = stamp.inode, stamp
        if kind == _FOREIGN:
            folder.foreign[name] = stamp.size
    elif kind in (_COPIED, _HOLLOW):
        folder.copied[name] = FileIdentity(stamp.inode, stamp.size, stamp.mtime, ctime)
        if kind == _HOLLOW:
            folder.hollow.add(name)
    elif kind == _GONE:
        folder.gone.add(name)
    else:
        raise ValueError(f"an entry is of the kind {kind}")


class MergedSheets:
    """Several sheets as one tree, as overlayfs merges them."""

    def __init__(self, sheets: Iterable[Mapping[str, Folder]] = ()) -> None:
        """``sheets``: the lowest first."""
        self.folders: Folders = {}
        self._below: dict[str, set[str]] = {}
        """The names of directories, by the one that they are in."""
        for sheet in sheets:
            self._lay(sheet)

    def directories(self, path: str) -> set[str]:
        """The names of the directories in ``path``."""
        return self._below.get(path, set())

    def _lay(self, sheet: Mapping[str, Folder]) -> None:
        for path, upper in sheet.items():
            if path != "/":
                above, name = parent(path), path.rpartition("/")[2]
                self._below.setdefault(above, set()).add(name)
                self._forget(self.folders[above], name)
            lower = self.folders.get(path)
            if lower is None:
                self.folders[path] = replace(upper, gone=set()) if upper.gone else upper
                continue
            for name in self.directories(path).intersection((*upper.linked, *upper.copied, *upper.gone)):
                self._drop(join(path, name))
            merged = Folder(
                upper.status, dict(lower.linked), dict(lower.copied), set(lower.hollow), foreign=dict(lower.foreign)
            )
            for name in (*upper.linked, *upper.copied, *upper.gone):
                self._forget(merged, name)
            merged.linked.update(upper.linked)
            merged.copied.update(upper.copied)
            merged.hollow.update(upper.hollow)
            merged.foreign.update(upper.foreign)
            self.folders[path] = merged

    @staticmethod
    def _forget(folder: Folder, name: str) -> None:
        folder.linked.pop(name, None)
        folder.copied.pop(name, None)
        folder.foreign.pop(name, None)
        folder.hollow.discard(name)

    def _drop(self, path: str) -> None:
        """Forget the directory and all below it."""
        self._below[parent(path)].discard(path.rpartition("/")[2])
        waiting = [path]
        while waiting:
            each = waiting.pop()
            waiting += [join(each, name) for name in self._below.pop(each, ())]
            del self.folders[each]
