"""A container's use of resources, and whether it is frozen, from its cgroup: v2, v1 and both at once.

liblxc puts the processes of NAME below a cgroup ``lxc.payload.NAME`` in each hierarchy; systemd inside moves
them further down, so everything is read at that level. cgroups(7).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lxcfleet.errors import WrongState
from lxcfleet.host.kernel import small
from lxcfleet.host.kernel.descent import Descent
from lxcfleet.units import as_size

_ROOT = Path("/sys/fs/cgroup")


@functools.cache
def unified() -> bool:
    """Whether this host has cgroup v2 and nothing else."""
    return (_ROOT / "cgroup.controllers").exists()


def controllers() -> frozenset[str]:
    """The controllers that containers can have, v1's and v2's."""
    if unified():
        return frozenset((_ROOT / "cgroup.controllers").read_text(encoding="ascii").split())
    return frozenset(path.name for path in _ROOT.iterdir() if path.is_dir())


SWAP, SWAP_LEGACY = "memory.swap.max", "memory.memsw.limit_in_bytes"
IO_WEIGHTS = frozenset(("io.weight", "io.bfq.weight", "blkio.bfq.weight", "blkio.weight"))
IO_MAX = "io.max"
IO_MAX_LEGACY = {
    "read": "blkio.throttle.read_bps_device", "write": "blkio.throttle.write_bps_device",
    "read_ops": "blkio.throttle.read_iops_device", "write_ops": "blkio.throttle.write_iops_device",
}  # fmt: skip
"""cgroup v1's files for what v2 has in one; cgroup-v1/blkio-controller."""
OPTIONAL = frozenset((SWAP, SWAP_LEGACY, IO_MAX, IO_MAX_LEGACY["read"])) | IO_WEIGHTS
"""Files that a cgroup has only with some kernels, or with some of their options."""


def optional(root: Path = _ROOT, system: Path = Path("/")) -> frozenset[str]:
    """Those of ``OPTIONAL`` that the cgroups of containers have.

    The root has most of them not, and on v2 its children only those of controllers that are on in it, as liblxc turns them
    on at the first start of a container. So files that come along with them count, too.
    """
    if not (root / "cgroup.controllers").exists():
        found = {each for each in OPTIONAL if (root / each.partition(".")[0] / each).exists()}
        if (root / "blkio/blkio.bfq.io_service_bytes").exists():
            found.add("blkio.bfq.weight")
        return frozenset(found)
    known = (root / "cgroup.controllers").read_text(encoding="ascii").split()
    below = [path for path in root.iterdir() if path.is_dir()]
    found = {each for each in OPTIONAL for path in below if (path / each).exists()}
    counted = any((path / "memory.current").exists() for path in below)
    if "memory" in known and not counted and (system / "proc/swaps").exists():
        found.add(SWAP)
    if "io" in known and not any((path / "io.stat").exists() for path in below):
        found.add(IO_MAX)
    if "io" in known and (root / "io.cost.qos").exists():
        found.add("io.weight")
    if "io" in known and (system / "sys/module/bfq").exists():
        found.add("io.bfq.weight")
    return frozenset(found)


SLICE = "lxcfleet.slice"
"""The unit that is lxcfleet's slice; systemd.slice(5)."""


def parent() -> str:
    """The cgroup, as a path below the root, in which liblxc is to make those of containers; empty: liblxc chooses.

    This is the slice of this process, on hosts with cgroup v2 alone. Slices never have processes of
    their own, so controllers can be turned on in them; cgroups(7), "no internal processes".
    """
    if not unified():
        return ""
    own = Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").strip()
    return SLICE if own.startswith(f"0::/{SLICE}/") else ""


def expect_moves() -> None:
    """Have the kernel ready for processes that are about to be moved between cgroups, as monitors do at each start and end.

    The first move in a while waits for a grace period of RCU, 5 to 20 ms, and others right after it do not wait
    (cgroup_threadgroup_rwsem in the kernel's cgroup.c). So this process is moved to where it is already, and waits as long.
    """
    try:
        lines = os.fsdecode(small.content("/proc/self/cgroup")).splitlines()
        _, controllers, own = next(line.split(":", 2) for line in lines if unified() or not line.startswith("0:"))
        top = f"{_ROOT}/{controllers.partition(',')[0].removeprefix('name=')}" if controllers else str(_ROOT)
        if not own.startswith("/.."):  # it is in no cgroup that can be named from here
            with open(f"{top}{own}/cgroup.procs", "wb", 0) as procs:
                procs.write(b"0")
    except (OSError, StopIteration):  # then the monitor waits, as it would anyway
        pass


