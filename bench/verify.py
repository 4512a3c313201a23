#!/usr/bin/python3
"""Measure the cost of a proof: `verify --deep --package` over many containers after a patch of some packages.

    /usr/bin/python3 bench/verify.py [--count 100] [--packages 5] [--files 100] [--rounds 5]

Needs root, dpkg and a minute. The containers have read each file of the packages; then the packages are patched. The proof
is compared with a bare loop that reads the same maps and asks the host for the same files, once for each container. The
benchmark has a fleet and packages of its own. Exit status: 0, or 1 if the target is missed or an old file is not found.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import fleet
from bench.run import DIRECTORY, RUN
from bench.stale import measure
from lxcfleet.api.client import Client
from lxcfleet.api.queries import VerifyRequest
from lxcfleet.host.process import cgroup
from lxcfleet.spec.selection import Selection

_ALL = Selection()
_NAME = "lxcfleet-bench-verify"
_HOME = Path("/usr/lib") / _NAME
LIMIT = 2.0
_SURE = 0.99
"""The share of old files that has to be found: the kernel may drop entries of its cache, and does not serve those then."""
_TRIES = 60


def build(directory: Path, name: str, version: str, files: int) -> Path:
    """Build a package with small files of its own; returns the .deb."""
    tree = directory / f"{name}-{version}"
    home = tree / (_HOME / name).relative_to("/")
    home.mkdir(parents=True)
    for number in range(files):
        (home / str(number)).write_text(f"{name} {version} {number}\n" * 100)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: bench\n"
    )
    deb = directory / f"{name}_{version}.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, deb], check=True, capture_output=True)
    return deb


def dpkg(*arguments: str | Path) -> None:
    """Run dpkg; try again while another process holds dpkg's lock."""
    for _ in range(_TRIES):
        done = subprocess.run(["dpkg", *arguments], text=True, capture_output=True, check=False)
        if done.returncode == 0:
            return
        if "lock" not in done.stderr:
            break
        time.sleep(1)
    raise fleet.Failed(f"dpkg {arguments[0]} failed: {done.stderr}")


def bare(pids: Sequence[int], count: int, files: Sequence[Path]) -> None:
    """The least possible work: read the maps of each process, and ask for each file once for each container."""
    for pid in pids:
        with open(f"/proc/{pid}/maps", "rb") as file:
            file.read()
    for _ in range(count):
        for path in files:
            os.stat(path)


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description="measure what a proof costs")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="containers (default: 100)")
    parser.add_argument("--packages", type=int, default=5, metavar="N", help="patched packages (default: 5)")
    parser.add_argument("--files", type=int, default=100, metavar="N", help="in each of them (default: 100)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of each measurement (default: 5)")
    options = parser.parse_args()
    ours = fleet.Fleet(DIRECTORY / "fleet", RUN, options.count)
    names = [f"{_NAME}{number}" for number in range(options.packages)]
    with fleet.Host(options.count), tempfile.TemporaryDirectory() as scratch:
        one, two = ([build(Path(scratch), name, version, options.files) for name in names] for version in "12")
        try:
            dpkg("--install", *one)
            ours.prepare()
            script = f"cat {_HOME}/*/* >/dev/null; touch /ready; sleep infinity"
            ours.cli("create", fleet.PREFIX, "-n", str(options.count), "--", "sh", "-c", script)
            while not all((ours.paths.container(name).delta / "ready").exists() for name in ours.names):
                time.sleep(0.1)
            dpkg("--install", *two)
            return _measure(ours, names, options)
        finally:
            ours.cli("destroy", "--all", "--force")
            ours.end()
            ours.clear()
            dpkg("--purge", *names)


def _measure(ours: fleet.Fleet, names: Sequence[str], options: argparse.Namespace) -> int:
    client = Client(ours.paths)
    cgroups = [cgroup.payload(record["pid"] or 0, record["name"]).directory for record in client.containers(_ALL)]
    pids = [pid for directory in cgroups for pid in cgroup.members(str(directory))[0]]
    files = [path for name in names for path in (_HOME / name).iterdir()]
    deep = VerifyRequest(_ALL, tuple(names), True)
    proof = client.verify(deep)
    old = [sum(file["why"] == "served" for file in record["old"]) for record in proof["containers"]]
    floor, stale, named, whole = measure(
        options.rounds, lambda: bare(pids, options.count, files), lambda: client.stale(_ALL), lambda: client.verify(deep),
        lambda: client.verify(VerifyRequest(_ALL, (), True)),
    )
    compared = sum(record["compared"] for record in proof["containers"])
    print(f"{len(old)} containers, {compared} files compared, {sum(old)} found old, load {os.getloadavg()[0]:.1f}")
    rows = [("bare loop", floor), ("stale", stale), ("verify --deep --package …", named), ("verify --deep", whole)]
    for what, seconds in rows:
        limit = f"  target {LIMIT:g} s{'' if seconds <= LIMIT else ', MISSED'}" if what.startswith("verify") else ""
        print(f"  {what:26} {seconds * 1000:8.0f} ms  {seconds / floor:5.2f} x{limit}")
    found = sum(old) >= _SURE * len(old) * len(files)
    if not found:
        print(f"  MISSED: of {len(old) * len(files)} old files too few were found")
    return 0 if found and max(named, whole) <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
