#!/usr/bin/python3
"""Measure the cost of `cve` over many containers whose packages have all changed since they began.

    /usr/bin/python3 bench/cve.py [--count 100] [--packages 1500] [--holes 3] [--rounds 5]

Needs root, dpkg and a minute. The containers are made to have begun with another version of each of the host's packages, and
with further packages that the host does not have, so that every changelog of the host is read. debsecan's data has holes in
each source. Then each container has begun with a set of packages that differs from all others in openssl. The benchmark has a
fleet of its own. Exit status: 0, or 1 if the target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import zlib
from functools import lru_cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import fleet
from bench.run import DIRECTORY, RUN
from bench.stale import measure
from lxcfleet.api.client import Client
from lxcfleet.api.queries import VerifyRequest
from lxcfleet.base.merge import reconcile
from lxcfleet.base.merge.records import STATUS
from lxcfleet.base.present import Bottom
from lxcfleet.base.stack import base
from lxcfleet.patch.cve import inventory
from lxcfleet.patch.cve.changelog import Changelog
from lxcfleet.patch.cve.shelf import ChangelogShelf, OfBase
from lxcfleet.paths import Paths
from lxcfleet.spec.selection import Selection

_ALL = Selection()
_CVE = "CVE-2099-0001"
LIMIT = 2.0


@lru_cache
def oldest() -> dict[str, str]:
    """The version of the oldest entry in the changelog of each of the host's sources."""
    shelf = ChangelogShelf(OfBase(Bottom(base(Paths()))))
    sources = inventory.by_source(inventory.read(Path(STATUS).read_bytes()).values())
    logs = {source: shelf.of(source, packages) for source, packages in sources.items()}
    return {source: log.versions[-1] for source, log in logs.items() if isinstance(log, Changelog)}


def before(status: bytes, count: int, mark: str = "") -> bytes:
    """dpkg's status with the oldest version of each package, and further packages, until there are ``count`` of them."""
    packages = inventory.read(status)
    entry = "Package: {0.name}\nStatus: a b installed\nArchitecture: {0.architecture}\nSource: {0.source}\nVersion: {1}"
    old = "\n\n".join(
        entry.format(each, oldest().get(each.source, "0") + mark * (each.source == "openssl")) for each in packages.values()
    ).encode()
    more = count - len(packages)
    extra = b"Package: lxcfleet-bench%d\nStatus: install ok installed\nArchitecture: all\nVersion: 1"
    return b"\n\n".join([old, *(extra % number for number in range(more))]) + b"\n\n"


def begin_with(ours: fleet.Fleet, name: str, count: int, mark: str = "") -> None:
    """Have a container begin with other packages than the host's."""
    own = ours.paths.container(name)
    known = reconcile.file_at_last_start(ours.paths, name, STATUS)
    if known is None:
        raise fleet.Failed(f"the packages with which {name} began are not known")
    packed = reconcile._pack({STATUS: before(known, count, mark)})
    digest = reconcile._digest(packed)
    own.base_snapshot(digest).write_bytes(packed)
    own.base_record.write_text(json.dumps({"base": digest, "conflicts": []}))


def data(directory: Path, holes: int) -> None:
    """Write data with so many holes in each source of the host's: one open, the others closed by the present version."""
    sources = inventory.by_source(inventory.read(Path(STATUS).read_bytes()).values())
    lines = ["VERSION 0"]
    for number, (source, packages) in enumerate(sources.items()):
        fixed = packages[0].source_version
        for hole in range(holes):
            lines.append(f"CVE-2099-{10000 + number * holes + hole},SM F,{source},{fixed if hole else ''},a hole")
    lines.append(f"{_CVE},SM F,{next(iter(sources))},0,a hole")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "GENERIC").write_bytes(zlib.compress("\n".join(lines).encode() + b"\n"))


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description="measure what a look at CVEs costs")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="containers (default: 100)")
    parser.add_argument("--packages", type=int, default=1500, metavar="N", help="with which they began (default: 1500)")
    parser.add_argument("--holes", type=int, default=3, metavar="N", help="of each source in the data (default: 3)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of each measurement (default: 5)")
    options = parser.parse_args()
    with fleet.prepared(DIRECTORY / "fleet", RUN, options.count) as ours:
        ours.cli("create", fleet.PREFIX, "-n", str(options.count), "--", "sleep", "infinity")
        return _measure(ours, options)


def _measure(ours: fleet.Fleet, options: argparse.Namespace) -> int:
    client, rows = Client(ours.paths), []
    verify = VerifyRequest(_ALL, (), False, (_CVE,))

    def rounds(words: str, limit: float | None) -> None:
        plain, command, proof = measure(
            options.rounds, lambda: client.cves(_ALL), lambda: ours.cli("cve", "-q"), lambda: client.verify(verify)
        )
        found = client.cves(_ALL)
        print(f"{words}: {found['sets']} sets, {len(found['cves'])} CVEs in packages, {len(found['unread'])} not known")
        rows.extend([(f"cve, {words}", plain, limit), (f"lxcfleet cve, {words}", command, limit)])
        rows.append((f"verify --cve, {words}", proof, limit))

    for name in ours.names:
        begin_with(ours, name, options.packages)
    rounds("one set", LIMIT)
    data(DIRECTORY / "fleet/data", options.holes)
    settings = ours.paths.config_file.read_text()
    ours.paths.config_file.write_text(f"{settings}cve: {{source: {DIRECTORY / 'data'}}}\n")
    ours.end()
    ours.cli("list")  # starts the daemon anew, with the data
    rounds("with data", LIMIT)
    for name in ours.names:
        begin_with(ours, name, options.packages, name)
    rounds("a set each", None)
    print(f"{len(ours.names)} containers, {options.packages} packages, load {os.getloadavg()[0]:.1f}")
    for what, seconds, limit in rows:
        told = f"  target {limit:g} s{'' if seconds <= limit else ', MISSED'}" if limit else ""
        print(f"  {what:28} {seconds * 1000:8.0f} ms{told}")
    return 0 if all(limit is None or seconds <= limit for _, seconds, limit in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