def place(controller: str) -> Path | None:
    """Where this host's side makes cgroups of its own: v2's, or else those of the controller; None: there is no such."""
    if unified():
        return _ROOT / parent()
    top = _ROOT / controller
    return top if top.is_dir() else None


@dataclass(frozen=True)
class Payload:
    """The cgroups of one running container: controller to directory; the key of v2's is empty."""

    directories: Mapping[str, str]
    """As texts: each start and each end handles dozens of them, and a Path takes ten times as long to make."""

    def _read(self, controller: str, legacy: str, modern: str) -> str | None:
        """The content of a controller's file by the name that v1 or v2 gives it."""
        name = self._name(controller, legacy, modern)
        try:
            if name is None:
                return None
            return small.content(name).decode("ascii")
        except OSError:
            return None

    def _name(self, controller: str, legacy: str, modern: str) -> str | None:
        if controller in self.directories:
            return f"{self.directories[controller]}/{legacy}"
        return f"{self.directories['']}/{modern}" if "" in self.directories else None

    def file(self, controller: str, legacy: str, modern: str) -> Path | None:
        """A controller's file by the name that v1 or v2 gives it; None if the host has no such controller."""
        name = self._name(controller, legacy, modern)
        return None if name is None else Path(name)

    def write(self, controller: str, file: str, value: str) -> None:
        """Set a file of a controller, by v1's name or v2's as the host has it. Raises OSError."""
        directory = self.directories.get(controller) or self.directories.get("")
        if directory is None:
            raise FileNotFoundError(errno.ENOENT, "it has no such cgroup", controller)
        Path(directory, file).write_text(value, encoding="ascii")

    @property
    def frozen(self) -> bool:
        """Whether the container's processes are frozen, whoever froze them."""
        text = self._read("freezer", "freezer.state", "cgroup.freeze")
        return text is not None and text.strip() in ("1", "FROZEN", "FREEZING")

    @property
    def memory(self) -> int | None:
        """Bytes of memory that are charged to the container."""
        return number(self._read("memory", "memory.usage_in_bytes", "memory.current"))

    @property
    def out_of_memory_kills(self) -> int | None:
        """How many of its processes the kernel killed because memory ran out."""
        return out_of_memory(self._read("memory", "memory.oom_control", "memory.events") or "")

    @property
    def processes(self) -> int | None:
        """The number of its processes and threads."""
        return number(self._read("pids", "pids.current", "pids.current"))

    @property
    def cpu_seconds(self) -> float | None:
        """Seconds of processor time since its start."""
        text = self._read("cpuacct", "cpuacct.usage", "cpu.stat") or ""
        return cpu_v1(text) if "cpuacct" in self.directories else cpu_v2(text)

    @property
    def throttled_seconds(self) -> float | None:
        """Seconds for which its limit kept it from processors that it wanted; None: the host does not count them."""
        text = self._read("cpu", "cpu.stat", "cpu.stat")
        return None if text is None else throttled(text)

    @property
    def pressure(self) -> dict[str, float]:
        """Seconds in which some of its processes waited for cpu, memory or io, by that word. Empty: the host does not count
        them, as with cgroup v1, or with a kernel that has PSI off."""
        found = {what: self._read("", f"{what}.pressure", f"{what}.pressure") for what in PRESSED}
        return {what: some for what, text in found.items() if text is not None and (some := stalled(text)) is not None}

    @property
    def directory(self) -> str | None:
        """The directory that lists its processes; None if it is gone. All hierarchies list them; v2's is preferred."""
        return self.directories.get("") or next(iter(self.directories.values()), None)

    @property
    def io_bytes(self) -> tuple[int, int] | None:
        """Bytes that it read from block devices and wrote to them; None if the host does not count them."""
        if "blkio" in self.directories:
            text = self._read("blkio", "blkio.throttle.io_service_bytes_recursive", "")
            return None if text is None else io_v1(text)
        text = self._read("", "io.stat", "io.stat")
        return None if text is None else io_v2(text)


def out_of_memory(text: str) -> int | None:
    """The number in the line ``oom_kill 1``; cgroup-v1/memory and cgroup-v2, memory.events."""
    found = [line.partition(" ")[2] for line in text.splitlines() if line.startswith("oom_kill ")]
    return number(found[0]) if found else None


def cpu_v1(text: str) -> float | None:
    """Seconds of a file that has nanoseconds; cgroup-v1/cpuacct."""
    used = number(text)
    return None if used is None else used / 1e9


def cpu_v2(text: str) -> float | None:
    """Seconds of a file with lines such as ``usage_usec 1000``; cgroup-v2, cpu.stat."""
    for line in text.splitlines():
        if line.startswith("usage_usec "):
            used = number(line.partition(" ")[2])
            return None if used is None else used / 1e6
    return None


PRESSED = ("cpu", "memory", "io")


