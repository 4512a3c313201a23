#!/usr/bin/python3
"""Measure the memory of app containers on two generations, beside that of as many on one.

    /usr/bin/python3 bench/two_generations.py [--count 100] [--rounds 3]

Needs root and a minute. What is frozen is a small root with copies of a few programs, so this machine's own files stay as
they are. The second generation has another libc, so whatever runs on it maps pages of its own. By turns all containers stand
on the first one, and half of them on the second. Exit status 1: they took more than 1.05 times the memory on two.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from system import small_root

from bench import fleet, observe
from lxcfleet.base.generations import build

DIRECTORY = Path("/var/lib/lxcfleet-bench-two")
RUN = Path("/run/lxcfleet-bench-two")
PREFIX = "lftwo"
LIMIT = 1.05
_MIB = 1 << 20
_SETTINGS = "alive_time: 0\nrollout: {max_unavailable: 100%, canaries: 0, min_healthy_time: 0}\n"


def patch(root: Path) -> None:
    """Replace libc, with one of the same content, as dpkg does."""
    for file in root.glob("usr/lib/**/libc.so.6"):
        new = file.with_name("libc.so.6.dpkg-new")
        shutil.copy2(file, new)
        new.rename(file)


def freeze(ours: fleet.Fleet, root: Path) -> str:
    """Freeze the small root; gives the generation's number."""
    made = build.freeze(ours.paths, "bench", root=root, now=time.time())
    assert made is not None
    return str(made.number)


def used() -> tuple[float, float]:
    """MiB of the containers' processes and monitors, shared pages by their share; and of the kernel, for all that runs."""
    return observe.pss(observe.members(PREFIX)) / _MIB, observe.kernel_memory() / _MIB


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="measure memory on two generations")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="containers (default: 100)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of each (default: 3)")
    options = parser.parse_args()
    ours = fleet.Fleet(DIRECTORY, RUN, options.count)
    half = [f"{PREFIX}{number}" for number in range(1, options.count // 2 + 1)]
    on_one: list[tuple[float, float]] = []
    on_two: list[tuple[float, float]] = []
    with fleet.Host(options.count):
        try:
            ours.prepare()
            ours.paths.config_file.write_text(_SETTINGS + ours.paths.config_file.read_text("ascii"), "ascii")
            ours.end()
            root = ours.paths.state / "root"
            root.mkdir(parents=True)
            small_root.make(root, greet="1")
            first = freeze(ours, root)
            patch(root)
            small_root.install(root, greet="2")
            second = freeze(ours, root)
            ours.cli("create", PREFIX, "-n", str(options.count), "--", "sleep", "infinity")
            for _ in range(options.rounds):
                ours.cli("rollback", "--all", "--to", first)
                on_one.append(used())
                ours.cli("rollback", *half, "--to", second)
                on_two.append(used())
        finally:
            ours.destroy()
            ours.end()
            ours.clear()
    one, two = (statistics.median(sizes for sizes, _ in each) for each in (on_one, on_two))
    kernel = [statistics.median(sizes for _, sizes in each) for each in (on_one, on_two)]
    print(f"{options.count} containers on one generation: {one:.1f} MiB, on two: {two:.1f} MiB (medians, PSS): "
          f"{two / one:.3f} times; the whole kernel's own: {kernel[0]:.0f} and {kernel[1]:.0f} MiB")  # fmt: skip
    return int(two > LIMIT * one)


if __name__ == "__main__":
    sys.exit(main())
