"""Looks at the files that containers run; done by a child of the launcher, as all layers are in its mount namespace.

The child enters no container and walks none: it reads processes in /proc, and layers from outside.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from lxcfleet.base import layers
from lxcfleet.base.present import Found, Present, Shelf
from lxcfleet.base.stack import Layer, Stack
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.packages.losses import Loss
from lxcfleet.host.process import cgroup, maps, outdated, proc
from lxcfleet.host.process.alike import Alike
from lxcfleet.launcher.items.looks import ScanItem
from lxcfleet.patch.stale.judge import OldFile, Process, StaleScan, Why, judge_mapped, merge, same, written_since
from lxcfleet.patch.stale.scripts import MODULES, kind_of, may_be_script, script_of
from lxcfleet.patch.stale.served import CachedEntries, Candidates, ComparedFiles, Notes, Served, compare

_ROUNDS = 5
"""How often the child looks for processes that began meanwhile."""
_SECONDS = 10.0
"""Seconds for which one container is looked at; a hundred with 500 processes take 0.1 s. A hostile container can map and
mount so much that it takes minutes: the containers after it must not wait for that."""
_MOST_FOUND = 2 << 20
"""Characters of the paths of old files, each path once, and 64 for each process that has one."""
_MOST_FRESH = 50_000
"""Files that are known to be those of the layers and are remembered."""


@dataclass(frozen=True)
class Target:
    """A running container to look at."""

    name: str
    pid: int
    """Its process 1."""
    cgroup: str
    """The directory of its payload cgroup in one hierarchy."""
    stack: Stack
    since: float = 0.0
    """The time of its start, in seconds since the epoch."""
    monitor: int | None = None
    """The pid of its monitor."""
    client: int | None = None
    """The pid of its DHCP client, if it has one."""

    def to_json(self) -> ScanItem:
        """For the request to the process that looks."""
        return {
            "name": self.name, "pid": self.pid, "cgroup": self.cgroup, "stack": self.stack.to_json(), "since": self.since,
            "monitor": self.monitor, "client": self.client,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Target:
        """The target that ``to_json`` wrote."""
        return cls(
            data["name"], data["pid"], data["cgroup"], Stack.from_json(data["stack"]), data["since"], data["monitor"],
            data["client"],
        )  # fmt: skip


class History(Protocol):
    """The knowledge of the host's packages at the last starts of containers; see ``versions.Versions``."""

    def as_at_start(self, name: str, package: str) -> bool:
        """Whether the host has the same version of the package as at the last start of the container ``name``."""

    def is_new(self, name: str, package: str, path: str, since: float) -> bool:
        """Whether the package with the file ``path`` came to the host after ``since`` and the container's last start."""


class _Unknown:
    """Nothing is known."""

    def as_at_start(self, _name: str, _package: str) -> bool:
        return False

    def is_new(self, _name: str, _package: str, _path: str, _since: float) -> bool:
        return False


_unknown = _Unknown()


def scan(
    targets: Iterable[Target], wanted: ComparedFiles | None = None, lost: Sequence[Loss] = (), history: History = _unknown
) -> Iterator[StaleScan]:
    """Compare the files that each container runs with its layers. ``wanted``: the served files that are compared, too.

    ``lost``: files that packages have no more; ``history``: the host's packages at containers' last starts.
    """
    chosen = list(targets)
    shelf, devices, alike = Shelf(), _Devices(), Alike()
    candidates, notes = None, Notes()
    if wanted is not None and chosen:
        candidates = Candidates(wanted, min(target.since for target in chosen), lost)
    try:
        for target in chosen:
            yield _scan_one(_Container(target, candidates, alike, notes, history), shelf, devices)
    finally:
        shelf.close()


class _Devices:
    """The devices of layers, in /proc's form. Those of shared layers are looked up once."""

    def __init__(self) -> None:
        self._shared: dict[tuple[Layer, ...], list[tuple[str, bool]]] = {}

    def of(self, stack: Stack) -> tuple[set[str], bool]:
        """The devices of all layers, and whether all programs are on one device. Raises OSError."""
        if stack.standing not in self._shared:
            parts = [(stack.bottom.outside(point), True) for point in layers.marked(stack)]
            whole = [(place, not layer.neutral) for layer in stack.standing for place in layer.sheets or (layer.source,)]
            places = [*whole, *parts]
            self._shared[stack.standing] = [(_device(place), programs) for place, programs in places]
        found = [(_device(stack.top.source), True), *self._shared[stack.standing]]
        return {device for device, _ in found}, len({device for device, programs in found if programs}) == 1


def _device(place: str) -> str:
    return maps.device_name(os.stat(place).st_dev)


