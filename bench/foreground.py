#!/usr/bin/python3
"""Measure `lxcfleet run`: how fast a signal reaches the command, what the start costs, and whether each exit status is right.

    /usr/bin/python3 bench/foreground.py [--rounds 50] [--statuses 256]

Needs root and some minutes. The benchmark has a fleet of its own. Exit status: 0, or 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import fleet
from bench.run import DIRECTORY, RUN

_TARGET = 0.050
"""Seconds from SIGTERM of `lxcfleet run` to the command's."""
_WAITS = "sleep 100000 & trap 'echo x' USR1; trap 'kill $!; exit 0' TERM; echo x; while :; do wait; done"


def signals(program: list[str], environment: dict[str, str], rounds: int) -> list[float]:
    """Seconds from a signal to `lxcfleet run` until its command's answer is there."""
    found = []
    with subprocess.Popen([*program, "sh", "-c", _WAITS], env=environment, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.readline()
        for _ in range(rounds):
            time.sleep(0.05)
            clock = time.perf_counter()
            os.kill(client.pid, signal.SIGUSR1)
            client.stdout.readline()
            found.append(time.perf_counter() - clock)
        client.terminate()
    return found


def wrong(program: list[str], environment: dict[str, str], statuses: int) -> list[tuple[int, int]]:
    """Exit statuses that did not come out as they went in, as (asked, given)."""
    found = []
    for status in range(statuses):
        done = subprocess.run([*program, "sh", "-c", f"exit {status}"], env=environment, check=False, capture_output=True)
        if done.returncode != status:
            found.append((status, done.returncode))
    return found


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description="measure lxcfleet run")
    parser.add_argument("--rounds", type=int, default=50, metavar="N", help="signals, and starts (default: 50)")
    parser.add_argument("--statuses", type=int, default=256, metavar="N", help="exit statuses from 0 on (default: all 256)")
    options = parser.parse_args()
    ours = fleet.Fleet(DIRECTORY / "fleet", RUN, 1)
    environment = {**os.environ, **ours.paths.environment()}
    try:
        ours.prepare()
        program = [str(fleet.PROGRAM), "run", "--rm", f"{fleet.PREFIX}1", "--"]
        taken = signals(program, environment, options.rounds)
        clock = time.perf_counter()
        bad = wrong(program, environment, options.statuses)
        each = (time.perf_counter() - clock) / max(1, options.statuses)
    finally:
        ours.cli("destroy", "--all", "--force")
        ours.end()
        ours.clear()
    median, worst = statistics.median(taken) * 1000, max(taken) * 1000
    print(f"signal to the command and its answer back: median {median:.1f} ms, worst {worst:.1f} ms of {len(taken)}")
    print(f"exit statuses that are right: {options.statuses - len(bad)} of {options.statuses}{f': {bad}' if bad else ''}")
    print(f"made, run, destroyed: {each * 1000:.0f} ms each")
    return 1 if bad or median > _TARGET * 1000 else 0


if __name__ == "__main__":
    sys.exit(main())
