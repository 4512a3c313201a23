"""Finds what a fleet must not leave behind. It looks at the host itself, and does not ask lxcfleet."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from bench import fleet, observe, peer

_OURS = (fleet.PREFIX, peer.PREFIX)


def mounts(directories: Sequence[Path]) -> list[str]:
    """Mount points below ``directories``, and overlays of lxcfleet's, in the host's mount table."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        point, source = line.split()[4], line.partition(" - ")[2].split()[1]
        if source == "lxcfleet" or any(point.startswith(f"{directory}") for directory in directories):
            found.append(point)
    return found


def loop_devices(directories: Sequence[Path]) -> list[str]:
    """Loop devices whose file is below ``directories``, in any mount namespace."""
    found = []
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = entry.read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if any(backing.startswith(f"{directory}") for directory in directories):
            found.append(f"{entry.parent.parent.name} ({backing})")
    return found


def interfaces() -> set[str]:
    """Network devices that may be the host's ends of containers' networks, without those at other bridges."""
    found = set()
    for path in Path("/sys/class/net").iterdir():
        master = path / "master"
        if path.name.startswith(("lf", "veth")) and (
            not master.exists() or master.readlink().name == fleet.BRIDGE
        ):
            found.add(path.name)
    return found


def helpers(directories: Sequence[Path]) -> list[str]:
    """Processes that have one of ``directories`` in their command line, such as the fleet's name server."""
    found = []
    for pid, line in observe.processes():
        if pid != os.getpid() and any(str(directory) in line for directory in directories):
            found.append(f"{pid} ({line[:60]})")
    return found


def sweep() -> None:
    """Kill the benchmark's own containers and remove their cgroups, after a run that was cut short."""
    for prefix in _OURS:
        deadline = time.monotonic() + 10
        while (pids := observe.members(prefix)) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        for top in observe.cgroup_directories(prefix):
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)


def find(
    ours: fleet.Fleet, directory: Path, interfaces_before: set[str], ranges_before: int
) -> dict[str, list[str]]:
    """Leftovers by kind, after all containers were destroyed, while the daemon still runs."""
    roots = (directory, ours.paths.run)
    missing = ranges_before - ours.ranges_free()
    # The daemon itself keeps these, once for all containers.
    records = (ours.paths.running_record,)
    return {
        "mounts": mounts(roots),
        "cgroups": [str(path) for prefix in _OURS for path in observe.cgroup_directories(prefix)],
        "processes": [str(pid) for prefix in _OURS for pid in observe.members(prefix)],
        "loop devices": loop_devices(roots),
        "network devices": sorted(interfaces() - interfaces_before),
        "uid ranges": [f"{missing} fewer are free than before"] if missing else [],
        "directories": [str(path) for path in ours.paths.lxc.iterdir() if path not in records],
    }
