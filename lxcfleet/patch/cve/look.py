"""Looks at the sets of packages that containers have; done by a child of the launcher, as it reads what containers wrote."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from lxcfleet.base.merge import reconcile
from lxcfleet.base.merge.records import STATUS
from lxcfleet.base.present import Bottom, Present, Upper
from lxcfleet.base.present import Shelf as Layers
from lxcfleet.base.stack import Stack, base, delta
from lxcfleet.errors import FleetError
from lxcfleet.launcher.items.cves import CveData, CveItem, CveSet, CveSets, FoundCve
from lxcfleet.patch.cve import inventory, tracker
from lxcfleet.patch.cve.findings import CveResult, Data, Findings, PackageSet
from lxcfleet.patch.cve.inventory import Set
from lxcfleet.patch.cve.shelf import ChangelogShelf, OfBase, OfContainer
from lxcfleet.paths import Paths

_MOST_STATUS = 16 << 20
"""Bytes of dpkg's status that are read. Debian's has 1 MiB for each 1,000 packages."""
_MOST_DATA = 64 << 20
"""Bytes of a file of data; that of Debian 12 has 2 MiB."""
GENERIC = "GENERIC"
"""The file for all suites, which does not say whether a suite has a fix."""

_Key = tuple[int, str, str]
"""Generation, digest of the container's own status, and name of the base's snapshot at its start."""


class Look:
    """One look at all containers that are asked for."""

    def __init__(self, paths: Paths, ask: CveItem) -> None:
        self._paths, self._ask = paths, ask
        self._layers = Layers()
        self._bases: dict[int, tuple[Set, ChangelogShelf]] = {}
        self._starts: dict[str, Set | None] = {}
        self._groups: dict[_Key, PackageSet] = {}
        self._own: list[PackageSet] = []
        self._opened = contextlib.ExitStack()

    def answer(self) -> CveSets:
        """The findings. Raises OSError, FleetError if the host's packages can't be read."""
        with self._opened:
            containers, problems = dict[str, int](), dict[str, str]()
            host, shelf = self._base(0)
            for name, generation in self._ask["containers"]:
                try:
                    containers[name] = self._group_of(name, generation)
                except (OSError, FleetError) as error:
                    problems[name] = _said(error)
            generations = dict[str, int]()
            for number in self._ask["generations"]:
                with contextlib.suppress(OSError, FleetError):
                    packages, changelogs = self._base(number)
                    generations[str(number)] = self._group(
                        (number, "", ""), PackageSet(packages, None, changelogs, same=False)
                    )
            groups = list(self._groups.values())
            data, told = self._data([host, *(group.disk for group in groups), *(group.began or {} for group in groups)])
            findings = Findings(host, shelf, data, self._ask["cves"])
            findings.find(groups)
            self._layers.close()
        for name, number in list(containers.items()):
            if groups[number].cut:
                problems[name] = "there is more than is looked at: too many packages of containers' own have CVEs"
                del containers[name]
        return CveSets(
            found=[_found(each) for each in findings.results],
            sets=[self._set(group) for group in groups],
            containers=containers,
            generations=generations,
            problems=problems,
            named=sorted(findings.named),
            data=told,
        )

    # -- sets ------------------------------------------------------------------------------------------------

    def _base(self, generation: int) -> tuple[Set, ChangelogShelf]:
        if generation not in self._bases:
            bottom = Bottom(base(self._paths, generation))
            files = OfBase(bottom)
            status = files.read(STATUS, _MOST_STATUS)
            if status is None:
                raise FileNotFoundError(2, "there is no such file", STATUS)
            self._bases[generation] = _read(status), ChangelogShelf(files, self._ask["cves"])
        return self._bases[generation]

    def _group_of(self, name: str, generation: int) -> int:
        """The index of the container's set among the groups."""
        start = reconcile.last_base(self._paths, name)
        if start not in self._starts:
            status = reconcile.file_at_last_start(self._paths, name, STATUS)
            self._starts[start] = None if status is None else _read(status)
        began, (packages, shelf) = self._starts[start], self._base(generation)
        own = self._own_status(name, generation)
        if own is None:
            return self._group((generation, "", start), PackageSet(packages, began, shelf, same=generation == 0))
        digest = hashlib.sha256(own).hexdigest()
        # Each container reads its own changelogs: those of another one with the same packages may say something else.
        present = self._opened.enter_context(self._layers.present(_stack(self._paths, name, generation)))
        changelogs = ChangelogShelf(OfContainer(present), self._ask["cves"])
        group = PackageSet(_read(own), began, changelogs, same=False, base=packages)
        self._own.append(group)
        return self._group((generation, f"{digest} {name}", start), group)

    def _group(self, key: _Key, group: PackageSet) -> int:
        self._groups.setdefault(key, group)
        return list(self._groups).index(key)

    def _own_status(self, name: str, generation: int) -> bytes | None:
        """dpkg's status in a container's delta; None: it has the base's. Raises OSError."""
        with self._layers.present(_stack(self._paths, name, generation)) as present:
            return _own_status(present)

    def _set(self, group: PackageSet) -> CveSet:
        return CveSet(
            found=group.results,
            unread=[{"source": each.source, "packages": list(each.packages), "why": each.why} for each in group.unread],
            own=group in self._own,
            began=group.began is not None,
        )

    # -- debsecan's data -------------------------------------------------------------------------------------

    def _data(self, sets: Sequence[Set]) -> tuple[Data | None, CveData | None]:
        if not self._ask["source"]:
            return None, None
        place, moment, problem = self._ask["source"], 0.0, f"there is no file for {self._ask['suite'] or GENERIC}"
        for file in _files(self._ask["source"], self._ask["suite"]):
            try:
                status = os.stat(file)
                if not stat.S_ISREG(status.st_mode):
                    continue
                place, moment = str(file), status.st_mtime
                if status.st_size > _MOST_DATA:
                    raise ValueError(f"it has more than {_MOST_DATA >> 20} MiB")
                names = {name for each in sets for package in each.values() for name in (package.name, package.source)}
                holes = tracker.parse(tracker.unpack(file.read_bytes()), names, self._ask["cves"])
                return Data(holes, moment), CveData(file=place, modified=moment, problem="")
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                problem = f"{file} can't be used: {error}"
                break
        return None, CveData(file=place, modified=moment, problem=problem)