def _scan_one(looked: _Container, shelf: Shelf, devices: _Devices) -> StaleScan:
    target = looked.target
    try:
        with shelf.present(target.stack) as present:
            looked.read(present, *devices.of(target.stack))
    except ProcessLookupError:
        pass  # it has ended, and so have its processes
    except OSError as error:
        looked.problem = f"{error.filename}: {error.strerror}"
    return StaleScan(target.name, len(looked.seen), looked.mappings, looked.files(), looked.problem, looked.served.compared)


@dataclass(frozen=True)
class _View:
    """The mounts that process 1 of a container sees."""

    devices: Collection[str]
    """The devices that files of the layers have in ``maps``."""
    mounted: Sequence[tuple[str, str | None]]
    """The result of ``places``."""
    top: Collection[str]
    """The devices of the overlays that are mounted as the root."""

    @classmethod
    def of(cls, table: Sequence[maps.ProcessMount], own: Collection[str], layers_devices: Collection[str]) -> _View:
        """``own``: the devices of what process 1 maps; ``layers_devices``: those of the layers themselves."""
        overlays = {mount.device for mount in table if mount.kind == "overlay" and mount.source == layers.DEVICE}
        # The kernel version decides which device a mapping has, and process 1 shows it. If it is the layer's own device, a
        # volume may have the same.
        devices = overlays if overlays.intersection(own) else layers_devices
        top = {mount.device for mount in table if mount.point == mount.root == "/"} & overlays
        return cls(devices, places(table, overlays), top)


