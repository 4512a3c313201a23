#!/usr/bin/python3
"""Measure what one container takes of the host: the numbers in lxcfleet/fleet/capacity.py.

    /usr/bin/python3 bench/measure.py [--count 20] [--init app|system]

Needs root and a quiet machine. Compares the host's totals with 1 and with 1 + COUNT containers running.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import fleet, leftovers, observe
from bench.run import DIRECTORY, RUN

_KIB = 1 << 10


def totals() -> dict[str, float]:
    """The host's use of each resource, by the name of capacity's check; memory in KiB."""
    pids = [pid for pid, _ in observe.processes()]
    descriptors = {pid: _descriptors(pid) for pid in pids}
    instances = [(pid, fd) for pid, links in descriptors.items() for fd, link in links if link == _INOTIFY]
    sysctl = Path("/proc/sys")
    return {
        "memory available": -observe.meminfo("MemAvailable") / _KIB,
        "memory of processes (PSS)": observe.pss(pids) / _KIB,
        "memory of the kernel": observe.kernel_memory() / _KIB,
        "inotify-instances": len(instances),
        "inotify-watches": sum(_watches(pid, fd) for pid, fd in instances),
        "processes": len(pids),
        "threads": sum(_count(f"/proc/{pid}/task") for pid in pids),
        "open-files": _first_number(sysctl / "fs/file-nr"),
        "ptys": _first_number(sysctl / "kernel/pty/nr"),
        "mount-namespaces": len({_link(f"/proc/{pid}/ns/mnt") for pid in pids}),
        "user-namespaces": len({_link(f"/proc/{pid}/ns/user") for pid in pids}),
        "cgroups (memory)": _memory_cgroups(),
    }


_INOTIFY = "anon_inode:inotify"


def _descriptors(pid: int) -> list[tuple[str, str]]:
    try:
        return [(fd, _link(f"/proc/{pid}/fd/{fd}")) for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return []


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _watches(pid: int, fd: str) -> int:
    try:
        return Path(f"/proc/{pid}/fdinfo/{fd}").read_text(encoding="ascii").count("inotify wd:")
    except OSError:
        return 0


def _count(directory: str) -> int:
    try:
        return len(os.listdir(directory))
    except OSError:
        return 0


def _first_number(file: Path) -> int:
    return int(file.read_text(encoding="ascii").split()[0])


def _memory_cgroups() -> int:
    lines = Path("/proc/cgroups").read_text(encoding="ascii").splitlines()
    return next((int(line.split()[2]) for line in lines if line.startswith("memory")), 0)


def keys() -> tuple[int, int]:
    """The most keys, and bytes of keys, that any user but root has; keyrings(7)."""
    rows = [
        line.replace(":", " ").split() for line in Path("/proc/key-users").read_text("ascii").splitlines()
    ]
    own = [row for row in rows if row[0] != "0"]
    number, size = (max((int(row[column].split("/")[0]) for row in own), default=0) for column in (3, 4))
    return number, size


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="measure what one container takes")
    parser.add_argument("--count", type=int, default=20, metavar="N", help="containers (default: 20)")
    parser.add_argument(
        "--init", choices=("app", "system"), default="app", help="of which kind (default: app)"
    )
    options = parser.parse_args()
    ours = fleet.Fleet(DIRECTORY / "fleet", RUN, options.count)
    command = ("--", "sleep", "infinity") if options.init == "app" else ()
    with fleet.Host(options.count):
        leftovers.sweep()
        try:
            ours.prepare()
            ours.cli("create", f"{fleet.PREFIX}0", *command)
            time.sleep(5)
            before = totals()
            ours.cli("create", fleet.PREFIX, "-n", str(options.count), *command)
            time.sleep(5 + options.count / 10)
            after = totals()
            for name, value in after.items():
                print(f"{name:28}{(value - before[name]) / options.count:10.2f}")
            print(f"{'keys and bytes, own quota':28}{keys()[0]:10}{keys()[1]:6}")
            directory = str(ours.paths.container(ours.names[0]).directory)
            for flag, what in (("-sk", "disk, KiB"), ("--inodes", "inodes")):
                text = subprocess.run(
                    ["du", "-s", flag, directory], capture_output=True, text=True, check=True
                )
                print(f"{what:28}{text.stdout.split()[0]:>10}")
            ours.destroy()
        finally:
            ours.end()
            leftovers.sweep()
            ours.clear()


if __name__ == "__main__":
    main()
