"""Starts that are owed, and that a full disk took no note of: noted in /run, for the next daemon.

The note goes with a reboot of the host, which starts what ran before in any case. Where /run takes no note either, only this
daemon knows.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from lxcfleet.containers.container import Container
from lxcfleet.paths import Paths

log = logging.getLogger(__name__)


def note(paths: Paths, name: str, *, owed: bool) -> None:
    """Note that a container is to run, or that this is no longer so."""
    file = paths.owed_start(name)
    try:
        if owed:
            file.parent.mkdir(mode=0o700, exist_ok=True)
            file.touch(mode=0o600)
        else:
            file.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s: whether a start is owed to it is known to this daemon alone: %s", name, error)


def recall(paths: Paths, containers: Iterable[Container]) -> None:
    """The daemon begins: have it know what the one before it could note nowhere else."""
    known = {container.name: container for container in containers}
    try:
        names = os.listdir(paths.owed_starts)
    except OSError:
        return  # nothing was ever noted
    for name in names:
        if name in known:
            known[name].owed = True
        else:
            note(paths, name, owed=False)