def throttled(text: str) -> float | None:
    """Seconds in a cpu.stat: ``throttled_time`` in nanoseconds (sched-bwc), or ``throttled_usec`` (cgroup-v2)."""
    for line in text.splitlines():
        word, _, value = line.partition(" ")
        if word in ("throttled_time", "throttled_usec") and (found := number(value)) is not None:
            return found / (1e9 if word == "throttled_time" else 1e6)
    return None


def stalled(text: str) -> float | None:
    """Seconds in a line such as ``some avg10=0.00 avg60=0.00 avg300=0.00 total=1000``; accounting/psi."""
    for line in text.splitlines():
        if line.startswith("some "):
            found = number(line.rpartition(" total=")[2])
            return None if found is None else found / 1e6
    return None


def io_v1(text: str) -> tuple[int, int]:
    """Sums of a file with lines such as ``8:0 Read 4096``; cgroup-v1/blkio-controller."""
    words = [line.split() for line in text.splitlines()]
    read, written = (sum(int(w[2]) for w in words if len(w) == 3 and w[1] == kind) for kind in ("Read", "Write"))
    return read, written


def io_v2(text: str) -> tuple[int, int]:
    """Sums of a file with lines such as ``8:0 rbytes=4096 wbytes=0 rios=1 …``; cgroup-v2, io.stat."""
    pairs = [word.partition("=") for word in text.split()]
    read, written = (sum(int(value) for key, _, value in pairs if key == kind) for kind in ("rbytes", "wbytes"))
    return read, written


_DIGITS = 20
"""The most digits of a number of 64 bits."""


def number(text: str | None) -> int | None:
    """The whole number in a file; None if there is none."""
    word = "" if text is None else text.strip()
    return int(word) if word.isdecimal() and len(word) <= _DIGITS else None


def too_little_memory(name: str, limit: int, used: int) -> WrongState:
    """The error for a memory limit below the container's use: the kernel would kill processes of it."""
    return WrongState(
        f"{name} can't be held to {as_size(limit)} of memory", why=f"it has {as_size(used)} in use ({used} bytes)",
        hint=f"choose more, or stop it first: lxcfleet stop {name}",
    )  # fmt: skip


def payload(pid: int, name: str) -> Payload:
    """The cgroups of the container ``name``, whose process 1 is ``pid``; none if the container is gone."""
    return Payload(_cgroups(pid, f"lxc.payload.{name}"))


def of_monitor(pid: int, name: str) -> frozenset[str]:
    """The cgroups that liblxc made for the monitor ``pid`` of the container ``name``."""
    return frozenset(_cgroups(pid, f"lxc.monitor.{name}").values())


def _cgroups(pid: int, own_name: str) -> dict[str, str]:
    directories: dict[str, str] = {}
    try:
        text = os.fsdecode(small.content(f"/proc/{pid}/cgroup"))
    except OSError:
        return directories
    if own_name not in text:
        return directories
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        own = _cut(path, own_name)
        if own is None:
            continue
        if not controllers:
            directories[""] = f"{_ROOT}/{own}" if unified() else f"{_ROOT}/unified/{own}"
        for controller in controllers.split(","):
            if controller:
                directories[controller] = f"{_ROOT}/{controller.removeprefix('name=')}/{own}"
    return directories


def members(directory: str) -> tuple[list[int], bool]:
    """The processes in a cgroup and in all below it, and whether each of these cgroups was seen; none if it is gone.

    Its root may nest cgroups so deep that no path leads there, and on v1 as many as it likes.
    """
    found: list[int] = []

    def look(descriptor: int) -> list[str]:
        try:
            found.extend(map(int, small.listed("cgroup.procs", descriptor).split()))
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # a threaded cgroup (v2): its processes are listed in its parent
                raise
        return _below(descriptor)

    descent = Descent(directory, look)
    descent.run()
    return found, descent.whole


def _in(directory: int) -> Callable[[str, int], int]:
    return lambda name, flags: os.open(name, flags, dir_fd=directory)


def _below(directory: int) -> list[str]:
    """The names of the cgroups directly below the one that is open.

    A cgroup has dozens of files. Its number of links is 2 plus one for each directory (kernfs_refresh_inode, Linux), so a
    cgroup without children, as most are, need not be listed.
    """
    if os.fstat(directory).st_nlink == 2:
        return []
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def still(payload: Payload, *, frozen: bool, seconds: float) -> bool:
    """Freeze or unfreeze all of a container's processes for a moment; whether that is so within ``seconds``. Raises OSError.

    liblxc's own way looks once a second on v1 (freezer.c), so a freeze by it may take that long. It is not told of this one:
    `lxc-info` says RUNNING meanwhile.
    """
    top = payload.file("freezer", "freezer.state", "cgroup.freeze")
    if top is None:
        raise FileNotFoundError(errno.ENOENT, "it has no cgroup that could be frozen")
    legacy = top.name == "freezer.state"
    word = ("FROZEN" if frozen else "THAWED") if legacy else str(int(frozen))
    told = top if legacy else top.with_name("cgroup.events")
    expected = word if legacy else f"frozen {word}"
    top.write_text(word, encoding="ascii")
    deadline = time.monotonic() + seconds
    while expected not in told.read_text(encoding="ascii").splitlines():
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


