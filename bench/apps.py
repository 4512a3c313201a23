#!/usr/bin/python3
"""Measure the switch of all containers to another release of an app, beside restarts of all.

    /usr/bin/python3 bench/apps.py [--count 100] [--rounds 5] [--files 200]

Needs root, a quiet machine and a minute. By turns all containers are restarted at once (`restart --all`), restarted as a
rollout in one wave, and given the other one of two releases in one wave. Besides, it adds up what the containers have on the
disk with the app and without. Exit status 1: the switch took more than 1.05 times `restart --all` (medians), or the app takes
space in a container.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import fleet

DIRECTORY = Path("/var/lib/lxcfleet-bench-apps")
RUN = Path("/run/lxcfleet-bench-apps")
PREFIX = "lfapps"
LIMIT = 1.05
_SETTINGS = "alive_time: 0\nrollout: {max_unavailable: 100%, canaries: 0, min_healthy_time: 0}\n"


def timed(ours: fleet.Fleet, *arguments: str) -> float:
    """Seconds that a verb takes."""
    clock = time.perf_counter()
    ours.cli(*arguments)
    return time.perf_counter() - clock


def processor_seconds(ours: fleet.Fleet) -> dict[int, float]:
    """By pid, the processor time of the daemon, the launcher and the children that live now. The children that have ended
    count nowhere: the launcher has the kernel reap them, and their time goes with them; signal(7), getrusage(2)."""
    found = {}
    for pid in ours.daemons():
        try:
            words = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace").rpartition(")")[2].split()
        except FileNotFoundError:  # a child that has ended meanwhile
            continue
        found[pid] = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime; proc(5)
    return found


def blocks(ours: fleet.Fleet) -> int:
    """Bytes on the disk of all containers' directories, but for their logs."""
    total = 0
    for above, _, files in os.walk(ours.paths.lxc):
        if ".lxcfleet" not in above:
            total += sum(os.lstat(f"{above}/{name}").st_blocks * 512 for name in files if not name.endswith(".log"))
    return total


def build(directory: Path, version: str, files: int) -> Path:
    """A release with a program and many files."""
    tree = directory / f"build-{version}"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/serve").write_text(f"#!/bin/sh\n# {version}\nexec sleep infinity\n", "ascii")
    (tree / "bin/serve").chmod(0o755)
    for number in range(files):
        (tree / f"file{number}").write_bytes(os.urandom(10_000))
    return tree


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="measure switches of apps")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="containers (default: 100)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds of each (default: 5)")
    parser.add_argument("--files", type=int, default=200, metavar="N", help="files of 10 kB in a release (default: 200)")
    options = parser.parse_args()
    ours = fleet.Fleet(DIRECTORY, RUN, options.count)
    found: dict[str, list[float]] = {"restart": [], "rolling": [], "use": []}
    spent: dict[str, list[float]] = {word: [] for word in found}

    def measure(word: str, *arguments: str) -> None:
        before = processor_seconds(ours)
        found[word].append(timed(ours, *arguments))
        spent[word].append(sum(after - before[pid] for pid, after in processor_seconds(ours).items() if pid in before))

    with fleet.Host(options.count):
        try:
            ours.prepare()
            ours.paths.config_file.write_text(_SETTINGS + ours.paths.config_file.read_text("ascii"), "ascii")
            ours.end()
            trees = {version: build(DIRECTORY, version, options.files) for version in "12"}
            sealed = [timed(ours, "app", "add", "shop", str(tree), "--version", each) for each, tree in trees.items()]
            ours.cli("create", PREFIX, "-n", str(options.count), "--", "sleep", "infinity")
            ours.cli("restart", "--all")
            without = blocks(ours)
            ours.cli("app", "use", "--all", "shop@2")
            space = blocks(ours) - without
            for number in range(options.rounds):
                measure("restart", "restart", "--all")
                measure("rolling", "restart", "--all", "--rolling")
                measure("use", "app", "use", "--all", f"shop@{number % 2 + 1}")
        finally:
            ours.destroy()
            ours.end()
            ours.clear()
    medians = {word: statistics.median(times) for word, times in found.items()}
    print(f"sealed a release of {options.files} files in {min(sealed):.2f} s; load {os.getloadavg()[0]:.1f}")
    print(f"{options.count} containers, medians of {options.rounds}: app use {medians['use']:.2f} s, restart --all "
          f"{medians['restart']:.2f} s, rolling {medians['rolling']:.2f} s: {medians['use'] / medians['restart']:.2f} and "
          f"{medians['use'] / medians['rolling']:.2f} times")  # fmt: skip
    words = ", ".join(f"{word} {statistics.median(each):.2f} s" for word, each in spent.items())
    print(f"processor time of the daemon and its launcher, without their children: {words}")
    print(f"all: {[f'{each:.2f}' for each in found['use']]} {[f'{each:.2f}' for each in found['restart']]}")
    print(f"space that the app takes in a container: {space / options.count:.0f} bytes")
    return int(medians["use"] > LIMIT * medians["restart"] or space > 0)


if __name__ == "__main__":
    sys.exit(main())
