"""Whether a generation still is what was frozen: a program of the host may have written into a linked file in place."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from lxcfleet.base.generations import store
from lxcfleet.base.generations.manifest import Folder, Folders
from lxcfleet.base.generations.scan import OPEN, attributes, working_directory_kept
from lxcfleet.base.generations.sheets import Sheets
from lxcfleet.base.tree import join, parent
from lxcfleet.errors import Broken
from lxcfleet.host.kernel.entries import is_whiteout
from lxcfleet.paths import Paths


@dataclass
class Report:
    """The findings of a look at all files of a generation. Paths are the base's."""

    checked: int = 0
    """Files, links and directories that were looked at, in all sheets."""
    written: list[str] = field(default_factory=list)
    """Files that were written in place, or exchanged, since they were frozen."""
    altered: list[str] = field(default_factory=list)
    """Linked files whose mode, owner, access list or capabilities are others since they were frozen: the host's file has
    them once, for all its names."""
    missing: list[str] = field(default_factory=list)
    """Entries that are gone from the sheets: files, directories with all that was in them; and gone sheets by name."""
    strange: list[str] = field(default_factory=list)
    """Entries that are in the sheets and were not frozen."""

    @property
    def good(self) -> bool:
        """Whether nothing was found."""
        return not self.written and not self.altered and not self.missing and not self.strange


def verify(paths: Paths, number: int) -> Report:
    """Look at all files of the generation: about a second. Raises NotFound, Broken for its record, OSError."""
    generation = store.load(paths, number)
    report = Report()
    roots: list[str] = []
    for name in generation.sheets:
        above = Sheets(roots)
        try:
            roots.append(str(store.sheet(paths, name)))
            sheet = store.listed(paths, name, stamps=True)
        except Broken:
            report.missing.append(name)
            continue
        with working_directory_kept():
            _check(above, roots[-1], sheet.folders, report)
    for found in (report.written, report.altered, report.missing, report.strange):
        found.sort()
    return report


def _check(above: Sheets, root: str, folders: Folders, report: Report) -> None:
    """Look at one sheet. What the sheets ``above`` it hide does not count."""
    names: dict[str, set[str]] = {}
    for path in folders:
        names.setdefault(parent(path), set()).add(path.rpartition("/")[2])
    lost: set[str] = set()
    for path, folder in folders.items():
        report.checked += 1 + len(folder.linked) + len(folder.copied)
        if parent(path) in lost:
            lost.add(path)
            continue
        try:
            directory = os.open(f"{root}{path}", OPEN)
        except OSError:
            lost.add(path)
            if not above.hides(path):
                report.missing.append(path)
            continue
        try:
            _compare(above, directory, path, folder, names.get(path, set()), report)
        finally:
            os.close(directory)


def _compare(above: Sheets, directory: int, path: str, folder: Folder, below: set[str], report: Report) -> None:
    """Look at one directory of a sheet; ``below``: the names of those in it."""
    found: dict[str, os.stat_result] = {}
    strange = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name in folder.linked or entry.name in folder.copied or entry.name in folder.gone:
                found[entry.name] = entry.stat(follow_symlinks=False)
            elif entry.name not in below:
                strange.append(entry.name)
    missing = [name for name in (*folder.linked, *folder.copied, *folder.gone) if name not in found]
    written = {name for name, status in found.items() if not _as_frozen(folder, name, status)}
    os.fchdir(directory)
    altered = [name for name, status in found.items() if name not in written and _altered(folder, name, status)]
    for names, told in (
        (strange, report.strange), (missing, report.missing), (written, report.written), (altered, report.altered)
    ):  # fmt: skip
        told += [where for name in names if not above.decides(where := join(path, name))]


def _altered(folder: Folder, name: str, now: os.stat_result) -> bool:
    """Whether a file in the working directory has others."""
    if name not in folder.linked:
        return False
    before = folder.stamps[name]
    if before.owned is not None and before.owned != (stat.S_IMODE(now.st_mode), now.st_uid, now.st_gid):
        return True
    return before.attributes is not None and stat.S_ISREG(now.st_mode) and before.attributes != attributes(name)


def _as_frozen(folder: Folder, name: str, now: os.stat_result) -> bool:
    if name in folder.gone:
        return is_whiteout(now)
    if name in folder.linked:
        return folder.stamps[name][:3] == (now.st_ino, now.st_size, now.st_mtime_ns)
    source = folder.copied[name]
    if not stat.S_ISREG(now.st_mode) or now.st_mtime_ns != source.mtime:
        return False
    return name in folder.hollow or now.st_size == source.size