_LOOK_SECONDS = 0.001


def thaw(payload: Payload) -> None:
    """Thaw all that is frozen in a container that is to end: on v1 a frozen process does not even die of SIGKILL.

    Root inside may have frozen processes in a cgroup below the container's own; on v1 only a look at each finds them.
    """
    top = payload.directories.get("freezer")
    if top is not None:
        Descent(top, _thaw).run()


def _thaw(directory: int) -> list[str]:
    with contextlib.suppress(OSError), open("freezer.state", "wb", 0, opener=_in(directory)) as file:
        file.write(b"THAWED")
    return _below(directory)


def usual(name: str) -> tuple[str, ...]:
    """The cgroups that liblxc makes for a container, unless there are such already."""
    return tuple(f"{top}/lxc.{kind}.{name}" for top in _hierarchies() for kind in _KINDS)


def remove(cgroups: Iterable[str], most: int | None = None) -> bool:
    """Remove what is left of cgroups of a container that has ended; returns whether nothing is left.

    liblxc's monitor tries that once, and leaves its cgroup if another process in it is not quite gone (5.0.2: in
    one of ten starts of a command that ends at once). A monitor that was killed leaves all its cgroups.
    ``most``: the number of cgroups after which this gives up, for callers who can't wait; else it may take seconds.
    """
    gone, count = True, 0
    for top in cgroups:
        if _is_removed(top):  # as nearly all are: a walk takes many times as long
            continue
        for _ in Descent(top, _below, _remove):
            count += 1
            if most is not None and count > most:
                return False
        with contextlib.suppress(OSError):  # in use
            os.rmdir(top)
        gone = gone and not os.path.exists(top)
    return gone


def _is_removed(cgroup: str) -> bool:
    """Whether a cgroup is gone, be it removed by this. One that is in use, or has cgroups in it, can't be removed so."""
    try:
        os.stat(cgroup)  # rmdir waits for all who make or remove one beside it, also where there is nothing to remove
        os.rmdir(cgroup)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def left_behind(names: Collection[str], used: Collection[str]) -> dict[str, set[str]]:
    """The cgroups without processes of containers ``names``, by name, but for those that are in use and quite new ones.

    liblxc appends -1, -2, … to a name if a stale cgroup has it: that is ours only if no container has such a name.
    """
    found: dict[str, set[str]] = {}
    for top in _hierarchies():
        with contextlib.suppress(OSError), os.scandir(top) as entries:
            for entry in entries:
                kind, _, rest = entry.name.removeprefix("lxc.").partition(".")
                name = rest if rest in names else _NUMBERED.sub("", rest)
                own = entry.name.startswith("lxc.") and kind in _KINDS and name in names
                if own and entry.path not in used and _is_over(entry):
                    found.setdefault(name, set()).add(entry.path)
    return found


def _is_over(entry: os.DirEntry[str]) -> bool:
    try:
        return time.time() - entry.stat().st_ctime > _NEW_SECONDS and members(entry.path) == ([], True)
    except OSError:
        return False


_KINDS = ("payload", "monitor")
_NUMBERED = re.compile(r"-[0-9]+$")
_NEW_SECONDS = 10.0
"""A cgroup that is so new may be about to get its first process."""


def _remove(above: int, name: str) -> None:
    with contextlib.suppress(OSError):  # in use
        os.rmdir(name, dir_fd=above)


@functools.cache
def _hierarchies() -> tuple[str, ...]:
    """The directories where root's containers have their cgroups."""
    if unified():
        return (str(_ROOT), f"{_ROOT}/{SLICE}")
    return tuple(str(path) for path in _ROOT.iterdir() if path.is_dir() and not path.is_symlink())


def _cut(path: str, component: str) -> str | None:
    """``path`` up to ``component``. (liblxc appends -1, -2, … if a stale cgroup has the name.)"""
    if path.endswith(f"/{component}") and path.count(component) == 1:  # as nearly all do
        return path.lstrip("/")
    parts = path.strip("/").split("/")
    for number, part in enumerate(parts):
        if part == component or (part.startswith(component + "-") and part[len(component) + 1 :].isdigit()):
            return os.path.join(*parts[: number + 1])
    return None
