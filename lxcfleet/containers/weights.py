"""What a container's swap space and weights are in the files of cgroups v2 and v1. Pure."""

from __future__ import annotations

from lxcfleet.host.process.cgroup import IO_WEIGHTS, SWAP, SWAP_LEGACY
from lxcfleet.spec.spec import Spec
from lxcfleet.spec.swap import NO_LIMIT
from lxcfleet.spec.terms import WEIGHT


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


def missing(spec: Spec, files: frozenset[str], *, cgroup2: bool) -> str:
    """Why a host with these files can't keep the spec's limit of swap space or its weights; empty: it can."""
    limited = swap(spec) is not None
    file = SWAP if cgroup2 else SWAP_LEGACY
    if limited and file not in files:
        return f"swap: this kernel does not count swap space for cgroups, as it has no {file}"
    if limited and not cgroup2 and not spec.memory:
        return "swap: with cgroup v1 the kernel limits memory and swap space together, so it takes a limit of memory, too"
    if spec.io_weight is not None and not io_files(files):
        return "io_weight: this kernel has no weights for block devices: neither io.cost nor the scheduler bfq is there"
    return ""
