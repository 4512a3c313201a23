"""Brings a container's records of packages and accounts up to date with the host's, before each start.

When a container installs a package or adds a user, it gets files of its own, such as dpkg's status. From then on no change
of the host's file shows through. So lxcfleet keeps the contents of both at the container's last start, and merges the
three versions at the next start (see merge).

The base's contents at a start are one file in ``paths.base_snapshots``, shared by all containers that began with it. Each
of these has a hard link to the file, so a backup of its directory is complete. The container's ``base.json`` names the
file. The name is the digest of the content, so a damaged or replaced file is never merged with. Copying a backup over
the directory (``cp -a`` writes into shared files) does no harm either.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lxcfleet.base.merge.records import MERGES, MOST, STATUS, Files, merge, packages, with_records
from lxcfleet.base.stack import Layer
from lxcfleet.base.tree import stamp
from lxcfleet.errors import Broken, InvalidInput
from lxcfleet.host.kernel import tree
from lxcfleet.paths import ContainerPaths, Paths
from lxcfleet.spec.reading import ondisk
from lxcfleet.units import as_size

_MOST = 64 << 20
"""The largest file of the host, in bytes, that is remembered."""
_USUAL = 1 << 20
_DIGITS = 12
"""A number of bytes with as many digits is none."""
_KEPT_SECONDS = 3600.0
"""A snapshot without a container is kept for this long: a container may be about to refer to it."""
_LOST = (
    "records of packages and accounts: not merged with the host's, as what those were like at the last start is not "
    "known any more; docs/packages.md tells what to do"
)


class Foreseen(NamedTuple):
    """The content of a container's dpkg status file as it is, as it would be after a start, and in the base of that start."""

    now: bytes
    then: bytes
    base: bytes


