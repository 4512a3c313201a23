"""A daemon that has ended holds nothing of the host's."""

from __future__ import annotations

import gc
import os
from collections import Counter
from pathlib import Path

from lxcfleet.api.requests import CreateRequest

from .real_daemon import Daemon


def held() -> Counter[str]:
    """What this process has open, by kind: sockets of clients are closed when they are collected."""
    gc.collect()
    found: Counter[str] = Counter()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found[os.readlink(descriptor).split("[")[0]] += 1
        except FileNotFoundError:  # the one that listed the directory
            continue
    return found


def run(directory: Path) -> None:
    """A daemon from its start to its end, with containers that run on."""
    with Daemon(directory) as daemon:
        before = held()
        daemon.create(CreateRequest("a", 3, False, True, said={"command": ("sleep", "infinity")}))
        assert held() - before != Counter()


def test_nothing_stays_open(tmp_path: Path) -> None:
    """Among it are watches of file systems, of which all of root's processes together can have 128."""
    before = held()
    run(tmp_path)
    assert held() - before == Counter()
