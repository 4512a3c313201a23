#!/usr/bin/python3
"""Measure changes of many containers on this machine: a limit by `set` and by `apply`, and an apply with nothing to do.

    /usr/bin/python3 bench/changes.py [--count 100] [--rounds 5] [--json FILE]

Needs root, strace and a quiet machine. All figures are seconds from the command's start to its end; its own start is in them,
and `list` shows how long that takes. The benchmark has a fleet of its own, and does not touch the machine's own lxcfleet.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import fleet

DIRECTORY = Path("/var/lib/lxcfleet-bench")
RUN = Path("/run/lxcfleet-bench")
_FILE = """\
lxcfleet: 1
fleet: bench
groups:
  {group}: {{count: {count}, command: [sleep, infinity], network: none, memory: {memory}M}}
"""
_WRITES = "open,openat,creat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,link,linkat,symlink,symlinkat,fsync"
_WRITE = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|rename|unlink|mkdir|link|creat|fsync")
_IGNORED = re.compile(r'"/dev/null"|"/proc/|anon_inode|memfd| = -1 ')


class Changes:
    """The samples of all rounds, in seconds."""

    def __init__(self, count: int, directory: Path) -> None:
        self.ours = fleet.Fleet(DIRECTORY / "fleet", RUN, count)
        self.samples: dict[str, list[float]] = defaultdict(list)
        self._count, self._file = count, directory / "fleet.yaml"

    def write(self, memory: int) -> None:
        """The fleet file, with this limit in MiB."""
        self._file.write_text(_FILE.format(group=fleet.PREFIX, count=self._count, memory=memory))

    def apply(self) -> None:
        """Apply it."""
        self.ours.cli("apply", "-f", str(self._file))

    def pids(self) -> dict[str, int]:
        """Process 1 of each container."""
        return {each["name"]: each["pid"] for each in self.ours.json("list")}

    def round(self, number: int) -> None:
        """One round."""
        self._time("list", lambda: self.ours.cli("list", "-q"))
        self._time("set", lambda: self.ours.cli("set", "--all", f"memory={100 + number}M"))
        self.write(200 + number)
        self._time("apply, a limit", self.apply)
        self._time("apply, nothing to do", self.apply)

    def _time(self, name: str, act: Callable[[], object]) -> None:
        clock = time.perf_counter()
        act()
        self.samples[name].append(time.perf_counter() - clock)

    def writes(self) -> list[str]:
        """The calls by which daemon and launcher write anything during an apply with nothing to do."""
        pids = [argument for pid in self.ours.daemons() for argument in ("-p", str(pid))]
        with tempfile.NamedTemporaryFile("r") as trace:
            strace = subprocess.Popen(["strace", "-f", "-qq", "-e", f"trace={_WRITES}", "-o", trace.name, *pids])
            try:
                time.sleep(1)
                self.apply()
            finally:
                strace.terminate()
                strace.wait()
            return [line for line in trace if _WRITE.search(line) and not _IGNORED.search(line)]


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with fleet.Host(options.count), tempfile.TemporaryDirectory() as directory:
        bench = Changes(options.count, Path(directory))
        bench.ours.prepare()
        try:
            bench.write(300)
            bench.apply()
            before = bench.pids()
            for number in range(options.rounds):
                bench.round(number)
            restarted = sum(before[name] != pid for name, pid in bench.pids().items())
            written = bench.writes()
        finally:
            bench.ours.destroy()
            bench.ours.end()
            bench.ours.clear()
    found = {name: round(statistics.median(each), 3) for name, each in bench.samples.items()}
    for name, seconds in found.items():
        print(f"{name:24} {seconds:.3f} s   (median of {options.rounds}, {options.count} containers)")
    print(f"{'restarted':24} {restarted}")
    print(f"{'writes, nothing to do':24} {len(written)}")
    for line in written[:10]:
        print(f"    {line.strip()}")
    if options.json:
        options.json.write_text(json.dumps({**found, "restarted": restarted, "writes": len(written)}) + "\n")
    return 1 if restarted or written else 0


if __name__ == "__main__":
    raise SystemExit(main())
