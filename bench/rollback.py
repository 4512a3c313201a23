#!/usr/bin/python3
"""Measure the way back: a rollback of all containers to a generation, beside restarts of all, at once and rolling.

    /usr/bin/python3 bench/rollback.py --freeze-this-host [--count 100] [--rounds 3]

Needs root, a quiet machine and a minute. This machine's own root is frozen for it, which gives each of its files below /usr
and /opt one link more and so another change time; docs/generations.md says who notices that. At the end the generation is
removed. By turns all containers are restarted, and given the other base (the generation, then the host's root again), in
waves of any size. Exit status 1: the freeze took more than 5 s or 100 MiB, or the rollback over 1.1 times `restart --all`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import fleet

DIRECTORY = Path("/var/lib/lxcfleet-bench-rollback")
RUN = Path("/run/lxcfleet-bench-rollback")
PREFIX = "lfback"
LIMIT, SECONDS, BYTES = 1.1, 5.0, 100 << 20
_SETTINGS = "alive_time: 0\nrollout: {max_unavailable: 100%, canaries: 0, min_healthy_time: 0}\n"


def timed(ours: fleet.Fleet, *arguments: str) -> float:
    """Seconds that a verb takes."""
    clock = time.perf_counter()
    ours.cli(*arguments)
    return time.perf_counter() - clock


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="measure rollbacks")
    parser.add_argument("--freeze-this-host", action="store_true", required=True, help="yes, freeze this machine's root")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="containers (default: 100)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of each (default: 3)")
    options = parser.parse_args()
    ours = fleet.Fleet(DIRECTORY, RUN, options.count)
    back: list[float] = []
    plain: list[float] = []
    rolling: list[float] = []
    with fleet.Host(options.count):
        try:
            ours.prepare()
            ours.paths.config_file.write_text(_SETTINGS + ours.paths.config_file.read_text("ascii"), "ascii")
            ours.end()
            ours.cli("create", PREFIX, "-n", str(options.count), "--", "sleep", "infinity")
            froze = timed(ours, "generation", "freeze")
            made = json.loads(ours.cli("generation", "list", "-f", "json"))[0]
            print(f"freeze of {made['files']:,} files: {froze:.2f} s, {made['bytes'] / (1 << 20):.0f} MiB")
            for _ in range(options.rounds):
                for where in (str(made["number"]), "host"):
                    plain.append(timed(ours, "restart", "--all"))
                    back.append(timed(ours, "rollback", "--all", "--to", where))
                    rolling.append(timed(ours, "restart", "--all", "--rolling"))
            ours.cli("generation", "rm", "--last", str(made["number"]))
        finally:
            ours.destroy()
            ours.end()
            ours.clear()
    ratio = statistics.median(back) / statistics.median(plain)
    print(f"{options.count} containers (medians): rollback {statistics.median(back):.2f} s, restart --all "
          f"{statistics.median(plain):.2f} s: {ratio:.2f} times; rolling {statistics.median(rolling):.2f} s")  # fmt: skip
    return int(ratio > LIMIT or froze > SECONDS or made["bytes"] > BYTES)


if __name__ == "__main__":
    sys.exit(main())
