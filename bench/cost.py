#!/usr/bin/python3
"""Measure the processor time that lxcfleet itself takes for each verb, beside another version of it.

    /usr/bin/python3 bench/cost.py --former DIRECTORY [--count 100] [--rounds 5] [--json FILE]

Needs root, and cpuacct or cgroup v2 at /sys/fs/cgroup. DIRECTORY has the other version's source (`git worktree add --detach
DIRECTORY COMMIT`). Both versions have a fleet of their own and take turns. The load of the machine matters little, as
processor time is counted: that of the daemon's loop, and that of all of lxcfleet's processes. The latter are counted by a
cgroup, so children are in it that nobody waits for, and each container's start until its monitor has a cgroup of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import fleet, observe
from bench.run import DIRECTORY, RUN

VERBS = ("create", "list", "restart", "stop", "start", "destroy")
_LISTS = 5
_SETTLE_SECONDS = 2.0
"""What follows from an action, such as the forwarding of output, belongs to it."""


class Side:
    """One version, with its fleet, and the samples of all rounds in milliseconds: verb to loop and total."""

    def __init__(self, name: str, source: Path, count: int) -> None:
        directory, run = DIRECTORY / f"cost-{name}", RUN.with_name(f"{RUN.name}-{name}")
        prefix = f"{fleet.PREFIX}-{name}"
        self.ours = fleet.Fleet(directory, run, count, program=source / "bin/lxcfleet", prefix=prefix)
        self.samples: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._group = _top() / f"lxcfleet-bench-{name}"
        self._daemon = 0

    def prepare(self) -> None:
        """Start the daemon, and put it and its servants into a cgroup."""
        self.ours.prepare()
        self._group.mkdir(exist_ok=True)
        pids = self.ours.processes()
        self._daemon = pids[0]
        for pid in pids:
            (self._group / "cgroup.procs").write_text(str(pid), encoding="ascii")

    def end(self) -> None:
        """Stop the daemon; leave nothing."""
        try:
            self.ours.cli("destroy", "--all", "--force")
        finally:
            self.ours.end()
            self.ours.clear()
            deadline = time.monotonic() + 10
            while self._group.exists() and time.monotonic() < deadline:
                try:
                    self._group.rmdir()
                except OSError:
                    time.sleep(0.1)

    def round(self) -> None:
        """Each verb once."""
        self._note("create", self.ours.create)
        self._note("list", lambda: [self.ours.cli("list") for _ in range(_LISTS)])
        self._note("restart", self.ours.restart)
        self._note("stop", lambda: self.ours.cli("stop", "--all"))
        self._note("start", lambda: self.ours.cli("start", "--all"))
        self._note("destroy", self.ours.destroy)

    def _note(self, verb: str, act: Callable[[], object]) -> None:
        before = self._used()
        act()
        time.sleep(_SETTLE_SECONDS)
        after = self._used()
        self.samples[verb].append((after[0] - before[0], after[1] - before[1]))

    def _used(self) -> tuple[float, float]:
        loop = Path(f"/proc/{self._daemon}/task/{self._daemon}/schedstat").read_text(encoding="ascii")
        return int(loop.split()[0]) / 1e6, _cgroup_seconds(self._group) * 1e3

    def median(self, verb: str) -> tuple[float, float]:
        """The medians of the loop's and of all processor time, in milliseconds."""
        loops, totals = zip(*self.samples[verb], strict=True)
        return statistics.median(loops), statistics.median(totals)


def _top() -> Path:
    modern = (observe.CGROUPS / "cgroup.controllers").exists()
    return observe.CGROUPS if modern else observe.CGROUPS / "cpuacct"


def _cgroup_seconds(group: Path) -> float:
    if (group / "cpuacct.usage").exists():
        return int((group / "cpuacct.usage").read_text(encoding="ascii")) / 1e9
    words = (group / "cpu.stat").read_text(encoding="ascii").split()
    return int(words[words.index("usage_usec") + 1]) / 1e6


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description="measure lxcfleet's own processor time beside another version's")
    parser.add_argument("--former", type=Path, required=True, metavar="DIRECTORY", help="the other version's source")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="containers (default: 100)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds of each side (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it tidies up
    here = Path(__file__).resolve().parent.parent
    sides = [Side("former", options.former.resolve(), options.count), Side("present", here, options.count)]
    with fleet.Host(2 * options.count):
        try:
            for side in sides:
                side.prepare()
            for number in range(options.rounds):
                for side in sides if number % 2 else reversed(sides):
                    side.round()
                print(f"  round {number + 1}", file=sys.stderr, flush=True)
        finally:
            for side in sides:
                side.end()
    former, present = sides
    print(f"{options.count} containers, medians of {options.rounds}, ms; load {os.getloadavg()[0]:.1f}")
    print(f"{'':10}{'loop':>8}{'before':>8}{'ratio':>7}   {'all':>8}{'before':>8}{'ratio':>7}")
    for verb in VERBS:
        (loop, total), (loop_before, total_before) = present.median(verb), former.median(verb)
        print(
            f"{verb if verb != 'list' else f'{_LISTS} × list':10}{loop:8.0f}{loop_before:8.0f}{loop / loop_before:7.2f}"
            f"   {total:8.0f}{total_before:8.0f}{total / total_before:7.2f}"
        )
    if options.json:
        found = {"former": former.samples, "present": present.samples}
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