class RecordMerger:
    """Remembers the contents of the base, for all starts that one process prepares."""

    def __init__(self, paths: Paths, lower: Sequence[Layer]) -> None:
        """``lower``: the layers below the container's own, the topmost first."""
        self._paths = paths
        self._places = {path: [layer.outside(path) for layer in lower] for path in MERGES}
        self._stamps: list[object] = []
        self._files: dict[str, bytes] = {}
        self._packed = b""
        self._present = ""
        self._read: dict[str, Files] = {}

    def reconcile(self, name: str) -> list[str]:
        """Merge the container's files with the host's; returns in words what both changed. The container must not run.

        If the base's contents at its last start are lost, the container's files and its record stay as they are.
        The layers must be mounted where they have their source. Raises OSError.
        """
        own = self._paths.container(name)
        present = self._snapshot()
        known = _record(own.base_record).get("base")
        if known in (None, present):
            self._link(own)
            if known is None:
                _note(own, present, [])
            return []
        if large := [told for path in MERGES if (told := _too_large(own, path))]:
            _note(own, str(known), large)
            return large
        conflicts = self._merge(own, str(known))
        if conflicts is None:
            _note(own, str(known), [_LOST])
            return [_LOST]
        self._link(own)
        _note(own, present, conflicts)
        self._forget_others(own)
        return conflicts

    def _merge(self, own: ContainerPaths, known: str) -> list[str] | None:
        """Merge the container's own files; None if that can't be done because the base that it began with is lost."""
        found = {path: file for path in MERGES if (file := tree.read_within(own.delta, path, _most(path))) is not None}
        contents = {path: content for path, (content, _) in found.items()}
        if all(content == self._files.get(path) for path, content in contents.items()):
            return []
        old = self._old(own, known)
        if old is None:
            return None
        merged, conflicts = merge(old, self._files, contents)
        for path, content in merged.items():
            if content != contents[path]:
                tree.replace_within(own.delta, path, content, found[path][1])
        return conflicts

    def foresee(self, name: str) -> Foreseen | None:
        """dpkg's records of the container ``name``, as they are and as a start would merge them; changes nothing.

        None: it has none of its own. Raises Broken if that is not known, OSError.
        """
        own = self._paths.container(name)
        if large := _too_large(own, STATUS):
            raise Broken(f"the packages of {name} are not known", why=large)
        found = tree.read_within(own.delta, STATUS, _most(STATUS))
        if found is None:
            return None
        content, host = found[0], self._lower(STATUS) or b""
        known = _record(own.base_record).get("base")
        old = host if known is None else (self._old(own, str(known)) or {}).get(STATUS)
        if old is None:
            raise Broken(f"the packages of {name} can't be merged", why="the base of its last start is not known any more")
        return Foreseen(content, packages(old, host, content).content, host)

    def _old(self, own: ContainerPaths, snapshot: str) -> Files | None:
        """The base's contents at that time: from the container's own link, or from the one that others share."""
        if snapshot not in self._read:
            for file in (own.base_snapshot(snapshot), self._paths.base_snapshot(snapshot)):
                with contextlib.suppress(OSError, ValueError):  # the record may be damaged
                    content = file.read_bytes()
                    if _digest(content) == snapshot:
                        self._read = {snapshot: _unpack(content)}
        return self._read.get(snapshot)

    def _link(self, own: ContainerPaths) -> None:
        file = own.base_snapshot(self._present)
        if self._is_whole(file):
            return
        file.unlink(missing_ok=True)
        try:
            os.link(self._paths.base_snapshot(self._present), file)
        except OSError:  # the file system may differ, or the last other container was just destroyed
            _write(file, self._packed)

    def _forget_others(self, own: ContainerPaths) -> None:
        kept = own.base_snapshot(self._present)
        for file in own.directory.glob(own.base_snapshot("*").name):
            if file != kept:
                file.unlink()

    def _snapshot(self) -> str:
        """The name of the present base's snapshot, as clones see the base. The snapshot is made if it is missing."""
        stamps: list[object] = [stamp(file) for path in MERGES for file in self._places[path]]
        if stamps != self._stamps or not self._paths.base_snapshot(self._present).is_file():
            self._files = {path: content for path in MERGES if (content := self._lower(path)) is not None}
            self._packed = _pack(self._files)
            self._present = _digest(self._packed)
            self._stamps = stamps
            self._keep()
        return self._present

    def _lower(self, path: str) -> bytes | None:
        """The file at ``path`` for a clone with an empty delta."""
        for place in self._places[path]:
            try:
                status = os.lstat(place)
                return Path(place).read_bytes() if stat.S_ISREG(status.st_mode) and status.st_size <= _MOST else None
            except (FileNotFoundError, NotADirectoryError):  # also if it goes between the two
                continue
        return None

    def _keep(self) -> None:
        file = self._paths.base_snapshot(self._present)
        if self._is_whole(file):
            return
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(file, self._packed)
        self._forget()

    def _is_whole(self, file: Path) -> bool:
        """Whether ``file`` holds the present snapshot."""
        return _has_size(file, len(self._packed))

    def _forget(self) -> None:
        """Remove the snapshots that no container refers to."""
        bases = {str(_record(file).get("base")) for file in self._paths.lxc.glob("*/base.json")} | {self._present}
        used = {self._paths.base_snapshot(base).name for base in bases}
        for file in self._paths.base_snapshots.iterdir():
            with contextlib.suppress(OSError):
                if file.name not in used and time.time() - file.stat().st_mtime > _KEPT_SECONDS:
                    file.unlink()


def give_records(delta: Path, given: Mapping[str, str]) -> None:
    """Give a delta that is not mounted these records of packages in place of its own; see ``with_records``.

    The next merge finds the host's there, and so takes what the host has then. Raises OSError.
    """
    found = tree.read_within(delta, STATUS, _most(STATUS))
    if found is not None:
        wanted = {name: os.fsencode(record) for name, record in given.items()}
        tree.replace_within(delta, STATUS, with_records(found[0], wanted), found[1])