def _said(error: Exception) -> str:
    """An error of a container in one line."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error).replace("\n", "; ")


def _read(status: bytes) -> Set:
    """The packages of a status file. Raises OSError: of one that was not read to its end nothing could be said."""
    found = inventory.read(status, inventory.MOST + 1)
    if len(found) > inventory.MOST:
        raise OSError(27, f"it has more than {inventory.MOST} packages", STATUS)
    return found


def _files(source: str, suite: str) -> Iterator[Path]:
    """Where the data may be: in a file, or in a directory with a file for each suite."""
    place = Path(source)
    if place.is_dir():
        yield from (place / name for name in (suite, GENERIC) if name)
    else:
        yield place


def _stack(paths: Paths, name: str, generation: int) -> Stack:
    """The layers that have packages: those between delta and base only hide."""
    return Stack((delta(paths, name), base(paths, generation)))


def _own_status(present: Present) -> bytes | None:
    found = present.find(STATUS)
    layer = present.opened(found.layer)
    if not isinstance(layer, Upper):
        return None
    with layer.opened(STATUS) as handle:
        if handle is None or not stat.S_ISREG(os.fstat(handle).st_mode):
            raise FileNotFoundError(2, "it is no file in the container", STATUS)
        with open(f"/proc/self/fd/{handle}", "rb") as file:
            text = file.read(_MOST_STATUS + 1)
    if len(text) > _MOST_STATUS:
        raise OSError(27, f"it has more than {_MOST_STATUS >> 20} MiB", STATUS)
    return text


def _found(result: CveResult) -> FoundCve:
    hole = result.holes[0] if result.holes else None
    return FoundCve(
        cve=result.cve,
        source=result.source,
        packages=sorted({package.name for package in result.packages}),
        names=sorted({name for package in result.packages for name in package.names}),
        disk=result.disk,
        own=result.own,
        began=result.began,
        without=sorted({f"{package.name} {package.version}" for package in result.without}),
        fixed=result.fixed,
        line=result.line,
        words=result.words or "",
        urgency=hole.urgency if hole else "",
        remote=hole.remote if hole else None,
        description=hole.description if hole else "",
    )