class _Container:
    """One container while it is looked at."""

    def __init__(
        self, target: Target, candidates: Candidates | None, alike: Alike, notes: Notes, history: History
    ) -> None:
        self.target, self._history = target, history
        self._one = target.pid
        """Process 1, or a thread of it."""
        self._leaders: dict[int, int] = {}
        """The processes of threads that are asked in their place, as their first threads have ended."""
        self._candidates, self._alike, self._notes = candidates, alike, notes
        self.seen: set[int] = set()
        self.found: list[tuple[str, Why, str, Process]] = []
        self.mappings = 0
        self.problem = ""
        self._deadline = time.monotonic() + _SECONDS
        self._room = _MOST_FOUND
        self._paths: set[str] = set()
        self.served = Served()
        self._fresh: set[maps.MappedFile] = set()
        """Files that other processes of the container map, too, and that are known to be those of the layers."""
        self._packages: dict[str, str] = {}
        self._plain = False
        """Whether process 1 has the layers' root, and maps nothing but the present files there."""

    def files(self) -> tuple[OldFile, ...]:
        """All old files: those that processes have, and those that a process would get on opening them."""
        had = merge(self.found)
        known = {file.path for file in had}
        served = [
            OldFile(path, Why.SERVED, layer, (), package)
            for path, package, layer in sorted(self.served.files)
            if path not in known
        ]
        return (*(replace(file, package=self._packages.get(file.path, "")) for file in had), *served)

    def read(self, present: Present, devices: set[str], one_file_system: bool) -> None:
        """Look at all processes of the container, until no new ones come.

        ``one_file_system``: all programs are in one file system. Then equal inode numbers mean equal files while they are
        mapped; else each mapping is looked at by itself.
        """
        self._present, self._one_file_system, self._layers = present, one_file_system, devices
        try:
            self._root = maps.top_device(self._one)
        except ProcessLookupError:
            self._one = self._living(self._one)
            self._root = maps.top_device(self._one)
        self._root_name = maps.device_name(self._root)
        self._first = maps.executable(self._one)
        try:
            self._read_processes()
            self._read_companions()
            if self._candidates is not None and not (self._plain and self._candidates.none_since(self.target.since)):
                if self._memory.rooted:
                    self.served = compare(self._memory, self._candidates, self.target.since)
                else:
                    self.problem = self.problem or "process 1 has another root, so the files that it is served are not known"
        finally:
            if "_memory" in vars(self):
                self._memory.close()

    @cached_property
    def _view(self) -> _View:
        """The mounts in the container. Read only where they matter, as that takes as long as reading three processes."""
        return _View.of(maps.mounts(self._one), {file.device for _, file in self._first}, self._layers)

    @cached_property
    def _memory(self) -> CachedEntries:
        view = self._view
        return CachedEntries(self._one, view.top, view.mounted, self._present, self._alike, self._notes)

    def _read_companions(self) -> None:
        """Check the monitor and the DHCP client: they map the host's own files, and the kernel says which were replaced."""
        pid = self.target.monitor
        if pid is not None:
            process, layer = Process(pid, "lxc monitor"), self._present.bottom.layer.name
            with suppress(ProcessLookupError):  # it ended before its container, whose processes still count
                self.found += [(path, Why.MONITOR, layer, process) for path in maps.replaced(maps.deleted(pid))]
        pid = self.target.client
        if pid is not None:
            process, layer = Process(pid, "udhcpc"), self._present.bottom.layer.name
            self.found += [(old.path, Why.CLIENT, layer, process) for old in outdated.files(pid)]

    def _read_processes(self) -> None:
        for _ in range(_ROUNDS):
            found, whole = cgroup.members(self.target.cgroup)
            new = set(found) - self.seen
            if not new:
                self._be_sure()
                if not whole and not self.problem:
                    self.problem = "its cgroups can't all be looked at"
                return
            for pid in sorted(new):
                self._process(pid)
                self.seen.add(pid)
                if self._late():
                    return
        self.problem = f"new processes came all the time ({len(self.seen)} so far)"

    def _late(self) -> bool:
        if time.monotonic() <= self._deadline:
            return False
        self.problem = f"it takes more than {_SECONDS:g} s ({len(self.seen)} processes so far)"
        return True

    def _be_sure(self) -> None:
        """Check the cgroup: if it is gone, or not the container's, it has no processes, and that would prove nothing."""
        if self.target.pid not in self.seen:
            maps.root_device(self._one)  # raises if the container has ended meanwhile
            self.problem = f"process 1 ({self.target.pid}) is not in {self.target.cgroup}"

    def _living(self, pid: int) -> int:
        """The number to ask by, of a process whose first thread has ended. Raises ProcessLookupError if all have."""
        thread = maps.living_thread(pid)
        if thread is None:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), f"/proc/{pid}")
        self._leaders[thread] = pid
        return thread

    def _began(self, pid: int) -> float | None:
        return proc.began(self._leaders.get(pid, pid))

    def _process(self, pid: int) -> None:
        try:
            try:
                self._judge(pid)
            except ProcessLookupError:
                self._judge(self._living(pid))
        except ProcessLookupError:
            pass
        except OSError as error:
            self.problem = f"{error.filename or f'process {pid}'}: {error.strerror}"

    def _judge(self, pid: int) -> None:
        mapped = self._first if pid == self._one else maps.executable(pid)
        rooted = maps.root_device(pid) == self._root
        if not mapped or not (rooted or maps.top_device(pid) == self._root):
            # The process has ended, or its number belongs to another one by now; or a container inside the container has
            # another root, with software of its own.
            return
        old, present = self._mapped(pid, mapped)
        if pid == self._one:
            self._plain = rooted and present
        program, deleted = maps.program(pid)
        if all(file.path != program for _, file in mapped) and (path := place(program, self._view.mounted)) is not None:
            old += self._compare(path, maps.program_file(pid), deleted, f"/proc/{pid}/exe")
        old += self._script(pid, program)
        old += self._modules(pid, program)
        if old:
            process = Process(self._leaders.get(pid, pid), maps.command(pid))
            self.found += [(path, why, layer, process) for path, why, layer in dict.fromkeys(old)]

    def _mapped(self, pid: int, mapped: Sequence[maps.Mapping]) -> tuple[list[tuple[str, Why, str]], bool]:
        """The old files that a process maps, and whether all that it maps are present ones on the device of its root."""
        old, plain = [], 0
        for name, file in mapped:
            if file in self._fresh:
                self.mappings += 1
                plain += file.device == self._root_name
            elif self._is_present(pid, name, file):
                self.mappings += 1
                plain += file.device == self._root_name
                self._remember(file)
            elif file.device in self._view.devices and (path := place(file.path, self._view.mounted)) is not None:
                identity = maps.mapped_file(pid, name)
                if self._late():
                    break
                if identity is not None:
                    self.mappings += 1
                    found = self._compare(path, identity, file.deleted, f"/proc/{pid}/map_files/{name}")
                    old += self._fitting(found)
                    if not found:
                        self._remember(file)
        return old, plain == len(mapped)

    def _is_present(self, pid: int, name: str, file: maps.MappedFile) -> bool:
        """Whether the file is the one that a fresh mount has at its path: then it is not old, whatever is mounted there."""
        if file.deleted or not (file.device == self._root_name or file.device in self._layers):
            return False
        now = self._present.find(file.path)
        if now.identity is None:
            return False
        if self._one_file_system and not now.layer.neutral and file.inode == str(now.identity.inode):
            return True  # while a file is mapped, no other one in its file system has its number
        identity = maps.mapped_file(pid, name)
        return identity is not None and same(identity, now.identity, copied=now.copied)

    def _remember(self, file: maps.MappedFile) -> None:
        if self._one_file_system and len(self._fresh) < _MOST_FRESH:
            self._fresh.add(file)

    def _fitting(self, found: list[tuple[str, Why, str]]) -> list[tuple[str, Why, str]]:
        """Those for which there is room in the answer; if there is none, that is told."""
        for path, *_ in found:
            self._room -= 64 + (0 if path in self._paths else len(path))
            if self._room < 0:
                self.problem = f"it runs more old files than are listed ({len(self._paths)})"
                return []
            self._paths.add(path)
        return found

    def _compare(self, path: str, identity: maps.Identity, deleted: bool, where: str) -> list[tuple[str, Why, str]]:
        """Compare a file. ``where``: the path at which the file of the process can be read."""
        for attempt in (1, 2):
            now = self._present.find(path)
            why = judge_mapped(identity, now, deleted=deleted)
            if why is Why.REPLACED and self._is_alike(path, identity, where, now):
                why = None
            if why is None:
                return []
            if attempt == 1:
                # The scan remembers results, which may be older than the file that the process runs by now.
                self._present.bottom.forget(path)
        return [(path, why, now.layer.name)] if why else []

    def _is_alike(self, path: str, identity: maps.Identity, where: str, now: Found) -> bool:
        """Whether the file was replaced by one with the same content: a restart would change nothing."""
        hosts = now.layer.hosts and now.identity is not None
        return hosts and now.identity is not None and self._alike.same(identity, where, now.identity, now.layer.outside(path))

    def _script(self, pid: int, program: str) -> list[tuple[str, Why, str]]:
        """The script that an interpreter was started for."""
        comm = maps.command(pid)
        if not may_be_script(program, comm):
            return []
        path = script_of(program, maps.arguments(pid), comm)
        if path is None:
            return []
        path = self._present.resolve(path if path.startswith("/") else f"{maps.directory(pid)}/{path}")
        path = place(path, self._view.mounted)
        if path is None:
            return []
        now = self._present.find(path)
        # A patch of the host changes only scripts of the host.
        if not now.layer.hosts or now.status is None:
            return []
        began, born = self._began(pid), syscalls.born(now.layer.outside(path))
        status = now.status
        if began is None or not written_since(proc.as_time(began), born, status.st_ctime, status.st_nlink):
            return []
        if self._memory.has_same(path):
            return []
        return [(path, Why.REPLACED, now.layer.name)]

    def _modules(self, pid: int, program: str) -> list[tuple[str, Why, str]]:
        """Modules that changed since an interpreter began, one of each package: the interpreter may have read them."""
        kind = kind_of(program)
        if self._candidates is None or kind not in MODULES:
            return []
        began = self._began(pid)
        if began is None:
            return []
        moment = proc.as_time(began)
        old: dict[str, tuple[str, Why, str]] = {}
        for package, path in self._candidates.modules(kind, moment):
            now = self._present.find(path)
            if package in old or not now.layer.hosts or self._memory.has_same(path):
                continue
            if self._may_be_old(package, path, moment):
                old[package] = path, Why.MODULES, now.layer.name
                self._packages[path] = package
        return list(old.values())

    def _may_be_old(self, package: str, path: str, began: float) -> bool:
        """Whether a process that began at that moment may have read another version of the file. After the way back to the
        version that the container began with, only a file that it looked up meanwhile is old."""
        name = self.target.name
        if self._history.is_new(name, package, path, began):
            return False
        return not self._history.as_at_start(name, package) or self._memory.differs(path) is not None


def places(table: Iterable[maps.ProcessMount], overlays: Collection[str]) -> list[tuple[str, str | None]]:
    """The mounts, for ``place``: each mount point with its place in the layers, or None. The deepest comes first.

    ``overlays``: the devices of the overlays over the layers; each of them may be mounted more than once (bind mounts).
    """
    homes: dict[str, str] = {}
    found: dict[str, str | None] = {}
    for mount in table:
        real = None
        if mount.device in overlays:
            home = homes.setdefault(mount.device, mount.point.rstrip("/"))
            real = (home + mount.root).rstrip("/")
        if mount.point != "/":
            found[mount.point] = real
    return sorted(found.items(), key=lambda item: len(item[0]), reverse=True)


def place(path: str, mounted: Iterable[tuple[str, str | None]]) -> str | None:
    """The place in the layers of a container's ``path``; None if that is in a file system of another kind."""
    for point, real in mounted:
        if path.startswith(point) and path[len(point) : len(point) + 1] in ("", "/"):
            return None if real is None else real + path[len(point) :]
    return path
