#!/usr/bin/python3
"""Measure restart policies: from a death to its notice and to the next run, and what the daemon takes meanwhile and at rest.

    /usr/bin/python3 bench/restarts.py [--tries 30] [--count 100] [--seconds 20]

Needs root, a quiet machine and less than two minutes. The benchmark has a fleet of its own. Each figure is told on stderr
as soon as it is there.
Exit status: 0, or 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import fleet, observe, peer
from bench.run import DIRECTORY, RUN
from lxcfleet.api.client import Client
from lxcfleet.spec.selection import Selection

_NOTICED = 0.010
"""The longest time from a death to its notice, and beyond two bare starts to the next run, in seconds."""
_LOOPING, _RESTING = 0.05, 0.002
"""The share of one core that the daemon may take: while all containers crash again and again, and at rest."""
_LONG_RUN = 0.2
"""Seconds after which each run of a container that is killed counts as long, so that no pause follows."""


def bare_start(tries: int) -> float:
    """The median seconds of one start by lxc-start of a container with a uid range and an overlay over the host's root."""
    bare = peer.Bare(DIRECTORY / "bare", 1)
    samples = []
    try:
        bare.make("unprivileged")
        for _ in range(tries):
            samples.append(bare.start())
            bare.stop()
    finally:
        bare.remove()
    return statistics.median(samples)


def deaths(ours: fleet.Fleet, tries: int) -> tuple[float, float]:
    """Kill a container's process 1 again and again: the median seconds to the notice, and to its next run's first write."""
    name, client = f"{fleet.PREFIX}0", Client(ours.paths)
    script = "echo ready >/ready; exec sleep infinity"
    ours.cli("create", name, "--restart", f"always reset_after={_LONG_RUN}", "--", "sh", "-c", script)
    file = ours.paths.container(name).delta / "ready"
    noticed, again = [], []
    for _ in range(tries):
        time.sleep(2 * _LONG_RUN)
        pid = client.info(name)["pid"]
        assert pid is not None
        died = time.time()
        os.kill(pid, signal.SIGKILL)
        # The clock of a file's times stands still between the kernel's ticks, so the file is watched, too.
        observe.wait_written({name: file}, died)
        again.append(time.time() - died)
        ended = client.info(name)["exit"]
        assert ended is not None
        noticed.append(datetime.fromisoformat(ended["at"]).timestamp() - died)
    ours.cli("destroy", name, "--force")
    return statistics.median(noticed), statistics.median(again)


def share(ours: fleet.Fleet, seconds: float) -> float:
    """The share of one core that the daemon and all its servants take, with the children that they have waited for."""
    before = _used(ours)
    time.sleep(seconds)
    return (_used(ours) - before) / seconds


def _used(ours: fleet.Fleet) -> float:
    """Seconds of processor time; proc(5), stat, fields 14 to 17."""
    total = 0
    for pid in ours.processes():
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        total += sum(map(int, fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description="measure restart policies")
    parser.add_argument("--tries", type=int, default=30, metavar="N", help="deaths (default: 30)")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="containers (default: 100)")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="of each look (default: 20)")
    options = parser.parse_args()
    with fleet.prepared(DIRECTORY / "fleet", RUN, options.count) as ours:
        return _measure(ours, options)


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _measure(ours: fleet.Fleet, options: argparse.Namespace) -> int:
    bare = bare_start(max(5, options.tries // 10))
    _say(f"a bare start takes {bare * 1000:.1f} ms")
    noticed, again = deaths(ours, options.tries)
    _say(f"a death is noticed after {noticed * 1000:.1f} ms, and its container runs again after {again * 1000:.1f} ms")
    script = "test -e /crash && exit 1; exec sleep infinity"
    ours.cli("create", fleet.PREFIX, "-n", str(options.count), "--restart", "always", "--", "sh", "-c", script)
    time.sleep(5)
    resting = share(ours, options.seconds)
    _say(f"at rest the daemon takes {resting * 100:.2f} % of a core")
    for record in Client(ours.paths).containers(Selection()):
        (ours.paths.container(record["name"]).delta / "crash").touch()
        assert record["pid"] is not None
        os.kill(record["pid"], signal.SIGKILL)
    time.sleep(15)  # the pauses grow; what is measured is a loop that goes on
    looping = share(ours, options.seconds)
    load = f"load {os.getloadavg()[0]:.1f}, a bare start {bare * 1000:.1f} ms"
    print(f"{options.count} containers, {options.tries} deaths, {load}")
    rows = [
        ("death to notice", noticed * 1000, _NOTICED * 1000, "ms"),
        ("death to next run", again * 1000, (_NOTICED + 2 * bare) * 1000, "ms"),
        ("the daemon at rest", resting * 100, _RESTING * 100, "% of a core"),
        ("all crash in a loop", looping * 100, _LOOPING * 100, "% of a core"),
    ]
    for name, have, most, unit in rows:
        print(f"  {name:20} {have:8.2f} {unit}  target {most:.2f}{'' if have <= most else ', MISSED'}")
    return 0 if all(have <= most for _, have, most, _ in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
