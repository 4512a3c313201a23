"""The values of a container's swap space, weights and limits of disks in the files of cgroups v2 and v1. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from lxcfleet.host.process.cgroup import IO_MAX, IO_MAX_LEGACY, IO_WEIGHTS, SWAP, SWAP_LEGACY
from lxcfleet.spec.container.io import IoLimit
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.swap import NO_LIMIT
from lxcfleet.spec.reading.terms import WEIGHT


def swap(spec: Spec) -> int | None:
    """The most swap space that it may use; None: no limit."""
    return None if spec.swap == NO_LIMIT else spec.swap


def shares(weight: int | None) -> int:
    """v1's cpu.shares for a weight of v2: 1024 for 100, as the kernel's sched_weight_from_cgroup has it."""
    return min(max(((weight or WEIGHT) * 1024 + WEIGHT // 2) // WEIGHT, 2), 1 << 18)


def io_files(files: frozenset[str]) -> list[str]:
    """Those of a host's files that have weights for block devices: of the scheduler bfq, of io.cost, and of kernels before
    5.0."""
    return sorted(files & IO_WEIGHTS)


def io_weight(file: str, weight: int | None) -> int:
    """A weight in the range that the file has, mapped as systemd does."""
    if file == "blkio.weight":  # 10 to 1000, and 500 by itself
        return min(max((weight or WEIGHT) * 5, 10), 1000)
    weight = weight or WEIGHT
    if file == "io.weight" or weight <= WEIGHT:
        return weight
    return WEIGHT + (weight - WEIGHT) * 900 // 9900  # bfq's weights end at 1000


def io_limits(spec: Spec, disks: Callable[[str], Iterable[str]]) -> dict[str, IoLimit]:
    """The limits by the numbers of disks, MAJOR:MINOR. ``disks``: gives the numbers of those with a name: several, if a file
    system is on several, each of which has the limit then; none, if there is no such disk, so that nothing can be read from
    it either."""
    found: dict[str, IoLimit] = {}
    for name, limit in spec.io.items():
        for number in disks(name):
            found[number] = _stricter(found.get(number, IoLimit()), limit)
    return found


def _stricter(one: IoLimit, other: IoLimit) -> IoLimit:
    """Of two limits of the same disk, by two names of it."""
    return IoLimit(**{
        key: min(filter(None, (getattr(one, key), getattr(other, key))), default=0) for key in IO_MAX_LEGACY
    })  # fmt: skip


_V2 = {"read": "rbps", "write": "wbps", "read_ops": "riops", "write_ops": "wiops"}


def io_lines(limits: Mapping[str, IoLimit], former: Iterable[str], *, cgroup2: bool) -> Iterator[tuple[str, str, bool]]:
    """The files with their lines, one a write, and whether each is a limit. ``former``: the numbers of disks that are limited
    now, and may not be any more."""
    for number in sorted({*limits, *former}):
        limit = limits.get(number, IoLimit())
        if cgroup2:
            values = " ".join(f"{word}={getattr(limit, key) or 'max'}" for key, word in _V2.items())
            yield IO_MAX, f"{number} {values}", limit != IoLimit()
            continue
        for key, file in IO_MAX_LEGACY.items():
            value = getattr(limit, key)
            yield file, f"{number} {value}", bool(value)


def missing(asked: Spec, spec: Spec, files: frozenset[str], *, cgroup2: bool) -> str:
    """Why a host with these files can't keep limits of swap space, or weights; empty: it can. ``asked``: ``spec`` with those
    limits alone that the container does not have yet."""
    file = SWAP if cgroup2 else SWAP_LEGACY
    if swap(asked) is not None and file not in files:
        return f"swap: this kernel does not count swap space for cgroups, as it has no {file}"
    if swap(spec) is not None and file in files and not cgroup2 and not spec.memory:
        return "swap: with cgroup v1 the kernel limits memory and swap space together, so it takes a limit of memory, too"
    if asked.io_weight is not None and not io_files(files):
        return "io_weight: this kernel has no weights for block devices: neither io.cost nor the scheduler bfq is there"
    if asked.io and (IO_MAX if cgroup2 else IO_MAX_LEGACY["read"]) not in files:
        return "io: this kernel does not limit what a cgroup reads from disks and writes to them"
    return ""
