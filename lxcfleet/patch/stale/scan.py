"""Looks at the files that containers run; done by a child of the launcher, as all layers are in its mount namespace.

The child enters no container and walks none: it reads processes in /proc, and layers from outside.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lxcfleet.base import layers
from lxcfleet.base.present import Found, Present, Shelf
from lxcfleet.base.stack import Layer, Stack
from lxcfleet.host.packages.losses import Loss
from lxcfleet.host.process import cgroup, maps, outdated, proc
from lxcfleet.host.process.alike import Alike
from lxcfleet.launcher.items.looks import ScanItem
from lxcfleet.patch.stale.interpreted import History, Interpreted, unknown
from lxcfleet.patch.stale.judge import OldFile, Process, StaleScan, Why, judge_mapped, merge, same
from lxcfleet.patch.stale.scripts import DESCRIPTORS, kinds_of, may_be_script, script_of
from lxcfleet.patch.stale.served import CachedEntries, Candidates, ComparedFiles, Notes, Served, compare
from lxcfleet.patch.stale.views import MountView

_ROUNDS = 5
"""How often the child looks for processes that began meanwhile."""
_SECONDS = 10.0
"""Seconds for which one container is looked at; a hundred with 500 processes take 0.1 s. A hostile container can map and
mount so much that it takes minutes: the containers after it must not wait for that."""
_MOST_FOUND = 2 << 20
"""Characters of the paths of old files, each path once, and 64 for each process that has one."""
_MOST_FRESH = 50_000
"""Files that are known to be those of the layers and are remembered."""
_MOST_VIEWS = 8
"""Tables of mounts that are remembered; each process may have one of its own, with 100,000 mounts."""


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


def scan(
    targets: Iterable[Target], wanted: ComparedFiles | None = None, lost: Sequence[Loss] = (), history: History = unknown
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
        self._views: dict[tuple[str, str], MountView] = {}
        """The views of processes with mounts of their own, by mount namespace and root."""
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
        packages = self._interpreted.packages if "_interpreted" in vars(self) else {}
        return (*(replace(file, package=packages.get(file.path, "")) for file in had), *served)

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
    def _view(self) -> MountView:
        """The mounts in the container. Read only where they matter, as that takes as long as reading three processes."""
        return MountView.of(maps.mounts(self._one), {file.device for _, file in self._first}, self._layers)

    @cached_property
    def _namespace(self) -> str:
        return maps.mount_namespace(self._one)

    def _view_of(self, pid: int) -> MountView:
        """The mounts that a process sees: a service, or a sandbox, may have some of its own."""
        namespace = maps.mount_namespace(pid)
        if namespace == self._namespace:
            return self._view
        root = maps.root_directory(pid)
        key = namespace, root
        if key not in self._views:
            if len(self._views) >= _MOST_VIEWS:
                self._views.clear()
            self._views[key] = self._view.within(maps.mounts(pid), root)
        return self._views[key]

    @cached_property
    def _memory(self) -> CachedEntries:
        view = self._view
        return CachedEntries(self._one, view.top, view.mounted, self._present, self._alike, self._notes)

    @cached_property
    def _interpreted(self) -> Interpreted:
        return Interpreted(self.target.name, self._present, self._memory, self._candidates, self._history)

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
        # A container inside the container, or a sandbox, has another root: software of its own, or files of this container
        # at places of their own. And the number may belong to a process of the host by now.
        inside = rooted or maps.top_device(pid) == self._root
        old, present = self._mapped(pid, mapped)
        if pid == self._one:
            self._plain = rooted and present
        # A process that has moved its program into memory without a file maps no file at all, and has its program still.
        program, deleted = maps.program(pid)
        view = None if inside and any(file.path == program for _, file in mapped) else self._view_of(pid)
        place = program if view is None else view.place(program)
        if view is not None and place is not None:
            old += self._compare(place, maps.program_file(pid), deleted, f"/proc/{pid}/exe")
        if place is not None:
            old += self._script(pid, program)
            old += self._modules(pid, program, mapped)
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
            elif file.device in self._view.devices and (path := self._view_of(pid).place(file.path)) is not None:
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
        script = script_of(program, maps.arguments(pid), comm)
        if script is None:
            return []
        view = self._view_of(pid)
        if (number := DESCRIPTORS.fullmatch(script)) is not None:
            return self._open_script(pid, view, number[1] or "0")
        began = self._began(pid)
        above = f"{maps.root_directory(pid).rstrip('/')}/" if script.startswith("/") else f"{maps.directory(pid)}/"
        return [] if began is None else self._interpreted.script(script, above, view, proc.as_time(began))

    def _open_script(self, pid: int, view: MountView, number: str) -> list[tuple[str, Why, str]]:
        """The script that an interpreter reads from an open file: the kernel says which file that is."""
        where = f"/proc/{pid}/fd/{number}"
        try:
            path, status = os.readlink(where), os.stat(where)
        except FileNotFoundError:
            return []
        gone = path.endswith(" (deleted)")
        place = view.place(path.removesuffix(" (deleted)")) if path.startswith("/") and stat.S_ISREG(status.st_mode) else None
        return [] if place is None else self._compare(place, maps.Identity.of(status), gone, where)

    def _modules(self, pid: int, program: str, mapped: Sequence[maps.Mapping]) -> list[tuple[str, Why, str]]:
        """Modules that changed since an interpreter began, one of each package: the interpreter may have read them."""
        if self._candidates is None or not (kinds := kinds_of(program, (file.path for _, file in mapped))):
            return []
        began = self._began(pid)
        if began is None:
            return []
        moment = proc.as_time(began)
        return [each for kind in kinds for each in self._interpreted.modules(kind, moment)]
