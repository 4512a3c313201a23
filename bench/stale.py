#!/usr/bin/python3
"""Measure the cost of finding old code: `stale` over many containers, compared with a bare loop that reads the same maps.

    /usr/bin/python3 bench/stale.py [--count 100] [--processes 5] [--rounds 7]

Needs root and half a minute. The benchmark has a fleet of its own. Exit status: 0, or 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import fleet
from bench.run import DIRECTORY, RUN
from lxcfleet.api.client import Client
from lxcfleet.host.process import cgroup
from lxcfleet.spec.selection import Selection

_ALL = Selection()
_HOOK = Path(__file__).resolve().parent.parent / "etc/apt/80lxcfleet"


def bare(pids: list[int]) -> None:
    """The least possible work: read the maps of each process, and do nothing with them."""
    for pid in pids:
        with open(f"/proc/{pid}/maps", "rb") as file:
            file.read()


def measure(rounds: int, *sides: Callable[[], object]) -> list[float]:
    """The median seconds of each side; they take turns."""
    samples: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for taken, side in zip(samples, sides, strict=True):
            clock = time.perf_counter()
            side()
            taken.append(time.perf_counter() - clock)
    return [statistics.median(taken) for taken in samples]


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description="measure what finding old code costs")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="containers (default: 100)")
    parser.add_argument("--processes", type=int, default=5, metavar="N", help="in each of them (default: 5)")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="of each measurement (default: 7)")
    options = parser.parse_args()
    with fleet.prepared(DIRECTORY / "fleet", RUN, options.count) as ours:
        return _measure(ours, options)


def _measure(ours: fleet.Fleet, options: argparse.Namespace) -> int:
    others = options.processes - 2  # besides tini and the shell
    script = "sleep infinity & " * others + "wait"
    ours.cli("create", fleet.PREFIX, "-n", str(options.count), "--", "sh", "-c", script)
    time.sleep(2)
    client = Client(ours.paths)
    cgroups = [cgroup.payload(record["pid"] or 0, record["name"]).directory for record in client.containers(_ALL)]
    pids = [pid for directory in cgroups for pid in cgroup.members(str(directory))[0]]
    found = client.stale(_ALL)
    processes, mappings = sum(each["processes"] for each in found), sum(each["mappings"] for each in found)
    hook = _HOOK.read_text().split('"')[1].replace("/run/lxcfleet", str(RUN))
    floor, stale, command, told = measure(
        options.rounds,
        lambda: bare(pids),
        lambda: client.stale(_ALL),
        lambda: ours.cli("stale"),
        lambda: subprocess.run(["/bin/sh", "-c", hook], check=True),
    )
    print(f"{len(found)} containers, {processes} processes, {mappings} mappings compared, load {os.getloadavg()[0]:.1f}")
    rows = [
        ("bare loop over maps", floor, None),
        ("stale (API)", stale, min(1.0, 3 * floor)),
        ("lxcfleet stale", command, 1.0),
        ("hook", told, 0.05),
    ]
    for name, seconds, target in rows:
        limit = f"  target {target * 1000:.0f} ms{'' if seconds <= target else ', MISSED'}" if target else ""
        print(f"  {name:20} {seconds * 1000:8.1f} ms  {seconds / floor:5.2f} x{limit}")
    return 0 if all(target is None or seconds <= target for _, seconds, target in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
