"""Bringing a container's records of packages and accounts up to date with the host's, before each of its starts.

A container that installs a package or adds a user has files of its own from then on, dpkg's status for one, and no
later change of the host's files shows through them. So what both were like at the container's last start is kept, and
at the next one the three are merged (see merge).

What the base was like at a start is a file in ``paths.base_snapshots``, once for all containers that began with it,
and each of them has a hard link to it: a backup of its directory is complete. Which one it is, is in the container's
``base.json``. The file's name is the digest of what is in it: nobody merges with what was damaged or replaced, and
copying a backup over what is there (``cp -a`` writes into the file that others share) changes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lxcfleet.base.merge.records import MERGES, Files, merge
from lxcfleet.base.stack import Layer
from lxcfleet.base.tree import stamp
from lxcfleet.host.kernel import tree
from lxcfleet.paths import ContainerPaths, Paths

_MOST = 64 << 20
"""Bytes of a file that are merged."""
_KEPT_SECONDS = 3600.0
"""A snapshot that no container refers to is kept so long: one that is about to may just be looked at."""
_LOST = (
    "records of packages and accounts: not merged with the host's, as what those were like at the last start is not "
    "known any more; docs/packages.md tells what to do"
)


class Reconciler:
    """Remembers what the base is like, for the starts of one process."""

    def __init__(self, paths: Paths, lower: Sequence[Layer]) -> None:
        """``lower``: the layers below the container's own, the topmost first."""
        self._paths = paths
        self._lower_layers = tuple(lower)
        self._stamps: list[object] = []
        self._files: dict[str, bytes] = {}
        self._packed = b""
        self._present = ""
        self._read: dict[str, Files] = {}

    def reconcile(self, name: str) -> list[str]:
        """Merge the container's files with the host's; what both sides changed, in words. It must not be running.

        Where what the base was like at its last start is lost, its files and its record stay as they are.
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
        conflicts = self._merge(own, str(known))
        if conflicts is None:
            _note(own, str(known), [_LOST])
            return [_LOST]
        self._link(own)
        _note(own, present, conflicts)
        self._forget_others(own)
        return conflicts

    def _merge(self, own: ContainerPaths, known: str) -> list[str] | None:
        """Merge what the container has of its own; None if it can't be, for want of the base that it began with."""
        found = {path: file for path in MERGES if (file := tree.read_within(own.delta, path, _MOST)) is not None}
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

    def _old(self, own: ContainerPaths, snapshot: str) -> Files | None:
        """What the base was like then: as the container has it, or others do."""
        if snapshot not in self._read:
            for file in (own.base_snapshot(snapshot), self._paths.base_snapshot(snapshot)):
                with contextlib.suppress(OSError, ValueError):  # the record may hold anything
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
        except OSError:  # it is on a file system of its own, or the last of the other containers was just destroyed
            _write(file, self._packed)

    def _forget_others(self, own: ContainerPaths) -> None:
        kept = own.base_snapshot(self._present)
        for file in own.directory.glob(own.base_snapshot("*").name):
            if file != kept:
                file.unlink()

    def _snapshot(self) -> str:
        """The name of the base as it is, and clones see it, for which there is a snapshot."""
        stamps: list[object] = [stamp(str(file)) for path in MERGES for file in self._places(path)]
        if stamps != self._stamps or not self._paths.base_snapshot(self._present).is_file():
            self._files = {path: content for path in MERGES if (content := self._lower(path)) is not None}
            self._packed = _pack(self._files)
            self._present = _digest(self._packed)
            self._stamps = stamps
            self._keep()
        return self._present

    def _places(self, path: str) -> list[Path]:
        return [Path(layer.outside(path)) for layer in self._lower_layers]

    def _lower(self, path: str) -> bytes | None:
        """What a clone with nothing in its delta has at ``path``."""
        for place in self._places(path):
            try:
                status = os.lstat(place)
            except FileNotFoundError:
                continue
            return place.read_bytes() if stat.S_ISREG(status.st_mode) and status.st_size <= _MOST else None
        return None

    def _keep(self) -> None:
        file = self._paths.base_snapshot(self._present)
        if self._is_whole(file):
            return
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(file, self._packed)
        self._forget()

    def _is_whole(self, file: Path) -> bool:
        """Whether the present snapshot is in ``file``: after a power failure it may be empty."""
        try:
            return file.stat().st_size == len(self._packed)
        except FileNotFoundError:
            return False

    def _forget(self) -> None:
        """Remove the snapshots that no container refers to."""
        bases = {str(_record(file).get("base")) for file in self._paths.lxc.glob("*/base.json")} | {self._present}
        used = {self._paths.base_snapshot(base).name for base in bases}
        for file in self._paths.base_snapshots.iterdir():
            with contextlib.suppress(OSError):
                if file.name not in used and time.time() - file.stat().st_mtime > _KEPT_SECONDS:
                    file.unlink()


def conflicts(paths: Paths, name: str) -> list[str]:
    """What the last merge of a container's files left to its operator."""
    found = _record(paths.container(name).base_record).get("conflicts")
    return [str(each) for each in found] if isinstance(found, list) else []


def last_base(paths: Paths, name: str) -> str:
    """The name of what the base was like at the container's last start; empty if that is not known."""
    return str(_record(paths.container(name).base_record).get("base") or "")


def file_at_last_start(paths: Paths, name: str, path: str) -> bytes | None:
    """What the base had at ``path``, one of those that are merged, at the container's last start; None if not known."""
    base = last_base(paths, name)
    for file in (paths.container(name).base_snapshot(base), paths.base_snapshot(base)) if base else ():
        with contextlib.suppress(OSError, ValueError):
            content = file.read_bytes()
            if _digest(content) == base:
                return _unpack(content).get(path)
    return None


def forget_all(paths: Paths) -> None:
    """Remove all snapshots: no container is left."""
    shutil.rmtree(paths.base_snapshots, ignore_errors=True)


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
    """Put a file in its place in one step; who else does has the same for it."""
    new = file.with_name(f".new-{os.getpid()}")
    try:
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as opened:
            opened.write(content)
        new.rename(file)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def _note(own: ContainerPaths, base: str, conflicts: list[str]) -> None:
    tree.write(own.base_record, json.dumps({"base": base, "conflicts": conflicts}) + "\n")


def _record(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
