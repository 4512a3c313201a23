#!/usr/bin/python3
"""Measure lxcfleet beside bare LXC on this machine: medians, ratios, and whether the targets are met.

    /usr/bin/python3 bench/run.py [--count 100] [--rounds 3] [--json FILE] [--only app|system] [--strict]

Needs root, a quiet machine and about five minutes. Both sides take turns. On both sides, a container is
ready when its process has written a file (app) or its systemd has noted that it is up (system).
The benchmark has a fleet of its own, and does not touch the containers of the machine's own lxcfleet.
Exit status: 0, or 1 if something is left behind or does not work, or with --strict if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import fleet, leftovers, observe, peer, report

DIRECTORY = Path("/var/lib/lxcfleet-bench")
RUN = Path("/run/lxcfleet-bench")
_MIB = 1 << 20
_LISTS = 9


class Bench:
    """The samples of all rounds, in seconds and MiB."""

    def __init__(self, count: int, network: str) -> None:
        self.ours = fleet.Fleet(DIRECTORY / "fleet", RUN, count, network)
        self.bare = peer.Bare(DIRECTORY / "bare", count)
        self.samples: dict[str, list[float]] = defaultdict(list)
        self.warnings: list[str] = []
        self.left: dict[str, set[str]] = defaultdict(set)
        self._count = count
        self._interfaces = leftovers.interfaces()
        self._ranges = 0

    def prepare(self) -> None:
        """Start the daemon and build the mask."""
        self.ours.prepare()
        # With a network, the bridge exists from now on until the daemon ends.
        self._interfaces |= {fleet.BRIDGE}
        self._ranges = self.ours.ranges_free()

    def app_round(self, number: int) -> None:
        """Run one round of app containers. The sides take turns in being first."""
        sides: list[Callable[[], None]] = [self._our_apps]
        sides += [partial(self._bare_apps, kind) for kind in ("plain", "clone", "unprivileged")]
        for side in sides if number % 2 == 0 else reversed(sides):
            side()
            time.sleep(1)

    def system_round(self, number: int) -> None:
        """Run one round of system containers."""
        sides: list[Callable[[], None]] = [self._our_systems, self._bare_systems]
        for side in sides if number % 2 == 0 else reversed(sides):
            side()
            time.sleep(1)

    def _our_apps(self) -> None:
        self.ours.have_mask()  # the peer's files changed the host
        before, kernel = observe.meminfo("MemAvailable"), observe.kernel_memory()
        stamp = self.ours.mask_stamp()
        self._note("app create", self.ours.create())
        self._warn_rebuilt(stamp)
        time.sleep(1)
        added = before - observe.meminfo("MemAvailable")
        self._note("app memory available", added / self._count / _MIB)
        self._note("app kernel memory", (observe.kernel_memory() - kernel) / self._count / _MIB)
        self._note("app memory", observe.pss(observe.members(fleet.PREFIX)) / self._count / _MIB)
        self._note("daemon memory", observe.pss(self.ours.daemons()) / _MIB)
        self._lists()
        self._note("app restart", self.ours.restart())
        self._note("app destroy", self.ours.destroy())
        self._look()

    def _lists(self) -> None:
        for _ in range(_LISTS):
            clock = time.perf_counter()
            self.ours.cli("list")
            self._note("list", time.perf_counter() - clock)
            clock = time.perf_counter()
            subprocess.run(["/usr/bin/python3", "-c", "import click"], check=True)
            self._note("import click", time.perf_counter() - clock)

    def _bare_apps(self, kind: peer.PeerKind) -> None:
        self.bare.make(kind)
        self._note(f"{kind} start", self.bare.start())
        self._note(f"{kind} restart", self.bare.stop() + self.bare.start())
        self._note(f"{kind} stop", self.bare.stop())
        self.bare.remove()

    def _our_systems(self) -> None:
        self.ours.have_mask()
        before = observe.meminfo("MemAvailable")
        stamp = self.ours.mask_stamp()
        self._note("system up", self.ours.boot())
        self._warn_rebuilt(stamp)
        self._usage("system", self.ours.names, before)
        self._note("system destroy", self.ours.destroy())
        self._look()

    def _bare_systems(self) -> None:
        self.bare.make("system", self.ours.paths.mask_image)
        before = observe.meminfo("MemAvailable")
        self._note("bare system up", self.bare.boot())
        self._usage("bare system", self.bare.names, before)
        self.bare.stop()
        self.bare.remove()

    def _usage(self, side: str, names: list[str], before: int) -> None:
        time.sleep(2)
        used = [observe.payload(name) for name in names]
        self._note(f"{side} memory", statistics.median(memory for memory, _ in used) / _MIB)
        self._note(f"{side} cpu", statistics.median(seconds for _, seconds in used))
        added = before - observe.meminfo("MemAvailable")
        self._note(f"{side} memory available", added / self._count / _MIB)

    def _look(self) -> None:
        for kind, found in leftovers.find(self.ours, DIRECTORY, self._interfaces, self._ranges).items():
            self.left[kind].update(found)

    def _warn_rebuilt(self, stamp: int) -> None:
        if stamp != self.ours.mask_stamp():
            self.warnings.append(
                "the mask was built anew within a create: something changed this host's files"
            )
            print(f"  WARNING: {self.warnings[-1]}", file=sys.stderr)

    def _note(self, what: str, value: float) -> None:
        self.samples[what].append(value)
        print(f"  {what}: {value:.3f}", file=sys.stderr, flush=True)

    def finish(self) -> None:
        """Stop the daemon, and look for leftovers once more: now there may be none at all."""
        self.ours.end()
        roots = (DIRECTORY, RUN)
        self.left["mounts"].update(leftovers.mounts(roots))
        self.left["loop devices"].update(leftovers.loop_devices(roots))
        self.left["processes"].update(leftovers.helpers(roots))


def main() -> int:
    """Run the benchmark; returns the exit status."""
    options = _arguments()
    if os.geteuid() != 0:
        print("bench: this takes root", file=sys.stderr)
        return 2
    bench = Bench(options.count, options.network)
    with fleet.Host(options.count):
        leftovers.sweep()
        try:
            bench.prepare()
            for number in range(options.rounds):
                if options.only != "system":
                    print(f"round {number + 1}, app containers", file=sys.stderr)
                    bench.app_round(number)
                if options.only != "app":
                    print(f"round {number + 1}, system containers", file=sys.stderr)
                    bench.system_round(number)
        finally:
            _tidy(bench)
    return _report(bench, options)


def _tidy(bench: Bench) -> None:
    """Leave nothing of the benchmark on the machine, however the rounds ended. Called from a ``finally``."""
    failed = sys.exc_info()[0] is not None
    bench.finish()
    if failed:
        leftovers.sweep()
    bench.bare.remove()
    bench.ours.clear()


def _report(bench: Bench, options: argparse.Namespace) -> int:
    left = {kind: sorted(found) for kind, found in bench.left.items() if found}
    found = report.rows(bench.samples, options.count, sum(map(len, left.values())))
    print(report.table(found))
    for warning in bench.warnings:
        print(f"not quiet: {warning}")
    for kind, things in left.items():
        print(f"LEFT BEHIND, {kind}: {', '.join(things[:10])}")
    if options.json:
        options.json.write_text(json.dumps(_record(bench, options, found, left), indent=1), encoding="utf-8")
    missed = options.strict and not all(row.met for row in found)
    return 1 if left or missed else 0


def _record(bench: Bench, options: argparse.Namespace, found: list[report.Row], left: Any) -> dict[str, Any]:
    return {
        "count": options.count,
        "rounds": options.rounds,
        "network": options.network,
        "host": {
            "kernel": platform.release(),
            "processors": os.cpu_count(),
            "memory_mib": observe.meminfo("MemTotal") // _MIB,
            "lxc": subprocess.run(
                ["lxc-start", "--version"], capture_output=True, text=True, check=True
            ).stdout.strip(),
            "load_at_end": os.getloadavg()[0],
        },
        "targets": [row.to_json() for row in found],
        "medians": {name: statistics.median(values) for name, values in bench.samples.items()},
        "samples": bench.samples,
        "left": left,
        "warnings": bench.warnings,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="measure lxcfleet beside bare LXC")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="containers (default: 100)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of each side (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples and results there")
    parser.add_argument("--only", choices=("app", "system"), help="leave out the other kind of container")
    parser.add_argument(
        "--network",
        choices=("none", "bridge"),
        default="none",
        help="what our containers get; the peer has none",
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a target is missed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
