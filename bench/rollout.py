#!/usr/bin/python3
"""Measure the cost of waves and gates: a rollout of stale containers, compared with a plain restart of all.

    /usr/bin/python3 bench/rollout.py [--count 100] [--rounds 3]

Needs root, a quiet machine and two minutes. A program of the host that all containers run is replaced as by dpkg, and the
package manager's hook tells the daemon. The daemon waits for the quiet time and restarts the stale containers in waves of a
quarter; a gate only waits until each container runs. Then `verify` has to prove the patch. By turns with that, the program
is replaced and `restart --all` is run. Exit status 1: without the quiet time, the rollout took more than 1.5 times as long.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import fleet
from lxcfleet.api.client import Client

DIRECTORY = Path("/var/lib/lxcfleet-bench-rollout")
RUN = Path("/run/lxcfleet-bench-rollout")
PROGRAM = Path("/opt/lxcfleet-bench-rollout/sleep")
PREFIX = "lfroll"
LIMIT = 1.5
QUIET = 1.0
_SETTINGS = f"""\
alive_time: 0
patch: {{policy: auto, quiet: {QUIET:g}}}
rollout: {{max_unavailable: 25%, canaries: 0, min_healthy_time: 0}}
"""
_PATIENCE = 180.0


def install() -> None:
    """Put a new file in the program's place."""
    PROGRAM.parent.mkdir(exist_ok=True)
    new = PROGRAM.with_suffix(".dpkg-new")
    shutil.copy("/usr/bin/sleep", new)
    with new.open("ab") as file:
        file.write(os.urandom(8))  # a patch changes the content; the same bytes would be no reason for a restart
    os.rename(new, PROGRAM)


def rolled(ours: fleet.Fleet, count: int) -> float:
    """Seconds from the hook to the proof, less the quiet time."""
    client = Client(ours.paths)
    before = client.rollout()
    install()
    clock = time.perf_counter()
    ours.cli("patch", "notify")
    while (record := client.rollout()) is None or record["ended"] is None or record == before:
        if time.perf_counter() - clock > _PATIENCE:
            raise fleet.Failed(f"the rollout does not end: {record and record['status']}")
        time.sleep(0.01)
    ours.cli("verify", "--all")  # fails if a container is not proven
    seconds = time.perf_counter() - clock - QUIET
    assert (record["status"], record["done"], record["wave"]) == ("done", count, 4), record
    return seconds


def restarted(ours: fleet.Fleet) -> float:
    """Seconds of a plain restart of all, after the same change of the host: both have to bring the mask up to date."""
    install()
    clock = time.perf_counter()
    ours.cli("restart", "--all")
    return time.perf_counter() - clock


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="measure rollouts")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="containers (default: 100)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of each (default: 3)")
    options = parser.parse_args()
    ours = fleet.Fleet(DIRECTORY, RUN, options.count)
    waves: list[float] = []
    plain: list[float] = []
    with fleet.Host(options.count):
        try:
            install()
            ours.prepare()
            ours.paths.config_file.write_text(_SETTINGS + ours.paths.config_file.read_text("ascii"), "ascii")
            ours.end()
            ours.cli("create", PREFIX, "-n", str(options.count), "--", str(PROGRAM), "infinity")
            for number in range(options.rounds):
                for side in ("waves", "plain") if number % 2 == 0 else ("plain", "waves"):
                    seconds = rolled(ours, options.count) if side == "waves" else restarted(ours)
                    (waves if side == "waves" else plain).append(seconds)
                    print(f"  {side}: {seconds:.2f} s", file=sys.stderr, flush=True)
        finally:
            ours.destroy()
            ours.end()
            ours.clear()
            shutil.rmtree(PROGRAM.parent)
    ratio = statistics.median(waves) / statistics.median(plain)
    print(f"hook to proof, {options.count} stale, 25 % at a time, less {QUIET:g} s: {statistics.median(waves):.2f} s")
    print(f"restart --all: {statistics.median(plain):.2f} s; {ratio:.2f} times as long, {LIMIT} is the limit")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
