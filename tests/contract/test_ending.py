"""A daemon that has ended holds nothing of the host's."""

from __future__ import annotations

import gc
import os
from collections import Counter
from pathlib import Path

from lxcfleet.api.requests import CreateRequest

from .real_daemon import Daemon


def held() -> Counter[str]:
    """What this process has open, by kind; not sockets, which asyncio and clients close some time after their end."""
    found: Counter[str] = Counter()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            kind = os.readlink(descriptor).split(":[")[0]
        except FileNotFoundError:  # the one that listed the directory
            continue
        if kind != "socket":
            found[kind] += 1
    return found


def run(directory: Path) -> None:
    """A daemon from its start to its end, with containers that run on."""
    with Daemon(directory) as daemon:
        before = held()
        daemon.create(CreateRequest("a", 3, False, True, said={"command": ("sleep", "infinity")}))
        assert held() - before != Counter()


def test_nothing_stays_open(tmp_path: Path) -> None:
    """Among it are watches of file systems, of which all of root's processes together can have 128."""
    gc.collect()  # what tests before this one left is not closed during it
    before = held()
    run(tmp_path)
    assert held() - before == Counter()