def conflicts(paths: Paths, name: str) -> list[str]:
    """The conflicts that the last merge of a container's files left to the operator."""
    found = _record(paths.container(name).base_record).get("conflicts")
    return [str(each) for each in found] if isinstance(found, list) else []


def last_base(paths: Paths, name: str) -> str:
    """The name of the base's snapshot at the container's last start; empty if that is not known."""
    return str(_record(paths.container(name).base_record).get("base") or "")


def file_at_last_start(paths: Paths, name: str, path: str) -> bytes | None:
    """The base's file at ``path`` at the container's last start; None if not known. Only for paths that are merged."""
    base = last_base(paths, name)
    for file in (paths.container(name).base_snapshot(base), paths.base_snapshot(base)) if base else ():
        with contextlib.suppress(OSError, ValueError):
            content = file.read_bytes()
            if _digest(content) == base:
                return _unpack(content).get(path)
    return None


def has_records(delta: Path) -> bool:
    """Whether a delta has any of the files that are merged, be it an empty one. Raises OSError."""
    return any(tree.size_within(delta, path) or tree.read_within(delta, path, 0) is not None for path in MERGES)


def check_snapshot(name: str, content: bytes) -> None:
    """Raise InvalidInput unless ``content`` is the snapshot ``name``, as it came from elsewhere."""
    rest, files = content, 0
    while rest:
        head, _, rest = rest.partition(b"\n")
        path, _, length = head.decode("utf-8", "replace").rpartition(" ")
        files += 1
        size = int(length) if length.isascii() and length.isdigit() and len(length) < _DIGITS else -1
        if path not in MERGES or files > len(MERGES) or not 0 <= size <= len(rest):
            raise InvalidInput("the records of the base can't be used", why="they have a form that lxcfleet has not written")
        rest = rest[size:]
    if _digest(content) != name:
        raise InvalidInput("the records of the base can't be used", why="their digest is another one than their name says")


def forget_all(paths: Paths) -> None:
    """Remove all snapshots, as no container is left."""
    shutil.rmtree(paths.base_snapshots, ignore_errors=True)


def _most(path: str) -> int:
    return MOST.get(path, _USUAL)


def _too_large(own: ContainerPaths, path: str) -> str:
    """In words that the container's file is too large to be merged; empty if it is not."""
    size = tree.size_within(own.delta, path)
    if size <= _most(path):
        return ""
    return f"{path}: not merged with the host's, as it has {as_size(size)}, and at most {as_size(_most(path))} are read"


def _pack(files: Files) -> bytes:
    return b"".join(f"{path} {len(content)}\n".encode() + content for path, content in files.items())


def _unpack(packed: bytes) -> Files:
    files: dict[str, bytes] = {}
    while packed:
        head, _, rest = packed.partition(b"\n")
        path, _, length = head.decode().rpartition(" ")
        files[path], packed = rest[: int(length)], rest[int(length) :]
    return files


def _digest(packed: bytes) -> str:
    return hashlib.sha256(packed).hexdigest()[:32]


def _write(file: Path, content: bytes) -> None:
    """Put a file in its place in one step. If several processes do so at once, with the same content, the file of the first
    one stays, so that all containers link to that one."""
    new = file.with_name(f".new-{os.getpid()}")
    try:
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as opened:
            opened.write(content)
        try:
            os.link(new, file)
        except OSError:  # it is there, or the file system has no links
            if not _has_size(file, len(content)):
                new.rename(file)
    finally:
        new.unlink(missing_ok=True)


def _has_size(file: Path, size: int) -> bool:
    """Whether ``file`` is whole: after a power failure it may be empty."""
    try:
        return file.stat().st_size == size
    except FileNotFoundError:
        return False


def _note(own: ContainerPaths, base: str, conflicts: list[str]) -> None:
    tree.write(own.base_record, json.dumps({"base": base, "conflicts": conflicts}) + "\n")


def _record(file: Path) -> dict[str, Any]:
    try:
        found = ondisk.record(file, ondisk.SMALL)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
