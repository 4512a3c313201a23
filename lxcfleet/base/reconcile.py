"""Bringing a container's records of packages and accounts up to date with the host's, before each of its starts.

A container that installs a package or adds a user has files of its own from then on, dpkg's status for one, and no
later change of the host's files shows through them. So what both were like at the container's last start is kept, and
at the next one the three are merged (see merge).

What the base was like at a start is in ``paths.base_snapshots``, once for all containers that began with it; which one
that was is in the container's ``base.json``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any

from lxcfleet.base.merge import MERGES, merge
from lxcfleet.base.tree import stamp
from lxcfleet.host import tree
from lxcfleet.names import Paths

_MOST = 64 << 20
"""Bytes of a file that are merged."""
_KEPT_SECONDS = 3600.0
"""A snapshot that no container refers to is kept so long: one that is about to may just be looked at."""


class Reconciler:
    """Remembers what the base is like, for the starts of one process."""

    def __init__(self, paths: Paths, root: Path = Path("/")) -> None:
        self._paths = paths
        self._root = root
        self._stamps: list[object] = []
        self._files: dict[str, bytes] = {}
        self._present = ""

    def reconcile(self, name: str) -> list[str]:
        """Merge the container's files with the host's; what both sides changed, in words. It must not be running.

        The mask must be mounted. Raises OSError.
        """
        own = self._paths.container(name)
        present = self._snapshot()
        known = _record(own.base_record).get("base")
        if known == present:
            return []
        conflicts: list[str] = []
        if known is not None:
            conflicts = self._merge(own.delta, str(known))
        tree.write(own.base_record, json.dumps({"base": present, "conflicts": conflicts}) + "\n")
        return conflicts

    def _merge(self, delta: Path, known: str) -> list[str]:
        found = {path: file for path in MERGES if (file := tree.read_within(delta, path, _MOST)) is not None}
        contents = {path: content for path, (content, _) in found.items()}
        if all(content == self._files.get(path) for path, content in contents.items()):
            return []
        old = {path: content for path in MERGES if (content := self._old(known, path)) is not None}
        merged, conflicts = merge(old, self._files, contents)
        for path, content in merged.items():
            if content != contents[path]:
                tree.replace_within(delta, path, content, found[path][1])
        return conflicts

    def _snapshot(self) -> str:
        """The name of the base as it is, and clones see it, for which there is a snapshot."""
        stamps: list[object] = [stamp(str(file)) for path in MERGES for file in self._places(path)]
        directory = self._paths.base_snapshots
        if stamps != self._stamps or not (directory / self._present).is_dir():
            self._files = {path: content for path in MERGES if (content := self._lower(path)) is not None}
            digest = hashlib.sha256()
            for path, content in self._files.items():
                digest.update(f"{path} {len(content)}\n".encode() + content)
            self._present = digest.hexdigest()[:32]
            self._stamps = stamps
            self._keep(directory / self._present)
        return self._present

    def _places(self, path: str) -> tuple[Path, Path]:
        return Path(f"{self._paths.mask_mount}{path}"), Path(f"{str(self._root).rstrip('/')}{path}")

    def _lower(self, path: str) -> bytes | None:
        """What a clone with nothing in its delta has at ``path``."""
        for place in self._places(path):
            try:
                status = os.lstat(place)
            except FileNotFoundError:
                continue
            return place.read_bytes() if stat.S_ISREG(status.st_mode) and status.st_size <= _MOST else None
        return None

    def _keep(self, directory: Path) -> None:
        if directory.is_dir():
            return
        new = directory.with_name(f".new-{os.getpid()}")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700, parents=True)
        for path, content in self._files.items():
            (new / _file(path)).write_bytes(content)
        try:
            new.rename(directory)
        except OSError:  # somebody else was faster
            shutil.rmtree(new)
        self._forget()

    def _forget(self) -> None:
        """Remove the snapshots that no container refers to."""
        used = {_record(file).get("base") for file in self._paths.lxc.glob("*/base.json")} | {self._present}
        for directory in self._paths.base_snapshots.iterdir():
            with contextlib.suppress(OSError):
                if directory.name not in used and time.time() - directory.stat().st_mtime > _KEPT_SECONDS:
                    shutil.rmtree(directory)

    def _old(self, snapshot: str, path: str) -> bytes | None:
        try:
            return (self._paths.base_snapshots / os.path.basename(snapshot) / _file(path)).read_bytes()
        except OSError:
            return None


def conflicts(paths: Paths, name: str) -> list[str]:
    """What the last merge of a container's files left to its operator."""
    found = _record(paths.container(name).base_record).get("conflicts")
    return [str(each) for each in found] if isinstance(found, list) else []


def forget_all(paths: Paths) -> None:
    """Remove all snapshots: no container is left."""
    shutil.rmtree(paths.base_snapshots, ignore_errors=True)


def _file(path: str) -> str:
    return path.strip("/").replace("/", "-")


def _record(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
