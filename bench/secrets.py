#!/usr/bin/python3
"""Measure how soon all containers hold a new secret: from the start of `secret refresh` until each can read the value.

    /usr/bin/python3 bench/secrets.py [--count 100] [--rounds 5]

Needs root, a quiet machine and a minute. The value is read as each container has it, through /proc/PID/root. Exit status 1:
the median took more than a second.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import fleet

DIRECTORY = Path("/var/lib/lxcfleet-bench-secrets")
RUN = Path("/run/lxcfleet-bench-secrets")
PREFIX = "lfsecret"
LIMIT = 1.0
_PATIENCE = 60.0


def write(file: Path, value: str) -> None:
    """Give the source another value."""
    file.touch(mode=0o600)
    file.write_text(value, encoding="ascii")


def refreshed(ours: fleet.Fleet, source: Path, files: list[Path], value: str) -> float:
    """Seconds until all containers have the value."""
    write(source, value)
    program, environment = str(fleet.PROGRAM), {**os.environ, **ours.paths.environment()}
    clock = time.perf_counter()
    with subprocess.Popen([program, "secret", "refresh", "pw", "-q"], env=environment, stdout=subprocess.DEVNULL) as client:
        left = files
        while left := [file for file in left if file.read_text(encoding="ascii") != value]:
            if time.perf_counter() - clock > _PATIENCE:
                raise fleet.Failed(f"{len(left)} containers have not got the value")
            time.sleep(0.005)
        seconds = time.perf_counter() - clock
        if client.wait():
            raise fleet.Failed("secret refresh failed")
    return seconds


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="measure secrets")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="containers (default: 100)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (default: 5)")
    options = parser.parse_args()
    ours = fleet.Fleet(DIRECTORY, RUN, options.count)
    took = []
    with fleet.Host(options.count):
        try:
            ours.prepare()
            source = ours.paths.etc / "pw"
            write(source, "0")
            with ours.paths.config_file.open("a", encoding="ascii") as settings:
                settings.write(f"secrets: {{pw: {{file: {source}}}}}\n")
            ours.end()
            ours.cli("create", PREFIX, "-n", str(options.count), "--secret", "pw", "--", "sleep", "infinity")
            files = [Path(f"/proc/{each['pid']}/root/run/secrets/pw") for each in ours.json("list")]
            took = [refreshed(ours, source, files, str(number)) for number in range(1, options.rounds + 1)]
        finally:
            ours.cli("destroy", "--all", "--force", "-q")
            ours.end()
            ours.clear()
    median = statistics.median(took)
    print(f"{options.count} containers hold a new secret after {median:.2f} s (median of {options.rounds}; {min(took):.2f}"
          f" to {max(took):.2f} s)")  # fmt: skip
    return int(median > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
