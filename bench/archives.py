#!/usr/bin/python3
"""Measure how fast containers are exported, beside tar and zstd alone on the same deltas.

    /usr/bin/python3 bench/archives.py [--count 100] [--size 10] [--rounds 3]

Needs root, a quiet machine and some minutes. The containers run, and their deltas have programs and modules of the host's.
Both ways have the same number of processes at work. Exit status 1: lxcfleet reaches less than 70 % of tar and zstd, or a
sparse file of 10 GiB takes more than a second.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import fleet
from lxcfleet.data.archives.entries import ATTRIBUTES

DIRECTORY = Path("/var/lib/lxcfleet-bench-archives")
RUN = Path("/run/lxcfleet-bench-archives")
PREFIX = "lfarch"
LIMIT, SPARSE_SECONDS = 0.7, 1.0
AT_ONCE = 2
_MIB = 1 << 20


def samples(size: int) -> Iterator[Path]:
    """Files of the host that have so many bytes together."""
    left = size
    for file in sorted(Path("/usr/lib/python3/dist-packages").rglob("*")) + sorted(Path("/usr/bin").iterdir()):
        if left <= 0:
            return
        if file.is_file() and not file.is_symlink():
            left -= file.stat().st_size
            yield file


def fill(delta: Path, size: int, owner: int) -> None:
    """Put files into a delta."""
    top = delta / "srv/data"
    top.mkdir(parents=True)
    for number, file in enumerate(samples(size)):
        shutil.copyfile(file, top / f"{number}")
    subprocess.run(["chown", "-R", f"{owner}:{owner}", delta / "srv"], check=True)


def alone(deltas: list[Path], target: Path) -> None:
    """The same archives by tar and zstd."""
    patterns = " ".join(f"'--xattrs-include={each}'" for each in ATTRIBUTES)

    def one(delta: Path) -> None:
        line = (
            f"tar -c --format=posix --numeric-owner --xattrs {patterns} --sparse --one-file-system --sort=name -C {delta} ."
            f" | zstd -q -3 -T0 -c >{target}/{delta.parent.name}.zst"
        )
        subprocess.run(["sh", "-c", line], check=True)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(one, deltas):
            pass


def timed(work: Callable[[], object], target: Path) -> float:
    """Seconds that it takes to write archives into an empty directory."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    subprocess.run(["sync"], check=True)
    clock = time.perf_counter()
    work()
    return time.perf_counter() - clock


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="measure exports")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="containers (default: 100)")
    parser.add_argument("--size", type=int, default=10, metavar="MIB", help="of each delta (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds (default: 3)")
    options = parser.parse_args()
    ours = fleet.Fleet(DIRECTORY, RUN, options.count)
    with fleet.Host(options.count):
        try:
            ours.prepare()
            ours.cli("create", PREFIX, "-n", str(options.count), "--no-start", "--", "sleep", "infinity")
            names = [each["name"] for each in ours.json("list")]
            deltas = [ours.paths.container(name).delta for name in names]
            for delta in deltas:
                fill(delta, options.size * _MIB, delta.stat().st_uid)
            ours.cli("start", "--all", "-q")
            target = DIRECTORY / "archives"
            export = ("export", "--all", "--to", str(target), "-q")
            pairs = [
                (timed(lambda: alone(deltas, target), target), timed(lambda: ours.cli(*export), target))
                for _ in range(options.rounds)
            ]
            frozen = [each["frozen_ms"] for each in ours.json("export", "--all", "--to", str(target))["results"]]
            sparse = deltas[0] / "srv/sparse"
            shutil.rmtree(deltas[0] / "srv/data")
            with sparse.open("wb") as file:
                file.truncate(10 << 30)
            took = timed(lambda: ours.cli("export", names[0], "--to", str(target), "-q"), target)
        finally:
            ours.cli("destroy", "--all", "--force", "-q")
            ours.end()
            ours.clear()
    base, own = (statistics.median(each) for each in zip(*pairs, strict=True))
    total = options.count * options.size
    print(f"{options.count} containers of {options.size} MiB: tar and zstd {base:.2f} s ({total / base:.0f} MiB/s)")
    print(f"lxcfleet export: {own:.2f} s ({total / own:.0f} MiB/s), {base / own:.0%} of that")
    print(f"frozen for {statistics.median(frozen)} ms (median; at most {max(frozen)} ms)")
    print(f"a sparse file of 10 GiB: {took:.2f} s")
    return int(base / own < LIMIT or took > SPARSE_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
